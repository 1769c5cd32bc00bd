#include "upcycle/upcycle.h"

#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"

marco_status upcycle_list_tensors(model_source *source, model_tensor **tensors, marco_error *error)
{
    size_t n = model_config_tensors(&source->config, NULL, 0);
    *tensors = base_alloc_array(n, sizeof(**tensors));
    if (!*tensors)
        return base_fail_memory(error, n * sizeof(**tensors), "a list of tensors");
    model_config_tensors(&source->config, *tensors, n);
    source->tensors = *tensors;
    source->n_tensors = n;
    return MARCO_OK;
}

marco_status upcycle_parse_type(const char *name, int *type, marco_error *error)
{
    if (!name)
        return MARCO_OK;
    int found = tensor_type_parse(name);
    if (found >= 0 && tensor_traits_of((uint32_t)found)->encode) {
        *type = found;
        return MARCO_OK;
    }
    base_text names = {0};
    for (uint32_t i = 0; i < TENSOR_TYPE_END; i++) {
        const tensor_traits *traits = tensor_traits_of(i);
        if (traits && traits->encode)
            base_text_printf(&names, "%s%s", names.size ? ", " : "", traits->name);
    }
    marco_status status =
        base_fail(error, MARCO_ERROR_ARGUMENT, "%s is no type that can be written; these can: %s",
                  name, names.data && !names.failed ? names.data : "F32, ...");
    base_text_free(&names);
    return status;
}

marco_upcycle_params marco_upcycle_params_default(void)
{
    return (marco_upcycle_params){
        .scale = MARCO_SCALE_CUBE_ROOT, .drop = 0.5, .router = MARCO_ROUTER_NORMAL};
}

bool marco_upcycle_preset(marco_upcycle_params *params, const char *name)
{
    static const struct {
        const char *name;
        int32_t n_experts, expert_dim, top_k;
    } presets[] = {
        {"marco-mini", 256, 768, 8},
        {"marco-nano", 232, 384, 8},
    };
    for (size_t i = 0; params && name && i < sizeof(presets) / sizeof(presets[0]); i++) {
        if (strcmp(presets[i].name, name) != 0)
            continue;
        params->n_experts = presets[i].n_experts;
        params->expert_dim = presets[i].expert_dim;
        params->top_k = presets[i].top_k;
        params->scale = MARCO_SCALE_CUBE_ROOT;
        params->drop = 0.5;
        params->drop_shared = false;
        params->router = MARCO_ROUTER_NORMAL;
        return true;
    }
    return false;
}

/* The type that the surgery's own matrices are made in, so that no number is rounded twice: F32
 * where the copy converts them anyway; in a folder, which holds no quantised types, BF16 at least;
 * -1 for the parent's. */
static int expert_type_for(const model_source *parent, int type, const char *to)
{
    if (type >= 0)
        return TENSOR_F32;
    if (model_copy_to_gguf(to))
        return -1;
    for (size_t i = 0; i < parent->n_tensors; i++) {
        if (tensor_traits_of(parent->tensors[i].type)->block > 1)
            return TENSOR_BF16;
    }
    return -1;
}

marco_status marco_upcycle(const char *from, const char *to, const marco_upcycle_params *params,
                           marco_error *error)
{
    if (!from || !to || !to[0] || !params)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "upcycle needs a checkpoint, an output and what to make of it");
    int type = -1;
    marco_status status = upcycle_parse_type(params->type, &type, error);
    if (status != MARCO_OK)
        return status;
    model_source *parent = NULL;
    status = model_source_open(from, &parent, error);
    if (status != MARCO_OK)
        return status;
    model_source *source = NULL;
    status =
        upcycle_surgery_source(parent, params, expert_type_for(parent, type, to), &source, error);
    if (status != MARCO_OK)
        return status;
    const model_copy_params copy = {
        .type = type,
        .overwrite = params->overwrite,
        .threads = params->threads,
        .progress = params->progress,
        .what = "upcycling",
    };
    return model_copy_and_close(source, to, &copy, error);
}
