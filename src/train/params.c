#include "train/params.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"

enum { READ_FLOATS = 1 << 18, SHARD_GRAIN = 64 };

/* ---- what is trained ----------------------------------------------------------------------- */

static bool is_attention(model_role role)
{
    return role == MODEL_ATTN_Q || role == MODEL_ATTN_K || role == MODEL_ATTN_V ||
           role == MODEL_ATTN_OUT;
}

static bool is_ffn(model_role role)
{
    return model_role_is_expert(role) || role == MODEL_FFN_GATE || role == MODEL_FFN_UP ||
           role == MODEL_FFN_DOWN;
}

static bool is_embedding(model_role role)
{
    return role == MODEL_TOKEN_EMBD || role == MODEL_OUTPUT;
}

static bool matches(const train_param *param, const char *pattern)
{
    model_role role = param->tensor.role;
    if (strcmp(pattern, "router") == 0)
        return role == MODEL_ROUTER;
    if (strcmp(pattern, "experts") == 0)
        return model_role_is_expert(role);
    if (strcmp(pattern, "attention") == 0)
        return is_attention(role);
    if (strcmp(pattern, "norms") == 0)
        return model_role_is_vector(role);
    if (strcmp(pattern, "embeddings") == 0)
        return is_embedding(role);
    return fnmatch(pattern, param->name, 0) == 0;
}

static bool matches_any(const train_param *param, const char *const *patterns, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (matches(param, patterns[i]))
            return true;
    return false;
}

static train_state choose_state(const train_param *param, const train_params_choice *choice)
{
    bool frozen = matches_any(param, choice->freeze, choice->n_freeze);
    if (choice->lora_rank > 0 && !frozen) {
        model_role role = param->tensor.role;
        if ((choice->lora_attention && is_attention(role)) ||
            (choice->lora_experts && is_ffn(role)))
            return TRAIN_ADAPTED;
    }
    /* With adapters the rest stands still unless it is asked for. */
    bool asked = choice->n_train ? matches_any(param, choice->train, choice->n_train)
                                 : choice->lora_rank == 0;
    return asked && !frozen ? TRAIN_TRAINED : TRAIN_FROZEN;
}

/* ---- the list ------------------------------------------------------------------------------ */

static void list_tensor(const model_config *config, const train_params_choice *choice,
                        const train_comm *comm, const model_tensor *tensor, train_param *param)
{
    *param = (train_param){.tensor = *tensor, .mats = tensor->mats};
    model_tensor_gguf_name(tensor, param->name);
    if (model_role_is_expert(tensor->role)) {
        param->section = TRAIN_OWN_EXPERTS;
        param->mats = config->n_experts / comm->size[TRAIN_EXPERTS];
        param->mat0 = param->mats * comm->rank[TRAIN_EXPERTS];
    }
    param->state = choose_state(param, choice);
    param->decayed = !model_role_is_vector(tensor->role) || choice->decay_norms;
    if (is_embedding(tensor->role))
        param->decayed = choice->decay_embeddings;
}

static void list_adapters(train_params *params, size_t of, int32_t rank)
{
    train_param *param = &params->items[of];
    for (train_adapter adapter = TRAIN_ADAPTER_A; adapter <= TRAIN_ADAPTER_B; adapter++) {
        size_t at = params->n++;
        train_param *item = &params->items[at];
        *item = *param;
        item->state = TRAIN_TRAINED;
        item->adapter = adapter;
        item->of = of;
        item->decayed = true;
        if (adapter == TRAIN_ADAPTER_A)
            item->tensor.rows = rank;
        else
            item->tensor.cols = rank;
        snprintf(item->name, sizeof item->name, "%.100s.lora_%c", param->name,
                 adapter == TRAIN_ADAPTER_A ? 'a' : 'b');
        *(adapter == TRAIN_ADAPTER_A ? &param->lora_a : &param->lora_b) = at;
    }
}

