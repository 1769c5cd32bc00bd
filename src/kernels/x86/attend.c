/* One tile of streaming attention. */
#include <math.h>

#include "kernels/x86/avx2.h"
#include "kernels/x86/lanes.h"
#include "kernels/x86/tile.h"

/* scores[i] = q . k[i], four keys at a time. */
static void score(const float *q, const float *k, int64_t n, int64_t dim, int64_t stride,
                  float *scores)
{
    size_t row_bytes = (size_t)stride * sizeof(float);
    int64_t i = 0;
    for (; i + TILE_ROWS <= n; i += TILE_ROWS) {
        tile_dot(TENSOR_F32, (const char *)(k + i * stride), row_bytes, q, dim, scores + i, 0,
                 TILE_ROWS, 1);
    }
    for (; i < n; i++) {
        tile_dot(TENSOR_F32, (const char *)(k + i * stride), row_bytes, q, dim, scores + i, 0, 1,
                 1);
    }
}

/* The largest of n scores and `top`; a NaN is passed by. */
static float top_of(const float *scores, int64_t n, float top)
{
    __m256 max = _mm256_set1_ps(top);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        max = _mm256_max_ps(_mm256_loadu_ps(scores + i), max);
    }
    top = lanes_max(max);
    for (; i < n; i++) {
        top = scores[i] > top ? scores[i] : top;
    }
    return top;
}

/* Scores become weights exp(score - reference); returns their sum. */
static float weigh(float *scores, int64_t n, float reference)
{
    __m256 shift = _mm256_set1_ps(reference);
    __m256 sum = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 e = lanes_exp(_mm256_sub_ps(_mm256_loadu_ps(scores + i), shift));
        _mm256_storeu_ps(scores + i, e);
        sum = _mm256_add_ps(sum, e);
    }
    if (i < n) {
        __m256i mask = lanes_mask(n - i);
        __m256 e = lanes_exp(_mm256_sub_ps(_mm256_maskload_ps(scores + i, mask), shift));
        _mm256_maskstore_ps(scores + i, mask, e);
        sum = _mm256_add_ps(sum, _mm256_and_ps(e, _mm256_castsi256_ps(mask)));
    }
    return lanes_sum(sum);
}

/* acc = acc * fade + sum of weights[i] * v[i], for 8 * n_lanes of its elements; n_lanes is a
 * constant where this is inlined. */
LANES_INLINE void blend(const float *weights, const float *v, int64_t n, int64_t stride,
                        __m256 fade, float *acc, const int n_lanes)
{
    __m256 sum[8];
    for (int j = 0; j < n_lanes; j++) {
        sum[j] = _mm256_mul_ps(_mm256_loadu_ps(acc + 8 * j), fade);
    }
    for (int64_t i = 0; i < n; i++, v += stride) {
        __m256 weight = _mm256_broadcast_ss(weights + i);
        for (int j = 0; j < n_lanes; j++) {
            sum[j] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(v + 8 * j), sum[j]);
        }
    }
    for (int j = 0; j < n_lanes; j++) {
        _mm256_storeu_ps(acc + 8 * j, sum[j]);
    }
}

/* The same for the last fewer than eight. */
static void blend_part(const float *weights, const float *v, int64_t n, int64_t stride, __m256 fade,
                       float *acc, int64_t left)
{
    __m256i mask = lanes_mask(left);
    __m256 sum = _mm256_mul_ps(_mm256_maskload_ps(acc, mask), fade);
    for (int64_t i = 0; i < n; i++, v += stride) {
        sum = _mm256_fmadd_ps(_mm256_broadcast_ss(weights + i), _mm256_maskload_ps(v, mask), sum);
    }
    _mm256_maskstore_ps(acc, mask, sum);
}

/* The reference of the exponents is explained with the portable kernel. */
void kern_avx2_attend(const float *q, const float *k, const float *v, int64_t n, int64_t dim,
                      int64_t stride, float *max, float *sum, float *acc, float *scores)
{
    score(q, k, n, dim, stride, scores);
    float top = top_of(scores, n, *max);
    float reference = top == -INFINITY ? 0 : top;
    __m256 fade = lanes_exp(_mm256_set1_ps(*max - reference));
    *sum = *sum * _mm256_cvtss_f32(fade) + weigh(scores, n, reference);
    *max = top;
    int64_t d = 0;
    for (; d + 64 <= dim; d += 64) {
        blend(scores, v + d, n, stride, fade, acc + d, 8);
    }
    for (; d + 8 <= dim; d += 8) {
        blend(scores, v + d, n, stride, fade, acc + d, 1);
    }
    if (d < dim) {
        blend_part(scores, v + d, n, stride, fade, acc + d, dim - d);
    }
}
