/* Opens a Hugging Face folder: every tensor that the configuration asks for, once, and no other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/source_file.h"

/* The tensors of the folder that were asked for, to find those that were not. */
typedef struct used_list {
    const safetensors_tensor **items;
    size_t n, capacity;
} used_list;

static marco_status use(used_list *used, const safetensors_tensor *tensor, marco_error *error)
{
    void *grown = used->items;
    if (!base_grow(&grown, &used->capacity, used->n + 1, sizeof *used->items))
        return base_fail_memory(error, (used->n + 1) * sizeof *used->items, "the list of tensors");
    used->items = grown;
    used->items[used->n++] = tensor;
    return MARCO_OK;
}

/* A shape as text: "[256, 64]". */
static void shape_text(const int64_t *dims, int n, char *out, size_t size)
{
    size_t at = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%lld", i ? ", " : "", (long long)dims[i]);
    if (at < size)
        snprintf(out + at, size - at, "]");
}

static marco_status check_shape(const model_source_file *file, const safetensors_tensor *found,
                                const int64_t *want, int n, marco_error *error)
{
    bool same = found->n_dims == n;
    for (int i = 0; same && i < n; i++)
        same = found->dims[i] == want[i];
    if (same)
        return MARCO_OK;
    char is[96], asked[96];
    shape_text(found->dims, found->n_dims, is, sizeof is);
    shape_text(want, n, asked, sizeof asked);
    return base_fail(error, MARCO_ERROR_FORMAT, "%s: %s is %s, but config.json asks for %s",
                     file->source.path, found->name, is, asked);
}

/* All matrices of a tensor are of one type. */
static marco_status set_type(model_source_file *file, size_t i, int64_t mat,
                             const safetensors_tensor *found, marco_error *error)
{
    model_tensor *t = &file->tensors[i];
    if (mat > 0 && found->type != t->type)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "%s: %s is %s while the experts before it are %s; save them as one type",
                         file->source.path, found->name, tensor_type_name(found->type),
                         tensor_type_name(t->type));
    t->type = found->type;
    return MARCO_OK;
}

static marco_status missing(const model_source_file *file, const char *name, marco_error *error)
{
    bool head = strcmp(name, "lm_head.weight") == 0;
    return base_fail(error, MARCO_ERROR_FORMAT, "%s: tensor %s is missing%s", file->source.path,
                     name, head ? " (and config.json does not say tie_word_embeddings)" : "");
}

static marco_status find_one(model_source_file *file, size_t i, int64_t mat,
                             model_source_place *place, used_list *used, marco_error *error)
{
    char name[128];
    const model_tensor *t = &file->tensors[i];
    model_tensor_hf_name(&file->source.config, t, mat, name);
    const safetensors_tensor *found = safetensors_find(file->safetensors, name);
    if (!found)
        return missing(file, name, error);
    bool vector = model_role_is_vector(t->role);
    int64_t want[2] = {vector ? t->cols : t->rows, t->cols};
    marco_status status = check_shape(file, found, want, vector ? 1 : 2, error);
    if (!status)
        status = set_type(file, i, mat, found, error);
    if (!status)
        status = use(used, found, error);
    *place = (model_source_place){found->file, found->offset};
    return status;
}

/* transformers 5 holds a layer's experts in two tensors, gate and up one above the other in the
 * first. Its own files are split by expert, but others save them as they are in memory. */
static marco_status find_fused(model_source_file *file, size_t i, model_source_place *places,
                               used_list *used, bool *is_fused, marco_error *error)
{
    char name[128];
    model_tensor *t = &file->tensors[i];
    bool down = t->role == MODEL_EXPERT_DOWN;
    if (!model_role_is_expert(t->role))
        return MARCO_OK;
    snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%s", (int)t->layer,
             down ? "down_proj" : "gate_up_proj");
    const safetensors_tensor *found = safetensors_find(file->safetensors, name);
    if (!found)
        return MARCO_OK;
    *is_fused = true;
    int64_t rows = down ? t->rows : 2 * t->rows;
    int64_t want[3] = {t->mats, rows, t->cols};
    marco_status status = check_shape(file, found, want, 3, error);
    if (!status)
        status = use(used, found, error);
    if (status)
        return status;
    t->type = found->type;
    uint64_t row_bytes = tensor_row_bytes(t->type, t->cols);
    for (int64_t mat = 0; mat < t->mats; mat++) {
        int64_t row = mat * rows + (t->role == MODEL_EXPERT_UP ? t->rows : 0);
        places[mat] = (model_source_place){found->file, found->offset + (uint64_t)row * row_bytes};
    }
    return MARCO_OK;
}

/* What transformers ignores too: a stored head where the embedding is used instead, and tables that
 * old versions saved and that follow from the configuration. */
static bool is_ignored(const model_source_file *file, const char *name)
{
    return (file->source.config.tied && strcmp(name, "lm_head.weight") == 0) ||
           base_has_suffix(name, ".rotary_emb.inv_freq");
}

static marco_status check_unused(model_source_file *file, used_list *used, marco_error *error)
{
    size_t n = safetensors_count(file->safetensors);
    file->ignored = base_alloc_array(n, sizeof *file->ignored);
    if (!file->ignored)
        return base_fail_memory(error, n * sizeof *file->ignored, "the list of tensors");
    qsort(used->items, used->n, sizeof *used->items, model_source_compare);
    for (size_t i = 0; i < n; i++) {
        const safetensors_tensor *t = safetensors_at(file->safetensors, i);
        if (bsearch(&t, used->items, used->n, sizeof t, model_source_compare))
            continue;
        if (!is_ignored(file, t->name))
            return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                             "%s: tensor %s has no place in a %s model as marco knows it",
                             file->source.path, t->name,
                             model_arch_hf_name(file->source.config.arch));
        file->ignored[file->n_ignored++] = t->name;
    }
    return MARCO_OK;
}

static marco_status map_tensors(model_source_file *file, marco_error *error)
{
    used_list used = {0};
    marco_status status = MARCO_OK;
    for (size_t i = 0; !status && i < file->source.n_tensors; i++) {
        bool is_fused = false;
        model_source_place *places = NULL;
        status = model_source_places(file, i, &places, error);
        if (!status && file->source.config.arch == MODEL_QWEN3MOE)
            status = find_fused(file, i, places, &used, &is_fused, error);
        for (int64_t mat = 0; !status && !is_fused && mat < file->tensors[i].mats; mat++)
            status = find_one(file, i, mat, places + mat, &used, error);
    }
    if (!status)
        status = check_unused(file, &used, error);
    base_free(used.items);
    return status;
}

marco_status model_source_open_hf(model_source_file *file, marco_error *error)
{
    model_source *source = &file->source;
    marco_status status = model_config_read_hf(source->path, &source->config, error);
    if (!status)
        status = safetensors_open_folder(source->path, &file->safetensors, error);
    if (!status)
        status = model_source_plan(file, error);
    if (!status)
        status = map_tensors(file, error);
    if (status)
        return status;
    char *tokenizer = base_path_join(source->path, "tokenizer.json");
    if (!tokenizer)
        return base_fail_memory(error, strlen(source->path), "a path");
    if (base_exists(tokenizer))
        status = tok_spec_read_hf(source->path, &source->tokenizer, error);
    base_free(tokenizer);
    return status;
}
