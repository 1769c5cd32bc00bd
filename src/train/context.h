/* What every operation of a training step works with: passed as it is, changed by nobody. */
#ifndef TRAIN_CONTEXT_H
#define TRAIN_CONTEXT_H

#include "base/pool.h"
#include "kernels/kernels.h"
#include "train/blas.h"
#include "train/params.h"
#include "train/parts.h"

/* Activations come from one region, laid out by running the same code twice: first with `base`
 * NULL, which counts (and is the whole of --dry-run), then for real. */
typedef struct train_arena {
    uint8_t *base;
    size_t used; /* bytes */
} train_arena;

/* 64-byte aligned; NULL while counting. */
static inline void *train_arena_take(train_arena *arena, int64_t count, size_t size)
{
    size_t bytes = ((size_t)count * size + 63) / 64 * 64;
    void *at = arena->base ? arena->base + arena->used : NULL;
    arena->used += bytes;
    return at;
}

static inline float *train_arena_floats(train_arena *arena, int64_t count)
{
    return train_arena_take(arena, count, sizeof(float));
}

/* Tokens of a pass: `n_seqs` sequences of `seq_len`, one after another, [T] in all. A sequence may
 * hold several examples: a token attends to those from its example's first on, and its position is
 * counted from there. */
typedef struct train_tokens {
    int64_t n_seqs, seq_len, n; /* n = n_seqs * seq_len */
    const int32_t *ids;         /* [T] */
    const int32_t *targets;     /* [T] the next token, -1: not trained on */
    const int32_t *starts;      /* [T] index in the sequence of its example's first token */
    const int32_t *lengths;     /* [n_seqs] tokens before the padding at its end; NULL: all */
} train_tokens;

typedef struct train_context {
    train_params *params;
    train_comm *comm;
    base_pool *pool;
    const kern_table *kern;
    const train_blas *blas;
    float **scratch; /* [threads] of at least what each operation's _scratch function asks for,
                        64-byte aligned */
    const float *rope_cos, *rope_sin; /* [seq_len, head_dim / 2] */
} train_context;

/* ---- products with a parameter's matrix (linear.c) ------------------------------------------- */

/* y [n, rows] = x [n, cols] W^T, added to what y holds where `add`. */
void train_linear(const train_context *ctx, const train_param *w, int64_t mat, const float *x,
                  int64_t n, float *y, bool add);

/* The gradients of the product: W's += dy^T x, and dx [n, cols] = dy W, added where `add`. Either
 * may be left out: x NULL, dx NULL. dy [n, rows]. */
void train_linear_back(const train_context *ctx, const train_param *w, int64_t mat, const float *x,
                       const float *dy, int64_t n, float *dx, bool add);

/* Floats of scratch a thread needs for the two. */
int64_t train_linear_scratch(const model_config *config);

/* ---- RMSNorm (norm.c) ---------------------------------------------------------------------- */

/* out [n, cols] = rmsnorm(x) * weight, row by row. */
void train_norm(const train_context *ctx, const train_param *weight, const float *x, int64_t n,
                float *out);
/* dx [n, cols] += the gradient; the weight's += ; dy [n, cols]. Sums over rows are in an order that
 * depends on n alone. `partial`: train_norm_partial floats. */
void train_norm_back(const train_context *ctx, const train_param *weight, const float *x,
                     const float *dy, int64_t n, float *dx, float *partial);
int64_t train_norm_partial(int64_t n, int64_t cols);

/* ---- the embedding (embedding.c) ----------------------------------------------------------- */

/* out [T, E] = rows of the matrix. */
void train_embedding(const train_context *ctx, const train_tokens *tokens, float *out);
/* d [T, E] is the gradient of out. */
void train_embedding_back(const train_context *ctx, const train_tokens *tokens, const float *d);

#endif
