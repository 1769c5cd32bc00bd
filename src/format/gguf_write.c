#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "format/gguf.h"
#include "format/writer.h"

/* The format's default; a key general.alignment is therefore never written. */
#define ALIGNMENT 32
/* The longest name that GGML's own reader takes. */
#define NAME_LIMIT 63
/* Before the metadata: magic, version and two counts. */
#define HEAD_SIZE 24

struct gguf_writer {
    format_writer base;
    base_text pairs;   /* the metadata, encoded */
    format_names keys; /* owned */
    size_t keys_capacity;
    uint64_t n_strings; /* in the arrays so far */
};

marco_status gguf_writer_create(const char *path, bool overwrite, gguf_writer **out,
                                marco_error *error)
{
    gguf_writer *w = base_calloc(1, sizeof *w);
    if (!w)
        return base_fail_memory(error, sizeof *w, path);
    marco_status status = format_writer_init(&w->base, path, error);
    if (status == MARCO_OK)
        status = base_output_create(path, overwrite, &w->base.output, error);
    if (status) {
        gguf_writer_abort(w);
        return status;
    }
    *out = w;
    return MARCO_OK;
}

void gguf_writer_abort(gguf_writer *w)
{
    if (!w)
        return;
    format_writer_free(&w->base);
    base_text_free(&w->pairs);
    for (size_t i = 0; i < w->keys.n; i++)
        base_free((void *)w->keys.items[i].name);
    format_names_free(&w->keys);
    base_free(w);
}

/* ---- describing ---------------------------------------------------------------------------- */

static void put_number(gguf_writer *w, uint64_t value, size_t size)
{
    base_text_add_n(&w->pairs, (const char *)&value, size);
}

static void put_bytes(gguf_writer *w, const char *data, size_t size)
{
    put_number(w, size, 8);
    base_text_add_n(&w->pairs, data, size);
}

static bool remember_key(gguf_writer *w, const char *key)
{
    void *items = w->keys.items;
    if (!base_grow(&items, &w->keys_capacity, w->keys.n + 1, sizeof *w->keys.items))
        return false;
    w->keys.items = items;
    char *copy = base_strdup(key);
    if (copy)
        w->keys.items[w->keys.n++] = (format_name){.name = copy};
    return copy != NULL;
}

/* Key and type; false where the value is not to be written. */
static bool put_key(gguf_writer *w, const char *key, gguf_type type)
{
    format_writer *base = &w->base;
    if (format_writer_failed(base) || strcmp(key, "general.alignment") == 0)
        return false;
    const char *problem = format_name_problem(key, strlen(key), GGUF_KEY_LIMIT);
    if (base->begun)
        problem = "is described after the data has begun";
    if (problem) {
        base_fail(&base->problem, MARCO_ERROR_ARGUMENT, "%s: metadata key %.200s %s", base->path,
                  key, problem);
        return false;
    }
    if (!remember_key(w, key)) {
        base_fail_memory(&base->problem, strlen(key), base->path);
        return false;
    }
    put_bytes(w, key, strlen(key));
    put_number(w, type, 4);
    return true;
}

void gguf_put_u32(gguf_writer *w, const char *key, uint32_t value)
{
    if (put_key(w, key, GGUF_U32))
        put_number(w, value, 4);
}

void gguf_put_f32(gguf_writer *w, const char *key, float value)
{
    if (put_key(w, key, GGUF_F32))
        base_text_add_n(&w->pairs, (const char *)&value, sizeof value);
}

void gguf_put_bool(gguf_writer *w, const char *key, bool value)
{
    if (put_key(w, key, GGUF_BOOL))
        put_number(w, value, 1);
}

void gguf_put_string(gguf_writer *w, const char *key, const char *value)
{
    gguf_put_string_n(w, key, value, strlen(value));
}

void gguf_put_string_n(gguf_writer *w, const char *key, const char *value, size_t size)
{
    if (put_key(w, key, GGUF_STRING))
        put_bytes(w, value, size);
}

static bool put_array(gguf_writer *w, const char *key, gguf_type type, uint64_t n)
{
    if (!put_key(w, key, GGUF_ARRAY))
        return false;
    put_number(w, type, 4);
    put_number(w, n, 8);
    return true;
}

void gguf_put_array_i32(gguf_writer *w, const char *key, const int32_t *values, size_t n)
{
    if (put_array(w, key, GGUF_I32, n))
        base_text_add_n(&w->pairs, (const char *)values, n * sizeof *values);
}

void gguf_put_array_f32(gguf_writer *w, const char *key, const float *values, size_t n)
{
    if (put_array(w, key, GGUF_F32, n))
        base_text_add_n(&w->pairs, (const char *)values, n * sizeof *values);
}

void gguf_put_array_string(gguf_writer *w, const char *key, const gguf_string *values, size_t n)
{
    if (!put_array(w, key, GGUF_STRING, n))
        return;
    w->n_strings += n;
    for (size_t i = 0; i < n; i++)
        put_bytes(w, values[i].data, values[i].size);
}

void gguf_put_value(gguf_writer *w, const char *key, const gguf_value *value)
{
    uint64_t bits;
    switch (value->type) {
    case GGUF_STRING:
        gguf_put_string_n(w, key, value->string.data, value->string.size);
        return;
    case GGUF_ARRAY:
        if (value->array.type == GGUF_STRING)
            gguf_put_array_string(w, key, value->array.strings, (size_t)value->array.n);
        else if (put_array(w, key, value->array.type, value->array.n))
            base_text_add_n(&w->pairs, value->array.data,
                            (size_t)value->array.n * gguf_type_size(value->array.type));
        return;
    case GGUF_F32:
        gguf_put_f32(w, key, (float)value->f);
        return;
    case GGUF_F64:
        memcpy(&bits, &value->f, sizeof bits);
        break;
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64:
        bits = (uint64_t)value->i;
        break;
    default:
        bits = value->u;
    }
    if (put_key(w, key, value->type))
        put_number(w, bits, gguf_type_size(value->type));
}

