/* What the AVX-512 VNNI level multiplies at best. */
#include <immintrin.h>

#include "kernels/x86/avx512vnni.h"

/* Keeps the compiler from knowing what is multiplied. */
#define FORGET(x) __asm__("" : "+x"(x))

#define INT8_STEP(sum)                                                                             \
    do {                                                                                           \
        FORGET(x);                                                                                 \
        (sum) = _mm256_dpbusd_epi32(sum, x, y);                                                    \
    } while (0)

/* Sixteen numbers as bytes, twice over: one instruction is two products of a with b. */
static __m256i bytes_of(const int16_t *x)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)x);
    return _mm256_permute4x64_epi64(_mm256_packs_epi16(v, v), 0xd8);
}

/* a is taken as unsigned with an offset of 128, whose share comes off at the end. */
static int64_t int8_peak(const int16_t *a, const int16_t *b, int64_t rounds)
{
    __m256i x = _mm256_xor_si256(bytes_of(a), _mm256_set1_epi8(-128)), y = bytes_of(b);
    __m256i s0 = _mm256_setzero_si256(), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0;
    __m256i s6 = s0, s7 = s0, s8 = s0, s9 = s0, s10 = s0, s11 = s0;
    for (int64_t r = 0; r < rounds * KERN_ROOF_PRODUCTS / 24; r++) {
        INT8_STEP(s0);
        INT8_STEP(s1);
        INT8_STEP(s2);
        INT8_STEP(s3);
        INT8_STEP(s4);
        INT8_STEP(s5);
        INT8_STEP(s6);
        INT8_STEP(s7);
        INT8_STEP(s8);
        INT8_STEP(s9);
        INT8_STEP(s10);
        INT8_STEP(s11);
    }
    const __m256i sums[12] = {s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11};
    int64_t all = 0, of_b = 0;
    for (int i = 0; i < 12; i++) {
        int32_t lane[8];
        _mm256_storeu_si256((__m256i *)(void *)lane, sums[i]);
        for (int k = 0; k < 8; k++) {
            all += lane[k];
        }
    }
    for (int i = 0; i < KERN_ROOF_LANES; i++) {
        of_b += b[i];
    }
    return all - 128 * of_b * KERN_ROOF_PRODUCTS * rounds;
}

#define F32_STEP(sum)                                                                              \
    do {                                                                                           \
        FORGET(x);                                                                                 \
        (sum) = _mm512_fmadd_ps(x, y, sum);                                                        \
    } while (0)

/* This level's own products are 256 bits wide; those of a BLAS are not. */
static float f32_peak(const float *a, const float *b, int64_t rounds)
{
    __m512 x = _mm512_loadu_ps(a), y = _mm512_loadu_ps(b);
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0;
    __m512 s6 = s0, s7 = s0, s8 = s0, s9 = s0, s10 = s0, s11 = s0;
    for (int64_t r = 0; r < rounds * KERN_ROOF_PRODUCTS / 12; r++) {
        F32_STEP(s0);
        F32_STEP(s1);
        F32_STEP(s2);
        F32_STEP(s3);
        F32_STEP(s4);
        F32_STEP(s5);
        F32_STEP(s6);
        F32_STEP(s7);
        F32_STEP(s8);
        F32_STEP(s9);
        F32_STEP(s10);
        F32_STEP(s11);
    }
    s0 = _mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3));
    s4 = _mm512_add_ps(_mm512_add_ps(s4, s5), _mm512_add_ps(s6, s7));
    s8 = _mm512_add_ps(_mm512_add_ps(s8, s9), _mm512_add_ps(s10, s11));
    return _mm512_reduce_add_ps(_mm512_add_ps(s0, _mm512_add_ps(s4, s8)));
}

const kern_roof kern_avx512vnni_roof = {
    .read = KERN_AVX2_READS,
    .int8 = int8_peak,
    .f32 = f32_peak,
};
