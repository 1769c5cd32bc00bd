#include "train/experts.h"

#include <string.h>

#include "base/memory.h"
#include "train/experts_internal.h"

enum { LINE = 16 /* floats */ };

/* ---- memory --------------------------------------------------------------------------------- */

void train_experts_save(const model_config *config, int64_t n_tokens, train_experts_grown *grown,
                        train_arena *arena, train_experts_saved *saved)
{
    int64_t experts = config->n_experts, used = config->n_experts_used;
    int64_t rows = n_tokens * used;
    *saved = (train_experts_saved){.rows_capacity = rows, .grown = grown};
    saved->probs = train_arena_floats(arena, n_tokens * experts);
    saved->lse = train_arena_floats(arena, n_tokens);
    saved->chosen = train_arena_take(arena, rows, sizeof *saved->chosen);
    saved->weight = train_arena_floats(arena, rows);
    saved->room = train_arena_floats(arena, 2 * rows * config->expert_dim);
    saved->counts = train_arena_take(arena, 2 * experts, sizeof *saved->counts);
}

train_experts_work *train_experts_plan(const model_config *config, const train_comm *comm,
                                       int64_t n_tokens, train_arena *arena)
{
    int64_t embd = config->n_embd, experts = config->n_experts;
    int64_t pairs = n_tokens * config->n_experts_used;
    int64_t blocks = train_parts(n_tokens, TRAIN_TOKEN_BLOCK);
    train_experts_work work = {0}, *out = train_arena_take(arena, 1, sizeof work);
    work.normed = train_arena_floats(arena, n_tokens * embd);
    work.dnormed = train_arena_floats(arena, n_tokens * embd);
    work.rows = train_arena_floats(arena, pairs * embd);
    work.row_of = train_arena_take(arena, pairs, sizeof *work.row_of);
    work.token = train_arena_take(arena, pairs, sizeof *work.token);
    work.scale = train_arena_floats(arena, pairs);
    work.u = train_arena_floats(arena, pairs);
    work.first = train_arena_take(arena, 2 * (experts + 1), sizeof *work.first);
    work.traffic = train_arena_take(arena, 2 * experts, sizeof *work.traffic);
    work.draws = train_arena_floats(arena, experts + 1);
    work.aux = train_arena_floats(arena, experts);
    work.sums = train_arena_floats(arena, blocks * experts);
    work.moments = train_arena_take(arena, 2 * blocks, sizeof *work.moments);
    work.all = train_arena_take(arena, experts, sizeof *work.all);
    work.norm_partial = train_arena_floats(arena, train_norm_partial(n_tokens, embd));
    train_room_take(&work.room, config, comm->size[TRAIN_EXPERTS] > 1, pairs, arena);
    if (out)
        *out = work;
    return out;
}

int64_t train_experts_scratch(const model_config *config)
{
    int64_t router = train_router_scratch(config), grouped = train_grouped_scratch(config);
    return router > grouped ? router : grouped;
}

void train_experts_grown_release(train_experts_grown *grown)
{
    if (!grown)
        return;
    base_free(grown->memory);
    *grown = (train_experts_grown){0};
}

void train_experts_work_release(train_experts_work *work)
{
    if (!work)
        return;
    base_free(work->room.grown);
    work->room.grown = NULL;
    work->room.capacity = 0;
}

/* ---- both ways ------------------------------------------------------------------------------ */

static train_sparse sparse(const train_context *ctx, int32_t layer, const train_tokens *tokens,
                           const train_routing *routing, const train_routing_pass *pass,
                           train_experts_saved *saved, train_experts_work *work,
                           train_routing_stats *stats)
{
    const model_config *c = &ctx->params->config;
    int64_t real = tokens->n;
    if (tokens->lengths) {
        real = 0;
        for (int64_t i = 0; i < tokens->n_seqs; i++)
            real += tokens->lengths[i];
    }
    return (train_sparse){.ctx = ctx,
                          .routing = routing,
                          .pass = pass,
                          .saved = saved,
                          .work = work,
                          .stats = stats,
                          .layer = layer,
                          .tokens = tokens,
                          .n = tokens->n,
                          .real = real,
                          .pairs = real * c->n_experts_used,
                          .embd = c->n_embd,
                          .width = c->expert_dim,
                          .experts = c->n_experts,
                          .used = c->n_experts_used};
}

