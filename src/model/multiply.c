#include "model/context.h"

/* Rows of a weight matrix that one part multiplies: small enough to share a decoder's little
 * matrices among threads, large enough to be worth a visit. No result depends on it. */
enum { PART_ROWS = 64 };

bool model_wants_q8(const model_context *ctx, const model_matrix *w)
{
    return !ctx->f32 && ctx->kernels->matmul[w->type].input == KERN_INPUT_Q8;
}

/* The product that a part belongs to: the last that begins at or before it. */
static int64_t find_product(const model_context *ctx, int64_t part)
{
    int64_t low = 0, high = ctx->n_products;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (ctx->parts[middle] <= part)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void multiply_part(void *user, int64_t part, int thread)
{
    model_context *ctx = user;
    int64_t i = find_product(ctx, part);
    const model_product *p = &ctx->products[i];
    const model_matrix *w = p->w;
    int64_t row = (part - ctx->parts[i]) * PART_ROWS;
    int64_t rows = w->rows - row < PART_ROWS ? w->rows - row : PART_ROWS;
    const kern_matmul *kernel =
        ctx->f32 || p->f32 ? &ctx->kernels->matmul_f32[w->type] : &ctx->kernels->matmul[w->type];
    const void *x = kernel->input == KERN_INPUT_Q8
                        ? (const void *)(p->x.q8 + p->first * (w->cols / 32))
                        : (const void *)(p->x.f32 + p->first * w->cols);
    kernel->fn(model_matrix_row(w, p->mat, row), rows, w->cols, x, p->n, p->out + row, p->stride,
               ctx->scratch + (size_t)thread * ctx->scratch_stride);
}

void model_multiply(model_context *ctx, int64_t n_products)
{
    ctx->parts[0] = 0;
    ctx->n_products = n_products;
    for (int64_t i = 0; i < n_products; i++) {
        int64_t parts = (ctx->products[i].w->rows + PART_ROWS - 1) / PART_ROWS;
        ctx->parts[i + 1] = ctx->parts[i] + parts;
    }
    for (int64_t i = 0; ctx->observer && i < n_products; i++) {
        const model_product *p = &ctx->products[i];
        ctx->observer(ctx->observer_user, p->w, p->mat, p->x.f32 + p->first * p->w->cols, p->n);
    }
    base_pool_run(ctx->pool, multiply_part, ctx, ctx->parts[n_products]);
}

typedef struct rows_task {
    const model_context *ctx;
    const float *x, *weight;
    float *out;
    kern_q8 *q8;
    int64_t cols;
} rows_task;

static void quantize_row(void *user, int64_t i, int thread)
{
    (void)thread;
    rows_task *t = user;
    t->ctx->kernels->quantize_q8(t->x + i * t->cols, t->q8 + i * (t->cols / 32), t->cols);
}

void model_quantize(model_context *ctx, const float *x, kern_q8 *q8, int64_t n, int64_t cols)
{
    rows_task task = {.ctx = ctx, .x = x, .q8 = q8, .cols = cols};
    base_pool_run(ctx->pool, quantize_row, &task, n);
}

static void norm_row(void *user, int64_t i, int thread)
{
    (void)thread;
    rows_task *t = user;
    t->ctx->kernels->rmsnorm(t->x + i * t->cols, t->weight, t->out + i * t->cols, t->cols,
                             (float)t->ctx->weights->config.rms_eps);
}

void model_norm_rows(model_context *ctx, const float *x, const float *weight, float *out, int64_t n)
{
    rows_task task = {
        .ctx = ctx, .x = x, .weight = weight, .out = out, .cols = ctx->weights->config.n_embd};
    base_pool_run(ctx->pool, norm_row, &task, n);
}
