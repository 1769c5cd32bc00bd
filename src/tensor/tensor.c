/* The table of types. */
#include "tensor/tensor.h"

#include "tensor/blocks.h"
#include "tensor/codec.h"

static const tensor_traits types[TENSOR_TYPE_END] = {
    [TENSOR_F32] = {"F32", 1, 4, tensor_f32_decode, tensor_f32_encode, NULL},
    [TENSOR_F16] = {"F16", 1, 2, tensor_f16_decode, tensor_f16_encode, NULL},
    [TENSOR_BF16] = {"BF16", 1, 2, tensor_bf16_decode, tensor_bf16_encode, NULL},
    [TENSOR_Q4_0] = {"Q4_0", 32, sizeof(tensor_q4_0), tensor_q4_0_decode, tensor_q4_0_encode,
                     tensor_q4_0_encode_weighted},
    [TENSOR_Q4_1] = {"Q4_1", 32, sizeof(tensor_q4_1), tensor_q4_1_decode, tensor_q4_1_encode,
                     tensor_q4_1_encode_weighted},
    [TENSOR_Q5_0] = {"Q5_0", 32, sizeof(tensor_q5_0), tensor_q5_0_decode, tensor_q5_0_encode,
                     tensor_q5_0_encode_weighted},
    [TENSOR_Q5_1] = {"Q5_1", 32, sizeof(tensor_q5_1), tensor_q5_1_decode, tensor_q5_1_encode,
                     tensor_q5_1_encode_weighted},
    [TENSOR_Q8_0] = {"Q8_0", 32, sizeof(tensor_q8_0), tensor_q8_0_decode, tensor_q8_0_encode, NULL},
    [TENSOR_Q2_K] = {"Q2_K", 256, sizeof(tensor_q2_k), tensor_q2_k_decode, NULL, NULL},
    [TENSOR_Q3_K] = {"Q3_K", 256, sizeof(tensor_q3_k), tensor_q3_k_decode, NULL, NULL},
    [TENSOR_Q4_K] = {"Q4_K", 256, sizeof(tensor_q4_k), tensor_q4_k_decode, tensor_q4_k_encode,
                     tensor_q4_k_encode_weighted},
    [TENSOR_Q5_K] = {"Q5_K", 256, sizeof(tensor_q5_k), tensor_q5_k_decode, tensor_q5_k_encode,
                     tensor_q5_k_encode_weighted},
    [TENSOR_Q6_K] = {"Q6_K", 256, sizeof(tensor_q6_k), tensor_q6_k_decode, tensor_q6_k_encode,
                     tensor_q6_k_encode_weighted},
    [TENSOR_IQ4_NL] = {"IQ4_NL", 32, sizeof(tensor_iq4_nl), tensor_iq4_nl_decode,
                       tensor_iq4_nl_encode, tensor_iq4_nl_encode_weighted},
    [TENSOR_IQ4_XS] = {"IQ4_XS", 256, sizeof(tensor_iq4_xs), tensor_iq4_xs_decode,
                       tensor_iq4_xs_encode, tensor_iq4_xs_encode_weighted},
};

/* Every number that GGML has given out, so that a refusal can name what it refuses. */
static const char *const names[] = {
    "F32",   "F16",        "Q4_0",       "Q4_1",       "Q4_2",     "Q4_3",     "Q5_0",
    "Q5_1",  "Q8_0",       "Q8_1",       "Q2_K",       "Q3_K",     "Q4_K",     "Q5_K",
    "Q6_K",  "Q8_K",       "IQ2_XXS",    "IQ2_XS",     "IQ3_XXS",  "IQ1_S",    "IQ4_NL",
    "IQ3_S", "IQ2_S",      "IQ4_XS",     "I8",         "I16",      "I32",      "I64",
    "F64",   "IQ1_M",      "BF16",       "Q4_0_4_4",   "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",
    "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4",    "NVFP4",    "Q1_0",
};

const tensor_traits *tensor_traits_of(uint32_t type)
{
    return type < TENSOR_TYPE_END && types[type].name ? &types[type] : NULL;
}

const char *tensor_type_name(uint32_t type)
{
    return type < sizeof(names) / sizeof(names[0]) ? names[type] : "unknown";
}

/* ASCII only, whatever the locale. */
static char upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

static bool same_name(const char *a, const char *b)
{
    while (*a && upper(*a) == upper(*b)) {
        a++;
        b++;
    }
    return upper(*a) == upper(*b);
}

int tensor_type_parse(const char *name)
{
    for (int type = 0; type < TENSOR_TYPE_END; type++) {
        if (types[type].name && same_name(types[type].name, name)) {
            return type;
        }
    }
    return -1;
}

size_t tensor_row_bytes(tensor_type type, int64_t n)
{
    return (size_t)(n / types[type].block) * (size_t)types[type].block_bytes;
}

bool tensor_bytes(tensor_type type, int64_t n, uint64_t rows, uint64_t *bytes)
{
    const tensor_traits *traits = tensor_traits_of(type);
    uint64_t row;
    return traits && n >= 0 && n % traits->block == 0 &&
           !__builtin_mul_overflow((uint64_t)(n / traits->block), (uint64_t)traits->block_bytes,
                                   &row) &&
           !__builtin_mul_overflow(row, rows, bytes) && *bytes <= INT64_MAX;
}
