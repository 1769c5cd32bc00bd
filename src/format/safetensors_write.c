#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "format/internal.h"
#include "format/safetensors.h"

#define HEADER_LIMIT 100000000

typedef struct described {
    char *name;
    tensor_type type;
    int n_dims;
    int64_t dims[4];
    uint64_t bytes;
    uint64_t begin; /* in its shard's data */
    size_t shard;
} described;

struct safetensors_writer {
    char *folder;
    uint64_t shard_bytes;
    described *tensors;
    size_t n_tensors, capacity;
    size_t n_shards;
    bool begun;
    base_output *output; /* the shard being written */
    size_t current;      /* tensor being written */
    uint64_t left;       /* bytes it still needs */
    marco_error problem; /* the first thing that went wrong; MARCO_OK where nothing did */
};

static bool failed(const safetensors_writer *w)
{
    return w->problem.status != MARCO_OK;
}

static marco_status report(const safetensors_writer *w, marco_error *error)
{
    if (error)
        *error = w->problem;
    return w->problem.status;
}

marco_status safetensors_writer_create(const char *folder, uint64_t shard_bytes,
                                       safetensors_writer **out, marco_error *error)
{
    if (shard_bytes == 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "%s: shards of 0 bytes cannot be written",
                         folder);
    safetensors_writer *w = base_calloc(1, sizeof *w);
    if (!w)
        return base_fail_memory(error, sizeof *w, folder);
    w->folder = base_strdup(folder);
    w->shard_bytes = shard_bytes;
    if (!w->folder) {
        safetensors_writer_abort(w);
        return base_fail_memory(error, strlen(folder), folder);
    }
    *out = w;
    return MARCO_OK;
}

void safetensors_writer_abort(safetensors_writer *w)
{
    if (!w)
        return;
    base_output_abort(w->output);
    for (size_t i = 0; i < w->n_tensors; i++)
        base_free(w->tensors[i].name);
    base_free(w->tensors);
    base_free(w->folder);
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
    if (failed(w))
        return;
    described t = {.type = type, .n_dims = n_dims};
    const char *problem = tensor_problem(name, type, n_dims, dims, &t.bytes);
    if (w->begun || problem) {
        base_fail(&w->problem, MARCO_ERROR_ARGUMENT, "%s: tensor %s %s", w->folder, name,
                  w->begun ? "comes after the header was written" : problem);
        return;
    }
    if (n_dims)
        memcpy(t.dims, dims, (size_t)n_dims * sizeof *dims);
    if (!base_grow((void **)&w->tensors, &w->capacity, w->n_tensors + 1, sizeof t) ||
        !(t.name = base_strdup(name))) {
        base_fail_memory(&w->problem, sizeof t, w->folder);
        return;
    }
    w->tensors[w->n_tensors++] = t;
}

/* ---- headers and the index ----------------------------------------------------------------- */

/* A JSON string. Names were checked to be UTF-8. */
static void put_quoted(base_text *text, const char *s)
{
    base_text_add_char(text, '"');
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20) {
            base_text_printf(text, "\\u%04x", (unsigned)*s);
            continue;
        }
        if (*s == '"' || *s == '\\')
            base_text_add_char(text, '\\');
        base_text_add_char(text, *s);
    }
    base_text_add_char(text, '"');
}

static void shard_name(const safetensors_writer *w, size_t shard, char name[64])
{
    if (w->n_shards == 1)
        snprintf(name, 64, "model.safetensors");
    else
        snprintf(name, 64, "model-%05zu-of-%05zu.safetensors", shard + 1, w->n_shards);
}

