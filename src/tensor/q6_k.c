/* Q6_K: 16 groups of 16, each with a signed byte for a scale. */
#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"

/* A half of 128 elements is four runs of 32. Their low four bits lie in 64 bytes: runs 0 and 1 in
 * the low halves, 2 and 3 in the high ones. Their upper two bits lie in 32 bytes, a bit pair each
 * run. */
void tensor_q6_k_decode(const void *src, float *restrict dst, int64_t n)
{
    const tensor_q6_k *restrict block = src;
    for (int64_t b = 0; b < n / 256; b++) {
        float d = half_load(block[b].d);
        for (int g = 0; g < 16; g++) {
            float scale = d * (float)block[b].scales[g];
            int half = g / 8;
            int run = g % 8 / 2;
            const uint8_t *low = block[b].low + half * 64 + run % 2 * 32 + g % 2 * 16;
            const uint8_t *high = block[b].high + half * 32 + g % 2 * 16;
            int low_shift = run / 2 * 4;
            int high_shift = run * 2;
            for (int i = 0; i < 16; i++) {
                int32_t value = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
                dst[b * 256 + g * 16 + i] = scale * (float)(value - 32);
            }
        }
    }
}
