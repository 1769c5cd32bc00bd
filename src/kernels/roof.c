/* The portable loops, and which loops belong to a level. */
#include "kernels/roof.h"

#include <stdbool.h>
#include <string.h>

#ifdef KERNELS_X86
#include "kernels/x86/avx512vnni.h"
#endif

enum { AHEAD = 4096, WORDS = 16 }; /* bytes that are asked for early; of a stream at a time */

static inline uint64_t read_streams(const char *p, size_t bytes, size_t streams, bool ahead)
{
    uint64_t sum[WORDS] = {0}, all = 0;
    size_t stride = bytes / streams;
    for (size_t at = 0; at < stride; at += sizeof sum)
        for (size_t s = 0; s < streams; s++) {
            const char *from = p + s * stride + at;
            uint64_t word[WORDS];
            if (ahead) {
                __builtin_prefetch((const char *)((uintptr_t)from + AHEAD));
                __builtin_prefetch((const char *)((uintptr_t)from + AHEAD + 64));
            }
            memcpy(word, from, sizeof word);
            for (int i = 0; i < WORDS; i++)
                sum[i] ^= word[i];
        }
    for (int i = 0; i < WORDS; i++)
        all ^= sum[i];
    return all;
}

static uint64_t read_stream(const void *p, size_t bytes)
{
    return read_streams(p, bytes, 1, false);
}

static uint64_t read_stream_ahead(const void *p, size_t bytes)
{
    return read_streams(p, bytes, 1, true);
}

static uint64_t read_four(const void *p, size_t bytes)
{
    return read_streams(p, bytes, 4, false);
}

static uint64_t read_four_ahead(const void *p, size_t bytes)
{
    return read_streams(p, bytes, 4, true);
}

/* The factors are the same every time, which the compiler is not to know. */
#define FORGET(pointer) __asm__ volatile("" : "+r"(pointer) : : "memory")

static int64_t int8_peak(const int16_t *a, const int16_t *b, int64_t rounds)
{
    int32_t sum[KERN_ROOF_LANES / 2] = {0};
    for (int64_t r = 0; r < rounds * KERN_ROOF_PRODUCTS; r++) {
        FORGET(a);
        for (int i = 0; i < KERN_ROOF_LANES / 2; i++)
            sum[i] += a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
    }
    int64_t all = 0;
    for (int i = 0; i < KERN_ROOF_LANES / 2; i++)
        all += sum[i];
    return all;
}

static float f32_peak(const float *a, const float *b, int64_t rounds)
{
    float sum[2][KERN_ROOF_LANES] = {0};
    for (int64_t r = 0; r < rounds * KERN_ROOF_PRODUCTS / 2; r++) {
        for (int k = 0; k < 2; k++) {
            FORGET(a);
            for (int i = 0; i < KERN_ROOF_LANES; i++)
                sum[k][i] += a[i] * b[i];
        }
    }
    float all = 0;
    for (int i = 0; i < KERN_ROOF_LANES; i++)
        all += sum[0][i] + sum[1][i];
    return all;
}

static const kern_roof portable_roof = {
    .read = {read_stream, read_stream_ahead, read_four, read_four_ahead},
    .int8 = int8_peak,
    .f32 = f32_peak,
};

const kern_roof *kern_roof_of(const kern_table *table)
{
#ifdef KERNELS_X86
    if (table == &kern_avx2)
        return &kern_avx2_roof;
    if (table == &kern_avx512vnni)
        return &kern_avx512vnni_roof;
#endif
    (void)table;
    return &portable_roof;
}
