/* Opens a GGUF file: every tensor that the configuration asks for, once, and no other. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/source_file.h"

static marco_status check_shape(const model_source_file *file, const gguf_tensor *found,
                                const model_tensor *t, marco_error *error)
{
    int64_t want[4] = {t->cols, t->rows, t->mats, 1};
    if (memcmp(want, found->dims, sizeof want) != 0)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: %s is [%lld, %lld, %lld, %lld], but the metadata asks for [%lld, "
                         "%lld, %lld, 1]",
                         file->source.path, found->name, (long long)found->dims[0],
                         (long long)found->dims[1], (long long)found->dims[2],
                         (long long)found->dims[3], (long long)want[0], (long long)want[1],
                         (long long)want[2]);
    uint64_t bytes;
    if (!tensor_bytes(found->type, t->cols, (uint64_t)(t->rows * t->mats), &bytes) ||
        bytes != found->bytes)
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: %s does not hold its %lld x %lld numbers",
                         file->source.path, found->name, (long long)(t->rows * t->mats),
                         (long long)t->cols);
    return MARCO_OK;
}

static marco_status find_tensor(model_source_file *file, size_t i, const gguf_tensor **out,
                                marco_error *error)
{
    char name[128];
    model_tensor *t = &file->tensors[i];
    model_tensor_gguf_name(t, name);
    const gguf_tensor *found = gguf_tensor_find(file->gguf, name);
    if (!found)
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: tensor %s is missing", file->source.path,
                         name);
    model_source_place *places = NULL;
    marco_status status = check_shape(file, found, t, error);
    if (!status)
        status = model_source_places(file, i, &places, error);
    if (status)
        return status;
    t->type = found->type;
    uint64_t mat_bytes = found->bytes / (uint64_t)t->mats;
    for (int64_t mat = 0; mat < t->mats; mat++)
        places[mat] =
            (model_source_place){gguf_file(file->gguf), found->offset + (uint64_t)mat * mat_bytes};
    *out = found;
    return MARCO_OK;
}

/* The frequencies of Llama 3.1's scaling are in the configuration. */
static bool is_known_extra(const model_source_file *file, const gguf_tensor *tensor)
{
    return file->source.config.rope.scaling == MODEL_ROPE_LLAMA3 &&
           strcmp(tensor->name, "rope_freqs.weight") == 0;
}

static marco_status map_tensors(model_source_file *file, marco_error *error)
{
    size_t n = file->source.n_tensors;
    const gguf_tensor **used = base_alloc_array(n, sizeof *used);
    if (!used)
        return base_fail_memory(error, n * sizeof *used, "the list of tensors");
    marco_status status = MARCO_OK;
    for (size_t i = 0; !status && i < n; i++)
        status = find_tensor(file, i, &used[i], error);
    if (!status)
        qsort(used, n, sizeof *used, model_source_compare);
    for (size_t i = 0; !status && i < gguf_tensor_count(file->gguf); i++) {
        const gguf_tensor *tensor = gguf_tensor_at(file->gguf, i);
        if (!bsearch(&tensor, used, n, sizeof *used, model_source_compare) &&
            !is_known_extra(file, tensor))
            status = base_fail(error, MARCO_ERROR_UNSUPPORTED,
                               "%s: tensor %s has no place in a %s model as marco knows it",
                               file->source.path, tensor->name,
                               model_arch_name(file->source.config.arch));
    }
    base_free(used);
    return status;
}

marco_status model_source_open_gguf(model_source_file *file, marco_error *error)
{
    model_source *source = &file->source;
    marco_status status = gguf_open(source->path, &file->gguf, error);
    if (!status)
        status = model_config_read_gguf(file->gguf, &source->config, error);
    if (!status)
        status = model_source_plan(file, error);
    if (!status)
        status = map_tensors(file, error);
    if (!status && gguf_get(file->gguf, "tokenizer.ggml.model"))
        status = tok_spec_read_gguf(file->gguf, &source->tokenizer, error);
    file->permuted = source->config.arch == MODEL_LLAMA || source->config.arch == MODEL_MIXTRAL;
    return status;
}
