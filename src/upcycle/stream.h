/* Where each use of a seed has its random numbers. */
#ifndef UPCYCLE_STREAM_H
#define UPCYCLE_STREAM_H

#include "base/gaussian.h"
#include "model/config.h"

/* Which numbers a key is for, so that no two uses of a seed share any. */
typedef enum upcycle_purpose {
    UPCYCLE_WEIGHTS, /* the numbers of a row */
    UPCYCLE_INDICES, /* the choice of what is dropped */
} upcycle_purpose;

/* The stream of random bits for one purpose in one tensor. */
static inline uint64_t upcycle_stream(upcycle_purpose purpose, model_role role, int32_t layer)
{
    return (uint64_t)purpose << 56 | (uint64_t)role << 32 | (uint64_t)(layer + 1);
}

/* A row's (or any other item's) number within its stream. */
static inline uint64_t upcycle_item(int64_t mat, int64_t row)
{
    return (uint64_t)mat << 32 | (uint64_t)(uint32_t)row;
}

#endif
