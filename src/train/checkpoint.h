/* A run's folder and its checkpoints:
 *
 *   RUN/recipe.json                     the complete recipe
 *   RUN/metrics.jsonl                   (the trainer's)
 *   RUN/checkpoints/step-00000100/      a Hugging Face folder of the weights, and
 *       optimizer.safetensors           exp_avg.NAME, exp_avg_sq.NAME of every trained tensor;
 *                                       master.NAME with BF16; base.NAME of adapted ones
 *       adapters.safetensors            LoRA: the adapters under PEFT's names
 *       trainer.json                    the rest: step, state, the files' sizes
 *
 * A checkpoint is written under a temporary name, every file and the folder fsynced, then renamed:
 * at any moment, whatever happens, the folders named step-N are whole. With several processes all
 * functions are called by all of them and give all the same status; rank 0 writes, everybody reads
 * what it needs from the same file system. */
#ifndef TRAIN_CHECKPOINT_H
#define TRAIN_CHECKPOINT_H

#include "train/json.h"
#include "train/optimizer.h"
#include "train/recipe.h"

/* For what a person should know; fn may be NULL. */
typedef struct train_notes {
    void (*fn)(void *user, const char *line);
    void *user;
} train_notes;

/* ---- the run's folder (run.c) -------------------------------------------------------------- */

typedef struct train_run {
    char *folder, *checkpoints;
    json_t *recipe; /* the complete one, which checkpoints have a copy of */
    int lock;       /* rank 0: keeps other runs out of the folder, also after a kill */
} train_run;

/* Does the folder hold a run? For rank 0 alone. */
bool train_run_exists(const char *folder);

/* Makes the folder, or opens one that holds a run of this recipe (train_recipe_goes_on); `restart`
 * removes what that run wrote. A folder with other things in it, and one that a running process
 * trains in, are refused (a file system without locks is noted). What killed runs left under
 * temporary names is removed. */
marco_status train_run_open(train_comm *comm, const char *folder, const train_recipe *recipe,
                            bool restart, const train_notes *notes, train_run **out,
                            marco_error *error);
void train_run_close(train_run *run); /* NULL is allowed */

/* ---- writing ------------------------------------------------------------------------------- */

typedef struct train_checkpoint_params {
    int64_t step;
    const json_t *state; /* what the trainer wants back, borrowed; numbers come back exactly
                            (json.h). Rank 0's is kept. */
    int64_t keep_last, keep_every; /* as in the recipe; checkpoints of later steps go too */
} train_checkpoint_params;

/* Writes RUN/checkpoints/step-N, its path to `path`, and then removes old ones: only folders named
 * step-N that hold a trainer.json and nothing but a checkpoint's files. Nothing is left behind on
 * failure (MARCO_ERROR_SPACE where the disk is full) and the ones before are as they were. */
marco_status train_checkpoint_write(const train_context *ctx, const train_optimizer *optimizer,
                                    const train_run *run, const train_checkpoint_params *params,
                                    char path[512], marco_error *error);

/* ---- reading ------------------------------------------------------------------------------- */

typedef struct train_checkpoint {
    char *folder;
    int64_t step;
    json_t *state; /* what was given to train_checkpoint_write */
} train_checkpoint;

/* The last whole checkpoint; *out is NULL where there is none. Damaged ones (files missing,
 * truncated or not of a checkpoint) are noted, renamed to step-N.damaged, and passed over; where
 * none is whole and there are damaged ones, now or from before, that is an error. */
marco_status train_checkpoint_last(train_comm *comm, const train_run *run, const train_notes *notes,
                                   train_checkpoint **out, marco_error *error);
void train_checkpoint_free(train_checkpoint *checkpoint); /* NULL is allowed */

/* Weights, adapters and bases to ctx->params (which may have been loaded from any source of the
 * same shape and choice), moments and masters to the optimizer, with its step and norm mean: bit
 * by bit as they were, whatever the number of processes then and now. */
marco_status train_checkpoint_load(const train_checkpoint *checkpoint, const train_context *ctx,
                                   train_optimizer *optimizer, marco_error *error);

#endif
