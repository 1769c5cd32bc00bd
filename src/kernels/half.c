/* Rows on their way into the KV cache. */
#include "kernels/portable.h"

void kern_portable_f32_to_f16(const float *x, uint16_t *out, int64_t n)
{
    tensor_traits_of(TENSOR_F16)->encode(x, out, n);
}
