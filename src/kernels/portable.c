/* The table of the portable level: every slot filled. */
#include "kernels/portable.h"

/* clang-format off */
#define F32(type) {kern_portable_matmul_##type, KERN_INPUT_F32, false}
#define Q8(type) {kern_portable_matmul_##type##_q8, KERN_INPUT_Q8, false}
/* clang-format on */

const kern_table kern_portable = {
    .level = "portable",
    .matmul =
        {
            [TENSOR_F32] = F32(f32),
            [TENSOR_F16] = F32(f16),
            [TENSOR_BF16] = F32(bf16),
            [TENSOR_Q8_0] = Q8(q8_0),
            [TENSOR_Q4_0] = Q8(q4_0),
            [TENSOR_Q4_1] = Q8(q4_1),
            [TENSOR_Q5_0] = Q8(q5_0),
            [TENSOR_Q5_1] = Q8(q5_1),
            [TENSOR_IQ4_NL] = Q8(iq4_nl),
            [TENSOR_Q2_K] = F32(q2_k),
            [TENSOR_Q3_K] = F32(q3_k),
            [TENSOR_Q4_K] = Q8(q4_k),
            [TENSOR_Q5_K] = Q8(q5_k),
            [TENSOR_Q6_K] = Q8(q6_k),
            [TENSOR_IQ4_XS] = Q8(iq4_xs),
        },
    .matmul_f32 =
        {
            [TENSOR_F32] = F32(f32),
            [TENSOR_F16] = F32(f16),
            [TENSOR_BF16] = F32(bf16),
            [TENSOR_Q8_0] = F32(q8_0),
            [TENSOR_Q4_0] = F32(q4_0),
            [TENSOR_Q4_1] = F32(q4_1),
            [TENSOR_Q5_0] = F32(q5_0),
            [TENSOR_Q5_1] = F32(q5_1),
            [TENSOR_IQ4_NL] = F32(iq4_nl),
            [TENSOR_Q2_K] = F32(q2_k),
            [TENSOR_Q3_K] = F32(q3_k),
            [TENSOR_Q4_K] = F32(q4_k),
            [TENSOR_Q5_K] = F32(q5_k),
            [TENSOR_Q6_K] = F32(q6_k),
            [TENSOR_IQ4_XS] = F32(iq4_xs),
        },
    .quantize_q8 = kern_portable_quantize_q8,
    .rmsnorm = kern_portable_rmsnorm,
    .rope = kern_portable_rope,
    .softmax = kern_portable_softmax,
    .swiglu = kern_portable_swiglu,
    .axpy = kern_portable_axpy,
    .f32_to_f16 = kern_portable_f32_to_f16,
    .attend_f32 = kern_portable_attend_f32,
    .attend_f16 = kern_portable_attend_f16,
    .attend_q8_0 = kern_portable_attend_q8_0,
    .rmsnorm_back = kern_portable_rmsnorm_back,
    .swiglu_back = kern_portable_swiglu_back,
    .exp_scaled = kern_portable_exp_scaled,
    .max = kern_portable_max,
    .logsumexp = kern_portable_logsumexp,
    .sum = kern_portable_sum,
    .dot = kern_portable_dot_wide,
    .adamw = kern_portable_adamw,
};
