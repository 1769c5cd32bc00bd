/* Q5_K: Q4_K with a fifth bit: bit g of byte i of `high` belongs to element i of group g. */
#include <math.h>

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

/* A block that holds what is not finite, or is far too large, decodes to NaN throughout. */
static void encode(const float *src, const float *importance, tensor_q5_k *block, int64_t n)
{
    for (int64_t b = 0; b < n / 256; b++, block++) {
        search_k found = {.d = NAN, .dmin = NAN};
        if (search_finite(src + b * 256, 256))
            search_k_block(src + b * 256, importance ? importance + b * 256 : NULL, 31, &found);
        memset(block, 0, sizeof(*block));
        half_store(block->d, found.d);
        half_store(block->dmin, found.dmin);
        for (int g = 0; g < 8; g++) {
            k_scales_put(block->scales, g, found.scales[g], found.mins[g]);
            uint8_t *q = block->q + g / 2 * 32;
            for (int i = 0; i < 32; i++)
                q[i] = (uint8_t)(q[i] | (found.levels[g * 32 + i] & 15) << g % 2 * 4);
            for (int i = 0; i < 32; i++)
                block->high[i] = (uint8_t)(block->high[i] | found.levels[g * 32 + i] >> 4 << g);
        }
    }
}

void tensor_q5_k_encode(const float *src, void *dst, int64_t n)
{
    encode(src, NULL, dst, n);
}

void tensor_q5_k_encode_weighted(const float *src, const float *importance, void *dst, int64_t n)
{
    encode(src, importance, dst, n);
}
