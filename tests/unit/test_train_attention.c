/* The attention half of a layer against a plain one in double precision: the same output, and
 * gradients as central differences of it give. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/random.h"
#include "marco/train.h"
#include "model/rope.h"
#include "train/attention.h"

enum { MAX_EXAMPLES = 8, MAX_PARAMS = 7, MAX_THREADS = 4, ALL = 1 << 30 };

typedef struct shape {
    const char *name;
    int32_t embd, heads, kv_heads, dim;
    bool qk_norm;
    tensor_type type;
    int64_t n_seqs, seq_len;
    int64_t begins[MAX_EXAMPLES]; /* of examples, in all sequences but the last, which has one; the
                                     first at 0, ended by 0 */
    int samples;                  /* central differences of each tensor */
} shape;

static const shape shapes[] = {
    {"a head for each", 6, 2, 2, 6, true, TENSOR_F32, 2, 37, {0, 5, 6, 20}, 60},
    {"without qk norm", 6, 2, 2, 6, false, TENSOR_F32, 2, 37, {0, 11}, 60},
    {"two share", 10, 4, 2, 4, true, TENSOR_F32, 2, 67, {0, 30, 64}, 60},
    {"all share", 8, 4, 1, 8, false, TENSOR_F32, 1, 65, {0}, 60},
    {"all share, qk norm", 8, 4, 1, 4, true, TENSOR_F32, 2, 128, {0, 63, 127}, 30},
    {"several tiles of keys", 4, 2, 1, 4, true, TENSOR_F32, 2, 579, {0, 100, 280, 513}, 12},
    {"bf16", 10, 4, 2, 4, true, TENSOR_BF16, 2, 67, {0, 30, 64}, 60},
};

/* ---- what an operation is given ------------------------------------------------------------ */

typedef struct fixture {
    const shape *shape;
    train_params params;
    train_param items[MAX_PARAMS];
    train_context ctx;
    train_blas *blas;
    train_tokens tokens;
    int32_t *starts;
    void *activations;
    train_attention_saved saved;
    train_attention_work *work;
    float *cos, *sin, *x, *out, *d;
} fixture;

static void *need(size_t count, size_t size)
{
    void *memory = base_alloc_aligned(count * size);
    assert_non_null(memory);
    memset(memory, 0, count * size);
    return memory;
}

static float normal(uint64_t stream, int64_t i)
{
    double sum = -6;
    for (uint64_t k = 0; k < 12; k++)
        sum += base_random_unit(7, stream, (uint64_t)i * 12 + k);
    return (float)sum;
}

static void fill(float *x, int64_t n, uint64_t stream, float mean, float deviation)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = mean + deviation * normal(stream, i);
}

static float value(const fixture *f, const train_param *param, int64_t i)
{
    const void *values = f->params.sections[TRAIN_SHARED].value;
    i += param->offset;
    return f->params.type == TENSOR_BF16 ? tensor_bf16_to_f32(((const uint16_t *)values)[i])
                                         : ((const float *)values)[i];
}

static void make_params(fixture *f)
{
    const shape *s = f->shape;
    model_config *config = &f->params.config;
    model_config_init(config);
    config->n_layers = 1;
    config->n_embd = s->embd;
    config->n_heads = s->heads;
    config->n_kv_heads = s->kv_heads;
    config->head_dim = s->dim;
    config->qk_norm = s->qk_norm;
    config->rms_eps = 1e-5;
    config->rope.theta = 100;
    const model_tensor tensors[MAX_PARAMS] = {
        {.role = MODEL_ATTN_NORM, .rows = 1, .cols = s->embd},
        {.role = MODEL_ATTN_Q, .rows = s->heads * s->dim, .cols = s->embd},
        {.role = MODEL_ATTN_K, .rows = s->kv_heads * s->dim, .cols = s->embd},
        {.role = MODEL_ATTN_V, .rows = s->kv_heads * s->dim, .cols = s->embd},
        {.role = MODEL_ATTN_OUT, .rows = s->embd, .cols = s->heads * s->dim},
        {.role = MODEL_ATTN_Q_NORM, .rows = 1, .cols = s->dim},
        {.role = MODEL_ATTN_K_NORM, .rows = 1, .cols = s->dim},
    };
    f->params.type = s->type;
    f->params.items = f->items;
    f->params.n = s->qk_norm ? MAX_PARAMS : MAX_PARAMS - 2;
    train_values *values = &f->params.sections[TRAIN_SHARED];
    for (size_t i = 0; i < f->params.n; i++) {
        f->items[i] = (train_param){.tensor = tensors[i], .mats = 1, .offset = values->size};
        f->items[i].tensor.mats = 1;
        values->size += (train_param_size(&f->items[i]) + 15) / 16 * 16;
    }
    values->trained = values->graded = values->size;
    values->grad = need((size_t)values->size, sizeof(float));
    float *floats = values->value = need((size_t)values->size, sizeof(float));
    for (size_t i = 0; i < f->params.n; i++) {
        bool norm = f->items[i].tensor.rows == 1;
        fill(floats + f->items[i].offset, train_param_size(&f->items[i]), i + 1, norm ? 1 : 0,
             norm ? 0.2F : 1.5F / sqrtf((float)f->items[i].tensor.cols));
    }
    for (int64_t i = 0; s->type == TENSOR_BF16 && i < values->size; i++)
        ((uint16_t *)values->value)[i] = tensor_f32_to_bf16(floats[i]);
}

