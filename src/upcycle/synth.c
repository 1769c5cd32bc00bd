#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"
#include "upcycle/shapes.h"
#include "upcycle/stream.h"
#include "upcycle/upcycle.h"

typedef struct synth_source {
    model_source base;
    base_gaussian *gaussian;
    model_tensor *tensors;
    uint64_t seed;
} synth_source;

marco_synth_params marco_synth_params_default(void)
{
    return (marco_synth_params){0};
}

const char *marco_synth_shape(size_t i, const char **description)
{
    const upcycle_shape *shape = upcycle_shape_at(i);
    if (shape && description)
        *description = shape->description;
    return shape ? shape->name : NULL;
}

/* The deviation is 0.02 for Marco's 1024 columns and grows as rows get shorter, so that in every
 * shape a row times a normalised vector has the deviation 0.64: activations neither vanish nor
 * grow, and no shape's router is sharper than another's. */
static float deviation_of(const model_tensor *tensor)
{
    return (float)(0.64 / sqrt((double)tensor->cols));
}

static marco_status synth_read(model_source *source, size_t index, int64_t mat, int64_t row0,
                               int64_t n_rows, void *dst, marco_error *error)
{
    (void)error;
    const synth_source *s = (const synth_source *)source;
    const model_tensor *tensor = &s->tensors[index];
    float *out = dst; /* [n_rows, cols] */
    if (model_role_is_vector(tensor->role)) {
        for (int64_t i = 0; i < n_rows * tensor->cols; i++)
            out[i] = 1;
        return MARCO_OK;
    }
    uint64_t stream = upcycle_stream(UPCYCLE_WEIGHTS, tensor->role, tensor->layer);
    float deviation = deviation_of(tensor);
    for (int64_t row = row0; row < row0 + n_rows; row++, out += tensor->cols)
        base_gaussian_fill(s->gaussian, s->seed, stream, upcycle_item(mat, row), 0, deviation, out,
                           tensor->cols);
    return MARCO_OK;
}

static void synth_close(model_source *source)
{
    synth_source *s = (synth_source *)source;
    base_gaussian_free(s->gaussian);
    tok_spec_free(s->base.tokenizer);
    base_free(s->tensors);
    base_free(s->base.path);
    base_free(s);
}

/* ---- the tokenizer ------------------------------------------------------------------------- */

static marco_status set_tokenizer(synth_source *s, const char *path, marco_error *error)
{
    marco_status status = path ? tok_spec_read(path, &s->base.tokenizer, error)
                               : tok_spec_bytes(&s->base.tokenizer, error);
    if (status != MARCO_OK)
        return status;
    int32_t size = tok_spec_size(s->base.tokenizer);
    if (size > s->base.config.n_vocab)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "the tokenizer of %s has %d tokens, more than the vocabulary of %s (%d); "
                         "give a smaller tokenizer or another shape",
                         path ? path : "256 bytes", size, s->base.path, s->base.config.n_vocab);
    model_config_take_ids(&s->base.config, s->base.tokenizer);
    return MARCO_OK;
}

/* ---- the source ---------------------------------------------------------------------------- */

static void fill_config(const upcycle_shape *shape, const marco_synth_params *params,
                        model_config *config)
{
    model_config_init(config);
    config->arch = shape->arch;
    config->n_layers = params->layers ? params->layers : shape->n_layers;
    config->n_embd = shape->n_embd;
    config->n_heads = shape->n_heads;
    config->n_kv_heads = shape->n_kv_heads;
    config->head_dim = shape->head_dim;
    config->n_vocab = shape->n_vocab;
    config->ffn_dim = shape->ffn_dim;
    config->n_experts = shape->n_experts;
    config->n_experts_used = shape->n_experts_used;
    config->expert_dim = shape->expert_dim;
    config->norm_topk_prob = shape->n_experts > 0;
    for (int32_t i = 0; i < config->n_layers; i++)
        config->layer_sparse[i] = shape->n_experts > 0;
    config->qk_norm = shape->arch == MODEL_QWEN3 || shape->arch == MODEL_QWEN3MOE;
    config->tied = shape->tied;
    config->rms_eps = shape->rms_eps;
    config->rope.theta = shape->rope_theta;
    config->n_ctx_train = shape->n_ctx_train;
    snprintf(config->name, sizeof(config->name), "%s-random", shape->name);
    snprintf(config->provenance, sizeof(config->provenance),
             "random weights in the shape of %s, seed %llu: fit for measuring speed and memory, "
             "not for reading",
             shape->name, (unsigned long long)params->seed);
}

static marco_status fail_shape(const char *name, marco_error *error)
{
    base_text names = {0};
    for (size_t i = 0; upcycle_shape_at(i); i++)
        base_text_printf(&names, "%s%s", i ? ", " : "", upcycle_shape_at(i)->name);
    marco_status status =
        base_fail(error, MARCO_ERROR_ARGUMENT, "there is no shape named %s; there are %s", name,
                  names.data && !names.failed ? names.data : "others");
    base_text_free(&names);
    return status;
}

marco_status upcycle_synth_source(const char *name, const marco_synth_params *params,
                                  model_source **out, marco_error *error)
{
    const upcycle_shape *shape = upcycle_shape_find(name);
    if (!shape)
        return fail_shape(name, error);
    if (params->layers < 0 || params->layers > MODEL_MAX_LAYERS)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%d layers asked for; give 1 to %d, or 0 for those of %s", params->layers,
                         (int)MODEL_MAX_LAYERS, name);
    synth_source *s = base_calloc(1, sizeof(*s));
    if (!s)
        return base_fail_memory(error, sizeof(*s), "a model");
    s->base.read = synth_read;
    s->base.close = synth_close;
    s->seed = params->seed;
    fill_config(shape, params, &s->base.config);
    marco_status status = MARCO_OK;
    s->base.path = base_strdup(name);
    if (!s->base.path)
        status = base_fail_memory(error, strlen(name) + 1, "a name");
    if (status == MARCO_OK)
        status = set_tokenizer(s, params->tokenizer, error);
    if (status == MARCO_OK)
        status = upcycle_list_tensors(&s->base, &s->tensors, error);
    if (status == MARCO_OK)
        status = base_gaussian_create(&s->gaussian, error);
    if (status != MARCO_OK) {
        synth_close(&s->base);
        return status;
    }
    *out = &s->base;
    return MARCO_OK;
}

marco_status marco_synth(const char *shape, const char *to, const marco_synth_params *params,
                         marco_error *error)
{
    marco_synth_params defaults = marco_synth_params_default();
    if (!params)
        params = &defaults;
    if (!shape || !to || !to[0])
        return base_fail(error, MARCO_ERROR_ARGUMENT, "synth needs a shape and an output");
    int type = model_copy_to_gguf(to) ? TENSOR_Q8_0 : TENSOR_BF16;
    marco_status status = upcycle_parse_type(params->type, &type, error);
    if (status != MARCO_OK)
        return status;
    model_source *source = NULL;
    status = upcycle_synth_source(shape, params, &source, error);
    if (status != MARCO_OK)
        return status;
    const model_copy_params copy = {
        .type = type,
        .overwrite = params->overwrite,
        .threads = params->threads,
        .progress = params->progress,
        .what = "making random weights",
    };
    return model_copy_and_close(source, to, &copy, error);
}
