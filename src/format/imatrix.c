#include "format/imatrix.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "format/gguf.h"
#include "format/internal.h"

#define SUMS   ".in_sum2"
#define COUNTS ".counts"
/* An entry of the older form: the length of a name of one byte, three numbers and one value. */
#define ENTRY_MIN 17
/* Bytes of the text's name. */
#define TEXT_LIMIT 65536

/* ---- in memory ----------------------------------------------------------------------------- */

static imatrix_entry *add(imatrix *m, const char *name, size_t name_size, int64_t n_values,
                          int64_t n_mats)
{
    void *entries = m->entries;
    if (!base_grow(&entries, &m->capacity, m->n + 1, sizeof *m->entries))
        return NULL;
    m->entries = entries;
    imatrix_entry entry = {.n_values = n_values, .n_mats = n_mats};
    entry.name = base_strndup(name, name_size);
    entry.sums = base_calloc((size_t)n_values, sizeof *entry.sums);
    entry.counts = base_calloc((size_t)n_mats, sizeof *entry.counts);
    if (!entry.name || !entry.sums || !entry.counts) {
        base_free(entry.name);
        base_free(entry.sums);
        base_free(entry.counts);
        return NULL;
    }
    m->entries[m->n] = entry;
    return &m->entries[m->n++];
}

imatrix_entry *imatrix_add(imatrix *m, const char *name, int64_t n_values, int64_t n_mats)
{
    return add(m, name, strlen(name), n_values, n_mats);
}

const imatrix_entry *imatrix_find(const imatrix *m, const char *name)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->entries[i].name, name) == 0)
            return &m->entries[i];
    return NULL;
}

void imatrix_clear(imatrix *m)
{
    for (size_t i = 0; i < m->n; i++) {
        base_free(m->entries[i].name);
        base_free(m->entries[i].sums);
        base_free(m->entries[i].counts);
    }
    base_free(m->entries);
    base_free(m->dataset);
    *m = (imatrix){0};
}

void imatrix_means(const imatrix_entry *entry, float *out)
{
    int64_t cols = entry->n_values / entry->n_mats;
    for (int64_t i = 0; i < entry->n_values; i++) {
        float count = entry->counts[i / cols];
        out[i] = count > 0 ? entry->sums[i] / count : 1;
    }
}

/* ---- reading ------------------------------------------------------------------------------- */

static marco_status check_entry(const char *path, const imatrix_entry *entry, marco_error *error)
{
    const char *problem = format_name_problem(entry->name, strlen(entry->name), FORMAT_NAME_LIMIT);
    if (problem)
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: the name of an entry %s", path, problem);
    for (int64_t i = 0; i < entry->n_values + entry->n_mats; i++) {
        bool sum = i < entry->n_values;
        float value = sum ? entry->sums[i] : entry->counts[i - entry->n_values];
        if (!(value >= 0) || isinf(value))
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: %.200s has a %s of %g, which is impossible; make the importance "
                             "matrix again",
                             path, entry->name, sum ? "sum of squares" : "count", (double)value);
    }
    return MARCO_OK;
}

static marco_status check(const char *path, const imatrix *m, marco_error *error)
{
    format_names names = {0};
    marco_status status = MARCO_OK;
    for (size_t i = 0; !status && i < m->n; i++)
        status = check_entry(path, &m->entries[i], error);
    if (status)
        return status;
    if (!format_names_create(&names, m->n))
        return base_fail_memory(error, m->n * sizeof *names.items, path);
    for (size_t i = 0; i < m->n; i++)
        names.items[i] = (format_name){m->entries[i].name, i};
    const format_name *twin = format_names_sort(&names);
    if (twin)
        status = base_fail(error, MARCO_ERROR_FORMAT, "%s: %.200s occurs twice", path, twin->name);
    format_names_free(&names);
    return status;
}

/* The older form: entries one after another, each a name, a count, and sums. */
typedef struct reader {
    const base_file *file;
    uint64_t at;
    marco_error *error;
} reader;

static uint64_t left(const reader *r)
{
    return r->file->size - r->at;
}

