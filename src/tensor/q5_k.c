/* Q5_K: Q4_K with a fifth bit: bit g of byte i of `high` belongs to element i of group g. */
#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"
#include "tensor/k_scales.h"

void tensor_q5_k_decode(const void *src, float *restrict dst, int64_t n)
{
    const tensor_q5_k *restrict block = src;
    for (int64_t b = 0; b < n / 256; b++) {
        float d = half_load(block[b].d);
        float dmin = half_load(block[b].dmin);
        const uint8_t *high = block[b].high;
        for (int g = 0; g < 8; g++) {
            uint8_t s, m;
            k_scales_get(block[b].scales, g, &s, &m);
            float scale = d * (float)s;
            float min = dmin * (float)m;
            const uint8_t *q = block[b].q + g / 2 * 32;
            int shift = g % 2 * 4;
            for (int i = 0; i < 32; i++) {
                int32_t value = (q[i] >> shift & 15) | (high[i] >> g & 1) << 4;
                dst[b * 256 + g * 32 + i] = scale * (float)value - min;
            }
        }
    }
}
