#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "format/writer.h"

/* So many that the reader takes the header of a shard, whatever the names are. */
#define SHARD_TENSORS ((size_t)16384)

struct safetensors_writer {
    format_writer base;
    const char *stem; /* of the files' names */
    uint64_t shard_bytes;
    size_t n_shards;
    base_text index; /* empty where there is one file */
};

marco_status safetensors_writer_create(const char *folder, uint64_t shard_bytes,
                                       safetensors_writer **out, marco_error *error)
{
    return safetensors_writer_create_named(folder, "model", shard_bytes, out, error);
}

marco_status safetensors_writer_create_named(const char *folder, const char *stem,
                                             uint64_t shard_bytes, safetensors_writer **out,
                                             marco_error *error)
{
    if (shard_bytes == 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "%s: shards of 0 bytes cannot be written",
                         folder);
    safetensors_writer *w = base_calloc(1, sizeof *w);
    if (!w)
        return base_fail_memory(error, sizeof *w, folder);
    w->stem = stem;
    w->shard_bytes = shard_bytes;
    marco_status status = format_writer_init(&w->base, folder, error);
    if (status) {
        safetensors_writer_abort(w);
        return status;
    }
    *out = w;
    return MARCO_OK;
}

void safetensors_writer_abort(safetensors_writer *w)
{
    if (!w)
        return;
    format_writer_free(&w->base);
    base_text_free(&w->index);
    base_free(w);
}

/* ---- describing ---------------------------------------------------------------------------- */

/* NULL for types that the format does not have. */
static const char *type_name(tensor_type type)
{
    switch (type) {
    case TENSOR_F32:
        return "F32";
    case TENSOR_F16:
        return "F16";
    case TENSOR_BF16:
        return "BF16";
    default:
        return NULL;
    }
}

static uint64_t type_size(tensor_type type)
{
    return type == TENSOR_F32 ? 4 : 2;
}

/* NULL where the tensor can be written; its size in *bytes. */
static const char *tensor_problem(const char *name, tensor_type type, int n_dims,
                                  const int64_t *dims, uint64_t *bytes)
{
    const char *problem = format_name_problem(name, strlen(name), FORMAT_NAME_LIMIT);
    if (problem)
        return problem;
    if (strcmp(name, "__metadata__") == 0)
        return "has a name that the format keeps for itself";
    if (!type_name(type))
        return "has a type other than F32, F16 and BF16";
    if (n_dims < 0 || n_dims > 4)
        return "has more than 4 dimensions";
    *bytes = type_size(type);
    for (int d = 0; d < n_dims; d++)
        if (dims[d] < 1 || !base_mul_u64(*bytes, (uint64_t)dims[d], bytes) || *bytes > INT64_MAX)
            return "has an impossible shape";
    return NULL;
}

void safetensors_put_tensor(safetensors_writer *w, const char *name, tensor_type type, int n_dims,
                            const int64_t *dims)
{
    format_described t = {.type = type, .n_dims = n_dims};
    const char *problem = tensor_problem(name, type, n_dims, dims, &t.bytes);
    if (!problem && n_dims)
        memcpy(t.dims, dims, (size_t)n_dims * sizeof *dims);
    format_writer_put(&w->base, name, problem, &t);
}

/* ---- headers and the index ----------------------------------------------------------------- */

static void shard_name(const safetensors_writer *w, size_t shard, char name[64])
{
    if (w->n_shards == 1)
        snprintf(name, 64, "%s.safetensors", w->stem);
    else
        snprintf(name, 64, "%s-%05zu-of-%05zu.safetensors", w->stem, shard + 1, w->n_shards);
}

/* The header of the shard that begins with tensor `first`, behind 8 bytes for its length. */
static void make_header(const format_writer *w, size_t first, base_text *text)
{
    base_text_add_n(text, "\0\0\0\0\0\0\0\0", 8);
    base_text_add(text, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = first; i < w->n_tensors && w->tensors[i].shard == w->tensors[first].shard;
         i++) {
        const format_described *t = &w->tensors[i];
        base_text_add_char(text, ',');
        format_json_escape(text, t->name, strlen(t->name));
        base_text_printf(text, ":{\"dtype\":\"%s\",\"shape\":[", type_name(t->type));
        for (int d = 0; d < t->n_dims; d++)
            base_text_printf(text, "%s%" PRId64, d ? "," : "", t->dims[d]);
        base_text_printf(text, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", t->begin,
                         t->begin + t->bytes);
    }
    base_text_add_char(text, '}');
    /* Padded with spaces so that the data begins at a multiple of 8. */
    while (!text->failed && text->size % 8)
        base_text_add_char(text, ' ');
    if (!text->failed) {
        uint64_t size = text->size - 8;
        memcpy(text->data, &size, sizeof size);
    }
}

