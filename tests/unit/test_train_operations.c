/* The small operations of training against plain ones in double precision: the same outputs, and
 * the gradients that central differences give. Attention and experts have tests of their own. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/random.h"
#include "marco/train.h"
#include "train/ffn.h"
#include "train/head.h"

enum { EMBD = 37, FFN = 70, VOCAB = 1100, N = 83, RANK = 3, SAMPLES = 60, MAX_ARRAYS = 8 };

/* ---- a dense model whose weights are a formula --------------------------------------------- */

static float number(uint64_t stream, int64_t i)
{
    return (float)(2 * base_random_unit(11, stream, (uint64_t)i) - 1);
}

static marco_status read_formula(model_source *source, size_t index, int64_t mat, int64_t row0,
                                 int64_t n_rows, void *dst, marco_error *error)
{
    (void)mat;
    (void)error;
    const model_tensor *t = &source->tensors[index];
    bool vector = model_role_is_vector(t->role);
    for (int64_t i = 0; i < n_rows * t->cols; i++) {
        float x = number(index, row0 * t->cols + i);
        ((float *)dst)[i] = vector ? 1 + x / 4 : x * 2 / sqrtf((float)t->cols);
    }
    return MARCO_OK;
}

typedef struct fixture {
    model_source source;
    train_comm *comm;
    train_params *params;
    train_blas *blas;
    train_context ctx;
    float *scratch[2];
    int32_t ids[N], targets[N], starts[N];
    train_tokens tokens;
    float *x, *d; /* [N, EMBD] */
} fixture;

static float *floats(int64_t n)
{
    float *memory = base_alloc_aligned((size_t)n * sizeof *memory);
    assert_non_null(memory);
    memset(memory, 0, (size_t)n * sizeof *memory);
    return memory;
}

static void fixture_open(fixture *f, const train_params_choice *choice)
{
    marco_error error = {0};
    memset(f, 0, sizeof *f);
    model_config *config = &f->source.config;
    model_config_init(config);
    config->arch = MODEL_LLAMA;
    config->n_layers = config->n_heads = config->n_kv_heads = 1;
    config->n_embd = EMBD;
    config->head_dim = 4;
    config->ffn_dim = FFN;
    config->n_vocab = VOCAB;
    config->rms_eps = 1e-5;
    f->source.n_tensors = model_config_tensors(config, NULL, 0);
    model_tensor *tensors = calloc(f->source.n_tensors, sizeof *tensors);
    model_config_tensors(config, tensors, f->source.n_tensors);
    f->source.tensors = tensors;
    f->source.read = read_formula;
    assert_int_equal(train_comm_open(1, &f->comm, &error), MARCO_OK);
    assert_int_equal(train_params_load(&f->source, choice, f->comm, &f->params, &error), MARCO_OK);
    assert_int_equal(train_blas_open(4, &f->blas, &error), MARCO_OK);
    f->ctx = (train_context){.params = f->params,
                             .comm = f->comm,
                             .kern = kern_table_get(NULL),
                             .blas = f->blas,
                             .scratch = f->scratch};
    assert_int_equal(base_pool_create(2, &f->ctx.pool, &error), MARCO_OK);
    for (int i = 0; i < 2; i++)
        f->scratch[i] = floats(1 << 18);
    for (int i = 0; i < N; i++) {
        f->ids[i] = i * 7 % 40; /* some of them twice */
        f->targets[i] = i % 5 == 2 ? -1 : i * 131 % VOCAB;
    }
    f->tokens = (train_tokens){.n_seqs = 1,
                               .seq_len = N,
                               .n = N,
                               .ids = f->ids,
                               .targets = f->targets,
                               .starts = f->starts};
    f->x = floats(N * EMBD);
    f->d = floats(N * EMBD);
    for (int i = 0; i < N * EMBD; i++) {
        f->x[i] = number(100, i);
        f->d[i] = number(101, i);
    }
}

