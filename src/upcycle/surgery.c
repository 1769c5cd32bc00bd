#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "upcycle/slices.h"
#include "upcycle/stream.h"
#include "upcycle/upcycle.h"

/* Deviation of the router's weights. */
static const float router_deviation = 0.02f;

typedef struct surgery_source {
    model_source base;
    model_source *parent;
    upcycle_plan plan;
    upcycle_slices *slices;
    base_gaussian *gaussian;
    model_tensor *tensors;
    int64_t *parent_index; /* [n_tensors]; -1: made here */
} surgery_source;

/* ---- what is asked for --------------------------------------------------------------------- */

static marco_status check_parent(const model_source *parent, marco_error *error)
{
    model_arch arch = parent->config.arch;
    if (arch == MODEL_QWEN3 || arch == MODEL_LLAMA)
        return MARCO_OK;
    return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                     "%s is a mixture of experts already (%s); upcycle cuts up dense qwen3 and "
                     "llama checkpoints",
                     parent->path, model_arch_name(arch));
}

static marco_status check_counts(const model_source *parent, const marco_upcycle_params *params,
                                 marco_error *error)
{
    int32_t ffn_dim = parent->config.ffn_dim;
    if (params->expert_dim < 1 || ffn_dim % params->expert_dim != 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "an expert dimension of %d does not divide the %d of %s's FFN; give one "
                         "that does",
                         params->expert_dim, ffn_dim, parent->path);
    int32_t n_slices = ffn_dim / params->expert_dim;
    if (params->n_experts < 1 || params->n_experts % n_slices != 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%d experts are no multiple of the %d slices of %d that %s's FFN of %d "
                         "makes; give a multiple",
                         params->n_experts, n_slices, params->expert_dim, parent->path, ffn_dim);
    if (params->top_k < 1 || params->top_k > params->n_experts)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "top-k %d is not within 1 to %d, the experts",
                         params->top_k, params->n_experts);
    return MARCO_OK;
}

static marco_status make_plan(const model_source *parent, const marco_upcycle_params *params,
                              upcycle_plan *plan, marco_error *error)
{
    marco_status status = check_counts(parent, params, error);
    if (status != MARCO_OK)
        return status;
    if (!(params->drop >= 0 && params->drop <= 1))
        return base_fail(error, MARCO_ERROR_ARGUMENT, "drop ratio %g is not within 0 to 1",
                         params->drop);
    int32_t n_slices = parent->config.ffn_dim / params->expert_dim;
    *plan = (upcycle_plan){
        .n_slices = n_slices,
        .n_experts = params->n_experts,
        .expert_dim = params->expert_dim,
        .n_drop = llround(params->drop * params->expert_dim),
        .drop_shared = params->drop_shared,
        .scale_in = 1,
        .scale_down = 1,
        .router_run = 1,
        .seed = params->seed,
    };
    switch (params->scale) {
    case MARCO_SCALE_CUBE_ROOT:
        plan->scale_in = plan->scale_down = (float)cbrt(n_slices);
        break;
    case MARCO_SCALE_DOWN:
        plan->scale_down = (float)n_slices;
        break;
    case MARCO_SCALE_NONE:
        break;
    default:
        return base_fail(error, MARCO_ERROR_ARGUMENT, "there is no scale number %d",
                         (int)params->scale);
    }
    if (params->router == MARCO_ROUTER_VIRTUAL_GROUP)
        plan->router_run = n_slices;
    else if (params->router != MARCO_ROUTER_NORMAL)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "there is no router number %d",
                         (int)params->router);
    return MARCO_OK;
}

static void describe(const surgery_source *s, const char *parent_name,
                     const marco_upcycle_params *params, model_config *config)
{
    const upcycle_plan *plan = &s->plan;
    const char *until = plan->n_drop == 0 ? "the copies of a slice are identical until trained"
                                          : "experts are partly copies until trained";
    snprintf(config->name, sizeof(config->name), "%.117s-upcycled", parent_name);
    snprintf(config->provenance, sizeof(config->provenance),
             "upcycled from %.90s: %d experts of dim %d (%d copies of %d slices), top-%d, drop %g, "
             "seed %llu; %s",
             parent_name, plan->n_experts, plan->expert_dim, plan->n_experts / plan->n_slices,
             plan->n_slices, config->n_experts_used, params->drop, (unsigned long long)plan->seed,
             until);
}

