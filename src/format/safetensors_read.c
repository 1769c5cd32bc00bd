#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "format/internal.h"
#include "format/json.h"
#include "format/safetensors.h"

struct safetensors {
    base_file **files;
    size_t n_files, files_capacity;
    safetensors_tensor *tensors;
    size_t n_tensors, tensors_capacity;
    format_names names;
};

/* ---- one tensor ---------------------------------------------------------------------------- */

static marco_status read_type(const char *path, safetensors_tensor *t, const json_t *value,
                              marco_error *error)
{
    static const struct {
        const char *name;
        tensor_type type;
    } known[] = {{"F32", TENSOR_F32}, {"F16", TENSOR_F16}, {"BF16", TENSOR_BF16}};
    const char *name = json_string_value(value);
    if (!name)
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: tensor %.200s has no dtype", path,
                         t->name);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(name, known[i].name) == 0 && strlen(name) == json_string_length(value)) {
            t->type = known[i].type;
            return MARCO_OK;
        }
    }
    return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                     "%s: tensor %.200s has dtype %.200s; only F32, F16 and BF16 are supported",
                     path, t->name, name);
}

/* Also computes t->bytes. */
static marco_status read_shape(const char *path, safetensors_tensor *t, const json_t *shape,
                               marco_error *error)
{
    if (!json_is_array(shape) || json_array_size(shape) > 4)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: tensor %.200s has a shape that is no list of at most 4 dimensions",
                         path, t->name);
    t->bytes = t->type == TENSOR_F32 ? 4 : 2;
    t->n_dims = (int)json_array_size(shape);
    for (int d = 0; d < 4; d++) {
        const json_t *dim = json_array_get(shape, (size_t)d);
        t->dims[d] = d < t->n_dims ? json_integer_value(dim) : 1;
        /* What is no integer has the value 0. */
        if (t->dims[d] < 1)
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: tensor %.200s has a dimension that is no integer above 0", path,
                             t->name);
        if (!base_mul_u64(t->bytes, (uint64_t)t->dims[d], &t->bytes) || t->bytes > INT64_MAX)
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: tensor %.200s is too large for any file", path, t->name);
    }
    return MARCO_OK;
}

/* The range is relative to `start`, where the file's data begins. */
static marco_status read_range(const char *path, safetensors_tensor *t, const json_t *range,
                               uint64_t start, marco_error *error)
{
    const json_t *first = json_array_get(range, 0), *last = json_array_get(range, 1);
    if (json_array_size(range) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: tensor %.200s has data_offsets that are no pair of integers", path,
                         t->name);
    int64_t begin = json_integer_value(first), end = json_integer_value(last);
    uint64_t room = t->file->size - start;
    if (begin < 0 || end < begin)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: tensor %.200s has impossible data_offsets %" PRId64 " to %" PRId64,
                         path, t->name, begin, end);
    if ((uint64_t)end > room)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: tensor %.200s ends at byte %" PRId64 " of the data, but the file has "
                         "only %" PRIu64 "; is the download complete?",
                         path, t->name, end, room);
    if ((uint64_t)(end - begin) != t->bytes)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: tensor %.200s has %" PRId64
                         " bytes of data where its shape needs %" PRIu64,
                         path, t->name, end - begin, t->bytes);
    t->offset = start + (uint64_t)begin;
    return MARCO_OK;
}

static marco_status read_tensor(const char *path, safetensors_tensor *t, const json_t *info,
                                uint64_t start, marco_error *error)
{
    const json_t *type = json_object_get(info, "dtype"), *shape = json_object_get(info, "shape");
    const json_t *range = json_object_get(info, "data_offsets");
    /* A field that is not known could change what the bytes mean. */
    if (json_object_size(info) != 3 || !type || !shape || !range)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: the entry of tensor %.200s must hold dtype, shape and "
                         "data_offsets, and nothing else",
                         path, t->name);
    marco_status status = read_type(path, t, type, error);
    if (status == MARCO_OK)
        status = read_shape(path, t, shape, error);
    if (status == MARCO_OK)
        status = read_range(path, t, range, start, error);
    return status;
}

