/* Q4_0: the number of the largest magnitude becomes -8 exactly; the rest are its eighths. */
#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"
#include "tensor/range.h"
#include "tensor/search.h"

void tensor_q4_0_decode(const void *src, float *restrict dst, int64_t n)
{
    const tensor_q4_0 *restrict block = src;
    for (int64_t b = 0; b < n / 32; b++) {
        float d = half_load(block[b].d);
        for (int i = 0; i < 16; i++) {
            uint8_t q = block[b].q[i];
            dst[b * 32 + i] = d * (float)((q & 15) - 8);
            dst[b * 32 + 16 + i] = d * (float)((q >> 4) - 8);
        }
    }
}

static uint8_t quantize(float x, float inverse)
{
    int32_t q = (int32_t)(x * inverse + 8.5f);
    return (uint8_t)(q > 15 ? 15 : q);
}

/* A block that holds NaN or Inf decodes to NaN throughout. */
void tensor_q4_0_encode(const float *restrict src, void *dst, int64_t n)
{
    tensor_q4_0 *restrict block = dst;
    for (int64_t b = 0; b < n / 32; b++) {
        const float *x = src + b * 32;
        float d = range_peak(x) / -8;
        float inverse = range_inverse(d);
        half_store(block[b].d, d);
        if (inverse == 0) {
            memset(block[b].q, 0x88, sizeof(block[b].q));
            continue;
        }
        for (int i = 0; i < 16; i++) {
            block[b].q[i] = (uint8_t)(quantize(x[i], inverse) | quantize(x[16 + i], inverse) << 4);
        }
    }
}

void tensor_q4_0_encode_weighted(const float *src, const float *importance, void *dst, int64_t n)
{
    tensor_q4_0 *block = dst;
    for (int64_t b = 0; b < n / 32; b++, block++) {
        uint8_t levels[32] = {0};
        search_group g;
        half_store(block->d, NAN);
        if (search_finite(src + b * 32, 32)) {
            search_load(&g, src + b * 32, importance + b * 32, 32);
            half_store(block->d, search_symmetric(&g, 8));
            search_symmetric_levels(&g, 8, half_load(block->d), levels);
        }
        for (int i = 0; i < 16; i++)
            block->q[i] = (uint8_t)(levels[i] | levels[16 + i] << 4);
    }
}
