/* Q4_K: 8 groups of 32, each with a 6-bit scale and a 6-bit minimum. */
#include <math.h>

#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"
#include "tensor/k_scales.h"
#include "tensor/search.h"

/* Groups 2j and 2j + 1 share 32 bytes: low halves and high halves. */
void tensor_q4_k_decode(const void *src, float *restrict dst, int64_t n)
{
    const tensor_q4_k *restrict block = src;
    for (int64_t b = 0; b < n / 256; b++) {
        float d = half_load(block[b].d);
        float dmin = half_load(block[b].dmin);
        for (int g = 0; g < 8; g++) {
            uint8_t s, m;
            k_scales_get(block[b].scales, g, &s, &m);
            float scale = d * (float)s;
            float min = dmin * (float)m;
            const uint8_t *q = block[b].q + g / 2 * 32;
            int shift = g % 2 * 4;
            for (int i = 0; i < 32; i++) {
                dst[b * 256 + g * 32 + i] = scale * (float)(q[i] >> shift & 15) - min;
            }
        }
    }
}

/* A block that holds what is not finite, or is far too large, decodes to NaN throughout. */
static void encode(const float *src, const float *importance, tensor_q4_k *block, int64_t n)
{
    for (int64_t b = 0; b < n / 256; b++, block++) {
        search_k found = {.d = NAN, .dmin = NAN};
        if (search_finite(src + b * 256, 256))
            search_k_block(src + b * 256, importance ? importance + b * 256 : NULL, 15, &found);
        memset(block, 0, sizeof(*block));
        half_store(block->d, found.d);
        half_store(block->dmin, found.dmin);
        for (int g = 0; g < 8; g++) {
            k_scales_put(block->scales, g, found.scales[g], found.mins[g]);
            uint8_t *q = block->q + g / 2 * 32;
            for (int i = 0; i < 32; i++)
                q[i] = (uint8_t)(q[i] | (found.levels[g * 32 + i] & 15) << g % 2 * 4);
        }
    }
}

void tensor_q4_k_encode(const float *src, void *dst, int64_t n)
{
    encode(src, NULL, dst, n);
}

void tensor_q4_k_encode_weighted(const float *src, const float *importance, void *dst, int64_t n)
{
    encode(src, importance, dst, n);
}