/* ---- one file ------------------------------------------------------------------------------ */

static marco_status check_metadata(const char *path, const json_t *metadata, marco_error *error)
{
    const char *key;
    json_t *value;
    bool fine = json_is_object(metadata);
    json_object_foreach((json_t *)metadata, key, value)
    {
        fine = fine && json_is_string(value);
    }
    if (!fine)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: __metadata__ is not an object that holds only strings", path);
    return MARCO_OK;
}

static marco_status add_tensor(safetensors *s, const base_file *file, const char *name,
                               const json_t *info, uint64_t start, marco_error *error)
{
    const char *problem = format_name_problem(name, strlen(name), FORMAT_NAME_LIMIT);
    if (problem)
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: a tensor's name %s: %.200s", file->path,
                         problem, name);
    safetensors_tensor t = {.name = name, .file = file};
    marco_status status = read_tensor(file->path, &t, info, start, error);
    if (status)
        return status;
    void *tensors = s->tensors;
    if (!base_grow(&tensors, &s->tensors_capacity, s->n_tensors + 1, sizeof t))
        return base_fail_memory(error, sizeof t, file->path);
    s->tensors = tensors;
    t.name = base_strdup(name);
    if (!t.name)
        return base_fail_memory(error, strlen(name), file->path);
    s->tensors[s->n_tensors++] = t;
    return MARCO_OK;
}

static int compare_offsets(const void *a, const void *b)
{
    uint64_t x = ((const safetensors_tensor *)a)->offset;
    uint64_t y = ((const safetensors_tensor *)b)->offset;
    return (x > y) - (x < y);
}

/* Sorts the tensors from `first` on, all of one file, and checks that they fill it. */
static marco_status place_tensors(safetensors *s, size_t first, const base_file *file,
                                  uint64_t start, marco_error *error)
{
    uint64_t at = start;
    if (s->n_tensors > first)
        qsort(&s->tensors[first], s->n_tensors - first, sizeof *s->tensors, compare_offsets);
    for (size_t i = first; i < s->n_tensors; i++) {
        const safetensors_tensor *t = &s->tensors[i];
        if (t->offset < at)
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: the data of tensors %.200s and %.200s overlap", file->path,
                             t[-1].name, t->name);
        if (t->offset > at)
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: %" PRIu64 " bytes before tensor %.200s belong to no tensor",
                             file->path, t->offset - at, t->name);
        at += t->bytes;
    }
    if (at != file->size)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: the last %" PRIu64 " bytes belong to no tensor", file->path,
                         file->size - at);
    return MARCO_OK;
}

size_t safetensors_count_values(const char *text, size_t size)
{
    size_t n = 0;
    bool quoted = false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '"')
            quoted = !quoted;
        else if (quoted)
            i += text[i] == '\\';
        else
            n += text[i] == '{' || text[i] == '[' || text[i] == ':' || text[i] == ',';
    }
    return n;
}

static marco_status parse(const char *path, const char *text, size_t size, json_t **out,
                          marco_error *error)
{
    size_t n = safetensors_count_values(text, size);
    if (n > SAFETENSORS_VALUE_LIMIT)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: lists %zu keys and values, more than the %zu allowed, which no real "
                         "model needs; the file is damaged",
                         path, n, SAFETENSORS_VALUE_LIMIT);
    return format_json_text(path, text, size, out, error);
}

/* *start: where the data begins. */
static marco_status read_header(const base_file *file, json_t **header, uint64_t *start,
                                marco_error *error)
{
    char size_bytes[8], *text = NULL;
    marco_status status = base_file_read(file, 0, size_bytes, sizeof size_bytes, error);
    if (status)
        return status;
    uint64_t size = format_load(size_bytes, sizeof size_bytes);
    if (size > SAFETENSORS_HEADER_LIMIT)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: claims a header of %" PRIu64
                         " bytes, more than the %zu allowed; is it a safetensors file?",
                         file->path, size, SAFETENSORS_HEADER_LIMIT);
    if (size > file->size - 8)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: claims a header of %" PRIu64 " bytes, but the file has only %" PRIu64
                         "; is the download complete?",
                         file->path, size, file->size);
    text = base_alloc((size_t)size);
    if (!text)
        return base_fail_memory(error, (size_t)size, file->path);
    status = base_file_read(file, 8, text, (size_t)size, error);
    if (status)
        goto done;
    if (size == 0 || text[0] != '{') {
        status = base_fail(error, MARCO_ERROR_FORMAT,
                           "%s: the header does not begin with '{'; is it a safetensors file?",
                           file->path);
        goto done;
    }
    status = parse(file->path, text, (size_t)size, header, error);
    *start = 8 + size;
