#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "format/gguf.h"
#include "format/internal.h"

#define CHUNK_SIZE      ((size_t)1 << 20)
#define ALIGNMENT_LIMIT ((uint64_t)1 << 20)
/* The fewest bytes a pair takes: key length, key, type, value. */
#define PAIR_MIN (8 + 1 + 4 + 1)
/* And a tensor's description: name length, name, dimensions, type, offset. */
#define TENSOR_MIN (8 + 1 + 4 + 8 + 4 + 8)

/* Metadata is read in chunks that never move, so that values may point into them; what straddles
 * the end of one is read again into the next. */
typedef struct chunk {
    struct chunk *next;
    char data[];
} chunk;

typedef struct pair {
    const char *key;
    gguf_value value;
} pair;

struct gguf {
    base_file *file;
    uint32_t version;
    chunk *chunks;
    pair *pairs;
    size_t n_pairs;
    format_names keys;
    gguf_tensor *tensors;
    size_t n_tensors;
    format_names names;
};

typedef struct reader {
    gguf *g;
    chunk **tail;     /* where the next chunk is linked */
    char *at;         /* next byte to parse */
    size_t left;      /* bytes from `at` on */
    uint64_t loaded;  /* bytes of the file that are in chunks */
    uint64_t strings; /* in the arrays so far */
    marco_error *error;
} reader;

static const struct {
    uint8_t size;
    char kind; /* unsigned, signed, float, bool; string, array */
    const char *name;
} types[] = {
    [GGUF_U8] = {1, 'u', "u8"},         [GGUF_I8] = {1, 'i', "i8"},
    [GGUF_U16] = {2, 'u', "u16"},       [GGUF_I16] = {2, 'i', "i16"},
    [GGUF_U32] = {4, 'u', "u32"},       [GGUF_I32] = {4, 'i', "i32"},
    [GGUF_F32] = {4, 'f', "f32"},       [GGUF_BOOL] = {1, 'b', "bool"},
    [GGUF_STRING] = {0, 's', "string"}, [GGUF_ARRAY] = {0, 'a', "array"},
    [GGUF_U64] = {8, 'u', "u64"},       [GGUF_I64] = {8, 'i', "i64"},
    [GGUF_F64] = {8, 'f', "f64"},
};

#define N_TYPES (sizeof types / sizeof types[0])

size_t gguf_type_size(uint32_t type)
{
    return type < N_TYPES ? types[type].size : 0;
}

/* ---- reading metadata ---------------------------------------------------------------------- */

static const char *path_of(const reader *r)
{
    return r->g->file->path;
}

static uint64_t position(const reader *r)
{
    return r->loaded - r->left;
}

/* Bytes that the rest of the metadata can have at most. */
static uint64_t available(const reader *r)
{
    uint64_t end = r->g->file->size;
    if (end > GGUF_METADATA_LIMIT)
        end = GGUF_METADATA_LIMIT;
    return end > position(r) ? end - position(r) : 0;
}

static marco_status past_end(const reader *r, const char *what)
{
    if (r->g->file->size > GGUF_METADATA_LIMIT)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: %.200s at byte %" PRIu64 " runs past the %" PRIu64
                         " bytes that metadata may take; the file is damaged",
                         path_of(r), what, position(r), GGUF_METADATA_LIMIT);
    return base_fail(r->error, MARCO_ERROR_FORMAT,
                     "%s: %.200s at byte %" PRIu64 " runs past the end of the file (%" PRIu64
                     " bytes); is the download complete?",
                     path_of(r), what, position(r), r->g->file->size);
}

/* The next n bytes, in one piece, owned by the gguf. */
static marco_status take(reader *r, uint64_t n, const char *what, char **out)
{
    if (n > available(r))
        return past_end(r, what);
    if (n > r->left) {
        uint64_t rest = r->g->file->size - position(r);
        size_t size = n > CHUNK_SIZE ? (size_t)n : CHUNK_SIZE;
        if (size > rest)
            size = (size_t)rest;
        chunk *c = base_alloc(sizeof *c + size);
        if (!c)
            return base_fail_memory(r->error, size, path_of(r));
        c->next = NULL;
        *r->tail = c;
        r->tail = &c->next;
        marco_status status = base_file_read(r->g->file, position(r), c->data, size, r->error);
        if (status)
            return status;
        r->loaded = position(r) + size;
        r->at = c->data;
        r->left = size;
    }
    *out = r->at;
    r->at += n;
    r->left -= (size_t)n;
    return MARCO_OK;
}

