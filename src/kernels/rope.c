/* Rotary positions. */
#include "kernels/portable.h"

void kern_portable_rope(float *x, const float *cos, const float *sin, int64_t n)
{
    int64_t half = n / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = x[i];
        float b = x[i + half];
        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i] + a * sin[i];
    }
}
