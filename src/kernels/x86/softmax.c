/* Softmax, eight numbers at a time. */
#include <math.h>

#include "kernels/x86/avx2.h"
#include "kernels/x86/lanes.h"

/* The comparison may miss a NaN; the sum does not. */
void kern_avx2_softmax(float *x, int64_t n)
{
    __m256 max = _mm256_set1_ps(-INFINITY);
    for (int64_t i = 0; i < n; i += 8) {
        max = _mm256_max_ps(lanes_load(x + i, n - i, -INFINITY), max);
    }
    max = _mm256_set1_ps(lanes_max(max));
    __m256 sum = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; i += 8) {
        __m256 e = lanes_exp(_mm256_sub_ps(lanes_load(x + i, n - i, -INFINITY), max));
        sum = _mm256_add_ps(sum, e);
        lanes_store(x + i, e, n - i);
    }
    sum = _mm256_set1_ps(lanes_sum(sum));
    for (int64_t i = 0; i < n; i += 8) {
        lanes_store(x + i, _mm256_div_ps(lanes_load(x + i, n - i, -INFINITY), sum), n - i);
    }
}
