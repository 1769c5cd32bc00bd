/* The operations that treat each number by itself. */
#include <float.h>
#include <math.h>
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

/* As the portable steps: exp(-|z|) neither overflows nor cancels. */
void kern_avx2_swiglu_back(float *gate, float *up, const float *dh, float *h, int64_t n)
{
    const __m256 sign = _mm256_set1_ps(-0.0f), one = _mm256_set1_ps(1);
    for (int64_t i = 0; i < n; i += 8) {
        int64_t left = n - i;
        __m256 z = lanes_load(gate + i, left, 0), u = lanes_load(up + i, left, 0);
        __m256 d = lanes_load(dh + i, left, 0);
        __m256 e = lanes_exp_normal(_mm256_or_ps(z, sign));
        __m256 large = _mm256_div_ps(one, _mm256_add_ps(one, e));
        __m256 small = _mm256_mul_ps(e, large);
        __m256 s = _mm256_blendv_ps(large, small, z);
        __m256 rest = _mm256_blendv_ps(small, large, z);
        __m256 silu = _mm256_mul_ps(z, s);
        __m256 slope = _mm256_fmadd_ps(silu, rest, s);
        lanes_store(h + i, _mm256_mul_ps(silu, u), left);
        lanes_store(gate + i, _mm256_mul_ps(_mm256_mul_ps(d, u), slope), left);
        lanes_store(up + i, _mm256_mul_ps(d, silu), left);
    }
}

void kern_avx2_exp_scaled(float *x, int64_t n, float scale, float shift)
{
    const __m256 factor = _mm256_set1_ps(scale), less = _mm256_set1_ps(shift);
    for (int64_t i = 0; i < n; i += 8) {
        __m256 v = _mm256_fmsub_ps(factor, lanes_load(x + i, n - i, 0), less);
        lanes_store(x + i, lanes_exp_normal(v), n - i);
    }
}

LANES_INLINE __m256 flushed(__m256 x)
{
    __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
    return _mm256_and_ps(x, _mm256_cmp_ps(size, _mm256_set1_ps(FLT_MIN), _CMP_NLT_UQ));
}

void kern_avx2_adamw(float *w, float *m, float *v, const float *g, int64_t n, const kern_adamw *p)
{
    const __m256 beta1 = _mm256_set1_ps(p->beta1), rest1 = _mm256_set1_ps(p->rest1);
    const __m256 beta2 = _mm256_set1_ps(p->beta2), rest2 = _mm256_set1_ps(p->rest2);
    const __m256 scale = _mm256_set1_ps(p->grad_scale), eps = _mm256_set1_ps(p->eps);
    const __m256 step = _mm256_set1_ps(p->lr / p->correct1);
    const __m256 inverse = _mm256_set1_ps(1 / sqrtf(p->correct2));
    const __m256 decay = _mm256_set1_ps(p->lr * p->decay);
    for (int64_t i = 0; i < n; i += 8) {
        int64_t left = n - i;
        __m256 grad = _mm256_mul_ps(lanes_load(g + i, left, 0), scale);
        __m256 first = _mm256_mul_ps(rest1, grad);
        first = flushed(_mm256_fmadd_ps(beta1, lanes_load(m + i, left, 0), first));
        __m256 second = _mm256_mul_ps(_mm256_mul_ps(rest2, grad), grad);
        second = flushed(_mm256_fmadd_ps(beta2, lanes_load(v + i, left, 0), second));
        lanes_store(m + i, first, left);
        lanes_store(v + i, second, left);
        __m256 weight = lanes_load(w + i, left, 0);
        __m256 size = _mm256_fmadd_ps(_mm256_sqrt_ps(second), inverse, eps);
        __m256 change = _mm256_mul_ps(decay, weight);
        change = _mm256_fmadd_ps(step, _mm256_div_ps(first, size), change);
        lanes_store(w + i, _mm256_sub_ps(weight, change), left);
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