static marco_status list(train_params *params, const train_params_choice *choice,
                         const train_comm *comm, marco_error *error)
{
    size_t n = model_config_tensors(&params->config, NULL, 0);
    model_tensor *tensors = base_alloc_array(n, sizeof *tensors);
    params->items = base_alloc_array(3 * n, sizeof *params->items);
    if (!tensors || !params->items) {
        base_free(tensors);
        return base_fail_memory(error, 3 * n * sizeof *params->items, "the list of parameters");
    }
    model_config_tensors(&params->config, tensors, n);
    for (size_t i = 0; i < n; i++)
        list_tensor(&params->config, choice, comm, &tensors[i], &params->items[i]);
    base_free(tensors);
    params->n = n;
    for (size_t i = 0; i < n; i++)
        if (params->items[i].state == TRAIN_ADAPTED)
            list_adapters(params, i, choice->lora_rank);
    return MARCO_OK;
}

/* ---- what a choice must be ----------------------------------------------------------------- */

static marco_status check_patterns(const train_params *params, const char *key,
                                   const char *const *patterns, size_t n, marco_error *error)
{
    for (size_t k = 0; k < n; k++) {
        bool fits = false;
        for (size_t i = 0; i < params->n && !fits; i++)
            fits = !params->items[i].adapter && matches(&params->items[i], patterns[k]);
        if (!fits)
            return base_fail(error, MARCO_ERROR_ARGUMENT,
                             "%s: no tensor of this model fits \"%.100s\"; patterns are router, "
                             "experts, attention, norms, embeddings, or go over names such as "
                             "\"blk.0.attn_q.weight\"",
                             key, patterns[k]);
    }
    return MARCO_OK;
}

/* A run that trains nothing, or another thing than was meant, is found out before it begins. */
static marco_status check_choice(const train_params *params, const train_params_choice *choice,
                                 marco_error *error)
{
    size_t trained = 0, adapters = 0;
    marco_status status = check_patterns(params, "train", choice->train, choice->n_train, error);
    if (!status)
        status = check_patterns(params, "freeze", choice->freeze, choice->n_freeze, error);
    for (size_t i = 0; i < params->n; i++) {
        trained += params->items[i].state == TRAIN_TRAINED;
        adapters += params->items[i].adapter != TRAIN_NO_ADAPTER;
    }
    if (!status && choice->lora_rank > 0 && adapters == 0)
        status =
            base_fail(error, MARCO_ERROR_ARGUMENT,
                      "lora.rank is %d, and there is no matrix to adapt: set lora.attention or "
                      "lora.experts true, and let freeze leave some of them",
                      choice->lora_rank);
    if (!status && trained == 0)
        status = base_fail(error, MARCO_ERROR_ARGUMENT,
                           "nothing would be trained: freeze has all that train leaves");
    return status;
}

/* ---- places -------------------------------------------------------------------------------- */

static void place(train_params *params, const train_comm *comm)
{
    for (int s = 0; s < TRAIN_SECTION_END; s++) {
        train_values *values = &params->sections[s];
        int sharers = comm->size[train_section_group((train_section)s)];
        int64_t grain = (int64_t)SHARD_GRAIN * sharers;
        for (train_state state = TRAIN_TRAINED; state <= TRAIN_FROZEN; state++) {
            for (size_t i = 0; i < params->n; i++) {
                train_param *param = &params->items[i];
                if ((int)param->section != s || param->state != state)
                    continue;
                param->offset = values->size;
                /* Each begins at a cache line. */
                values->size += (train_param_size(param) + 15) / 16 * 16;
            }
            if (state == TRAIN_TRAINED)
                values->trained = values->size = (values->size + grain - 1) / grain * grain;
            if (state == TRAIN_ADAPTED)
                values->graded = values->size;
        }
    }
}

static size_t value_bytes(const train_params *params)
{
    return params->type == TENSOR_BF16 ? sizeof(uint16_t) : sizeof(float);
}

