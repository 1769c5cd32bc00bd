/* A row to one number. */
#include <math.h>

#include "kernels/portable.h"

float kern_portable_max(const float *x, int64_t n)
{
    float max = -INFINITY;
    bool nan = false;
    for (int64_t i = 0; i < n; i++) {
        max = x[i] > max ? x[i] : max;
        nan |= isnan(x[i]);
    }
    return nan ? NAN : max;
}

float kern_portable_logsumexp(const float *x, int64_t n)
{
    float max = kern_portable_max(x, n);
    if (!isfinite(max)) {
        return max;
    }
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)expf(x[i] - max);
    }
    return (float)((double)max + log(sum));
}

/* Eight partial sums, as kern_portable_dot. */
static float sum_block(const float *x, int64_t n)
{
    float lane[8] = {0};
    int64_t whole = n - n % 8;
    for (int64_t i = 0; i < whole; i += 8) {
        for (int64_t j = 0; j < 8; j++) {
            lane[j] += x[i + j];
        }
    }
    for (int64_t i = whole; i < n; i++) {
        lane[i - whole] += x[i];
    }
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

double kern_portable_sum(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i += KERN_SUM_BLOCK) {
        sum += (double)sum_block(x + i, n - i < KERN_SUM_BLOCK ? n - i : KERN_SUM_BLOCK);
    }
    return sum;
}

double kern_portable_dot_wide(const float *x, const float *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i += KERN_SUM_BLOCK) {
        int64_t count = n - i < KERN_SUM_BLOCK ? n - i : KERN_SUM_BLOCK;
        sum += (double)kern_portable_dot(x + i, y + i, count);
    }
    return sum;
}
