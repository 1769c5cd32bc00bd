/* The attention slots, against double precision and against themselves: a query's bits depend
 * neither on the queries beside it nor on what a tile holds past the keys it sees. */
#include <stdio.h>

#include "harness.h"

enum { MAX_DIM = 256, MAX_KEYS = 200, MAX_QUERIES = 70 };

/* Queries over some tiles. Token i sees the first `first + i` keys. */
typedef struct problem {
    const kern_table *kern;
    kern_attend_fn fn;
    tensor_type type;
    int64_t dim, group, tokens, first;
    float *q; /* [tokens * group, dim] */
    float *k; /* [keys, dim], as the cache gives them back */
    float *v;
} problem;

typedef struct result {
    float max[MAX_QUERIES], sum[MAX_QUERIES];
    float acc[MAX_QUERIES * MAX_DIM]; /* [n, dim] */
} result;

static float queries[MAX_QUERIES * MAX_DIM], keys[MAX_KEYS * MAX_DIM], values[MAX_KEYS * MAX_DIM];

static int64_t n_keys(const problem *p)
{
    return p->first + p->tokens - 1;
}

static void round_row(tensor_type type, float *x, int64_t n)
{
    char row[MAX_DIM * sizeof(float)];
    tensor_traits_of(type)->encode(x, row, n);
    tensor_traits_of(type)->decode(row, x, n);
}

static problem make(const kern_table *kern, tensor_type type, int64_t dim, int64_t group,
                    int64_t tokens, int64_t first, float scale)
{
    problem p = {kern,  kern_attend_of(kern, type), type, dim, group, tokens, first, queries, keys,
                 values};
    fill_normal(p.q, tokens * group * dim, scale);
    fill_normal(p.k, n_keys(&p) * dim, 1);
    fill_normal(p.v, n_keys(&p) * dim, 1);
    for (int64_t i = 0; i < n_keys(&p); i++) {
        round_row(type, p.k + i * dim, dim);
        round_row(type, p.v + i * dim, dim);
    }
    return p;
}

/* Queries j .. j + n - 1, of whole tokens if there are more than one. */
static void run(const problem *p, int64_t j, int64_t n, result *out)
{
    int64_t stride = kern_attend_stride(p->dim);
    size_t rows = (size_t)(n * stride), tile_bytes = KERN_TILE * tensor_row_bytes(p->type, p->dim);
    float *q = output(0, rows);
    kern_attend a = {.dim = p->dim,
                     .stride = stride,
                     .n_q = n,
                     .group = n > 1 ? p->group : 1,
                     .q = q,
                     .max = output(1, (size_t)n),
                     .sum = output(2, (size_t)n),
                     .acc = output(3, rows),
                     .scratch = output(4, (size_t)kern_attend_scratch(p->dim, n))};
    for (int64_t r = 0; r < n; r++) {
        memcpy(q + r * stride, p->q + (j + r) * p->dim, (size_t)p->dim * sizeof(float));
        a.max[r] = -INFINITY;
        a.sum[r] = 0;
    }
    memset(a.acc, 0, rows * sizeof(float));
    for (int64_t start = 0; start < n_keys(p); start += KERN_TILE) {
        float *k = output(5, tile_bytes / sizeof(float)),
              *v = output(6, tile_bytes / sizeof(float));
        for (int64_t i = 0; i < KERN_TILE && start + i < n_keys(p); i++) {
            kern_tile_put_key(p->kern, p->type, p->k + (start + i) * p->dim, p->dim, i, k);
            kern_tile_put_value(p->kern, p->type, p->v + (start + i) * p->dim, p->dim, i, v);
        }
        check_before(5, k);
        check_before(6, v);
        p->fn(&a, k, v, any_below(2) ? k : NULL, p->first + j / p->group - start);
    }
    check_before(1, a.max);
    check_before(2, a.sum);
    check_before(3, a.acc);
    check_before(4, a.scratch);
    for (int64_t r = 0; r < n; r++) {
        out->max[r] = a.max[r];
        out->sum[r] = a.sum[r];
        memcpy(out->acc + r * p->dim, a.acc + r * stride, (size_t)p->dim * sizeof(float));
    }
}

static void describe(const problem *p, int64_t j, const char *what)
{
    fail("dim %ld, %ld tokens of %ld queries from %ld keys on, query %ld: %s", (long)p->dim,
         (long)p->tokens, (long)p->group, (long)p->first, (long)j, what);
}