static void make_tokens(fixture *f)
{
    const shape *s = f->shape;
    int64_t n = s->n_seqs * s->seq_len;
    f->starts = need((size_t)n, sizeof *f->starts);
    for (int64_t t = 0; t < n - s->seq_len; t++) {
        for (int e = 0; e < MAX_EXAMPLES && (e == 0 || s->begins[e]); e++)
            if (t % s->seq_len >= s->begins[e])
                f->starts[t] = (int32_t)s->begins[e];
    }
    f->tokens = (train_tokens){s->n_seqs, s->seq_len, n, NULL, NULL, f->starts, NULL};
}

static void make_context(fixture *f, int threads)
{
    const shape *s = f->shape;
    train_context *ctx = &f->ctx;
    int64_t half = s->dim / 2;
    float frequencies[64], magnitude;
    f->cos = need((size_t)(s->seq_len * half), sizeof(float));
    f->sin = need((size_t)(s->seq_len * half), sizeof(float));
    model_rope_frequencies(&f->params.config, frequencies, &magnitude);
    for (int64_t t = 0; t < s->seq_len; t++)
        model_rope_angles(frequencies, half, 1.25F * magnitude, t, f->cos + t * half,
                          f->sin + t * half);
    ctx->params = &f->params;
    ctx->kern = kern_table_get(NULL);
    ctx->blas = f->blas;
    ctx->rope_cos = f->cos;
    ctx->rope_sin = f->sin;
    int64_t linear = train_linear_scratch(&f->params.config);
    int64_t attention = train_attention_scratch(&f->params.config);
    ctx->scratch = need((size_t)threads, sizeof *ctx->scratch);
    for (int i = 0; i < threads; i++)
        ctx->scratch[i] = need((size_t)(linear > attention ? linear : attention), sizeof(float));
    assert_int_equal(base_pool_create(threads, &ctx->pool, NULL), MARCO_OK);
}

static void open_fixture(fixture *f, const shape *s, int threads)
{
    *f = (fixture){.shape = s};
    assert_int_equal(train_blas_open(4, &f->blas, NULL), MARCO_OK);
    make_params(f);
    make_tokens(f);
    make_context(f, threads);
    train_arena arena = {0};
    for (int pass = 0; pass < 2; pass++) {
        train_attention_save(&f->params.config, f->tokens.n, &arena, &f->saved);
        f->work = train_attention_plan(&f->params.config, f->tokens.n, &arena);
        if (pass == 0) {
            assert_null(f->work);
            f->activations = need(arena.used, 1);
            memset(f->activations, 0xFF, arena.used); /* NaN: nothing is read before it is set */
            arena = (train_arena){.base = f->activations};
        }
    }
    int64_t n = f->tokens.n * s->embd;
    f->x = need((size_t)n, sizeof(float));
    f->out = need((size_t)n, sizeof(float));
    f->d = need((size_t)n, sizeof(float));
    fill(f->x, n, 100, 0, 1);
    fill(f->d, n, 101, 0, 1);
}

static void close_fixture(fixture *f)
{
    for (int i = 0; i < base_pool_threads(f->ctx.pool); i++)
        base_free(f->ctx.scratch[i]);
    base_pool_destroy(f->ctx.pool);
    base_free(f->ctx.scratch);
    void *all[] = {f->params.sections[TRAIN_SHARED].value,
                   f->params.sections[TRAIN_SHARED].grad,
                   f->starts,
                   f->activations,
                   f->cos,
                   f->sin,
                   f->x,
                   f->out,
                   f->d};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        base_free(all[i]);
    train_blas_close(f->blas);
}

