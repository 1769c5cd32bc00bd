/* Between the files that write and read checkpoints. */
#ifndef TRAIN_CHECKPOINT_INTERNAL_H
#define TRAIN_CHECKPOINT_INTERNAL_H

#include "format/safetensors.h"
#include "train/checkpoint.h"

#define TRAIN_STEP_PREFIX "step-"

/* Numbers that a checkpoint holds for each element of a parameter. */
typedef enum train_part {
    TRAIN_PART_VALUE, /* of the weights' type */
    TRAIN_PART_M,     /* the others F32 */
    TRAIN_PART_V,
    TRAIN_PART_MASTER,
    TRAIN_PART_BASE,
} train_part;

/* Tensors of a file. */
typedef enum train_file {
    TRAIN_FILE_MODEL,     /* values of what is no adapter, a tensor for each matrix */
    TRAIN_FILE_OPTIMIZER, /* the other parts, a parameter's matrices in one tensor */
    TRAIN_FILE_ADAPTERS,  /* values of adapters, a tensor for each matrix */
    TRAIN_FILE_END,
} train_file;

/* "model", "optimizer", "adapters" */
const char *train_file_stem(train_file file);
/* Is there anything to be put in it? */
bool train_file_needed(const train_params *params, train_file file);

/* Writes a file of tensors into the folder. Called by all processes: `folder` is rank 0's, which
 * writes; the others send what they hold. */
marco_status train_tensors_write(const train_context *ctx, const train_optimizer *optimizer,
                                 train_file file, const char *folder, marco_error *error);

/* Reads what this process holds of a file of tensors. */
marco_status train_tensors_read(const train_context *ctx, train_optimizer *optimizer,
                                train_file file, const char *folder, marco_error *error);

/* Removes all checkpoints of a run, damaged ones too. */
marco_status train_checkpoints_clear(const train_run *run, marco_error *error);

#endif
