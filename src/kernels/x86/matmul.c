/* Weights times activations in F32: F32, F16 and BF16 straight from memory, the rest through a
 * decoded row. */
#include "kernels/x86/avx2.h"
#include "kernels/x86/tile.h"

/* Rows that stay in the first-level cache while the activations pass by. */
enum { ROW_GROUP = 16 };

/* All rows with the activations t and after, fewer than TILE_X of them. */
LANES_INLINE void direct_rest(tensor_type type, const char *w, size_t row_bytes, int64_t rows,
                              int64_t cols, const float *x, int64_t n_x, float *out,
                              int64_t out_stride)
{
    for (int64_t t = 0; t < n_x; t++, x += cols, out += out_stride) {
        int64_t r = 0;
        for (; r + TILE_ROWS <= rows; r += TILE_ROWS) {
            tile_dot(type, w + (size_t)r * row_bytes, row_bytes, x, cols, out + r, 0, TILE_ROWS, 1);
        }
        for (; r < rows; r++) {
            tile_dot(type, w + (size_t)r * row_bytes, row_bytes, x, cols, out + r, 0, 1, 1);
        }
    }
}

LANES_INLINE void direct(tensor_type type, const char *w, int64_t rows, int64_t cols,
                         const float *x, int64_t n_x, float *out, int64_t out_stride)
{
    size_t row_bytes = (size_t)cols * (type == TENSOR_F32 ? 4 : 2);
    for (int64_t r0 = 0; r0 < rows; r0 += ROW_GROUP) {
        int64_t n = rows - r0 < ROW_GROUP ? rows - r0 : ROW_GROUP;
        const char *group = w + (size_t)r0 * row_bytes;
        int64_t t = 0;
        for (; t + TILE_X <= n_x; t += TILE_X) {
            for (int64_t r = 0; r < n; r++) {
                tile_dot(type, group + (size_t)r * row_bytes, row_bytes, x + t * cols, cols,
                         out + t * out_stride + r0 + r, out_stride, 1, TILE_X);
            }
        }
        direct_rest(type, group, row_bytes, n, cols, x + t * cols, n_x - t,
                    out + t * out_stride + r0, out_stride);
    }
}

static void decoded(tensor_type type, const char *w, int64_t rows, int64_t cols, const float *x,
                    int64_t n_x, float *out, int64_t out_stride, float *scratch)
{
    const tensor_traits *traits = tensor_traits_of(type);
    size_t row_bytes = tensor_row_bytes(type, cols);
    for (int64_t r = 0; r < rows; r++) {
        traits->decode(w + (size_t)r * row_bytes, scratch, cols);
        direct(TENSOR_F32, (const char *)scratch, 1, cols, x, n_x, out + r, out_stride);
    }
}

#define MATMUL_DIRECT(name, type)                                                                  \
    KERN_AVX2_MATMUL(name)                                                                         \
    {                                                                                              \
        (void)scratch;                                                                             \
        direct(type, w, rows, cols, x, n_x, out, out_stride);                                      \
    }

#define MATMUL_DECODED(name, type)                                                                 \
    KERN_AVX2_MATMUL(name)                                                                         \
    {                                                                                              \
        decoded(type, w, rows, cols, x, n_x, out, out_stride, scratch);                            \
    }

MATMUL_DIRECT(f32, TENSOR_F32)
MATMUL_DIRECT(f16, TENSOR_F16)
MATMUL_DIRECT(bf16, TENSOR_BF16)
MATMUL_DECODED(q8_0, TENSOR_Q8_0)
MATMUL_DECODED(q4_0, TENSOR_Q4_0)
MATMUL_DECODED(q4_1, TENSOR_Q4_1)
MATMUL_DECODED(q5_0, TENSOR_Q5_0)
MATMUL_DECODED(q5_1, TENSOR_Q5_1)
MATMUL_DECODED(q2_k, TENSOR_Q2_K)
MATMUL_DECODED(q3_k, TENSOR_Q3_K)
MATMUL_DECODED(q4_k, TENSOR_Q4_K)
MATMUL_DECODED(q5_k, TENSOR_Q5_K)
MATMUL_DECODED(q6_k, TENSOR_Q6_K)
MATMUL_DECODED(iq4_nl, TENSOR_IQ4_NL)
MATMUL_DECODED(iq4_xs, TENSOR_IQ4_XS)
