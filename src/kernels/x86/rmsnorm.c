/* RMSNorm, the squares summed in F64. */
#include <math.h>

#include "kernels/x86/avx2.h"
#include "kernels/x86/lanes.h"

LANES_INLINE __m256d add_squares(__m256d sum, __m128 x)
{
    __m256d wide = _mm256_cvtps_pd(x);
    return _mm256_fmadd_pd(wide, wide, sum);
}

void kern_avx2_rmsnorm(const float *x, const float *weight, float *out, int64_t n, float eps)
{
    __m256d low = _mm256_setzero_pd();
    __m256d high = _mm256_setzero_pd();
    for (int64_t i = 0; i < n; i += 8) {
        __m256 v =
            n - i < 8 ? _mm256_maskload_ps(x + i, lanes_mask(n - i)) : _mm256_loadu_ps(x + i);
        low = add_squares(low, _mm256_castps256_ps128(v));
        high = add_squares(high, _mm256_extractf128_ps(v, 1));
    }
    __m256d four = _mm256_add_pd(low, high);
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    double sum = _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));

    float scale = (float)(1 / sqrt(sum / (double)n + (double)eps));
    for (int64_t i = 0; i < n; i++) {
        out[i] = x[i] * scale * weight[i];
    }
}
