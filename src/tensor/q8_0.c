/* Q8_0: 32 signed bytes and their scale. */
#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"
#include "tensor/range.h"

void tensor_q8_0_decode(const void *src, float *restrict dst, int64_t n)
{
    const tensor_q8_0 *restrict block = src;
    for (int64_t b = 0; b < n / 32; b++) {
        float d = half_load(block[b].d);
        for (int i = 0; i < 32; i++) {
            dst[b * 32 + i] = (float)block[b].q[i] * d;
        }
    }
}

/* A block that holds NaN or Inf has no scale: it becomes NaN throughout, so that it shows. */
void tensor_q8_0_encode(const float *restrict src, void *dst, int64_t n)
{
    tensor_q8_0 *restrict block = dst;
    for (int64_t b = 0; b < n / 32; b++) {
        const float *x = src + b * 32;
        int32_t max = range_max_bits(x);
        float d = max < RANGE_INF_BITS ? half_from_bits((uint32_t)max) / 127 : NAN;
        float inverse = range_inverse(d);
        half_store(block[b].d, d);
        if (inverse == 0) {
            memset(block[b].q, 0, sizeof(block[b].q));
            continue;
        }
        for (int i = 0; i < 32; i++) {
            /* Half away from zero: the float below 0.5 keeps 0.49999997 from reaching 1, and the
             * sum's own rounding lifts an exact half. */
            float q = x[i] * inverse;
            block[b].q[i] = (int8_t)(int32_t)(q + copysignf(0x1.fffffep-2f, q));
        }
    }
}