static bool has_several(const train_sparse *s)
{
    return s->ctx->comm->size[TRAIN_EXPERTS] > 1;
}

static const train_param *param_of(const train_sparse *s, model_role role)
{
    return train_params_find(s->ctx->params, role, s->layer);
}

/* Products with rows as they are here, or as they arrived. */
static train_grouped grouped(const train_sparse *s)
{
    const train_experts_work *work = s->work;
    train_grouped g = {.s = s,
                       .gate = param_of(s, MODEL_EXPERT_GATE),
                       .up = param_of(s, MODEL_EXPERT_UP),
                       .down = param_of(s, MODEL_EXPERT_DOWN)};
    g.n_experts = g.gate->mats;
    g.scattered = has_several(s);
    if (g.scattered) {
        g.first = work->first + s->experts + 1;
        g.from = work->room.from;
        g.x = work->room.x;
        g.d = work->room.d;
        g.u = work->room.u;
    } else {
        g.first = work->first;
        g.from = work->token;
        g.x = work->normed;
        g.d = s->d;
        g.scale = work->scale;
        g.u = work->u;
        g.out = work->rows;
    }
    return g;
}

/* The token's rows, each multiplied by its scale if there is one, in the order of its choices. */
static void add_rows(const train_sparse *s, int64_t t, const float *scale, float *out)
{
    const int64_t *row_of = s->work->row_of + t * s->used;
    /* The next token's lie all over memory. */
    bool more = t + 1 < s->n && !train_is_padding(s->tokens, t + 1);
    for (int64_t k = 0; k < s->used && more; k++)
        for (int64_t i = 0; i < s->embd; i += LINE)
            __builtin_prefetch(s->work->rows + row_of[s->used + k] * s->embd + i);
    for (int64_t k = 0; k < s->used; k++)
        s->ctx->kern->axpy(scale ? scale[t * s->used + k] : 1, s->work->rows + row_of[k] * s->embd,
                           out, s->embd);
}

/* Rows for other processes, in the order of experts. */
typedef struct packing {
    const train_sparse *s;
    const float *x, *scale;
} packing;

static void pack_part(void *user, int64_t part, int thread)
{
    (void)thread;
    const packing *p = user;
    const train_sparse *s = p->s;
    int64_t row0 = part * TRAIN_TOKEN_BLOCK;
    int64_t n = train_span(s->pairs, row0, TRAIN_TOKEN_BLOCK);
    train_gather(p->x, s->embd, s->work->token, p->scale, row0, n, 0, s->embd,
                 s->work->rows + row0 * s->embd);
}

static marco_status send_rows(const train_sparse *s, const float *x, const float *scale,
                              float *arrived, marco_error *error)
{
    packing p = {s, x, scale};
    base_pool_run(s->ctx->pool, pack_part, &p, train_parts(s->pairs, TRAIN_TOKEN_BLOCK));
    return train_dispatch_send(s, s->work->rows, arrived, s->embd, error);
}

/* ---- forward -------------------------------------------------------------------------------- */

static void combine_part(void *user, int64_t part, int thread)
{
    (void)thread;
    const train_sparse *s = user;
    int64_t end = train_part_end(s->n, part, TRAIN_TOKEN_BLOCK);
    for (int64_t t = part * TRAIN_TOKEN_BLOCK; t < end; t++) {
        float *out = s->out + t * s->embd;
        memcpy(out, s->x + t * s->embd, (size_t)s->embd * sizeof *out);
        if (!train_is_padding(s->tokens, t))
            add_rows(s, t, s->saved->weight, out);
    }
}