/* Query j against double precision. */
static void expect(const problem *p, int64_t j, const result *r)
{
    static double weight[MAX_KEYS];
    int64_t n = p->first + j / p->group;
    const float *q = p->q + j * p->dim;
    double max = -INFINITY, sum = 0, error = 0, reach = 0;
    for (int64_t i = 0; i < n; i++) {
        double magnitude = 0;
        weight[i] = 0;
        for (int64_t d = 0; d < p->dim; d++) {
            double product = (double)q[d] * (double)p->k[i * p->dim + d];
            weight[i] += product;
            magnitude += fabs(product);
        }
        max = fmax(max, weight[i]);
        error = fmax(error, isfinite(magnitude) ? ((double)p->dim + 8) * EPS * magnitude : 0);
    }
    for (int64_t i = 0; i < n; i++) {
        reach = fmax(reach, isfinite(weight[i]) ? fmin(max - weight[i], 90) : 0);
        weight[i] = exp(weight[i] - max);
        sum += weight[i];
    }
    double relative = 2 * error + 2 * EPS * (reach + (double)n + 16);
    for (int64_t d = 0; d < p->dim; d++) {
        double want = 0, magnitude = 0;
        for (int64_t i = 0; i < n; i++) {
            want += weight[i] / sum * (double)p->v[i * p->dim + d];
            magnitude += weight[i] / sum * fabs((double)p->v[i * p->dim + d]);
        }
        double got = (double)r->acc[j * p->dim + d] / (double)r->sum[j];
        if (!(fabs(got - want) <= relative * magnitude + 1e-37)) {
            char what[96];
            snprintf(what, sizeof(what), "out[%ld] is %.9g, not %.9g", (long)d, got, want);
            describe(p, j, what);
            return;
        }
    }
}

/* Every query again: alone, and with its token's others. */
static void expect_same(const problem *p, const result *all)
{
    static result some;
    for (int64_t j = 0; j < p->tokens * p->group; j++) {
        int64_t n = j % p->group == 0 && any_below(2) ? p->group : 1;
        run(p, j, n, &some);
        if (memcmp(some.acc, all->acc + j * p->dim, (size_t)(n * p->dim) * sizeof(float)) != 0 ||
            memcmp(some.sum, all->sum + j, (size_t)n * sizeof(float)) != 0 ||
            memcmp(some.max, all->max + j, (size_t)n * sizeof(float)) != 0) {
            describe(p, j, "its bits depend on the queries beside it");
            return;
        }
    }
}

/* The last token's own key and value are no finite numbers: no other token may notice. */
static void check_unseen(const kern_table *kern, tensor_type type, int64_t dim, int64_t group)
{
    static result clean, dirty;
    const float bad[] = {NAN, INFINITY};
    for (int n = 0; n < 2; n++) {
        problem p = make(kern, type, dim, group, 7, 60, 1);
        float *k = p.k + (n_keys(&p) - 1) * dim, *v = p.v + (n_keys(&p) - 1) * dim;
        int64_t rest = (p.tokens - 1) * group;
        run(&p, 0, p.tokens * group, &clean);
        k[any_below(dim)] = n ? 1 : NAN;
        v[dim - 1] = bad[n];
        run(&p, 0, p.tokens * group, &dirty);
        if (memcmp(clean.acc, dirty.acc, (size_t)(rest * dim) * sizeof(float)) != 0 ||
            memcmp(clean.sum, dirty.sum, (size_t)rest * sizeof(float)) != 0) {
            describe(&p, 0, "an unseen key or value reached it");
        }
        if (isfinite(dirty.acc[(rest + 1) * dim - 1] / dirty.sum[rest])) {
            describe(&p, rest, "a NaN or Inf was lost");
        }
    }
}

/* A first tile whose scores are all -Inf counts for nothing. */
static void check_infinite_scores(const kern_table *kern, tensor_type type, int64_t dim)
{
    static result r;
    problem p = make(kern, type, dim, 1, 1, 70, 1);
    if (type == TENSOR_Q8_0) {
        return; /* has no infinities */
    }
    for (int64_t d = 0; d < dim; d++) {
        p.q[d] = 1;
    }
    for (int64_t i = 0; i < KERN_TILE; i++) {
        p.k[i * dim + any_below(dim)] = -INFINITY;
    }
    run(&p, 0, 1, &r);
    expect(&p, 0, &r);
}

static void check_type(const kern_table *kern, tensor_type type)
{
    static const int64_t dims[] = {2, 4, 6, 20, 64, 72, 80, 96, 128, 130, 256};
    static const int64_t keys_seen[] = {1, 2, 7, 8, 9, 33, 63, 64, 65, 100, 128, 129};
    static const int64_t groups[] = {1, 2, 3, 4, 5, 8};
    static const int64_t tokens[] = {1, 1, 2, 3, 8, 35};
    static result r;
    for (size_t d = 0; d < sizeof(dims) / sizeof(dims[0]); d++) {
        int64_t dim = dims[d];
        if (dim % tensor_traits_of(type)->block != 0) {
            continue;
        }
        for (int n = 0; n < 20; n++) {
            int64_t group = groups[any_below(6)], count = tokens[any_below(6)];
            count = count * group > MAX_QUERIES ? MAX_QUERIES / group : count;
            float scale = n % 5 == 0 ? 5 : 1 / sqrtf((float)dim);
            problem p = make(kern, type, dim, group, count, keys_seen[any_below(12)], scale);
            run(&p, 0, group * count, &r);
            for (int64_t j = 0; j < group * count; j += 1 + any_below(3)) {
                expect(&p, j, &r);
            }
            if (n % 4 == 0) {
                expect_same(&p, &r);
            }
        }
        check_unseen(kern, type, dim, groups[d % 6]);
        check_infinite_scores(kern, type, dim);
    }
}

void check_attend_f32(const kern_table *k)
{
    check_type(k, TENSOR_F32);
}

void check_attend_f16(const kern_table *k)
{
    check_type(k, TENSOR_F16);
}

void check_attend_q8_0(const kern_table *k)
{
    check_type(k, TENSOR_Q8_0);
}
