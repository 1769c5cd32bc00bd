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

/* Runs n >= 1 ids at positions position .. position + n - 1 through all layers, writing their keys
 * and values into kv, which holds those of all positions before. Fails where memory is short, and
 * where streamed experts cannot be read: what the pass wrote to kv is then to be forgotten. */
marco_status model_forward(model_context *context, model_kv *kv, const int32_t *ids, int64_t n,
                           int64_t position, marco_error *error);

/* Logits [count, V] of tokens first .. first + count - 1 of the last pass. */
void model_logits(model_context *context, int64_t first, int64_t count, float *logits);

#endif
