/* A scaled vector onto another. */
#include "kernels/portable.h"

void kern_portable_axpy(float a, const float *x, float *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] += a * x[i];
    }
}
