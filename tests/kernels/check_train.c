/* The slots for training, against double precision. */
#include <float.h>
#include <stdlib.h>

#include "harness.h"

static const int64_t lengths[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 100, 1023};
enum { N_LENGTHS = sizeof(lengths) / sizeof(lengths[0]), LONGEST = 1024 };

/* Around the ends of blocks of sums. */
static const int64_t row_lengths[] = {1,   2,    7,    8,    16,   17,   31,   33,
                                      100, 1023, 1024, 1025, 1039, 2047, 2049, 5000};

static float *filled(int slot, int64_t n, float scale)
{
    float *x = memory(slot, (size_t)n * sizeof(float));
    fill_normal(x, n, scale);
    return x;
}

/* NaN is as good as NaN. */
static bool same(float a, float b)
{
    return same_bits(a, b) || (isnan(a) && isnan(b));
}

static bool expect(const char *what, int64_t n, int64_t i, float got, double want, double bound)
{
    if (fabs((double)got - want) <= bound) {
        return true;
    }
    fail("n %ld: %s[%ld] is %.9g, not %.9g", (long)n, what, (long)i, (double)got, want);
    return false;
}

/* ---- rmsnorm_back --------------------------------------------------------------------------- */

typedef struct norm_row {
    int64_t n;
    float *x, *weight, *dy, *dx, *dweight;
    float dx_before[LONGEST], dweight_before[LONGEST];
} norm_row;

static void fill_norm_row(norm_row *a, int64_t n, float scale)
{
    a->n = n;
    a->x = filled(0, n, scale);
    a->weight = filled(1, n, 1);
    a->dy = filled(2, n, 1);
    a->dx = filled(3, n, 1 / scale);
    a->dweight = filled(4, n, 1);
    memcpy(a->dx_before, a->dx, (size_t)n * sizeof(float));
    memcpy(a->dweight_before, a->dweight, (size_t)n * sizeof(float));
}

static void expect_norm_row(const norm_row *a, float eps)
{
    double squares = 0, s = 0, size = 0;
    for (int64_t i = 0; i < a->n; i++) {
        double x = (double)a->x[i], d = (double)a->weight[i] * (double)a->dy[i];
        squares += x * x;
        s += d * x;
        size += fabs(d * x);
    }
    double n = (double)a->n, r = 1 / sqrt(squares / n + (double)eps);
    for (int64_t i = 0; i < a->n; i++) {
        double x = (double)a->x[i], dy = (double)a->dy[i], d = (double)a->weight[i] * dy;
        double before = (double)a->dx_before[i];
        double want = before + r * (d - x * r * r * s / n);
        double bound = 4 * EPS * (fabs(before) + r * (fabs(d) + fabs(x) * r * r * size / n));
        double weight = (double)a->dweight_before[i] + dy * x * r;
        double weight_bound = 4 * EPS * (fabs((double)a->dweight_before[i]) + fabs(dy * x * r));
        if (!expect("dx", a->n, i, a->dx[i], want, bound) ||
            !expect("dweight", a->n, i, a->dweight[i], weight, weight_bound)) {
            return;
        }
    }
}

void check_rmsnorm_back(const kern_table *k)
{
    static norm_row a;
    const float scales[] = {1, 1e-3f, 1e20f};
    for (int n_at = 0; n_at < N_LENGTHS; n_at++) {
        for (int s = 0; s < 3; s++) {
            float eps = n_at % 2 ? 1e-6f : 1e-5f;
            fill_norm_row(&a, lengths[n_at], scales[s]);
            k->rmsnorm_back(a.x, a.weight, a.dy, a.dx, a.dweight, a.n, eps);
            expect_norm_row(&a, eps);
            check_before(3, a.dx);
            check_before(4, a.dweight);
            float *frozen = memory(5, (size_t)a.n * sizeof(float));
            memcpy(frozen, a.dx_before, (size_t)a.n * sizeof(float));
            k->rmsnorm_back(a.x, a.weight, a.dy, frozen, NULL, a.n, eps);
            if (memcmp(frozen, a.dx, (size_t)a.n * sizeof(float)) != 0) {
                fail("n %ld: dx depends on dweight", (long)a.n);
                return;
            }
        }
        float *bad[] = {a.x, a.dy, a.weight};
        for (int b = 0; b < 3; b++) {
            fill_norm_row(&a, lengths[n_at], 1);
            bad[b][any_below(a.n)] = b ? INFINITY : NAN;
            k->rmsnorm_back(a.x, a.weight, a.dy, a.dx, a.dweight, a.n, 1e-6f);
            for (int64_t i = 0; i < a.n; i++) {
                if (isfinite(a.dx[i])) {
                    fail("n %ld: a NaN was lost at %ld", (long)a.n, (long)i);
                    return;
                }
            }
        }
    }
}

