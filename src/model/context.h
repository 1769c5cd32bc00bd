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
    model_observer observer; /* or NULL */
    void *observer_user;

    float *inv_freq; /* [D / 2] */
    float rope_magnitude;
    float *scratch; /* [threads, scratch_stride]: what model_multiply or attention needs */
    size_t scratch_stride;
    struct model_product *products; /* [X + 4] */
    int64_t *parts;                 /* [X + 5] first part of each product */
    int64_t n_products;             /* of the multiplication under way */
    size_t part_bytes;              /* of weights, about: what its parts read */
    int64_t *first;                 /* [X + 1] first pair of each expert */
    int32_t *active;                /* [X] experts that have tokens */
    marco_trace_fn trace;           /* told of every choice of experts; NULL: nobody */
    void *trace_user;
    uint64_t passes; /* the one under way included */

    struct model_run *runs; /* [n_runs] the sequences of the pass */
    size_t runs_capacity;
    int64_t n_runs, n_rows;
    int32_t layer;               /* the next one */
    int64_t attention_parts;     /* of all runs */
    float *partials;             /* attention's states by (KV head, span), where spans are shared */
    size_t partials_capacity;    /* floats of that region */
    _Atomic int64_t *spans_left; /* spans of a run's head that are not done */
    size_t spans_left_capacity;

    uint8_t *block; /* the memory of all buffers below, a region of */
    size_t block_bytes;
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
    float *hidden;      /* [N, F] silu(gate) * up, where `down` wants floats */
    kern_q8 *hidden_q8; /* the same where it wants them quantised */
    float *down;        /* [T * K, E] in pair order */
    float *gathered;    /* [T * K, E] rows of `normed` in pair order; F32 inputs only */
    kern_q8 *gathered_q8;
    float *router;    /* [T, X] logits, then probabilities */
    int32_t *chosen;  /* [T, K] experts by rank */
    float *weight;    /* [T, K] */
    int64_t *pair_of; /* [T, K] place of (t, rank) in pair order */
};

/* A sequence of the pass, and how its attention is shared among threads. */
typedef struct model_run {
    model_sequence sequence;
    int64_t row;   /* of the pass, its first */
    int64_t part;  /* of attention's parts, its first */
    int64_t spans; /* 0: a part is a KV head and some tokens; else one of `deals` that its spans
                    * are dealt to */
    int64_t deals;
    float *partials; /* its own, and so is spans_left [G] */
    _Atomic int64_t *spans_left;
} model_run;

/* Rows to be multiplied: as floats, and quantised where some weight wants them so. */
typedef struct model_rows {
    const float *f32;  /* [n, cols] */
    const kern_q8 *q8; /* [n, cols / 32], or NULL */
} model_rows;

/* out[i * stride + r] = w[mat, r] . x[i],   i < n
 * Gated, where `up` is given: silu of that times up[mat, r] . x[i]. */
typedef struct model_product {
    const model_matrix *w;
    int64_t mat;
    model_rows x;
    int64_t n;
    float *out;
    int64_t stride;
    bool f32;               /* use the reference kernel even on the default path */
    const model_matrix *up; /* NULL, or of the same shape as w */
    kern_q8 *out_q8;        /* for gated ones, [n, rows / 32]: instead of out */
} model_product;

/* All products of the list, as one flat list of (product, row range) parts shared by the threads.
 */
void model_multiply(model_context *context, int64_t n_products);

/* Floats of scratch that a thread needs for products with w. */
size_t model_multiply_scratch(const model_matrix *w);

/* Does this weight want quantised rows? */
bool model_wants_q8(const model_context *context, const model_matrix *w);

/* Quantises n rows of `cols` floats in parallel. */
void model_quantize(model_context *context, const float *x, kern_q8 *q8, int64_t n, int64_t cols);

/* out = rmsnorm(x) * weight for n rows of E, in parallel. */
void model_norm_rows(model_context *context, const float *x, const float *weight, float *out,
                     int64_t n);

/* The blocks of a layer. Each reads `normed` [n, E] and leaves what it adds to the residual stream
 * in `projected`. */
void model_attention(model_context *context, int64_t layer);

/* The middle of model_attention: norms and turns q and k, stores k and v, and leaves softmax(q k^T
 * / sqrt(D)) v in `attended`. */
void model_attend(model_context *context, int64_t layer);

/* Floats of scratch that attention needs per thread. */
size_t model_attention_scratch(const model_config *config);

/* Makes the sequences the pass's runs, shares their attention out, and makes room for what that
 * needs beside scratch. */
marco_status model_attention_plan(model_context *context, const model_sequence *sequences,
                                  int64_t n, marco_error *error);
void model_attention_release(model_context *context);

/* The run that a row of the pass belongs to. */
const model_run *model_run_of(const model_context *context, int64_t row);
void model_ffn(model_context *context, int64_t layer, int64_t n);
marco_status model_experts(model_context *context, int64_t layer, int64_t n, marco_error *error);

#endif
