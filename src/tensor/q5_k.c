/* Q5_K: Q4_K with a fifth bit: bit g of byte i of `high` belongs to element i of group g. */
#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"
#include "tensor/k_scales.h"
#include "tensor/search.h"

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

static void encode_block(const float *x, const float *importance, void *out)
{
    tensor_q5_k *block = out;
    search_k found;
    search_k_block(x, importance, 31, &found);
    search_k_store(&found, block->d, block->dmin, block->scales, block->q);
    for (int i = 0; i < 256; i++)
        block->high[i % 32] = (uint8_t)(block->high[i % 32] | found.levels[i] >> 4 << i / 32);
}

void tensor_q5_k_encode(const float *src, void *dst, int64_t n)
{
    search_blocks(src, NULL, dst, n, sizeof(tensor_q5_k), encode_block);
}

void tensor_q5_k_encode_weighted(const float *src, const float *importance, void *dst, int64_t n)
{
    search_blocks(src, importance, dst, n, sizeof(tensor_q5_k), encode_block);
}