static void fixture_close(fixture *f)
{
    base_pool_destroy(f->ctx.pool);
    train_blas_close(f->blas);
    train_params_free(f->params);
    train_comm_close(f->comm);
    free((void *)(uintptr_t)f->source.tensors);
    base_free(f->scratch[0]);
    base_free(f->scratch[1]);
    base_free(f->x);
    base_free(f->d);
}

/* ---- a function of some arrays in double, and its central differences ---------------------- */

typedef struct problem {
    fixture *f;
    double *array[MAX_ARRAYS]; /* what the function is of */
    int64_t size[MAX_ARRAYS];
    const float *gradient[MAX_ARRAYS]; /* what training says */
    int n;
    double (*function)(const struct problem *p);
} problem;

static void add_array(problem *p, const float *values, int64_t n, const float *gradient)
{
    p->array[p->n] = malloc((size_t)n * sizeof(double));
    for (int64_t i = 0; i < n; i++)
        p->array[p->n][i] = (double)values[i];
    p->size[p->n] = n;
    p->gradient[p->n] = gradient;
    p->n++;
}

static const train_param *param_of(const fixture *f, model_role role)
{
    int32_t layer =
        role == MODEL_TOKEN_EMBD || role == MODEL_OUTPUT || role == MODEL_OUTPUT_NORM ? -1 : 0;
    return train_params_find(f->params, role, layer);
}

static void add_param(problem *p, const train_param *param)
{
    int64_t n = train_param_matrix(param);
    float *room = floats(n);
    add_array(p, train_weight(p->f->params, param, 0, 0, param->tensor.rows, room), n,
              train_grad(p->f->params, param, 0));
    base_free(room);
}

/* The norm-wise error of sampled gradients within 1e-4, and none worse than 1e-3 of the largest. */
static void check(problem *p)
{
    for (int a = 0; a < p->n; a++) {
        double wrong = 0, all = 0, largest = 0, worst = 0;
        for (int s = 0; s < SAMPLES; s++) {
            int64_t i =
                (int64_t)base_random_below(5, (uint64_t)a, (uint64_t)s, (uint64_t)p->size[a]);
            double was = p->array[a][i], step = 1e-4;
            p->array[a][i] = was + step;
            double above = p->function(p);
            p->array[a][i] = was - step;
            double below = p->function(p);
            p->array[a][i] = was;
            double want = (above - below) / (2 * step), got = (double)p->gradient[a][i];
            wrong += (want - got) * (want - got);
            all += want * want;
            largest = fmax(largest, fabs(want));
            worst = fmax(worst, fabs(want - got));
        }
        assert_true(all > 0);
        if (!(sqrt(wrong) <= 1e-4 * sqrt(all)) || !(worst <= 1e-3 * largest))
            fail_msg("array %d: gradient off by %g of %g, at worst %g of %g", a, sqrt(wrong),
                     sqrt(all), worst, largest);
    }
    for (int a = 0; a < p->n; a++)
        free(p->array[a]);
}

static void check_value(const problem *p, double got)
{
    double want = p->function(p);
    if (!(fabs(want - got) <= 1e-5 * fmax(1, fabs(want))))
        fail_msg("%.9g instead of %.9g", got, want);
}

static double weighted(const float *out)
{
    double sum = 0;
    for (int i = 0; i < N * EMBD; i++)
        sum += (double)out[i] * (double)number(101, i);
    return sum;
}

/* ---- plain operations ---------------------------------------------------------------------- */

static void plain_norm(const double *x, const double *weight, double *out)
{
    double squares = 0;
    for (int i = 0; i < EMBD; i++)
        squares += x[i] * x[i];
    for (int i = 0; i < EMBD; i++)
        out[i] = x[i] / sqrt(squares / EMBD + 1e-5) * weight[i];
}

