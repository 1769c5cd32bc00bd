/* The operations that treat each number by itself. */
#include <string.h>

#include "kernels/x86/avx2.h"
#include "kernels/x86/lanes.h"

LANES_INLINE __m256 silu_times(__m256 z, __m256 up)
{
    __m256 one = _mm256_set1_ps(1);
    __m256 e = lanes_exp(_mm256_xor_ps(z, _mm256_set1_ps(-0.0f)));
    return _mm256_mul_ps(_mm256_div_ps(z, _mm256_add_ps(one, e)), up);
}

void kern_avx2_swiglu(float *gate, const float *up, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(gate + i, silu_times(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
    }
    if (i < n) {
        __m256i mask = lanes_mask(n - i);
        __m256 z = _mm256_maskload_ps(gate + i, mask);
        _mm256_maskstore_ps(gate + i, mask, silu_times(z, _mm256_maskload_ps(up + i, mask)));
    }
}

void kern_avx2_axpy(float a, const float *x, float *out, int64_t n)
{
    __m256 factor = _mm256_set1_ps(a);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 sum = _mm256_fmadd_ps(factor, _mm256_loadu_ps(x + i), _mm256_loadu_ps(out + i));
        _mm256_storeu_ps(out + i, sum);
    }
    if (i < n) {
        __m256i mask = lanes_mask(n - i);
        __m256 sum = _mm256_fmadd_ps(factor, _mm256_maskload_ps(x + i, mask),
                                     _mm256_maskload_ps(out + i, mask));
        _mm256_maskstore_ps(out + i, mask, sum);
    }
}

/* No multiply-add: it would round one of the two products of a pair and not the other. */
LANES_INLINE void rotate(__m256 *a, __m256 *b, __m256 cos, __m256 sin)
{
    __m256 x = *a;
    __m256 y = *b;
    *a = _mm256_sub_ps(_mm256_mul_ps(x, cos), _mm256_mul_ps(y, sin));
    *b = _mm256_add_ps(_mm256_mul_ps(y, cos), _mm256_mul_ps(x, sin));
}

void kern_avx2_rope(float *x, const float *cos, const float *sin, int64_t n)
{
    int64_t half = n / 2;
    float *y = x + half;
    int64_t i = 0;
    for (; i + 8 <= half; i += 8) {
        __m256 a = _mm256_loadu_ps(x + i);
        __m256 b = _mm256_loadu_ps(y + i);
        rotate(&a, &b, _mm256_loadu_ps(cos + i), _mm256_loadu_ps(sin + i));
        _mm256_storeu_ps(x + i, a);
        _mm256_storeu_ps(y + i, b);
    }
    if (i < half) {
        __m256i mask = lanes_mask(half - i);
        __m256 a = _mm256_maskload_ps(x + i, mask);
        __m256 b = _mm256_maskload_ps(y + i, mask);
        rotate(&a, &b, _mm256_maskload_ps(cos + i, mask), _mm256_maskload_ps(sin + i, mask));
        _mm256_maskstore_ps(x + i, mask, a);
        _mm256_maskstore_ps(y + i, mask, b);
    }
}

void kern_avx2_f32_to_f16(const float *x, uint16_t *out, int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(void *)(out + i), h);
    }
    if (i < n) {
        __m256 last = _mm256_maskload_ps(x + i, lanes_mask(n - i));
        __m128i h = _mm256_cvtps_ph(last, _MM_FROUND_TO_NEAREST_INT);
        memcpy(out + i, &h, (size_t)(n - i) * sizeof(*out));
    }
}
