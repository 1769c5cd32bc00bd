/* A row to one number, sixteen at a time. */
#include <math.h>

#include "kernels/x86/avx512vnni.h"
#include "kernels/x86/wide.h"

enum { CHAINS = 4 }; /* partial sums, so that one need not wait for the other */

float kern_avx512vnni_logsumexp(const float *x, int64_t n)
{
    float max = kern_avx2_max(x, n);
    if (!isfinite(max)) {
        return max;
    }
    const __m512 top = _mm512_set1_ps(max), nothing = _mm512_set1_ps(-INFINITY);
    double total = 0;
    for (int64_t from = 0; from < n; from += KERN_SUM_BLOCK) {
        int64_t to = n - from < KERN_SUM_BLOCK ? n : from + KERN_SUM_BLOCK;
        __m512 sum = _mm512_setzero_ps();
        for (int64_t i = from; i < to; i += 16) {
            __m512 v = _mm512_mask_loadu_ps(nothing, wide_mask(to - i), x + i);
            sum = _mm512_add_ps(sum, wide_exp_normal(_mm512_sub_ps(v, top)));
        }
        total += (double)wide_sum(sum);
    }
    return (float)((double)max + log(total));
}

/* Vector c of every four goes into chain c. */
LANES_INLINE float block_dot(const float *x, const float *y, int64_t n)
{
    __m512 sum[CHAINS];
    for (int c = 0; c < CHAINS; c++) {
        sum[c] = _mm512_setzero_ps();
    }
    int64_t i = 0;
    for (; i + CHAINS * 16 <= n; i += CHAINS * 16) {
        for (int c = 0; c < CHAINS; c++) {
            __m512 v = _mm512_loadu_ps(x + i + c * 16);
            sum[c] = _mm512_fmadd_ps(v, _mm512_loadu_ps(y + i + c * 16), sum[c]);
        }
    }
    for (; i < n; i += 16) {
        __mmask16 mask = wide_mask(n - i);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        sum[0] = _mm512_fmadd_ps(v, _mm512_maskz_loadu_ps(mask, y + i), sum[0]);
    }
    return wide_sum(_mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
}

double kern_avx512vnni_dot(const float *x, const float *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i += KERN_SUM_BLOCK) {
        int64_t count = n - i < KERN_SUM_BLOCK ? n - i : KERN_SUM_BLOCK;
        sum += (double)block_dot(x + i, y + i, count);
    }
    return sum;
}
