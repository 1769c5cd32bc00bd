/* The forward pass: ids in, logits out. One context serves one call at a time.
 *
 * Shape letters, as in docs/architecture.md:
 *   T tokens of a pass, E n_embd, H query heads, G KV heads, D head_dim, F FFN or expert dim,
 *   X experts, K experts used, V vocabulary. */
#ifndef MODEL_FORWARD_H
#define MODEL_FORWARD_H

#include "base/pool.h"
#include "kernels/kernels.h"
#include "model/kv.h"
#include "model/weights.h"

typedef struct model_context model_context;

/* `f32`: the reference path. weights, pool and kernels outlive the context. */
marco_status model_context_create(const model_weights *weights, const kern_table *kernels,
                                  base_pool *pool, bool f32, model_context **out,
                                  marco_error *error);
void model_context_free(model_context *context);

/* Bytes of a context whose passes have up to n tokens. */
uint64_t model_context_bytes(const model_config *config, int threads, int64_t n);

/* Shows an observer what the weights are multiplied with: n rows [n, w->cols] of F32 that matrix
 * `mat` of w is about to meet, called from the thread that runs the pass, tokens in order. On the
 * reference path only, since the other one does not have all rows in F32. NULL: no more. */
typedef void (*model_observer)(void *user, const model_matrix *w, int64_t mat, const float *rows,
                               int64_t n);
void model_context_observe(model_context *context, model_observer observer, void *user);

/* Tokens of a pass whose buffers fit into `bytes`; at least 1. */
int64_t model_context_tokens(const model_context *context, size_t bytes);

/* From here on tells `fn` (NULL: nobody) of every choice of experts. */
void model_context_trace(model_context *context, marco_trace_fn fn, void *user);

/* A piece of one timeline: n >= 1 ids at positions position .. position + n - 1. kv holds the keys
 * and values of all positions before, and is given theirs. */
typedef struct model_sequence {
    model_kv *kv;
    const int32_t *ids; /* [n] */
    int64_t n, position;
} model_sequence;

/* A pass takes pieces of one or several timelines, each of another, through all layers together.
 * Its rows are their tokens, sequence after sequence; no row's numbers depend on which others are
 * there. Between two layers the context may wait for as long as it pleases while others work: their
 * keys, values and weights do not change. ids and sequences are not read after the beginning.
 *
 * Both fail where memory is short, and a layer where streamed experts cannot be read: the pass is
 * then over, and what it wrote to the caches is to be forgotten. */
marco_status model_pass_begin(model_context *context, const model_sequence *sequences,
                              int64_t n_sequences, marco_error *error);
marco_status model_pass_layer(model_context *context, marco_error *error);

/* Layers of the pass that have not been run. */
int32_t model_pass_left(const model_context *context);

/* Logits [count, V] of rows first .. first + count - 1 of the last pass, which is done. */
void model_logits(model_context *context, int64_t first, int64_t count, float *logits);

/* The same of n rows anywhere in it. */
void model_logits_of(model_context *context, const int64_t *rows, int64_t n, float *logits);

/* A whole pass over one sequence. */
marco_status model_forward(model_context *context, const model_sequence *sequence,
                           marco_error *error);

#endif
