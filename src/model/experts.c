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
    bool f32, q8; /* forms in which gate and up want their rows */
    bool one;     /* token in the pass: its row need not be copied */
} ffn_task;

/* Where the products of gate and up go, in the form that `down` wants. */
static model_product gated(const model_context *ctx, const model_matrix *gate,
                           const model_matrix *up, const model_matrix *down)
{
    model_product p = {.w = gate, .up = up, .out = ctx->hidden, .stride = gate->rows};
    p.out_q8 = model_wants_q8(ctx, down) ? ctx->hidden_q8 : NULL;
    return p;
}

void model_ffn(model_context *ctx, int64_t index, int64_t n)
{
    const model_config *c = &ctx->weights->config;
    const model_layer *layer = &ctx->weights->layers[index];

    model_rows x = {ctx->normed, NULL};
    if (model_wants_q8(ctx, &layer->gate) || model_wants_q8(ctx, &layer->up)) {
        model_quantize(ctx, ctx->normed, ctx->q8, n, c->n_embd);
        x.q8 = ctx->q8;
    }
    ctx->products[0] = gated(ctx, &layer->gate, &layer->up, &layer->down);
    ctx->products[0].x = x;
    ctx->products[0].n = n;
    model_multiply(ctx, 1);
    ctx->products[0] = (model_product){.w = &layer->down,
                                       .x = {ctx->hidden, ctx->hidden_q8},
                                       .n = n,
                                       .out = ctx->projected,
                                       .stride = c->n_embd};
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
    /* A list of the best so far, kept in order: a later expert enters before one that it beats, and
     * so the lower index wins a tie. NaN beats nothing. */
    int32_t n = 0;
    for (int32_t e = 0; e < c->n_experts; e++) {
        float key = p[e] >= 0 ? p[e] : -1.0f;
        if (n == used && !(key > weight[n - 1]))
            continue;
        int32_t at = n < used ? n++ : n - 1;
        for (; at > 0 && key > weight[at - 1]; at--) {
            chosen[at] = chosen[at - 1];
            weight[at] = weight[at - 1];
        }
        chosen[at] = e;
        weight[at] = key;
    }
    for (int32_t k = 0; k < used; k++) {
        weight[k] = p[chosen[k]]; /* NaN, if it was one */
        sum += weight[k];
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

/* Token i's row to its pairs' places, quantised once. */
static void gather_token(void *user, int64_t i, int thread)
{
    (void)thread;
    ffn_task *t = user;
    model_context *ctx = t->ctx;
    const model_config *c = &ctx->weights->config;
    int64_t blocks = c->n_embd / 32;
    if (t->q8)
        ctx->kernels->quantize_q8(ctx->normed + i * c->n_embd, ctx->q8 + i * blocks, c->n_embd);
    for (int32_t k = 0; k < c->n_experts_used && !t->one; k++) {
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

/* One product per expert of the group, like `p`, which is for all pairs, but for its place. Where
 * `shared`, x is one row for all of them. */
static void multiply_experts(model_context *ctx, model_product p, bool shared,
                             const int32_t *experts, int64_t n_experts)
{
    for (int64_t i = 0; i < n_experts; i++) {
        int64_t first = ctx->first[experts[i]], row = shared ? 0 : first;
        model_product *mine = &ctx->products[i];
        *mine = p;
        mine->mat = experts[i];
        mine->n = ctx->first[experts[i] + 1] - first;
        mine->x.f32 = p.x.f32 + row * p.w->cols;
        mine->x.q8 = p.x.q8 + row * (p.w->cols / 32);
        mine->out = p.out + first * p.stride;
        if (p.out_q8)
            mine->out_q8 = p.out_q8 + first * (p.w->rows / 32);
    }
    model_multiply(ctx, n_experts);
}

/* down(silu(gate x) * up x) for the pairs of some experts. */
static void compute_group(model_context *ctx, const model_layer *layer, int64_t tokens,
                          const int32_t *experts, int64_t n)
{
    model_product p = gated(ctx, &layer->expert_gate, &layer->expert_up, &layer->expert_down);
    bool one = tokens == 1; /* its row needs no copies */
    p.x = one ? (model_rows){ctx->normed, ctx->q8} : (model_rows){ctx->gathered, ctx->gathered_q8};
    multiply_experts(ctx, p, one, experts, n);

    p = (model_product){.w = &layer->expert_down,
                        .x = {ctx->hidden, ctx->hidden_q8},
                        .out = ctx->down,
                        .stride = ctx->weights->config.n_embd};
    multiply_experts(ctx, p, false, experts, n);
}

/* The layer's experts that have tokens, group by group as they are there: in memory, all are one
 * group. */
static marco_status compute_groups(model_context *ctx, int64_t index, int64_t tokens,
                                   marco_error *error)
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
        compute_group(ctx, layer, tokens, experts, n);
        return MARCO_OK;
    }
    model_cache_begin(cache, index, experts, n);
    while (!(status = model_cache_next(cache, &experts, &n, error)) && n > 0)
        compute_group(ctx, layer, tokens, experts, n);
    return status;
}

marco_status model_experts(model_context *ctx, int64_t index, int64_t n, marco_error *error)
{
    const model_config *c = &ctx->weights->config;
    const model_layer *layer = &ctx->weights->layers[index];
    ffn_task task = {.ctx = ctx, .one = n == 1};

    /* The choice of experts is discrete: it is always computed in F32. */
    ctx->products[0] = (model_product){.w = &layer->router,
                                       .x = {ctx->normed, NULL},
                                       .n = n,
                                       .out = ctx->router,
                                       .stride = c->n_experts,
                                       .f32 = true};
    model_multiply(ctx, 1);
    base_pool_run(ctx->pool, choose_experts, &task, n);
    if (ctx->trace)
        ctx->trace(ctx->trace_user, ctx->passes, (int32_t)index, ctx->runs[0].sequence.position, n,
                   ctx->chosen, c->n_experts_used);
    sort_pairs(ctx, n);

    bool gate_q8 = model_wants_q8(ctx, &layer->expert_gate);
    bool up_q8 = model_wants_q8(ctx, &layer->expert_up);
    task.q8 = gate_q8 || up_q8;
    task.f32 = !gate_q8 || !up_q8;
    base_pool_run(ctx->pool, gather_token, &task, n);
    marco_status status = compute_groups(ctx, index, n, error);
    if (!status)
        base_pool_run(ctx->pool, combine_token, &task, n);
    return status;
}