static marco_status take_memory(train_params *params, marco_error *error)
{
    for (int s = 0; s < TRAIN_SECTION_END; s++) {
        train_values *values = &params->sections[s];
        size_t adapted = (size_t)(values->graded - values->trained);
        size_t bytes = (size_t)values->size * value_bytes(params);
        if (values->size && !(values->value = base_region_alloc(bytes)))
            return base_fail_memory(error, bytes, "parameters");
        bytes = (size_t)values->graded * sizeof(float);
        if (values->graded && !(values->grad = base_region_alloc(bytes)))
            return base_fail_memory(error, bytes, "gradients");
        if (adapted && !(params->base[s] = base_region_alloc(adapted * sizeof(float))))
            return base_fail_memory(error, adapted * sizeof(float), "adapted parameters");
    }
    return MARCO_OK;
}

/* ---- reading ------------------------------------------------------------------------------- */

static bool wants_all(void *user, const train_param *param)
{
    (void)user;
    (void)param;
    return true;
}

static void put(void *user, const train_param *param, int64_t at, const float *x, int64_t n)
{
    train_params *params = user;
    void *value = params->sections[param->section].value;
    if (params->type == TENSOR_BF16)
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)value)[param->offset + at + i] = tensor_f32_to_bf16(x[i]);
    else
        memcpy((float *)value + param->offset + at, x, (size_t)n * sizeof(float));
    if (param->state == TRAIN_ADAPTED)
        memcpy(params->base[param->section] +
                   (param->offset - params->sections[param->section].trained) + at,
               x, (size_t)n * sizeof(float));
}

static marco_status read_param(const train_reader *to, const train_param *param,
                               model_source *source, void *raw, float *rows, marco_error *error)
{
    int64_t index = model_source_find(source, param->tensor.role, param->tensor.layer);
    if (index < 0)
        return base_fail(error, MARCO_ERROR_FORMAT, "%s has no tensor %s", source->path,
                         param->name);
    const model_tensor *t = &source->tensors[index];
    int64_t step = READ_FLOATS / t->cols > 0 ? READ_FLOATS / t->cols : 1;
    for (int64_t mat = 0; mat < param->mats; mat++)
        for (int64_t row = 0; row < t->rows; row += step) {
            int64_t n = t->rows - row < step ? t->rows - row : step;
            marco_status status =
                source->read(source, (size_t)index, param->mat0 + mat, row, n, raw, error);
            if (status)
                return status;
            tensor_traits_of(t->type)->decode(raw, rows, n * t->cols);
            to->put(to->user, param, (mat * t->rows + row) * t->cols, rows, n * t->cols);
        }
    return MARCO_OK;
}

/* Uniform within 1 / sqrt(cols), as PEFT begins; B stays zero, so that adapters change nothing yet.
 */
static void begin_adapter(const train_reader *to, const train_param *param, uint64_t seed)
{
    if (param->adapter != TRAIN_ADAPTER_A)
        return;
    int64_t n = train_param_matrix(param);
    uint64_t stream = base_random_stream(BASE_RANDOM_ADAPTERS, param->of);
    double bound = 1.0 / sqrt((double)param->tensor.cols);
    for (int64_t mat = 0; mat < param->mats; mat++)
        for (int64_t i = 0; i < n; i++) {
            uint64_t index = (uint64_t)((param->mat0 + mat) * n + i);
            float x = (float)((2 * base_random_unit(seed, stream, index) - 1) * bound);
            to->put(to->user, param, mat * n + i, &x, 1);
        }
}

