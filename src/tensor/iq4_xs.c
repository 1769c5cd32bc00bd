/* IQ4_XS: 8 groups of 32 as in IQ4_NL, each with a 6-bit scale under one F16 scale. */
#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"

void tensor_iq4_xs_decode(const void *src, float *restrict dst, int64_t n)
{
    const tensor_iq4_xs *restrict block = src;
    for (int64_t b = 0; b < n / 256; b++) {
        float d = half_load(block[b].d);
        uint16_t scales_high;
        memcpy(&scales_high, block[b].scales_high, sizeof(scales_high));
        for (int g = 0; g < 8; g++) {
            int32_t low = block[b].scales_low[g / 2] >> g % 2 * 4 & 15;
            int32_t high = scales_high >> g * 2 & 3;
            float scale = d * (float)((low | high << 4) - 32);
            const uint8_t *q = block[b].q + g * 16;
            float *out = dst + b * 256 + g * 32;
            for (int i = 0; i < 16; i++) {
                out[i] = scale * (float)tensor_iq4_values[q[i] & 15];
                out[16 + i] = scale * (float)tensor_iq4_values[q[i] >> 4];
            }
        }
    }
}
