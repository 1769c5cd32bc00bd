/* Panels of weights times activations in kern_q8: a lane a row. Included once by each level, which
 * defines MATMUL_Q8_NAME(type) and how four products are added to a lane.
 *
 * A block's products are exact in
 * integers; one F32 sum an output takes up the blocks in their order. That order is the same for
 * one activation as for many, so decoding and prefill give the same bits. */
#include <string.h>

#include "kernels/x86/unpack.h"
#include "tensor/panel.h"

enum {
    AHEAD = 8192,         /* bytes of a panel that are asked for early */
    TILE_X = 8,           /* activations that share an unpacked block: as many as have registers */
    GROUP_X = 32,         /* activations that stay in the first-level cache while panels pass by */
    UNPACKED_BYTES = 320, /* a block in scratch: 8 vectors of q, d[0], then d[1] or m */
};

typedef struct format {
    unpack_fn unpack;
    int64_t block; /* columns that panel_bytes are for */
    int64_t panel_bytes;
    bool bytes; /* the panel's own vectors are what the products want */
    unpack_form form;
} format;

LANES_INLINE __m256i four_of(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof(four));
    return _mm256_set1_epi32(four);
}

#ifdef __AVX512VNNI__

/* One instruction multiplies unsigned bytes by signed ones and adds four products to a lane,
 * exactly: signed weights are taken as unsigned ones with an offset of 128. */
LANES_INLINE int offset_of(const unpack_form f)
{
    return f.bits == 8 ? 128 : f.offset;
}

/* dot += the products of vectors q[first .. last - 1], four columns each. */
LANES_INLINE void add_products(const unpack_form f, const __m256i *q, int first, int last,
                               const kern_q8 *x, int64_t stride, __m256i *dot, const int n_x)
{
    for (int u = first; u < last; u++) {
        __m256i w = f.bits == 8 ? _mm256_xor_si256(q[u], _mm256_set1_epi8(-128)) : q[u];
        for (int t = 0; t < n_x; t++) {
            dot[t] = _mm256_dpbusd_epi32(dot[t], w, four_of(x[t * stride].q + 4 * u));
        }
    }
}

#else

LANES_INLINE int offset_of(const unpack_form f)
{
    return f.offset;
}

/* Products of four columns, added up in pairs: sixteen sums of 16 bits. With q below 2^bits and x
 * at most 127, a pair is at most 2 * 15 * 127 = 3810 for 4 bits, 7874 for 5, 16002 for 6; signed
 * bytes reach 2 * 128 * 127 = 32512. */
LANES_INLINE __m256i pairs(const unpack_form f, __m256i q, __m256i size, const int8_t *x)
{
    __m256i four = four_of(x);
    if (f.bits == 8) {
        /* The multiplication wants one side unsigned. */
        return _mm256_maddubs_epi16(size, _mm256_sign_epi8(four, q));
    }
    return _mm256_maddubs_epi16(q, four);
}

LANES_INLINE __m256i widen(__m256i pairs_of_16)
{
    return _mm256_madd_epi16(pairs_of_16, _mm256_set1_epi16(1));
}

/* dot += the products of vectors q[first .. last - 1], four columns each. How many pairs fit into
 * 16 bits before they have to be widened is what `bits` says: 8 of 4 bits, 4 of 5, 2 of 6. */
LANES_INLINE void add_products(const unpack_form f, const __m256i *q, int first, int last,
                               const kern_q8 *x, int64_t stride, __m256i *dot, const int n_x)
{
    const int most = f.bits == 4 ? 8 : f.bits == 5 ? 4 : f.bits == 6 ? 2 : 1;
    const int run = most < last - first ? most : last - first;
    for (int u = first; u < last; u += run) {
        __m256i short_sum[TILE_X];
        for (int i = 0; i < run; i++) {
            __m256i w = q[u + i];
            __m256i size = f.bits == 8 ? _mm256_abs_epi8(w) : w;
            for (int t = 0; t < n_x; t++) {
                __m256i p = pairs(f, w, size, x[t * stride].q + 4 * (u + i));
                short_sum[t] = i == 0 ? p : _mm256_add_epi16(short_sum[t], p);
            }
        }
        for (int t = 0; t < n_x; t++) {
            dot[t] = _mm256_add_epi32(dot[t], widen(short_sum[t]));
        }
    }
}

