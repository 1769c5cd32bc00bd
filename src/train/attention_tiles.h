/* Causal attention within examples, streamed over tiles of queries and keys. */
#ifndef TRAIN_ATTENTION_TILES_H
#define TRAIN_ATTENTION_TILES_H

#include "train/context.h"

/* H query heads share G key/value heads in groups that follow each other; D numbers a head. */
typedef struct train_attend {
    const train_context *ctx;
    const train_tokens *tokens;
    int64_t n_heads, n_kv_heads, dim;
    float *q;       /* [T, H*D] normalised and turned; the backward pass leaves its gradient here */
    const float *k; /* [T, G*D] likewise */
    const float *v; /* [T, G*D] */
    float *o;       /* [T, H*D] */
    float *lse;     /* [T, H] log of the sum of exp of a query's scores */
    const float *d_o; /* backward only: [T, H*D] the gradient of o */
    float *dk, *dv;   /* backward only: [T, G*D] the gradients of k and v */
} train_attend;

/* o = softmax(q k^T / sqrt(D)) v over the keys from the example's first to the query's own. */
void train_attend_forward(const train_attend *a);

/* The gradients of q (over q itself), k and v, given o and lse of the forward pass. */
void train_attend_back(const train_attend *a);

/* Floats of scratch that a thread needs for either. */
int64_t train_attend_scratch(int64_t dim);

#endif
