/* The attention half of a layer, forward and backward:
 *   n = rmsnorm(x); q, k, v = Wq n, Wk n, Wv n; q, k = rope(norm(q)), rope(norm(k))
 *   out = x + Wo attention(q, k, v)
 * Attention is streamed over tiles of keys (FlashAttention-2, arXiv 2307.08691): no T x T matrix is
 * kept, only the logarithm of each query's sum. */
#ifndef TRAIN_ATTENTION_H
#define TRAIN_ATTENTION_H

#include "train/context.h"

/* What the backward pass needs of the forward pass. H query heads, G key/value heads, D head dim.
 */
typedef struct train_attention_saved {
    float *q, *k, *v; /* [T, H*D], [T, G*D], [T, G*D] as multiplied, before norm and RoPE */
    float *o;         /* [T, H*D] before Wo */
    float *lse;       /* [T, H] log of sum of exp of scores */
} train_attention_saved;

/* Buffers that all layers share. */
typedef struct train_attention_work train_attention_work;

/* Layouts for T = n_tokens at most; pointers are NULL while the arena counts. */
void train_attention_save(const model_config *config, int64_t n_tokens, train_arena *arena,
                          train_attention_saved *saved);
train_attention_work *train_attention_plan(const model_config *config, int64_t n_tokens,
                                           train_arena *arena);
int64_t train_attention_scratch(const model_config *config); /* floats a thread */

/* x [T, E] -> out [T, E], two different buffers. */
void train_attention(const train_context *ctx, int32_t layer, const train_tokens *tokens,
                     const float *x, const train_attention_saved *saved, train_attention_work *work,
                     float *out);

/* d [T, E] is the gradient of out and becomes that of x. Adds to the gradients of the layer's
 * parameters. */
void train_attention_back(const train_context *ctx, int32_t layer, const train_tokens *tokens,
                          const float *x, const train_attention_saved *saved,
                          train_attention_work *work, float *d);

#endif
