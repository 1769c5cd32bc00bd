#include "train/source.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/gaussian.h"
#include "base/memory.h"
#include "base/random.h"

/* ---- the weights in training --------------------------------------------------------------- */

typedef struct live_source {
    model_source base;
    const train_params *params;
    model_tensor *tensors;
} live_source;

static marco_status live_read(model_source *source, size_t index, int64_t mat, int64_t row0,
                              int64_t n_rows, void *dst, marco_error *error)
{
    const live_source *s = (const live_source *)source;
    const model_tensor *t = &s->tensors[index];
    const train_param *param = train_params_find(s->params, t->role, t->layer);
    if (mat < param->mat0 || mat >= param->mat0 + param->mats)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED, "%s: expert %lld is another process's",
                         param->name, (long long)mat);
    size_t element = tensor_row_bytes(t->type, 1);
    int64_t at = param->offset + ((mat - param->mat0) * t->rows + row0) * t->cols;
    const char *values = s->params->sections[param->section].value;
    memcpy(dst, values + (size_t)at * element, (size_t)(n_rows * t->cols) * element);
    return MARCO_OK;
}

static void live_close(model_source *source)
{
    live_source *s = (live_source *)source;
    base_free(s->tensors);
    base_free(s->base.path);
    base_free(s);
}

/* The tensors of source->config in one type. */
static marco_status list_tensors(model_source *source, tensor_type type, model_tensor **tensors,
                                 marco_error *error)
{
    size_t n = model_config_tensors(&source->config, NULL, 0);
    *tensors = base_alloc_array(n, sizeof(**tensors));
    if (!*tensors)
        return base_fail_memory(error, n * sizeof(**tensors), "a list of tensors");
    model_config_tensors(&source->config, *tensors, n);
    for (size_t i = 0; i < n; i++)
        (*tensors)[i].type = type;
    source->tensors = *tensors;
    source->n_tensors = n;
    return MARCO_OK;
}

marco_status train_params_source(const train_params *params, model_source **out, marco_error *error)
{
    live_source *s = base_calloc(1, sizeof(*s));
    if (!s)
        return base_fail_memory(error, sizeof(*s), "a model");
    s->base = (model_source){.read = live_read,
                             .close = live_close,
                             .config = params->config,
                             .tokenizer = params->tokenizer};
    s->params = params;
    marco_status status = MARCO_OK;
    s->base.path = base_strdup("the model in training");
    if (!s->base.path)
        status = base_fail_memory(error, 32, "a name");
    if (!status)
        status = list_tensors(&s->base, params->type, &s->tensors, error);
    if (status) {
        live_close(&s->base);
        return status;
    }
    *out = &s->base;
    return MARCO_OK;
}

/* ---- random numbers ------------------------------------------------------------------------ */

typedef struct random_source {
    model_source base;
    base_gaussian *gaussian;
    model_tensor *tensors;
    uint64_t seed;
    float std;
} random_source;

static marco_status random_read(model_source *source, size_t index, int64_t mat, int64_t row0,
                                int64_t n_rows, void *dst, marco_error *error)
{
    (void)error;
    const random_source *s = (const random_source *)source;
    const model_tensor *t = &s->tensors[index];
    float *out = dst; /* [n_rows, cols] */
    if (model_role_is_vector(t->role)) {
        for (int64_t i = 0; i < n_rows * t->cols; i++)
            out[i] = 1;
        return MARCO_OK;
    }
    uint64_t stream =
        base_random_stream(BASE_RANDOM_WEIGHTS, (uint64_t)t->role << 32 | (uint64_t)(t->layer + 1));
    for (int64_t row = row0; row < row0 + n_rows; row++, out += t->cols)
        base_gaussian_fill(s->gaussian, s->seed, stream,
                           (uint64_t)mat << 32 | (uint64_t)(uint32_t)row, 0, s->std, out, t->cols);
    return MARCO_OK;
}

static void random_close(model_source *source)
{
    random_source *s = (random_source *)source;
    base_gaussian_free(s->gaussian);
    tok_spec_free(s->base.tokenizer);
    base_free(s->tensors);
    base_free(s->base.path);
    base_free(s);
}

static marco_status take_tokenizer(random_source *s, const char *path, marco_error *error)
{
    model_config *config = &s->base.config;
    marco_status status = tok_spec_read(path, &s->base.tokenizer, error);
    if (status)
        return status;
    int32_t size = tok_spec_size(s->base.tokenizer);
    if (config->n_vocab == 0)
        config->n_vocab = size;
    if (size > config->n_vocab)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "the tokenizer of %s has %d tokens, more than the model's vocabulary of "
                         "%d; leave model.vocab out",
                         path, size, config->n_vocab);
    model_config_take_ids(config, s->base.tokenizer);
    return MARCO_OK;
}

marco_status train_random_source(const model_config *config, double std, uint64_t seed,
                                 const char *tokenizer, model_source **out, marco_error *error)
{
    random_source *s = base_calloc(1, sizeof(*s));
    if (!s)
        return base_fail_memory(error, sizeof(*s), "a model");
    s->base = (model_source){.read = random_read, .close = random_close, .config = *config};
    s->seed = seed;
    s->std = (float)std;
    marco_status status = MARCO_OK;
    s->base.path = base_strdup("the recipe's model");
    if (!s->base.path)
        status = base_fail_memory(error, 32, "a name");
    if (!status)
        status = take_tokenizer(s, tokenizer, error);
    if (!status)
        status = model_config_check(&s->base.config, s->base.path, error);
    if (!status)
        status = list_tensors(&s->base, TENSOR_F32, &s->tensors, error);
    if (!status)
        status = base_gaussian_create(&s->gaussian, error);
    if (status) {
        random_close(&s->base);
        return status;
    }
    *out = &s->base;
    return MARCO_OK;
}