/* work->rows becomes the experts' outputs. */
static marco_status run_experts(const train_sparse *s, marco_error *error)
{
    if (!has_several(s)) {
        train_grouped g = grouped(s);
        s->saved->n_rows = s->pairs;
        train_saved_place(s->saved, s->width);
        train_grouped_forward(&g);
        return MARCO_OK;
    }
    marco_status status = train_dispatch_announce(s, error);
    if (status)
        return status;
    train_saved_place(s->saved, s->width);
    train_dispatch_arrange(s);
    train_grouped g = grouped(s);
    status = send_rows(s, s->work->normed, NULL, s->work->room.x, error);
    if (status)
        return status;
    g.out = s->work->room.x;
    train_grouped_forward(&g);
    return train_dispatch_return(s, g.out, s->work->rows, s->embd, error);
}

marco_status train_experts(const train_context *ctx, int32_t layer, const train_tokens *tokens,
                           const train_routing *routing, const train_routing_pass *pass, bool again,
                           const float *x, train_experts_saved *saved, train_experts_work *work,
                           train_routing_stats *stats, float *out, marco_error *error)
{
    train_sparse s = sparse(ctx, layer, tokens, routing, pass, saved, work, stats);
    s.x = x;
    s.out = out;
    train_norm(ctx, param_of(&s, MODEL_FFN_NORM), x, s.n, work->normed);
    train_linear(ctx, param_of(&s, MODEL_ROUTER), 0, work->normed, s.n, saved->probs, false);
    train_router_choose(&s);
    train_dispatch_sort(&s);
    marco_status status = MARCO_OK;
    if (pass->training && !again)
        status = train_router_count(&s, error);
    if (!status)
        status = run_experts(&s, error);
    if (!status)
        base_pool_run(ctx->pool, combine_part, &s, train_parts(s.n, TRAIN_TOKEN_BLOCK));
    return status;
}

/* ---- backward ------------------------------------------------------------------------------- */

static void sum_part(void *user, int64_t part, int thread)
{
    (void)thread;
    const train_sparse *s = user;
    int64_t end = train_part_end(s->n, part, TRAIN_TOKEN_BLOCK);
    for (int64_t t = part * TRAIN_TOKEN_BLOCK; t < end; t++) {
        float *out = s->work->dnormed + t * s->embd;
        memset(out, 0, (size_t)s->embd * sizeof *out);
        if (!train_is_padding(s->tokens, t))
            add_rows(s, t, NULL, out);
    }
}

/* work->rows becomes the gradients of the experts' inputs, work->u is filled. */
static marco_status run_experts_back(const train_sparse *s, marco_error *error)
{
    train_experts_work *work = s->work;
    if (!has_several(s)) {
        train_grouped g = grouped(s);
        train_grouped_back(&g);
        return MARCO_OK;
    }
    train_dispatch_arrange(s);
    train_grouped g = grouped(s);
    marco_status status = send_rows(s, work->normed, NULL, work->room.x, error);
    if (!status)
        status = send_rows(s, s->d, work->scale, work->room.d, error);
    if (status)
        return status;
    g.out = work->room.d;
    train_grouped_back(&g);
    status = train_dispatch_return(s, g.out, work->rows, s->embd, error);
    return status ? status : train_dispatch_return(s, g.u, work->u, 1, error);
}

marco_status train_experts_back(const train_context *ctx, int32_t layer, const train_tokens *tokens,
                                const train_routing *routing, const train_routing_pass *pass,
                                const float *x, train_experts_saved *saved,
                                train_experts_work *work, train_routing_stats *stats, float *d,
                                marco_error *error)
{
    train_sparse s = sparse(ctx, layer, tokens, routing, pass, saved, work, stats);
    const train_param *norm = param_of(&s, MODEL_FFN_NORM);
    s.x = x;
    s.d = d;
    train_norm(ctx, norm, x, s.n, work->normed);
    train_dispatch_sort(&s);
    marco_status status = run_experts_back(&s, error);
    if (status)
        return status;
    base_pool_run(ctx->pool, sum_part, &s, train_parts(s.n, TRAIN_TOKEN_BLOCK));
    train_router_back(&s);
    train_linear_back(ctx, param_of(&s, MODEL_ROUTER), 0, work->normed, saved->probs, s.n,
                      work->dnormed, true);
    train_norm_back(ctx, norm, x, work->dnormed, s.n, d, work->norm_partial);
    return MARCO_OK;
}
