/* Q6_K: 16 groups of 16, each with a signed byte for a scale. */
#include <math.h>

#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"
#include "tensor/search.h"

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

static void put_level(tensor_q6_k *block, int i, uint8_t level)
{
    int half = i / 128, run = i % 128 / 32;
    uint8_t *low = block->low + half * 64 + run % 2 * 32 + i % 32;
    uint8_t *high = block->high + half * 32 + i % 32;
    *low = (uint8_t)(*low | (level & 15) << run / 2 * 4);
    *high = (uint8_t)(*high | level >> 4 << run * 2);
}

/* x, importance: [256]. The largest scale becomes -128. */
static void encode_block(const float *x, const float *importance, void *out)
{
    tensor_q6_k *block = out;
    search_group g[16];
    float scales[16], peak = 0;
    for (int i = 0; i < 16; i++) {
        search_load(&g[i], x + i * 16, importance ? importance + i * 16 : NULL, 16);
        scales[i] = search_symmetric(&g[i], 32);
        peak = fabsf(scales[i]) > fabsf(peak) ? scales[i] : peak;
    }
    half_store(block->d, peak / -128);
    float d = half_load(block->d);
    for (int i = 0; i < 16; i++) {
        uint8_t levels[16];
        int32_t s[2];
        search_neighbours(scales[i], d, -128, 127, s);
        float below = search_symmetric_levels(&g[i], 32, d * (float)s[0], NULL);
        float above = search_symmetric_levels(&g[i], 32, d * (float)s[1], NULL);
        block->scales[i] = (int8_t)s[above < below];
        search_symmetric_levels(&g[i], 32, d * (float)block->scales[i], levels);
        for (int k = 0; k < 16; k++)
            put_level(block, i * 16 + k, levels[k]);
    }
}

void tensor_q6_k_encode(const float *src, void *dst, int64_t n)
{
    search_blocks(src, NULL, dst, n, sizeof(tensor_q6_k), encode_block);
}

void tensor_q6_k_encode_weighted(const float *src, const float *importance, void *dst, int64_t n)
{
    search_blocks(src, importance, dst, n, sizeof(tensor_q6_k), encode_block);
}
