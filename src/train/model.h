/* A model in training: one pass forward and back over the tokens of a micro-batch.
 *
 *   x = embedding[ids];  for each layer: x = attention half, then sparse or dense half;  loss
 *
 * What the backward pass needs is kept, or, with `recompute`, only the layers' inputs are, and each
 * layer runs forward once more. */
#ifndef TRAIN_MODEL_H
#define TRAIN_MODEL_H

#include "train/experts.h"
#include "train/head.h"

typedef struct train_model_params {
    int64_t n_seqs, seq_len; /* of a pass, at most */
    bool recompute;
    train_routing routing;
} train_model_params;

typedef struct train_model train_model;

/* Bytes that a model takes beside its parameters, for `threads` threads. lora_scratch: what
 * train_lora_scratch says. */
uint64_t train_model_bytes(const model_config *config, const train_comm *comm,
                           const train_model_params *params, int threads, int64_t lora_scratch);

/* Everything handed in must outlive the model. */
marco_status train_model_create(train_params *weights, train_comm *comm, base_pool *pool,
                                const train_blas *blas, const train_model_params *params,
                                train_model **out, marco_error *error);
void train_model_free(train_model *model); /* NULL is allowed */

const train_context *train_model_context(const train_model *model);

/* Of a layer; NULL where it is dense. */
train_routing_stats *train_model_routing(train_model *model, int32_t layer);

/* Adds the gradients of the objective, summed over the tokens with a target, to those of the
 * parameters. losses [T]: each token's, 0 where it has no target. */
marco_status train_model_pass(train_model *model, const train_tokens *tokens,
                              const train_routing_pass *pass, const train_objective *objective,
                              double *losses, marco_error *error);

/* The losses alone; nothing is masked, balanced or counted. */
marco_status train_model_losses(train_model *model, const train_tokens *tokens,
                                const train_objective *objective, double *losses,
                                marco_error *error);

/* Operations on so many tokens, forward and back, as FLOPs are counted for shares of a roof: 6 *
 * active parameters a token, and attention over the keys that the tokens see, `keys` in all. */
double train_flops(const model_config *config, double tokens, double keys);
/* The same of these tokens. */
double train_model_flops(const model_config *config, const train_tokens *tokens);

#endif
