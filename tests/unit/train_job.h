/* Steps of training a tiny checkpoint, as the "job" of a file in tests/vectors/train says. */
#ifndef TRAIN_JOB_H
#define TRAIN_JOB_H

#include <jansson.h>

#include "train/model.h"
#include "train/optimizer.h"

typedef struct train_job {
    int64_t sequences, seq_len, passes, batches; /* as in tests/vectors/README.md */
    double lr;
    int32_t *ids, *targets, *starts; /* [batches, sequences, seq_len] */
    train_routing routing;
    train_comm *comm;
    train_blas *blas;
    base_pool *pool;
    model_source *source;
    train_params *params;
    train_model *model;
    train_optimizer *optimizer;
    double *losses; /* [tokens of a pass] */
} train_job;

typedef struct train_job_losses {
    double loss;       /* cross-entropy, mean over the step's targets */
    double balance, z; /* means over passes, sums over layers */
} train_job_losses;

/* `description` is the vector's "job". */
marco_status train_job_open(const json_t *description, const char *checkpoint, int threads,
                            bool recompute, train_job **out, marco_error *error);
void train_job_close(train_job *job); /* NULL is allowed */

/* The passes of step `step`, counted from 0: the gradients are then those of the step. */
marco_status train_job_back(train_job *job, int64_t step, train_job_losses *losses,
                            marco_error *error);

/* The rest of the step. */
marco_status train_job_update(train_job *job, double *norm, marco_error *error);

#endif
