#include "experts_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/random.h"

enum { MAX_TENSORS = 32, ROWS_STREAM = 1000, GRADIENT_STREAM, SEED = 5 };

/* ---- weights -------------------------------------------------------------------------------- */

typedef struct formula {
    model_source source; /* first: is cast */
    double router;
    model_tensor tensors[MAX_TENSORS];
} formula;

static float number(uint64_t stream, uint64_t index)
{
    return (float)(2 * base_random_unit(SEED, stream, index) - 1);
}

static marco_status read_formula(model_source *source, size_t index, int64_t mat, int64_t row0,
                                 int64_t n_rows, void *dst, marco_error *error)
{
    (void)error;
    const formula *f = (const formula *)source;
    const model_tensor *t = &f->tensors[index];
    float *out = dst, size = 1.7f / sqrtf((float)t->cols);
    bool vector = model_role_is_vector(t->role);
    size = t->role == MODEL_ROUTER ? size * (float)f->router : vector ? 0.3f : size;
    for (int64_t i = 0; i < n_rows * t->cols; i++) {
        int64_t at = (mat * t->rows + row0) * t->cols + i;
        out[i] = (vector ? 1.0f : 0.0f) +
                 size * number((uint64_t)(t->role + 100 * (t->layer + 1)), (uint64_t)at);
    }
    return MARCO_OK;
}

static void fill_config(const experts_shape *shape, model_config *config)
{
    model_config_init(config);
    config->arch = MODEL_QWEN3MOE;
    config->n_layers = 2;
    config->n_heads = config->n_kv_heads = 1;
    config->head_dim = 2;
    config->n_vocab = 3;
    config->n_embd = shape->embd;
    config->n_experts = shape->experts;
    config->n_experts_used = shape->used;
    config->expert_dim = shape->width;
    config->norm_topk_prob = !shape->as_they_are;
    config->layer_sparse[0] = config->layer_sparse[1] = config->qk_norm = config->tied = true;
    config->rms_eps = 1e-5;
}

static void load_params(experts_fixture *f)
{
    formula source = {.source = {.path = "formula", .read = read_formula}};
    fill_config(&f->shape, &source.source.config);
    source.router = f->shape.router > 0 ? f->shape.router : 1;
    source.source.n_tensors =
        model_config_tensors(&source.source.config, source.tensors, MAX_TENSORS);
    source.source.tensors = source.tensors;
    assert_true(source.source.n_tensors <= MAX_TENSORS);
    train_params_choice choice = {
        .type = f->shape.type, .freeze = &f->shape.freeze, .n_freeze = f->shape.freeze ? 1 : 0};
    marco_error error;
    if (train_params_load(&source.source, &choice, f->ctx.comm, &f->params, &error))
        fail_msg("%s", error.message);
    f->ctx.params = f->params;
}

/* ---- the fixture ---------------------------------------------------------------------------- */

static void layout(experts_fixture *f, train_arena *arena)
{
    const model_config *config = &f->params->config;
    int64_t n = f->shape.n, experts = config->n_experts;
    f->x = train_arena_floats(arena, n * config->n_embd);
    f->out = train_arena_floats(arena, n * config->n_embd);
    f->d = train_arena_floats(arena, n * config->n_embd);
    f->stats.load = train_arena_take(arena, experts, sizeof *f->stats.load);
    f->stats.seen = train_arena_take(arena, experts, sizeof *f->stats.seen);
    f->stats.bias = train_arena_floats(arena, experts);
    train_experts_save(config, n, &f->grown, arena, &f->saved);
    f->work = train_experts_plan(config, f->ctx.comm, n, arena);
    int64_t grouped = train_experts_scratch(config), linear = train_linear_scratch(config);
    for (int i = 0; i < base_pool_threads(f->pool); i++) {
        float *scratch = train_arena_floats(arena, grouped > linear ? grouped : linear);
        if (arena->base)
            f->ctx.scratch[i] = scratch;
    }
}