/* ---- swiglu_back ---------------------------------------------------------------------------- */

/* e: exp(-|z|) may be 0 where it would be subnormal. */
static bool expect_swiglu_back(const kern_table *k, const float in[3], const float got[3])
{
    double z = (double)in[0], up = (double)in[1], dh = (double)in[2];
    double s = 1 / (1 + exp(-z)), rest = 1 / (1 + exp(z));
    double want[3] = {z * s * up, dh * up * s * (1 + z * rest), dh * z * s};
    double lost = (2 + fabs(z)) * 2e-38 * (fabs(up) + fabs(dh) + fabs(up * dh)) + 1e-43;
    double bound[3] = {8 * EPS * fabs(want[0]) + lost,
                       8 * EPS * fabs(dh * up) * (s + fabs(z * s * rest)) + lost,
                       8 * EPS * fabs(want[2]) + lost};
    static const char *const names[] = {"h", "dgate", "dup"};
    bool finite = isfinite(in[0]) && isfinite(in[1]) && isfinite(in[2]);
    for (int i = 0; i < 3; i++) {
        if (finite ? fabs((double)got[i] - want[i]) > bound[i] : i == 1 && isfinite(got[i])) {
            fail("gate %.9g up %.9g dh %.9g: %s is %.9g, not %.9g", z, up, dh, names[i],
                 (double)got[i], want[i]);
            return false;
        }
    }
    float gate = in[0], u = in[1], h;
    k->swiglu_back(&gate, &u, &in[2], &h, 1);
    if (!same(h, got[0]) || !same(gate, got[1]) || !same(u, got[2])) {
        fail("gate %.9g: the result depends on its place", z);
        return false;
    }
    return true;
}

/* Of [n] rows that begin where memories 0 to 2 do. */
static void expect_swiglu_backs(const kern_table *k, float *gate, float *up, const float *dh,
                                int64_t n)
{
    float gates[LONGEST], ups[LONGEST];
    memcpy(gates, gate, (size_t)n * sizeof(float));
    memcpy(ups, up, (size_t)n * sizeof(float));
    float *h = output(3, (size_t)n);
    k->swiglu_back(gate, up, dh, h, n);
    for (int64_t i = 0; i < n; i++) {
        const float in[3] = {gates[i], ups[i], dh[i]}, got[3] = {h[i], gate[i], up[i]};
        if (!expect_swiglu_back(k, in, got)) {
            return;
        }
    }
    check_before(0, gate);
    check_before(1, up);
    check_before(3, h);
}

void check_swiglu_back(const kern_table *k)
{
    const float scales[] = {1, 20, 200, 1e-20f};
    for (int n_at = 0; n_at < N_LENGTHS; n_at++) {
        int64_t n = lengths[n_at];
        for (int s = 0; s < 4; s++) {
            float *gate = filled(0, n, scales[s]), *up = filled(1, n, 2), *dh = filled(2, n, 1);
            if (s == 0) {
                gate[any_below(n)] = n_at % 2 ? NAN : -INFINITY;
                up[any_below(n)] = NAN;
                dh[any_below(n)] = NAN;
            }
            expect_swiglu_backs(k, gate, up, dh, n);
        }
    }
    for (int z = -110; z <= 110; z++) {
        float *gate = memory(0, 3 * sizeof(float)), *up = memory(1, 3 * sizeof(float));
        float *dh = memory(2, 3 * sizeof(float));
        for (int i = 0; i < 3; i++) {
            gate[i] = nextafterf((float)z, 200.0f * (float)(i - 1));
            up[i] = dh[i] = 1;
        }
        expect_swiglu_backs(k, gate, up, dh, 3);
    }
}

/* ---- exp_scaled ----------------------------------------------------------------------------- */

static bool expect_exp(const kern_table *k, float x, float scale, float shift, float got)
{
    double y = (double)scale * (double)x - (double)shift, want = exp(y);
    /* Two roundings of the exponent, where it needs any, and 1.5 units of the exponential itself.
     */
    bool exact = scale == 1 && shift == 0;
    double near = EPS * (3 + (exact ? 0 : fabs((double)scale * (double)x) + fabs(y)));
    bool good;
    if (isnan(y) || isinf(y)) {
        good = isnan(y) ? isnan(got) : same_bits(got, y < 0 ? 0 : INFINITY);
    } else if (got == 0) {
        good = same_bits(got, 0) && want * (1 - near) < (double)FLT_MIN;
    } else if (isinf(got)) {
        good = want * (1 + near) > (double)FLT_MAX;
    } else {
        good = fabs((double)got - want) <= near * want && got >= FLT_MIN;
    }
    float alone = x;
    k->exp_scaled(&alone, 1, scale, shift);
    if (!good || !same(alone, got)) {
        fail("exp(%.9g * %.9g - %.9g) is %.9g, not %.9g; alone %.9g", (double)scale, (double)x,
             (double)shift, (double)got, want, (double)alone);
        return false;
    }
    return true;
}

