/* The table of an x86 level, included by each: KERN_LEVEL is its name, Q8(type) the name of its
 * product of a type's panels, WIDE(name) the name of what is done in its own width. The rest is
 * AVX2 with FMA and F16C. */

/* clang-format off */
#define F32(type) {kern_avx2_matmul_##type, KERN_INPUT_F32, false}
#define PANELS(type) {Q8(type), KERN_INPUT_Q8, true}
/* clang-format on */

{
    .level = KERN_LEVEL,
    .matmul =
        {
            [TENSOR_F32] = F32(f32),          [TENSOR_F16] = F32(f16),
            [TENSOR_BF16] = F32(bf16),        [TENSOR_Q8_0] = PANELS(q8_0),
            [TENSOR_Q4_0] = PANELS(q4_0),     [TENSOR_Q4_1] = PANELS(q4_1),
            [TENSOR_Q5_0] = PANELS(q5_0),     [TENSOR_Q5_1] = PANELS(q5_1),
            [TENSOR_IQ4_NL] = PANELS(iq4_nl), [TENSOR_Q2_K] = F32(q2_k),
            [TENSOR_Q3_K] = F32(q3_k),        [TENSOR_Q4_K] = PANELS(q4_k),
            [TENSOR_Q5_K] = PANELS(q5_k),     [TENSOR_Q6_K] = PANELS(q6_k),
            [TENSOR_IQ4_XS] = PANELS(iq4_xs),
        },
    .matmul_f32 =
        {
            [TENSOR_F32] = F32(f32),   [TENSOR_F16] = F32(f16),   [TENSOR_BF16] = F32(bf16),
            [TENSOR_Q8_0] = F32(q8_0), [TENSOR_Q4_0] = F32(q4_0), [TENSOR_Q4_1] = F32(q4_1),
            [TENSOR_Q5_0] = F32(q5_0), [TENSOR_Q5_1] = F32(q5_1), [TENSOR_IQ4_NL] = F32(iq4_nl),
            [TENSOR_Q2_K] = F32(q2_k), [TENSOR_Q3_K] = F32(q3_k), [TENSOR_Q4_K] = F32(q4_k),
            [TENSOR_Q5_K] = F32(q5_k), [TENSOR_Q6_K] = F32(q6_k), [TENSOR_IQ4_XS] = F32(iq4_xs),
        },
    .quantize_q8 = kern_avx2_quantize_q8, .rmsnorm = kern_avx2_rmsnorm, .rope = kern_avx2_rope,
    .softmax = kern_avx2_softmax, .swiglu = kern_avx2_swiglu, .axpy = kern_avx2_axpy,
    .f32_to_f16 = kern_avx2_f32_to_f16, .attend_f32 = kern_avx2_attend_f32,
    .attend_f16 = kern_avx2_attend_f16, .attend_q8_0 = kern_avx2_attend_q8_0,
    .rmsnorm_back = kern_avx2_rmsnorm_back, .swiglu_back = WIDE(swiglu_back),
    .exp_scaled = WIDE(exp_scaled), .max = kern_avx2_max, .logsumexp = WIDE(logsumexp),
    .sum = kern_avx2_sum, .dot = WIDE(dot), .adamw = WIDE(adamw),
}
