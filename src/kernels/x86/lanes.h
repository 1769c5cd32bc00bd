/* Eight floats at a time: what the files of this level share. Rows whose length is no multiple of
 * eight end in a masked vector that goes through the same steps as a whole one, so that an
 * element's result does not depend on where in its row it stands. */
#ifndef KERNELS_X86_LANES_H
#define KERNELS_X86_LANES_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define LANES_INLINE static inline __attribute__((always_inline))

/* All ones in the first n lanes, 0 <= n <= 8. */
LANES_INLINE __m256i lanes_mask(int64_t n)
{
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), index);
}

/* Asks for the memory `ahead` of p, which will be read soon: the processor's own prefetching stops
 * at every page and starts anew with every part. An address past the end does nothing. */
LANES_INLINE void lanes_prefetch(const char *p, size_t ahead)
{
    _mm_prefetch((const char *)((uintptr_t)p + ahead), _MM_HINT_T0);
}

/* ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)), as the portable sums of eight. */
LANES_INLINE float lanes_sum(__m256 v)
{
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

LANES_INLINE float lanes_max(__m256 v)
{
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* The eight numbers at x, or the `left` there are, followed by `fill`. */
LANES_INLINE __m256 lanes_load(const float *x, int64_t left, float fill)
{
    if (left >= 8) {
        return _mm256_loadu_ps(x);
    }
    __m256i mask = lanes_mask(left);
    return _mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(x, mask),
                            _mm256_castsi256_ps(mask));
}

LANES_INLINE void lanes_store(float *x, __m256 v, int64_t left)
{
    if (left >= 8) {
        _mm256_storeu_ps(x, v);
    } else {
        _mm256_maskstore_ps(x, lanes_mask(left), v);
    }
}

/* exp(r + n ln 2) of -105 <= x <= 89: x = n ln 2 + r, |r| <= ln 2 / 2, exp(r) by a polynomial
 * (minimax in the relative error, 4e-9), 2^n in two factors so that both ends overflow to Inf and
 * fade through the subnormals to 0 by themselves. */
LANES_INLINE __m256 lanes_exp_clamped(__m256 x)
{
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p+0f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e430p-1f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-0x1.05c610p-29f), r);

    __m256 p = _mm256_set1_ps(0x1.6a2352p-10f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.123a6cp-7f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.5558f4p-5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.55549p-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.fffffcp-2f));
    p = _mm256_fmadd_ps(_mm256_mul_ps(p, r), r, r);
    p = _mm256_add_ps(p, _mm256_set1_ps(1));

    __m256i exponent = _mm256_cvtps_epi32(n);
    __m256i first = _mm256_srai_epi32(exponent, 1);
    __m256i second = _mm256_sub_epi32(exponent, first);
    const __m256i bias = _mm256_set1_epi32(127);
    __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(first, bias), 23));
    __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(second, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(p, a), b);
}

/* exp(x) within about 1 ulp. NaN stays NaN: max and min return their second operand. */
LANES_INLINE __m256 lanes_exp(__m256 x)
{
    x = _mm256_min_ps(_mm256_set1_ps(89), _mm256_max_ps(_mm256_set1_ps(-105), x));
    return lanes_exp_clamped(x);
}

/* The smallest x whose exp is a normal number. */
#define LANES_EXP_LEAST (-0x1.5d589ep+6f)

/* The same, but 0 for what would be subnormal, without ever computing with such numbers. */
LANES_INLINE __m256 lanes_exp_normal(__m256 x)
{
    const __m256 least = _mm256_set1_ps(LANES_EXP_LEAST);
    __m256 normal = _mm256_cmp_ps(x, least, _CMP_NLT_UQ);
    x = _mm256_min_ps(_mm256_set1_ps(89), _mm256_max_ps(least, x));
    return _mm256_and_ps(lanes_exp_clamped(x), normal);
}

#endif
