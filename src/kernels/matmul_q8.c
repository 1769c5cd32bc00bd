/* Quantised weights times activations in kern_q8: exact in integers within a block of 32 (or a half
 * of it, where halves have scales of their own), one F32 sum over the blocks of a row, in their
 * order. */
#include <string.h>

#include "kernels/portable.h"
#include "tensor/blocks.h"
#include "tensor/k_scales.h"

/* A block of weights: d * q + m; d[1] is for its second half where halves differ. */
typedef struct unpacked {
    float d[2], m;
    int8_t q[32];
} unpacked;

/* Block b, of 32 columns, of a row. */
typedef void (*unpack_fn)(const void *row, int64_t b, unpacked *u);

static inline float scale(const uint8_t bytes[2])
{
    uint16_t h;
    memcpy(&h, bytes, sizeof(h));
    return tensor_f16_to_f32(h);
}

static inline void unpack_q8_0(const void *row, int64_t index, unpacked *u)
{
    const tensor_q8_0 *b = (const tensor_q8_0 *)row + index;
    u->d[0] = scale(b->d);
    memcpy(u->q, b->q, sizeof(u->q));
}

static inline void unpack_nibbles(const uint8_t q[16], int offset, int8_t out[32])
{
    for (int i = 0; i < 16; i++) {
        out[i] = (int8_t)((q[i] & 15) - offset);
        out[16 + i] = (int8_t)((q[i] >> 4) - offset);
    }
}

static inline void add_fifth_bits(const uint8_t bits[4], int8_t q[32])
{
    for (int i = 0; i < 32; i++) {
        q[i] = (int8_t)(q[i] + (bits[i / 8] >> i % 8 & 1) * 16);
    }
}

static inline void unpack_q4_0(const void *row, int64_t index, unpacked *u)
{
    const tensor_q4_0 *b = (const tensor_q4_0 *)row + index;
    u->d[0] = scale(b->d);
    unpack_nibbles(b->q, 8, u->q);
}

static inline void unpack_q4_1(const void *row, int64_t index, unpacked *u)
{
    const tensor_q4_1 *b = (const tensor_q4_1 *)row + index;
    u->d[0] = scale(b->d);
    u->m = scale(b->m);
    unpack_nibbles(b->q, 0, u->q);
}

static inline void unpack_q5_0(const void *row, int64_t index, unpacked *u)
{
    const tensor_q5_0 *b = (const tensor_q5_0 *)row + index;
    u->d[0] = scale(b->d);
    unpack_nibbles(b->q, 16, u->q);
    add_fifth_bits(b->h, u->q);
}

static inline void unpack_q5_1(const void *row, int64_t index, unpacked *u)
{
    const tensor_q5_1 *b = (const tensor_q5_1 *)row + index;
    u->d[0] = scale(b->d);
    u->m = scale(b->m);
    unpack_nibbles(b->q, 0, u->q);
    add_fifth_bits(b->h, u->q);
}

static inline void unpack_iq4_nl(const void *row, int64_t index, unpacked *u)
{
    const tensor_iq4_nl *b = (const tensor_iq4_nl *)row + index;
    u->d[0] = scale(b->d);
    for (int i = 0; i < 16; i++) {
        u->q[i] = tensor_iq4_values[b->q[i] & 15];
        u->q[16 + i] = tensor_iq4_values[b->q[i] >> 4];
    }
}

/* ---- groups of 32 in blocks of 256: see the types' own files for the order of bits --------- */

static inline void unpack_k_scales(const uint8_t d[2], const uint8_t dmin[2],
                                   const uint8_t scales[12], int group, unpacked *u)
{
    uint8_t s, m;
    k_scales_get(scales, group, &s, &m);
    u->d[0] = scale(d) * (float)s;
    u->m = -(scale(dmin) * (float)m);
}

static inline void unpack_q4_k(const void *row, int64_t index, unpacked *u)
{
    const tensor_q4_k *b = (const tensor_q4_k *)row + index / 8;
    int group = (int)(index % 8);
    unpack_k_scales(b->d, b->dmin, b->scales, group, u);
    for (int i = 0; i < 32; i++) {
        u->q[i] = (int8_t)(b->q[group / 2 * 32 + i] >> group % 2 * 4 & 15);
    }
}

static inline void unpack_q5_k(const void *row, int64_t index, unpacked *u)
{
    const tensor_q5_k *b = (const tensor_q5_k *)row + index / 8;
    int group = (int)(index % 8);
    unpack_k_scales(b->d, b->dmin, b->scales, group, u);
    for (int i = 0; i < 32; i++) {
        int low = b->q[group / 2 * 32 + i] >> group % 2 * 4 & 15;
        u->q[i] = (int8_t)(low | (b->high[i] >> group & 1) << 4);
    }
}

