#include "tensor/search.h"

#include <math.h>
#include <string.h>

#include "tensor/blocks.h"
#include "tensor/half.h"
#include "tensor/k_scales.h"
#include "tensor/range.h"

typedef int32_t int_lanes __attribute__((vector_size(16)));

#define LIMIT 0x1p30f
/* Adding and taking away this rounds numbers below 2^22 to whole ones, halves to even. */
#define ROUND 0x1.8p23f

static search_lanes splat(float f)
{
    return (search_lanes){f, f, f, f};
}

static search_lanes choose(int_lanes mask, search_lanes yes, search_lanes no)
{
    return (search_lanes)(((int_lanes)yes & mask) | ((int_lanes)no & ~mask));
}

static search_lanes least(search_lanes a, search_lanes b)
{
    return choose(a < b, a, b);
}

static search_lanes most(search_lanes a, search_lanes b)
{
    return choose(a > b, a, b);
}

static float sum(search_lanes a)
{
    return (a[0] + a[2]) + (a[1] + a[3]);
}

bool search_finite(const float *x, int64_t n)
{
    int32_t outside = 0;
    for (int64_t i = 0; i < n; i++)
        outside |= !(fabsf(x[i]) < LIMIT);
    return !outside;
}

void search_load(search_group *g, const float *x, const float *importance, int size)
{
    search_lanes total = splat(0), squares = splat(0);
    g->n = size / 4;
    memcpy(g->x, x, (size_t)size * sizeof(float));
    if (importance) {
        memcpy(g->w, importance, (size_t)size * sizeof(float));
        for (int i = 0; i < g->n; i++)
            total += g->w[i];
        if (sum(total) > 0)
            return;
    }
    for (int i = 0; i < g->n; i++)
        squares += g->x[i] * g->x[i];
    float *w = (float *)g->w, rms = sqrtf(sum(squares) / (float)size);
    for (int i = 0; i < size; i++)
        w[i] = rms + fabsf(x[i]);
}

/* ---- levels 0 .. top with a minimum ---------------------------------------------------------- */

typedef struct sums {
    float w, x, l, ll, xl; /* of the weights alone, and of weight times each */
} sums;

/* Levels of numbers: rounded, and kept between low and high. */
static void round_levels(const search_group *g, float min, float inverse, float low, float high,
                         search_lanes *levels)
{
    const float *x = (const float *)g->x;
    float *l = (float *)levels;
    for (int i = 0; i < g->n * 4; i++) {
        float level = (x[i] - min) * inverse;
        level = level > low ? level : low;
        level = level < high ? level : high;
        l[i] = (level + ROUND) - ROUND;
    }
}

/* One trial: levels (x - min) * inverse, at most top. */
static void affine_sums(const search_group *g, float top, float min, float inverse, sums *s)
{
    search_lanes l1 = splat(0), ll = splat(0), xl = splat(0);
    search_lanes l[SEARCH_GROUP / 4];
    round_levels(g, min, inverse, 0, top, l);
    for (int i = 0; i < g->n; i++) {
        search_lanes wl = g->w[i] * l[i];
        l1 += wl;
        ll += wl * l[i];
        xl += wl * g->x[i];
    }
    s->l = sum(l1);
    s->ll = sum(ll);
    s->xl = sum(xl);
}

/* The least-squares scale and minimum for the levels summed up, and how much of the weighted sum
 * of x^2 they explain; 0 where there is no answer. */
static float affine_fit(const sums *s, bool lower, float *scale, float *min)
{
    float det = s->w * s->ll - s->l * s->l;
    if (!(det > 0))
        return 0;
    float a = (s->w * s->xl - s->x * s->l) / det;
    float b = (s->ll * s->x - s->l * s->xl) / det;
    if (lower && b > 0) {
        b = 0;
        a = s->xl / s->ll;
    }
    *scale = a;
    *min = b;
    return a > 0 ? a * s->xl + b * s->x : 0;
}

/* Trial scales are (top + step) / range. */
#define AFFINE_FIRST (-1.0f)
#define AFFINE_STEP  0.2f
enum { AFFINE_TRIALS = 10, AFFINE_REFINE = 2 };

void search_affine(const search_group *g, int top, bool lower, float *scale, float *min)
{
    search_lanes lo = g->x[0], hi = g->x[0], w = splat(0), x = splat(0);
    for (int i = 0; i < g->n; i++) {
        lo = least(lo, g->x[i]);
        hi = most(hi, g->x[i]);
        w += g->w[i];
        x += g->w[i] * g->x[i];
    }
    float low = fminf(fminf(lo[0], lo[1]), fminf(lo[2], lo[3]));
    float high = fmaxf(fmaxf(hi[0], hi[1]), fmaxf(hi[2], hi[3]));
    if (lower && low > 0)
        low = 0;
    float range = high - low, most_gain = 0;
    *min = low;
    *scale = range / (float)top;
    if (range_inverse(range) == 0) {
        *scale = 0;
        return;
    }
    sums s = {.w = sum(w), .x = sum(x)};
    for (int i = 0; i < AFFINE_TRIALS + AFFINE_REFINE; i++) {
        float a = 0, b = 0, inverse = ((float)top + AFFINE_FIRST + AFFINE_STEP * (float)i) / range;
        bool refine = i >= AFFINE_TRIALS;
        affine_sums(g, (float)top, refine ? *min : low, refine ? range_inverse(*scale) : inverse,
                    &s);
        float gain = affine_fit(&s, lower, &a, &b);
        if (gain > most_gain) {
            most_gain = gain;
            *scale = a;
            *min = b;
        } else if (refine) {
            break;
        }
    }
}

