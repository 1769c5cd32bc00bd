#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "format/gguf.h"
#include "format/internal.h"

/* The format's default; a key general.alignment is therefore never written. */
#define ALIGNMENT 32
/* The longest name that GGML's own reader takes. */
#define NAME_LIMIT 63
#define KEY_LIMIT  65535

typedef struct described {
    char *name;
    tensor_type type;
    int n_dims;
    int64_t dims[4];
    uint64_t bytes;
} described;

struct gguf_writer {
    base_output *output;
    char *path;
    base_text pairs; /* the metadata, encoded */
    char **keys;
    size_t n_keys, keys_capacity;
    described *tensors;
    size_t n_tensors, tensors_capacity;
    bool begun;
    size_t current;      /* tensor being written */
    uint64_t left;       /* bytes it still needs */
    marco_error problem; /* the first thing that went wrong; MARCO_OK where nothing did */
};

static bool failed(const gguf_writer *w)
{
    return w->problem.status != MARCO_OK;
}

static marco_status report(const gguf_writer *w, marco_error *error)
{
    if (error)
        *error = w->problem;
    return w->problem.status;
}

static void remember_memory(gguf_writer *w, size_t size)
{
    base_fail_memory(&w->problem, size, w->path);
}

marco_status gguf_writer_create(const char *path, bool overwrite, gguf_writer **out,
                                marco_error *error)
{
    gguf_writer *w = base_calloc(1, sizeof *w);
    if (!w)
        return base_fail_memory(error, sizeof *w, path);
    marco_status status;
    w->path = base_strdup(path);
    if (w->path)
        status = base_output_create(path, overwrite, &w->output, error);
    else
        status = base_fail_memory(error, strlen(path), path);
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
    base_output_abort(w->output);
    base_text_free(&w->pairs);
    for (size_t i = 0; i < w->n_keys; i++)
        base_free(w->keys[i]);
    base_free(w->keys);
    for (size_t i = 0; i < w->n_tensors; i++)
        base_free(w->tensors[i].name);
    base_free(w->tensors);
    base_free(w->path);
    base_free(w);
}

/* ---- describing ---------------------------------------------------------------------------- */

static void put_number(gguf_writer *w, uint64_t value, size_t size)
{
    char bytes[8];
    format_store(bytes, value, size);
    base_text_add_n(&w->pairs, bytes, size);
}

static void put_bytes(gguf_writer *w, const char *data, size_t size)
{
    put_number(w, size, 8);
    base_text_add_n(&w->pairs, data, size);
}

/* Key and type; false where the value is not to be written. */
static bool put_key(gguf_writer *w, const char *key, gguf_type type)
{
    if (failed(w) || strcmp(key, "general.alignment") == 0)
        return false;
    const char *problem = format_name_problem(key, strlen(key), KEY_LIMIT);
    if (w->begun || problem) {
        base_fail(&w->problem, MARCO_ERROR_ARGUMENT, "%s: metadata key %s %s", w->path, key,
                  w->begun ? "comes after the metadata was written" : problem);
        return false;
    }
    if (!base_grow((void **)&w->keys, &w->keys_capacity, w->n_keys + 1, sizeof *w->keys) ||
        !(w->keys[w->n_keys] = base_strdup(key))) {
        remember_memory(w, strlen(key));
        return false;
    }
    w->n_keys++;
    put_bytes(w, key, strlen(key));
    put_number(w, type, 4);
    return true;
}

void gguf_put_u32(gguf_writer *w, const char *key, uint32_t value)
{
    if (put_key(w, key, GGUF_U32))
        put_number(w, value, 4);
}

