#include <string.h>

#include "train/context.h"

enum { BLOCK = 64 /* rows of a part, and of a partial sum of the weight's gradient */ };

typedef struct norm {
    const train_context *ctx;
    const float *weight, *x, *dy;
    float *out, *dx, *partial;
    int64_t n, cols;
} norm;

static void forward_part(void *user, int64_t part, int thread)
{
    (void)thread;
    const norm *a = user;
    float eps = (float)a->ctx->params->config.rms_eps;
    for (int64_t i = part * BLOCK; i < train_part_end(a->n, part, BLOCK); i++)
        a->ctx->kern->rmsnorm(a->x + i * a->cols, a->weight, a->out + i * a->cols, a->cols, eps);
}

static void back_part(void *user, int64_t part, int thread)
{
    (void)thread;
    const norm *a = user;
    float eps = (float)a->ctx->params->config.rms_eps;
    float *dweight = a->partial ? a->partial + part * a->cols : NULL;
    if (dweight)
        memset(dweight, 0, (size_t)a->cols * sizeof *dweight);
    for (int64_t i = part * BLOCK; i < train_part_end(a->n, part, BLOCK); i++)
        a->ctx->kern->rmsnorm_back(a->x + i * a->cols, a->weight, a->dy + i * a->cols,
                                   a->dx + i * a->cols, dweight, a->cols, eps);
}

void train_norm(const train_context *ctx, const train_param *weight, const float *x, int64_t n,
                float *out)
{
    int64_t cols = weight->tensor.cols;
    /* The threads' scratch is free between tasks, and the first's is not used in this one. */
    norm a = {.ctx = ctx,
              .weight = train_weight(ctx->params, weight, 0, 0, 1, ctx->scratch[0]),
              .x = x,
              .out = out,
              .n = n,
              .cols = cols};
    base_pool_run(ctx->pool, forward_part, &a, train_parts(n, BLOCK));
}

void train_norm_back(const train_context *ctx, const train_param *weight, const float *x,
                     const float *dy, int64_t n, float *dx, float *partial)
{
    int64_t cols = weight->tensor.cols;
    float *grad = train_grad(ctx->params, weight, 0);
    norm a = {.ctx = ctx,
              .weight = train_weight(ctx->params, weight, 0, 0, 1, ctx->scratch[0]),
              .x = x,
              .dy = dy,
              .dx = dx,
              .partial = grad ? partial : NULL,
              .n = n,
              .cols = cols};
    base_pool_run(ctx->pool, back_part, &a, train_parts(n, BLOCK));
    for (int64_t b = 0; grad && b < train_parts(n, BLOCK); b++)
        ctx->kern->axpy(1, partial + b * cols, grad, cols);
}

int64_t train_norm_partial(int64_t n, int64_t cols)
{
    return train_parts(n, BLOCK) * cols;
}