static marco_status take_number(reader *r, size_t size, const char *what, uint64_t *out)
{
    char *bytes;
    marco_status status = take(r, size, what, &bytes);
    if (status == MARCO_OK)
        *out = format_load(bytes, size);
    return status;
}

/* A name and the 32-bit number behind it. The number's first byte becomes the name's NUL. */
static marco_status take_name(reader *r, const char *what, size_t limit, const char **name,
                              uint32_t *number)
{
    uint64_t size;
    char *bytes;
    uint64_t at = position(r);
    marco_status status = take_number(r, 8, what, &size);
    if (status)
        return status;
    if (size > limit)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: %.200s at byte %" PRIu64 " is %" PRIu64
                         " bytes long, more than the %zu allowed",
                         path_of(r), what, at, size, limit);
    status = take(r, size + 4, what, &bytes);
    if (status)
        return status;
    const char *problem = format_name_problem(bytes, (size_t)size, limit);
    if (problem)
        return base_fail(r->error, MARCO_ERROR_FORMAT, "%s: %.200s at byte %" PRIu64 " %s",
                         path_of(r), what, at, problem);
    *number = (uint32_t)format_load(bytes + size, 4);
    bytes[size] = '\0';
    *name = bytes;
    return MARCO_OK;
}

static marco_status take_string(reader *r, const char *key, gguf_string *string)
{
    uint64_t size;
    char *bytes;
    marco_status status = take_number(r, 8, key, &size);
    if (status == MARCO_OK)
        status = take(r, size, key, &bytes);
    if (status)
        return status;
    string->data = bytes;
    string->size = (size_t)size;
    return MARCO_OK;
}

static marco_status check_bools(const reader *r, const char *key, const char *bytes, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if ((unsigned char)bytes[i] > 1)
            return base_fail(r->error, MARCO_ERROR_FORMAT,
                             "%s: %.200s holds %d where 0 or 1 belongs", path_of(r), key,
                             (unsigned char)bytes[i]);
    return MARCO_OK;
}

static marco_status read_strings(reader *r, const char *key, gguf_value *value)
{
    uint64_t n = value->array.n;
    /* 8 bytes of length each: no allocation beyond what the file can fill. */
    if (n > available(r) / 8)
        return past_end(r, key);
    /* An empty string takes twice the memory that it takes in the file. */
    if (n > GGUF_STRINGS_LIMIT - r->strings)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: with the %" PRIu64 " strings of %.200s there are more than %" PRIu64
                         " in arrays, as in no real model; the file is damaged",
                         path_of(r), n, key, GGUF_STRINGS_LIMIT);
    r->strings += n;
    gguf_string *strings = base_alloc_array((size_t)n, sizeof *strings);
    if (!strings)
        return base_fail_memory(r->error, (size_t)n * sizeof *strings, path_of(r));
    value->array.strings = strings;
    for (uint64_t i = 0; i < n; i++) {
        marco_status status = take_string(r, key, &strings[i]);
        if (status)
            return status;
    }
    return MARCO_OK;
}

static marco_status read_array(reader *r, const char *key, gguf_value *value)
{
    uint64_t type, n;
    char *bytes;
    marco_status status = take_number(r, 4, key, &type);
    if (status == MARCO_OK)
        status = take_number(r, 8, key, &n);
    if (status)
        return status;
    if (type == GGUF_ARRAY)
        return base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                         "%s: %.200s is an array of arrays, which is not supported", path_of(r),
                         key);
    if (type >= N_TYPES)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: %.200s is an array of unknown type %" PRIu64, path_of(r), key, type);
    value->array.type = (gguf_type)type;
    value->array.n = n;
    if (type == GGUF_STRING)
        return read_strings(r, key, value);
    if (n > available(r) / types[type].size)
        return past_end(r, key);
    status = take(r, n * types[type].size, key, &bytes);
    if (status)
        return status;
    value->array.data = bytes;
    return type == GGUF_BOOL ? check_bools(r, key, bytes, n) : MARCO_OK;
}

