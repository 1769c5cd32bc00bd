/* Feed-forward layers.
 *
 *   dense:  down(silu(gate x) * up x)
 *   sparse: p = softmax(router x), the K largest chosen (the lower index wins a tie), their p
 *           renormalised if the model says so; sum over ranks of p_e * expert_e(x)
 *
 * The (token, expert) pairs are sorted by expert, so that an expert's weights are read once for
 * all of its tokens; a token's results are summed in the order of its ranks, so that nothing
 * depends on which other tokens were there. */
#include <string.h>

#include "model/context.h"
#include "model/expert_cache.h"

typedef struct ffn_task {
    model_context *ctx;
    int64_t width; /* F */
    bool f32, q8;  /* forms in which the next product wants its rows */
} ffn_task;

/* gate = silu(gate) * up, and its quantised form for `down`. */
static void activate_row(void *user, int64_t i, int thread)
{
    (void)thread;
    ffn_task *t = user;
    model_context *ctx = t->ctx;
    float *gate = ctx->gate + i * t->width;
    ctx->kernels->swiglu(gate, ctx->up + i * t->width, t->width);
    if (t->q8)
        ctx->kernels->quantize_q8(gate, ctx->activated_q8 + i * (t->width / 32), t->width);
}

void model_ffn(model_context *ctx, int64_t index, int64_t n)
{
    const model_config *c = &ctx->weights->config;
    const model_layer *layer = &ctx->weights->layers[index];
    ffn_task task = {.ctx = ctx, .width = c->ffn_dim, .q8 = model_wants_q8(ctx, &layer->down)};

    model_rows x = {ctx->normed, NULL};
    if (model_wants_q8(ctx, &layer->gate) || model_wants_q8(ctx, &layer->up)) {
        model_quantize(ctx, ctx->normed, ctx->q8, n, c->n_embd);
        x.q8 = ctx->q8;
    }
    ctx->products[0] = (model_product){&layer->gate, 0, x, 0, n, ctx->gate, c->ffn_dim, false};
    ctx->products[1] = (model_product){&layer->up, 0, x, 0, n, ctx->up, c->ffn_dim, false};
    model_multiply(ctx, 2);
    base_pool_run(ctx->pool, activate_row, &task, n);
    model_rows h = {ctx->gate, ctx->activated_q8};
    ctx->products[0] = (model_product){&layer->down, 0, h, 0, n, ctx->projected, c->n_embd, false};
    model_multiply(ctx, 1);
}

/* softmax(logits) -> the K largest by rank, with their weights. */
static void choose_experts(void *user, int64_t i, int thread)
{
    (void)thread;
    ffn_task *t = user;
    model_context *ctx = t->ctx;
    const model_config *c = &ctx->weights->config;
    int32_t used = c->n_experts_used;
    float *p = ctx->router + i * c->n_experts;
    int32_t *chosen = ctx->chosen + (int64_t)i * used;
    float *weight = ctx->weight + (int64_t)i * used;
    float sum = 0;

    ctx->kernels->softmax(p, c->n_experts);
    for (int32_t k = 0; k < used; k++) {
        int32_t best = -1;
        for (int32_t e = 0; e < c->n_experts; e++) {
            /* A chosen expert's probability is set to -1; NaN never beats anything, and some
             * expert is chosen even when all are NaN. */
            if ((best < 0 && p[e] != -1.0f) || (best >= 0 && p[e] > p[best]))
                best = e;
        }
        chosen[k] = best;
        weight[k] = p[best];
        sum += p[best];
        p[best] = -1.0f;
    }
    for (int32_t k = 0; k < used && c->norm_topk_prob; k++)
        weight[k] /= sum;
}

/* Counting sort of the pairs by expert, tokens in order within an expert. */
static void sort_pairs(model_context *ctx, int64_t n)
{
    const model_config *c = &ctx->weights->config;
    int64_t pairs = n * c->n_experts_used;
    memset(ctx->first, 0, (size_t)(c->n_experts + 1) * sizeof *ctx->first);
    for (int64_t j = 0; j < pairs; j++)
        ctx->first[ctx->chosen[j] + 1]++;
    for (int32_t e = 0; e < c->n_experts; e++)
        ctx->first[e + 1] += ctx->first[e];
    for (int64_t j = 0; j < pairs; j++)
        ctx->pair_of[j] = ctx->first[ctx->chosen[j]]++;
    /* Each `first` now stands where the next expert begins: move them back. */
    memmove(ctx->first + 1, ctx->first, (size_t)c->n_experts * sizeof *ctx->first);
    ctx->first[0] = 0;
}

/* Copies token i's row to its pairs' places. */
static void gather_token(void *user, int64_t i, int thread)
{
    (void)thread;
    ffn_task *t = user;
    model_context *ctx = t->ctx;
    const model_config *c = &ctx->weights->config;
    int64_t blocks = c->n_embd / 32;
    for (int32_t k = 0; k < c->n_experts_used; k++) {
        int64_t pair = ctx->pair_of[i * c->n_experts_used + k];
        if (t->q8)
            memcpy(ctx->gathered_q8 + pair * blocks, ctx->q8 + i * blocks,
                   (size_t)blocks * sizeof *ctx->q8);
        if (t->f32)
            memcpy(ctx->gathered + pair * c->n_embd, ctx->normed + i * c->n_embd,
                   (size_t)c->n_embd * sizeof(float));
    }
}

