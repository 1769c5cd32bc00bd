/* Q3_K: 16 groups of 16, each with a 6-bit scale; the third bit of each number is kept apart. */
#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"

/* Low four bits: bytes 0 .. 7, groups 0 .. 7 in the low halves and 8 .. 15 in the high ones. Upper
 * two bits: bytes 8 .. 11, group g in byte g % 4 at bit pair g / 4. */
static int32_t scale_of(const uint8_t scales[12], int g)
{
    int32_t low = scales[g % 8] >> g / 8 * 4 & 15;
    int32_t high = scales[8 + g % 4] >> g / 4 * 2 & 3;
    return (low | high << 4) - 32;
}

/* q as in Q2_K. Bit j of byte i of `high` belongs to element 32 j + i; a clear bit means -4. */
void tensor_q3_k_decode(const void *src, float *restrict dst, int64_t n)
{
    const tensor_q3_k *restrict block = src;
    for (int64_t b = 0; b < n / 256; b++) {
        float d = half_load(block[b].d);
        for (int g = 0; g < 16; g++) {
            float scale = d * (float)scale_of(block[b].scales, g);
            const uint8_t *q = block[b].q + g / 8 * 32 + g % 2 * 16;
            const uint8_t *high = block[b].high + g % 2 * 16;
            int shift = g % 8 / 2 * 2;
            int bit = g / 2;
            for (int i = 0; i < 16; i++) {
                int32_t value = (q[i] >> shift & 3) + (high[i] >> bit & 1) * 4 - 4;
                dst[b * 256 + g * 16 + i] = scale * (float)value;
            }
        }
    }
}