static void run(fixture *f, bool back)
{
    train_attention(&f->ctx, 0, &f->tokens, f->x, &f->saved, f->work, f->out);
    if (back)
        train_attention_back(&f->ctx, 0, &f->tokens, f->x, &f->saved, f->work, f->d);
}

/* ---- the same in double precision ---------------------------------------------------------- */

typedef struct plain {
    const fixture *f;
    double *w[MAX_PARAMS], *x;
    double *n, *q, *k, *v, *o, *p, *out;
} plain;

static void open_plain(plain *p, const fixture *f)
{
    const shape *s = f->shape;
    size_t n = (size_t)f->tokens.n;
    *p = (plain){.f = f};
    for (size_t i = 0; i < f->params.n; i++) {
        int64_t size = train_param_size(&f->items[i]);
        p->w[i] = need((size_t)size, sizeof(double));
        for (int64_t k = 0; k < size; k++)
            p->w[i][k] = (double)value(f, &f->items[i], k);
    }
    p->x = need(n * (size_t)s->embd, sizeof(double));
    for (int64_t i = 0; i < f->tokens.n * s->embd; i++)
        p->x[i] = (double)f->x[i];
    p->n = need((size_t)s->embd, sizeof(double));
    p->q = need(n * (size_t)(s->heads * s->dim), sizeof(double));
    p->k = need(n * (size_t)(s->kv_heads * s->dim), sizeof(double));
    p->v = need(n * (size_t)(s->kv_heads * s->dim), sizeof(double));
    p->o = need((size_t)(s->heads * s->dim), sizeof(double));
    p->p = need((size_t)s->seq_len, sizeof(double));
    p->out = need(n * (size_t)s->embd, sizeof(double));
}

static void close_plain(plain *p)
{
    double *all[] = {p->x, p->n, p->q, p->k, p->v, p->o, p->p, p->out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        base_free(all[i]);
    for (size_t i = 0; i < MAX_PARAMS; i++)
        base_free(p->w[i]);
}

static void plain_norm(const double *x, const double *weight, int64_t n, double *out)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    double r = 1 / sqrt(sum / (double)n + 1e-5);
    for (int64_t i = 0; i < n; i++)
        out[i] = x[i] * r * weight[i];
}

static void plain_linear(const double *w, int64_t rows, int64_t cols, const double *x, double *y)
{
    for (int64_t r = 0; r < rows; r++) {
        y[r] = 0;
        for (int64_t c = 0; c < cols; c++)
            y[r] += w[r * cols + c] * x[c];
    }
}

/* Norm (weight NULL: none) and RoPE of the heads of one token. */
static void plain_turn(const plain *p, double *x, int64_t heads, const double *weight,
                       int64_t position)
{
    int64_t dim = p->f->shape->dim, half = dim / 2;
    for (int64_t h = 0; h < heads; h++, x += dim) {
        if (weight)
            plain_norm(x, weight, dim, x);
        for (int64_t i = 0; i < half; i++) {
            double c = (double)p->f->cos[position * half + i];
            double s = (double)p->f->sin[position * half + i];
            double a = x[i], b = x[i + half];
            x[i] = a * c - b * s;
            x[i + half] = b * c + a * s;
        }
    }
}

/* One head's output for token t, which sees tokens first .. t. */
static void plain_attend(plain *p, int64_t t, int64_t first, int64_t head)
{
    const shape *s = p->f->shape;
    int64_t dim = s->dim, kv_row = s->kv_heads * dim, kv = head / (s->heads / s->kv_heads) * dim;
    const double *q = p->q + (t * s->heads + head) * dim;
    double sum = 0;
    for (int64_t j = first; j <= t; j++) {
        double score = 0;
        for (int64_t i = 0; i < dim; i++)
            score += q[i] * p->k[j * kv_row + kv + i];
        p->p[j - first] = exp(score / sqrt((double)dim));
        sum += p->p[j - first];
    }
    for (int64_t i = 0; i < dim; i++) {
        double o = 0;
        for (int64_t j = first; j <= t; j++)
            o += p->p[j - first] * p->v[j * kv_row + kv + i];
        p->o[head * dim + i] = o / sum;
    }
}

