/* One tile of streaming attention. */
#include <math.h>

#include "kernels/portable.h"

/* Everything is relative to the largest score seen. While that is -Inf (no key counts yet) any
 * finite reference does, since all weights are exp(-Inf) = 0; 0 avoids Inf - Inf. A NaN score
 * passes the comparison by and comes out in the weights. */
void kern_portable_attend(const float *q, const float *k, const float *v, int64_t n, int64_t dim,
                          int64_t stride, float *max, float *sum, float *acc, float *scores)
{
    float top = *max;
    for (int64_t i = 0; i < n; i++) {
        scores[i] = kern_portable_dot(q, k + i * stride, dim);
        top = scores[i] > top ? scores[i] : top;
    }
    float reference = top == -INFINITY ? 0 : top;
    float fade = expf(*max - reference);
    float total = *sum * fade;
    for (int64_t i = 0; i < n; i++) {
        scores[i] = expf(scores[i] - reference);
        total += scores[i];
    }
    for (int64_t d = 0; d < dim; d++) {
        acc[d] *= fade;
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t d = 0; d < dim; d++) {
            acc[d] += scores[i] * v[i * stride + d];
        }
    }
    *max = top;
    *sum = total;
}
