/* RMSNorm, the squares summed in F64. */
#include <math.h>

#include "kernels/x86/avx2.h"
#include "kernels/x86/lanes.h"

LANES_INLINE __m256d add_squares(__m256d sum, __m128 x)
{
    __m256d wide = _mm256_cvtps_pd(x);
    return _mm256_fmadd_pd(wide, wide, sum);
}

/* Four sums and four to one. */
LANES_INLINE double sum_of(__m256d low, __m256d high)
{
    __m256d four = _mm256_add_pd(low, high);
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

void kern_avx2_rmsnorm(const float *x, const float *weight, float *out, int64_t n, float eps)
{
    __m256d low = _mm256_setzero_pd();
    __m256d high = _mm256_setzero_pd();
    for (int64_t i = 0; i < n; i += 8) {
        __m256 v = lanes_load(x + i, n - i, 0);
        low = add_squares(low, _mm256_castps256_ps128(v));
        high = add_squares(high, _mm256_extractf128_ps(v, 1));
    }
    double sum = sum_of(low, high);

    float scale = (float)(1 / sqrt(sum / (double)n + (double)eps));
    for (int64_t i = 0; i < n; i++) {
        out[i] = x[i] * scale * weight[i];
    }
}

LANES_INLINE __m256d add_products(__m256d sum, __m128 x, __m128 y)
{
    return _mm256_fmadd_pd(_mm256_cvtps_pd(x), _mm256_cvtps_pd(y), sum);
}

void kern_avx2_rmsnorm_back(const float *x, const float *weight, const float *dy, float *dx,
                            float *dweight, int64_t n, float eps)
{
    __m256d low = _mm256_setzero_pd(), high = low, s_low = low, s_high = low;
    for (int64_t i = 0; i < n; i += 8) {
        __m256 v = lanes_load(x + i, n - i, 0);
        __m128 v_low = _mm256_castps256_ps128(v), v_high = _mm256_extractf128_ps(v, 1);
        __m256 d = _mm256_mul_ps(lanes_load(weight + i, n - i, 0), lanes_load(dy + i, n - i, 0));
        low = add_squares(low, v_low);
        high = add_squares(high, v_high);
        s_low = add_products(s_low, v_low, _mm256_castps256_ps128(d));
        s_high = add_products(s_high, v_high, _mm256_extractf128_ps(d, 1));
    }
    double r = 1 / sqrt(sum_of(low, high) / (double)n + (double)eps);
    const __m256 scale = _mm256_set1_ps((float)r);
    const __m256 along = _mm256_set1_ps((float)(r * r * sum_of(s_low, s_high) / (double)n));
    for (int64_t i = 0; i < n; i += 8) {
        int64_t left = n - i;
        __m256 v = lanes_load(x + i, left, 0), d = lanes_load(dy + i, left, 0);
        __m256 across = _mm256_mul_ps(lanes_load(weight + i, left, 0), d);
        across = _mm256_fnmadd_ps(v, along, across);
        lanes_store(dx + i, _mm256_fmadd_ps(scale, across, lanes_load(dx + i, left, 0)), left);
        if (dweight) {
            __m256 sum = lanes_load(dweight + i, left, 0);
            lanes_store(dweight + i, _mm256_fmadd_ps(d, _mm256_mul_ps(v, scale), sum), left);
        }
    }
}