/* Fills p->out. */
static void plain_forward(plain *p)
{
    const shape *s = p->f->shape;
    int64_t q_row = s->heads * s->dim, kv_row = s->kv_heads * s->dim;
    for (int64_t t = 0; t < p->f->tokens.n; t++) {
        int64_t start = p->f->starts[t], position = t % s->seq_len - start;
        plain_norm(p->x + t * s->embd, p->w[0], s->embd, p->n);
        plain_linear(p->w[1], q_row, s->embd, p->n, p->q + t * q_row);
        plain_linear(p->w[2], kv_row, s->embd, p->n, p->k + t * kv_row);
        plain_linear(p->w[3], kv_row, s->embd, p->n, p->v + t * kv_row);
        plain_turn(p, p->q + t * q_row, s->heads, s->qk_norm ? p->w[5] : NULL, position);
        plain_turn(p, p->k + t * kv_row, s->kv_heads, s->qk_norm ? p->w[6] : NULL, position);
        for (int64_t h = 0; h < s->heads; h++)
            plain_attend(p, t, t - position, h);
        double *out = p->out + t * s->embd;
        plain_linear(p->w[4], s->embd, q_row, p->o, out);
        for (int64_t i = 0; i < s->embd; i++)
            out[i] += p->x[t * s->embd + i];
    }
}

/* The loss whose gradient with respect to out is `d`. */
static double plain_loss(plain *p, const float *d)
{
    double loss = 0;
    plain_forward(p);
    for (int64_t i = 0; i < p->f->tokens.n * p->f->shape->embd; i++)
        loss += p->out[i] * (double)d[i];
    return loss;
}

/* ---- tests --------------------------------------------------------------------------------- */

static void outputs_are_those_of_double_precision(void **state)
{
    fixture f;
    plain p;
    open_fixture(&f, *state, 2);
    open_plain(&p, &f);
    run(&f, false);
    plain_forward(&p);
    double largest = 0, error = 0;
    for (int64_t i = 0; i < f.tokens.n * f.shape->embd; i++) {
        largest = fmax(largest, fabs(p.out[i]));
        error = fmax(error, fabs(p.out[i] - (double)f.out[i]));
        assert_true(isfinite(f.out[i]));
    }
    if (error > 1e-5 * largest)
        fail_msg("%s: output off by %g of %g", f.shape->name, error, largest);
    close_plain(&p);
    close_fixture(&f);
}

/* Compares `samples` elements of a gradient [n] with central differences over x [n]. */
static void check_gradient(plain *p, const char *name, const float *d, double *x, int64_t n,
                           const float *grad)
{
    const double step = 1e-4;
    int64_t samples = p->f->shape->samples < n ? p->f->shape->samples : n;
    double largest = 0, error2 = 0, norm2 = 0;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)grad[i]));
    for (int64_t k = 0; k < samples; k++) {
        int64_t i = samples == n ? k : (int64_t)base_random_below(3, 1, (uint64_t)k, (uint64_t)n);
        double kept = x[i];
        x[i] = kept + step;
        double above = plain_loss(p, d);
        x[i] = kept - step;
        double below = plain_loss(p, d);
        x[i] = kept;
        double difference = (above - below) / (2 * step), error = difference - (double)grad[i];
        if (!(fabs(error) <= 1e-4 * largest))
            fail_msg("%s: gradient %lld of %s is %g, not %g (largest %g)", p->f->shape->name,
                     (long long)i, name, (double)grad[i], difference, largest);
        error2 += error * error;
        norm2 += difference * difference;
    }
    if (sqrt(error2) > 1e-4 * sqrt(norm2))
        fail_msg("%s: gradients of %s are off by %g of their norm", p->f->shape->name, name,
                 sqrt(error2 / norm2));
}

static void gradients_are_central_differences(void **state)
{
    static const char *const names[] = {"attn_norm", "q", "k", "v", "out", "q_norm", "k_norm"};
    fixture f;
    plain p;
    open_fixture(&f, *state, 2);
    open_plain(&p, &f);
    int64_t n = f.tokens.n * f.shape->embd;
    float *d = need((size_t)n, sizeof(float));
    memcpy(d, f.d, (size_t)n * sizeof(float));
    run(&f, true);
    for (size_t i = 0; i < f.params.n; i++)
        check_gradient(&p, names[i], d, p.w[i], train_param_size(&f.items[i]),
                       train_grad(&f.params, &f.items[i], 0));
    check_gradient(&p, "x", d, p.x, n, f.d);
    base_free(d);
    close_plain(&p);
    close_fixture(&f);
}

