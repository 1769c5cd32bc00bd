/* Normal deviates by the billion: cheap, and each item of each stream on its own. */
#ifndef BASE_GAUSSIAN_H
#define BASE_GAUSSIAN_H

#include <stdint.h>

#include "marco/marco.h"

/* A table of quantiles, 128 KiB. */
typedef struct base_gaussian base_gaussian;

marco_status base_gaussian_create(base_gaussian **out, marco_error *error);
void base_gaussian_free(base_gaussian *gaussian); /* NULL is allowed */

/* n deviates with the mean and deviation asked for, a function of seed, stream and item alone.
 * 65,536 different values, symmetric, of variance 1 before scaling; the farthest are 4.33
 * deviations out. */
void base_gaussian_fill(const base_gaussian *gaussian, uint64_t seed, uint64_t stream,
                        uint64_t item, float mean, float deviation, float *dst, int64_t n);

#endif
