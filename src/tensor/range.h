/* What the encoders of blocks of 32 look for first. */
#ifndef TENSOR_RANGE_H
#define TENSOR_RANGE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "tensor/half.h"

enum { RANGE_INF_BITS = 0x7f800000 };

/* The bits of the largest magnitude among 32 numbers. Magnitudes order as integers do, with NaN
 * above Inf: a result of RANGE_INF_BITS or more means the block is not finite. */
static inline int32_t range_max_bits(const float x[32])
{
    int32_t max = 0;
    for (int i = 0; i < 32; i++) {
        int32_t bits = (int32_t)(half_to_bits(x[i]) & 0x7fffffffu);
        max = bits > max ? bits : max;
    }
    return max;
}

/* The first number of the largest magnitude, or NaN if any number is not finite. Zeros of either
 * sign give +0, as in GGML. */
static inline float range_peak(const float x[32])
{
    int32_t max = range_max_bits(x);
    if (max >= RANGE_INF_BITS) {
        return NAN;
    }
    if (max == 0) {
        return 0;
    }
    int i = 0;
    while ((int32_t)(half_to_bits(x[i]) & 0x7fffffffu) != max) {
        i++;
    }
    return x[i];
}

/* Smallest and largest number; false if any is not finite. */
static inline bool range_bounds(const float x[32], float *min, float *max)
{
    float lo = x[0];
    float hi = x[0];
    for (int i = 1; i < 32; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    *min = lo;
    *max = hi;
    return range_max_bits(x) < RANGE_INF_BITS;
}

/* 1 / d, or 0 where d is 0 or so small that the quotient overflows: F16 can't hold such a d, the
 * block decodes to zeros whatever its numbers are. */
static inline float range_inverse(float d)
{
    float inverse = d != 0 ? 1.0f / d : 0.0f;
    return isfinite(inverse) ? inverse : 0.0f;
}

#endif
