#include "model/source.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/source_file.h"

/* ---- rows -------------------------------------------------------------------------------------
 */

int64_t source_permuted_row(int64_t row, int64_t head_dim)
{
    int64_t head = row / head_dim, within = row % head_dim, half = head_dim / 2;
    return head * head_dim + 2 * (within % half) + within / half;
}

int64_t source_unpermuted_row(int64_t row, int64_t head_dim)
{
    int64_t head = row / head_dim, within = row % head_dim, half = head_dim / 2;
    return head * head_dim + (within % 2) * half + within / 2;
}

static marco_status read_rows(model_source *source, size_t index, int64_t mat, int64_t row0,
                              int64_t n_rows, void *dst, marco_error *error)
{
    const source_file *file = (const source_file *)source;
    const model_tensor *t = &file->tensors[index];
    const source_place *place = &file->places[file->first[index] + (size_t)mat];
    size_t row_bytes = tensor_row_bytes(t->type, t->cols);
    bool permuted = file->permuted && (t->role == MODEL_ATTN_Q || t->role == MODEL_ATTN_K);
    if (!permuted)
        return base_file_read(place->file, place->offset + (uint64_t)row0 * row_bytes, dst,
                              (size_t)n_rows * row_bytes, error);
    marco_status status = MARCO_OK;
    for (int64_t i = 0; !status && i < n_rows; i++) {
        uint64_t row = (uint64_t)source_permuted_row(row0 + i, source->config.head_dim);
        status = base_file_read(place->file, place->offset + row * row_bytes,
                                (char *)dst + (size_t)i * row_bytes, row_bytes, error);
    }
    return status;
}

/* ---- opening ------------------------------------------------------------------------------------
 */

static void close_file(model_source *source)
{
    source_file *file = (source_file *)source;
    gguf_close(file->gguf);
    safetensors_close(file->safetensors);
    tok_spec_free(source->tokenizer);
    base_free(file->ignored);
    base_free(file->tensors);
    base_free(file->places);
    base_free(file->first);
    base_free(source->path);
    base_free(file);
}

const source_file *source_file_of(const model_source *source)
{
    return source->close == close_file ? (const source_file *)source : NULL;
}

int source_pointer_compare(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t) * (const void *const *)a, y = (uintptr_t) * (const void *const *)b;
    return x < y ? -1 : x > y;
}

marco_status source_file_plan(source_file *file, marco_error *error)
{
    const model_config *config = &file->source.config;
    size_t n = model_config_tensors(config, NULL, 0);
    file->tensors = base_alloc_array(n, sizeof *file->tensors);
    file->first = base_alloc_array(n, sizeof *file->first);
    if (!file->tensors || !file->first)
        return base_fail_memory(error, n * sizeof *file->tensors, "the list of tensors");
    model_config_tensors(config, file->tensors, n);
    file->source.tensors = file->tensors;
    file->source.n_tensors = n;
    return MARCO_OK;
}

marco_status source_file_places(source_file *file, size_t i, source_place **places,
                                marco_error *error)
{
    size_t n = file->n_places + (size_t)file->tensors[i].mats;
    if (!base_grow((void **)&file->places, &file->places_capacity, n, sizeof *file->places))
        return base_fail_memory(error, n * sizeof *file->places, "the list of tensors");
    file->first[i] = file->n_places;
    *places = file->places + file->n_places;
    file->n_places = n;
    return MARCO_OK;
}

/* Ids that only one of configuration and tokenizer knows hold for both. */
static void share_ids(model_config *config, tok_spec *tokenizer)
{
    if (config->n_eos == 0 && tokenizer->eos >= 0 && tokenizer->eos < config->n_vocab)
        config->eos[config->n_eos++] = tokenizer->eos;
    if (config->bos < 0 && tokenizer->bos < config->n_vocab)
        config->bos = tokenizer->bos;
    if (tokenizer->eos < 0 && config->n_eos > 0)
        tokenizer->eos = config->eos[0];
    if (tokenizer->bos < 0)
        tokenizer->bos = config->bos;
    if (tokenizer->pad < 0 && config->pad < config->n_vocab)
        tokenizer->pad = config->pad;
}

marco_status model_source_open(const char *path, model_source **out, marco_error *error)
{
    source_file *file = base_calloc(1, sizeof *file);
    if (!file)
        return base_fail_memory(error, sizeof *file, path);
    marco_status status = MARCO_OK;
    file->source.read = read_rows;
    file->source.close = close_file;
    file->source.path = base_strdup(path);
    if (!file->source.path)
        status = base_fail_memory(error, strlen(path), path);
    else if (base_is_folder(path))
        status = source_open_hf(file, error);
    else if (base_has_suffix(path, ".safetensors") || base_has_suffix(path, ".json"))
        status =
            base_fail(error, MARCO_ERROR_ARGUMENT,
                      "%s: give the folder that holds the checkpoint, not one of its files", path);
    else
        status = source_open_gguf(file, error);
    if (!status && file->source.tokenizer)
        share_ids(&file->source.config, file->source.tokenizer);
    if (status)
        close_file(&file->source);
    else
        *out = &file->source;
    return status;
}

void model_source_close(model_source *source)
{
    if (source)
        source->close(source);
}

int64_t model_source_find(const model_source *source, model_role role, int32_t layer)
{
    for (size_t i = 0; i < source->n_tensors; i++)
        if (source->tensors[i].role == role && source->tensors[i].layer == layer)
            return (int64_t)i;
    return -1;
}
