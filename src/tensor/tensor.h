/* Element types: how a row of numbers lies in memory, and how to read and write it.
 *
 * A row of n elements is n / block blocks of block_bytes each; n must be a multiple of the type's
 * block. The layouts are GGML's (ggml/docs and the GGUF specification); each type has its own pair
 * of functions in src/tensor/. */
#ifndef TENSOR_TENSOR_H
#define TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The numbers are GGUF's. */
typedef enum tensor_type {
    TENSOR_F32 = 0,
    TENSOR_F16 = 1,
    TENSOR_Q4_0 = 2,
    TENSOR_Q4_1 = 3,
    TENSOR_Q5_0 = 6,
    TENSOR_Q5_1 = 7,
    TENSOR_Q8_0 = 8,
    TENSOR_Q2_K = 10,
    TENSOR_Q3_K = 11,
    TENSOR_Q4_K = 12,
    TENSOR_Q5_K = 13,
    TENSOR_Q6_K = 14,
    TENSOR_IQ4_NL = 20,
    TENSOR_IQ4_XS = 23,
    TENSOR_BF16 = 30,
    TENSOR_TYPE_END = 31,
} tensor_type;

typedef struct tensor_traits {
    const char *name; /* "Q8_0"; NULL for numbers that are no type of ours */
    int32_t block;    /* elements per block */
    int32_t block_bytes;
    /* n elements, n a multiple of block. */
    void (*decode)(const void *src, float *dst, int64_t n);
    /* NULL where the type is only read. Deterministic; NaN and Inf in, no crash out. */
    void (*encode)(const float *src, void *dst, int64_t n);
    /* As encode, keeping the error sum(importance * (decoded - src)^2) small. importance: [n],
     * finite and not negative. NULL where importance has no say: float types and Q8_0. */
    void (*encode_weighted)(const float *src, const float *importance, void *dst, int64_t n);
} tensor_traits;

/* NULL for a number that names no known type. */
const tensor_traits *tensor_traits_of(uint32_t type);

/* GGML's name of any GGUF type number, known to us or not ("IQ2_XXS"), for error messages;
 * "type 77" numbers give "unknown". */
const char *tensor_type_name(uint32_t type);

/* By name, case-insensitive ("q8_0", "F32"); -1 where there is none. */
int tensor_type_parse(const char *name);

/* Bytes of a row of n elements. n must be a multiple of the block. */
size_t tensor_row_bytes(tensor_type type, int64_t n);

/* Bytes of `count` elements in rows of n, overflow-checked: false where n is negative, no multiple
 * of the block, or the size exceeds 2^63. */
bool tensor_bytes(tensor_type type, int64_t n, uint64_t rows, uint64_t *bytes);

/* One number each way. */
float tensor_f16_to_f32(uint16_t h);
uint16_t tensor_f32_to_f16(float f); /* round to nearest even, as IEEE 754 says */
float tensor_bf16_to_f32(uint16_t h);
uint16_t tensor_f32_to_bf16(float f); /* round to nearest even; NaN stays NaN */

#endif
