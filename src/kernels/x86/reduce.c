/* A row to one number. */
#include <math.h>

#include "kernels/x86/avx2.h"
#include "kernels/x86/lanes.h"

enum { CHAINS = 4 }; /* partial sums, so that one need not wait for the other */

float kern_avx2_max(const float *x, int64_t n)
{
    __m256 max[CHAINS], nan = _mm256_setzero_ps();
    for (int c = 0; c < CHAINS; c++) {
        max[c] = _mm256_set1_ps(-INFINITY);
    }
    for (int64_t i = 0; i < n; i += CHAINS * 8) {
        for (int c = 0; c < CHAINS && i + c * 8 < n; c++) {
            __m256 v = lanes_load(x + i + c * 8, n - i - c * 8, -INFINITY);
            max[c] = _mm256_max_ps(v, max[c]);
            nan = _mm256_or_ps(nan, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
        }
    }
    if (_mm256_movemask_ps(nan)) {
        return NAN;
    }
    return lanes_max(_mm256_max_ps(_mm256_max_ps(max[0], max[1]), _mm256_max_ps(max[2], max[3])));
}

float kern_avx2_logsumexp(const float *x, int64_t n)
{
    float max = kern_avx2_max(x, n);
    if (!isfinite(max)) {
        return max;
    }
    const __m256 top = _mm256_set1_ps(max);
    double total = 0;
    for (int64_t from = 0; from < n; from += KERN_SUM_BLOCK) {
        int64_t to = n - from < KERN_SUM_BLOCK ? n : from + KERN_SUM_BLOCK;
        __m256 sum = _mm256_setzero_ps();
        for (int64_t i = from; i < to; i += 8) {
            __m256 v = lanes_load(x + i, to - i, -INFINITY);
            sum = _mm256_add_ps(sum, lanes_exp_normal(_mm256_sub_ps(v, top)));
        }
        total += (double)lanes_sum(sum);
    }
    return (float)((double)max + log(total));
}

/* Of one block: the sum of x, or with y that of their products. Vector c of every four goes into
 * chain c. */
LANES_INLINE float block_sum(const float *x, const float *y, int64_t n)
{
    __m256 sum[CHAINS];
    for (int c = 0; c < CHAINS; c++) {
        sum[c] = _mm256_setzero_ps();
    }
    int64_t i = 0;
    for (; i + CHAINS * 8 <= n; i += CHAINS * 8) {
        for (int c = 0; c < CHAINS; c++) {
            __m256 v = _mm256_loadu_ps(x + i + c * 8);
            sum[c] = y ? _mm256_fmadd_ps(v, _mm256_loadu_ps(y + i + c * 8), sum[c])
                       : _mm256_add_ps(v, sum[c]);
        }
    }
    for (; i < n; i += 8) {
        __m256 v = lanes_load(x + i, n - i, 0);
        sum[0] =
            y ? _mm256_fmadd_ps(v, lanes_load(y + i, n - i, 0), sum[0]) : _mm256_add_ps(v, sum[0]);
    }
    return lanes_sum(_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
}

LANES_INLINE double long_sum(const float *x, const float *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i += KERN_SUM_BLOCK) {
        int64_t count = n - i < KERN_SUM_BLOCK ? n - i : KERN_SUM_BLOCK;
        sum += (double)block_sum(x + i, y ? y + i : NULL, count);
    }
    return sum;
}

double kern_avx2_sum(const float *x, int64_t n)
{
    return long_sum(x, NULL, n);
}

double kern_avx2_dot(const float *x, const float *y, int64_t n)
{
    return long_sum(x, y, n);
}