static void expect_exps(const kern_table *k, float *x, int64_t n, float scale, float shift)
{
    float before[LONGEST];
    memcpy(before, x, (size_t)n * sizeof(float));
    k->exp_scaled(x, n, scale, shift);
    for (int64_t i = 0; i < n && expect_exp(k, before[i], scale, shift, x[i]); i++) {
    }
    check_before(0, x);
}

void check_exp_scaled(const kern_table *k)
{
    for (int n_at = 0; n_at < N_LENGTHS; n_at++) {
        int64_t n = lengths[n_at];
        const float scales[] = {1, 30, 1e4f, 1e-30f};
        for (int s = 0; s < 4; s++) {
            float *x = filled(0, n, scales[s]);
            if (s == 0) {
                x[any_below(n)] = NAN;
            } else if (s == 1) {
                x[any_below(n)] = -INFINITY;
                x[any_below(n)] = INFINITY;
            }
            expect_exps(k, x, n, s % 2 ? 1 : 0.0883883461f, any_normal() * 4);
        }
    }
    /* Every power it can reach and both ends: exp(-87.336...) is the smallest normal number. */
    for (int i = 0; i < 4000; i++) {
        float y = i < 2000 ? (float)(i - 1000) * 0.11f : i < 3000 ? -87.3365479f : 88.7228394f;
        float *x = memory(0, 3 * sizeof(float));
        for (int j = 0; j < 3; j++) {
            x[j] = i < 2000 ? nextafterf(y, 1000.0f * (float)(j - 1))
                            : y + (float)(i % 1000 - 500 + j) * 7.6293945e-6f;
        }
        expect_exps(k, x, 3, 1, 0);
    }
}

/* ---- max and logsumexp ---------------------------------------------------------------------- */

void check_max(const kern_table *k)
{
    float empty = k->max(NULL, 0);
    if (empty != -INFINITY) {
        fail("of nothing it is %g", (double)empty);
    }
    for (int64_t n = 1; n <= 150; n++) {
        float *x = filled(0, n, 3);
        for (int64_t i = 0; i < n; i++) {
            x[i] -= 100; /* below the zeros that a masked load gives */
        }
        for (int64_t at = 0; at < n; at++) {
            float before = x[at];
            const float large[] = {-0.5f, INFINITY, NAN, -NAN};
            for (int v = 0; v < 4; v++) {
                x[at] = large[v];
                float got = k->max(x, n);
                if (!same(got, large[v])) {
                    fail("n %ld: %g at %ld gives %g", (long)n, (double)large[v], (long)at,
                         (double)got);
                    return;
                }
            }
            x[at] = before;
        }
        for (int64_t i = 0; i < n; i++) {
            x[i] = -INFINITY;
        }
        if (k->max(x, n) != -INFINITY) {
            fail("n %ld: the largest of -Inf is %g", (long)n, (double)k->max(x, n));
            return;
        }
    }
}

static bool expect_logsumexp(const kern_table *k, const float *x, int64_t n)
{
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        max = fmax(max, (double)x[i]);
    }
    for (int64_t i = 0; i < n; i++) {
        sum += exp((double)x[i] - max);
    }
    double want = max + log(sum);
    float got = k->logsumexp(x, n);
    /* Of a block: KERN_SUM_BLOCK / 8 additions in F32, of exponentials whose exponent is rounded.
     */
    double bound = EPS * (fabs(want) + KERN_SUM_BLOCK / 8 + 32);
    return expect("logsumexp", n, 0, got, want, bound);
}

