/* IQ4_NL: 4-bit indices into sixteen levels that lie closer together near zero. */
#include <math.h>

#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"
#include "tensor/search.h"

const int8_t tensor_iq4_values[16] = {
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
};

void tensor_iq4_nl_decode(const void *src, float *restrict dst, int64_t n)
{
    const tensor_iq4_nl *restrict block = src;
    for (int64_t b = 0; b < n / 32; b++) {
        float d = half_load(block[b].d);
        for (int i = 0; i < 16; i++) {
            uint8_t q = block[b].q[i];
            dst[b * 32 + i] = d * (float)tensor_iq4_values[q & 15];
            dst[b * 32 + 16 + i] = d * (float)tensor_iq4_values[q >> 4];
        }
    }
}

/* A block that holds what is not finite, or is far too large, decodes to NaN throughout. */
static void encode(const float *src, const float *importance, tensor_iq4_nl *block, int64_t n)
{
    for (int64_t b = 0; b < n / 32; b++, block++) {
        uint8_t levels[32] = {0};
        search_group g;
        half_store(block->d, NAN);
        if (search_finite(src + b * 32, 32)) {
            search_load(&g, src + b * 32, importance ? importance + b * 32 : NULL, 32);
            half_store(block->d, search_iq4(&g));
            search_iq4_levels(&g, half_load(block->d), levels);
        }
        for (int i = 0; i < 16; i++)
            block->q[i] = (uint8_t)(levels[i] | levels[16 + i] << 4);
    }
}

void tensor_iq4_nl_encode(const float *src, void *dst, int64_t n)
{
    encode(src, NULL, dst, n);
}

void tensor_iq4_nl_encode_weighted(const float *src, const float *importance, void *dst, int64_t n)
{
    encode(src, importance, dst, n);
}