/* The header of the shard that begins with tensor `first`, behind 8 bytes for its length. */
static void make_header(const safetensors_writer *w, size_t first, base_text *text)
{
    base_text_add_n(text, "\0\0\0\0\0\0\0\0", 8);
    base_text_add(text, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = first; i < w->n_tensors && w->tensors[i].shard == w->tensors[first].shard;
         i++) {
        const described *t = &w->tensors[i];
        base_text_add_char(text, ',');
        put_quoted(text, t->name);
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
    if (!text->failed)
        format_store(text->data, text->size - 8, 8);
}

/* Creates the file `name` with these bytes, still open. */
static marco_status start_file(const safetensors_writer *w, const char *name, const base_text *text,
                               base_output **out, marco_error *error)
{
    if (text->failed)
        return base_fail_memory(error, text->size, name);
    char *path = base_path_join(w->folder, name);
    if (!path)
        return base_fail_memory(error, strlen(w->folder), name);
    marco_status status = base_output_create(path, false, out, error);
    if (status == MARCO_OK)
        status = base_output_write(*out, text->data, text->size, error);
    base_free(path);
    return status;
}

/* Opens the shard that begins with the current tensor. */
static marco_status start_shard(safetensors_writer *w)
{
    char name[64];
    base_text header = {0};
    marco_status status;
    shard_name(w, w->current < w->n_tensors ? w->tensors[w->current].shard : 0, name);
    make_header(w, w->current, &header);
    if (header.size > HEADER_LIMIT)
        status = base_fail(&w->problem, MARCO_ERROR_ARGUMENT,
                           "%s: %s would need a header of %zu bytes; ask for smaller shards",
                           w->folder, name, header.size);
    else
        status = start_file(w, name, &header, &w->output, &w->problem);
    base_text_free(&header);
    return status;
}

static marco_status write_index(safetensors_writer *w)
{
    char name[64];
    uint64_t total = 0;
    base_text text = {0};
    base_output *output = NULL;
    for (size_t i = 0; i < w->n_tensors; i++)
        total += w->tensors[i].bytes;
    base_text_printf(
        &text, "{\n  \"metadata\": {\n    \"total_size\": %" PRIu64 "\n  },\n  \"weight_map\": {",
        total);
    for (size_t i = 0; i < w->n_tensors; i++) {
        shard_name(w, w->tensors[i].shard, name);
        base_text_add(&text, i ? ",\n    " : "\n    ");
        put_quoted(&text, w->tensors[i].name);
        base_text_printf(&text, ": \"%s\"", name);
    }
    base_text_add(&text, "\n  }\n}\n");
    marco_status status =
        start_file(w, "model.safetensors.index.json", &text, &output, &w->problem);
    if (status == MARCO_OK)
        status = base_output_commit(output, &w->problem);
    else
        base_output_abort(output);
    base_text_free(&text);
    return status;
}

/* ---- writing ------------------------------------------------------------------------------- */

static void refuse_twins(safetensors_writer *w)
{
    format_names names;
    if (!format_names_create(&names, w->n_tensors)) {
        base_fail_memory(&w->problem, w->n_tensors * sizeof *names.items, w->folder);
        return;
    }
    for (size_t i = 0; i < w->n_tensors; i++)
        names.items[i] = (format_name){w->tensors[i].name, i};
    const format_name *twin = format_names_sort(&names);
    if (twin)
        base_fail(&w->problem, MARCO_ERROR_ARGUMENT, "%s: tensor %s was described twice", w->folder,
                  twin->name);
    format_names_free(&names);
}

/* Gives each tensor its shard and its place there. A tensor larger than a shard gets its own. */
static void plan_shards(safetensors_writer *w)
{
    uint64_t used = 0, total = 0;
    size_t shard = 0;
    for (size_t i = 0; i < w->n_tensors; i++) {
        described *t = &w->tensors[i];
        if (!base_add_u64(total, t->bytes, &total) || total > INT64_MAX) {
            base_fail(&w->problem, MARCO_ERROR_ARGUMENT, "%s: the tensors are too large together",
                      w->folder);
            return;
        }
        if (used && used + t->bytes > w->shard_bytes) {
            shard++;
            used = 0;
        }
        /* The format has no padding between tensors, and PyTorch cannot read them unaligned. */
        if (used % type_size(t->type)) {
            base_fail(&w->problem, MARCO_ERROR_ARGUMENT,
                      "%s: tensor %s (%s) would begin at byte %" PRIu64
                      ", which is unaligned; put F32 tensors first",
                      w->folder, t->name, type_name(t->type), used);
            return;
        }
        t->shard = shard;
        t->begin = used;
        used += t->bytes;
    }
    w->n_shards = shard + 1;
}

marco_status safetensors_writer_begin(safetensors_writer *w, marco_error *error)
{
    if (!failed(w))
        refuse_twins(w);
    if (!failed(w))
        plan_shards(w);
    if (!failed(w))
        start_shard(w);
    if (failed(w))
        return report(w, error);
    w->begun = true;
    w->left = w->n_tensors ? w->tensors[0].bytes : 0;
    return MARCO_OK;
}

/* The current tensor is whole: on to the next, in a new file where its shard ends. */
static marco_status next_tensor(safetensors_writer *w)
{
    size_t shard = w->tensors[w->current].shard;
    w->current++;
    if (w->current == w->n_tensors)
        return MARCO_OK;
    w->left = w->tensors[w->current].bytes;
    if (w->tensors[w->current].shard == shard)
        return MARCO_OK;
    base_output *output = w->output;
    w->output = NULL;
    marco_status status = base_output_commit(output, &w->problem);
    return status ? status : start_shard(w);
}

marco_status safetensors_writer_data(safetensors_writer *w, const void *data, size_t size,
                                     marco_error *error)
{
    if (!failed(w) && (!w->begun || size > w->left))
        base_fail(&w->problem, MARCO_ERROR_ARGUMENT,
                  "%s: %zu bytes of tensor data where %" PRIu64 " belong (%s)", w->folder, size,
                  w->begun ? w->left : 0,
                  w->current < w->n_tensors ? w->tensors[w->current].name : "past the last tensor");
    if (failed(w))
        return report(w, error);
    if (size == 0)
        return MARCO_OK;
    if (base_output_write(w->output, data, size, &w->problem))
        return report(w, error);
    w->left -= size;
    if (w->left == 0 && next_tensor(w))
        return report(w, error);
    return MARCO_OK;
}

marco_status safetensors_writer_commit(safetensors_writer *w, marco_error *error)
{
    if (!failed(w) && (!w->begun || w->current < w->n_tensors))
        base_fail(&w->problem, MARCO_ERROR_ARGUMENT,
                  "%s: not all tensors were written (%zu of %zu)", w->folder, w->current,
                  w->n_tensors);
    if (!failed(w)) {
        base_output *output = w->output;
        w->output = NULL;
        if (base_output_commit(output, &w->problem) == MARCO_OK && w->n_shards > 1)
            write_index(w);
    }
    marco_status status = failed(w) ? report(w, error) : MARCO_OK;
    safetensors_writer_abort(w);
    return status;
}