static void threads_change_no_bit(void **state)
{
    fixture one;
    open_fixture(&one, *state, 1);
    run(&one, true);
    size_t n = (size_t)(one.tokens.n * one.shape->embd);
    for (int threads = 2; threads <= MAX_THREADS; threads++) {
        fixture f;
        open_fixture(&f, *state, threads);
        run(&f, true);
        const train_values *a = &one.params.sections[TRAIN_SHARED];
        const train_values *b = &f.params.sections[TRAIN_SHARED];
        assert_memory_equal(one.out, f.out, n * sizeof(float));
        assert_memory_equal(one.d, f.d, n * sizeof(float));
        assert_memory_equal(a->grad, b->grad, (size_t)a->size * sizeof(float));
        close_fixture(&f);
    }
    close_fixture(&one);
}

/* An example's numbers do not depend on what else its sequence holds. */
static void examples_do_not_see_each_other(void **state)
{
    (void)state;
    fixture a, b;
    open_fixture(&a, &shapes[2], 2);
    open_fixture(&b, &shapes[2], 2);
    int64_t embd = a.shape->embd, from = a.shape->begins[1], to = a.shape->begins[2];
    for (int64_t t = 0; t < b.tokens.n; t++)
        for (int64_t i = t * embd; (t < from || t >= to) && i < (t + 1) * embd; i++) {
            b.x[i] = -b.x[i];
            b.d[i] = 2 - b.d[i];
        }
    run(&a, true);
    run(&b, true);
    size_t bytes = (size_t)((to - from) * embd) * sizeof(float);
    assert_memory_equal(a.out + from * embd, b.out + from * embd, bytes);
    assert_memory_equal(a.d + from * embd, b.d + from * embd, bytes);
    assert_memory_not_equal(a.out, b.out, bytes);
    close_fixture(&a);
    close_fixture(&b);
}

static void frozen_parameters_have_no_gradients(void **state)
{
    (void)state;
    fixture all, some;
    open_fixture(&all, &shapes[0], 1);
    open_fixture(&some, &shapes[0], 1);
    some.params.sections[TRAIN_SHARED].graded = some.items[1].offset;
    for (size_t i = 1; i < some.params.n; i++)
        some.items[i].state = TRAIN_FROZEN;
    run(&all, true);
    run(&some, true);
    size_t bytes = (size_t)(all.tokens.n * all.shape->embd) * sizeof(float);
    assert_memory_equal(all.d, some.d, bytes);
    const float *grad = some.params.sections[TRAIN_SHARED].grad;
    assert_memory_equal(grad, all.params.sections[TRAIN_SHARED].grad,
                        (size_t)all.shape->embd * sizeof(float));
    for (int64_t i = some.items[1].offset; i < some.params.sections[TRAIN_SHARED].size; i++)
        assert_true(grad[i] == 0);
    close_fixture(&all);
    close_fixture(&some);
}

/* Scores far beyond what exp can take. */
static void large_scores_stay_finite(void **state)
{
    (void)state;
    fixture f;
    open_fixture(&f, &shapes[1], 1);
    for (int64_t i = 0; i < train_param_size(&f.items[1]); i++)
        ((float *)f.params.sections[TRAIN_SHARED].value)[f.items[1].offset + i] *= 1000;
    run(&f, true);
    for (int64_t i = 0; i < f.tokens.n * f.shape->embd; i++)
        assert_true(isfinite(f.out[i]) && isfinite(f.d[i]));
    close_fixture(&f);
}

int main(void)
{
    enum { SHAPES = sizeof shapes / sizeof *shapes, PER_SHAPE = 3, OTHERS = 3 };
    struct CMUnitTest tests[SHAPES * PER_SHAPE + OTHERS] = {
        cmocka_unit_test(examples_do_not_see_each_other),
        cmocka_unit_test(frozen_parameters_have_no_gradients),
        cmocka_unit_test(large_scores_stay_finite),
    };
    marco_train_prepare();
    for (size_t i = 0; i < SHAPES; i++) {
        void *shape_of = (void *)&shapes[i];
        struct CMUnitTest *t = tests + OTHERS + i * PER_SHAPE;
        t[0] = (struct CMUnitTest){shapes[i].name, outputs_are_those_of_double_precision, NULL,
                                   NULL, shape_of};
        t[1] = (struct CMUnitTest){shapes[i].name, gradients_are_central_differences, NULL, NULL,
                                   shape_of};
        t[2] = (struct CMUnitTest){shapes[i].name, threads_change_no_bit, NULL, NULL, shape_of};
    }
    return cmocka_run_group_tests_name("train_attention", tests, NULL, NULL);
}
