/* Q4_K: 8 groups of 32, each with a 6-bit scale and a 6-bit minimum. */
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

static void encode_block(const float *x, const float *importance, void *out)
{
    tensor_q4_k *block = out;
    search_k found;
    search_k_block(x, importance, 15, &found);
    search_k_store(&found, block->d, block->dmin, block->scales, block->q);
}

void tensor_q4_k_encode(const float *src, void *dst, int64_t n)
{
    search_blocks(src, NULL, dst, n, sizeof(tensor_q4_k), encode_block);
}

void tensor_q4_k_encode_weighted(const float *src, const float *importance, void *dst, int64_t n)
{
    search_blocks(src, importance, dst, n, sizeof(tensor_q4_k), encode_block);
}
