/* Experts that stay in their file until a token chooses them: a fixed number of slots, each holding
 * gate, up and down of one expert of one layer, laid out as kernels take them.
 *
 * A layer's pass asks for the experts that its tokens chose (a step) and is handed them in groups:
 * first those that are there, then the others as their reads complete. All reads of a step are
 * under way from its beginning, as far as slots go round: what is handed out is computed beside
 * them. Where a step wants more experts than there are slots, slots are filled again within it.
 *
 * The rule, which `marco trace` replays: a step uses the experts that it finds, in the order asked
 * for, then the missing ones in the order asked for; each missing one takes the slot whose expert
 * was used least recently. So what is a hit depends on the steps alone, not on the reads' timing.
 *
 * One step at a time. */
#ifndef MODEL_EXPERT_CACHE_H
#define MODEL_EXPERT_CACHE_H

#include "model/weights.h"

typedef struct model_cache model_cache;

/* Bytes from .. from + size - 1 of matrix `mat` of m, as the checkpoint has them, into `buffer` as
 * base_file_read_past does. Called by several threads. */
typedef marco_status (*model_cache_read_fn)(void *user, const model_matrix *m, int64_t mat,
                                            uint64_t from, void *buffer, size_t size,
                                            const uint8_t **data, marco_error *error);

typedef struct model_cache_stats {
    int64_t slots;         /* that it may fill */
    uint64_t hits, misses; /* experts asked for */
    uint64_t bytes_read;
    double wait_seconds; /* nothing to compute, waiting for reads */
    double read_seconds; /* some read was under way */
} model_cache_stats;

/* Bytes of a slot for experts of these matrices, and of what the cache takes beside slots. */
uint64_t model_cache_slot_bytes(uint64_t gate, uint64_t up, uint64_t down);
uint64_t model_cache_fixed_bytes(int64_t n_layers, int64_t n_experts);

/* For weights loaded with MODEL_STREAMED, which outlive it; slots >= 1. read NULL: from the
 * weights' files. */
marco_status model_cache_create(model_weights *weights, int64_t slots, model_cache_read_fn read,
                                void *user, model_cache **out, marco_error *error);
void model_cache_free(model_cache *cache); /* NULL is allowed */

/* Begins a step: n >= 1 experts of a layer, each once. */
void model_cache_begin(model_cache *cache, int64_t layer, const int32_t *experts, int64_t n);

/* The step's next group: [*n] experts whose model_matrix_at is there until the next call; *n is 0
 * after the last, which ends the step. What the group before held may be overwritten from here on.
 * A failed read ends the step too: the error is its reader's, nothing of it stays in the cache,
 * and the next step may begin. */
marco_status model_cache_next(model_cache *cache, const int32_t **experts, int64_t *n,
                              marco_error *error);

/* Between steps: as many slots as may be filled from now on, 1 to those it was created with. Slots
 * given up (those used least recently) give their memory back. */
void model_cache_limit(model_cache *cache, int64_t slots);

void model_cache_stats_get(model_cache *cache, model_cache_stats *stats);

#endif
