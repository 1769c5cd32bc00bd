/* IQ4_NL: 4-bit indices into sixteen levels that lie closer together near zero. */
#include "tensor/blocks.h"
#include "tensor/codec.h"
#include "tensor/half.h"

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
