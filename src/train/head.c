#include "train/head.h"

#include <math.h>
#include <string.h>

enum {
    ROWS = 512,             /* of the head's matrix at once */
    RANGES = 16,            /* of the vocabulary, whose shares of dx are added up in order */
    LEAST_RANGE = 64,       /* rows */
    SUM_ROWS = 16,          /* of dx in a part */
    LOGITS_MOST = 16 << 20, /* numbers */
    BLOCK_LEAST = 64,
    BLOCK_MOST = 512,
};

typedef struct head {
    const train_context *ctx;
    const train_param *weight;
    const train_tokens *tokens;
    const train_objective *objective;
    const train_head_work *work;
    double *losses;
    bool gradient;
    int64_t n_vocab, n_embd;
    int64_t range;       /* rows of a range */
    const int32_t *rows; /* [n] of this block */
    int64_t n;
} head;

static int64_t range_rows(int64_t n_vocab)
{
    int64_t rows = train_parts(n_vocab, RANGES);
    return rows < LEAST_RANGE ? LEAST_RANGE : rows;
}

static int64_t ranges_of(int64_t n_vocab)
{
    return train_parts(n_vocab, range_rows(n_vocab));
}

static int64_t block_rows(int64_t n_vocab, int64_t n_tokens)
{
    int64_t rows = LOGITS_MOST / n_vocab;
    rows = rows < BLOCK_LEAST ? BLOCK_LEAST : rows > BLOCK_MOST ? BLOCK_MOST : rows;
    return rows < n_tokens ? rows : n_tokens;
}

void train_head_plan(const model_config *config, int64_t n_tokens, train_arena *arena,
                     train_head_work *work)
{
    int64_t embd = config->n_embd, vocab = config->n_vocab;
    int64_t block = block_rows(vocab, n_tokens);
    work->block = block;
    work->n = train_arena_floats(arena, n_tokens * embd);
    work->dn = train_arena_floats(arena, n_tokens * embd);
    work->x = train_arena_floats(arena, block * embd);
    work->partial = train_arena_floats(arena, ranges_of(vocab) * block * embd);
    work->logits = train_arena_floats(arena, block * vocab);
    work->rows = train_arena_take(arena, n_tokens, sizeof *work->rows);
    work->norm_partial = train_arena_floats(arena, train_norm_partial(n_tokens, embd));
}

int64_t train_head_scratch(const model_config *config)
{
    return (int64_t)ROWS * config->n_embd;
}

double train_cross_entropy(void *user, const train_context *ctx, float *logits, int64_t token,
                           int32_t target, bool gradient)
{
    (void)token;
    int64_t n = ctx->params->config.n_vocab;
    float lse = ctx->kern->logsumexp(logits, n);
    double loss = (double)lse - (double)logits[target];
    if (gradient) {
        /* weight * (softmax - onehot), the weight brought in through the exponent. */
        double weight = *(const double *)user;
        ctx->kern->exp_scaled(logits, n, 1, lse - (float)log(weight));
        logits[target] -= (float)weight;
    }
    return loss;
}

/* ---- parts --------------------------------------------------------------------------------- */

static void logits_part(void *user, int64_t part, int thread)
{
    const head *h = user;
    int64_t r0 = part * ROWS, n = train_span(h->n_vocab, r0, ROWS);
    const float *w = train_weight(h->ctx->params, h->weight, 0, r0, n, h->ctx->scratch[thread]);
    train_gemm(h->ctx->blas, false, true, h->n, n, h->n_embd, 1, h->work->x, h->n_embd, w,
               h->n_embd, 0, h->work->logits + r0, h->n_vocab);
}

static void objective_part(void *user, int64_t part, int thread)
{
    (void)thread;
    const head *h = user;
    int64_t token = h->rows[part];
    h->losses[token] =
        h->objective->row(h->objective->user, h->ctx, h->work->logits + part * h->n_vocab, token,
                          h->tokens->targets[token], h->gradient);
}