/* NULL where the tensor can be written; its size in *bytes. */
static const char *tensor_problem(const char *name, tensor_type type, int n_dims,
                                  const int64_t *dims, uint64_t *bytes)
{
    const char *problem = format_name_problem(name, strlen(name), NAME_LIMIT);
    uint64_t rows = 1;
    if (problem)
        return problem;
    if (n_dims < 1 || n_dims > 4)
        return "has not 1 to 4 dimensions";
    if (!tensor_traits_of((uint32_t)type))
        return "has an unknown type";
    for (int d = 0; d < n_dims; d++)
        if (dims[d] < 1 || (d > 0 && !base_mul_u64(rows, (uint64_t)dims[d], &rows)))
            return "has an impossible shape";
    if (!tensor_bytes(type, dims[0], rows, bytes))
        return "has rows that are no multiple of its type's block, or is too large";
    return NULL;
}

void gguf_put_tensor(gguf_writer *w, const char *name, tensor_type type, int n_dims,
                     const int64_t *dims)
{
    format_described t = {.type = type, .n_dims = n_dims};
    const char *problem = tensor_problem(name, type, n_dims, dims, &t.bytes);
    if (!problem)
        memcpy(t.dims, dims, (size_t)n_dims * sizeof *dims);
    format_writer_put(&w->base, name, problem, &t);
}

/* ---- writing ------------------------------------------------------------------------------- */

/* The descriptions of all tensors, appended to the metadata. */
static void put_descriptions(gguf_writer *w)
{
    uint64_t offset = 0;
    for (size_t i = 0; i < w->base.n_tensors; i++) {
        format_described *t = &w->base.tensors[i];
        t->begin = offset;
        put_bytes(w, t->name, strlen(t->name));
        put_number(w, (uint64_t)t->n_dims, 4);
        for (int d = 0; d < t->n_dims; d++)
            put_number(w, (uint64_t)t->dims[d], 8);
        put_number(w, t->type, 4);
        put_number(w, t->begin, 8);
        if (!base_add_u64(offset, t->bytes + ALIGNMENT - 1, &offset)) {
            base_fail(&w->base.problem, MARCO_ERROR_ARGUMENT,
                      "%s: the tensors are too large together", w->base.path);
            return;
        }
        offset &= ~(uint64_t)(ALIGNMENT - 1);
    }
}

/* What the reader would refuse must not be written. */
static void check_limits(gguf_writer *w)
{
    format_writer *base = &w->base;
    uint64_t size = HEAD_SIZE + (uint64_t)w->pairs.size;
    if (w->pairs.failed)
        base_fail_memory(&base->problem, w->pairs.size, base->path);
    else if (size > GGUF_METADATA_LIMIT || w->n_strings > GGUF_STRINGS_LIMIT)
        base_fail(&base->problem, MARCO_ERROR_ARGUMENT,
                  "%s: %" PRIu64 " bytes of metadata with %" PRIu64
                  " strings in arrays, more than the %" PRIu64 " and %" PRIu64
                  " that can be read again; the vocabulary is too large",
                  base->path, size, w->n_strings, GGUF_METADATA_LIMIT, GGUF_STRINGS_LIMIT);
    else if (w->keys.n > GGUF_COUNT_LIMIT || base->n_tensors > GGUF_COUNT_LIMIT)
        base_fail(&base->problem, MARCO_ERROR_ARGUMENT,
                  "%s: %zu tensors and %zu metadata keys, more than the %" PRIu64
                  " of each that can be read again",
                  base->path, base->n_tensors, w->keys.n, GGUF_COUNT_LIMIT);
}

static void write_metadata(gguf_writer *w)
{
    format_writer *base = &w->base;
    const uint64_t counts[] = {base->n_tensors, w->keys.n};
    if (base_output_write(base->output, "GGUF\3\0\0", 8, &base->problem) == MARCO_OK &&
        base_output_write(base->output, counts, sizeof counts, &base->problem) == MARCO_OK &&
        base_output_write(base->output, w->pairs.data, w->pairs.size, &base->problem) == MARCO_OK)
        base_output_align(base->output, ALIGNMENT, &base->problem);
    base_text_free(&w->pairs);
}

marco_status gguf_writer_begin(gguf_writer *w, marco_error *error)
{
    format_writer *base = &w->base;
    if (!format_writer_failed(base))
        format_writer_refuse_twins(base, "metadata key", &w->keys);
    if (!format_writer_failed(base))
        format_writer_refuse_twin_tensors(base);
    if (!format_writer_failed(base))
        put_descriptions(w);
    if (!format_writer_failed(base))
        check_limits(w);
    if (!format_writer_failed(base))
        write_metadata(w);
    if (!format_writer_failed(base))
        format_writer_begin(base);
    return format_writer_report(base, error);
}

marco_status gguf_writer_data(gguf_writer *w, const void *data, size_t size, marco_error *error)
{
    if (format_writer_add(&w->base, data, size))
        base_output_align(w->base.output, ALIGNMENT, &w->base.problem);
    return format_writer_report(&w->base, error);
}

marco_status gguf_writer_commit(gguf_writer *w, marco_error *error)
{
    format_writer_finish(&w->base);
    format_writer_commit_file(&w->base);
    marco_status status = format_writer_report(&w->base, error);
    gguf_writer_abort(w);
    return status;
}
