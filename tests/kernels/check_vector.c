/* The slots that work on vectors, against double precision. */
#include <stdio.h>

#include "harness.h"

static const int64_t lengths[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 100, 256, 1023};
enum { N_LENGTHS = sizeof(lengths) / sizeof(lengths[0]) };

static bool near(double got, double want, double bound)
{
    return fabs(got - want) <= bound;
}

/* ---- quantize_q8 ---------------------------------------------------------------------------- */

static void expect_q8(const float *x, const kern_q8 *q, int64_t b)
{
    float max = 0;
    int32_t sum[2] = {0, 0};
    for (int i = 0; i < 32; i++) {
        max = fmaxf(max, fabsf(x[i]));
        sum[i / 16] += q->q[i];
    }
    if (!same_bits(q->d, max / 127) || !same_bits(q->s, q->d * (float)(sum[0] + sum[1])) ||
        q->sum[0] != sum[0] || q->sum[1] != sum[1]) {
        fail("block %ld: d %.9g s %.9g sums %d %d", (long)b, (double)q->d, (double)q->s, q->sum[0],
             q->sum[1]);
        return;
    }
    float inverse = 127 / max;
    for (int i = 0; i < 32 && max > 0; i++) {
        if ((float)q->q[i] != rintf(x[i] * inverse)) {
            fail("block %ld: %.9g of %.9g became %d", (long)b, (double)x[i], (double)max, q->q[i]);
            return;
        }
    }
}

static void check_quantize_q8(const kern_table *k)
{
    for (int64_t blocks = 1; blocks <= 9; blocks++) {
        float *x = memory(0, (size_t)blocks * 32 * sizeof(float));
        kern_q8 *q = memory(1, (size_t)blocks * sizeof(kern_q8));
        for (int64_t b = 0; b < blocks; b++) {
            const float scales[] = {1, 1e-3f, 1e6f, 3e37f, 0, 1e-30f};
            fill_normal(x + b * 32, 32, scales[any_below(6)]);
        }
        k->quantize_q8(x, q, blocks * 32);
        for (int64_t b = 0; b < blocks; b++) {
            expect_q8(x + b * 32, &q[b], b);
        }
        check_before(1, q);
    }
    float *x = memory(0, 3 * 32 * sizeof(float));
    kern_q8 *q = memory(1, 3 * sizeof(kern_q8));
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (int n = 0; n < 4 * 32; n++) {
        for (int i = 0; i < 96; i++) {
            x[i] = (float)(i % 32) - 15.5f; /* halves: ties to even */
        }
        x[31] = -127;
        x[95] = 127;
        x[32 + n / 4] = bad[n % 4];
        k->quantize_q8(x, q, 96);
        expect_q8(x, &q[0], 0);
        expect_q8(x + 64, &q[2], 2);
        if (!isnan(q[1].d) || !isnan(q[1].s)) {
            fail("%g gives the scale %g", (double)bad[n % 4], (double)q[1].d);
            return;
        }
    }
    /* No inverse in F32: as good as zero. */
    for (int i = 0; i < 32; i++) {
        x[i] = (float)(i - 16) * 1e-45f;
    }
    k->quantize_q8(x, q, 32);
    if (q[0].d != 0 || q[0].s != 0 || q[0].q[0] != 0 || q[0].q[31] != 0) {
        fail("subnormal numbers give the scale %g", (double)q[0].d);
    }
}

/* ---- rmsnorm -------------------------------------------------------------------------------- */

static void check_rmsnorm(const kern_table *k)
{
    for (int n_at = 0; n_at < N_LENGTHS; n_at++) {
        int64_t n = lengths[n_at];
        float *x = memory(0, (size_t)n * sizeof(float));
        float *w = memory(1, (size_t)n * sizeof(float));
        float *out = output(2, (size_t)n);
        float eps = n_at % 2 ? 1e-6f : 1e-5f;
        fill_normal(x, n, n_at % 3 == 0 ? 1e25f : n_at % 3 == 1 ? 1 : 1e-4f);
        fill_normal(w, n, 1);
        k->rmsnorm(x, w, out, n, eps);
        double sum = 0;
        for (int64_t i = 0; i < n; i++) {
            sum += (double)x[i] * (double)x[i];
        }
        double scale = 1 / sqrt(sum / (double)n + (double)eps);
        for (int64_t i = 0; i < n; i++) {
            double want = (double)x[i] * scale * (double)w[i];
            if (!near((double)out[i], want, 4 * EPS * fabs(want) + 1e-44)) {
                fail("n %ld: out[%ld] is %.9g, not %.9g", (long)n, (long)i, (double)out[i], want);
                return;
            }
        }
        check_before(2, out);
        float last = out[n - 1];
        k->rmsnorm(x, w, x, n, eps); /* in place */
        if (!same_bits(x[n - 1], last)) {
            fail("n %ld: in place differs", (long)n);
        }
        fill_normal(x, n, 1);
        x[any_below(n)] = NAN;
        k->rmsnorm(x, w, out, n, eps);
        for (int64_t i = 0; i < n; i++) {
            if (!isnan(out[i])) {
                fail("n %ld: a NaN was lost", (long)n);
                return;
            }
        }
    }
}

