/* Q5_0: as Q4_0 with a fifth bit kept apart; the number of the largest magnitude becomes -16. */
#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"
#include "tensor/range.h"
#include "tensor/search.h"

void tensor_q5_0_decode(const void *src, float *restrict dst, int64_t n)
{
    const tensor_q5_0 *restrict block = src;
    for (int64_t b = 0; b < n / 32; b++) {
        float d = half_load(block[b].d);
        uint32_t h;
        memcpy(&h, block[b].h, sizeof(h));
        for (int i = 0; i < 16; i++) {
            uint32_t q = block[b].q[i];
            int32_t low = (int32_t)((q & 15) | (h >> i & 1) << 4);
            int32_t high = (int32_t)(q >> 4 | (h >> (i + 16) & 1) << 4);
            dst[b * 32 + i] = d * (float)(low - 16);
            dst[b * 32 + 16 + i] = d * (float)(high - 16);
        }
    }
}

static uint32_t quantize(float x, float inverse)
{
    int32_t q = (int32_t)(x * inverse + 16.5f);
    return (uint32_t)(q > 31 ? 31 : q);
}

/* A block that holds NaN or Inf decodes to NaN throughout. */
void tensor_q5_0_encode(const float *restrict src, void *dst, int64_t n)
{
    tensor_q5_0 *restrict block = dst;
    for (int64_t b = 0; b < n / 32; b++) {
        const float *x = src + b * 32;
        float peak = range_peak(x);
        float d = peak / -16;
        float inverse = range_inverse(d);
        bool finite = !isnan(peak);
        uint32_t h = 0;
        for (int i = 0; i < 16; i++) {
            uint32_t low = quantize(finite ? x[i] : 0, inverse);
            uint32_t high = quantize(finite ? x[16 + i] : 0, inverse);
            block[b].q[i] = (uint8_t)((low & 15) | (high & 15) << 4);
            h |= low >> 4 << i | high >> 4 << (i + 16);
        }
        half_store(block[b].d, d);
        memcpy(block[b].h, &h, sizeof(h));
    }
}

void tensor_q5_0_encode_weighted(const float *src, const float *importance, void *dst, int64_t n)
{
    tensor_q5_0 *block = dst;
    for (int64_t b = 0; b < n / 32; b++, block++) {
        uint8_t levels[32] = {0};
        uint32_t h = 0;
        search_group g;
        half_store(block->d, NAN);
        if (search_finite(src + b * 32, 32)) {
            search_load(&g, src + b * 32, importance + b * 32, 32);
            half_store(block->d, search_symmetric(&g, 16));
            search_symmetric_levels(&g, 16, half_load(block->d), levels);
        }
        for (int i = 0; i < 16; i++)
            block->q[i] = (uint8_t)((levels[i] & 15) | (levels[16 + i] & 15) << 4);
        for (int i = 0; i < 32; i++)
            h |= (uint32_t)levels[i] >> 4 << i;
        memcpy(block->h, &h, sizeof(h));
    }
}
