#include <string.h>

#include "model/context.h"
#include "tensor/panel.h"

enum {
    /* Parts for each thread, so that threads end together; and the bytes of weights that a part
     * reads: taking one costs some hundred nanoseconds. No result depends on these. */
    PARTS_PER_THREAD = 8,
    LEAST_BYTES = 32 << 10,
    MOST_BYTES = 512 << 10,
    /* Rows of a part: whole panels, and whole blocks of kern_q8 where the product makes those. */
    MIN_ROWS = TENSOR_PANEL_ROWS,
    MIN_GATED_ROWS = 32,
    /* Of a gated product: tokens, and outputs of each matrix, that are in flight at once. */
    GATED_TOKENS = 32,
    GATED_OUTPUTS = 64 * GATED_TOKENS,
};

bool model_wants_q8(const model_context *ctx, const model_matrix *w)
{
    return !ctx->f32 && ctx->kernels->matmul[w->type].input == KERN_INPUT_Q8;
}

/* ---- a thread's scratch: the kernel's, then panels, then a tile of a gated product --------- */

static size_t panel_floats(const model_matrix *w)
{
    return (TENSOR_PANEL_ROWS * w->row_bytes / sizeof(float) + 16) & ~(size_t)15;
}

/* Floats, rounded to whole cache lines. */
static size_t kernel_floats(const model_matrix *w)
{
    return ((size_t)KERN_SCRATCH(w->cols) + 15) & ~(size_t)15;
}

size_t model_multiply_scratch(const model_matrix *w)
{
    return kernel_floats(w) + 2 * panel_floats(w) + 2 * (size_t)GATED_OUTPUTS;
}

/* ---- rows of one matrix -------------------------------------------------------------------- */

typedef struct range {
    const model_matrix *w;
    int64_t mat, row, rows; /* `row` begins a panel */
    bool f32;
} range;

/* Fewer than eight rows, as a panel filled up with zeros. */
static void multiply_last_rows(const model_context *ctx, const range *r, const void *x, int64_t n,
                               float *out, int64_t stride, float *scratch)
{
    enum { TOKENS = 32 };
    const model_matrix *w = r->w;
    const kern_matmul *kernel = &ctx->kernels->matmul[w->type];
    uint8_t *panel = (uint8_t *)(scratch + kernel_floats(w));
    uint8_t *rows = panel + panel_floats(w) * sizeof(float);
    float tile[TOKENS * TENSOR_PANEL_ROWS];
    memcpy(rows, model_matrix_row(w, r->mat, r->row), (size_t)r->rows * w->row_bytes);
    memset(rows + (size_t)r->rows * w->row_bytes, 0,
           (size_t)(TENSOR_PANEL_ROWS - r->rows) * w->row_bytes);
    tensor_panel_pack(w->type, rows, panel, w->cols);
    for (int64_t t = 0; t < n; t += TOKENS) {
        int64_t count = n - t < TOKENS ? n - t : TOKENS;
        kernel->fn(panel, TENSOR_PANEL_ROWS, w->cols, (const kern_q8 *)x + t * (w->cols / 32),
                   count, tile, TENSOR_PANEL_ROWS, scratch);
        for (int64_t i = 0; i < count; i++)
            memcpy(out + (t + i) * stride, tile + i * TENSOR_PANEL_ROWS,
                   (size_t)r->rows * sizeof *out);
    }
}

/* out[i * stride + j] = w[row + j] . x[i]. Rows that the kernel wants in panels and that are not
 * (a file mapped into memory, the last few of a matrix) are packed on the way: the same kernel, so
 * the same bits. */
static void multiply_rows(const model_context *ctx, const range *r, const void *x, int64_t n,
                          float *out, int64_t stride, float *scratch)
{
    const model_matrix *w = r->w;
    const kern_matmul *kernel =
        r->f32 ? &ctx->kernels->matmul_f32[w->type] : &ctx->kernels->matmul[w->type];
    int64_t whole = kernel->panels ? r->rows - r->rows % TENSOR_PANEL_ROWS : r->rows;
    if (!kernel->panels || (w->panels && whole)) {
        kernel->fn(model_matrix_row(w, r->mat, r->row), whole, w->cols, x, n, out, stride, scratch);
    } else {
        uint8_t *panel = (uint8_t *)(scratch + kernel_floats(w));
        for (int64_t i = 0; i < whole; i += TENSOR_PANEL_ROWS) {
            tensor_panel_pack(w->type, model_matrix_row(w, r->mat, r->row + i), panel, w->cols);
            kernel->fn(panel, TENSOR_PANEL_ROWS, w->cols, x, n, out + i, stride, scratch);
        }
    }
    if (whole < r->rows) {
        range last = *r;
        last.row += whole;
        last.rows -= whole;
        multiply_last_rows(ctx, &last, x, n, out + whole, stride, scratch);
    }
}

/* ---- products ------------------------------------------------------------------------------ */

/* The product's input from row t on, in the form that weights of w's type take. */
static const void *rows_of(const model_context *ctx, const model_product *p, const model_matrix *w,
                           int64_t t)
{
    if (!p->f32 && model_wants_q8(ctx, w))
        return p->x.q8 + t * (w->cols / 32);
    return p->x.f32 + t * w->cols;
}

/* What the thread reads after this part may lie anywhere: it is asked for in good time. */
static void expect(const uint8_t *p)
{
    enum { BYTES = 4096, LINE = 64 };
    for (int i = 0; i < BYTES; i += LINE)
        __builtin_prefetch(p + i, 0, 2);
}