void check_logsumexp(const kern_table *k)
{
    const float scales[] = {0, 1, 30, 1e4f, 1e30f};
    for (size_t n_at = 0; n_at < sizeof(row_lengths) / sizeof(row_lengths[0]); n_at++) {
        int64_t n = row_lengths[n_at];
        for (int s = 0; s < 5; s++) {
            float *x = filled(0, n, scales[s]);
            if (!expect_logsumexp(k, x, n)) {
                return;
            }
        }
        float *x = filled(0, n, 1);
        for (int64_t i = 0; i < n; i++) {
            x[i] = i % 3 ? -INFINITY : x[i] - 50;
        }
        expect_logsumexp(k, x, n);
        x[any_below(n)] = INFINITY;
        if (k->logsumexp(x, n) != INFINITY) {
            fail("n %ld: Inf gives %g", (long)n, (double)k->logsumexp(x, n));
        }
        x[any_below(n)] = NAN;
        if (!isnan(k->logsumexp(x, n))) {
            fail("n %ld: NaN gives %g", (long)n, (double)k->logsumexp(x, n));
        }
        for (int64_t i = 0; i < n; i++) {
            x[i] = -INFINITY;
        }
        if (k->logsumexp(x, n) != -INFINITY) {
            fail("n %ld: -Inf gives %g", (long)n, (double)k->logsumexp(x, n));
        }
    }
}

/* ---- sum and dot ---------------------------------------------------------------------------- */

/* y NULL: of x alone. */
static double total_of(const kern_table *k, const float *x, const float *y, int64_t n)
{
    return y ? k->dot(x, y, n) : k->sum(x, n);
}

static bool expect_total(const kern_table *k, const float *x, const float *y, int64_t n)
{
    double want = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        double term = (double)x[i] * (y ? (double)y[i] : 1);
        want += term;
        size += fabs(term);
    }
    /* Of a block: KERN_SUM_BLOCK / 8 additions, and a few more. */
    double bound = EPS * (KERN_SUM_BLOCK / 8 + 8) * size;
    double got = total_of(k, x, y, n);
    if (!(fabs(got - want) <= bound)) {
        fail("n %ld: %.17g, not %.17g", (long)n, got, want);
        return false;
    }
    return true;
}

static void check_totals(const kern_table *k, bool products)
{
    for (size_t n_at = 0; n_at < sizeof(row_lengths) / sizeof(row_lengths[0]); n_at++) {
        int64_t n = row_lengths[n_at];
        float *x = filled(0, n, 1), *y = products ? filled(1, n, 1) : NULL;
        if (!expect_total(k, x, y, n)) {
            return;
        }
        x[any_below(n)] = NAN;
        if (!isnan(total_of(k, x, y, n))) {
            fail("n %ld: a NaN was lost", (long)n);
            return;
        }
    }
    /* Blocks are added up in F64: in F32 most of these ones would be lost. */
    int64_t n = 100 * KERN_SUM_BLOCK;
    float *x = memory(0, (size_t)n * sizeof(float)), *y = NULL;
    for (int64_t i = 0; i < n; i++) {
        x[i] = i < KERN_SUM_BLOCK ? 65536 : (float)(i % 2);
    }
    if (products) {
        y = memory(1, (size_t)n * sizeof(float));
        for (int64_t i = 0; i < n; i++) {
            y[i] = i < KERN_SUM_BLOCK ? 65536 : 1;
        }
    }
    double want = KERN_SUM_BLOCK * 65536.0 * (products ? 65536.0 : 1) + 99.0 * KERN_SUM_BLOCK / 2;
    if (total_of(k, x, y, n) != want) {
        fail("%.17g, not %.17g", total_of(k, x, y, n), want);
    }
    if (total_of(k, x, y, 0) != 0) {
        fail("of nothing it is %g", total_of(k, x, y, 0));
    }
}

void check_sum(const kern_table *k)
{
    check_totals(k, false);
}

void check_dot(const kern_table *k)
{
    check_totals(k, true);
}

/* ---- adamw ---------------------------------------------------------------------------------- */

typedef struct adam_state {
    double w, m, v;
} adam_state;

/* The formula, of one number. */
static adam_state adam_step(adam_state a, double g, const kern_adamw *p)
{
    g *= (double)p->grad_scale;
    a.m = (double)p->beta1 * a.m + (double)p->rest1 * g;
    a.v = (double)p->beta2 * a.v + (double)p->rest2 * g * g;
    double size = sqrt(a.v / (double)p->correct2) + (double)p->eps;
    a.w -= (double)p->lr * (a.m / (double)p->correct1 / size + (double)p->decay * a.w);
    return a;
}

