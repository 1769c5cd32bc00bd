/* The attention half of a layer. Formulas stand beside each step; the streaming core is in
 * attention_tiles.c. */
#include "train/attention.h"

#include <string.h>

#include "train/attention_tiles.h"

enum { TOKENS_A_PART = 64 };

struct train_attention_work {
    float *n, *dn;  /* [T, E] rmsnorm(x) and its gradient */
    float *q, *k;   /* [T, H*D], [T, G*D] normalised and turned; then q's gradient */
    float *d_o;     /* [T, H*D] the gradient of o; then q's before norm and RoPE */
    float *dk, *dv; /* [T, G*D] */
    float *partial; /* of the sums over rows */
};

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void train_attention_save(const model_config *config, int64_t n_tokens, train_arena *arena,
                          train_attention_saved *saved)
{
    int64_t queries = n_tokens * config->n_heads, keys = n_tokens * config->n_kv_heads;
    saved->q = train_arena_floats(arena, queries * config->head_dim);
    saved->k = train_arena_floats(arena, keys * config->head_dim);
    saved->v = train_arena_floats(arena, keys * config->head_dim);
    saved->o = train_arena_floats(arena, queries * config->head_dim);
    saved->lse = train_arena_floats(arena, queries);
}

train_attention_work *train_attention_plan(const model_config *config, int64_t n_tokens,
                                           train_arena *arena)
{
    int64_t queries = n_tokens * config->n_heads, keys = n_tokens * config->n_kv_heads;
    int64_t dim = config->head_dim, embd = n_tokens * config->n_embd;
    int64_t partial = train_norm_partial(n_tokens, config->n_embd);
    if (config->qk_norm)
        partial = larger(partial, train_norm_partial(queries, dim));
    train_attention_work *work = train_arena_take(arena, 1, sizeof *work);
    train_attention_work parts = {
        .n = train_arena_floats(arena, embd),
        .dn = train_arena_floats(arena, embd),
        .q = train_arena_floats(arena, queries * dim),
        .k = train_arena_floats(arena, keys * dim),
        .d_o = train_arena_floats(arena, queries * dim),
        .dk = train_arena_floats(arena, keys * dim),
        .dv = train_arena_floats(arena, keys * dim),
        .partial = train_arena_floats(arena, partial),
    };
    if (work)
        *work = parts;
    return work;
}

int64_t train_attention_scratch(const model_config *config)
{
    /* A norm's weight, or a position's negated sines; the tiles. */
    return larger(config->head_dim, train_attend_scratch(config->head_dim));
}

/* ---- norm and RoPE, a block of tokens a part ----------------------------------------------- */

typedef struct turning {
    const train_context *ctx;
    const train_tokens *tokens;
    const train_param *weight; /* NULL: no norm */
    int64_t n_heads;
    const float *x; /* [T, n_heads * D] */
    float *out;     /* the same */
} turning;

static int64_t position(const train_tokens *tokens, int64_t token)
{
    return token % tokens->seq_len - tokens->starts[token];
}

/* out = rope(norm(x)), each head by itself. */
static void turn_part(void *user, int64_t part, int thread)
{
    const turning *t = user;
    const train_context *ctx = t->ctx;
    const model_config *config = &ctx->params->config;
    int64_t dim = config->head_dim, row = t->n_heads * dim;
    const float *weight =
        t->weight ? train_weight(ctx->params, t->weight, 0, 0, 1, ctx->scratch[thread]) : NULL;
    int64_t end = train_part_end(t->tokens->n, part, TOKENS_A_PART);
    for (int64_t i = part * TOKENS_A_PART; i < end; i++) {
        int64_t angle = position(t->tokens, i) * (dim / 2);
        for (int64_t head = i * row; head < (i + 1) * row; head += dim) {
            if (weight)
                ctx->kern->rmsnorm(t->x + head, weight, t->out + head, dim, (float)config->rms_eps);
            else
                memcpy(t->out + head, t->x + head, (size_t)dim * sizeof *t->x);
            ctx->kern->rope(t->out + head, ctx->rope_cos + angle, ctx->rope_sin + angle, dim);
        }
    }
}

/* The gradient of what RoPE was given: `out`, in place, turned by the opposite angle. */
static void turn_back_part(void *user, int64_t part, int thread)
{
    const turning *t = user;
    const train_context *ctx = t->ctx;
    int64_t dim = ctx->params->config.head_dim, row = t->n_heads * dim;
    float *opposite = ctx->scratch[thread];
    int64_t end = train_part_end(t->tokens->n, part, TOKENS_A_PART);
    for (int64_t i = part * TOKENS_A_PART; i < end; i++) {
        int64_t angle = position(t->tokens, i) * (dim / 2);
        for (int64_t j = 0; j < dim / 2; j++)
            opposite[j] = -ctx->rope_sin[angle + j];
        for (int64_t head = i * row; head < (i + 1) * row; head += dim)
            ctx->kern->rope(t->out + head, ctx->rope_cos + angle, opposite, dim);
    }
}

static void run_parts(base_task_fn fn, turning *t)
{
    base_pool_run(t->ctx->pool, fn, t, train_parts(t->tokens->n, TOKENS_A_PART));
}

/* ---- the half layer ------------------------------------------------------------------------ */

static const train_param *find(const train_context *ctx, model_role role, int32_t layer)
{
    return train_params_find(ctx->params, role, layer);
}