/* silu(gate) * up for n tokens from t on, in the form that the next product takes. */
static void activate(const model_context *ctx, const model_product *p, const range *gate, int64_t t,
                     int64_t n, float *g, const float *u)
{
    for (int64_t i = 0; i < n; i++, g += gate->rows, u += gate->rows) {
        ctx->kernels->swiglu(g, u, gate->rows);
        if (p->out_q8)
            ctx->kernels->quantize_q8(g, p->out_q8 + ((t + i) * p->w->rows + gate->row) / 32,
                                      gate->rows);
        else
            memcpy(p->out + (t + i) * p->stride + gate->row, g, (size_t)gate->rows * sizeof *g);
    }
}

/* Rows of gate and up, activated at once: nothing else needs to see them. */
static void multiply_gated(const model_context *ctx, const model_product *p, const range *part,
                           float *scratch)
{
    size_t kernel = model_multiply_scratch(p->w) > model_multiply_scratch(p->up)
                        ? model_multiply_scratch(p->w)
                        : model_multiply_scratch(p->up);
    float *g = scratch + kernel - 2 * GATED_OUTPUTS, *u = g + GATED_OUTPUTS;
    int64_t tokens = p->n < GATED_TOKENS ? p->n : GATED_TOKENS;
    int64_t most = GATED_OUTPUTS / tokens / MIN_GATED_ROWS * MIN_GATED_ROWS;
    range gate = *part;
    for (int64_t end = part->row + part->rows; gate.row < end; gate.row += most) {
        gate.rows = end - gate.row < most ? end - gate.row : most;
        range up = gate;
        up.w = p->up;
        expect(model_matrix_row(up.w, up.mat, up.row));
        for (int64_t t = 0; t < p->n; t += tokens) {
            int64_t n = p->n - t < tokens ? p->n - t : tokens;
            multiply_rows(ctx, &gate, rows_of(ctx, p, p->w, t), n, g, gate.rows, scratch);
            multiply_rows(ctx, &up, rows_of(ctx, p, p->up, t), n, u, gate.rows, scratch);
            activate(ctx, p, &gate, t, n, g, u);
        }
    }
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

/* Bytes of weights that a row of the product reads. */
static size_t bytes_per_row(const model_product *p)
{
    return p->w->row_bytes + (p->up ? p->up->row_bytes : 0);
}

static int64_t rows_per_part(const model_context *ctx, const model_product *p)
{
    int64_t least = p->up ? MIN_GATED_ROWS : MIN_ROWS;
    int64_t rows = (int64_t)(ctx->part_bytes / bytes_per_row(p)) / least * least;
    return rows > least ? rows : least;
}

static void expect_part(const model_context *ctx, int64_t part)
{
    if (part >= ctx->parts[ctx->n_products])
        return;
    int64_t i = find_product(ctx, part);
    const model_product *p = &ctx->products[i];
    int64_t row = (part - ctx->parts[i]) * rows_per_part(ctx, p);
    if (row == 0 && p->n == 1) /* else the part before leads to it, or there is time enough */
        expect(model_matrix_row(p->w, p->mat, row));
}

static void multiply_part(void *user, int64_t part, int thread)
{
    model_context *ctx = user;
    int64_t i = find_product(ctx, part);
    const model_product *p = &ctx->products[i];
    float *scratch = ctx->scratch + (size_t)thread * ctx->scratch_stride;
    expect_part(ctx, part + 1);
    int64_t rows = rows_per_part(ctx, p);
    range r = {p->w, p->mat, (part - ctx->parts[i]) * rows, rows, ctx->f32 || p->f32};
    r.rows = p->w->rows - r.row < rows ? p->w->rows - r.row : rows;
    if (p->up)
        multiply_gated(ctx, p, &r, scratch);
    else
        multiply_rows(ctx, &r, rows_of(ctx, p, p->w, 0), p->n, p->out + r.row, p->stride, scratch);
}

void model_multiply(model_context *ctx, int64_t n_products)
{
    size_t bytes = 0;
    for (int64_t i = 0; i < n_products; i++)
        bytes += (size_t)ctx->products[i].w->rows * bytes_per_row(&ctx->products[i]);
    bytes /= (size_t)PARTS_PER_THREAD * (size_t)base_pool_threads(ctx->pool);
    ctx->part_bytes = bytes < LEAST_BYTES ? LEAST_BYTES : bytes > MOST_BYTES ? MOST_BYTES : bytes;
    ctx->parts[0] = 0;
    ctx->n_products = n_products;
    for (int64_t i = 0; i < n_products; i++) {
        int64_t rows = rows_per_part(ctx, &ctx->products[i]);
        ctx->parts[i + 1] = ctx->parts[i] + (ctx->products[i].w->rows + rows - 1) / rows;
    }
    for (int64_t i = 0; ctx->observer && i < n_products; i++) {
        const model_product *p = &ctx->products[i];
        ctx->observer(ctx->observer_user, p->w, p->mat, p->x.f32, p->n);
        if (p->up)
            ctx->observer(ctx->observer_user, p->up, p->mat, p->x.f32, p->n);
    }
    base_pool_run_lanes(ctx->pool, multiply_part, ctx, ctx->parts[n_products]);
}

/* ---- rows of activations ------------------------------------------------------------------- */

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