marco_status train_params_read(const train_params *params, model_source *source, uint64_t seed,
                               const train_reader *to, marco_error *error)
{
    size_t raw_bytes = 0, floats = READ_FLOATS;
    for (size_t i = 0; i < source->n_tensors; i++) {
        const model_tensor *t = &source->tensors[i];
        size_t cols = (size_t)t->cols > READ_FLOATS ? (size_t)t->cols : READ_FLOATS;
        floats = cols > floats ? cols : floats;
        size_t bytes = tensor_row_bytes(t->type, t->cols) * (cols / (size_t)t->cols);
        raw_bytes = bytes > raw_bytes ? bytes : raw_bytes;
    }
    void *raw = base_alloc_aligned(raw_bytes);
    float *rows = base_alloc_aligned(floats * sizeof *rows);
    marco_status status = MARCO_OK;
    if (!raw || !rows)
        status = base_fail_memory(error, raw_bytes + floats * sizeof *rows, "reading weights");
    for (size_t i = 0; i < params->n && !status; i++) {
        const train_param *param = &params->items[i];
        if (!to->wants(to->user, param))
            continue;
        if (param->adapter)
            begin_adapter(to, param, seed);
        else
            status = read_param(to, param, source, raw, rows, error);
    }
    base_free(raw);
    base_free(rows);
    return status;
}

/* ---- the interface ------------------------------------------------------------------------- */

marco_status train_params_plan(const model_config *config, const train_params_choice *choice,
                               const train_comm *comm, train_params **out, marco_error *error)
{
    *out = NULL;
    int expert_ranks = comm->size[TRAIN_EXPERTS];
    if (config->n_experts % expert_ranks)
        return base_fail(
            error, MARCO_ERROR_ARGUMENT,
            "%d experts cannot be spread over %d processes: choose a number that divides "
            "them",
            config->n_experts, expert_ranks);
    train_params *params = base_calloc(1, sizeof *params);
    if (!params)
        return base_fail_memory(error, sizeof *params, "parameters");
    params->config = *config;
    params->type = choice->type;
    params->lora_scale = choice->lora_rank > 0 ? choice->lora_alpha / choice->lora_rank : 0;
    marco_status status = list(params, choice, comm, error);
    if (!status)
        status = check_choice(params, choice, error);
    if (status) {
        train_params_free(params);
        return status;
    }
    place(params, comm);
    *out = params;
    return MARCO_OK;
}

marco_status train_params_load(model_source *source, const train_params_choice *choice,
                               const train_comm *comm, train_params **out, marco_error *error)
{
    marco_status status = train_params_plan(&source->config, choice, comm, out, error);
    if (!status)
        status = take_memory(*out, error);
    const train_reader to = {.user = *out, .wants = wants_all, .put = put};
    if (!status)
        status = train_params_read(*out, source, choice->seed, &to, error);
    if (status) {
        train_params_free(*out);
        *out = NULL;
    }
    return status;
}

void train_params_free(train_params *params)
{
    if (!params)
        return;
    for (int s = 0; s < TRAIN_SECTION_END; s++) {
        const train_values *values = &params->sections[s];
        base_region_free(values->value, (size_t)values->size * value_bytes(params));
        base_region_free(values->grad, (size_t)values->graded * sizeof(float));
        base_region_free(params->base[s],
                         (size_t)(values->graded - values->trained) * sizeof(float));
    }
    base_free(params->items);
    base_free(params);
}

const train_param *train_params_find(const train_params *params, model_role role, int32_t layer)
{
    for (size_t i = 0; i < params->n; i++) {
        const train_param *param = &params->items[i];
        if (param->tensor.role == role && param->tensor.layer == layer && !param->adapter)
            return param;
    }
    return NULL;
}

const float *train_weight(const train_params *params, const train_param *param, int64_t mat,
                          int64_t row0, int64_t n_rows, float *scratch)
{
    const void *value = params->sections[param->section].value;
    int64_t at = param->offset + mat * train_param_matrix(param) + row0 * param->tensor.cols;
    if (params->type != TENSOR_BF16)
        return (const float *)value + at;
    tensor_traits_of(TENSOR_BF16)
        ->decode((const uint16_t *)value + at, scratch, n_rows * param->tensor.cols);
    return scratch;
}

float *train_grad(const train_params *params, const train_param *param, int64_t mat)
{
    if (param->state == TRAIN_FROZEN)
        return NULL;
    return params->sections[param->section].grad + param->offset + mat * train_param_matrix(param);
}
