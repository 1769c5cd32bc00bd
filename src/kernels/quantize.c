/* Activations to kern_q8. */
#include <math.h>
#include <string.h>

#include "kernels/portable.h"

/* Adding and taking away 1.5 * 2^23 rounds to an integer, ties to even, for |x| < 2^22. */
static inline float round_even(float x)
{
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

/* The largest magnitude, NaN if any number is NaN. */
static inline float peak(const float x[32])
{
    int32_t max = 0;
    for (int i = 0; i < 32; i++) {
        int32_t bits;
        memcpy(&bits, &x[i], sizeof(bits));
        bits &= INT32_MAX;
        max = bits > max ? bits : max; /* magnitudes order as integers do, NaN above Inf */
    }
    float f;
    memcpy(&f, &max, sizeof(f));
    return f;
}

/* A block that holds NaN or Inf gets the scale NaN, so that every product with it is NaN. A block
 * too small to have an inverse (below 2^-121) counts as zero. */
void kern_portable_quantize_q8(const float *x, kern_q8 *q, int64_t n)
{
    for (int64_t b = 0; b < n / 32; b++, x += 32) {
        float max = peak(x);
        float inverse = 127 / max;
        if (!isfinite(max) || !isfinite(inverse)) {
            q[b] = (kern_q8){.d = isfinite(max) ? 0 : NAN, .s = isfinite(max) ? 0 : NAN};
            continue;
        }
        int32_t sum[2] = {0, 0};
        for (int i = 0; i < 32; i++) {
            int32_t value = (int32_t)round_even(x[i] * inverse);
            q[b].q[i] = (int8_t)value;
            sum[i / 16] += value;
        }
        q[b].d = max / 127;
        q[b].s = q[b].d * (float)(sum[0] + sum[1]);
        q[b].sum[0] = (int16_t)sum[0];
        q[b].sum[1] = (int16_t)sum[1];
    }
}