static marco_status take(reader *r, void *out, size_t size)
{
    marco_status status = base_file_read(r->file, r->at, out, size, r->error);
    r->at += status ? 0 : size;
    return status;
}

/* A count of things of `size` bytes that are still to come. */
static marco_status take_count(reader *r, const char *what, int32_t low, uint64_t limit,
                               size_t size, int32_t *out)
{
    marco_status status = take(r, out, sizeof *out);
    if (!status && (*out < low || (uint64_t)*out > limit || (uint64_t)*out > left(r) / size))
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: byte %" PRIu64 " says %" PRId32 " for %s, more or less than can be; "
                         "is this an importance matrix, and whole?",
                         r->file->path, r->at - sizeof *out, *out, what);
    return status;
}

static marco_status take_entry(reader *r, imatrix *m)
{
    char name[FORMAT_NAME_LIMIT];
    int32_t size, calls, n;
    marco_status status = take_count(r, "the length of a name", 1, FORMAT_NAME_LIMIT, 1, &size);
    if (!status)
        status = take(r, name, (size_t)size);
    if (!status && memchr(name, 0, (size_t)size))
        status = base_fail(r->error, MARCO_ERROR_FORMAT, "%s: the name of an entry holds a NUL",
                           r->file->path);
    if (!status)
        status = take(r, &calls, sizeof calls);
    if (!status)
        status = take_count(r, "the values of an entry", 1, INT32_MAX, sizeof(float), &n);
    if (status)
        return status;
    imatrix_entry *entry = add(m, name, (size_t)size, n, 1);
    if (!entry)
        return base_fail_memory(r->error, (size_t)n * sizeof(float), r->file->path);
    /* Without a count the values are means already. */
    entry->counts[0] = calls > 0 ? (float)calls : 1;
    return take(r, entry->sums, (size_t)n * sizeof(float));
}

/* What follows the entries in files that are not very old: chunks, and the text's name. */
static marco_status take_origin(reader *r, imatrix *m)
{
    int32_t chunks, size;
    if (left(r) < 2 * sizeof(int32_t))
        return MARCO_OK;
    marco_status status = take(r, &chunks, sizeof chunks);
    if (!status)
        status = take_count(r, "the length of the text's name", 0, TEXT_LIMIT, 1, &size);
    if (status)
        return status;
    m->n_chunks = chunks > 0 ? chunks : 0;
    if (size == 0)
        return MARCO_OK;
    m->dataset = base_calloc((size_t)size + 1, 1);
    if (!m->dataset)
        return base_fail_memory(r->error, (size_t)size, r->file->path);
    return take(r, m->dataset, (size_t)size);
}

static marco_status read_plain(const char *path, imatrix *m, marco_error *error)
{
    base_file *file;
    int32_t n = 0;
    marco_status status = base_file_open(path, &file, error);
    if (status)
        return status;
    reader r = {file, 0, error};
    status = take_count(&r, "the number of entries", 1, GGUF_COUNT_LIMIT, ENTRY_MIN, &n);
    for (int32_t i = 0; !status && i < n; i++)
        status = take_entry(&r, m);
    if (!status)
        status = take_origin(&r, m);
    base_file_close(file);
    return status;
}

/* The tensors NAME.in_sum2 [cols, mats] and NAME.counts [1, mats]. */
static marco_status read_pair(const gguf *g, const gguf_tensor *sums, size_t name_size, imatrix *m,
                              marco_error *error)
{
    const char *path = gguf_file(g)->path;
    char name[FORMAT_NAME_LIMIT + sizeof COUNTS];
    memcpy(name, sums->name, name_size);
    memcpy(name + name_size, COUNTS, sizeof COUNTS);
    const gguf_tensor *counts = gguf_tensor_find(g, name);
    if (!counts)
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: %.200s is missing", path, name);
    if (sums->type != TENSOR_F32 || counts->type != TENSOR_F32)
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: %.200s or its counts are not F32", path,
                         sums->name);
    uint64_t n_values = sums->bytes / sizeof(float), n_mats = counts->bytes / sizeof(float);
    if (n_values % n_mats || n_values / n_mats != (uint64_t)sums->dims[0])
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: %.200s has rows of %" PRId64 " and %" PRIu64 " values, but %" PRIu64
                         " counts",
                         path, sums->name, sums->dims[0], n_values, n_mats);
    imatrix_entry *entry = add(m, sums->name, name_size, (int64_t)n_values, (int64_t)n_mats);
    if (!entry)
        return base_fail_memory(error, (size_t)sums->bytes, path);
    marco_status status =
        base_file_read(gguf_file(g), sums->offset, entry->sums, (size_t)sums->bytes, error);
    return status ? status
                  : base_file_read(gguf_file(g), counts->offset, entry->counts,
                                   (size_t)counts->bytes, error);
}