/* work->q, work->k = rope(norm(q)), rope(norm(k)) */
static void turn(const train_context *ctx, int32_t layer, const train_tokens *tokens,
                 const train_attention_saved *saved, train_attention_work *work)
{
    const model_config *config = &ctx->params->config;
    turning q = {ctx,
                 tokens,
                 config->qk_norm ? find(ctx, MODEL_ATTN_Q_NORM, layer) : NULL,
                 config->n_heads,
                 saved->q,
                 work->q};
    turning k = {ctx,
                 tokens,
                 config->qk_norm ? find(ctx, MODEL_ATTN_K_NORM, layer) : NULL,
                 config->n_kv_heads,
                 saved->k,
                 work->k};
    run_parts(turn_part, &q);
    run_parts(turn_part, &k);
}

/* The gradient of what the norm was given, in `out` or where there is no norm in `d` itself, from
 * that of what RoPE gave, in `d`. x [T, n_heads * D] is what the norm was given. */
static const float *turn_back(const train_context *ctx, const train_tokens *tokens,
                              const train_param *weight, int64_t n_heads, const float *x, float *d,
                              float *out, float *partial)
{
    turning t = {ctx, tokens, weight, n_heads, NULL, d};
    run_parts(turn_back_part, &t);
    if (!weight)
        return d;
    int64_t rows = tokens->n * n_heads;
    memset(out, 0, (size_t)(rows * ctx->params->config.head_dim) * sizeof *out);
    train_norm_back(ctx, weight, x, d, rows, out, partial);
    return out;
}

static train_attend attend_of(const train_context *ctx, const train_tokens *tokens,
                              const train_attention_saved *saved, const train_attention_work *work)
{
    const model_config *config = &ctx->params->config;
    return (train_attend){
        .ctx = ctx,
        .tokens = tokens,
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_kv_heads,
        .dim = config->head_dim,
        .q = work->q,
        .k = work->k,
        .v = saved->v,
        .o = saved->o,
        .lse = saved->lse,
        .d_o = work->d_o,
        .dk = work->dk,
        .dv = work->dv,
    };
}

void train_attention(const train_context *ctx, int32_t layer, const train_tokens *tokens,
                     const float *x, const train_attention_saved *saved, train_attention_work *work,
                     float *out)
{
    const model_config *config = &ctx->params->config;
    int64_t n = tokens->n;
    /* n = rmsnorm(x); q, k, v = Wq n, Wk n, Wv n */
    train_norm(ctx, find(ctx, MODEL_ATTN_NORM, layer), x, n, work->n);
    train_linear(ctx, find(ctx, MODEL_ATTN_Q, layer), 0, work->n, n, saved->q, false);
    train_linear(ctx, find(ctx, MODEL_ATTN_K, layer), 0, work->n, n, saved->k, false);
    train_linear(ctx, find(ctx, MODEL_ATTN_V, layer), 0, work->n, n, saved->v, false);
    turn(ctx, layer, tokens, saved, work);
    train_attend a = attend_of(ctx, tokens, saved, work);
    train_attend_forward(&a);
    /* out = x + Wo o */
    memcpy(out, x, (size_t)(n * config->n_embd) * sizeof *out);
    train_linear(ctx, find(ctx, MODEL_ATTN_OUT, layer), 0, saved->o, n, out, true);
}

void train_attention_back(const train_context *ctx, int32_t layer, const train_tokens *tokens,
                          const float *x, const train_attention_saved *saved,
                          train_attention_work *work, float *d)
{
    const model_config *config = &ctx->params->config;
    const train_param *q_norm = config->qk_norm ? find(ctx, MODEL_ATTN_Q_NORM, layer) : NULL;
    const train_param *k_norm = config->qk_norm ? find(ctx, MODEL_ATTN_K_NORM, layer) : NULL;
    int64_t n = tokens->n;
    /* out = x + Wo o */
    train_linear_back(ctx, find(ctx, MODEL_ATTN_OUT, layer), 0, saved->o, d, n, work->d_o, false);
    turn(ctx, layer, tokens, saved, work);
    train_attend a = attend_of(ctx, tokens, saved, work);
    train_attend_back(&a);
    /* The gradients of rope(norm(q)) and rope(norm(k)) are in work->q and work->dk; the room of
     * what is not needed any more takes those of q and k. */
    const float *dq = turn_back(ctx, tokens, q_norm, config->n_heads, saved->q, work->q, work->d_o,
                                work->partial);
    const float *dk = turn_back(ctx, tokens, k_norm, config->n_kv_heads, saved->k, work->dk,
                                work->k, work->partial);
    /* q, k, v = Wq n, Wk n, Wv n; n = rmsnorm(x) */
    const train_param *norm = find(ctx, MODEL_ATTN_NORM, layer);
    train_norm(ctx, norm, x, n, work->n);
    train_linear_back(ctx, find(ctx, MODEL_ATTN_Q, layer), 0, work->n, dq, n, work->dn, false);
    train_linear_back(ctx, find(ctx, MODEL_ATTN_K, layer), 0, work->n, dk, n, work->dn, true);
    train_linear_back(ctx, find(ctx, MODEL_ATTN_V, layer), 0, work->n, work->dv, n, work->dn, true);
    /* The residual: d holds the gradient of x by the way around already. */
    train_norm_back(ctx, norm, x, work->dn, n, d, work->partial);
}
