/* The gated activation of the feed-forward layer. */
#include <math.h>

#include "kernels/portable.h"

void kern_portable_swiglu(float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        gate[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
    }
}

/* s and 1 - s from exp(-|z|), which neither overflows nor cancels:
 * silu'(z) = s + z s (1 - s),  s = 1 / (1 + exp(-z)). */
void kern_portable_swiglu_back(float *gate, float *up, const float *dh, float *h, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float z = gate[i];
        float e = expf(-fabsf(z));
        float large = 1 / (1 + e);
        float small = e * large;
        float s = z < 0 ? small : large;
        float rest = z < 0 ? large : small;
        float silu = z * s;
        h[i] = silu * up[i];
        gate[i] = dh[i] * up[i] * (s + silu * rest);
        up[i] = dh[i] * silu;
    }
}
