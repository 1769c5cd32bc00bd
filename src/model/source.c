#include "model/source.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/source_file.h"

/* ---- rows ---------------------------------------------------------------------------------- */

/* GGUF "llama" stores row `row` of Q or K (HF order: per head, first halves then second) at this
 * row: pairs that rotate together lie side by side. */
static int64_t permuted_row(int64_t row, int64_t head_dim)
{
    int64_t head = row / head_dim, within = row % head_dim, half = head_dim / 2;
    return head * head_dim + 2 * (within % half) + within / half;
}

int64_t model_source_unpermuted_row(int64_t row, int64_t head_dim)
{
    int64_t head = row / head_dim, within = row % head_dim, half = head_dim / 2;
    return head * head_dim + (within % 2) * half + within / 2;
}

static marco_status read_rows(model_source *source, size_t index, int64_t mat, int64_t row0,
                              int64_t n_rows, void *dst, marco_error *error)
{
    const model_source_file *file = (const model_source_file *)source;
    const model_tensor *t = &file->tensors[index];
    const model_source_place *place = &file->places[file->first[index] + (size_t)mat];
    size_t row_bytes = tensor_row_bytes(t->type, t->cols);
    bool permuted = file->permuted && (t->role == MODEL_ATTN_Q || t->role == MODEL_ATTN_K);
    if (!permuted)
        return base_file_read(place->file, place->offset + (uint64_t)row0 * row_bytes, dst,
                              (size_t)n_rows * row_bytes, error);
    marco_status status = MARCO_OK;
    for (int64_t i = 0; !status && i < n_rows; i++) {
        uint64_t row = (uint64_t)permuted_row(row0 + i, source->config.head_dim);
        status = base_file_read(place->file, place->offset + row * row_bytes,
                                (char *)dst + (size_t)i * row_bytes, row_bytes, error);
    }
    return status;
}

/* ---- opening ------------------------------------------------------------------------------- */

static void close_file(model_source *source)
{
    model_source_file *file = (model_source_file *)source;
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

model_source_file *model_source_file_of(model_source *source)
{
    return source->close == close_file ? (model_source_file *)source : NULL;
}

int model_source_compare(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t) * (const void *const *)a, y = (uintptr_t) * (const void *const *)b;
    return x < y ? -1 : x > y;
}

marco_status model_source_plan(model_source_file *file, marco_error *error)
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

marco_status model_source_places(model_source_file *file, size_t i, model_source_place **places,
                                 marco_error *error)
{
    size_t n = file->n_places + (size_t)file->tensors[i].mats;
    void *grown = file->places;
    if (!base_grow(&grown, &file->places_capacity, n, sizeof *file->places))
        return base_fail_memory(error, n * sizeof *file->places, "the list of tensors");
    file->places = grown;
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

static marco_status open_single(model_source_file *file, marco_error *error)
{
    const char *path = file->source.path;
    bool is_gguf = false;
    marco_status status = gguf_probe(path, &is_gguf, error);
    bool of_folder = base_has_suffix(path, ".safetensors") || base_has_suffix(path, ".json");
    if (!status && !is_gguf && of_folder)
        status =
            base_fail(error, MARCO_ERROR_ARGUMENT,
                      "%s: give the folder that holds the checkpoint, not one of its files", path);
    return status ? status : model_source_open_gguf(file, error);
}

marco_status model_source_open(const char *path, model_source **out, marco_error *error)
{
    model_source_file *file = base_calloc(1, sizeof *file);
    if (!file)
        return base_fail_memory(error, sizeof *file, path);
    marco_status status = MARCO_OK;
    file->source.read = read_rows;
    file->source.close = close_file;
    file->source.path = base_strdup(path);
    if (!file->source.path)
        status = base_fail_memory(error, strlen(path), path);
    else if (base_is_folder(path))
        status = model_source_open_hf(file, error);
    else
        status = open_single(file, error);
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

void model_config_take_ids(model_config *config, const tok_spec *spec)
{
    config->bos = spec->bos;
    config->pad = spec->pad;
    config->n_eos = 0;
    if (spec->eos >= 0)
        config->eos[config->n_eos++] = spec->eos;
    for (int32_t i = 0; i < spec->n_added && config->n_eos < MODEL_MAX_EOS; i++) {
        const tok_added *added = &spec->added[i];
        bool end =
            strcmp(added->text, "<|im_end|>") == 0 || strcmp(added->text, "<|endoftext|>") == 0;
        if (end && added->id != spec->eos)
            config->eos[config->n_eos++] = added->id;
    }
}

int64_t model_source_find(const model_source *source, model_role role, int32_t layer)
{
    for (size_t i = 0; i < source->n_tensors; i++)
        if (source->tensors[i].role == role && source->tensors[i].layer == layer)
            return (int64_t)i;
    return -1;
}

/* ---- looking at one ------------------------------------------------------------------------ */

uint64_t model_source_bytes(const model_source *source)
{
    uint64_t total = 0;
    for (size_t i = 0; i < source->n_tensors; i++)
        total += model_tensor_bytes(&source->tensors[i]);
    return total;
}

uint64_t model_source_token_bytes(const model_source *source)
{
    const model_config *config = &source->config;
    uint64_t total = 0;
    for (size_t i = 0; i < source->n_tensors; i++) {
        const model_tensor *t = &source->tensors[i];
        if (model_role_is_vector(t->role))
            total += (uint64_t)t->cols * sizeof(float);
        else if (model_role_is_expert(t->role))
            total += model_tensor_bytes(t) / (uint64_t)t->mats * (uint64_t)config->n_experts_used;
        else if (t->role == MODEL_TOKEN_EMBD && !config->tied)
            total += tensor_row_bytes(t->type, t->cols);
        else
            total += model_tensor_bytes(t);
    }
    return total;
}

size_t model_source_types(const model_source *source, model_type_bytes out[TENSOR_TYPE_END])
{
    uint64_t bytes[TENSOR_TYPE_END] = {0};
    size_t n = 0;
    for (size_t i = 0; i < source->n_tensors; i++)
        bytes[source->tensors[i].type] += model_tensor_bytes(&source->tensors[i]);
    for (;;) {
        size_t most = 0;
        for (size_t type = 1; type < TENSOR_TYPE_END; type++)
            most = bytes[type] > bytes[most] ? type : most;
        if (bytes[most] == 0)
            return n;
        out[n++] = (model_type_bytes){(tensor_type)most, bytes[most]};
        bytes[most] = 0;
    }
}