static marco_status read_scalar(reader *r, const char *key, gguf_value *value)
{
    size_t size = types[value->type].size;
    char *bytes;
    marco_status status = take(r, size, key, &bytes);
    if (status)
        return status;
    uint64_t bits = format_load(bytes, size);
    unsigned spare = (unsigned)(64 - 8 * size);
    uint32_t low = (uint32_t)bits;
    float single;
    switch (types[value->type].kind) {
    case 'b':
        value->u = bits;
        return check_bools(r, key, bytes, 1);
    case 'i':
        value->i = (int64_t)(bits << spare) >> spare;
        break;
    case 'f':
        memcpy(&single, &low, sizeof single);
        if (size == sizeof single)
            value->f = (double)single;
        else
            memcpy(&value->f, &bits, sizeof value->f);
        break;
    default:
        value->u = bits;
    }
    return MARCO_OK;
}

static marco_status read_pair(reader *r, pair *p)
{
    uint32_t type;
    marco_status status = take_name(r, "a metadata key", GGUF_KEY_LIMIT, &p->key, &type);
    if (status)
        return status;
    if (type >= N_TYPES)
        return base_fail(r->error, MARCO_ERROR_FORMAT, "%s: %.200s has unknown type %" PRIu32,
                         path_of(r), p->key, type);
    p->value.type = (gguf_type)type;
    if (type == GGUF_ARRAY)
        return read_array(r, p->key, &p->value);
    if (type == GGUF_STRING)
        return take_string(r, p->key, &p->value.string);
    return read_scalar(r, p->key, &p->value);
}

static marco_status read_pairs(reader *r, uint64_t n)
{
    gguf *g = r->g;
    if (n > GGUF_COUNT_LIMIT || n > available(r) / PAIR_MIN)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: claims %" PRIu64
                         " metadata keys, more than fit the file or the limit",
                         path_of(r), n);
    g->pairs = base_calloc((size_t)n, sizeof *g->pairs);
    if (!g->pairs || !format_names_create(&g->keys, (size_t)n))
        return base_fail_memory(r->error, (size_t)n * sizeof *g->pairs, path_of(r));
    for (size_t i = 0; i < n; i++) {
        /* Counted first: a half-read array is released with the rest. */
        g->n_pairs = i + 1;
        marco_status status = read_pair(r, &g->pairs[i]);
        if (status)
            return status;
        g->keys.items[i] = (format_name){g->pairs[i].key, i};
    }
    const format_name *twin = format_names_sort(&g->keys);
    if (twin)
        return base_fail(r->error, MARCO_ERROR_FORMAT, "%s: metadata key %.200s occurs twice",
                         path_of(r), twin->name);
    return MARCO_OK;
}

/* ---- reading tensors ------------------------------------------------------------------------ */

static marco_status read_dims(reader *r, gguf_tensor *t, uint32_t n_dims)
{
    if (n_dims < 1 || n_dims > 4)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: tensor %.200s has %" PRIu32 " dimensions, outside the allowed 1 to 4",
                         path_of(r), t->name, n_dims);
    t->n_dims = (int)n_dims;
    for (int d = 0; d < 4; d++) {
        uint64_t dim = 1;
        marco_status status =
            d < t->n_dims ? take_number(r, 8, "a tensor's shape", &dim) : MARCO_OK;
        if (status)
            return status;
        if (dim < 1 || dim > INT64_MAX)
            return base_fail(r->error, MARCO_ERROR_FORMAT,
                             "%s: tensor %.200s has a dimension of %" PRIu64
                             ", which is impossible",
                             path_of(r), t->name, dim);
        t->dims[d] = (int64_t)dim;
    }
    return MARCO_OK;
}

static marco_status measure(const reader *r, gguf_tensor *t, uint32_t type)
{
    const tensor_traits *traits = tensor_traits_of(type);
    if (!traits)
        return base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                         "%s: tensor %.200s has type %s (%" PRIu32
                         "), which is not supported; convert the model to another type",
                         path_of(r), t->name, tensor_type_name(type), type);
    t->type = (tensor_type)type;
    if (t->dims[0] % traits->block)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: tensor %.200s has rows of %" PRId64
                         " elements, not a multiple of %s's "
                         "block of %d",
                         path_of(r), t->name, t->dims[0], traits->name, (int)traits->block);
    uint64_t rows, elements;
    if (!base_mul_u64((uint64_t)t->dims[1], (uint64_t)t->dims[2], &rows) ||
        !base_mul_u64(rows, (uint64_t)t->dims[3], &rows) ||
        !base_mul_u64(rows, (uint64_t)t->dims[0], &elements) || elements > INT64_MAX ||
        !tensor_bytes(t->type, t->dims[0], rows, &t->bytes))
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: tensor %.200s (%" PRId64 " x %" PRId64 " x %" PRId64 " x %" PRId64
                         ") is too large for any file",
                         path_of(r), t->name, t->dims[0], t->dims[1], t->dims[2], t->dims[3]);
    return MARCO_OK;
}

