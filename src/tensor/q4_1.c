/* Q4_1: sixteen steps from the smallest number to the largest. */
#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"
#include "tensor/range.h"
#include "tensor/search.h"

void tensor_q4_1_decode(const void *src, float *restrict dst, int64_t n)
{
    const tensor_q4_1 *restrict block = src;
    for (int64_t b = 0; b < n / 32; b++) {
        float d = half_load(block[b].d);
        float m = half_load(block[b].m);
        for (int i = 0; i < 16; i++) {
            uint8_t q = block[b].q[i];
            dst[b * 32 + i] = d * (float)(q & 15) + m;
            dst[b * 32 + 16 + i] = d * (float)(q >> 4) + m;
        }
    }
}

static uint8_t quantize(float x, float min, float inverse)
{
    int32_t q = (int32_t)((x - min) * inverse + 0.5f);
    return (uint8_t)(q > 15 ? 15 : q);
}

/* A block that holds NaN or Inf, or whose range overflows, decodes to NaN throughout. */
void tensor_q4_1_encode(const float *restrict src, void *dst, int64_t n)
{
    tensor_q4_1 *restrict block = dst;
    for (int64_t b = 0; b < n / 32; b++) {
        const float *x = src + b * 32;
        float min, max;
        bool finite = range_bounds(x, &min, &max) && isfinite(max - min);
        float d = finite ? (max - min) / 15 : NAN;
        float inverse = range_inverse(d);
        half_store(block[b].d, d);
        half_store(block[b].m, min);
        if (inverse == 0) {
            memset(block[b].q, 0, sizeof(block[b].q));
            continue;
        }
        for (int i = 0; i < 16; i++) {
            block[b].q[i] =
                (uint8_t)(quantize(x[i], min, inverse) | quantize(x[16 + i], min, inverse) << 4);
        }
    }
}

void tensor_q4_1_encode_weighted(const float *src, const float *importance, void *dst, int64_t n)
{
    tensor_q4_1 *block = dst;
    for (int64_t b = 0; b < n / 32; b++, block++) {
        uint8_t levels[32] = {0};
        float d = NAN, m = NAN;
        search_group g;
        if (search_finite(src + b * 32, 32)) {
            search_load(&g, src + b * 32, importance + b * 32, 32);
            search_affine(&g, 15, false, &d, &m);
        }
        half_store(block->d, d);
        half_store(block->m, m);
        if (isfinite(d))
            search_affine_levels(&g, 15, half_load(block->d), half_load(block->m), levels);
        for (int i = 0; i < 16; i++)
            block->q[i] = (uint8_t)(levels[i] | levels[16 + i] << 4);
    }
}