/* What scale * level + min leaves. */
static float error_of(const search_group *g, float scale, float min, const search_lanes *levels)
{
    search_lanes error = splat(0);
    for (int i = 0; i < g->n; i++) {
        search_lanes e = g->x[i] - (splat(scale) * levels[i] + splat(min));
        error += g->w[i] * e * e;
    }
    return sum(error);
}

float search_affine_levels(const search_group *g, int top, float scale, float min, uint8_t *levels)
{
    search_lanes l[SEARCH_GROUP / 4];
    round_levels(g, min, range_inverse(scale), 0, (float)top, l);
    for (int i = 0; levels && i < g->n * 4; i++)
        levels[i] = (uint8_t)(int32_t)((const float *)l)[i];
    return error_of(g, scale, min, l);
}

/* ---- levels around zero -------------------------------------------------------------------- */

/* The number of the largest magnitude. */
static float peak_of(const search_group *g)
{
    float peak = 0;
    for (int i = 0; i < g->n; i++)
        for (int k = 0; k < 4; k++)
            if (fabsf(g->x[i][k]) > fabsf(peak))
                peak = g->x[i][k];
    return peak;
}

/* How a group's own scale answers levels without a minimum: the scale, and how much of the
 * weighted sum of x^2 it explains. */
typedef struct answer {
    float scale, gain;
} answer;

static answer scale_for(const search_group *g, const search_lanes *levels)
{
    search_lanes ll = splat(0), xl = splat(0);
    for (int i = 0; i < g->n; i++) {
        search_lanes wl = g->w[i] * levels[i];
        ll += wl * levels[i];
        xl += wl * g->x[i];
    }
    float sum_ll = sum(ll), sum_xl = sum(xl);
    float scale = sum_ll > 0 ? sum_xl / sum_ll : 0;
    return (answer){scale, scale * sum_xl};
}

enum { SYMMETRIC_TRIALS = 10, SYMMETRIC_REFINE = 2 };
#define SYMMETRIC_FIRST (-0.9f)
#define SYMMETRIC_STEP  0.2f

float search_symmetric(const search_group *g, int bottom)
{
    search_lanes levels[SEARCH_GROUP / 4];
    float peak = peak_of(g), most = (float)bottom;
    answer best = {peak / -most, 0};
    if (range_inverse(peak) == 0)
        return 0;
    for (int i = 0; i < SYMMETRIC_TRIALS + SYMMETRIC_REFINE; i++) {
        bool refine = i >= SYMMETRIC_TRIALS;
        float trial = -(most + SYMMETRIC_FIRST + SYMMETRIC_STEP * (float)i) / peak;
        round_levels(g, 0, refine ? range_inverse(best.scale) : trial, -most, most - 1, levels);
        answer found = scale_for(g, levels);
        if (found.gain > best.gain)
            best = found;
        else if (refine)
            break;
    }
    return best.scale;
}

float search_symmetric_levels(const search_group *g, int bottom, float scale, uint8_t *levels)
{
    search_lanes l[SEARCH_GROUP / 4];
    float most = (float)bottom;
    round_levels(g, 0, range_inverse(scale), -most, most - 1, l);
    for (int i = 0; levels && i < g->n * 4; i++)
        levels[i] = (uint8_t)((int32_t)((const float *)l)[i] + bottom);
    return error_of(g, scale, 0, l);
}

/* ---- the levels of IQ4 --------------------------------------------------------------------- */

/* The level nearest to v, at 2 v + 256: the midpoints between levels are whole or half numbers. */
static const uint8_t iq4_nearest[512] = {
    [0 ... 24] = 0,     [25 ... 68] = 1,    [69 ... 107] = 2,   [108 ... 141] = 3,
    [142 ... 171] = 4,  [172 ... 198] = 5,  [199 ... 223] = 6,  [224 ... 246] = 7,
    [247 ... 269] = 8,  [270 ... 293] = 9,  [294 ... 318] = 10, [319 ... 346] = 11,
    [347 ... 377] = 12, [378 ... 413] = 13, [414 ... 457] = 14, [458 ... 511] = 15,
};

