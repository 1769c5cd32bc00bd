/* The sparse half of a layer, forward and backward:
 *   n = rmsnorm(x); p = softmax(router n); the K largest, renormalised where the model says so
 *   out = x + sum over the chosen of weight_e * expert_e(n)
 * Dropless: tokens are sorted by expert (counting sort) and each expert multiplies what it gets.
 * With several processes in TRAIN_EXPERTS the rows travel to their experts and back. */
#ifndef TRAIN_EXPERTS_H
#define TRAIN_EXPERTS_H

#include "train/context.h"

typedef enum train_balance_kind {
    TRAIN_BALANCE_NONE,
    TRAIN_BALANCE_SWITCH, /* arXiv 2101.03961 eq. 4, over the tokens of a pass */
    /* The same with f over all processes and the step's passes so far, as with the buffer of arXiv
     * 2501.11873: earlier passes of a step know less than later ones, so that P processes with one
     * pass each and one process with P passes are not the same (losses of a small model: 4e-3 apart
     * after 20 steps). They are, but for rounding, where both have one pass a step and no padding.
     */
    TRAIN_BALANCE_GLOBAL,
    TRAIN_BALANCE_BIAS, /* a bias on the choice, no loss (arXiv 2408.15664) */
} train_balance_kind;

typedef enum train_dropout_what {
    TRAIN_DROP_NONE,
    TRAIN_DROP_EXPERTS,
    TRAIN_DROP_PATHS
} train_dropout_what;

typedef struct train_routing {
    train_balance_kind balance;
    double coefficient; /* c of the balancing loss */
    double bias_rate;   /* TRAIN_BALANCE_BIAS: step of the bias */
    double z_loss;      /* c of the mean of logsumexp^2 (arXiv 2202.08906 eq. 5) */
    /* Experts that are masked before the choice, so that others learn to stand in for them. A path
     * is one expert's number in all layers: drawn once for the network. At least K stay. */
    train_dropout_what dropout;
    bool dropout_per_token; /* drawn for each token; else once for the pass */
} train_routing;

/* What happens in one pass, the same on all layers. */
typedef struct train_routing_pass {
    double dropout_rate; /* [0, 1), of now */
    uint64_t seed, pass; /* pass counts passes of the run, over all processes: what is masked
                            depends on these, the layer and the token alone */
    bool training;       /* false: no masks, no bias (checkpoints have no place for it), and
                            nothing is counted */
    double aux_scale;    /* factor of the balancing and z losses' gradients: their weight in the
                            step's loss (1 / passes of the step over all processes) */
} train_routing_pass;

/* Of one layer, summed over the passes of a step until train_experts_step. */
typedef struct train_routing_stats {
    int64_t tokens; /* padding left out, as in all that follows */
    int64_t *load;  /* [X] tokens routed to each expert, of this process */
    int64_t *seen;  /* [X] the same, TRAIN_BALANCE_GLOBAL: over all processes */
    double entropy; /* sum over tokens of the router's entropy, nats */
    double balance; /* sum over passes of the balancing loss, coefficient included */
    double z;       /* the same of the z loss */
    int64_t passes;
    float *bias; /* [X] added to probabilities for the choice alone; zeros */
} train_routing_stats;

/* Room for gate and up where the arena's is too small; of one layer, or of all that share what they
 * save. */
typedef struct train_experts_grown {
    float *memory; /* gate of `rows` rows, then up */
    int64_t rows;
} train_experts_grown;

typedef struct train_experts_saved {
    float *probs;     /* [T, X] softmax; the backward pass leaves its gradients here */
    float *lse;       /* [T] */
    int32_t *chosen;  /* [T, K] */
    float *weight;    /* [T, K] after renormalisation */
    float *gate, *up; /* rows that this process's experts got, [rows, F] each, sorted by expert; the
                         backward pass leaves their gradients here */
    int64_t n_rows;
    float *room; /* the arena's for gate and up, of rows_capacity rows each */
    int64_t rows_capacity;
    train_experts_grown *grown;
    int64_t *counts; /* [2, X]: rows for each expert of the model; rows that came from each process
                        for each expert held here */
} train_experts_saved;

typedef struct train_experts_work train_experts_work;

/* As in attention.h. With one process in TRAIN_EXPERTS there are exactly T * K rows; with several
 * room grows where a process gets more than its share (outside the arena). */
void train_experts_save(const model_config *config, int64_t n_tokens, train_experts_grown *grown,
                        train_arena *arena, train_experts_saved *saved);
train_experts_work *train_experts_plan(const model_config *config, const train_comm *comm,
                                       int64_t n_tokens, train_arena *arena);
int64_t train_experts_scratch(const model_config *config); /* floats a thread */

/* Give back what was taken outside the arena. NULL is allowed. */
void train_experts_grown_release(train_experts_grown *grown);
void train_experts_work_release(train_experts_work *work);

/* x [T, E] -> out [T, E], two different buffers. Padding goes to no expert, out = x, and is in no
 * count, mean or loss; a pass may be nothing but padding. Fails where processes cannot be reached,
 * or memory for more rows is not to be had. `again`: the same pass a second time (recomputation),
 * which must choose the same and count nothing. */
marco_status train_experts(const train_context *ctx, int32_t layer, const train_tokens *tokens,
                           const train_routing *routing, const train_routing_pass *pass, bool again,
                           const float *x, train_experts_saved *saved, train_experts_work *work,
                           train_routing_stats *stats, float *out, marco_error *error);

/* d [T, E] is the gradient of out and becomes that of x, balancing and z losses included. Adds to
 * the gradients of the layer's parameters. Once for what a forward pass saved. */
marco_status train_experts_back(const train_context *ctx, int32_t layer, const train_tokens *tokens,
                                const train_routing *routing, const train_routing_pass *pass,
                                const float *x, train_experts_saved *saved,
                                train_experts_work *work, train_routing_stats *stats, float *d,
                                marco_error *error);

/* After a step: moves the bias where that is the kind (stats->seen summed over processes by the
 * caller), and forgets the counts. */
void train_experts_step(const train_routing *routing, int64_t n_experts,
                        train_routing_stats *stats);

#endif
