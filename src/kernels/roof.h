/* What the processor and its memory can do at best, for measuring a computation against: loops
 * that do nothing but read, or nothing but multiply. Each does exactly the work that it counts, and
 * its result depends on all of it, so that no compiler can leave any out. */
#ifndef KERNELS_ROOF_H
#define KERNELS_ROOF_H

#include "base/pool.h"
#include "kernels/kernels.h"

/* Ways to read memory. Which is the fastest depends on the processor's own prefetching. */
typedef enum kern_read {
    KERN_READ_STREAM,        /* from the beginning to the end */
    KERN_READ_STREAM_AHEAD,  /* the same, asking for memory ahead */
    KERN_READ_STREAMS,       /* four streams, one in each quarter */
    KERN_READ_STREAMS_AHEAD, /* the same, asking for memory ahead of each */
    KERN_READ_PATTERNS,
} kern_read;

enum {
    KERN_READ_UNIT = 512,    /* bytes: a step of four streams */
    KERN_ROOF_LANES = 16,    /* numbers in a and b of the loops below */
    KERN_ROOF_PRODUCTS = 24, /* of a with b, a round */
};

typedef struct kern_roof {
    /* Reads `bytes` bytes at p, a multiple of KERN_READ_UNIT. Returns the exclusive or of all its
     * 64-bit words. */
    uint64_t (*read[KERN_READ_PATTERNS])(const void *p, size_t bytes);

    /* Multiplies a and b, s8 numbers held as s16, KERN_ROOF_PRODUCTS times a round, summing in s32,
     * from registers where the level has them. Returns the sum of all the products.
     * rounds <= 2048, so that nothing overflows. */
    int64_t (*int8)(const int16_t *a, const int16_t *b, int64_t rounds);

    /* The same with F32 numbers: fused multiply-adds where there are. */
    float (*f32)(const float *a, const float *b, int64_t rounds);
} kern_roof;

/* What all threads of a pool reach together, operations a second (a product and its sum are two):
 * the median of three measurements. Milliseconds, with nothing else running in the pool. */
double kern_roof_int8_rate(const kern_roof *roof, base_pool *pool);
double kern_roof_f32_rate(const kern_roof *roof, base_pool *pool);

/* The loops of a table's instruction level. Constant, lives for ever. */
const kern_roof *kern_roof_of(const kern_table *table);

#endif
