/* AdamW on flat parameters, its state shared out over the processes that hold the same numbers
 * (ZeRO stage 1, arXiv 1910.02054): TRAIN_SHARED over the world, own experts over the replicas. */
#ifndef TRAIN_OPTIMIZER_H
#define TRAIN_OPTIMIZER_H

#include "train/context.h"

typedef struct train_optimizer_params {
    double beta1, beta2, eps, weight_decay; /* AdamW, arXiv 1711.05101; decay decoupled */
    double clip;                            /* largest global norm of the gradient; 0: no limit */
    double skip; /* a step whose norm exceeds this many times the running mean of norms is left out;
                    0: none is */
} train_optimizer_params;

/* Norms that the mean must have seen before one can be an outlier; and how many it goes back. */
enum { TRAIN_NORMS_LEAST = 20, TRAIN_NORMS_MOST = 100 };

typedef struct train_optimizer {
    train_optimizer_params params;
    int64_t step;     /* steps taken; those left out are not counted */
    double norm_mean; /* running mean of gradient norms, and how many it has seen */
    int64_t norm_count;
    struct train_shard {
        int64_t begin, size; /* this process's part of its section's trained elements */
        float *m, *v;        /* [size] */
        float *master; /* [size] BF16: the numbers in full, at first the weights'; else NULL */
    } shards[TRAIN_SECTION_END];
    struct train_stretch *stretches; /* the work of a step, in pieces */
    size_t n_stretches;
    double *squares; /* [n_stretches] of their gradients */
} train_optimizer;

/* For ctx->params as they are. */
marco_status train_optimizer_create(const train_context *ctx, const train_optimizer_params *params,
                                    train_optimizer **out, marco_error *error);
/* Before the first step of a run: masters become the source's numbers, of which BF16 weights have
 * lost the last bits. Without masters there is nothing to do. seed: the adapters'. */
marco_status train_optimizer_begin(train_optimizer *optimizer, const train_context *ctx,
                                   model_source *source, uint64_t seed, marco_error *error);
void train_optimizer_free(train_optimizer *optimizer); /* NULL is allowed */

/* Bytes that create would take, for plans. */
uint64_t train_optimizer_bytes(const train_params *params, const train_comm *comm);

typedef struct train_step_result {
    double norm;  /* of the gradient over all processes, before clipping */
    bool skipped; /* the step was left out: not finite, or an outlier */
    bool finite;
} train_step_result;

/* Sums gradients over the processes, clips, updates this process's part and gathers the others'.
 * Gradients are zeros afterwards, also where the step was left out, which is no error. */
marco_status train_optimizer_step(train_optimizer *optimizer, const train_context *ctx, double lr,
                                  train_step_result *result, marco_error *error);

/* ---- learning rate (schedule.c) ------------------------------------------------------------ */

typedef enum train_schedule_kind { TRAIN_CONSTANT, TRAIN_COSINE, TRAIN_WSD } train_schedule_kind;

typedef struct train_schedule {
    train_schedule_kind kind;
    double lr, min_lr;
    int64_t warmup; /* steps from 0 to lr */
    int64_t decay;  /* WSD (arXiv 2404.06395): steps of decay at the end, linear */
    int64_t steps;  /* of the run */
} train_schedule;

/* The rate of step `step`, counted from 0: warm-up gives lr * (step + 1) / warmup. */
double train_schedule_at(const train_schedule *schedule, int64_t step);

#endif
