#include "model/forward.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/context.h"
#include "model/rope.h"
#include "tensor/panel.h"

/* Scratch for the hungriest of the matrices. */
static size_t widest_product(const model_weights *w)
{
    size_t widest = model_multiply_scratch(&w->output);
    for (int32_t i = 0; i < w->config.n_layers; i++) {
        const model_layer *l = &w->layers[i];
        const model_matrix *all[] = {&l->q,           &l->k,         &l->v,          &l->out,
                                     &l->gate,        &l->up,        &l->down,       &l->router,
                                     &l->expert_gate, &l->expert_up, &l->expert_down};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
            size_t size = model_multiply_scratch(all[k]);
            widest = size > widest ? size : widest;
        }
    }
    return widest;
}

marco_status model_context_create(const model_weights *weights, const kern_table *kernels,
                                  base_pool *pool, bool f32, model_context **out,
                                  marco_error *error)
{
    const model_config *c = &weights->config;
    size_t widest = widest_product(weights), attention = model_attention_scratch(c);
    widest = attention > widest ? attention : widest;

    model_context *ctx = base_calloc(1, sizeof *ctx);
    if (!ctx)
        return base_fail_memory(error, sizeof *ctx, "the forward pass");
    ctx->weights = weights;
    ctx->kernels = kernels;
    ctx->pool = pool;
    ctx->f32 = f32;
    ctx->scratch_stride = (widest + 15) & ~(size_t)15;
    size_t threads = (size_t)base_pool_threads(pool);
    size_t experts = (size_t)c->n_experts;
    ctx->scratch = base_alloc_aligned(threads * ctx->scratch_stride * sizeof(float));
    ctx->inv_freq = base_alloc_array((size_t)c->head_dim / 2, sizeof(float));
    ctx->first = base_alloc_array(experts + 1, sizeof *ctx->first);
    ctx->active = base_alloc_array(experts, sizeof *ctx->active);
    ctx->products = base_alloc_array(experts + 4, sizeof *ctx->products);
    ctx->parts = base_alloc_array(experts + 5, sizeof *ctx->parts);
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

void model_context_observe(model_context *context, model_observer observer, void *user)
{
    context->observer = observer;
    context->observer_user = user;
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
    ctx->hidden = take(&b, hidden, f);
    ctx->hidden_q8 = take(&b, hidden / 32 + 1, sizeof(kern_q8));
    ctx->down = take(&b, pairs * embd, f);
    ctx->gathered = take(&b, pairs * embd, f);
    ctx->gathered_q8 = take(&b, pairs * embd / 32 + 1, sizeof(kern_q8));
    ctx->router = take(&b, n * (size_t)c->n_experts, f);
    ctx->weight = take(&b, pairs, f);
    ctx->chosen = take(&b, pairs, sizeof(int32_t));
    ctx->pair_of = take(&b, pairs, sizeof(int64_t));
    return b.size;
}

uint64_t model_context_bytes(const model_config *c, int threads, int64_t n)
{
    /* No weights are there yet: two panels of the widest as if they were F32, and the kernel's. */
    enum { ROWS = 2 * TENSOR_PANEL_ROWS + KERN_SCRATCH(1), TILES = 64 << 10 };
    const model_weights weights = {.config = *c};
    model_context measured = {.weights = &weights};
    int64_t widest = (int64_t)c->n_heads * c->head_dim;
    widest = widest > c->n_embd ? widest : c->n_embd;
    widest = widest > c->ffn_dim ? widest : c->ffn_dim;
    widest = widest > c->expert_dim ? widest : c->expert_dim;
    uint64_t scratch =
        ((uint64_t)widest * ROWS + model_attention_scratch(c)) * sizeof(float) + TILES;
    uint64_t each = sizeof *measured.first + sizeof *measured.products + sizeof *measured.parts +
                    sizeof *measured.active;
    return lay_out(&measured, (size_t)n, NULL) + (uint64_t)c->n_experts * each +
           (uint64_t)threads * scratch;
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
    base_region_free(ctx->block, ctx->block_bytes);
    ctx->capacity = 0;
    size_t size = lay_out(ctx, (size_t)n, NULL);
    ctx->block = base_region_alloc(size);
    ctx->block_bytes = size;
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
    base_region_free(ctx->block, ctx->block_bytes);
    model_attention_release(ctx);
    base_free(ctx->scratch);
    base_free(ctx->inv_freq);
    base_free(ctx->first);
    base_free(ctx->active);
    base_free(ctx->products);
    base_free(ctx->parts);
    base_free(ctx);
}

/* ---- the pass ------------------------------------------------------------------------------ */

/* x = embedding of the id; cosines and sines of the position. */
static void start_row(void *user, int64_t row, int thread)
{
    model_context *ctx = user;
    const model_run *run = model_run_of(ctx, row);
    const model_matrix *embd = &ctx->weights->token_embd;
    int64_t half = ctx->weights->config.head_dim / 2, i = row - run->row;
    void *raw = ctx->scratch + (size_t)thread * ctx->scratch_stride;
    model_matrix_get_row(embd, 0, run->sequence.ids[i], raw);
    tensor_traits_of(embd->type)->decode(raw, ctx->x + row * embd->cols, embd->cols);
    model_rope_angles(ctx->inv_freq, half, ctx->rope_magnitude, run->sequence.position + i,
                      ctx->cosine + row * half, ctx->sine + row * half);
}

static void add_projected(void *user, int64_t row, int thread)
{
    (void)thread;
    model_context *ctx = user;
    int64_t n = ctx->weights->config.n_embd;
    ctx->kernels->axpy(1.0f, ctx->projected + row * n, ctx->x + row * n, n);
}

marco_status model_pass_begin(model_context *ctx, const model_sequence *sequences,
                              int64_t n_sequences, marco_error *error)
{
    int64_t n = 0;
    marco_status status = MARCO_OK;
    for (int64_t i = 0; i < n_sequences && !status; i++) {
        const model_sequence *s = &sequences[i];
        status = model_kv_reserve(s->kv, s->position, s->position + s->n, error);
        n += s->n;
    }
    if (!status)
        status = reserve(ctx, n, error);
    if (!status)
        status = model_attention_plan(ctx, sequences, n_sequences, error);
    ctx->n_rows = status ? 0 : n;
    ctx->layer = status ? ctx->weights->config.n_layers : 0;
    if (status)
        return status;
    ctx->passes++;
    base_pool_run(ctx->pool, start_row, ctx, n);
    return MARCO_OK;
}

int32_t model_pass_left(const model_context *ctx)
{
    return ctx->weights->config.n_layers - ctx->layer;
}

marco_status model_pass_layer(model_context *ctx, marco_error *error)
{
    const model_weights *w = ctx->weights;
    const model_layer *layer = &w->layers[ctx->layer];
    int64_t n = ctx->n_rows;
    marco_status status = MARCO_OK;
    model_norm_rows(ctx, ctx->x, layer->attn_norm, ctx->normed, n);
    model_attention(ctx, ctx->layer);
    base_pool_run(ctx->pool, add_projected, ctx, n);

    model_norm_rows(ctx, ctx->x, layer->ffn_norm, ctx->normed, n);
    if (w->config.layer_sparse[ctx->layer])
        status = model_experts(ctx, ctx->layer, n, error);
    else
        model_ffn(ctx, ctx->layer, n);
    base_pool_run(ctx->pool, add_projected, ctx, n);
    ctx->layer = status ? w->config.n_layers : ctx->layer + 1;
    return status;
}

marco_status model_forward(model_context *ctx, const model_sequence *sequence, marco_error *error)
{
    marco_status status = model_pass_begin(ctx, sequence, 1, error);
    while (!status && model_pass_left(ctx) > 0)
        status = model_pass_layer(ctx, error);
    return status;
}

void model_context_trace(model_context *ctx, marco_trace_fn fn, void *user)
{
    ctx->trace = fn;
    ctx->trace_user = user;
}

/* Logits of `count` rows at `from`. */
static void logits_of(model_context *ctx, const float *from, int64_t count, float *logits)
{
    const model_weights *w = ctx->weights;
    model_norm_rows(ctx, from, w->output_norm, ctx->normed, count);
    model_rows x = {ctx->normed, NULL};
    if (model_wants_q8(ctx, &w->output)) {
        model_quantize(ctx, ctx->normed, ctx->q8, count, w->config.n_embd);
        x.q8 = ctx->q8;
    }
    ctx->products[0] = (model_product){
        .w = &w->output, .x = x, .n = count, .out = logits, .stride = w->config.n_vocab};
    model_multiply(ctx, 1);
}

void model_logits(model_context *ctx, int64_t first, int64_t count, float *logits)
{
    logits_of(ctx, ctx->x + first * ctx->weights->config.n_embd, count, logits);
}

void model_logits_of(model_context *ctx, const int64_t *rows, int64_t n, float *logits)
{
    size_t embd = (size_t)ctx->weights->config.n_embd;
    for (int64_t i = 0; i < n; i++)
        memcpy(ctx->projected + (size_t)i * embd, ctx->x + (size_t)rows[i] * embd,
               embd * sizeof *ctx->x);
    logits_of(ctx, ctx->projected, n, logits);
}