static bool expect_adamw(const kern_table *k, const adam_state *before, float g,
                         const kern_adamw *p, const float got[3])
{
    adam_state want = adam_step(*before, (double)g, p);
    double scaled = (double)g * (double)p->grad_scale;
    double m_bound = 6 * EPS * (fabs(before->m) + (double)p->rest1 * fabs(scaled));
    m_bound += (double)FLT_MIN;
    double v_bound = 6 * EPS * (fabs(before->v) + (double)p->rest2 * scaled * scaled);
    v_bound += (double)FLT_MIN;
    double size = sqrt(want.v / (double)p->correct2) + (double)p->eps;
    double change = (double)p->lr / (double)p->correct1 / size;
    change *= m_bound + 8 * EPS * fabs(want.m);
    double w_bound = 2 * EPS * fabs(before->w) + change;
    if (fabs((double)got[0] - want.w) > w_bound || fabs((double)got[1] - want.m) > m_bound ||
        fabs((double)got[2] - want.v) > v_bound) {
        fail("w %.9g m %.9g v %.9g g %.9g become %.9g %.9g %.9g, not %.9g %.9g %.9g", before->w,
             before->m, before->v, (double)g, (double)got[0], (double)got[1], (double)got[2],
             want.w, want.m, want.v);
        return false;
    }
    float w = (float)before->w, m = (float)before->m, v = (float)before->v;
    k->adamw(&w, &m, &v, &g, 1, p);
    if (!same_bits(w, got[0]) || !same_bits(m, got[1]) || !same_bits(v, got[2])) {
        fail("w %.9g: the result depends on its place", before->w);
        return false;
    }
    return true;
}

static void check_adamw_row(const kern_table *k, int64_t n, const kern_adamw *p, float scale)
{
    float *w = filled(0, n, 0.02f), *m = filled(1, n, scale * 0.1f), *v = filled(2, n, scale);
    float *g = filled(3, n, scale);
    adam_state before[LONGEST];
    for (int64_t i = 0; i < n; i++) {
        v[i] *= i % 3 ? v[i] : 0; /* as in the first step */
        before[i] = (adam_state){(double)w[i], (double)m[i], (double)v[i]};
    }
    k->adamw(w, m, v, g, n, p);
    for (int64_t i = 0; i < n; i++) {
        const float got[3] = {w[i], m[i], v[i]};
        if (!expect_adamw(k, &before[i], g[i], p, got)) {
            return;
        }
    }
    check_before(0, w);
    check_before(1, m);
    check_before(2, v);
    int64_t bad = any_below(n);
    g[bad] = NAN;
    k->adamw(w, m, v, g, n, p);
    for (int64_t i = 0; i < n; i++) {
        if (isnan(w[i]) != (i == bad) || isnan(m[i]) != (i == bad) || isnan(v[i]) != (i == bad)) {
            fail("n %ld: a NaN at %ld shows at %ld", (long)n, (long)bad, (long)i);
            return;
        }
    }
}

void check_adamw(const kern_table *k)
{
    kern_adamw p = {.lr = 3e-4f, .beta1 = 0.9f, .rest1 = 0.1f, .eps = 1e-8f, .decay = 0.1f};
    for (int n_at = 0; n_at < N_LENGTHS; n_at++) {
        float step = 1 + (float)(n_at * n_at) * 10;
        p.grad_scale = n_at % 2 ? 1 : 0.37f;
        p.decay = n_at % 3 ? 0.1f : 0;
        double beta2 = n_at % 4 ? 0.95 : 0.999999999; /* in F32 this is 1 */
        p.beta2 = (float)beta2;
        p.rest2 = (float)(1 - beta2);
        p.correct1 = 1 - powf(p.beta1, step);
        p.correct2 = (float)(1 - pow(beta2, (double)step));
        const float scales[] = {1, 1e-4f, 1e-12f};
        for (int s = 0; s < 3; s++) {
            check_adamw_row(k, lengths[n_at], &p, scales[s]);
        }
    }
    /* Without gradients the moments reach 0, and the weights fade by the decay alone. */
    p.correct1 = p.correct2 = p.grad_scale = 1;
    p.beta2 = 0.95f;
    p.rest2 = 0.05f;
    p.decay = 0.1f;
    float w[9], m[9], v[9], g[9] = {0}, weight = 1;
    for (int i = 0; i < 9; i++) {
        w[i] = 1;
        m[i] = i % 2 ? 2e-38f : -2e-38f;
        v[i] = 1.3e-38f;
    }
    for (int step = 0; step < 20; step++) {
        k->adamw(w, m, v, g, 9, &p);
        weight -= p.lr * p.decay * weight;
    }
    for (int i = 0; i < 9; i++) {
        if (m[i] != 0 || v[i] != 0 || fabsf(w[i] - weight) > 1e-5f) {
            fail("moments fade to %g and %g, the weight to %.9g, not %.9g", (double)m[i],
                 (double)v[i], (double)w[i], (double)weight);
            return;
        }
    }
}
