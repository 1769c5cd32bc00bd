/* One tile of streaming attention: the tile is widened to F32, then each query goes over it. */
#include <math.h>
#include <string.h>

#include "kernels/portable.h"
#include "tensor/blocks.h"

enum { GROUP = KERN_TILE_GROUP };

/* Keys keep their order: groups of 8, dimension after dimension. */
static void widen_keys(tensor_type type, const void *keys, int64_t dim, int64_t groups, float *to)
{
    if (type != TENSOR_Q8_0) {
        tensor_traits_of(type)->decode(keys, to, groups * GROUP * dim);
        return;
    }
    const char *block = keys;
    for (int64_t b = 0; b < groups * dim / 32; b++, block += GROUP * sizeof(tensor_q8_0)) {
        const int8_t *number = (const int8_t *)block + GROUP * 2;
        float scale[GROUP];
        tensor_traits_of(TENSOR_F16)->decode(block, scale, GROUP);
        for (int i = 0; i < 32 * GROUP; i++) {
            *to++ = (float)number[i] * scale[i % GROUP];
        }
    }
}

/* scores[i] = q . key i: one sum over the dimensions, 8 keys abreast. */
static void score(const float *q, const float *keys, int64_t dim, int64_t groups, float *scores)
{
    for (int64_t g = 0; g < groups; g++, keys += dim * GROUP) {
        float sum[GROUP] = {0};
        for (int64_t d = 0; d < dim; d++) {
            for (int i = 0; i < GROUP; i++) {
                sum[i] += q[d] * keys[d * GROUP + i];
            }
        }
        memcpy(scores + g * GROUP, sum, sizeof(sum));
    }
}

/* Everything is relative to the largest score seen. While that is -Inf (no key counts yet) any
 * finite reference does, since all weights are exp(-Inf) = 0; 0 avoids Inf - Inf. A NaN score
 * passes the comparison by and comes out in the weights. Returns what the output so far fades by.
 */
static float weigh(float *scores, int64_t n, float *max, float *sum)
{
    float top = *max;
    for (int64_t i = 0; i < n; i++) {
        top = scores[i] > top ? scores[i] : top;
    }
    float reference = top == -INFINITY ? 0 : top;
    float fade = expf(*max - reference);
    float total = *sum * fade;
    for (int64_t i = 0; i < n; i++) {
        scores[i] = expf(scores[i] - reference);
        total += scores[i];
    }
    *max = top;
    *sum = total;
    return fade;
}

static void attend(tensor_type type, const kern_attend *a, const void *keys, const void *values,
                   int64_t first)
{
    float *wide_keys = a->scratch + KERN_TILE;
    float *wide_values = wide_keys + KERN_TILE * a->dim;
    int64_t tokens = a->n_q / a->group;
    int64_t most = first + tokens - 1 < KERN_TILE ? first + tokens - 1 : KERN_TILE;
    if (most <= 0) {
        return;
    }
    widen_keys(type, keys, a->dim, (most + GROUP - 1) / GROUP, wide_keys);
    tensor_traits_of(type)->decode(values, wide_values, most * a->dim);
    for (int64_t j = 0; j < a->n_q; j++) {
        int64_t seen = first + j / a->group;
        seen = seen < KERN_TILE ? seen : KERN_TILE;
        if (seen <= 0) {
            continue;
        }
        float *acc = a->acc + j * a->stride;
        score(a->q + j * a->stride, wide_keys, a->dim, (seen + GROUP - 1) / GROUP, a->scratch);
        float fade = weigh(a->scratch, seen, &a->max[j], &a->sum[j]);
        for (int64_t d = 0; d < a->dim; d++) {
            acc[d] *= fade;
        }
        for (int64_t i = 0; i < seen; i++) {
            for (int64_t d = 0; d < a->dim; d++) {
                acc[d] += a->scratch[i] * wide_values[i * a->dim + d];
            }
        }
    }
}

void kern_portable_attend_f32(const kern_attend *a, const void *keys, const void *values,
                              const void *next, int64_t first)
{
    (void)next;
    attend(TENSOR_F32, a, keys, values, first);
}

void kern_portable_attend_f16(const kern_attend *a, const void *keys, const void *values,
                              const void *next, int64_t first)
{
    (void)next;
    attend(TENSOR_F16, a, keys, values, first);
}

void kern_portable_attend_q8_0(const kern_attend *a, const void *keys, const void *values,
                               const void *next, int64_t first)
{
    (void)next;
    attend(TENSOR_Q8_0, a, keys, values, first);
}