/* Creates the file `name` with these bytes, still open. */
static void start_file(format_writer *w, const char *name, const base_text *text)
{
    char *path = text->failed ? NULL : base_path_join(w->path, name);
    if (!path)
        base_fail_memory(&w->problem, text->size, w->path);
    else if (base_output_create(path, false, &w->output, &w->problem) == MARCO_OK)
        base_output_write(w->output, text->data, text->size, &w->problem);
    base_free(path);
}

/* Opens the shard that begins with the current tensor. */
static void start_shard(safetensors_writer *w)
{
    char name[64];
    base_text header = {0};
    const format_writer *base = &w->base;
    shard_name(w, base->current < base->n_tensors ? base->tensors[base->current].shard : 0, name);
    make_header(base, base->current, &header);
    start_file(&w->base, name, &header);
    base_text_free(&header);
}

/* Made before any data is written: whatever is wrong with it is known in time. */
static void make_index(safetensors_writer *w)
{
    char name[64];
    uint64_t total = 0;
    base_text *text = &w->index;
    format_writer *base = &w->base;
    for (size_t i = 0; i < base->n_tensors; i++)
        total += base->tensors[i].bytes;
    base_text_printf(
        text, "{\n  \"metadata\": {\n    \"total_size\": %" PRIu64 "\n  },\n  \"weight_map\": {",
        total);
    for (size_t i = 0; i < base->n_tensors; i++) {
        const format_described *t = &base->tensors[i];
        shard_name(w, t->shard, name);
        base_text_add(text, i ? ",\n    " : "\n    ");
        format_json_escape(text, t->name, strlen(t->name));
        base_text_printf(text, ": \"%s\"", name);
    }
    base_text_add(text, "\n  }\n}\n");
    if (text->failed)
        base_fail_memory(&base->problem, text->size, base->path);
    else if (text->size > SAFETENSORS_HEADER_LIMIT ||
             safetensors_count_values(text->data, text->size) > SAFETENSORS_VALUE_LIMIT)
        base_fail(&base->problem, MARCO_ERROR_ARGUMENT,
                  "%s: an index of %zu tensors is more than can be read again; write a GGUF file",
                  base->path, base->n_tensors);
}

/* ---- writing ------------------------------------------------------------------------------- */

/* Gives each tensor its shard and its place there. */
static void plan_shards(safetensors_writer *w)
{
    uint64_t used = 0, total = 0;
    size_t shard = 0, first = 0;
    for (size_t i = 0; i < w->base.n_tensors; i++) {
        format_described *t = &w->base.tensors[i];
        if (!base_add_u64(total, t->bytes, &total) || total > INT64_MAX) {
            base_fail(&w->base.problem, MARCO_ERROR_ARGUMENT,
                      "%s: the tensors are too large together", w->base.path);
            return;
        }
        /* The format has no padding between tensors, and PyTorch cannot read them unaligned. */
        if (used && (used + t->bytes > w->shard_bytes || used % type_size(t->type) ||
                     i - first == SHARD_TENSORS)) {
            shard++;
            used = 0;
            first = i;
        }
        t->shard = shard;
        t->begin = used;
        used += t->bytes;
    }
    w->n_shards = shard + 1;
}

marco_status safetensors_writer_begin(safetensors_writer *w, marco_error *error)
{
    format_writer *base = &w->base;
    if (!format_writer_failed(base))
        format_writer_refuse_twin_tensors(base);
    if (!format_writer_failed(base))
        plan_shards(w);
    if (!format_writer_failed(base) && w->n_shards > 1)
        make_index(w);
    if (!format_writer_failed(base))
        start_shard(w);
    if (!format_writer_failed(base))
        format_writer_begin(base);
    return format_writer_report(base, error);
}

marco_status safetensors_writer_data(safetensors_writer *w, const void *data, size_t size,
                                     marco_error *error)
{
    format_writer *base = &w->base;
    if (format_writer_add(base, data, size) && base->current < base->n_tensors &&
        base->tensors[base->current].shard != base->tensors[base->current - 1].shard) {
        format_writer_commit_file(base);
        if (!format_writer_failed(base))
            start_shard(w);
    }
    return format_writer_report(base, error);
}

marco_status safetensors_writer_commit(safetensors_writer *w, marco_error *error)
{
    format_writer *base = &w->base;
    format_writer_finish(base);
    format_writer_commit_file(base);
    if (!format_writer_failed(base) && w->n_shards > 1) {
        char name[64];
        snprintf(name, sizeof name, "%s.safetensors.index.json", w->stem);
        start_file(base, name, &w->index);
        format_writer_commit_file(base);
    }
    marco_status status = format_writer_report(base, error);
    safetensors_writer_abort(w);
    return status;
}
