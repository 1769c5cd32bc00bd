/* RMSNorm. The squares are summed in F64, in order: F32 would overflow at 1e19. */
#include <math.h>

#include "kernels/portable.h"

void kern_portable_rmsnorm(const float *x, const float *weight, float *out, int64_t n, float eps)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    float scale = (float)(1 / sqrt(sum / (double)n + (double)eps));
    for (int64_t i = 0; i < n; i++) {
        out[i] = x[i] * scale * weight[i];
    }
}
