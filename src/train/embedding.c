#include <string.h>

#include "train/context.h"

enum { COLS = 64 /* of a part of the gradient */, TOKENS = 64 /* of a part of the output */ };

typedef struct embedding {
    const train_context *ctx;
    const train_param *weight;
    const train_tokens *tokens;
    float *out, *grad;
    const float *d;
    int64_t cols;
} embedding;

static void forward_part(void *user, int64_t part, int thread)
{
    (void)thread;
    const embedding *e = user;
    int64_t end = train_part_end(e->tokens->n, part, TOKENS);
    for (int64_t t = part * TOKENS; t < end; t++) {
        float *out = e->out + t * e->cols;
        const float *w = train_weight(e->ctx->params, e->weight, 0, e->tokens->ids[t], 1, out);
        if (w != out)
            memcpy(out, w, (size_t)e->cols * sizeof *out);
    }
}

/* A range of columns for all tokens in their order: a row may be many tokens'. */
static void back_part(void *user, int64_t part, int thread)
{
    (void)thread;
    const embedding *e = user;
    int64_t c0 = part * COLS, n = e->cols - c0 < COLS ? e->cols - c0 : COLS;
    for (int64_t t = 0; t < e->tokens->n; t++)
        e->ctx->kern->axpy(1, e->d + t * e->cols + c0, e->grad + e->tokens->ids[t] * e->cols + c0,
                           n);
}

void train_embedding(const train_context *ctx, const train_tokens *tokens, float *out)
{
    embedding e = {.ctx = ctx,
                   .weight = train_params_find(ctx->params, MODEL_TOKEN_EMBD, -1),
                   .tokens = tokens,
                   .out = out,
                   .cols = ctx->params->config.n_embd};
    base_pool_run(ctx->pool, forward_part, &e, train_parts(tokens->n, TOKENS));
}

void train_embedding_back(const train_context *ctx, const train_tokens *tokens, const float *d)
{
    const train_param *weight = train_params_find(ctx->params, MODEL_TOKEN_EMBD, -1);
    embedding e = {.ctx = ctx,
                   .weight = weight,
                   .tokens = tokens,
                   .grad = train_grad(ctx->params, weight, 0),
                   .d = d,
                   .cols = ctx->params->config.n_embd};
    if (e.grad)
        base_pool_run(ctx->pool, back_part, &e, train_parts(e.cols, COLS));
}
