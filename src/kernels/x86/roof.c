/* The most that AVX2 and FMA can do: see kernels/roof.h. */
#include "kernels/roof.h"

#include <immintrin.h>
#include <stdbool.h>

#include "kernels/x86/avx2.h"
#include "kernels/x86/lanes.h"

enum { AHEAD = 4096, VECTORS = 4 }; /* bytes that are asked for early; vectors of a step */

static inline uint64_t read_streams(const char *p, size_t bytes, size_t streams, bool ahead)
{
    __m256i sum[VECTORS];
    size_t stride = bytes / streams;
    for (int i = 0; i < VECTORS; i++)
        sum[i] = _mm256_setzero_si256();
    for (size_t at = 0; at < stride; at += sizeof sum)
        for (size_t s = 0; s < streams; s++) {
            const char *from = p + s * stride + at;
            if (ahead) {
                _mm_prefetch((const char *)((uintptr_t)from + AHEAD), _MM_HINT_T0);
                _mm_prefetch((const char *)((uintptr_t)from + AHEAD + 64), _MM_HINT_T0);
            }
            for (int i = 0; i < VECTORS; i++) {
                __m256i word = _mm256_loadu_si256((const __m256i *)(const void *)(from + 32 * i));
                sum[i] = _mm256_xor_si256(sum[i], word);
            }
        }
    __m256i all =
        _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
    __m128i two = _mm_xor_si128(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    return (uint64_t)_mm_extract_epi64(two, 0) ^ (uint64_t)_mm_extract_epi64(two, 1);
}

uint64_t kern_avx2_read_stream(const void *p, size_t bytes)
{
    return read_streams(p, bytes, 1, false);
}

uint64_t kern_avx2_read_stream_ahead(const void *p, size_t bytes)
{
    return read_streams(p, bytes, 1, true);
}

uint64_t kern_avx2_read_four(const void *p, size_t bytes)
{
    return read_streams(p, bytes, 4, false);
}

uint64_t kern_avx2_read_four_ahead(const void *p, size_t bytes)
{
    return read_streams(p, bytes, 4, true);
}

/* The factors are the same every time, which the compiler is not to know. */
#define FORGET(vector) __asm__ volatile("" : "+x"(vector))

/* One more product in a sum. Sums are named one by one: as an array, compilers keep them in memory.
 * The addition is an instruction spelt out, since gcc makes a copy of the sum for every intrinsic.
 */
#define INT8_STEP(sum)                                                                             \
    do {                                                                                           \
        FORGET(x);                                                                                 \
        __m256i product = _mm256_madd_epi16(x, y);                                                 \
        __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(product));                                   \
    } while (0)

static int64_t int8_peak(const int16_t *a, const int16_t *b, int64_t rounds)
{
    __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)a);
    __m256i y = _mm256_loadu_si256((const __m256i *)(const void *)b);
    __m256i s0 = _mm256_setzero_si256(), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0;
    for (int64_t r = 0; r < rounds * (KERN_ROOF_PRODUCTS / 6); r++) {
        INT8_STEP(s0);
        INT8_STEP(s1);
        INT8_STEP(s2);
        INT8_STEP(s3);
        INT8_STEP(s4);
        INT8_STEP(s5);
    }
    s0 = _mm256_add_epi32(_mm256_add_epi32(s0, s1), _mm256_add_epi32(s2, s3));
    s0 = _mm256_add_epi32(s0, _mm256_add_epi32(s4, s5));
    int32_t lane[8];
    _mm256_storeu_si256((__m256i *)(void *)lane, s0);
    int64_t all = 0;
    for (int i = 0; i < 8; i++)
        all += lane[i];
    return all;
}

#define F32_STEP(sum, half)                                                                        \
    do {                                                                                           \
        FORGET(x##half);                                                                           \
        (sum) = _mm256_fmadd_ps(x##half, y##half, sum);                                            \
    } while (0)

static float f32_peak(const float *a, const float *b, int64_t rounds)
{
    __m256 x0 = _mm256_loadu_ps(a), x1 = _mm256_loadu_ps(a + 8);
    __m256 y0 = _mm256_loadu_ps(b), y1 = _mm256_loadu_ps(b + 8);
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0;
    __m256 s6 = s0, s7 = s0, s8 = s0, s9 = s0, s10 = s0, s11 = s0;
    for (int64_t r = 0; r < rounds * (KERN_ROOF_PRODUCTS / 6); r++) {
        F32_STEP(s0, 0);
        F32_STEP(s1, 1);
        F32_STEP(s2, 0);
        F32_STEP(s3, 1);
        F32_STEP(s4, 0);
        F32_STEP(s5, 1);
        F32_STEP(s6, 0);
        F32_STEP(s7, 1);
        F32_STEP(s8, 0);
        F32_STEP(s9, 1);
        F32_STEP(s10, 0);
        F32_STEP(s11, 1);
    }
    s0 = _mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3));
    s4 = _mm256_add_ps(_mm256_add_ps(s4, s5), _mm256_add_ps(s6, s7));
    s8 = _mm256_add_ps(_mm256_add_ps(s8, s9), _mm256_add_ps(s10, s11));
    return lanes_sum(_mm256_add_ps(s0, _mm256_add_ps(s4, s8)));
}

const kern_roof kern_avx2_roof = {
    .read = KERN_AVX2_READS,
    .int8 = int8_peak,
    .f32 = f32_peak,
};