static void iq4_levels(const search_group *g, float inverse, search_lanes *levels, uint8_t *index)
{
    const float *x = (const float *)g->x;
    float *l = (float *)levels;
    int32_t halves[SEARCH_GROUP];
    for (int i = 0; i < g->n * 4; i++) {
        float half = x[i] * inverse * 2 + 256;
        half = half > 0 ? half : 0;
        half = half < 511 ? half : 511;
        halves[i] = (int32_t)half;
    }
    for (int i = 0; i < g->n * 4; i++) {
        index[i] = iq4_nearest[halves[i]];
        l[i] = (float)tensor_iq4_values[index[i]];
    }
}

/* The level that the peak is put at, in trial order. Beyond the ends it is cut off. */
static const float iq4_trials[] = {-118, -123, -128, -133, -138, -144,
                                   -152, 105,  112,  118,  126,  136};
enum { IQ4_TRIALS = sizeof(iq4_trials) / sizeof(iq4_trials[0]), IQ4_REFINE = 3 };

float search_iq4(const search_group *g)
{
    search_lanes levels[SEARCH_GROUP / 4];
    uint8_t index[SEARCH_GROUP];
    float peak = peak_of(g);
    answer best = {peak / iq4_trials[0], 0};
    if (range_inverse(peak) == 0)
        return 0;
    for (int i = 0; i < IQ4_TRIALS + IQ4_REFINE; i++) {
        bool refine = i >= IQ4_TRIALS;
        iq4_levels(g, refine ? range_inverse(best.scale) : iq4_trials[i] / peak, levels, index);
        answer found = scale_for(g, levels);
        if (found.gain > best.gain)
            best = found;
        else if (refine)
            break;
    }
    return best.scale;
}

float search_iq4_levels(const search_group *g, float scale, uint8_t *levels)
{
    search_lanes l[SEARCH_GROUP / 4];
    uint8_t index[SEARCH_GROUP];
    iq4_levels(g, range_inverse(scale), l, index);
    if (levels)
        memcpy(levels, index, (size_t)g->n * 4);
    return error_of(g, scale, 0, l);
}

/* ---- Q4_K and Q5_K ------------------------------------------------------------------------- */

void search_neighbours(float value, float unit, int low, int high, int32_t out[2])
{
    float steps = floorf(value * range_inverse(unit));
    int32_t below = steps < (float)low ? low : steps < (float)high ? (int32_t)steps : high;
    out[0] = below;
    out[1] = below < high ? below + 1 : high;
}

static float half_rounded(float f)
{
    return half_f16_decode(half_f16_encode(f));
}

void search_k_block(const float *x, const float *importance, int top, search_k *out)
{
    search_group g[8];
    float scales[8], mins[8], most_scale = 0, most_min = 0;
    for (int i = 0; i < 8; i++) {
        search_load(&g[i], x + i * 32, importance ? importance + i * 32 : NULL, 32);
        search_affine(&g[i], top, true, &scales[i], &mins[i]);
        most_scale = fmaxf(most_scale, scales[i]);
        most_min = fmaxf(most_min, -mins[i]);
    }
    out->d = half_rounded(most_scale / 63);
    out->dmin = half_rounded(most_min / 63);
    for (int i = 0; i < 8; i++) {
        int32_t s[2], m[2];
        float least_error = 0;
        search_neighbours(scales[i], out->d, 0, 63, s);
        search_neighbours(-mins[i], out->dmin, 0, 63, m);
        for (int k = 0; k < 4; k++) {
            int32_t scale = s[k / 2], min = m[k % 2];
            float error = search_affine_levels(&g[i], top, out->d * (float)scale,
                                               -out->dmin * (float)min, NULL);
            if (k == 0 || error < least_error) {
                least_error = error;
                out->scales[i] = (uint8_t)scale;
                out->mins[i] = (uint8_t)min;
            }
        }
        search_affine_levels(&g[i], top, out->d * (float)out->scales[i],
                             -out->dmin * (float)out->mins[i], out->levels + i * 32);
    }
}

void search_k_store(const search_k *k, uint8_t d[2], uint8_t dmin[2], uint8_t scales[12],
                    uint8_t q[128])
{
    half_store(d, k->d);
    half_store(dmin, k->dmin);
    for (int g = 0; g < 8; g++) {
        k_scales_put(scales, g, k->scales[g], k->mins[g]);
        for (int i = 0; i < 32; i++)
            q[g / 2 * 32 + i] =
                (uint8_t)(q[g / 2 * 32 + i] | (k->levels[g * 32 + i] & 15) << g % 2 * 4);
    }
}

void search_blocks(const float *src, const float *importance, void *dst, int64_t n, size_t size,
                   search_encode_fn encode)
{
    char *block = dst;
    for (int64_t at = 0; at < n; at += 256, block += size) {
        bool finite = search_finite(src + at, 256);
        memset(block, finite ? 0 : 0xff, size);
        if (finite)
            encode(src + at, importance ? importance + at : NULL, block);
    }
}
