/* Recipes: everything that decides what a training run computes, from a JSON file and overrides.
 * docs/training.md lists the keys; recipe_table.c has them in one table. */
#ifndef TRAIN_RECIPE_H
#define TRAIN_RECIPE_H

#include "data/data.h"
#include "train/experts.h"
#include "train/optimizer.h"

typedef struct train_recipe {
    char *file;   /* for messages */
    char *folder; /* of the file, absolute: where relative paths begin */

    char *model;         /* the checkpoint to begin from, absolute; NULL: random numbers */
    model_config random; /* where `model` is NULL; n_vocab, special ids and name are still to come
                            from the tokenizer */
    double random_std;   /* deviation of the numbers */
    char *tokenizer;     /* for random numbers, absolute; NULL with `model` */

    data_source *sources; /* [n_sources] paths absolute */
    size_t n_sources;
    double temperature;
    bool chat; /* conversations, whole; else documents one after another */
    bool attend_across;

    int32_t seq_len;
    int64_t batch;       /* sequences of a step, over all processes */
    int64_t micro_batch; /* sequences of a pass of one process, at most */
    int64_t steps;
    int64_t seed;

    train_optimizer_params optimizer;
    train_schedule schedule;    /* complete */
    train_routing routing;      /* complete */
    double drop_rate, drop_end; /* of expert dropout: at the first step, and from drop_steps on */
    int64_t drop_steps;

    train_params_choice choice; /* complete */
    bool recompute;             /* activations, in the backward pass */

    int64_t valid_every;      /* steps; 0: never */
    int64_t valid_batches;    /* of `batch` sequences each */
    int64_t checkpoint_every; /* steps; 0: at the end only */
    int64_t keep_last;        /* of checkpoints, >= 1 */
    int64_t keep_every;       /* and those of steps that this divides; 0: none */
    int64_t load_every;       /* steps between records of every expert's load; 0: none */
    int64_t expert_processes; /* that experts are spread over */

    json_t *json; /* every setting by its key, paths absolute */
} train_recipe;

/* Reads `file` (NULL: all comes from `set`) with the settings "key.key=value" over it, which are
 * JSON or, where they are not, text. Unknown keys are refused with the nearest one that exists,
 * values out of range with key and file. Paths are not looked at. */
marco_status train_recipe_read(const char *file, const char *const *set, size_t n_set,
                               train_recipe **out, marco_error *error);
void train_recipe_free(train_recipe *recipe); /* NULL is allowed */

/* The complete recipe as text, ending with a newline (base_free); NULL when out of memory. Reading
 * it gives the same recipe. */
char *train_recipe_text(const train_recipe *recipe);

/* May a run that was begun by the recipe in the file `earlier` go on by this one? Refuses, naming
 * the first key that differs, unless it is one that may: steps (and dropout.end_step with it,
 * where both had them equal), micro_batch, optimizer.lr, min_lr and clip, recompute, valid,
 * checkpoint, log_load_every, parallel, and where the data, the model and its tokenizer lie.
 * *moved: the model's path is another. */
marco_status train_recipe_goes_on(const train_recipe *recipe, const char *earlier, bool *moved,
                                  marco_error *error);

/* Refuses settings about experts for a model that has none. */
marco_status train_recipe_suits(const train_recipe *recipe, const model_config *config,
                                marco_error *error);

/* The rate of expert dropout at step `step`, counted from 0. */
static inline double train_recipe_drop(const train_recipe *recipe, int64_t step)
{
    if (step >= recipe->drop_steps)
        return recipe->drop_end;
    return recipe->drop_rate +
           (recipe->drop_end - recipe->drop_rate) * (double)step / (double)recipe->drop_steps;
}

/* What training begins from: the recipe's checkpoint, or random numbers: N(0, std), norms 1
 * (train_random_source). */
marco_status train_recipe_source(const train_recipe *recipe, model_source **out,
                                 marco_error *error);

#endif