/* The parent's configuration with experts in every layer. */
static marco_status set_config(surgery_source *s, const marco_upcycle_params *params,
                               marco_error *error)
{
    const model_config *parent = &s->parent->config;
    model_config *config = &s->base.config;
    *config = *parent;
    config->arch = parent->arch == MODEL_QWEN3 ? MODEL_QWEN3MOE : MODEL_MIXTRAL;
    config->ffn_dim = 0;
    config->n_experts = params->n_experts;
    config->n_experts_used = params->top_k;
    config->expert_dim = params->expert_dim;
    config->norm_topk_prob = true;
    for (int32_t i = 0; i < config->n_layers; i++)
        config->layer_sparse[i] = true;
    describe(s, parent->name[0] ? parent->name : base_path_name(s->parent->path), params, config);
    return model_config_check(config, s->parent->path, error);
}

/* ---- the tensors --------------------------------------------------------------------------- */

/* The type asked for, or the parent's, where it can be written and rows divide into its blocks;
 * the nearest that does otherwise. */
static tensor_type type_for(int asked, tensor_type parents, int64_t cols)
{
    tensor_type type = asked >= 0 ? (tensor_type)asked : parents;
    if (!tensor_traits_of(type)->encode)
        type = TENSOR_Q8_0;
    if (cols % tensor_traits_of(type)->block != 0)
        type = TENSOR_Q8_0;
    if (cols % tensor_traits_of(type)->block != 0)
        type = TENSOR_F16;
    return type;
}

static marco_status set_tensors(surgery_source *s, int expert_type, marco_error *error)
{
    marco_status status = upcycle_list_tensors(&s->base, &s->tensors, error);
    if (status != MARCO_OK)
        return status;
    s->parent_index = base_alloc_array(s->base.n_tensors, sizeof(*s->parent_index));
    if (!s->parent_index)
        return base_fail_memory(error, s->base.n_tensors * sizeof(*s->parent_index), "tensors");
    for (size_t i = 0; i < s->base.n_tensors; i++) {
        model_tensor *tensor = &s->tensors[i];
        s->parent_index[i] = -1;
        if (tensor->role == MODEL_ROUTER)
            continue;
        bool expert = model_role_is_expert(tensor->role);
        model_role role = expert ? upcycle_dense_role(tensor->role) : tensor->role;
        int64_t index = model_source_find(s->parent, role, tensor->layer);
        if (index < 0)
            return base_fail(error, MARCO_ERROR_FORMAT, "%s lacks a tensor that experts need",
                             s->parent->path);
        tensor_type parents = s->parent->tensors[index].type;
        tensor->type = expert ? type_for(expert_type, parents, tensor->cols) : parents;
        if (!expert)
            s->parent_index[i] = index;
    }
    return MARCO_OK;
}

/* ---- reading ------------------------------------------------------------------------------- */

/* Row `row` of an expert's matrix: the parent's own, or one made in `made`, which has room for two
 * rows. */
static const float *cut_row(const surgery_source *s, const model_tensor *tensor,
                            const upcycle_matrix *matrix, int64_t expert, int64_t row, float *made)
{
    int64_t dim = s->plan.expert_dim;
    int64_t first = expert % s->plan.n_slices * dim;
    bool down = tensor->role == MODEL_EXPERT_DOWN;
    const float *from = down ? matrix->data + row * s->parent->config.ffn_dim + first
                             : matrix->data + (first + row) * tensor->cols;
    const uint8_t *dropped = matrix->dropped ? matrix->dropped + expert * dim : NULL;
    if (!dropped || (!down && !dropped[row]))
        return from;
    base_gaussian_fill(s->gaussian, s->plan.seed,
                       upcycle_stream(UPCYCLE_WEIGHTS, tensor->role, tensor->layer),
                       upcycle_item(expert, row), matrix->mean[expert], matrix->deviation[expert],
                       made, tensor->cols);
    if (!down)
        return made;
    float *mixed = made + dim;
    for (int64_t c = 0; c < dim; c++)
        mixed[c] = dropped[c] ? made[c] : from[c];
    return mixed;
}

