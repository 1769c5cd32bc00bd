/* Weights in blocks of 32 times activations in kern_q8. A block's products are exact in integers,
 * summed by fours into eight lanes; the lanes are summed over the blocks of a row in F32, in their
 * order, and with each other at the end. */
#include <string.h>

#include "kernels/x86/avx2.h"
#include "kernels/x86/lanes.h"
#include "tensor/blocks.h"

/* A block of weights: d * q + m. q is signed bytes; `size` holds their magnitudes, since the
 * multiplication of bytes wants one side unsigned. Two neighbouring products add up in 16 bits: at
 * most 2 * 128 * 127 = 32512. */
typedef struct unpacked {
    __m256i q, size;
    __m256 d;
    float m;
} unpacked;

typedef unpacked (*unpack_fn)(const char *block);

LANES_INLINE float scale(const uint8_t bytes[2])
{
    uint16_t h;
    memcpy(&h, bytes, sizeof(h));
    return _cvtsh_ss(h);
}

LANES_INLINE unpacked pack(__m256i q, float d, float m)
{
    return (unpacked){q, _mm256_abs_epi8(q), _mm256_set1_ps(d), m};
}

/* Low halves of the bytes to elements 0 .. 15, high halves to 16 .. 31. */
LANES_INLINE __m256i nibbles(const uint8_t q[16])
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)q);
    __m256i both = _mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

/* 16 where bit i of the four bytes is set, else 0. */
LANES_INLINE __m256i fifth_bits(const uint8_t bits[4])
{
    uint32_t word;
    memcpy(&word, bits, sizeof(word));
    const __m256i byte_of =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit_of = _mm256_set1_epi64x((int64_t)0x8040201008040201u);
    __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32((int32_t)word), byte_of);
    __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit_of), bit_of);
    return _mm256_and_si256(set, _mm256_set1_epi8(16));
}

LANES_INLINE unpacked unpack_q8_0(const char *block)
{
    const tensor_q8_0 *b = (const void *)block;
    return pack(_mm256_loadu_si256((const __m256i *)(const void *)b->q), scale(b->d), 0);
}

LANES_INLINE unpacked unpack_q4_0(const char *block)
{
    const tensor_q4_0 *b = (const void *)block;
    return pack(_mm256_sub_epi8(nibbles(b->q), _mm256_set1_epi8(8)), scale(b->d), 0);
}

LANES_INLINE unpacked unpack_q4_1(const char *block)
{
    const tensor_q4_1 *b = (const void *)block;
    return pack(nibbles(b->q), scale(b->d), scale(b->m));
}

LANES_INLINE unpacked unpack_q5_0(const char *block)
{
    const tensor_q5_0 *b = (const void *)block;
    __m256i q = _mm256_or_si256(nibbles(b->q), fifth_bits(b->h));
    return pack(_mm256_sub_epi8(q, _mm256_set1_epi8(16)), scale(b->d), 0);
}

LANES_INLINE unpacked unpack_q5_1(const char *block)
{
    const tensor_q5_1 *b = (const void *)block;
    return pack(_mm256_or_si256(nibbles(b->q), fifth_bits(b->h)), scale(b->d), scale(b->m));
}

LANES_INLINE unpacked unpack_iq4_nl(const char *block)
{
    const tensor_iq4_nl *b = (const void *)block;
    __m256i values = _mm256_broadcastsi128_si256(
        _mm_loadu_si128((const __m128i *)(const void *)tensor_iq4_values));
    return pack(_mm256_shuffle_epi8(values, nibbles(b->q)), scale(b->d), 0);
}

/* Eight sums of four products. */
LANES_INLINE __m256 dot_block(const unpacked *w, const kern_q8 *x)
{
    __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)x->q);
    __m256i pairs = _mm256_maddubs_epi16(w->size, _mm256_sign_epi8(q, w->q));
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

enum { ROW_GROUP = 16, TILE_ROWS = 4, TILE_X = 4 };

typedef struct format {
    unpack_fn unpack;
    size_t block_bytes;
    bool has_min;
} format;

/* n_rows x n_x outputs at once; the format and both counts are constants where this is inlined. */
LANES_INLINE void tile(format f, const char *w, int64_t blocks, const kern_q8 *x, float *out,
                       int64_t out_stride, const int n_rows, const int n_x)
{
    size_t row_bytes = (size_t)blocks * f.block_bytes;
    __m256 sum[TILE_ROWS][TILE_X];
    float mins[TILE_ROWS][TILE_X];
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < n_x; t++) {
            sum[r][t] = _mm256_setzero_ps();
            mins[r][t] = 0;
        }
    }
    for (int64_t b = 0; b < blocks; b++) {
        for (int r = 0; r < n_rows; r++) {
            const char *block = w + (size_t)r * row_bytes + (size_t)b * f.block_bytes;
            if (n_x == 1) {
                lanes_prefetch(block);
            }
            unpacked u = f.unpack(block);
            for (int t = 0; t < n_x; t++) {
                const kern_q8 *xb = &x[t * blocks + b];
                __m256 d = _mm256_mul_ps(u.d, _mm256_broadcast_ss(&xb->d));
                sum[r][t] = _mm256_fmadd_ps(dot_block(&u, xb), d, sum[r][t]);
                if (f.has_min) {
                    mins[r][t] += u.m * xb->s;
                }
            }
        }
    }
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < n_x; t++) {
            float total = lanes_sum(sum[r][t]);
            out[t * out_stride + r] = f.has_min ? total + mins[r][t] : total;
        }
    }
}

LANES_INLINE void matmul(format f, const char *w, int64_t rows, int64_t cols, const kern_q8 *x,
                         int64_t n_x, float *out, int64_t out_stride)
{
    int64_t blocks = cols / 32;
    size_t row_bytes = (size_t)blocks * f.block_bytes;
    for (int64_t r0 = 0; r0 < rows; r0 += ROW_GROUP) {
        int64_t end = rows - r0 < ROW_GROUP ? rows : r0 + ROW_GROUP;
        int64_t t = 0;
        for (; t + TILE_X <= n_x; t += TILE_X) {
            float *to = out + t * out_stride;
            int64_t r = r0;
            for (; r + 2 <= end; r += 2) {
                tile(f, w + (size_t)r * row_bytes, blocks, x + t * blocks, to + r, out_stride, 2,
                     TILE_X);
            }
            if (r < end) {
                tile(f, w + (size_t)r * row_bytes, blocks, x + t * blocks, to + r, out_stride, 1,
                     TILE_X);
            }
        }
        for (; t < n_x; t++) {
            float *to = out + t * out_stride;
            int64_t r = r0;
            for (; r + TILE_ROWS <= end; r += TILE_ROWS) {
                tile(f, w + (size_t)r * row_bytes, blocks, x + t * blocks, to + r, 0, TILE_ROWS, 1);
            }
            for (; r < end; r++) {
                tile(f, w + (size_t)r * row_bytes, blocks, x + t * blocks, to + r, 0, 1, 1);
            }
        }
    }
}

#define MATMUL_Q8(type, has_min)                                                                   \
    KERN_AVX2_MATMUL(type##_q8)                                                                    \
    {                                                                                              \
        (void)scratch;                                                                             \
        format f = {unpack_##type, sizeof(tensor_##type), has_min};                                \
        matmul(f, w, rows, cols, x, n_x, out, out_stride);                                         \
    }

MATMUL_Q8(q8_0, false)
MATMUL_Q8(q4_0, false)
MATMUL_Q8(q4_1, true)
MATMUL_Q8(q5_0, false)
MATMUL_Q8(q5_1, true)
MATMUL_Q8(iq4_nl, false)