static marco_status read_tensors(reader *r, uint64_t n)
{
    gguf *g = r->g;
    if (n > GGUF_COUNT_LIMIT || n > available(r) / TENSOR_MIN)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: claims %" PRIu64 " tensors, more than fit the file or the limit",
                         path_of(r), n);
    g->tensors = base_calloc((size_t)n, sizeof *g->tensors);
    if (!g->tensors || !format_names_create(&g->names, (size_t)n))
        return base_fail_memory(r->error, (size_t)n * sizeof *g->tensors, path_of(r));
    for (size_t i = 0; i < n; i++) {
        gguf_tensor *t = &g->tensors[i];
        uint32_t n_dims;
        uint64_t type = 0;
        marco_status status = take_name(r, "a tensor's name", FORMAT_NAME_LIMIT, &t->name, &n_dims);
        if (status == MARCO_OK)
            status = read_dims(r, t, n_dims);
        if (status == MARCO_OK)
            status = take_number(r, 4, "a tensor's type", &type);
        if (status == MARCO_OK)
            status = take_number(r, 8, "a tensor's offset", &t->offset);
        if (status == MARCO_OK)
            status = measure(r, t, (uint32_t)type);
        if (status)
            return status;
        g->names.items[i] = (format_name){t->name, i};
    }
    g->n_tensors = (size_t)n;
    const format_name *twin = format_names_sort(&g->names);
    if (twin)
        return base_fail(r->error, MARCO_ERROR_FORMAT, "%s: tensor %.200s occurs twice", path_of(r),
                         twin->name);
    return MARCO_OK;
}

static marco_status find_alignment(const reader *r, uint64_t *alignment)
{
    const gguf_value *value = gguf_get(r->g, "general.alignment");
    *alignment = 32;
    if (!value)
        return MARCO_OK;
    if (value->type != GGUF_U32)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: general.alignment is of type %s where u32 belongs", path_of(r),
                         types[value->type].name);
    if (value->u < 8 || value->u > ALIGNMENT_LIMIT || (value->u & (value->u - 1)))
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: general.alignment is %" PRIu64
                         ", not a power of two from 8 to %" PRIu64,
                         path_of(r), value->u, ALIGNMENT_LIMIT);
    *alignment = value->u;
    return MARCO_OK;
}

static int compare_offsets(const void *a, const void *b)
{
    uint64_t x = (*(const gguf_tensor *const *)a)->offset;
    uint64_t y = (*(const gguf_tensor *const *)b)->offset;
    return (x > y) - (x < y);
}

static marco_status refuse_overlap(const reader *r)
{
    const gguf *g = r->g;
    marco_status status = MARCO_OK;
    const gguf_tensor **sorted = base_alloc_array(g->n_tensors, sizeof *sorted);
    if (!sorted)
        return base_fail_memory(r->error, g->n_tensors * sizeof *sorted, path_of(r));
    for (size_t i = 0; i < g->n_tensors; i++)
        sorted[i] = &g->tensors[i];
    qsort(sorted, g->n_tensors, sizeof *sorted, compare_offsets);
    for (size_t i = 1; i < g->n_tensors && status == MARCO_OK; i++)
        if (sorted[i - 1]->offset + sorted[i - 1]->bytes > sorted[i]->offset)
            status = base_fail(r->error, MARCO_ERROR_FORMAT,
                               "%s: the data of tensors %.200s and %.200s overlap", path_of(r),
                               sorted[i - 1]->name, sorted[i]->name);
    base_free(sorted);
    return status;
}