done:
    base_free(text);
    return status;
}

static marco_status read_file(safetensors *s, const char *path, marco_error *error)
{
    json_t *header = NULL, *info;
    const char *name;
    uint64_t start = 0;
    size_t first = s->n_tensors;
    void *files = s->files;
    if (!base_grow(&files, &s->files_capacity, s->n_files + 1, sizeof *s->files))
        return base_fail_memory(error, sizeof *s->files, path);
    s->files = files;
    base_file *file;
    marco_status status = base_file_open(path, &file, error);
    if (status)
        return status;
    s->files[s->n_files++] = file;
    status = read_header(file, &header, &start, error);
    if (status)
        return status;
    json_object_foreach(header, name, info)
    {
        if (strcmp(name, "__metadata__") == 0)
            status = check_metadata(path, info, error);
        else
            status = add_tensor(s, file, name, info, start, error);
        if (status)
            goto done;
    }
    status = place_tensors(s, first, file, start, error);
done:
    json_decref(header);
    return status;
}

static marco_status index_names(safetensors *s, const char *path, marco_error *error)
{
    if (!format_names_create(&s->names, s->n_tensors))
        return base_fail_memory(error, s->n_tensors * sizeof *s->names.items, path);
    for (size_t i = 0; i < s->n_tensors; i++)
        s->names.items[i] = (format_name){s->tensors[i].name, i};
    const format_name *twin = format_names_sort(&s->names);
    if (twin)
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: tensor %.200s is in %.200s as well",
                         s->tensors[twin[0].at].file->path, twin->name,
                         base_path_name(s->tensors[twin[1].at].file->path));
    return MARCO_OK;
}

/* ---- shards -------------------------------------------------------------------------------- */

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct shard names of the map, sorted, borrowed from it. */
static marco_status list_shards(const char *path, json_t *map, const char ***out, size_t *out_n,
                                marco_error *error)
{
    const char *name;
    json_t *value;
    size_t n = 0, distinct = 0;
    const char **shards = base_alloc_array(json_object_size(map), sizeof *shards);
    if (!shards)
        return base_fail_memory(error, json_object_size(map) * sizeof *shards, path);
    json_object_foreach(map, name, value)
    {
        const char *shard = json_string_value(value);
        if (!shard || strlen(shard) != json_string_length(value) || !base_path_is_plain(shard)) {
            base_free(shards);
            return base_fail(
                error, MARCO_ERROR_FORMAT,
                "%s: tensor %.200s is said to be in %.200s, which is no plain file name", path,
                name, shard ? shard : "something that is no string");
        }
        shards[n++] = shard;
    }
    if (n)
        qsort(shards, n, sizeof *shards, compare_strings);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(shards[distinct - 1], shards[i]) != 0)
            shards[distinct++] = shards[i];
    *out = shards;
    *out_n = distinct;
    return MARCO_OK;
}

/* That index and shards agree, both ways. */
static marco_status compare_index(const safetensors *s, const char *path, json_t *map,
                                  marco_error *error)
{
    const char *name;
    json_t *value;
    for (size_t i = 0; i < s->n_tensors; i++) {
        const safetensors_tensor *t = &s->tensors[i];
        if (!json_object_get(map, t->name))
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: lacks tensor %.200s, which %.200s holds", path, t->name,
                             base_path_name(t->file->path));
    }
    json_object_foreach(map, name, value)
    {
        const safetensors_tensor *t = safetensors_find(s, name);
        const char *shard = json_string_value(value);
        if (!t || strcmp(base_path_name(t->file->path), shard) != 0)
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: tensor %.200s should be in %.200s, but is not there", path, name,
                             shard);
    }
    return MARCO_OK;
}