void experts_open(experts_fixture *f, const experts_shape *shape)
{
    *f = (experts_fixture){.shape = *shape};
    for (train_group g = 0; g < TRAIN_GROUP_END; g++)
        f->alone.size[g] = 1;
    marco_error error;
    if (train_blas_open(4, &f->blas, &error))
        fail_msg("%s", error.message);
    int threads = shape->threads > 0 ? shape->threads : 1;
    if (base_pool_create(threads, &f->pool, &error))
        fail_msg("%s", error.message);
    f->ctx = (train_context){.comm = shape->comm ? shape->comm : &f->alone,
                             .pool = f->pool,
                             .kern = kern_table_get(shape->level),
                             .blas = f->blas};
    assert_non_null(f->ctx.kern);
    load_params(f);
    f->ctx.scratch = calloc((size_t)threads, sizeof *f->ctx.scratch);
    assert_non_null(f->ctx.scratch);
    train_arena arena = {0};
    layout(f, &arena);
    f->memory_bytes = arena.used;
    f->memory = base_region_alloc(f->memory_bytes);
    assert_non_null(f->memory);
    arena = (train_arena){.base = f->memory};
    layout(f, &arena);
    assert_int_equal(arena.used, f->memory_bytes);

    f->tokens = (train_tokens){.n_seqs = 1, .seq_len = shape->n, .n = shape->n};
    f->pass = (train_routing_pass){.training = true, .aux_scale = 1};
    for (int64_t i = 0; i < shape->n * shape->embd; i++)
        f->x[i] = number(ROWS_STREAM, (uint64_t)(shape->first_token * shape->embd + i));
}

void experts_close(experts_fixture *f)
{
    train_experts_grown_release(&f->grown);
    train_experts_work_release(f->work);
    base_region_free(f->memory, f->memory_bytes);
    free(f->ctx.scratch);
    train_params_free(f->params);
    base_pool_destroy(f->pool);
    train_blas_close(f->blas);
}

marco_status experts_try_forward(experts_fixture *f, bool again, marco_error *error)
{
    return train_experts(&f->ctx, f->layer, &f->tokens, &f->routing, &f->pass, again, f->x,
                         &f->saved, f->work, &f->stats, f->out, error);
}

void experts_forward(experts_fixture *f)
{
    marco_error error;
    if (experts_try_forward(f, false, &error))
        fail_msg("%s", error.message);
}

void experts_gradient_of_out(const experts_fixture *f, float *d)
{
    int64_t first = f->shape.first_token * f->shape.embd;
    for (int64_t i = 0; i < f->shape.n * f->shape.embd; i++)
        d[i] = number(GRADIENT_STREAM, (uint64_t)(first + i));
}

marco_status experts_try_back(experts_fixture *f, marco_error *error)
{
    for (int s = 0; s < TRAIN_SECTION_END; s++) {
        train_values *values = &f->params->sections[s];
        if (values->graded)
            memset(values->grad, 0, (size_t)values->graded * sizeof *values->grad);
    }
    experts_gradient_of_out(f, f->d);
    return train_experts_back(&f->ctx, f->layer, &f->tokens, &f->routing, &f->pass, f->x, &f->saved,
                              f->work, &f->stats, f->d, error);
}

void experts_back(experts_fixture *f)
{
    marco_error error;
    if (experts_try_back(f, &error))
        fail_msg("%s", error.message);
}

static const train_param *param_of(const experts_fixture *f, model_role role)
{
    const train_param *param = train_params_find(f->params, role, f->layer);
    assert_non_null(param);
    return param;
}

int64_t experts_size(const experts_fixture *f, model_role role)
{
    return train_param_size(param_of(f, role));
}

void experts_values(const experts_fixture *f, model_role role, double *out)
{
    const train_param *param = param_of(f, role);
    int64_t matrix = train_param_matrix(param);
    float *scratch = malloc((size_t)matrix * sizeof *scratch);
    assert_non_null(scratch);
    for (int64_t m = 0; m < param->mats; m++) {
        const float *w = train_weight(f->params, param, m, 0, param->tensor.rows, scratch);
        for (int64_t i = 0; i < matrix; i++)
            *out++ = w[i];
    }
    free(scratch);
}

const float *experts_gradient(const experts_fixture *f, model_role role)
{
    return train_grad(f->params, param_of(f, role), 0);
}

static uint64_t mix(uint64_t hash, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        hash = base_random_mix(hash + bits + BASE_RANDOM_STEP);
    }
    return hash;
}

uint64_t experts_hash(const experts_fixture *f)
{
    int64_t n = f->shape.n * f->shape.embd;
    uint64_t hash = mix(mix(0, f->out, n), f->d, n);
    for (int s = 0; s < TRAIN_SECTION_END; s++)
        hash = mix(hash, f->params->sections[s].grad, f->params->sections[s].graded);
    return hash;
}
