/* How much arithmetic a forward pass is. */
#ifndef MODEL_OPERATIONS_H
#define MODEL_OPERATIONS_H

#include "model/weights.h"

/* Operations, two for each product that is added to a sum, of running n tokens after `position`
 * others, with logits for the last alone. int8: products with weights of the types whose kernel
 * takes activations as bytes; f32: all others, the routers', and attention's scores and values.
 * Norms, rotations, softmax and activations are not counted. `kernels` NULL: the reference path,
 * everything in F32. */
marco_operations model_operations(const model_weights *weights, const kern_table *kernels,
                                  int64_t position, int64_t n);

#endif