void gguf_put_u64(gguf_writer *w, const char *key, uint64_t value)
{
    if (put_key(w, key, GGUF_U64))
        put_number(w, value, 8);
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

void gguf_put_f32(gguf_writer *w, const char *key, float value)
{
    if (put_key(w, key, GGUF_F32))
        put_number(w, bits_of(value), 4);
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
        for (size_t i = 0; i < n; i++)
            put_number(w, (uint32_t)values[i], 4);
}

void gguf_put_array_f32(gguf_writer *w, const char *key, const float *values, size_t n)
{
    if (put_array(w, key, GGUF_F32, n))
        for (size_t i = 0; i < n; i++)
            put_number(w, bits_of(values[i]), 4);
}

void gguf_put_array_string(gguf_writer *w, const char *key, const gguf_string *values, size_t n)
{
    if (put_array(w, key, GGUF_STRING, n))
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
    if (failed(w))
        return;
    described t = {.type = type, .n_dims = n_dims};
    const char *problem = tensor_problem(name, type, n_dims, dims, &t.bytes);
    if (w->begun || problem) {
        base_fail(&w->problem, MARCO_ERROR_ARGUMENT, "%s: tensor %s %s", w->path, name,
                  w->begun ? "comes after the metadata was written" : problem);
        return;
    }
    memcpy(t.dims, dims, (size_t)n_dims * sizeof *dims);
    if (!base_grow((void **)&w->tensors, &w->tensors_capacity, w->n_tensors + 1, sizeof t) ||
        !(t.name = base_strdup(name))) {
        remember_memory(w, sizeof t);
        return;
    }
    w->tensors[w->n_tensors++] = t;
}

/* ---- writing ------------------------------------------------------------------------------- */

static void refuse_twins(gguf_writer *w)
{
    format_names keys = {0}, names = {0};
    if (!format_names_create(&keys, w->n_keys) || !format_names_create(&names, w->n_tensors)) {
        remember_memory(w, (w->n_keys + w->n_tensors) * sizeof(format_name));
        goto done;
    }
    for (size_t i = 0; i < w->n_keys; i++)
        keys.items[i] = (format_name){w->keys[i], i};
    for (size_t i = 0; i < w->n_tensors; i++)
        names.items[i] = (format_name){w->tensors[i].name, i};
    const format_name *key = format_names_sort(&keys), *name = format_names_sort(&names);
    if (key || name)
        base_fail(&w->problem, MARCO_ERROR_ARGUMENT, "%s: %s %s was described twice", w->path,
                  key ? "metadata key" : "tensor", key ? key->name : name->name);
done:
    format_names_free(&keys);
    format_names_free(&names);
}

/* The descriptions of all tensors, appended to the metadata. */
static void put_descriptions(gguf_writer *w)
{
    uint64_t offset = 0;
    for (size_t i = 0; i < w->n_tensors; i++) {
        const described *t = &w->tensors[i];
        put_bytes(w, t->name, strlen(t->name));
        put_number(w, (uint64_t)t->n_dims, 4);
        for (int d = 0; d < t->n_dims; d++)
            put_number(w, (uint64_t)t->dims[d], 8);
        put_number(w, t->type, 4);
        put_number(w, offset, 8);
        if (!base_add_u64(offset, t->bytes + ALIGNMENT - 1, &offset)) {
            base_fail(&w->problem, MARCO_ERROR_ARGUMENT, "%s: the tensors are too large together",
                      w->path);
            return;
        }
        offset &= ~(uint64_t)(ALIGNMENT - 1);
    }
}

marco_status gguf_writer_begin(gguf_writer *w, marco_error *error)
{
    char head[24];
    if (!failed(w))
        refuse_twins(w);
    if (!failed(w))
        put_descriptions(w);
    if (!failed(w) && w->pairs.failed)
        remember_memory(w, w->pairs.size);
    if (failed(w))
        return report(w, error);
    w->begun = true;
    memcpy(head, "GGUF", 4);
    format_store(head + 4, 3, 4);
    format_store(head + 8, w->n_tensors, 8);
    format_store(head + 16, w->n_keys, 8);
    if (base_output_write(w->output, head, sizeof head, &w->problem) == MARCO_OK &&
        base_output_write(w->output, w->pairs.data, w->pairs.size, &w->problem) == MARCO_OK)
        base_output_align(w->output, ALIGNMENT, &w->problem);
    base_text_free(&w->pairs);
    w->left = w->n_tensors ? w->tensors[0].bytes : 0;
    return failed(w) ? report(w, error) : MARCO_OK;
}

marco_status gguf_writer_data(gguf_writer *w, const void *data, size_t size, marco_error *error)
{
    if (!failed(w) && (!w->begun || size > w->left))
        base_fail(&w->problem, MARCO_ERROR_ARGUMENT,
                  "%s: %zu bytes of tensor data where %" PRIu64 " belong (%s)", w->path, size,
                  w->begun ? w->left : 0,
                  w->current < w->n_tensors ? w->tensors[w->current].name : "past the last tensor");
    if (failed(w))
        return report(w, error);
    if (size == 0)
        return MARCO_OK;
    if (base_output_write(w->output, data, size, &w->problem))
        return report(w, error);
    w->left -= size;
    if (w->left == 0) {
        if (base_output_align(w->output, ALIGNMENT, &w->problem))
            return report(w, error);
        w->current++;
        w->left = w->current < w->n_tensors ? w->tensors[w->current].bytes : 0;
    }
    return MARCO_OK;
}

marco_status gguf_writer_commit(gguf_writer *w, marco_error *error)
{
    marco_status status;
    if (!failed(w) && (!w->begun || w->current < w->n_tensors))
        base_fail(&w->problem, MARCO_ERROR_ARGUMENT,
                  "%s: not all tensors were written (%zu of %zu)", w->path, w->current,
                  w->n_tensors);
    if (failed(w)) {
        status = report(w, error);
    } else {
        status = base_output_commit(w->output, error);
        w->output = NULL;
    }
    gguf_writer_abort(w);
    return status;
}