#endif

/* sum += the products of a block with n_x activations, `stride` blocks apart. */
LANES_INLINE void add_block(const unpack_form f, const __m256i q[8], const __m256 d[2], __m256 m,
                            const kern_q8 *x, int64_t stride, __m256 *sum, const int n_x)
{
    const int offset = offset_of(f);
    for (int h = 0; h < (f.halves ? 2 : 1); h++) {
        __m256i dot[TILE_X];
        for (int t = 0; t < n_x; t++) {
            const int16_t *of_x = x[t * stride].sum;
            dot[t] =
                _mm256_set1_epi32(offset ? -offset * (f.halves ? of_x[h] : of_x[0] + of_x[1]) : 0);
        }
        add_products(f, q, 4 * h, f.halves ? 4 * h + 4 : 8, x, stride, dot, n_x);
        for (int t = 0; t < n_x; t++) {
            __m256 scale = _mm256_mul_ps(d[h], _mm256_broadcast_ss(&x[t * stride].d));
            sum[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[t]), scale, sum[t]);
        }
    }
    for (int t = 0; t < n_x && f.has_min; t++) {
        sum[t] = _mm256_fmadd_ps(m, _mm256_broadcast_ss(&x[t * stride].s), sum[t]);
    }
}

LANES_INLINE void store(const __m256 *sum, float *out, int64_t out_stride, const int n_x)
{
    for (int t = 0; t < n_x; t++) {
        _mm256_storeu_ps(out + t * out_stride, sum[t]);
    }
}

/* Straight from the panel: for types that need no unpacking, and for few activations. */
LANES_INLINE void tile_direct(const format f, const uint8_t *panel, int64_t blocks,
                              const kern_q8 *x, float *out, int64_t out_stride, const int n_x)
{
    __m256 sum[TILE_X];
    for (int t = 0; t < n_x; t++) {
        sum[t] = _mm256_setzero_ps();
    }
    for (int64_t b = 0; b < blocks; b++) {
        unpacked u;
        if (n_x == 1) {
            for (int64_t line = 0; line < f.panel_bytes * 32 / f.block; line += 64) {
                lanes_prefetch((const char *)panel + b * f.panel_bytes * 32 / f.block + line,
                               AHEAD);
            }
        }
        f.unpack(panel, b, &u);
        add_block(f.form, u.q, u.d, u.m, x + b, blocks, sum, n_x);
    }
    store(sum, out, out_stride, n_x);
}

/* From blocks unpacked before. */
LANES_INLINE void tile_unpacked(const format f, const uint8_t *w, int64_t blocks, const kern_q8 *x,
                                float *out, int64_t out_stride, const int n_x)
{
    __m256 sum[TILE_X];
    for (int t = 0; t < n_x; t++) {
        sum[t] = _mm256_setzero_ps();
    }
    for (int64_t b = 0; b < blocks; b++, w += UNPACKED_BYTES) {
        const float *scales = (const float *)(const void *)(w + 256);
        __m256 d[2] = {_mm256_load_ps(scales), _mm256_load_ps(scales + 8)};
        add_block(f.form, (const __m256i *)(const void *)w, d, d[1], x + b, blocks, sum, n_x);
    }
    store(sum, out, out_stride, n_x);
}

LANES_INLINE void unpack_panel(const format f, const uint8_t *panel, int64_t blocks, uint8_t *to)
{
    for (int64_t b = 0; b < blocks; b++, to += UNPACKED_BYTES) {
        unpacked u;
        f.unpack(panel, b, &u);
        for (int i = 0; i < 8; i++) {
            _mm256_store_si256((__m256i *)(void *)(to + 32 * i), u.q[i]);
        }
        float *scales = (float *)(void *)(to + 256);
        _mm256_store_ps(scales, u.d[0]);
        if (f.form.halves || f.form.has_min) {
            _mm256_store_ps(scales + 8, f.form.halves ? u.d[1] : u.m);
        }
    }
}