static marco_status read_origin(const gguf *g, imatrix *m, marco_error *error)
{
    const gguf_value *names = NULL;
    marco_status status =
        gguf_get_int(g, "imatrix.chunk_count", 0, UINT32_MAX, &m->n_chunks, error);
    if (!status)
        status = gguf_get_int(g, "imatrix.chunk_size", 0, UINT32_MAX, &m->chunk_size, error);
    if (!status)
        status = gguf_get_array(g, "imatrix.datasets", GGUF_STRING, &names, error);
    if (status || !names || names->array.n == 0)
        return status;
    const gguf_string *first = &names->array.strings[0];
    m->dataset = base_strndup(first->data, first->size);
    return m->dataset ? MARCO_OK : base_fail_memory(error, first->size, gguf_file(g)->path);
}

static marco_status read_gguf(const char *path, imatrix *m, marco_error *error)
{
    gguf *g;
    marco_status status = gguf_open(path, &g, error);
    if (status)
        return status;
    for (size_t i = 0; !status && i < gguf_tensor_count(g); i++) {
        const gguf_tensor *t = gguf_tensor_at(g, i);
        if (base_has_suffix(t->name, SUMS))
            status = read_pair(g, t, strlen(t->name) - strlen(SUMS), m, error);
    }
    if (!status && m->n == 0)
        status = base_fail(error, MARCO_ERROR_FORMAT,
                           "%s: holds no importance matrix (tensors named *" SUMS ")", path);
    if (!status)
        status = read_origin(g, m, error);
    gguf_close(g);
    return status;
}

marco_status imatrix_read(const char *path, imatrix *m, marco_error *error)
{
    bool is_gguf;
    *m = (imatrix){0};
    marco_status status = gguf_probe(path, &is_gguf, error);
    if (!status)
        status = is_gguf ? read_gguf(path, m, error) : read_plain(path, m, error);
    if (!status)
        status = check(path, m, error);
    if (status)
        imatrix_clear(m);
    return status;
}

/* ---- writing ------------------------------------------------------------------------------- */

static void describe(gguf_writer *w, const imatrix *m)
{
    char name[FORMAT_NAME_LIMIT + sizeof SUMS];
    gguf_put_string(w, "general.type", "imatrix");
    /* llama.cpp wants all three keys to be there. */
    gguf_string dataset = {m->dataset, m->dataset ? strlen(m->dataset) : 0};
    gguf_put_array_string(w, "imatrix.datasets", &dataset, m->dataset ? 1 : 0);
    gguf_put_u32(w, "imatrix.chunk_count", (uint32_t)m->n_chunks);
    gguf_put_u32(w, "imatrix.chunk_size", (uint32_t)m->chunk_size);
    for (size_t i = 0; i < m->n; i++) {
        const imatrix_entry *entry = &m->entries[i];
        int64_t sums[2] = {entry->n_values / entry->n_mats, entry->n_mats};
        int64_t counts[2] = {1, entry->n_mats};
        size_t size = strlen(entry->name);
        memcpy(name, entry->name, size);
        memcpy(name + size, SUMS, sizeof SUMS);
        gguf_put_tensor(w, name, TENSOR_F32, 2, sums);
        memcpy(name + size, COUNTS, sizeof COUNTS);
        gguf_put_tensor(w, name, TENSOR_F32, 2, counts);
    }
}

