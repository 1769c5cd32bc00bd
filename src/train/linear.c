/* Products are cut into parts whose sizes depend on the product's alone, so that results do not
 * depend on the number of threads: every part is one call, or a chain of calls, of sgemm. */
#include "train/context.h"

enum {
    TOKENS = 256,      /* of a part of y */
    BACK_TOKENS = 128, /* of a part of dx */
    ROWS = 512,        /* of W at once */
    GRAD_ROWS = 64,    /* of a part of dW */
    GRAD_COLS = 512,
};

typedef struct linear {
    const train_context *ctx;
    const train_param *w;
    int64_t mat, n, rows, cols;
    const float *x, *dy;
    float *y, *dx;
    bool add;
} linear;

static linear linear_of(const train_context *ctx, const train_param *w, int64_t mat, const float *x,
                        int64_t n, bool add)
{
    return (linear){.ctx = ctx,
                    .w = w,
                    .mat = mat,
                    .n = n,
                    .rows = w->tensor.rows,
                    .cols = w->tensor.cols,
                    .x = x,
                    .add = add};
}

static void forward_part(void *user, int64_t part, int thread)
{
    const linear *l = user;
    int64_t row_parts = train_parts(l->rows, ROWS);
    int64_t t0 = part / row_parts * TOKENS, r0 = part % row_parts * ROWS;
    int64_t nt = train_span(l->n, t0, TOKENS), nr = train_span(l->rows, r0, ROWS);
    const float *w = train_weight(l->ctx->params, l->w, l->mat, r0, nr, l->ctx->scratch[thread]);
    train_gemm(l->ctx->blas, false, true, nt, nr, l->cols, 1, l->x + t0 * l->cols, l->cols, w,
               l->cols, l->add ? 1 : 0, l->y + t0 * l->rows + r0, l->rows);
}

void train_linear(const train_context *ctx, const train_param *w, int64_t mat, const float *x,
                  int64_t n, float *y, bool add)
{
    linear l = linear_of(ctx, w, mat, x, n, add);
    l.y = y;
    base_pool_run(ctx->pool, forward_part, &l, train_parts(n, TOKENS) * train_parts(l.rows, ROWS));
}

static void back_input_part(void *user, int64_t part, int thread)
{
    const linear *l = user;
    int64_t t0 = part * BACK_TOKENS, nt = train_span(l->n, t0, BACK_TOKENS);
    for (int64_t r0 = 0; r0 < l->rows; r0 += ROWS) {
        int64_t nr = train_span(l->rows, r0, ROWS);
        const float *w =
            train_weight(l->ctx->params, l->w, l->mat, r0, nr, l->ctx->scratch[thread]);
        train_gemm(l->ctx->blas, false, false, nt, l->cols, nr, 1, l->dy + t0 * l->rows + r0,
                   l->rows, w, l->cols, l->add || r0 ? 1 : 0, l->dx + t0 * l->cols, l->cols);
    }
}

static void back_weight_part(const linear *l, int64_t part)
{
    int64_t col_parts = train_parts(l->cols, GRAD_COLS);
    int64_t r0 = part / col_parts * GRAD_ROWS, c0 = part % col_parts * GRAD_COLS;
    float *grad = train_grad(l->ctx->params, l->w, l->mat);
    train_gemm(l->ctx->blas, true, false, train_span(l->rows, r0, GRAD_ROWS),
               train_span(l->cols, c0, GRAD_COLS), l->n, 1, l->dy + r0, l->rows, l->x + c0, l->cols,
               1, grad + r0 * l->cols + c0, l->cols);
}

/* Both kinds of parts in one list: one wait for the threads instead of two. */
static void back_part(void *user, int64_t part, int thread)
{
    const linear *l = user;
    int64_t inputs = l->dx ? train_parts(l->n, BACK_TOKENS) : 0;
    if (part < inputs)
        back_input_part(user, part, thread);
    else
        back_weight_part(l, part - inputs);
}

void train_linear_back(const train_context *ctx, const train_param *w, int64_t mat, const float *x,
                       const float *dy, int64_t n, float *dx, bool add)
{
    linear l = linear_of(ctx, w, mat, x, n, add);
    l.dy = dy;
    l.dx = dx;
    int64_t parts = dx ? train_parts(n, BACK_TOKENS) : 0;
    if (x && train_grad(ctx->params, w, mat))
        parts += train_parts(l.rows, GRAD_ROWS) * train_parts(l.cols, GRAD_COLS);
    base_pool_run(ctx->pool, back_part, &l, parts);
}

int64_t train_linear_scratch(const model_config *config)
{
    int64_t cols = config->n_embd, heads = (int64_t)config->n_heads * config->head_dim;
    cols = heads > cols ? heads : cols;
    cols = config->ffn_dim > cols ? config->ffn_dim : cols;
    return ROWS * cols;
}
