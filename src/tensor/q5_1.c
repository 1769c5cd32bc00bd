/* Q5_1: thirty-two steps from the smallest number to the largest, the fifth bits kept apart. */
#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"
#include "tensor/range.h"
#include "tensor/search.h"

void tensor_q5_1_decode(const void *src, float *restrict dst, int64_t n)
{
    const tensor_q5_1 *restrict block = src;
    for (int64_t b = 0; b < n / 32; b++) {
        float d = half_load(block[b].d);
        float m = half_load(block[b].m);
        uint32_t h;
        memcpy(&h, block[b].h, sizeof(h));
        for (int i = 0; i < 16; i++) {
            uint32_t q = block[b].q[i];
            int32_t low = (int32_t)((q & 15) | (h >> i & 1) << 4);
            int32_t high = (int32_t)(q >> 4 | (h >> (i + 16) & 1) << 4);
            dst[b * 32 + i] = d * (float)low + m;
            dst[b * 32 + 16 + i] = d * (float)high + m;
        }
    }
}

static uint32_t quantize(float x, float min, float inverse)
{
    int32_t q = (int32_t)((x - min) * inverse + 0.5f);
    return (uint32_t)(q > 31 ? 31 : q);
}

/* A block that holds NaN or Inf, or whose range overflows, decodes to NaN throughout. */
void tensor_q5_1_encode(const float *restrict src, void *dst, int64_t n)
{
    tensor_q5_1 *restrict block = dst;
    for (int64_t b = 0; b < n / 32; b++) {
        const float *x = src + b * 32;
        float min, max;
        bool finite = range_bounds(x, &min, &max) && isfinite(max - min);
        float d = finite ? (max - min) / 31 : NAN;
        float inverse = range_inverse(d);
        uint32_t h = 0;
        for (int i = 0; i < 16; i++) {
            uint32_t low = finite ? quantize(x[i], min, inverse) : 0;
            uint32_t high = finite ? quantize(x[16 + i], min, inverse) : 0;
            block[b].q[i] = (uint8_t)((low & 15) | (high & 15) << 4);
            h |= low >> 4 << i | high >> 4 << (i + 16);
        }
        half_store(block[b].d, d);
        half_store(block[b].m, min);
        memcpy(block[b].h, &h, sizeof(h));
    }
}

void tensor_q5_1_encode_weighted(const float *src, const float *importance, void *dst, int64_t n)
{
    tensor_q5_1 *block = dst;
    for (int64_t b = 0; b < n / 32; b++, block++) {
        uint8_t levels[32] = {0};
        float d = NAN, m = NAN;
        uint32_t h = 0;
        search_group g;
        if (search_finite(src + b * 32, 32)) {
            search_load(&g, src + b * 32, importance + b * 32, 32);
            search_affine(&g, 31, false, &d, &m);
        }
        half_store(block->d, d);
        half_store(block->m, m);
        if (isfinite(d))
            search_affine_levels(&g, 31, half_load(block->d), half_load(block->m), levels);
        for (int i = 0; i < 16; i++)
            block->q[i] = (uint8_t)((levels[i] & 15) | (levels[16 + i] & 15) << 4);
        for (int i = 0; i < 32; i++)
            h |= (uint32_t)levels[i] >> 4 << i;
        memcpy(block->h, &h, sizeof(h));
    }
}
