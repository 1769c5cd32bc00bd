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

void kern_portable_rmsnorm_back(const float *x, const float *weight, const float *dy, float *dx,
                                float *dweight, int64_t n, float eps)
{
    double squares = 0, s = 0;
    for (int64_t i = 0; i < n; i++) {
        squares += (double)x[i] * (double)x[i];
        s += (double)(dy[i] * weight[i]) * (double)x[i];
    }
    double r = 1 / sqrt(squares / (double)n + (double)eps);
    float scale = (float)r;
    float along = (float)(r * r * s / (double)n);
    for (int64_t i = 0; i < n; i++) {
        dx[i] += scale * (weight[i] * dy[i] - x[i] * along);
    }
    for (int64_t i = 0; dweight && i < n; i++) {
        dweight[i] += dy[i] * (x[i] * scale);
    }
}
