#include "model/forward.h"

#include "base/error.h"
#include "base/memory.h"
#include "model/context.h"
#include "model/rope.h"

/* Floats of scratch for a thread. */
static size_t scratch_stride(const model_config *c)
{
    int64_t widest = c->n_embd, group = c->n_heads / c->n_kv_heads;
    int64_t widths[] = {c->ffn_dim, c->expert_dim, (int64_t)c->n_heads * c->head_dim};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        widest = widths[i] > widest ? widths[i] : widest;
    /* attend_block's tile of K and V, scores, and two numbers per (token of a block, head). */
    int64_t tile = 2 * MODEL_KV_PAGE * c->head_dim + MODEL_KV_PAGE + 2 * MODEL_BLOCK_TOKENS * group;
    widest = tile > widest ? tile : widest;
    return (size_t)(widest + 15) & ~(size_t)15;
}

marco_status model_context_create(const model_weights *weights, const kern_table *kernels,
                                  base_pool *pool, bool f32, model_context **out,
                                  marco_error *error)
{
    const model_config *c = &weights->config;
    model_context *ctx = base_calloc(1, sizeof *ctx);
    if (!ctx)
        return base_fail_memory(error, sizeof *ctx, "the forward pass");
    ctx->weights = weights;
    ctx->kernels = kernels;
    ctx->pool = pool;
    ctx->f32 = f32;
    ctx->scratch_stride = scratch_stride(c);
    size_t threads = (size_t)base_pool_threads(pool);
    size_t experts = (size_t)c->n_experts;
    ctx->scratch = base_alloc_aligned(threads * ctx->scratch_stride * sizeof(float));
    ctx->inv_freq = base_alloc_array((size_t)c->head_dim / 2, sizeof(float));
    ctx->first = base_alloc_array(experts + 1, sizeof *ctx->first);
    ctx->active = base_alloc_array(experts, sizeof *ctx->active);
    ctx->products = base_alloc_array(2 * experts + 4, sizeof *ctx->products);
    ctx->parts = base_alloc_array(2 * experts + 5, sizeof *ctx->parts);
    if (!ctx->scratch || !ctx->inv_freq || !ctx->first || !ctx->active || !ctx->products ||
        !ctx->parts) {
        base_fail_memory(error, threads * ctx->scratch_stride * sizeof(float), "the forward pass");
        model_context_free(ctx);
        return MARCO_ERROR_MEMORY;
    }
    model_rope_frequencies(c, ctx->inv_freq, &ctx->rope_magnitude);
    *out = ctx;
    return MARCO_OK;
}

/* ---- buffers that grow with the number of tokens ------------------------------------------- */

/* One block of memory, cut into 64-byte aligned pieces. */
typedef struct block {
    uint8_t *base; /* NULL: only the size is wanted */
    size_t size;
} block;

static void *take(block *b, size_t count, size_t size)
{
    void *piece = b->base ? b->base + b->size : NULL;
    b->size += (count * size + 63) & ~(size_t)63;
    return piece;
}

/* Points the context's buffers for n tokens into the block at `base`; returns its size. */
static size_t lay_out(model_context *ctx, size_t n, uint8_t *base)
{
    const model_config *c = &ctx->weights->config;
    block b = {base, 0};
    size_t f = sizeof(float), embd = (size_t)c->n_embd;
    size_t q_dim = (size_t)c->n_heads * (size_t)c->head_dim;
    size_t kv_dim = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    size_t half = (size_t)c->head_dim / 2, pairs = n * (size_t)c->n_experts_used;
    size_t dense = n * (size_t)c->ffn_dim, sparse = pairs * (size_t)c->expert_dim;
    size_t hidden = dense > sparse ? dense : sparse;
    size_t wide = embd > q_dim ? embd : q_dim;

    ctx->x = take(&b, n * embd, f);
    ctx->normed = take(&b, n * embd, f);
    ctx->projected = take(&b, n * embd, f);
    ctx->q = take(&b, n * q_dim, f);
    ctx->k = take(&b, n * kv_dim, f);
    ctx->v = take(&b, n * kv_dim, f);
    ctx->attended = take(&b, n * q_dim, f);
    ctx->cosine = take(&b, n * half, f);
    ctx->sine = take(&b, n * half, f);
    ctx->q8 = take(&b, n * wide / 32 + 1, sizeof(kern_q8));
    ctx->gate = take(&b, hidden, f);
    ctx->up = take(&b, hidden, f);
    ctx->down = take(&b, pairs * embd, f);
    ctx->gathered = take(&b, pairs * embd, f);
    ctx->gathered_q8 = take(&b, pairs * embd / 32 + 1, sizeof(kern_q8));
    ctx->activated_q8 = take(&b, hidden / 32 + 1, sizeof(kern_q8));
    ctx->router = take(&b, n * (size_t)c->n_experts, f);
    ctx->weight = take(&b, pairs, f);
    ctx->chosen = take(&b, pairs, sizeof(int32_t));
    ctx->pair_of = take(&b, pairs, sizeof(int64_t));
    return b.size;
}