/* Makes offsets absolute. */
static marco_status place_tensors(const reader *r)
{
    gguf *g = r->g;
    uint64_t alignment, size = g->file->size;
    marco_status status = find_alignment(r, &alignment);
    if (status)
        return status;
    uint64_t start = (position(r) + alignment - 1) & ~(alignment - 1), last = start;
    for (size_t i = 0; i < g->n_tensors; i++) {
        gguf_tensor *t = &g->tensors[i];
        if (t->offset % alignment)
            return base_fail(r->error, MARCO_ERROR_FORMAT,
                             "%s: the data of tensor %.200s begins at %" PRIu64
                             ", not a multiple of the alignment %" PRIu64,
                             path_of(r), t->name, t->offset, alignment);
        if (start > size || t->offset > size - start || t->bytes > size - start - t->offset)
            return base_fail(r->error, MARCO_ERROR_FORMAT,
                             "%s: the data of tensor %.200s (%" PRIu64 " bytes at %" PRIu64
                             " after the metadata) runs past the end of the file (%" PRIu64
                             " bytes); is the download complete?",
                             path_of(r), t->name, t->bytes, t->offset, size);
        t->offset += start;
        last = t->offset + t->bytes > last ? t->offset + t->bytes : last;
    }
    /* The last tensor may be padded like the others; more than that is not of this file. */
    if (size > last && size - last >= alignment)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: %" PRIu64
                         " bytes follow the last tensor, which no GGUF file has; was "
                         "something appended to it?",
                         path_of(r), size - last);
    return refuse_overlap(r);
}

/* ---- opening -------------------------------------------------------------------------------- */

static marco_status read_head(reader *r, uint64_t *n_tensors, uint64_t *n_pairs)
{
    char *bytes;
    if (r->g->file->size < 8)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: not a GGUF file (only %" PRIu64 " bytes)", path_of(r),
                         r->g->file->size);
    marco_status status = take(r, 8, "the header", &bytes);
    if (status)
        return status;
    if (memcmp(bytes, "GGUF", 4) != 0)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: not a GGUF file (it does not begin with \"GGUF\")", path_of(r));
    uint32_t version = (uint32_t)format_load(bytes + 4, 4);
    /* The version is small, so its low half is zero only when its bytes are swapped. */
    if (version && (version & 0xffff) == 0)
        return base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                         "%s: a big-endian GGUF file; convert it to little-endian", path_of(r));
    if (version != 2 && version != 3)
        return base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                         "%s: GGUF version %" PRIu32 " is not supported (2 and 3 are); convert the "
                         "model again with current tools",
                         path_of(r), version);
    r->g->version = version;
    status = take_number(r, 8, "the number of tensors", n_tensors);
    if (status)
        return status;
    return take_number(r, 8, "the number of metadata keys", n_pairs);
}

marco_status gguf_probe(const char *path, bool *yes, marco_error *error)
{
    base_file *file;
    char magic[4] = {0};
    marco_status status = base_file_open(path, &file, error);
    if (status)
        return status;
    if (file->size >= sizeof magic)
        status = base_file_read(file, 0, magic, sizeof magic, error);
    base_file_close(file);
    *yes = memcmp(magic, "GGUF", sizeof magic) == 0;
    return status;
}

marco_status gguf_open(const char *path, gguf **out, marco_error *error)
{
    uint64_t n_tensors = 0, n_pairs = 0;
    gguf *g = base_calloc(1, sizeof *g);
    if (!g)
        return base_fail_memory(error, sizeof *g, path);
    reader r = {.g = g, .tail = &g->chunks, .error = error};
    marco_status status = base_file_open(path, &g->file, error);
    if (status == MARCO_OK)
        status = read_head(&r, &n_tensors, &n_pairs);
    if (status == MARCO_OK)
        status = read_pairs(&r, n_pairs);
    if (status == MARCO_OK)
        status = read_tensors(&r, n_tensors);
    if (status == MARCO_OK)
        status = place_tensors(&r);
    if (status) {
        gguf_close(g);
        return status;
    }
    *out = g;
    return MARCO_OK;
}

void gguf_close(gguf *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->n_pairs; i++) {
        const gguf_value *value = &g->pairs[i].value;
        if (value->type == GGUF_ARRAY && value->array.type == GGUF_STRING)
            base_free((void *)value->array.strings);
    }
    base_free(g->pairs);
    base_free(g->tensors);
    format_names_free(&g->keys);
    format_names_free(&g->names);
    while (g->chunks) {
        chunk *next = g->chunks->next;
        base_free(g->chunks);
        g->chunks = next;
    }
    base_file_close(g->file);
    base_free(g);
}

