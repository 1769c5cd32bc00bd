/* Activations to kern_q8: the portable steps, 32 numbers at a time, and the same bits. */
#include <math.h>

#include "kernels/x86/avx2.h"
#include "kernels/x86/lanes.h"

/* The largest magnitude, NaN if any number is NaN: magnitudes order as integers do. */
LANES_INLINE float peak(const __m256 x[4])
{
    const __m256i magnitude = _mm256_set1_epi32(INT32_MAX);
    __m256i max = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        max = _mm256_max_epi32(max, _mm256_and_si256(_mm256_castps_si256(x[i]), magnitude));
    }
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    __m128i one = _mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1));
    return _mm_cvtss_f32(_mm_castsi128_ps(one));
}

LANES_INLINE int32_t sum_lanes(__m256i v)
{
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

void kern_avx2_quantize_q8(const float *x, kern_q8 *q, int64_t n)
{
    for (int64_t b = 0; b < n / 32; b++) {
        __m256 v[4];
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + b * 32 + i * 8);
        }
        float max = peak(v);
        float inverse = 127 / max;
        if (!isfinite(max) || !isfinite(inverse)) {
            q[b] = (kern_q8){.d = isfinite(max) ? 0 : NAN, .s = isfinite(max) ? 0 : NAN};
            continue;
        }
        __m256i n_of[4];
        for (int i = 0; i < 4; i++) {
            /* The conversion rounds to nearest, ties to even. */
            n_of[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse)));
        }
        int32_t first = sum_lanes(_mm256_add_epi32(n_of[0], n_of[1]));
        int32_t second = sum_lanes(_mm256_add_epi32(n_of[2], n_of[3]));
        /* Packing works on halves of registers and leaves runs of four out of order. */
        __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(n_of[0], n_of[1]),
                                           _mm256_packs_epi32(n_of[2], n_of[3]));
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_storeu_si256((__m256i *)(void *)q[b].q, _mm256_permutevar8x32_epi32(bytes, order));
        q[b].d = max / 127;
        q[b].s = q[b].d * (float)(first + second);
        q[b].sum[0] = (int16_t)first;
        q[b].sum[1] = (int16_t)second;
    }
}
