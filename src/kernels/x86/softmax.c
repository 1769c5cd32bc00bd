/* Softmax, eight numbers at a time. */
#include <math.h>

#include "kernels/x86/avx2.h"
#include "kernels/x86/lanes.h"

/* Eight numbers, or the last few followed by -Inf, whose exp is 0. */
LANES_INLINE __m256 load(const float *x, int64_t left)
{
    if (left >= 8) {
        return _mm256_loadu_ps(x);
    }
    __m256i mask = lanes_mask(left);
    return _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), _mm256_maskload_ps(x, mask),
                            _mm256_castsi256_ps(mask));
}

LANES_INLINE void store(float *x, __m256 v, int64_t left)
{
    if (left >= 8) {
        _mm256_storeu_ps(x, v);
    } else {
        _mm256_maskstore_ps(x, lanes_mask(left), v);
    }
}

/* The comparison may miss a NaN; the sum does not. */
void kern_avx2_softmax(float *x, int64_t n)
{
    __m256 max = _mm256_set1_ps(-INFINITY);
    for (int64_t i = 0; i < n; i += 8) {
        max = _mm256_max_ps(load(x + i, n - i), max);
    }
    max = _mm256_set1_ps(lanes_max(max));
    __m256 sum = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; i += 8) {
        __m256 e = lanes_exp(_mm256_sub_ps(load(x + i, n - i), max));
        sum = _mm256_add_ps(sum, e);
        store(x + i, e, n - i);
    }
    sum = _mm256_set1_ps(lanes_sum(sum));
    for (int64_t i = 0; i < n; i += 8) {
        store(x + i, _mm256_div_ps(load(x + i, n - i), sum), n - i);
    }
}