/* ---- rope ----------------------------------------------------------------------------------- */

static void check_rope(const kern_table *k)
{
    for (int64_t half = 1; half <= 70; half++) {
        size_t bytes = (size_t)half * sizeof(float);
        float *x = memory(0, 2 * bytes);
        float *cosine = memory(1, bytes);
        float *sine = memory(2, bytes);
        float *before = memory(3, 2 * bytes);
        fill_normal(x, 2 * half, 3);
        for (int64_t i = 0; i < half; i++) {
            double angle = any_unit() * 100;
            cosine[i] = (float)cos(angle);
            sine[i] = (float)sin(angle);
        }
        memcpy(before, x, 2 * bytes);
        k->rope(x, cosine, sine, 2 * half);
        for (int64_t i = 0; i < half; i++) {
            double a = (double)before[i], b = (double)before[i + half];
            double c = (double)cosine[i], s = (double)sine[i];
            double bound = 3 * EPS * (fabs(a) + fabs(b));
            float pair[2] = {before[i], before[i + half]};
            k->rope(pair, &cosine[i], &sine[i], 2);
            if (!near((double)x[i], a * c - b * s, bound) ||
                !near((double)x[i + half], b * c + a * s, bound) || !same_bits(pair[0], x[i]) ||
                !same_bits(pair[1], x[i + half])) {
                fail("half %ld: pair %ld is %.9g %.9g", (long)half, (long)i, (double)x[i],
                     (double)x[i + half]);
                return;
            }
        }
        check_before(0, x);
    }
}

/* ---- softmax -------------------------------------------------------------------------------- */

static void expect_softmax(const kern_table *k, float *x, int64_t n)
{
    double want[1024], sum = 0, max = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        max = fmax(max, (double)x[i]);
    }
    for (int64_t i = 0; i < n; i++) {
        want[i] = exp((double)x[i] - max);
        sum += want[i];
    }
    float before[1024];
    memcpy(before, x, (size_t)n * sizeof(float));
    k->softmax(x, n);
    for (int64_t i = 0; i < n; i++) {
        double p = want[i] / sum;
        double distance = isinf(before[i]) ? 0 : fabs((double)before[i] - max);
        double bound = (8 + (double)n / 8 + distance) * 2 * EPS * p + 1e-44;
        if (!near((double)x[i], p, bound)) {
            fail("n %ld: %.9g of %.9g gives %.9g, not %.9g", (long)n, (double)before[i], max,
                 (double)x[i], p);
            return;
        }
    }
}

static void check_softmax(const kern_table *k)
{
    for (int n_at = 0; n_at < N_LENGTHS; n_at++) {
        int64_t n = lengths[n_at];
        float *x = memory(0, (size_t)n * sizeof(float));
        const float scales[] = {0, 1, 30, 1e4f, 1e30f};
        for (int s = 0; s < 5; s++) {
            fill_normal(x, n, scales[s]);
            expect_softmax(k, x, n);
        }
        for (int64_t i = 0; i < n; i++) {
            x[i] = any_below(2) ? -INFINITY : any_normal();
        }
        x[any_below(n)] = 0.5f;
        expect_softmax(k, x, n);
        check_before(0, x);
        fill_normal(x, n, 1);
        x[any_below(n)] = NAN;
        k->softmax(x, n);
        for (int64_t i = 0; i < n; i++) {
            if (!isnan(x[i])) {
                fail("n %ld: a NaN was lost", (long)n);
                return;
            }
        }
    }
}

/* ---- swiglu --------------------------------------------------------------------------------- */

static void expect_swiglu(const kern_table *k, float gate, float up, float got)
{
    double z = (double)gate;
    double want = z / (1 + exp(-z)) * (double)up;
    if (isfinite(gate) && isfinite(up)) {
        /* exp(-z) overflows where silu(z) is still about 89 / 2^128. */
        double bound = (8 + fabs(z) / 8) * EPS * fabs(want) + 4e-37 * fabs((double)up) + 1e-44;
        if (!near((double)got, want, bound)) {
            fail("silu(%.9g) * %.9g gives %.9g, not %.9g", z, (double)up, (double)got, want);
        }
    } else if (isfinite(got)) {
        fail("silu(%g) * %g gives %g", z, (double)up, (double)got);
    }
    float g = gate;
    k->swiglu(&g, &up, 1);
    if (!same_bits(g, got) && !(isnan(g) && isnan(got))) {
        fail("silu(%.9g) depends on its place", z);
    }
}