/* projected[i] = sum over ranks of weight * down */
static void combine_token(void *user, int64_t i, int thread)
{
    (void)thread;
    ffn_task *t = user;
    model_context *ctx = t->ctx;
    const model_config *c = &ctx->weights->config;
    float *out = ctx->projected + i * c->n_embd;
    memset(out, 0, (size_t)c->n_embd * sizeof *out);
    for (int32_t k = 0; k < c->n_experts_used; k++) {
        int64_t j = i * c->n_experts_used + k;
        ctx->kernels->axpy(ctx->weight[j], ctx->down + ctx->pair_of[j] * c->n_embd, out, c->n_embd);
    }
}

/* One product per expert of the group. */
static int64_t add_expert_products(model_context *ctx, int64_t at, const model_matrix *w,
                                   model_rows x, float *out, int64_t stride, const int32_t *experts,
                                   int64_t n_experts)
{
    for (int64_t i = 0; i < n_experts; i++) {
        int64_t e = experts[i], first = ctx->first[e], n = ctx->first[e + 1] - first;
        ctx->products[at++] =
            (model_product){w, e, x, first, n, out + first * stride, stride, false};
    }
    return at;
}

typedef struct range_task {
    ffn_task *task;
    int64_t first;
} range_task;

static void activate_in_range(void *user, int64_t i, int thread)
{
    range_task *t = user;
    activate_row(t->task, t->first + i, thread);
}

/* Activates the group's pairs, range by range: all of them are one. */
static void activate_group(model_context *ctx, ffn_task *task, const int32_t *experts, int64_t n)
{
    for (int64_t i = 0; i < n;) {
        range_task range = {task, ctx->first[experts[i]]};
        int64_t end = range.first;
        for (; i < n && ctx->first[experts[i]] == end; i++)
            end = ctx->first[experts[i] + 1];
        base_pool_run(ctx->pool, activate_in_range, &range, end - range.first);
    }
}

/* down(silu(gate x) * up x) for the pairs of some experts. */
static void compute_group(model_context *ctx, const model_layer *layer, const int32_t *experts,
                          int64_t n)
{
    const model_config *c = &ctx->weights->config;
    model_rows x = {ctx->gathered, ctx->gathered_q8};
    model_rows h = {ctx->gate, ctx->activated_q8};
    ffn_task task = {.ctx = ctx, .width = c->expert_dim};
    int64_t at =
        add_expert_products(ctx, 0, &layer->expert_gate, x, ctx->gate, c->expert_dim, experts, n);
    at = add_expert_products(ctx, at, &layer->expert_up, x, ctx->up, c->expert_dim, experts, n);
    model_multiply(ctx, at);
    task.q8 = model_wants_q8(ctx, &layer->expert_down);
    activate_group(ctx, &task, experts, n);
    at = add_expert_products(ctx, 0, &layer->expert_down, h, ctx->down, c->n_embd, experts, n);
    model_multiply(ctx, at);
}

/* The layer's experts, group by group as they are there: in memory, all are one group. */
static marco_status compute_groups(model_context *ctx, int64_t index, marco_error *error)
{
    const model_layer *layer = &ctx->weights->layers[index];
    model_cache *cache = ctx->weights->cache;
    const int32_t *experts = ctx->active;
    marco_status status = MARCO_OK;
    int64_t n = 0;
    for (int32_t e = 0; e < ctx->weights->config.n_experts; e++)
        if (ctx->first[e + 1] > ctx->first[e])
            ctx->active[n++] = e;
    if (!cache) {
        compute_group(ctx, layer, experts, n);
        return MARCO_OK;
    }
    model_cache_begin(cache, index, experts, n);
    while (!(status = model_cache_next(cache, &experts, &n, error)) && n > 0)
        compute_group(ctx, layer, experts, n);
    return status;
}

marco_status model_experts(model_context *ctx, int64_t index, int64_t n, marco_error *error)
{
    const model_config *c = &ctx->weights->config;
    const model_layer *layer = &ctx->weights->layers[index];
    ffn_task task = {.ctx = ctx, .width = c->expert_dim};

    /* The choice of experts is discrete: it is always computed in F32. */
    model_rows x = {ctx->normed, NULL};
    ctx->products[0] = (model_product){&layer->router, 0, x, 0, n, ctx->router, c->n_experts, true};
    model_multiply(ctx, 1);
    base_pool_run(ctx->pool, choose_experts, &task, n);
    if (ctx->trace)
        ctx->trace(ctx->trace_user, ctx->passes, (int32_t)index, ctx->position, n, ctx->chosen,
                   c->n_experts_used);
    sort_pairs(ctx, n);

    bool gate_q8 = model_wants_q8(ctx, &layer->expert_gate);
    bool up_q8 = model_wants_q8(ctx, &layer->expert_up);
    task.q8 = gate_q8 || up_q8;
    task.f32 = !gate_q8 || !up_q8;
    if (task.q8)
        model_quantize(ctx, ctx->normed, ctx->q8, n, c->n_embd);
    base_pool_run(ctx->pool, gather_token, &task, n);
    marco_status status = compute_groups(ctx, index, error);
    if (!status)
        base_pool_run(ctx->pool, combine_token, &task, n);
    return status;
}
