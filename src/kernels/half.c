/* Rows of the KV cache to and from F16. */
#include "kernels/portable.h"

void kern_portable_f32_to_f16(const float *x, uint16_t *out, int64_t n)
{
    tensor_traits_of(TENSOR_F16)->encode(x, out, n);
}

void kern_portable_f16_to_f32(const uint16_t *x, float *out, int64_t n)
{
    tensor_traits_of(TENSOR_F16)->decode(x, out, n);
}