static void check_swiglu(const kern_table *k)
{
    for (int n_at = 0; n_at < N_LENGTHS; n_at++) {
        int64_t n = lengths[n_at];
        float *gate = memory(0, (size_t)n * sizeof(float));
        float *up = memory(1, (size_t)n * sizeof(float));
        float before[1024];
        const float scales[] = {1, 20, 200, 1e-20f};
        for (int s = 0; s < 4; s++) {
            fill_normal(gate, n, scales[s]);
            fill_normal(up, n, 2);
            if (s == 0) {
                gate[any_below(n)] = NAN;
                up[any_below(n)] = NAN;
            }
            memcpy(before, gate, (size_t)n * sizeof(float));
            k->swiglu(gate, up, n);
            for (int64_t i = 0; i < n; i++) {
                expect_swiglu(k, before[i], up[i], gate[i]);
            }
            check_before(0, gate);
        }
    }
    /* exp at every power it can reach: one number and both its sides. */
    for (int z = -110; z <= 110; z++) {
        float gate[3] = {nextafterf((float)z, -200), (float)z, nextafterf((float)z, 200)};
        float got[3] = {gate[0], gate[1], gate[2]};
        float up[3] = {1, 1, 1};
        k->swiglu(got, up, 3);
        for (int i = 0; i < 3; i++) {
            expect_swiglu(k, gate[i], 1, got[i]);
        }
    }
}

/* ---- axpy ----------------------------------------------------------------------------------- */

static void check_axpy(const kern_table *k)
{
    for (int n_at = 0; n_at < N_LENGTHS; n_at++) {
        int64_t n = lengths[n_at];
        float *x = memory(0, (size_t)n * sizeof(float));
        float *out = output(1, (size_t)n);
        float before[1024];
        float a = any_normal();
        fill_normal(x, n, 1);
        fill_normal(out, n, 1);
        x[any_below(n)] = NAN;
        memcpy(before, out, (size_t)n * sizeof(float));
        k->axpy(a, x, out, n);
        for (int64_t i = 0; i < n; i++) {
            double want = (double)before[i] + (double)a * (double)x[i];
            double bound = 2 * EPS * (fabs((double)before[i]) + fabs((double)a * (double)x[i]));
            k->axpy(a, &x[i], &before[i], 1);
            bool same = same_bits(before[i], out[i]);
            if (isnan(x[i]) ? !isnan(out[i]) : !near((double)out[i], want, bound) || !same) {
                fail("n %ld: out[%ld] is %.9g, not %.9g", (long)n, (long)i, (double)out[i], want);
                return;
            }
        }
        check_before(1, out);
    }
}

/* ---- F16 ------------------------------------------------------------------------------------ */

static void check_f32_to_f16(const kern_table *k)
{
    for (int n = 0; n < 2000; n++) {
        int64_t length = lengths[n % (N_LENGTHS - 2)];
        float *x = memory(0, (size_t)length * sizeof(float));
        uint16_t *h = memory(1, (size_t)length * sizeof(*h));
        for (int64_t i = 0; i < length; i++) {
            uint32_t bits = (uint32_t)any_bits();
            if (n % 2) { /* near what F16 holds, and often exactly between two of them */
                bits = (bits & 0x8fffffffu) | 0x30000000u;
                bits = n % 4 == 1 ? (bits & ~0x1fffu) | 0x1000u : bits;
            }
            memcpy(&x[i], &bits, sizeof(bits));
        }
        k->f32_to_f16(x, h, length);
        for (int64_t i = 0; i < length; i++) {
            uint16_t want = tensor_f32_to_f16(x[i]);
            if (isnan(x[i]) ? (h[i] & 0x7fff) <= 0x7c00 : h[i] != want) {
                fail("%a gives %04x, not %04x", (double)x[i], h[i], want);
                return;
            }
        }
        check_before(1, (const char *)h - length * 2 % 4);
    }
}

#define CHECK(slot)                                                                                \
    {                                                                                              \
#slot, offsetof(kern_table, slot), check_##slot                                            \
    }

const vector_check vector_checks[] = {
    CHECK(quantize_q8), CHECK(rmsnorm),     CHECK(rope),         CHECK(softmax),
    CHECK(swiglu),      CHECK(axpy),        CHECK(f32_to_f16),   CHECK(attend_f32),
    CHECK(attend_f16),  CHECK(attend_q8_0), CHECK(rmsnorm_back), CHECK(swiglu_back),
    CHECK(exp_scaled),  CHECK(max),         CHECK(logsumexp),    CHECK(sum),
    CHECK(dot),         CHECK(adamw),
};
const size_t n_vector_checks = sizeof(vector_checks) / sizeof(vector_checks[0]);
