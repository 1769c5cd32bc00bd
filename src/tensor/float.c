/* F32, F16, BF16. Sources need not be aligned: safetensors promises nothing. */
#include <string.h>

#include "tensor/codec.h"
#include "tensor/half.h"
#include "tensor/tensor.h"

float tensor_f16_to_f32(uint16_t h)
{
    return half_f16_decode(h);
}

uint16_t tensor_f32_to_f16(float f)
{
    return half_f16_encode(f);
}

float tensor_bf16_to_f32(uint16_t h)
{
    return half_bf16_decode(h);
}

uint16_t tensor_f32_to_bf16(float f)
{
    return half_bf16_encode(f);
}

void tensor_f32_decode(const void *src, float *dst, int64_t n)
{
    if (n > 0) {
        memcpy(dst, src, (size_t)n * sizeof(float));
    }
}

void tensor_f32_encode(const float *src, void *dst, int64_t n)
{
    if (n > 0) {
        memcpy(dst, src, (size_t)n * sizeof(float));
    }
}

void tensor_f16_decode(const void *src, float *restrict dst, int64_t n)
{
    const char *restrict in = src;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, in + 2 * i, sizeof(h));
        dst[i] = half_f16_decode(h);
    }
}

void tensor_f16_encode(const float *restrict src, void *dst, int64_t n)
{
    char *restrict out = dst;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = half_f16_encode(src[i]);
        memcpy(out + 2 * i, &h, sizeof(h));
    }
}

void tensor_bf16_decode(const void *src, float *restrict dst, int64_t n)
{
    const char *restrict in = src;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, in + 2 * i, sizeof(h));
        dst[i] = half_bf16_decode(h);
    }
}

void tensor_bf16_encode(const float *restrict src, void *dst, int64_t n)
{
    char *restrict out = dst;
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = half_bf16_encode(src[i]);
        memcpy(out + 2 * i, &h, sizeof(h));
    }
}
