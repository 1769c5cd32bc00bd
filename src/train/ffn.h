/* The dense half of a layer, forward and backward:
 *   n = rmsnorm(x);  out = x + Wdown (silu(Wgate n) * Wup n) */
#ifndef TRAIN_FFN_H
#define TRAIN_FFN_H

#include "train/context.h"

typedef struct train_ffn_saved {
    float *gate, *up; /* [T, F] */
} train_ffn_saved;

typedef struct train_ffn_work {
    float *n, *dn;  /* [T, E] */
    float *h, *dh;  /* [T, F] */
    float *partial; /* of the norm's gradient */
} train_ffn_work;

/* As in attention.h. */
void train_ffn_save(const model_config *config, int64_t n_tokens, train_arena *arena,
                    train_ffn_saved *saved);
void train_ffn_plan(const model_config *config, int64_t n_tokens, train_arena *arena,
                    train_ffn_work *work);

/* x [T, E] -> out [T, E], two different buffers. */
void train_ffn(const train_context *ctx, int32_t layer, int64_t n_tokens, const float *x,
               const train_ffn_saved *saved, const train_ffn_work *work, float *out);

/* d [T, E] is the gradient of out and becomes that of x. What was saved is used up. */
void train_ffn_back(const train_context *ctx, int32_t layer, int64_t n_tokens, const float *x,
                    const train_ffn_saved *saved, const train_ffn_work *work, float *d);

#endif
