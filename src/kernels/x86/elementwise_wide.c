/* The operations of training that treat each number by itself, sixteen at a time. */
#include <float.h>
#include <math.h>

#include "kernels/x86/avx512vnni.h"
#include "kernels/x86/wide.h"

/* As the portable steps: exp(-|z|) neither overflows nor cancels. */
void kern_avx512vnni_swiglu_back(float *gate, float *up, const float *dh, float *h, int64_t n)
{
    const __m512 zero = _mm512_setzero_ps(), one = _mm512_set1_ps(1);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = wide_mask(n - i);
        __m512 z = _mm512_maskz_loadu_ps(mask, gate + i), u = _mm512_maskz_loadu_ps(mask, up + i);
        __m512 d = _mm512_maskz_loadu_ps(mask, dh + i);
        __m512 e = wide_exp_normal(_mm512_sub_ps(zero, _mm512_abs_ps(z)));
        __m512 large = _mm512_div_ps(one, _mm512_add_ps(one, e));
        __m512 small = _mm512_mul_ps(e, large);
        __mmask16 negative = _mm512_cmp_ps_mask(z, zero, _CMP_LT_OQ);
        __m512 s = _mm512_mask_blend_ps(negative, large, small);
        __m512 rest = _mm512_mask_blend_ps(negative, small, large);
        __m512 silu = _mm512_mul_ps(z, s);
        __m512 slope = _mm512_fmadd_ps(silu, rest, s);
        _mm512_mask_storeu_ps(h + i, mask, _mm512_mul_ps(silu, u));
        _mm512_mask_storeu_ps(gate + i, mask, _mm512_mul_ps(_mm512_mul_ps(d, u), slope));
        _mm512_mask_storeu_ps(up + i, mask, _mm512_mul_ps(d, silu));
    }
}

void kern_avx512vnni_exp_scaled(float *x, int64_t n, float scale, float shift)
{
    const __m512 factor = _mm512_set1_ps(scale), less = _mm512_set1_ps(shift);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = wide_mask(n - i);
        __m512 v = _mm512_fmsub_ps(factor, _mm512_maskz_loadu_ps(mask, x + i), less);
        _mm512_mask_storeu_ps(x + i, mask, wide_exp_normal(v));
    }
}

LANES_INLINE __m512 flushed(__m512 x)
{
    const __m512 least = _mm512_set1_ps(FLT_MIN);
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(_mm512_abs_ps(x), least, _CMP_NLT_UQ), x);
}

void kern_avx512vnni_adamw(float *w, float *m, float *v, const float *g, int64_t n,
                           const kern_adamw *p)
{
    const __m512 beta1 = _mm512_set1_ps(p->beta1), rest1 = _mm512_set1_ps(p->rest1);
    const __m512 beta2 = _mm512_set1_ps(p->beta2), rest2 = _mm512_set1_ps(p->rest2);
    const __m512 scale = _mm512_set1_ps(p->grad_scale), eps = _mm512_set1_ps(p->eps);
    const __m512 step = _mm512_set1_ps(p->lr / p->correct1);
    const __m512 inverse = _mm512_set1_ps(1 / sqrtf(p->correct2));
    const __m512 decay = _mm512_set1_ps(p->lr * p->decay);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = wide_mask(n - i);
        __m512 grad = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, g + i), scale);
        __m512 first = _mm512_mul_ps(rest1, grad);
        first = flushed(_mm512_fmadd_ps(beta1, _mm512_maskz_loadu_ps(mask, m + i), first));
        __m512 second = _mm512_mul_ps(_mm512_mul_ps(rest2, grad), grad);
        second = flushed(_mm512_fmadd_ps(beta2, _mm512_maskz_loadu_ps(mask, v + i), second));
        _mm512_mask_storeu_ps(m + i, mask, first);
        _mm512_mask_storeu_ps(v + i, mask, second);
        __m512 weight = _mm512_maskz_loadu_ps(mask, w + i);
        __m512 size = _mm512_fmadd_ps(_mm512_sqrt_ps(second), inverse, eps);
        __m512 change = _mm512_mul_ps(decay, weight);
        change = _mm512_fmadd_ps(step, _mm512_div_ps(first, size), change);
        _mm512_mask_storeu_ps(w + i, mask, _mm512_sub_ps(weight, change));
    }
}
