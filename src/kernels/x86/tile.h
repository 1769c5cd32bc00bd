/* A tile of products: a few rows of weights, a few rows of activations, both read once. */
#ifndef KERNELS_X86_TILE_H
#define KERNELS_X86_TILE_H

#include <string.h>

#include "kernels/x86/lanes.h"
#include "tensor/tensor.h"

enum { TILE_ROWS = 4, TILE_X = 4, TILE_AHEAD = 16384 };

LANES_INLINE __m256 tile_load(tensor_type type, const char *p)
{
    if (type == TENSOR_F32) {
        return _mm256_loadu_ps((const float *)(const void *)p);
    }
    __m128i h = _mm_loadu_si128((const __m128i *)(const void *)p);
    if (type == TENSOR_F16) {
        return _mm256_cvtph_ps(h);
    }
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* The first n <= 8 numbers at p, zeros after them. */
LANES_INLINE __m256 tile_load_part(tensor_type type, const char *p, int64_t n)
{
    char whole[32] = {0};
    memcpy(whole, p, (size_t)n * (type == TENSOR_F32 ? 4 : 2));
    return tile_load(type, whole);
}

/* n_rows x n_x outputs at once; type and both counts are constants where this is inlined. Each
 * output has two vectors of partial sums, taken in turn: this is the order of every F32 product of
 * this level. w: rows row_bytes apart; x: rows of cols. */
LANES_INLINE void tile_dot(tensor_type type, const char *w, size_t row_bytes, const float *x,
                           int64_t cols, float *out, int64_t out_stride, const int n_rows,
                           const int n_x)
{
    size_t size = type == TENSOR_F32 ? 4 : 2;
    struct {
        __m256 even, odd;
    } sum[TILE_ROWS][TILE_X];
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < n_x; t++) {
            sum[r][t].even = _mm256_setzero_ps();
            sum[r][t].odd = _mm256_setzero_ps();
        }
    }
    /* The next rows are as far away as these are long; of long rows it is enough to look ahead. */
    size_t ahead = (size_t)n_rows * row_bytes;
    ahead = ahead < TILE_AHEAD ? ahead : TILE_AHEAD;
    int64_t i = 0;
    for (; i + 16 <= cols; i += 16) {
        const char *p = w + (size_t)i * size;
        for (int r = 0; r < n_rows; r++) {
            if (n_x == 1) {
                lanes_prefetch(p + (size_t)r * row_bytes, ahead);
            }
            __m256 even = tile_load(type, p + (size_t)r * row_bytes);
            __m256 odd = tile_load(type, p + (size_t)r * row_bytes + 8 * size);
            for (int t = 0; t < n_x; t++) {
                const float *xi = x + t * cols + i;
                sum[r][t].even = _mm256_fmadd_ps(even, _mm256_loadu_ps(xi), sum[r][t].even);
                sum[r][t].odd = _mm256_fmadd_ps(odd, _mm256_loadu_ps(xi + 8), sum[r][t].odd);
            }
        }
    }
    for (; i < cols; i += 8) {
        int64_t n = cols - i < 8 ? cols - i : 8;
        for (int r = 0; r < n_rows; r++) {
            __m256 part = tile_load_part(type, w + (size_t)r * row_bytes + (size_t)i * size, n);
            for (int t = 0; t < n_x; t++) {
                __m256 xi = _mm256_maskload_ps(x + t * cols + i, lanes_mask(n));
                sum[r][t].even = _mm256_fmadd_ps(part, xi, sum[r][t].even);
            }
        }
    }
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < n_x; t++) {
            out[t * out_stride + r] = lanes_sum(_mm256_add_ps(sum[r][t].even, sum[r][t].odd));
        }
    }
}

#endif
