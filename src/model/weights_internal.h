/* What reading weights shares with looking at them. */
#ifndef MODEL_WEIGHTS_INTERNAL_H
#define MODEL_WEIGHTS_INTERNAL_H

#include "model/weights.h"

/* Where a tensor goes: a matrix, or a vector of floats. */
typedef struct model_weights_slot {
    model_matrix *matrix;
    float **vector;
} model_weights_slot;

model_weights_slot model_weights_slot_of(model_weights *weights, const model_tensor *tensor);

#endif
