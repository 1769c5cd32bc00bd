/* Inside the forward pass: its buffers, and the product that everything goes through. */
#ifndef MODEL_CONTEXT_H
#define MODEL_CONTEXT_H

#include <stdatomic.h>

#include "model/forward.h"

struct model_context {
    const model_weights *weights;
    const kern_table *kernels;
    base_pool *pool;
    bool f32;

    float *inv_freq; /* [D / 2] */
    float rope_magnitude;
    float *scratch; /* [threads, scratch_stride]: a decoded weight row, or attention's */
    size_t scratch_stride;
    struct model_product *products; /* [2 * X + 4] */
    int64_t *parts;                 /* [2 * X + 5] first part of each product */
    int64_t n_products;             /* of the multiplication under way */
    int64_t *first;                 /* [X + 1] first pair of each expert */

    float *partials; /* attention's states by (KV head, span), where spans are shared */
    size_t partials_capacity;    /* floats */
    _Atomic int64_t *spans_left; /* [G] spans of a head that are not done */

    uint8_t *block;       /* the memory of all buffers below */
    int64_t capacity;     /* tokens they can hold */
    float *x;             /* [T, E] the residual stream */
    float *normed;        /* [T, E] */
    float *projected;     /* [T, E] what a block adds to the stream */
    float *q;             /* [T, H * D] */
    float *k, *v;         /* [T, G * D] */
    float *attended;      /* [T, H * D] */
    float *cosine, *sine; /* [T, D / 2] */
    kern_q8 *q8;          /* the rows being multiplied, quantised */

    /* FFN: N rows are the tokens of a dense layer, or the (token, expert) pairs of a sparse one. */
    float *gate, *up; /* [N, F] */
    float *down;      /* [T * K, E] in pair order */
    float *gathered;  /* [T * K, E] rows of `normed` in pair order; F32 inputs only */
    kern_q8 *gathered_q8;
    float *router;    /* [T, X] logits, then probabilities */
    int32_t *chosen;  /* [T, K] experts by rank */
    float *weight;    /* [T, K] */
    int64_t *pair_of; /* [T, K] place of (t, rank) in pair order */
};

/* Rows to be multiplied: as floats, and quantised where some weight wants them so. */
typedef struct model_rows {
    const float *f32;  /* [n, cols] */
    const kern_q8 *q8; /* [n, cols / 32], or NULL */
} model_rows;

/* out[i * stride + r] = w[mat, r] . x[first + i],   i < n */
typedef struct model_product {
    const model_matrix *w;
    int64_t mat;
    model_rows x;
    int64_t first, n;
    float *out;
    int64_t stride;
    bool f32; /* use the reference kernel even on the default path */
} model_product;

/* All products of the list, as one flat list of (product, row range) parts shared by the threads.
 */
void model_multiply(model_context *context, int64_t n_products);

/* Does this weight want quantised rows? */
bool model_wants_q8(const model_context *context, const model_matrix *w);

/* Quantises n rows of `cols` floats in parallel. */
void model_quantize(model_context *context, const float *x, kern_q8 *q8, int64_t n, int64_t cols);

/* out = rmsnorm(x) * weight for n rows of E, in parallel. */
void model_norm_rows(model_context *context, const float *x, const float *weight, float *out,
                     int64_t n);

/* The blocks of a layer. Each reads `normed` [n, E] and leaves what it adds to the residual stream
 * in `projected`. */
void model_attention(model_context *context, model_kv *kv, int64_t layer, int64_t n,
                     int64_t position);

/* Floats of scratch that attention needs per thread. */
size_t model_attention_scratch(const model_config *config);

/* Makes room for what a pass of n tokens at `position` needs beside that. */
marco_status model_attention_reserve(model_context *context, int64_t n, int64_t position,
                                     marco_error *error);
void model_ffn(model_context *context, int64_t layer, int64_t n);
void model_experts(model_context *context, int64_t layer, int64_t n);

#endif