/* Every count of activations has its own tile, with constants for the compiler to unroll. */
#define TILES(tile, f, w, blocks, x, out, out_stride, n_x)                                         \
    switch (n_x) {                                                                                 \
    case 1:                                                                                        \
        tile(f, w, blocks, x, out, out_stride, 1);                                                 \
        break;                                                                                     \
    case 2:                                                                                        \
        tile(f, w, blocks, x, out, out_stride, 2);                                                 \
        break;                                                                                     \
    case 3:                                                                                        \
        tile(f, w, blocks, x, out, out_stride, 3);                                                 \
        break;                                                                                     \
    case 4:                                                                                        \
        tile(f, w, blocks, x, out, out_stride, 4);                                                 \
        break;                                                                                     \
    case 5:                                                                                        \
        tile(f, w, blocks, x, out, out_stride, 5);                                                 \
        break;                                                                                     \
    case 6:                                                                                        \
        tile(f, w, blocks, x, out, out_stride, 6);                                                 \
        break;                                                                                     \
    case 7:                                                                                        \
        tile(f, w, blocks, x, out, out_stride, 7);                                                 \
        break;                                                                                     \
    default:                                                                                       \
        tile(f, w, blocks, x, out, out_stride, 8);                                                 \
        break;                                                                                     \
    }

/* One panel with a group of activations, cut into tiles of nearly equal size. */
LANES_INLINE void panel_times(const format f, const uint8_t *panel, int64_t blocks,
                              const kern_q8 *x, int64_t n_x, float *out, int64_t out_stride,
                              uint8_t *scratch)
{
    if (!f.bytes && n_x > 1) {
        unpack_panel(f, panel, blocks, scratch);
    }
    for (int64_t tiles = (n_x + TILE_X - 1) / TILE_X; tiles > 0; tiles--) {
        int64_t n = (n_x + tiles - 1) / tiles;
        if (f.bytes) {
            TILES(tile_direct, f, panel, blocks, x, out, out_stride, n)
        } else if (n == 1) {
            tile_direct(f, panel, blocks, x, out, out_stride, 1);
        } else {
            TILES(tile_unpacked, f, scratch, blocks, x, out, out_stride, n)
        }
        x += n * blocks;
        out += n * out_stride;
        n_x -= n;
    }
}

LANES_INLINE void matmul(const format f, const uint8_t *w, int64_t rows, int64_t cols,
                         const kern_q8 *x, int64_t n_x, float *out, int64_t out_stride,
                         uint8_t *scratch)
{
    int64_t blocks = cols / 32;
    int64_t panel_bytes = cols / f.block * f.panel_bytes;
    for (int64_t t = 0; t < n_x; t += GROUP_X) {
        int64_t n = n_x - t < GROUP_X ? n_x - t : GROUP_X;
        for (int64_t r = 0; r < rows; r += TENSOR_PANEL_ROWS) {
            panel_times(f, w + r / TENSOR_PANEL_ROWS * panel_bytes, blocks, x + t * blocks, n,
                        out + t * out_stride + r, out_stride, scratch);
        }
    }
}

#define MATMUL_Q8(type, columns, bytes, bits, offset, halves, has_min)                             \
    KERN_X86_MATMUL(MATMUL_Q8_NAME(type))                                                          \
    {                                                                                              \
        const format f = {unpack_##type,                                                           \
                          columns,                                                                 \
                          TENSOR_PANEL_ROWS * (int64_t)sizeof(tensor_##type),                      \
                          bytes,                                                                   \
                          {bits, offset, halves, has_min}};                                        \
        matmul(f, w, rows, cols, x, n_x, out, out_stride, (uint8_t *)scratch);                     \
    }

MATMUL_Q8(q8_0, 32, true, 8, 0, false, false)
MATMUL_Q8(q4_0, 32, false, 4, 8, false, false)
MATMUL_Q8(q4_1, 32, false, 4, 0, false, true)
MATMUL_Q8(q5_0, 32, false, 5, 16, false, false)
MATMUL_Q8(q5_1, 32, false, 5, 0, false, true)
MATMUL_Q8(iq4_nl, 32, false, 8, 0, false, false)
MATMUL_Q8(q4_k, 256, false, 4, 0, false, true)
MATMUL_Q8(q5_k, 256, false, 5, 0, false, true)
MATMUL_Q8(q6_k, 256, false, 6, 32, true, false)
MATMUL_Q8(iq4_xs, 256, false, 8, 0, false, false)