static double plain_dot(const double *a, const double *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* ---- the tests ----------------------------------------------------------------------------- */

static double norm_function(const problem *p)
{
    double sum = 0, out[EMBD];
    for (int t = 0; t < N; t++) {
        plain_norm(p->array[0] + t * EMBD, p->array[1], out);
        for (int i = 0; i < EMBD; i++)
            sum += out[i] * (double)number(101, t * EMBD + i);
    }
    return sum;
}

static void norm(tensor_type type)
{
    fixture f;
    const train_params_choice choice = {.type = type};
    fixture_open(&f, &choice);
    const train_param *weight = param_of(&f, MODEL_FFN_NORM);
    float *out = floats(N * EMBD), *dx = floats(N * EMBD);
    float *partial = floats(train_norm_partial(N, EMBD));
    train_norm(&f.ctx, weight, f.x, N, out);
    train_norm_back(&f.ctx, weight, f.x, f.d, N, dx, partial);
    problem p = {.f = &f, .function = norm_function};
    add_array(&p, f.x, N * EMBD, dx);
    add_param(&p, weight);
    check_value(&p, weighted(out));
    check(&p);
    base_free(out);
    base_free(dx);
    base_free(partial);
    fixture_close(&f);
}

/* x W^T, W the head's: more rows than one part has. */
static double linear_function(const problem *p)
{
    double sum = 0;
    for (int t = 0; t < N; t++)
        for (int r = 0; r < VOCAB; r++)
            sum += plain_dot(p->array[0] + t * EMBD, p->array[1] + r * EMBD, EMBD) *
                   (double)number(102, t * VOCAB + r);
    return sum;
}

static void linear(tensor_type type)
{
    fixture f;
    const train_params_choice choice = {.type = type};
    fixture_open(&f, &choice);
    const train_param *weight = param_of(&f, MODEL_OUTPUT);
    float *y = floats(N * VOCAB), *dy = floats(N * VOCAB), *dx = floats(N * EMBD);
    for (int i = 0; i < N * VOCAB; i++)
        dy[i] = number(102, i);
    train_linear(&f.ctx, weight, 0, f.x, N, y, false);
    double sum = 0;
    for (int i = 0; i < N * VOCAB; i++)
        sum += (double)y[i] * (double)dy[i];
    for (int i = 0; i < N * EMBD; i++)
        dx[i] = 7;
    train_linear_back(&f.ctx, weight, 0, f.x, dy, N, dx, true);
    for (int i = 0; i < N * EMBD; i++)
        dx[i] -= 7; /* it was added to */
    problem p = {.f = &f, .function = linear_function};
    add_array(&p, f.x, N * EMBD, dx);
    add_param(&p, weight);
    check_value(&p, sum);
    check(&p);
    base_free(y);
    base_free(dy);
    base_free(dx);
    fixture_close(&f);
}

static double embedding_function(const problem *p)
{
    double sum = 0;
    for (int t = 0; t < N; t++)
        for (int i = 0; i < EMBD; i++)
            sum += p->array[0][p->f->ids[t] * EMBD + i] * (double)number(101, t * EMBD + i);
    return sum;
}

static void embedding(tensor_type type)
{
    fixture f;
    const train_params_choice choice = {.type = type};
    fixture_open(&f, &choice);
    for (int i = 0; i < N; i++)
        f.ids[i] = i % 3 ? VOCAB - 1 - i : 5; /* one row for many tokens */
    float *out = floats(N * EMBD);
    train_embedding(&f.ctx, &f.tokens, out);
    train_embedding_back(&f.ctx, &f.tokens, f.d);
    problem p = {.f = &f, .function = embedding_function};
    add_param(&p, param_of(&f, MODEL_TOKEN_EMBD));
    check_value(&p, weighted(out));
    /* Only some rows have tokens, all of which are looked at. */
    for (int i = 0; i < EMBD; i++) {
        double want = 0;
        for (int t = 0; t < N; t++)
            want += f.ids[t] == 5 ? (double)number(101, t * EMBD + i) : 0;
        assert_true(fabs(want - (double)p.gradient[0][5 * EMBD + i]) < 1e-5);
        assert_true(p.gradient[0][6 * EMBD + i] == 0);
    }
    free(p.array[0]);
    base_free(out);
    fixture_close(&f);
}

static double ffn_function(const problem *p)
{
    double sum = 0, n[EMBD], h[FFN];
    for (int t = 0; t < N; t++) {
        const double *x = p->array[0] + t * EMBD;
        plain_norm(x, p->array[1], n);
        for (int r = 0; r < FFN; r++) {
            double gate = plain_dot(n, p->array[2] + r * EMBD, EMBD);
            h[r] = gate / (1 + exp(-gate)) * plain_dot(n, p->array[3] + r * EMBD, EMBD);
        }
        for (int i = 0; i < EMBD; i++)
            sum += (x[i] + plain_dot(h, p->array[4] + i * FFN, FFN)) *
                   (double)number(101, t * EMBD + i);
    }
    return sum;
}

static void ffn(tensor_type type)
{
    fixture f;
    const train_params_choice choice = {.type = type};
    fixture_open(&f, &choice);
    train_ffn_saved saved;
    train_ffn_work work;
    train_arena arena = {0};
    train_ffn_save(&f.source.config, N, &arena, &saved);
    train_ffn_plan(&f.source.config, N, &arena, &work);
    void *memory = arena.base = (uint8_t *)floats((int64_t)arena.used / 4);
    arena.used = 0;
    train_ffn_save(&f.source.config, N, &arena, &saved);
    train_ffn_plan(&f.source.config, N, &arena, &work);
    float *out = floats(N * EMBD);
    train_ffn(&f.ctx, 0, N, f.x, &saved, &work, out);
    train_ffn_back(&f.ctx, 0, N, f.x, &saved, &work, f.d);
    problem p = {.f = &f, .function = ffn_function};
    add_array(&p, f.x, N * EMBD, f.d);
    static const model_role roles[] = {MODEL_FFN_NORM, MODEL_FFN_GATE, MODEL_FFN_UP,
                                       MODEL_FFN_DOWN};
    for (int i = 0; i < 4; i++)
        add_param(&p, param_of(&f, roles[i]));
    check_value(&p, weighted(out));
    check(&p);
    base_free(out);
    base_free(memory);
    fixture_close(&f);
}

static double head_function(const problem *p)
{
    double sum = 0, n[EMBD], logits[VOCAB];
    for (int t = 0; t < N; t++) {
        if (p->f->targets[t] < 0)
            continue;
        plain_norm(p->array[0] + t * EMBD, p->array[1], n);
        double exps = 0;
        for (int r = 0; r < VOCAB; r++) {
            logits[r] = plain_dot(n, p->array[2] + r * EMBD, EMBD);
            exps += exp(logits[r]);
        }
        sum += 0.25 * (log(exps) - logits[p->f->targets[t]]);
    }
    return sum;
}

static void head(tensor_type type)
{
    fixture f;
    const train_params_choice choice = {.type = type};
    fixture_open(&f, &choice);
    train_head_work work;
    train_arena arena = {0};
    train_head_plan(&f.source.config, N, &arena, &work);
    void *memory = arena.base = (uint8_t *)floats((int64_t)arena.used / 4);
    arena.used = 0;
    train_head_plan(&f.source.config, N, &arena, &work);
    work.block = 32; /* several blocks, the last one smaller */
    double weight = 0.25, losses[N], alone[N], sum = 0;
    const train_objective objective = {.row = train_cross_entropy, .user = &weight};
    train_head(&f.ctx, &f.tokens, &objective, f.x, &work, alone, NULL);
    train_head(&f.ctx, &f.tokens, &objective, f.x, &work, losses, f.d);
    for (int t = 0; t < N; t++) {
        sum += losses[t] * weight;
        assert_true(losses[t] == alone[t]);
        assert_true((losses[t] == 0) == (f.targets[t] < 0));
    }
    problem p = {.f = &f, .function = head_function};
    add_array(&p, f.x, N * EMBD, f.d);
    add_param(&p, param_of(&f, MODEL_OUTPUT_NORM));
    add_param(&p, param_of(&f, MODEL_OUTPUT));
    check_value(&p, sum);
    check(&p);
    base_free(memory);
    fixture_close(&f);
}

/* base + s B A, weighted by what is taken for the gradient of the matrix. */
static double lora_function(const problem *p)
{
    double sum = 0;
    for (int r = 0; r < FFN; r++)
        for (int c = 0; c < EMBD; c++) {
            double ba = 0;
            for (int k = 0; k < RANK; k++)
                ba += p->array[1][r * RANK + k] * p->array[0][k * EMBD + c];
            sum += (p->array[2][r * EMBD + c] + 2 * ba) * (double)number(103, r * EMBD + c);
        }
    return sum;
}

static void lora(tensor_type type)
{
    fixture f;
    const train_params_choice choice = {
        .type = type, .lora_rank = RANK, .lora_alpha = 2 * RANK, .lora_experts = true};
    fixture_open(&f, &choice);
    const train_param *w = param_of(&f, MODEL_FFN_GATE);
    assert_int_equal(w->state, TRAIN_ADAPTED);
    const train_param *a = &f.params->items[w->lora_a], *b = &f.params->items[w->lora_b];
    float *base = floats(FFN * EMBD), *after = floats(FFN * EMBD);
    memcpy(base, train_weight(f.params, w, 0, 0, FFN, after), FFN * EMBD * sizeof *base);
    train_lora_apply(&f.ctx);
    /* B is zero at first: nothing has changed. */
    assert_memory_equal(train_weight(f.params, w, 0, 0, FFN, after), base,
                        FFN * EMBD * sizeof *base);
    for (int i = 0; i < FFN * RANK; i++) {
        float x = number(104, i);
        void *value = f.params->sections[TRAIN_SHARED].value;
        if (type == TENSOR_BF16)
            ((uint16_t *)value)[b->offset + i] = tensor_f32_to_bf16(x);
        else
            ((float *)value)[b->offset + i] = x;
    }
    train_lora_apply(&f.ctx);
    float *dw = train_grad(f.params, w, 0);
    for (int i = 0; i < FFN * EMBD; i++)
        dw[i] = number(103, i);
    train_lora_back(&f.ctx);
    for (int i = 0; i < FFN * EMBD; i++)
        assert_true(dw[i] == 0);
    problem p = {.f = &f, .function = lora_function};
    add_param(&p, a);
    add_param(&p, b);
    add_array(&p, base, FFN * EMBD, NULL);
    double sum = 0;
    const float *now = train_weight(f.params, w, 0, 0, FFN, after);
    for (int i = 0; i < FFN * EMBD; i++)
        sum += (double)now[i] * (double)number(103, i);
    if (type == TENSOR_F32)
        check_value(&p, sum);
    free(p.array[2]);
    p.n = 2;
    problem without_base = p;
    without_base.array[2] = calloc(FFN * EMBD, sizeof(double));
    check(&without_base);
    free(without_base.array[2]);
    base_free(base);
    base_free(after);
    fixture_close(&f);
}

#define BOTH(name)                                                                                 \
    static void name##_in_f32(void **state)                                                        \
    {                                                                                              \
        (void)state;                                                                               \
        name(TENSOR_F32);                                                                          \
    }                                                                                              \
    static void name##_in_bf16(void **state)                                                       \
    {                                                                                              \
        (void)state;                                                                               \
        name(TENSOR_BF16);                                                                         \
    }

BOTH(norm)
BOTH(linear)
BOTH(embedding)
BOTH(ffn)
BOTH(head)
BOTH(lora)

int main(void)
{
    marco_train_prepare();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_in_f32),      cmocka_unit_test(norm_in_bf16),
        cmocka_unit_test(linear_in_f32),    cmocka_unit_test(linear_in_bf16),
        cmocka_unit_test(embedding_in_f32), cmocka_unit_test(embedding_in_bf16),
        cmocka_unit_test(ffn_in_f32),       cmocka_unit_test(ffn_in_bf16),
        cmocka_unit_test(head_in_f32),      cmocka_unit_test(head_in_bf16),
        cmocka_unit_test(lora_in_f32),      cmocka_unit_test(lora_in_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
