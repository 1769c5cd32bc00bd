/* The pairs of functions behind tensor_traits, one file a type. */
#ifndef TENSOR_CODEC_H
#define TENSOR_CODEC_H

#include <stdint.h>

void tensor_f32_decode(const void *src, float *dst, int64_t n);
void tensor_f32_encode(const float *src, void *dst, int64_t n);
void tensor_f16_decode(const void *src, float *dst, int64_t n);
void tensor_f16_encode(const float *src, void *dst, int64_t n);
void tensor_bf16_decode(const void *src, float *dst, int64_t n);
void tensor_bf16_encode(const float *src, void *dst, int64_t n);

void tensor_q8_0_decode(const void *src, float *dst, int64_t n);
void tensor_q8_0_encode(const float *src, void *dst, int64_t n);
void tensor_q4_0_decode(const void *src, float *dst, int64_t n);
void tensor_q4_0_encode(const float *src, void *dst, int64_t n);
void tensor_q4_0_encode_weighted(const float *src, const float *importance, void *dst, int64_t n);
void tensor_q4_1_decode(const void *src, float *dst, int64_t n);
void tensor_q4_1_encode(const float *src, void *dst, int64_t n);
void tensor_q4_1_encode_weighted(const float *src, const float *importance, void *dst, int64_t n);
void tensor_q5_0_decode(const void *src, float *dst, int64_t n);
void tensor_q5_0_encode(const float *src, void *dst, int64_t n);
void tensor_q5_0_encode_weighted(const float *src, const float *importance, void *dst, int64_t n);
void tensor_q5_1_decode(const void *src, float *dst, int64_t n);
void tensor_q5_1_encode(const float *src, void *dst, int64_t n);
void tensor_q5_1_encode_weighted(const float *src, const float *importance, void *dst, int64_t n);

void tensor_q2_k_decode(const void *src, float *dst, int64_t n);
void tensor_q3_k_decode(const void *src, float *dst, int64_t n);
void tensor_q4_k_decode(const void *src, float *dst, int64_t n);
void tensor_q4_k_encode(const float *src, void *dst, int64_t n);
void tensor_q4_k_encode_weighted(const float *src, const float *importance, void *dst, int64_t n);
void tensor_q5_k_decode(const void *src, float *dst, int64_t n);
void tensor_q5_k_encode(const float *src, void *dst, int64_t n);
void tensor_q5_k_encode_weighted(const float *src, const float *importance, void *dst, int64_t n);
void tensor_q6_k_decode(const void *src, float *dst, int64_t n);
void tensor_q6_k_encode(const float *src, void *dst, int64_t n);
void tensor_q6_k_encode_weighted(const float *src, const float *importance, void *dst, int64_t n);
void tensor_iq4_nl_decode(const void *src, float *dst, int64_t n);
void tensor_iq4_nl_encode(const float *src, void *dst, int64_t n);
void tensor_iq4_nl_encode_weighted(const float *src, const float *importance, void *dst, int64_t n);
void tensor_iq4_xs_decode(const void *src, float *dst, int64_t n);
void tensor_iq4_xs_encode(const float *src, void *dst, int64_t n);
void tensor_iq4_xs_encode_weighted(const float *src, const float *importance, void *dst, int64_t n);

#endif