static marco_status write_gguf(const char *path, bool overwrite, const imatrix *m,
                               marco_error *error)
{
    gguf_writer *w;
    marco_status status = gguf_writer_create(path, overwrite, &w, error);
    if (status)
        return status;
    describe(w, m);
    status = gguf_writer_begin(w, error);
    for (size_t i = 0; !status && i < m->n; i++) {
        const imatrix_entry *entry = &m->entries[i];
        status = gguf_writer_data(w, entry->sums, (size_t)entry->n_values * sizeof(float), error);
        if (!status)
            status =
                gguf_writer_data(w, entry->counts, (size_t)entry->n_mats * sizeof(float), error);
    }
    if (status) {
        gguf_writer_abort(w);
        return status;
    }
    return gguf_writer_commit(w, error);
}

/* The older form counts calls, a chunk each, and not tokens. */
static int32_t calls_of(const imatrix *m, const imatrix_entry *entry)
{
    float most = 1;
    for (int64_t i = 0; i < entry->n_mats; i++)
        most = fmaxf(most, entry->counts[i]);
    float calls = ceilf(most / (float)(m->chunk_size > 0 ? m->chunk_size : 1));
    return calls < 1e9f ? (int32_t)calls : 1000000000;
}

static marco_status write_entry(base_output *out, const imatrix *m, const imatrix_entry *entry,
                                marco_error *error)
{
    size_t bytes = (size_t)entry->n_values * sizeof(float), name_size = strlen(entry->name);
    int32_t size = (int32_t)name_size, numbers[2] = {calls_of(m, entry), (int32_t)entry->n_values};
    float *values = base_alloc(bytes);
    if (!values)
        return base_fail_memory(error, bytes, entry->name);
    imatrix_means(entry, values);
    for (int64_t i = 0; i < entry->n_values; i++)
        values[i] *= (float)numbers[0];
    marco_status status = base_output_write(out, &size, sizeof size, error);
    if (!status)
        status = base_output_write(out, entry->name, name_size, error);
    if (!status)
        status = base_output_write(out, numbers, sizeof numbers, error);
    if (!status)
        status = base_output_write(out, values, bytes, error);
    base_free(values);
    return status;
}

static marco_status write_plain(const char *path, bool overwrite, const imatrix *m,
                                marco_error *error)
{
    base_output *out;
    const char *dataset = m->dataset ? m->dataset : "";
    int32_t n = (int32_t)m->n, origin[2] = {(int32_t)m->n_chunks, (int32_t)strlen(dataset)};
    marco_status status = base_output_create(path, overwrite, &out, error);
    if (status)
        return status;
    status = base_output_write(out, &n, sizeof n, error);
    for (size_t i = 0; !status && i < m->n; i++)
        status = write_entry(out, m, &m->entries[i], error);
    if (!status)
        status = base_output_write(out, origin, sizeof origin, error);
    if (!status)
        status = base_output_write(out, dataset, (size_t)origin[1], error);
    if (status) {
        base_output_abort(out);
        return status;
    }
    return base_output_commit(out, error);
}

static marco_status check_writable(const char *path, const imatrix *m, marco_error *error)
{
    if (m->n == 0 || m->n > GGUF_COUNT_LIMIT / 2)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: an importance matrix of %zu entries cannot be written", path, m->n);
    if (m->n_chunks < 0 || m->n_chunks > INT32_MAX || m->chunk_size < 0 ||
        m->chunk_size > INT32_MAX || (m->dataset && strlen(m->dataset) > TEXT_LIMIT))
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: too many chunks, too large ones, or too long a name of the text",
                         path);
    for (size_t i = 0; i < m->n; i++) {
        const imatrix_entry *entry = &m->entries[i];
        if (strlen(entry->name) + strlen(SUMS) > FORMAT_NAME_LIMIT || entry->n_values > INT32_MAX)
            return base_fail(error, MARCO_ERROR_ARGUMENT,
                             "%s: entry %.200s has too long a name or too many values", path,
                             entry->name);
    }
    return check(path, m, error);
}

marco_status imatrix_write(const char *path, bool overwrite, const imatrix *m, marco_error *error)
{
    marco_status status = check_writable(path, m, error);
    if (status)
        return status;
    return base_has_suffix(path, ".gguf") ? write_gguf(path, overwrite, m, error)
                                          : write_plain(path, overwrite, m, error);
}
