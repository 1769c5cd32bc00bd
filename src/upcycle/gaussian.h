/* Normal deviates by the billion: cheap, and each row of each tensor on its own. */
#ifndef UPCYCLE_GAUSSIAN_H
#define UPCYCLE_GAUSSIAN_H

#include "model/config.h"

/* Which numbers a key is for, so that no two uses of a seed share any. */
typedef enum upcycle_purpose {
    UPCYCLE_WEIGHTS, /* the numbers of a row */
    UPCYCLE_INDICES, /* the choice of what is dropped */
} upcycle_purpose;

/* The stream of random bits for one purpose in one tensor. */
uint64_t upcycle_stream(upcycle_purpose purpose, model_role role, int32_t layer);

/* A row's (or any other item's) number within its stream. */
static inline uint64_t upcycle_item(int64_t mat, int64_t row)
{
    return (uint64_t)mat << 32 | (uint64_t)(uint32_t)row;
}

/* A table of quantiles, 128 KiB. */
typedef struct upcycle_gaussian upcycle_gaussian;

marco_status upcycle_gaussian_create(upcycle_gaussian **out, marco_error *error);
void upcycle_gaussian_free(upcycle_gaussian *gaussian); /* NULL is allowed */

/* n deviates with the mean and deviation asked for, a function of seed, stream and item alone.
 * 65,536 different values, symmetric, of variance 1 before scaling; the farthest are 4.33
 * deviations out. */
void upcycle_gaussian_fill(const upcycle_gaussian *gaussian, uint64_t seed, uint64_t stream,
                           uint64_t item, float mean, float deviation, float *dst, int64_t n);

#endif
