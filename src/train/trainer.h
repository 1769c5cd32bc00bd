/* Inside the trainer: what a run holds, and its parts. */
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include "data/data.h"
#include "marco/train.h"
#include "train/checkpoint.h"
#include "train/model.h"
#include "train/optimizer.h"
#include "train/recipe.h"

/* What is held out of one source: measured again and again on the same sequences. */
typedef struct train_valid_source {
    char *name; /* UTF-8, each source another: as much of its path's end as tells it apart */
    data_loader *loader;
    json_t *beginning; /* the loader's state */
    int64_t sequences; /* to be measured, over all processes */
} train_valid_source;

typedef struct train_valid {
    train_valid_source *sources; /* [n] */
    size_t n;
    int64_t tokens; /* of all held-out sources */
    data_batch *batch;
} train_valid;

/* What a step adds up. Over the process, then over all. */
typedef struct train_sums {
    double loss;       /* over targets */
    double balance, z; /* over layers and passes */
    double passes;     /* of all layers */
    double routed;     /* tokens, of all layers */
    double flops;
} train_sums;

typedef struct train_metrics train_metrics;

typedef struct trainer {
    const marco_train_params *params;
    train_recipe *recipe;
    train_comm *comm;
    train_run *run;
    base_pool *pool;
    train_blas *blas;
    model_source *source;   /* until the weights are read */
    train_checkpoint *from; /* that the run goes on from; NULL: from the beginning */
    tok_spec *tokenizer;    /* once the weights are read */
    train_params *weights;
    train_model *model;
    train_optimizer *optimizer;
    data_loader *loader;
    data_batch *batch;
    double *losses; /* [tokens of a pass] */
    train_valid valid;
    train_metrics *metrics;
    train_notes notes;
    marco_train_plan plan;
    double roof;          /* F32 operations a second of all processes; 0: unknown */
    int64_t step;         /* steps taken */
    int64_t total_tokens; /* of the run, over all processes */
    int64_t resumed;
    int64_t left_out; /* steps in a row whose gradient was not finite */
    int64_t empty;    /* steps in a row without a target */
    double began;     /* base_now() of this process's first step */
    /* Of the last step's routers, over all processes; NULL in a dense model. */
    int64_t *loads;    /* [n_layers, n_experts] tokens routed to each expert */
    double *entropies; /* [n_layers] nats, sums over tokens until they are reduced, then means */
    char checkpoint[512];
} trainer;

/* ---- step.c -------------------------------------------------------------------------------- */

/* One step: batch, passes, optimiser. `out` is filled but for valid_loss. */
marco_status trainer_step(trainer *t, marco_train_step *out, marco_error *error);

/* ---- validate.c ---------------------------------------------------------------------------- */

/* Finds the held-out parts of the recipe's sources. Sources without one, or with less than a
 * sequence, are noted and left out; what is there must be sound. */
marco_status train_valid_open(trainer *t, const char *tokenizer, int32_t eos, int32_t pad,
                              marco_error *error);
void train_valid_close(train_valid *valid);

/* What is to be measured, the same on all processes (a new reference; NULL when out of memory). */
json_t *train_valid_state(const train_valid *valid);

/* The mean loss, and each source's losses [valid.n] (NULL: not wanted). NAN where nothing is held
 * out. */
marco_status train_valid_measure(trainer *t, double *loss, double *per_source, marco_error *error);

/* ---- metrics.c: RUN/metrics.jsonl, on rank 0 ----------------------------------------------- */

/* Appends; a line that a killed process left half written is ended first. */
marco_status train_metrics_open(const char *folder, train_metrics **out, marco_error *error);
void train_metrics_close(train_metrics *metrics); /* NULL is allowed */
marco_status train_metrics_run(train_metrics *metrics, const trainer *t, marco_error *error);
marco_status train_metrics_step(train_metrics *metrics, const marco_train_step *step,
                                data_loader_stats data, marco_error *error);
marco_status train_metrics_valid(train_metrics *metrics, int64_t step, double loss,
                                 const train_valid *valid, const double *per_source,
                                 marco_error *error);
/* The share of tokens routed to every expert of the last step. */
marco_status train_metrics_load(train_metrics *metrics, const trainer *t, marco_error *error);
/* Bytes that this process has sent since the run began. */
marco_status train_metrics_traffic(train_metrics *metrics, int64_t step, const train_comm *comm,
                                   marco_error *error);

#endif