/* Of one range of the vocabulary: the weights' gradient, and its share of dx. */
static void back_part(void *user, int64_t part, int thread)
{
    const head *h = user;
    float *partial = h->work->partial + part * h->work->block * h->n_embd;
    int64_t first = part * h->range, end = first + h->range;
    end = end < h->n_vocab ? end : h->n_vocab;
    float *grad = train_grad(h->ctx->params, h->weight, 0);
    for (int64_t r0 = first; r0 < end; r0 += ROWS) {
        int64_t n = train_span(end, r0, ROWS);
        const float *d = h->work->logits + r0;
        const float *w = train_weight(h->ctx->params, h->weight, 0, r0, n, h->ctx->scratch[thread]);
        train_gemm(h->ctx->blas, false, false, h->n, h->n_embd, n, 1, d, h->n_vocab, w, h->n_embd,
                   r0 > first ? 1 : 0, partial, h->n_embd);
        if (grad)
            train_gemm(h->ctx->blas, true, false, n, h->n_embd, h->n, 1, d, h->n_vocab, h->work->x,
                       h->n_embd, 1, grad + r0 * h->n_embd, h->n_embd);
    }
}

static void sum_part(void *user, int64_t part, int thread)
{
    (void)thread;
    const head *h = user;
    int64_t end = train_part_end(h->n, part, SUM_ROWS);
    for (int64_t i = part * SUM_ROWS; i < end; i++) {
        float *dn = h->work->dn + h->rows[i] * h->n_embd;
        for (int64_t r = 0; r < ranges_of(h->n_vocab); r++)
            h->ctx->kern->axpy(1, h->work->partial + (r * h->work->block + i) * h->n_embd, dn,
                               h->n_embd);
    }
}

/* ---- a block of targets -------------------------------------------------------------------- */

static void run_block(head *h)
{
    base_pool *pool = h->ctx->pool;
    for (int64_t i = 0; i < h->n; i++)
        memcpy(h->work->x + i * h->n_embd, h->work->n + h->rows[i] * h->n_embd,
               (size_t)h->n_embd * sizeof(float));
    base_pool_run(pool, logits_part, h, train_parts(h->n_vocab, ROWS));
    base_pool_run(pool, objective_part, h, h->n);
    if (!h->gradient)
        return;
    base_pool_run(pool, back_part, h, ranges_of(h->n_vocab));
    base_pool_run(pool, sum_part, h, train_parts(h->n, SUM_ROWS));
}

void train_head(const train_context *ctx, const train_tokens *tokens,
                const train_objective *objective, const float *x, const train_head_work *work,
                double *losses, float *d)
{
    const model_config *config = &ctx->params->config;
    const train_param *norm = train_params_find(ctx->params, MODEL_OUTPUT_NORM, -1);
    size_t bytes = (size_t)(tokens->n * config->n_embd) * sizeof(float);
    head h = {.ctx = ctx,
              .weight = train_params_find(ctx->params,
                                          config->tied ? MODEL_TOKEN_EMBD : MODEL_OUTPUT, -1),
              .tokens = tokens,
              .objective = objective,
              .work = work,
              .losses = losses,
              .gradient = d != NULL,
              .n_vocab = config->n_vocab,
              .n_embd = config->n_embd,
              .range = range_rows(config->n_vocab)};
    train_norm(ctx, norm, x, tokens->n, work->n);
    int64_t n_rows = 0;
    for (int64_t t = 0; t < tokens->n; t++) {
        losses[t] = 0;
        if (tokens->targets[t] >= 0)
            work->rows[n_rows++] = (int32_t)t;
    }
    if (d) {
        memset(work->dn, 0, bytes);
        memset(d, 0, bytes);
    }
    for (int64_t i = 0; i < n_rows; i += work->block) {
        h.rows = work->rows + i;
        h.n = train_span(n_rows, i, work->block);
        run_block(&h);
    }
    if (d)
        train_norm_back(ctx, norm, x, work->dn, tokens->n, d, work->norm_partial);
}
