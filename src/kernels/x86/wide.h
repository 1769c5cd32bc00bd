/* Sixteen floats at a time, as lanes.h has eight. A row's last vector is masked and otherwise goes
 * through the same steps. Needs AVX-512 F alone. */
#ifndef KERNELS_X86_WIDE_H
#define KERNELS_X86_WIDE_H

#include "kernels/x86/lanes.h"

/* The first n lanes; all from 16 on. */
LANES_INLINE __mmask16 wide_mask(int64_t n)
{
    return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1);
}

LANES_INLINE float wide_sum(__m512 v)
{
    __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
    return lanes_sum(_mm256_add_ps(_mm512_castps512_ps256(v), high));
}

/* lanes_exp_normal: the same polynomial, and 2^n by one instruction. */
LANES_INLINE __m512 wide_exp_normal(__m512 x)
{
    const __m512 least = _mm512_set1_ps(LANES_EXP_LEAST);
    __mmask16 normal = _mm512_cmp_ps_mask(x, least, _CMP_NLT_UQ);
    x = _mm512_min_ps(_mm512_set1_ps(89), _mm512_max_ps(least, x));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e430p-1f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-0x1.05c610p-29f), r);

    __m512 p = _mm512_set1_ps(0x1.6a2352p-10f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.123a6cp-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.5558f4p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.55549p-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.fffffcp-2f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r);
    p = _mm512_add_ps(p, _mm512_set1_ps(1));
    return _mm512_maskz_scalef_ps(normal, p, n);
}

#endif
