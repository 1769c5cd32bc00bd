/* Streams of weights that training makes. */
#ifndef TRAIN_SOURCE_H
#define TRAIN_SOURCE_H

#include "train/context.h"

/* The weights as they are now, in params->type; adapted ones with their adapters in. `params` must
 * outlive the source, and not change while it is read.
 * Experts that other processes hold cannot be read: MARCO_ERROR_UNSUPPORTED. */
marco_status train_params_source(const train_params *params, model_source **out,
                                 marco_error *error);

/* Random numbers in a shape, F32: matrices from N(0, std), those whose products are added to the
 * residual stream (attention's output, experts' and FFN's down) too; norms 1. A function of seed,
 * tensor, matrix and row alone. The tokenizer gives n_vocab (where config has 0), names and special
 * ids; it is read from `tokenizer`, a checkpoint or tokenizer.json. */
marco_status train_random_source(const model_config *config, double std, uint64_t seed,
                                 const char *tokenizer, model_source **out, marco_error *error);

#endif