const base_file *gguf_file(const gguf *g)
{
    return g->file;
}

uint32_t gguf_version(const gguf *g)
{
    return g->version;
}

/* ---- looking up ----------------------------------------------------------------------------- */

const gguf_value *gguf_get(const gguf *g, const char *key)
{
    size_t at = format_names_find(&g->keys, key);
    return at == SIZE_MAX ? NULL : &g->pairs[at].value;
}

const char *gguf_key(const gguf *g, size_t i, const gguf_value **value)
{
    if (i >= g->n_pairs)
        return NULL;
    if (value)
        *value = &g->pairs[i].value;
    return g->pairs[i].key;
}

size_t gguf_tensor_count(const gguf *g)
{
    return g->n_tensors;
}

const gguf_tensor *gguf_tensor_at(const gguf *g, size_t i)
{
    return i < g->n_tensors ? &g->tensors[i] : NULL;
}

const gguf_tensor *gguf_tensor_find(const gguf *g, const char *name)
{
    size_t at = format_names_find(&g->names, name);
    return at == SIZE_MAX ? NULL : &g->tensors[at];
}

static marco_status wrong_type(const gguf *g, const char *key, const gguf_value *value,
                               const char *wanted, marco_error *error)
{
    return base_fail(error, MARCO_ERROR_FORMAT, "%s: %.200s is of type %s where %s belongs",
                     g->file->path, key, types[value->type].name, wanted);
}

marco_status gguf_get_int(const gguf *g, const char *key, int64_t low, int64_t high, int64_t *out,
                          marco_error *error)
{
    const gguf_value *value = gguf_get(g, key);
    if (!value)
        return MARCO_OK;
    char kind = types[value->type].kind;
    if (kind != 'u' && kind != 'i')
        return wrong_type(g, key, value, "an integer", error);
    if (kind == 'u' && value->u > INT64_MAX)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: %.200s is %" PRIu64 ", outside the allowed %" PRId64 " to %" PRId64,
                         g->file->path, key, value->u, low, high);
    int64_t number = kind == 'u' ? (int64_t)value->u : value->i;
    if (number < low || number > high)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: %.200s is %" PRId64 ", outside the allowed %" PRId64 " to %" PRId64,
                         g->file->path, key, number, low, high);
    *out = number;
    return MARCO_OK;
}

marco_status gguf_get_real(const gguf *g, const char *key, double low, double high, double *out,
                           marco_error *error)
{
    const gguf_value *value = gguf_get(g, key);
    if (!value)
        return MARCO_OK;
    if (types[value->type].kind != 'f')
        return wrong_type(g, key, value, "f32", error);
    /* Written so that NaN fails. */
    if (!isfinite(value->f) || !(value->f >= low && value->f <= high))
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: %.200s is %g, outside the allowed %g to %g", g->file->path, key,
                         value->f, low, high);
    *out = value->f;
    return MARCO_OK;
}

marco_status gguf_get_bool(const gguf *g, const char *key, bool *out, marco_error *error)
{
    const gguf_value *value = gguf_get(g, key);
    if (!value)
        return MARCO_OK;
    if (value->type != GGUF_BOOL)
        return wrong_type(g, key, value, "bool", error);
    *out = value->u != 0;
    return MARCO_OK;
}

marco_status gguf_get_string(const gguf *g, const char *key, gguf_string *out, marco_error *error)
{
    const gguf_value *value = gguf_get(g, key);
    if (!value)
        return MARCO_OK;
    if (value->type != GGUF_STRING)
        return wrong_type(g, key, value, "a string", error);
    *out = value->string;
    return MARCO_OK;
}

marco_status gguf_get_array(const gguf *g, const char *key, gguf_type type, const gguf_value **out,
                            marco_error *error)
{
    const gguf_value *value = gguf_get(g, key);
    if (!value)
        return MARCO_OK;
    if (value->type != GGUF_ARRAY)
        return wrong_type(g, key, value, "an array", error);
    if (value->array.type != type)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: %.200s is an array of type %s where %s belongs", g->file->path, key,
                         types[value->array.type].name, types[type].name);
    *out = value;
    return MARCO_OK;
}