uint64_t model_context_bytes(const model_config *config, int threads, int64_t n)
{
    const model_weights weights = {.config = *config};
    model_context measured = {.weights = &weights};
    uint64_t experts = (uint64_t)config->n_experts;
    uint64_t each = sizeof *measured.first + 2 * sizeof *measured.products +
                    2 * sizeof *measured.parts + sizeof *measured.active;
    return lay_out(&measured, (size_t)n, NULL) + experts * each +
           (uint64_t)threads * scratch_stride(config) * sizeof(float);
}

int64_t model_context_tokens(const model_context *context, size_t bytes)
{
    enum { MANY = 1024 }; /* enough for what a buffer is rounded up by not to count */
    model_context measured = *context;
    size_t each = lay_out(&measured, MANY, NULL) / MANY + 1;
    return bytes / each > 1 ? (int64_t)(bytes / each) : 1;
}

static marco_status reserve(model_context *ctx, int64_t n, marco_error *error)
{
    if (n <= ctx->capacity)
        return MARCO_OK;
    base_free(ctx->block);
    ctx->capacity = 0;
    size_t size = lay_out(ctx, (size_t)n, NULL);
    ctx->block = base_alloc_aligned(size);
    if (!ctx->block)
        return base_fail(error, MARCO_ERROR_MEMORY,
                         "out of memory: a pass of %lld tokens needs %zu bytes; a smaller chunk "
                         "needs less",
                         (long long)n, size);
    lay_out(ctx, (size_t)n, ctx->block);
    ctx->capacity = n;
    return MARCO_OK;
}

void model_context_free(model_context *ctx)
{
    if (!ctx)
        return;
    base_free(ctx->block);
    base_free(ctx->scratch);
    base_free(ctx->inv_freq);
    base_free(ctx->first);
    base_free(ctx->active);
    base_free(ctx->products);
    base_free(ctx->parts);
    base_free(ctx);
}

/* ---- the pass ------------------------------------------------------------------------------ */

typedef struct token_task {
    model_context *ctx;
    const int32_t *ids;
    int64_t position;
} token_task;

/* x = embedding of the id; cosines and sines of the position. */
static void start_token(void *user, int64_t i, int thread)
{
    token_task *t = user;
    model_context *ctx = t->ctx;
    const model_matrix *embd = &ctx->weights->token_embd;
    int64_t half = ctx->weights->config.head_dim / 2;
    float *raw = ctx->scratch + (size_t)thread * ctx->scratch_stride;
    model_matrix_get_row(embd, 0, t->ids[i], raw);
    tensor_traits_of(embd->type)->decode(raw, ctx->x + i * embd->cols, embd->cols);
    model_rope_angles(ctx->inv_freq, half, ctx->rope_magnitude, t->position + i,
                      ctx->cosine + i * half, ctx->sine + i * half);
}

static void add_projected(void *user, int64_t i, int thread)
{
    (void)thread;
    token_task *t = user;
    model_context *ctx = t->ctx;
    int64_t n = ctx->weights->config.n_embd;
    ctx->kernels->axpy(1.0f, ctx->projected + i * n, ctx->x + i * n, n);
}

marco_status model_forward(model_context *ctx, model_kv *kv, const int32_t *ids, int64_t n,
                           int64_t position, marco_error *error)
{
    const model_weights *w = ctx->weights;
    token_task task = {ctx, ids, position};
    marco_status status = reserve(ctx, n, error);
    if (!status)
        status = model_kv_reserve(kv, position + n, error);
    if (status)
        return status;

    ctx->position = position;
    ctx->passes++;
    base_pool_run(ctx->pool, start_token, &task, n);
    for (int32_t i = 0; !status && i < w->config.n_layers; i++) {
        const model_layer *layer = &w->layers[i];
        model_norm_rows(ctx, ctx->x, layer->attn_norm, ctx->normed, n);
        model_attention(ctx, kv, i, n, position);
        base_pool_run(ctx->pool, add_projected, &task, n);

        model_norm_rows(ctx, ctx->x, layer->ffn_norm, ctx->normed, n);
        if (w->config.layer_sparse[i])
            status = model_experts(ctx, i, n, error);
        else
            model_ffn(ctx, i, n);
        base_pool_run(ctx->pool, add_projected, &task, n);
    }
    return status;
}

void model_context_trace(model_context *ctx, marco_trace_fn fn, void *user)
{
    ctx->trace = fn;
    ctx->trace_user = user;
}

void model_logits(model_context *ctx, int64_t first, int64_t count, float *logits)
{
    const model_weights *w = ctx->weights;
    int64_t embd = w->config.n_embd;
    model_norm_rows(ctx, ctx->x + first * embd, w->output_norm, ctx->normed, count);
    model_rows x = {ctx->normed, NULL};
    if (model_wants_q8(ctx, &w->output)) {
        model_quantize(ctx, ctx->normed, ctx->q8, count, embd);
        x.q8 = ctx->q8;
    }
    ctx->products[0] =
        (model_product){&w->output, 0, x, 0, count, logits, w->config.n_vocab, false};
    model_multiply(ctx, 1);
}
