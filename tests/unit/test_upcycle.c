/* The surgery: what each expert holds, what is dropped, what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/pool.h"
#include "scratch.h"
#include "upcycle/slices.h"
#include "upcycle/upcycle.h"

static void assert_close(double got, double wanted, double tolerance)
{
    if (!(fabs(got - wanted) <= tolerance))
        fail_msg("%.9g is not within %g of %.9g", got, tolerance, wanted);
}

/* ---- parents ------------------------------------------------------------------------------- */

static model_source *open_parent(const char *shape)
{
    marco_synth_params params = marco_synth_params_default();
    model_source *source = NULL;
    marco_error error = {0};
    if (upcycle_synth_source(shape, &params, &source, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    return source;
}

/* A parent whose FFN weights tell where they come from: element (r, c) of a matrix is a number of
 * its intermediate index and a small deviate; or one that fails in some way. */
typedef struct fake_parent {
    model_source base;
    model_source *inner;
    model_tensor tensors[64];
    int bad_layer; /* -1: none */
    bool bad_read; /* reading it fails; else it holds a NaN */
} fake_parent;

static int64_t intermediate_of(const model_tensor *t, int64_t row, int64_t col)
{
    return t->role == MODEL_FFN_DOWN ? col : row;
}

static marco_status fake_read(model_source *source, size_t index, int64_t mat, int64_t row0,
                              int64_t n_rows, void *dst, marco_error *error)
{
    fake_parent *f = (fake_parent *)source;
    const model_tensor *t = &f->tensors[index];
    bool ffn = t->role >= MODEL_FFN_GATE && t->role <= MODEL_FFN_DOWN;
    bool bad = ffn && t->layer == f->bad_layer;
    if (bad && f->bad_read)
        return base_fail(error, MARCO_ERROR_IO, "fake: cannot read");
    marco_status status = f->inner->read(f->inner, index, mat, row0, n_rows, dst, error);
    float *x = dst;
    for (int64_t i = 0; ffn && status == MARCO_OK && i < n_rows * t->cols; i++)
        x[i] += 0.01f * (float)intermediate_of(t, row0 + i / t->cols, i % t->cols);
    if (bad)
        x[0] = NAN;
    return status;
}

static void fake_close(model_source *source)
{
    fake_parent *f = (fake_parent *)source;
    model_source_close(f->inner);
    base_free(f);
}

static fake_parent *open_fake(const char *shape)
{
    fake_parent *f = base_calloc(1, sizeof(*f));
    assert_non_null(f);
    f->inner = open_parent(shape);
    f->base = *f->inner;
    f->base.read = fake_read;
    f->base.close = fake_close;
    f->base.tensors = f->tensors;
    assert_true(f->base.n_tensors <= 64);
    memcpy(f->tensors, f->inner->tensors, f->base.n_tensors * sizeof(model_tensor));
    f->bad_layer = -1;
    return f;
}

/* ---- cutting ------------------------------------------------------------------------------- */

/* 4 slices of tiny-qwen3's 256, 3 copies of each. */
static marco_upcycle_params cut_in_four(void)
{
    marco_upcycle_params params = marco_upcycle_params_default();
    params.n_experts = 12;
    params.expert_dim = 64;
    params.top_k = 4;
    params.drop = 0;
    return params;
}

static model_source *cut(model_source *parent, marco_upcycle_params params, int type)
{
    model_source *source = NULL;
    marco_error error = {0};
    if (upcycle_surgery_source(parent, &params, type, &source, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    return source;
}

static float *read_f32(model_source *s, model_role role, int32_t layer, int64_t mat)
{
    int64_t index = model_source_find(s, role, layer);
    assert_true(index >= 0);
    const model_tensor *t = &s->tensors[index];
    float *x = base_alloc_array((size_t)(t->rows * t->cols), sizeof(*x));
    assert_non_null(x);
    assert_int_equal(t->type, TENSOR_F32);
    marco_error error = {0};
    if (s->read(s, (size_t)index, mat, 0, t->rows, x, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    return x;
}

static const model_role expert_roles[] = {MODEL_EXPERT_GATE, MODEL_EXPERT_UP, MODEL_EXPERT_DOWN};
static const model_role dense_roles[] = {MODEL_FFN_GATE, MODEL_FFN_UP, MODEL_FFN_DOWN};

/* Element (index of the expert's own dimension, index of the model's dimension). */
static float element(const float *x, int matrix, int64_t own, int64_t other, int64_t own_dim,
                     int64_t other_dim)
{
    return matrix == 2 ? x[other * own_dim + own] : x[own * other_dim + other];
}

/* Marks the expert's indices that aren't `scale` times the parent's, of which no element may be;
 * returns how many there are. */
static int changed_indices(model_source *s, const model_source *parent, int matrix, int32_t layer,
                           int32_t expert, float scale, bool *changed)
{
    int64_t own_dim = s->config.expert_dim, ffn_dim = parent->config.ffn_dim;
    int64_t d = s->config.n_embd, first = expert % (ffn_dim / own_dim) * own_dim;
    float *x = read_f32(s, expert_roles[matrix], layer, expert);
    float *dense = read_f32((model_source *)parent, dense_roles[matrix], layer, 0);
    int n = 0;
    for (int64_t i = 0; i < own_dim; i++) {
        int64_t differ = 0;
        for (int64_t k = 0; k < d; k++) {
            float was = scale * element(dense, matrix, first + i, k, ffn_dim, d);
            differ += element(x, matrix, i, k, own_dim, d) != was;
        }
        assert_true(differ == 0 || differ == d);
        changed[i] = differ != 0;
        n += changed[i];
    }
    base_free(x);
    base_free(dense);
    return n;
}

static void experts_are_scaled_slices(void **state)
{
    (void)state;
    const struct {
        marco_upcycle_scale scale;
        float factor[3];
    } cases[] = {
        {MARCO_SCALE_NONE, {1, 1, 1}},
        {MARCO_SCALE_DOWN, {1, 1, 4}},
        {MARCO_SCALE_CUBE_ROOT, {1.5874010519681994f, 1.5874010519681994f, 1.5874010519681994f}},
    };
    for (size_t i = 0; i < 3; i++) {
        model_source *parent = open_parent("tiny-qwen3");
        marco_upcycle_params params = cut_in_four();
        params.scale = cases[i].scale;
        model_source *s = cut(parent, params, -1);
        bool changed[64];
        for (int matrix = 0; matrix < 3; matrix++)
            for (int32_t layer = 0; layer < 2; layer++)
                for (int32_t e = 0; e < 12; e++)
                    assert_int_equal(changed_indices(s, parent, matrix, layer, e,
                                                     cases[i].factor[matrix], changed),
                                     0);
        model_source_close(s);
    }
}

static void all_else_is_the_parents(void **state)
{
    (void)state;
    model_source *parent = open_parent("tiny-llama");
    marco_upcycle_params params = cut_in_four();
    params.n_experts = 6; /* 3 slices of 192 */
    params.drop = 0.5;
    model_source *s = cut(parent, params, -1);
    size_t same = 0;
    for (size_t i = 0; i < s->n_tensors; i++) {
        const model_tensor *t = &s->tensors[i];
        if (model_source_find(parent, t->role, t->layer) < 0)
            continue;
        float *a = read_f32(s, t->role, t->layer, 0);
        float *b = read_f32(parent, t->role, t->layer, 0);
        assert_memory_equal(a, b, (size_t)(t->rows * t->cols) * sizeof(float));
        base_free(a);
        base_free(b);
        same++;
    }
    assert_int_equal(same, 3 + 2 * 6);
    assert_int_equal(s->n_tensors - same, 2 * 4);
    model_source_close(s);
}

static void configuration_is_of_a_mixture(void **state)
{
    (void)state;
    for (int llama = 0; llama < 2; llama++) {
        model_source *parent = open_parent(llama ? "tiny-llama" : "tiny-qwen3");
        marco_upcycle_params params = cut_in_four();
        model_source *s = cut(parent, params, -1);
        const model_config *c = &s->config, *p = &parent->config;
        assert_int_equal(c->arch, llama ? MODEL_MIXTRAL : MODEL_QWEN3MOE);
        assert_int_equal(c->n_experts, 12);
        assert_int_equal(c->n_experts_used, 4);
        assert_int_equal(c->expert_dim, 64);
        assert_true(c->norm_topk_prob && c->layer_sparse[0] && c->layer_sparse[1]);
        assert_int_equal(c->qk_norm, !llama);
        assert_int_equal(c->tied, p->tied);
        assert_int_equal(c->n_eos, p->n_eos);
        assert_int_equal(c->eos[0], p->eos[0]);
        assert_true(c->rope.theta == p->rope.theta && c->rms_eps == p->rms_eps);
        assert_non_null(strstr(c->name, "-upcycled"));
        assert_non_null(strstr(c->provenance, p->name));
        assert_non_null(strstr(c->provenance, "identical until trained"));
        assert_ptr_equal(s->tokenizer, parent->tokenizer);
        model_source_close(s);
    }
}

/* ---- dropping ------------------------------------------------------------------------------ */

static void exact_counts_are_dropped(void **state)
{
    (void)state;
    const struct {
        double ratio;
        int32_t expert_dim;
        int n;
    } cases[] = {{0, 64, 0},    {0.5, 64, 32},  {0.3, 32, 10},
                 {0.01, 64, 1}, {0.007, 64, 0}, {1, 64, 64}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        model_source *parent = open_parent("tiny-qwen3");
        marco_upcycle_params params = cut_in_four();
        params.expert_dim = cases[i].expert_dim;
        params.n_experts = 16;
        params.drop = cases[i].ratio;
        params.scale = MARCO_SCALE_NONE;
        model_source *s = cut(parent, params, -1);
        for (int matrix = 0; matrix < 3; matrix++) {
            for (int32_t e = 0; e < 16; e++) {
                bool changed[64];
                assert_int_equal(changed_indices(s, parent, matrix, 1, e, 1, changed), cases[i].n);
            }
        }
        model_source_close(s);
    }
}

/* The dropped indices of gate, up and down in layers 0 and 1 of experts 0 and 4 (one slice). */
static void read_drops(marco_upcycle_params params, bool drops[2][2][3][64])
{
    model_source *parent = open_parent("tiny-qwen3");
    params.drop = 0.5;
    params.scale = MARCO_SCALE_NONE;
    model_source *s = cut(parent, params, -1);
    for (int32_t layer = 0; layer < 2; layer++)
        for (int32_t e = 0; e < 2; e++)
            for (int matrix = 0; matrix < 3; matrix++)
                changed_indices(s, parent, matrix, layer, 4 * e, 1, drops[layer][e][matrix]);
    model_source_close(s);
}

static void indices_are_drawn_apart_or_shared(void **state)
{
    (void)state;
    bool apart[2][2][3][64], shared[2][2][3][64];
    marco_upcycle_params params = cut_in_four();
    read_drops(params, apart);
    params.drop_shared = true;
    read_drops(params, shared);
    const size_t size = 64 * sizeof(bool);
    for (int layer = 0; layer < 2; layer++) {
        for (int e = 0; e < 2; e++) {
            assert_memory_not_equal(apart[layer][e][0], apart[layer][e][1], size);
            assert_memory_not_equal(apart[layer][e][0], apart[layer][e][2], size);
            assert_memory_not_equal(apart[layer][e][1], apart[layer][e][2], size);
            assert_memory_equal(shared[layer][e][0], shared[layer][e][1], size);
            assert_memory_equal(shared[layer][e][0], shared[layer][e][2], size);
        }
        assert_memory_not_equal(apart[layer][0][0], apart[layer][1][0], size);
        assert_memory_not_equal(shared[layer][0][0], shared[layer][1][0], size);
    }
    assert_memory_not_equal(apart[0][0][0], apart[1][0][0], size);
    assert_memory_not_equal(shared[0][0][0], shared[1][0][0], size);
}

/* Every index is as likely as any other. */
static void indices_are_uniform(void **state)
{
    (void)state;
    model_source *parent = open_parent("tiny-qwen3");
    marco_upcycle_params params = cut_in_four();
    params.n_experts = 512;
    params.expert_dim = 8;
    params.drop = 0.25;
    params.scale = MARCO_SCALE_NONE;
    model_source *s = cut(parent, params, -1);
    int counts[8] = {0};
    for (int32_t e = 0; e < 512; e++) {
        bool changed[8];
        changed_indices(s, parent, 0, 0, e, 1, changed);
        for (int i = 0; i < 8; i++)
            counts[i] += changed[i];
    }
    for (int i = 0; i < 8; i++)
        assert_close(counts[i], 128, 5 * sqrt(512 * 0.25 * 0.75));
    model_source_close(s);
}

static void mean_and_deviation(const float *x, const bool *chosen, int matrix, int64_t first,
                               int64_t dim, int64_t own_dim, int64_t d, double *mean,
                               double *deviation)
{
    double n = 0, sum = 0, square = 0;
    for (int64_t i = 0; i < dim; i++) {
        for (int64_t k = 0; chosen[i] && k < d; k++) {
            double v = element(x, matrix, first + i, k, own_dim, d);
            n++, sum += v, square += v * v;
        }
    }
    *mean = sum / n;
    *deviation = sqrt((square - sum * sum / n) / (n - 1));
}

/* The numbers put in are normal with the statistics of the numbers taken out, which the parent
 * makes differ from expert to expert. */
static void dropped_statistics_are_kept(void **state)
{
    (void)state;
    fake_parent *parent = open_fake("tiny-qwen3");
    marco_upcycle_params params = cut_in_four();
    params.drop = 0.5;
    params.scale = MARCO_SCALE_DOWN;
    model_source *s = cut(&parent->base, params, -1);
    for (int matrix = 0; matrix < 3; matrix++) {
        float scale = matrix == 2 ? 4 : 1;
        float *dense = read_f32(&parent->base, dense_roles[matrix], 1, 0);
        for (int32_t e = 0; e < 12; e++) {
            bool changed[64];
            double was, was_deviation, is, is_deviation;
            changed_indices(s, &parent->base, matrix, 1, e, scale, changed);
            float *x = read_f32(s, expert_roles[matrix], 1, e);
            mean_and_deviation(dense, changed, matrix, e % 4 * 64, 64, 256, 64, &was,
                               &was_deviation);
            mean_and_deviation(x, changed, matrix, 0, 64, 64, 64, &is, &is_deviation);
            was *= scale, was_deviation *= scale;
            double n = 32 * 64;
            assert_close(is, was, 5 * was_deviation / sqrt(n));
            assert_close(is_deviation, was_deviation, 5 * was_deviation / sqrt(2 * n));
            base_free(x);
        }
        base_free(dense);
    }
    model_source_close(s);
}

/* ---- router -------------------------------------------------------------------------------- */

static void router_rows(void **state)
{
    (void)state;
    for (int grouped = 0; grouped < 2; grouped++) {
        marco_upcycle_params params = cut_in_four();
        params.n_experts = 64;
        params.router = grouped ? MARCO_ROUTER_VIRTUAL_GROUP : MARCO_ROUTER_NORMAL;
        model_source *s = cut(open_parent("tiny-qwen3"), params, -1);
        float *layer[2] = {read_f32(s, MODEL_ROUTER, 0, 0), read_f32(s, MODEL_ROUTER, 1, 0)};
        assert_memory_not_equal(layer[0], layer[1], 64 * sizeof(float));
        double square = 0;
        for (int e = 0; e < 64; e++) {
            for (int k = 0; k < 64; k++)
                square += (double)layer[0][e * 64 + k] * (double)layer[0][e * 64 + k];
            bool same =
                e && memcmp(layer[0] + e * 64, layer[0] + (e - 1) * 64, 64 * sizeof(float)) == 0;
            assert_int_equal(same, grouped && e % 4 != 0);
        }
        assert_close(sqrt(square / 4096), 0.02, grouped ? 0.0025 : 0.0012);
        base_free(layer[0]);
        base_free(layer[1]);
        model_source_close(s);
    }
}

/* ---- types --------------------------------------------------------------------------------- */

static void types_are_the_parents_where_possible(void **state)
{
    (void)state;
    const struct {
        tensor_type parent;
        int32_t expert_dim;
        tensor_type gate, down;
    } cases[] = {
        {TENSOR_F32, 64, TENSOR_F32, TENSOR_F32},
        {TENSOR_BF16, 64, TENSOR_BF16, TENSOR_BF16},
        {TENSOR_Q4_1, 64, TENSOR_Q4_1, TENSOR_Q4_1},
        {TENSOR_Q6_K, 64, TENSOR_Q8_0, TENSOR_Q8_0}, /* only read */
        {TENSOR_Q4_1, 16, TENSOR_Q4_1, TENSOR_F16},  /* no whole block in 16 columns */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        fake_parent *parent = open_fake("tiny-qwen3");
        for (size_t t = 0; t < parent->base.n_tensors; t++)
            if (!model_role_is_float(parent->tensors[t].role))
                parent->tensors[t].type = cases[i].parent;
        marco_upcycle_params params = cut_in_four();
        params.expert_dim = cases[i].expert_dim;
        params.n_experts = 32;
        model_source *s = cut(&parent->base, params, -1);
        assert_int_equal(s->tensors[model_source_find(s, MODEL_EXPERT_GATE, 1)].type,
                         cases[i].gate);
        assert_int_equal(s->tensors[model_source_find(s, MODEL_EXPERT_DOWN, 1)].type,
                         cases[i].down);
        assert_int_equal(s->tensors[model_source_find(s, MODEL_ATTN_Q, 1)].type, cases[i].parent);
        assert_int_equal(s->tensors[model_source_find(s, MODEL_ROUTER, 1)].type, TENSOR_F32);
        model_source_close(s);
    }
}

/* ---- threads ------------------------------------------------------------------------------- */

enum { N_MATS = 2 * 3 * 12, MAT_SIZE = 64 * 64 };

typedef struct reading {
    model_source *source;
    float *out; /* [N_MATS, MAT_SIZE] */
    _Atomic int failures;
} reading;

/* Neighbouring parts are of different matrices and layers, so that threads contend for slots. */
static void read_part(void *user, int64_t part, int thread)
{
    (void)thread;
    reading *r = user;
    int64_t mat = part * 31 % N_MATS;
    int64_t index = model_source_find(r->source, expert_roles[mat % 3], (int32_t)(mat / 36));
    for (int64_t row = 0; row < 64; row += 16) {
        if (r->source->read(r->source, (size_t)index, mat % 36 / 3, row, 16,
                            r->out + mat * MAT_SIZE + row * 64, NULL) != MARCO_OK)
            r->failures++;
    }
}

static float *read_with_threads(model_source *source, int threads, int *failures)
{
    reading r = {.source = source, .out = base_calloc((size_t)N_MATS * MAT_SIZE, sizeof(float))};
    assert_non_null(r.out);
    base_pool *pool = NULL;
    assert_int_equal(base_pool_create(threads, &pool, NULL), MARCO_OK);
    base_pool_run(pool, read_part, &r, N_MATS);
    base_pool_destroy(pool);
    *failures = r.failures;
    return r.out;
}

static void threads_read_the_same(void **state)
{
    (void)state;
    float *first = NULL;
    for (int threads = 1; threads <= 4; threads++) {
        marco_upcycle_params params = cut_in_four();
        params.drop = 0.5;
        model_source *s = cut(open_parent("tiny-qwen3"), params, -1);
        int failures;
        float *x = read_with_threads(s, threads, &failures);
        assert_int_equal(failures, 0);
        if (first)
            assert_memory_equal(x, first, (size_t)N_MATS * MAT_SIZE * sizeof(float));
        if (first)
            base_free(x);
        else
            first = x;
        model_source_close(s);
    }
    base_free(first);
}

/* What is in use is not replaced, however many others come and go. */
static void held_matrices_stay(void **state)
{
    (void)state;
    model_source *parent = open_parent("tiny-qwen3");
    upcycle_plan plan = {
        .n_slices = 4, .n_experts = 12, .expert_dim = 64, .scale_in = 1, .scale_down = 1};
    upcycle_slices *slices = NULL;
    assert_int_equal(upcycle_slices_create(parent, &plan, &slices, NULL), MARCO_OK);
    const upcycle_matrix *held = NULL, *other = NULL;
    assert_int_equal(upcycle_slices_acquire(slices, MODEL_EXPERT_UP, 0, &held, NULL), MARCO_OK);
    float *dense = read_f32(parent, MODEL_FFN_UP, 0, 0);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(upcycle_slices_acquire(slices, expert_roles[i % 3], i / 3, &other, NULL),
                         MARCO_OK);
        assert_memory_equal(held->data, dense, 256 * 64 * sizeof(float));
        upcycle_slices_release(slices, other);
    }
    upcycle_slices_release(slices, held);
    upcycle_slices_free(slices);
    base_free(dense);
    model_source_close(parent);
}

static void failures_reach_every_thread(void **state)
{
    (void)state;
    for (int bad_read = 0; bad_read < 2; bad_read++) {
        fake_parent *parent = open_fake("tiny-qwen3");
        parent->bad_layer = 1;
        parent->bad_read = bad_read;
        model_source *s = cut(&parent->base, cut_in_four(), -1);
        int failures;
        base_free(read_with_threads(s, 3, &failures));
        assert_int_equal(failures, 36 * 4);
        float row[64];
        marco_error error = {0};
        size_t index = (size_t)model_source_find(s, MODEL_EXPERT_UP, 1);
        assert_int_equal(s->read(s, index, 0, 0, 1, row, &error),
                         bad_read ? MARCO_ERROR_IO : MARCO_ERROR_NUMERIC);
        assert_non_null(strstr(error.message, bad_read ? "cannot read" : "layers.1.mlp.up_proj"));
        model_source_close(s);
    }
}

/* ---- errors -------------------------------------------------------------------------------- */

static void bad_requests_are_refused(void **state)
{
    (void)state;
    const struct {
        const char *shape;
        int32_t n_experts, expert_dim, top_k;
        double drop;
        int scale, router;
        const char *words[3];
    } cases[] = {
        {"tiny-qwen3moe", 12, 64, 4, 0, 0, 0, {"tiny-qwen3moe", "qwen3moe", "dense"}},
        {"tiny-mixtral", 12, 64, 4, 0, 0, 0, {"tiny-mixtral", "mixtral", "dense"}},
        {"tiny-qwen3", 12, 0, 4, 0, 0, 0, {" 0 ", "256", "divide"}},
        {"tiny-qwen3", 12, -64, 4, 0, 0, 0, {"-64", "256", "divide"}},
        {"tiny-qwen3", 12, 60, 4, 0, 0, 0, {"60", "256", "divide"}},
        {"tiny-qwen3", 12, 512, 4, 0, 0, 0, {"512", "256", "divide"}},
        {"tiny-qwen3", 10, 64, 4, 0, 0, 0, {"10 experts", "4 slices", "multiple"}},
        {"tiny-qwen3", 0, 64, 4, 0, 0, 0, {"0 experts", "4 slices", "multiple"}},
        {"tiny-qwen3", -4, 64, 4, 0, 0, 0, {"-4 experts", "4 slices", "multiple"}},
        {"tiny-qwen3", 12, 64, 0, 0, 0, 0, {"top-k 0", "12", ""}},
        {"tiny-qwen3", 12, 64, 13, 0, 0, 0, {"top-k 13", "12", ""}},
        {"tiny-qwen3", 12, 64, 4, -0.1, 0, 0, {"-0.1", "0 to 1", ""}},
        {"tiny-qwen3", 12, 64, 4, 1.5, 0, 0, {"1.5", "0 to 1", ""}},
        {"tiny-qwen3", 12, 64, 4, (double)NAN, 0, 0, {"nan", "0 to 1", ""}},
        {"tiny-qwen3", 12, 64, 4, 0, 9, 0, {"scale", "9", ""}},
        {"tiny-qwen3", 12, 64, 4, 0, 0, 9, {"router", "9", ""}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        marco_upcycle_params p = marco_upcycle_params_default();
        p.n_experts = cases[i].n_experts;
        p.expert_dim = cases[i].expert_dim;
        p.top_k = cases[i].top_k;
        p.drop = cases[i].drop;
        p.scale = (marco_upcycle_scale)cases[i].scale;
        p.router = (marco_upcycle_router)cases[i].router;
        marco_error error = {0};
        model_source *s = NULL;
        assert_true(upcycle_surgery_source(open_parent(cases[i].shape), &p, -1, &s, &error) !=
                    MARCO_OK);
        assert_null(s);
        for (int w = 0; w < 3; w++)
            if (!strstr(error.message, cases[i].words[w]))
                fail_msg("'%s' lacks '%s'", error.message, cases[i].words[w]);
    }
}

static void presets(void **state)
{
    (void)state;
    marco_upcycle_params p = marco_upcycle_params_default();
    assert_true(p.drop == 0.5 && p.scale == MARCO_SCALE_CUBE_ROOT && !p.drop_shared);
    assert_false(marco_upcycle_preset(&p, "marco-midi"));
    p.seed = 77;
    assert_true(marco_upcycle_preset(&p, "marco-nano"));
    assert_true(p.n_experts == 232 && p.expert_dim == 384 && p.top_k == 8 && p.seed == 77);
    assert_true(marco_upcycle_preset(&p, "marco-mini"));
    assert_true(p.n_experts == 256 && p.expert_dim == 768 && p.top_k == 8);
    /* Both fit the parent they were cut from. */
    for (int nano = 0; nano < 2; nano++) {
        marco_upcycle_preset(&p, nano ? "marco-nano" : "marco-mini");
        model_source *s = cut(open_parent("qwen3-0.6b"), p, -1);
        double total = (double)model_config_total_params(&s->config);
        assert_close(total * 1e-9, nano ? 8.0 : 17.25, 0.05);
        model_source_close(s);
    }
}

/* ---- files --------------------------------------------------------------------------------- */

static void synth(const char *shape, const char *to, const char *type)
{
    marco_synth_params p = marco_synth_params_default();
    marco_error error = {0};
    p.type = type;
    if (marco_synth(shape, to, &p, &error) != MARCO_OK)
        fail_msg("%s", error.message);
}

static void upcycle(const char *from, const char *to, marco_upcycle_params params)
{
    marco_error error = {0};
    if (marco_upcycle(from, to, &params, &error) != MARCO_OK)
        fail_msg("%s", error.message);
}

static void threads_do_not_change_bytes(void **state)
{
    scratch *dir = *state;
    marco_upcycle_params p = cut_in_four();
    p.drop = 0.5;
    p.overwrite = true;
    synth("tiny-qwen3", scratch_path(dir, "p.gguf"), "Q4_1");
    for (p.threads = 1; p.threads <= 3; p.threads++) {
        bool first = p.threads == 1;
        upcycle(scratch_path(dir, "p.gguf"), scratch_path(dir, first ? "1.gguf" : "n.gguf"), p);
        upcycle(scratch_path(dir, "p.gguf"), scratch_path(dir, first ? "f1" : "fn"), p);
        if (first)
            continue;
        assert_true(scratch_same_file(scratch_path(dir, "1.gguf"), scratch_path(dir, "n.gguf")));
        assert_true(scratch_same_folder(scratch_path(dir, "f1"), scratch_path(dir, "fn")));
    }
    p.seed = 2;
    upcycle(scratch_path(dir, "p.gguf"), scratch_path(dir, "n.gguf"), p);
    assert_false(scratch_same_file(scratch_path(dir, "1.gguf"), scratch_path(dir, "n.gguf")));
}

/* Of both architectures, from both formats to both: what is read back is what the surgery made. */
static void files_hold_the_surgery(void **state)
{
    scratch *dir = *state;
    for (int i = 0; i < 8; i++) {
        const char *shape = i & 4 ? "tiny-llama" : "tiny-qwen3";
        char from[32], to[32];
        snprintf(from, sizeof(from), "p%d%s", i, i & 1 ? "" : ".gguf");
        snprintf(to, sizeof(to), "m%d%s", i, i & 2 ? "" : ".gguf");
        synth(shape, scratch_path(dir, from), "F32");
        marco_upcycle_params p = cut_in_four();
        p.drop = 0.25;
        upcycle(scratch_path(dir, from), scratch_path(dir, to), p);
        model_source *made = cut(open_parent(shape), p, -1), *file = NULL;
        marco_error error = {0};
        if (model_source_open(scratch_path(dir, to), &file, &error) != MARCO_OK)
            fail_msg("%s", error.message);
        assert_int_equal(file->config.arch, made->config.arch);
        assert_true(file->config.norm_topk_prob);
        assert_non_null(strstr(file->config.provenance, "upcycled from"));
        for (size_t t = 0; t < made->n_tensors; t++) {
            const model_tensor *m = &made->tensors[t];
            float *a = read_f32(made, m->role, m->layer, m->mats - 1);
            float *b = read_f32(file, m->role, m->layer, m->mats - 1);
            assert_memory_equal(a, b, (size_t)(m->rows * m->cols) * sizeof(float));
            base_free(a);
            base_free(b);
        }
        model_source_close(made);
        model_source_close(file);
    }
}

/* A type asked for is rounded to once, from F32. */
static void asked_type_is_rounded_once(void **state)
{
    scratch *dir = *state;
    synth("tiny-qwen3", scratch_path(dir, "p.gguf"), "Q4_0");
    marco_upcycle_params p = cut_in_four();
    p.type = "F32";
    upcycle(scratch_path(dir, "p.gguf"), scratch_path(dir, "m.gguf"), p);
    model_source *parent = NULL, *file = NULL;
    assert_int_equal(model_source_open(scratch_path(dir, "p.gguf"), &parent, NULL), MARCO_OK);
    assert_int_equal(model_source_open(scratch_path(dir, "m.gguf"), &file, NULL), MARCO_OK);
    float *got = read_f32(file, MODEL_EXPERT_GATE, 0, 5);
    char raw[64 * 64];
    float dense[64 * 64];
    size_t gate = (size_t)model_source_find(parent, MODEL_FFN_GATE, 0);
    assert_int_equal(parent->tensors[gate].type, TENSOR_Q4_0);
    assert_int_equal(parent->read(parent, gate, 0, 64, 64, raw, NULL), MARCO_OK);
    tensor_traits_of(TENSOR_Q4_0)->decode(raw, dense, 64 * 64);
    for (int i = 0; i < 64 * 64; i++)
        assert_true(got[i] == dense[i] * 1.5874010519681994f);
    base_free(got);
    model_source_close(parent);
    model_source_close(file);
}

static int cancel_at_third(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)what, (void)done, (void)total;
    return ++*(int *)user >= 3;
}

static void failing_leaves_nothing(void **state)
{
    scratch *dir = *state;
    synth("tiny-qwen3", scratch_path(dir, "p.gguf"), "Q8_0");
    const char *from = scratch_path(dir, "p.gguf");
    for (int folder = 0; folder < 2; folder++) {
        int calls = 2;
        const char *to = scratch_path(dir, folder ? "m" : "m.gguf");
        marco_upcycle_params p = cut_in_four();
        p.progress = (marco_progress){cancel_at_third, &calls};
        assert_int_equal(marco_upcycle(from, to, &p, NULL), MARCO_ERROR_CANCELLED);
        assert_int_equal(scratch_count(dir->folder), 1);
        p.progress.fn = NULL;
        p.top_k = 99;
        assert_int_equal(marco_upcycle(from, to, &p, NULL), MARCO_ERROR_ARGUMENT);
        assert_int_equal(scratch_count(dir->folder), 1);
    }
    marco_error error = {0};
    marco_upcycle_params p = cut_in_four();
    assert_true(marco_upcycle(scratch_path(dir, "absent.gguf"), scratch_path(dir, "m"), &p,
                              &error) != MARCO_OK);
    assert_non_null(strstr(error.message, "absent.gguf"));
    assert_int_equal(scratch_count(dir->folder), 1);
}

static void running_out_of_memory_leaves_nothing(void **state)
{
    scratch *dir = *state;
    synth("tiny-llama", scratch_path(dir, "p.gguf"), "Q8_0");
    const char *from = scratch_path(dir, "p.gguf"), *to = scratch_path(dir, "m.gguf");
    marco_upcycle_params p = cut_in_four();
    p.drop = 0.5;
    p.threads = 1;
    for (uint64_t n = 1;; n++) {
        marco_error error = {0};
        base_alloc_fail_at(n);
        marco_status status = marco_upcycle(from, to, &p, &error);
        base_alloc_fail_at(0);
        if (status == MARCO_OK)
            break;
        if (status != MARCO_ERROR_MEMORY)
            fail_msg("request %llu: %s", (unsigned long long)n, error.message);
        assert_int_equal(scratch_count(dir->folder), 1);
        assert_true(n < 100000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_are_scaled_slices),
        cmocka_unit_test(all_else_is_the_parents),
        cmocka_unit_test(configuration_is_of_a_mixture),
        cmocka_unit_test(exact_counts_are_dropped),
        cmocka_unit_test(indices_are_drawn_apart_or_shared),
        cmocka_unit_test(indices_are_uniform),
        cmocka_unit_test(dropped_statistics_are_kept),
        cmocka_unit_test(router_rows),
        cmocka_unit_test(types_are_the_parents_where_possible),
        cmocka_unit_test(threads_read_the_same),
        cmocka_unit_test(held_matrices_stay),
        cmocka_unit_test(failures_reach_every_thread),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(presets),
        SCRATCH_TEST(threads_do_not_change_bytes),
        SCRATCH_TEST(files_hold_the_surgery),
        SCRATCH_TEST(asked_type_is_rounded_once),
        SCRATCH_TEST(failing_leaves_nothing),
        SCRATCH_TEST(running_out_of_memory_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