static marco_status read_shards(safetensors *s, const char *folder, const char *path,
                                marco_error *error)
{
    json_t *index = NULL;
    const char **shards = NULL;
    char *text;
    size_t size, n = 0;
    marco_status status = base_file_slurp(path, SAFETENSORS_HEADER_LIMIT, &text, &size, error);
    if (status)
        return status;
    status = parse(path, text, size, &index, error);
    base_free(text);
    if (status)
        return status;
    json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map)) {
        status = base_fail(error, MARCO_ERROR_FORMAT, "%s: has no weight_map", path);
        goto done;
    }
    status = list_shards(path, map, &shards, &n, error);
    /* Once there are more tensors than the index has, what is wrong can be told. */
    for (size_t i = 0; i < n && status == MARCO_OK && s->n_tensors <= json_object_size(map); i++) {
        char *shard = base_path_join(folder, shards[i]);
        status =
            shard ? read_file(s, shard, error) : base_fail_memory(error, strlen(shards[i]), path);
        base_free(shard);
    }
    if (status == MARCO_OK)
        status = index_names(s, path, error);
    if (status == MARCO_OK)
        status = compare_index(s, path, map, error);
done:
    base_free(shards);
    json_decref(index);
    return status;
}

/* ---- opening ------------------------------------------------------------------------------- */

marco_status safetensors_open(const char *path, safetensors **out, marco_error *error)
{
    safetensors *s = base_calloc(1, sizeof *s);
    if (!s)
        return base_fail_memory(error, sizeof *s, path);
    marco_status status = read_file(s, path, error);
    if (status == MARCO_OK)
        status = index_names(s, path, error);
    if (status) {
        safetensors_close(s);
        return status;
    }
    *out = s;
    return MARCO_OK;
}

marco_status safetensors_open_folder(const char *folder, safetensors **out, marco_error *error)
{
    return safetensors_open_named(folder, "model", out, error);
}

marco_status safetensors_open_named(const char *folder, const char *stem, safetensors **out,
                                    marco_error *error)
{
    marco_status status;
    safetensors *s = NULL;
    char name[64];
    snprintf(name, sizeof name, "%.32s.safetensors", stem);
    char *whole = base_path_join(folder, name);
    snprintf(name, sizeof name, "%.32s.safetensors.index.json", stem);
    char *index = base_path_join(folder, name);
    if (!whole || !index) {
        status = base_fail_memory(error, strlen(folder), folder);
        goto done;
    }
    if (base_exists(whole)) {
        status = safetensors_open(whole, out, error);
        goto done;
    }
    if (!base_exists(index)) {
        status = base_fail(error, MARCO_ERROR_NOT_FOUND,
                           "%s: holds neither %.32s.safetensors nor %s", folder, stem, name);
        goto done;
    }
    s = base_calloc(1, sizeof *s);
    status = s ? read_shards(s, folder, index, error) : base_fail_memory(error, sizeof *s, folder);
    if (status == MARCO_OK) {
        *out = s;
        s = NULL;
    }
done:
    safetensors_close(s);
    base_free(whole);
    base_free(index);
    return status;
}

void safetensors_close(safetensors *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_tensors; i++)
        base_free((void *)s->tensors[i].name);
    base_free(s->tensors);
    for (size_t i = 0; i < s->n_files; i++)
        base_file_close(s->files[i]);
    base_free(s->files);
    format_names_free(&s->names);
    base_free(s);
}

size_t safetensors_count(const safetensors *s)
{
    return s->n_tensors;
}

const safetensors_tensor *safetensors_at(const safetensors *s, size_t i)
{
    return i < s->n_tensors ? &s->tensors[i] : NULL;
}

const safetensors_tensor *safetensors_find(const safetensors *s, const char *name)
{
    size_t at = format_names_find(&s->names, name);
    return at == SIZE_MAX ? NULL : &s->tensors[at];
}
