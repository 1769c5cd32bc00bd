/* IQ4_XS: 8 groups of 32 as in IQ4_NL, each with a 6-bit scale under one F16 scale. */
#include <math.h>

#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"
#include "tensor/search.h"

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

/* x, importance: [256]. The largest scale becomes -32. */
static void encode_block(const float *x, const float *importance, void *out)
{
    tensor_iq4_xs *block = out;
    search_group g[8];
    float scales[8], peak = 0;
    uint32_t scales_high = 0;
    for (int i = 0; i < 8; i++) {
        search_load(&g[i], x + i * 32, importance ? importance + i * 32 : NULL, 32);
        scales[i] = search_iq4(&g[i]);
        peak = fabsf(scales[i]) > fabsf(peak) ? scales[i] : peak;
    }
    half_store(block->d, peak / -32);
    float d = half_load(block->d);
    for (int i = 0; i < 8; i++) {
        uint8_t levels[32];
        int32_t s[2];
        search_neighbours(scales[i], d, -32, 31, s);
        float below = search_iq4_levels(&g[i], d * (float)s[0], NULL);
        float above = search_iq4_levels(&g[i], d * (float)s[1], NULL);
        int32_t scale = s[above < below];
        search_iq4_levels(&g[i], d * (float)scale, levels);
        uint32_t stored = (uint32_t)(scale + 32);
        block->scales_low[i / 2] = (uint8_t)(block->scales_low[i / 2] | (stored & 15) << i % 2 * 4);
        scales_high |= stored >> 4 << i * 2;
        for (int k = 0; k < 16; k++)
            block->q[i * 16 + k] = (uint8_t)(levels[k] | levels[16 + k] << 4);
    }
    uint16_t high = (uint16_t)scales_high;
    memcpy(block->scales_high, &high, sizeof(high));
}

void tensor_iq4_xs_encode(const float *src, void *dst, int64_t n)
{
    search_blocks(src, NULL, dst, n, sizeof(tensor_iq4_xs), encode_block);
}

void tensor_iq4_xs_encode_weighted(const float *src, const float *importance, void *dst, int64_t n)
{
    search_blocks(src, importance, dst, n, sizeof(tensor_iq4_xs), encode_block);
}