static marco_status read_expert(const surgery_source *s, const model_tensor *tensor, int64_t expert,
                                int64_t row0, int64_t n_rows, void *dst, marco_error *error)
{
    float *made = base_alloc_array((size_t)tensor->cols, 2 * sizeof(*made));
    if (!made)
        return base_fail_memory(error, (size_t)tensor->cols * 2 * sizeof(*made), "a row");
    const upcycle_matrix *matrix = NULL;
    marco_status status =
        upcycle_slices_acquire(s->slices, tensor->role, tensor->layer, &matrix, error);
    if (status == MARCO_OK) {
        const tensor_traits *traits = tensor_traits_of(tensor->type);
        size_t row_bytes = tensor_row_bytes(tensor->type, tensor->cols);
        char *out = dst;
        for (int64_t row = row0; row < row0 + n_rows; row++, out += row_bytes) {
            const float *x = cut_row(s, tensor, matrix, expert, row, made);
            traits->encode(x, out, tensor->cols);
        }
        upcycle_slices_release(s->slices, matrix);
    }
    base_free(made);
    return status;
}

static marco_status surgery_read(model_source *source, size_t index, int64_t mat, int64_t row0,
                                 int64_t n_rows, void *dst, marco_error *error)
{
    const surgery_source *s = (const surgery_source *)source;
    const model_tensor *tensor = &s->tensors[index];
    if (s->parent_index[index] >= 0)
        return s->parent->read(s->parent, (size_t)s->parent_index[index], mat, row0, n_rows, dst,
                               error);
    if (tensor->role != MODEL_ROUTER)
        return read_expert(s, tensor, mat, row0, n_rows, dst, error);
    float *out = dst; /* [n_rows, n_embd] */
    for (int64_t row = row0; row < row0 + n_rows; row++, out += tensor->cols)
        base_gaussian_fill(
            s->gaussian, s->plan.seed, upcycle_stream(UPCYCLE_WEIGHTS, MODEL_ROUTER, tensor->layer),
            upcycle_item(0, row / s->plan.router_run), 0, router_deviation, out, tensor->cols);
    return MARCO_OK;
}

/* ---- the source ---------------------------------------------------------------------------- */

static void surgery_close(model_source *source)
{
    surgery_source *s = (surgery_source *)source;
    upcycle_slices_free(s->slices);
    base_gaussian_free(s->gaussian);
    base_free(s->parent_index);
    base_free(s->tensors);
    base_free(s->base.path);
    model_source_close(s->parent); /* with the tokenizer, which is the parent's */
    base_free(s);
}

marco_status upcycle_surgery_source(model_source *parent, const marco_upcycle_params *params,
                                    int expert_type, model_source **out, marco_error *error)
{
    surgery_source *s = base_calloc(1, sizeof(*s));
    if (!s) {
        model_source_close(parent);
        return base_fail_memory(error, sizeof(*s), "a model");
    }
    s->parent = parent;
    s->base.read = surgery_read;
    s->base.close = surgery_close;
    s->base.tokenizer = parent->tokenizer;
    s->base.path = base_strdup(parent->path);
    marco_status status = MARCO_OK;
    if (!s->base.path)
        status = base_fail_memory(error, strlen(parent->path) + 1, "a name");
    if (status == MARCO_OK)
        status = check_parent(parent, error);
    if (status == MARCO_OK)
        status = make_plan(parent, params, &s->plan, error);
    if (status == MARCO_OK)
        status = set_config(s, params, error);
    if (status == MARCO_OK)
        status = set_tensors(s, expert_type, error);
    if (status == MARCO_OK)
        status = base_gaussian_create(&s->gaussian, error);
    if (status == MARCO_OK)
        status = upcycle_slices_create(parent, &s->plan, &s->slices, error);
    if (status != MARCO_OK) {
        surgery_close(&s->base);
        return status;
    }
    *out = &s->base;
    return MARCO_OK;
}
