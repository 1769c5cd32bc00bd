/* Q2_K: 16 groups of 16, each with a 4-bit scale and a 4-bit minimum. */
#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"

/* Groups 8j .. 8j + 7 share 32 bytes of q: two groups side by side in each of four bit pairs. */
void tensor_q2_k_decode(const void *src, float *restrict dst, int64_t n)
{
    const tensor_q2_k *restrict block = src;
    for (int64_t b = 0; b < n / 256; b++) {
        float d = half_load(block[b].d);
        float dmin = half_load(block[b].dmin);
        for (int g = 0; g < 16; g++) {
            float scale = d * (float)(block[b].scales[g] & 15);
            float min = dmin * (float)(block[b].scales[g] >> 4);
            const uint8_t *q = block[b].q + g / 8 * 32 + g % 2 * 16;
            int shift = g % 8 / 2 * 2;
            for (int i = 0; i < 16; i++) {
                dst[b * 256 + g * 16 + i] = scale * (float)(q[i] >> shift & 3) - min;
            }
        }
    }
}
