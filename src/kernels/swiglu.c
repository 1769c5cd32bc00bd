/* The gated activation of the feed-forward layer. */
#include <math.h>

#include "kernels/portable.h"

void kern_portable_swiglu(float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        gate[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
    }
}
