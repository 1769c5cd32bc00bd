#include "tensor/search.h"

#include <math.h>
#include <string.h>

#include "tensor/blocks.h"
#include "tensor/half.h"
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
    search_lanes total = splat(0);
    g->n = size / 4;
    memcpy(g->x, x, (size_t)size * sizeof(float));
    if (importance) {
        memcpy(g->w, importance, (size_t)size * sizeof(float));
        for (int i = 0; i < g->n; i++)
            total += g->w[i];
    }
    if (!importance || sum(total) <= 0)
        for (int i = 0; i < g->n; i++)
            g->w[i] = splat(1);
}

/* ---- levels 0 .. top with a minimum ---------------------------------------------------------- */

typedef struct sums {
    float w, x, l, ll, xl; /* of the weights alone, and of weight times each */
} sums;

/* One trial: levels (x - min) * inverse, at most top. */
static void affine_sums(const search_group *g, float top, float min, float inverse, sums *s)
{
    search_lanes l1 = splat(0), ll = splat(0), xl = splat(0);
    for (int i = 0; i < g->n; i++) {
        search_lanes l = (g->x[i] - splat(min)) * splat(inverse);
        l = least(most(l, splat(0)), splat(top));
        l = (l + splat(ROUND)) - splat(ROUND);
        search_lanes wl = g->w[i] * l;
        l1 += wl;
        ll += wl * l;
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

float search_affine_levels(const search_group *g, int top, float scale, float min, uint8_t *levels)
{
    search_lanes error = splat(0);
    float inverse = range_inverse(scale);
    for (int i = 0; i < g->n; i++) {
        search_lanes l = (g->x[i] - splat(min)) * splat(inverse);
        l = least(most(l, splat(0)), splat((float)top));
        l = (l + splat(ROUND)) - splat(ROUND);
        search_lanes e = g->x[i] - (splat(scale) * l + splat(min));
        error += g->w[i] * e * e;
        for (int k = 0; levels && k < 4; k++)
            levels[i * 4 + k] = (uint8_t)l[k];
    }
    return sum(error);
}

/* ---- levels around zero -----------------------------------------------------------------------
 */

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

static search_lanes symmetric_level(search_lanes x, float bottom, float inverse)
{
    search_lanes l = x * splat(inverse);
    l = least(most(l, splat(-bottom)), splat(bottom - 1));
    return (l + splat(ROUND)) - splat(ROUND);
}

enum { SYMMETRIC_TRIALS = 10, SYMMETRIC_REFINE = 2 };
#define SYMMETRIC_FIRST (-0.9f)
#define SYMMETRIC_STEP  0.2f

float search_symmetric(const search_group *g, int bottom)
{
    float peak = peak_of(g), most_gain = 0;
    if (range_inverse(peak) == 0)
        return 0;
    float scale = peak / (float)-bottom;
    for (int i = 0; i < SYMMETRIC_TRIALS + SYMMETRIC_REFINE; i++) {
        bool refine = i >= SYMMETRIC_TRIALS;
        float trial = -((float)bottom + SYMMETRIC_FIRST + SYMMETRIC_STEP * (float)i) / peak;
        float inverse = refine ? range_inverse(scale) : trial;
        search_lanes ll = splat(0), xl = splat(0);
        for (int k = 0; k < g->n; k++) {
            search_lanes l = symmetric_level(g->x[k], (float)bottom, inverse);
            search_lanes wl = g->w[k] * l;
            ll += wl * l;
            xl += wl * g->x[k];
        }
        float sum_ll = sum(ll), sum_xl = sum(xl);
        if (sum_ll > 0 && sum_xl * sum_xl > most_gain * sum_ll) {
            scale = sum_xl / sum_ll;
            most_gain = scale * sum_xl;
        } else if (refine) {
            break;
        }
    }
    return scale;
}

float search_symmetric_levels(const search_group *g, int bottom, float scale, uint8_t *levels)
{
    search_lanes error = splat(0);
    float inverse = range_inverse(scale);
    for (int i = 0; i < g->n; i++) {
        search_lanes l = symmetric_level(g->x[i], (float)bottom, inverse);
        search_lanes e = g->x[i] - splat(scale) * l;
        error += g->w[i] * e * e;
        for (int k = 0; levels && k < 4; k++)
            levels[i * 4 + k] = (uint8_t)(l[k] + (float)bottom);
    }
    return sum(error);
}

/* ---- the levels of IQ4 ------------------------------------------------------------------------
 */

/* The nearest level's index: how many of the midpoints between neighbours lie at or below v. */
static search_lanes iq4_level(search_lanes v, int_lanes *index)
{
    search_lanes level = splat((float)tensor_iq4_values[0]);
    int_lanes count = {0};
    for (int i = 1; i < 16; i++) {
        float a = (float)tensor_iq4_values[i - 1], b = (float)tensor_iq4_values[i];
        int_lanes above = v >= splat((a + b) / 2);
        level += (search_lanes)((int_lanes)splat(b - a) & above);
        count -= above;
    }
    *index = count;
    return level;
}

enum { IQ4_TRIALS = 10, IQ4_REFINE = 2 };
#define IQ4_FIRST (-9.0f)
#define IQ4_STEP  2.0f

float search_iq4(const search_group *g)
{
    float peak = peak_of(g), most_gain = 0;
    if (range_inverse(peak) == 0)
        return 0;
    float end = (float)tensor_iq4_values[0], scale = peak / end;
    for (int i = 0; i < IQ4_TRIALS + IQ4_REFINE; i++) {
        bool refine = i >= IQ4_TRIALS;
        float trial = (end - IQ4_FIRST - IQ4_STEP * (float)i) / peak;
        float inverse = refine ? range_inverse(scale) : trial;
        search_lanes ll = splat(0), xl = splat(0);
        for (int k = 0; k < g->n; k++) {
            int_lanes index;
            search_lanes l = iq4_level(g->x[k] * splat(inverse), &index);
            search_lanes wl = g->w[k] * l;
            ll += wl * l;
            xl += wl * g->x[k];
        }
        float sum_ll = sum(ll), sum_xl = sum(xl);
        if (sum_ll > 0 && sum_xl * sum_xl > most_gain * sum_ll) {
            scale = sum_xl / sum_ll;
            most_gain = scale * sum_xl;
        } else if (refine) {
            break;
        }
    }
    return scale;
}

float search_iq4_levels(const search_group *g, float scale, uint8_t *levels)
{
    search_lanes error = splat(0);
    float inverse = range_inverse(scale);
    for (int i = 0; i < g->n; i++) {
        int_lanes index;
        search_lanes l = iq4_level(g->x[i] * splat(inverse), &index);
        search_lanes e = g->x[i] - splat(scale) * l;
        error += g->w[i] * e * e;
        for (int k = 0; levels && k < 4; k++)
            levels[i * 4 + k] = (uint8_t)index[k];
    }
    return sum(error);
}

/* ---- Q4_K and Q5_K ----------------------------------------------------------------------------
 */

static float half_rounded(float f)
{
    return half_f16_decode(half_f16_encode(f));
}

/* The 6-bit numbers below and above value / unit. */
static void neighbours(float value, float unit, uint8_t out[2])
{
    float steps = value * range_inverse(unit);
    int32_t below = steps < 0 ? 0 : steps < 63 ? (int32_t)steps : 63;
    out[0] = (uint8_t)below;
    out[1] = (uint8_t)(below < 63 ? below + 1 : 63);
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
        uint8_t s[2], m[2];
        float least_error = INFINITY;
        neighbours(scales[i], out->d, s);
        neighbours(-mins[i], out->dmin, m);
        for (int k = 0; k < 4; k++) {
            float error = search_affine_levels(&g[i], top, out->d * (float)s[k / 2],
                                               -out->dmin * (float)m[k % 2], NULL);
            if (error < least_error) {
                least_error = error;
                out->scales[i] = s[k / 2];
                out->mins[i] = m[k % 2];
            }
        }
        search_affine_levels(&g[i], top, out->d * (float)out->scales[i],
                             -out->dmin * (float)out->mins[i], out->levels + i * 32);
    }
}