static inline void unpack_q6_k(const void *row, int64_t index, unpacked *u)
{
    const tensor_q6_k *b = (const tensor_q6_k *)row + index / 8;
    int group = (int)(index % 8), half = group / 4, run = group % 4;
    for (int i = 0; i < 32; i++) {
        int low = b->low[half * 64 + run % 2 * 32 + i] >> run / 2 * 4 & 15;
        int high = b->high[half * 32 + i] >> run * 2 & 3;
        u->q[i] = (int8_t)((low | high << 4) - 32);
    }
    u->d[0] = scale(b->d) * (float)b->scales[2 * group];
    u->d[1] = scale(b->d) * (float)b->scales[2 * group + 1];
}

static inline void unpack_iq4_xs(const void *row, int64_t index, unpacked *u)
{
    const tensor_iq4_xs *b = (const tensor_iq4_xs *)row + index / 8;
    int group = (int)(index % 8);
    uint16_t scales_high;
    memcpy(&scales_high, b->scales_high, sizeof(scales_high));
    int low = b->scales_low[group / 2] >> group % 2 * 4 & 15;
    int high = scales_high >> group * 2 & 3;
    u->d[0] = scale(b->d) * (float)((low | high << 4) - 32);
    for (int i = 0; i < 16; i++) {
        u->q[i] = tensor_iq4_values[b->q[group * 16 + i] & 15];
        u->q[16 + i] = tensor_iq4_values[b->q[group * 16 + i] >> 4];
    }
}

/* ---- products ------------------------------------------------------------------------------ */

static inline int32_t dot(const int8_t *a, const int8_t *b, int n)
{
    int32_t sum = 0;
    for (int i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* One row with up to TILE activations, so that a block is unpacked once for all of them. */
enum { TILE = 8 };

static inline __attribute__((always_inline)) void matmul_row(unpack_fn unpack, bool halves,
                                                             bool has_min, const char *row,
                                                             int64_t blocks, const kern_q8 *x,
                                                             int64_t n_x, float sums[TILE])
{
    unpacked u = {0};
    for (int64_t t = 0; t < n_x; t++) {
        sums[t] = 0;
    }
    for (int64_t b = 0; b < blocks; b++) {
        unpack(row, b, &u);
        for (int64_t t = 0; t < n_x; t++) {
            const kern_q8 *xb = &x[t * blocks + b];
            if (halves) {
                sums[t] += (float)dot(u.q, xb->q, 16) * (u.d[0] * xb->d);
                sums[t] += (float)dot(u.q + 16, xb->q + 16, 16) * (u.d[1] * xb->d);
            } else {
                sums[t] += (float)dot(u.q, xb->q, 32) * (u.d[0] * xb->d);
            }
            if (has_min) {
                sums[t] += u.m * xb->s;
            }
        }
    }
}

/* Inlined into each type's function, where the unpacking is known. */
static inline __attribute__((always_inline)) void matmul_q8(
    unpack_fn unpack, size_t row_bytes, bool halves, bool has_min, const char *w, int64_t rows,
    int64_t blocks, const kern_q8 *x, int64_t n_x, float *out, int64_t out_stride)
{
    float sums[TILE];
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t t = 0; t < n_x; t += TILE) {
            int64_t tile = n_x - t < TILE ? n_x - t : TILE;
            matmul_row(unpack, halves, has_min, w + (size_t)r * row_bytes, blocks, x + t * blocks,
                       tile, sums);
            for (int64_t i = 0; i < tile; i++) {
                out[(t + i) * out_stride + r] = sums[i];
            }
        }
    }
}

#define MATMUL_Q8(type, columns, halves, has_min)                                                  \
    KERN_PORTABLE_MATMUL(type##_q8)                                                                \
    {                                                                                              \
        (void)scratch;                                                                             \
        size_t row_bytes = (size_t)(cols / (columns)) * sizeof(tensor_##type);                     \
        matmul_q8(unpack_##type, row_bytes, halves, has_min, w, rows, cols / 32, x, n_x, out,      \
                  out_stride);                                                                     \
    }

MATMUL_Q8(q8_0, 32, false, false)
MATMUL_Q8(q4_0, 32, false, false)
MATMUL_Q8(q4_1, 32, false, true)
MATMUL_Q8(q5_0, 32, false, false)
MATMUL_Q8(q5_1, 32, false, true)
MATMUL_Q8(iq4_nl, 32, false, false)
MATMUL_Q8(q4_k, 256, false, true)
MATMUL_Q8(q5_k, 256, false, true)
MATMUL_Q8(q6_k, 256, true, false)
MATMUL_Q8(iq4_xs, 256, false, false)
