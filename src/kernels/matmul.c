/* Weights times activations with the row decoded to F32: every type's reference path, and the
 * default path of the types that have none of their own. */
#include "kernels/portable.h"

static void matmul_decoded(tensor_type type, const void *w, int64_t rows, int64_t cols,
                           const float *x, int64_t n_x, float *out, int64_t out_stride,
                           float *scratch)
{
    const tensor_traits *traits = tensor_traits_of(type);
    size_t row_bytes = tensor_row_bytes(type, cols);
    for (int64_t r = 0; r < rows; r++) {
        traits->decode((const char *)w + (size_t)r * row_bytes, scratch, cols);
        for (int64_t t = 0; t < n_x; t++) {
            out[t * out_stride + r] = kern_portable_dot(scratch, x + t * cols, cols);
        }
    }
}

#define MATMUL_DECODED(name, type)                                                                 \
    KERN_PORTABLE_MATMUL(name)                                                                     \
    {                                                                                              \
        matmul_decoded(type, w, rows, cols, x, n_x, out, out_stride, scratch);                     \
    }

MATMUL_DECODED(f32, TENSOR_F32)
MATMUL_DECODED(f16, TENSOR_F16)
MATMUL_DECODED(bf16, TENSOR_BF16)
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
