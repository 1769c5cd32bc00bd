/* Files are read in chunks of whole lines, a batch of chunks at a time; the chunks of a batch are
 * counted in parallel, into a table for each thread. The tables' sum does not depend on who counted
 * what. */
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/pool.h"
#include "format/json.h"
#include "tokenizer/nfc.h"
#include "tokenizer/split.h"
#include "tokenizer/train.h"

enum { N_CHUNKS = 32, CHUNK_SIZE = 1 << 18, MAX_LINE = 64 << 20 };

/* Whole lines of a file. */
typedef struct chunk {
    base_text text;
    const char *path;
    uint64_t line; /* the first one's number, from 1 */
    marco_status status;
    marco_error error;
} chunk;

/* What a thread has. */
typedef struct counter {
    tok_words words;
    tok_split_work *split;
    base_text normal;
} counter;

typedef struct reader {
    const marco_tokenizer_train_params *params;
    size_t next_file; /* to be opened */
    base_file *file;  /* NULL: none is open */
    uint64_t at, end, line;
    base_text rest; /* the beginning of a line that the last chunk did not have the end of */
    uint64_t done, total;

    tok_nfc *nfc; /* NULL: the spec normalises nothing */
    counter *counters;
    chunk *chunks; /* [N_CHUNKS] */
    marco_error *error;
} reader;

/* ---- files --------------------------------------------------------------------------------- */

static uint64_t bytes_of(const reader *r, const base_file *file)
{
    uint64_t most = r->params->max_bytes;
    return most && most < file->size ? most : file->size;
}

/* Every file is looked at before hours go into the first. */
static marco_status find_total(reader *r)
{
    for (size_t i = 0; i < r->params->n_files; i++) {
        base_file *file;
        marco_status status = base_file_open(r->params->files[i], &file, r->error);
        if (status)
            return status;
        r->total += bytes_of(r, file);
        base_file_close(file);
    }
    return MARCO_OK;
}

static bool is_json(const char *path)
{
    return base_has_suffix(path, ".jsonl");
}

static marco_status open_next(reader *r)
{
    marco_status status = base_file_open(r->params->files[r->next_file], &r->file, r->error);
    if (status)
        return status;
    r->next_file++;
    r->at = 0;
    r->end = bytes_of(r, r->file);
    r->line = 1;
    return MARCO_OK;
}

/* Where max_bytes ends within a character, or within a line of JSON, the rest of it goes. */
static void trim_cut(const reader *r, chunk *c)
{
    if (r->end == r->file->size)
        return;
    size_t size = c->text.size, n = 0;
    if (is_json(c->path)) {
        while (size && c->text.data[size - 1] != '\n')
            size--;
    } else {
        while (n < 3 && n < size && ((unsigned char)c->text.data[size - 1 - n] & 0xC0) == 0x80)
            n++;
        if (n < size && base_utf8_partial(c->text.data + size - 1 - n, n + 1))
            size -= n + 1;
    }
    c->text.size = size;
}

static uint64_t count_lines(const char *text, size_t size)
{
    uint64_t n = 0;
    for (const char *end = text + size;
         text < end && (text = memchr(text, '\n', (size_t)(end - text))); text++)
        n++;
    return n;
}

/* Appends the next bytes of the open file. */
static marco_status read_more(reader *r, chunk *c)
{
    uint64_t left = r->end - r->at;
    size_t size = left < CHUNK_SIZE ? (size_t)left : CHUNK_SIZE;
    if (c->text.size > MAX_LINE)
        return base_fail(r->error, MARCO_ERROR_FORMAT,
                         "%s: line %llu is longer than %d MiB; break it into lines", c->path,
                         (unsigned long long)c->line, MAX_LINE >> 20);
    void *data = c->text.data;
    if (!base_grow(&data, &c->text.capacity, c->text.size + size, 1))
        return base_fail_memory(r->error, c->text.size + size, "lines of text");
    c->text.data = data;
    marco_status status =
        base_file_read(r->file, r->at, c->text.data + c->text.size, size, r->error);
    if (status)
        return status;
    c->text.size += size;
    r->at += size;
    r->done += size;
    return MARCO_OK;
}

/* The next lines of the open file, which is closed at its end. */
static marco_status fill_chunk(reader *r, chunk *c)
{
    size_t whole = 0;
    c->path = r->params->files[r->next_file - 1];
    c->line = r->line;
    c->status = MARCO_OK;
    base_text_clear(&c->text);
    if (r->rest.size)
        base_text_add_n(&c->text, r->rest.data, r->rest.size);
    base_text_clear(&r->rest);
    if (c->text.failed)
        return base_fail_memory(r->error, CHUNK_SIZE, "lines of text");
    while (!whole && r->at < r->end) {
        size_t before = c->text.size;
        marco_status status = read_more(r, c);
        if (status)
            return status;
        const char *newline = memrchr(c->text.data + before, '\n', c->text.size - before);
        if (newline)
            whole = (size_t)(newline - c->text.data) + 1;
    }
    if (r->at < r->end) {
        base_text_add_n(&r->rest, c->text.data + whole, c->text.size - whole);
        c->text.size = whole;
        r->line += count_lines(c->text.data, whole);
    } else {
        trim_cut(r, c);
        base_file_close(r->file);
        r->file = NULL;
    }
    return r->rest.failed ? base_fail_memory(r->error, c->text.size, "lines of text") : MARCO_OK;
}

/* ---- counting ------------------------------------------------------------------------------ */

static bool take_word(void *user, const char *piece, size_t size)
{
    counter *t = user;
    for (; size > TOK_MAX_WORD; piece += TOK_MAX_WORD, size -= TOK_MAX_WORD)
        if (!tok_words_add(&t->words, piece, TOK_MAX_WORD, 1))
            return false;
    return tok_words_add(&t->words, piece, size, 1);
}

/* One text, well-formed. With `lines` each of its lines is one. */
static marco_status count_text(const reader *r, counter *t, const char *text, size_t size,
                               bool lines, marco_error *error)
{
    marco_status status = MARCO_OK;
    if (r->nfc && !tok_nfc_is_normal(r->nfc, text, size)) {
        /* A newline joins nothing, so that lines are normalised alike alone and together. */
        base_text_clear(&t->normal);
        status = tok_nfc_apply(r->nfc, text, size, &t->normal, NULL, NULL, error);
        if (status)
            return status;
        text = t->normal.data;
        size = t->normal.size;
    }
    while (!status && size) {
        const char *newline = lines ? memchr(text, '\n', size) : NULL;
        size_t n = newline ? (size_t)(newline - text) + 1 : size;
        status = tok_split_run(t->split, text, n, take_word, t, error);
        text += n;
        size -= n;
    }
    return status;
}

/* Without what only says that a file is UTF-8. */
static const char *text_of(const chunk *c, size_t *size)
{
    size_t mark = c->line == 1 ? base_utf8_mark(c->text.data, c->text.size) : 0;
    *size = c->text.size - mark;
    return c->text.data + mark;
}

static marco_status count_lines_of_text(const reader *r, counter *t, chunk *c)
{
    size_t size;
    const char *text = text_of(c, &size);
    size_t bad = base_utf8_check(text, size);
    if (bad < size)
        return base_fail(&c->error, MARCO_ERROR_FORMAT,
                         "%s: line %llu is not valid UTF-8 (byte 0x%02X); convert the file to "
                         "UTF-8, or remove the line",
                         c->path, (unsigned long long)(c->line + count_lines(text, bad)),
                         (unsigned char)text[bad]);
    return count_text(r, t, text, size, true, &c->error);
}

/* ---- JSON lines ---------------------------------------------------------------------------- */

static marco_status count_string(const reader *r, counter *t, const json_t *value,
                                 marco_error *error)
{
    return count_text(r, t, json_string_value(value), json_string_length(value), false, error);
}

static marco_status count_messages(const reader *r, counter *t, const char *where,
                                   const json_t *messages, marco_error *error)
{
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *content = json_object_get(json_array_get(messages, i), "content");
        marco_status status = MARCO_OK;
        if (json_is_string(content))
            status = count_string(r, t, content, error);
        else if (!json_is_object(json_array_get(messages, i)) ||
                 (content && !json_is_null(content)))
            status = base_fail(error, MARCO_ERROR_FORMAT,
                               "%s: message %zu must be an object whose \"content\" is a string",
                               where, i);
        if (status)
            return status;
    }
    return MARCO_OK;
}

static marco_status count_object(const reader *r, counter *t, const char *where,
                                 const json_t *object, marco_error *error)
{
    const json_t *text = json_object_get(object, "text");
    const json_t *messages = json_object_get(object, "messages");
    if (json_is_string(text))
        return count_string(r, t, text, error);
    if (!text && json_is_array(messages))
        return count_messages(r, t, where, messages, error);
    return base_fail(error, MARCO_ERROR_FORMAT,
                     "%s: must be an object with a string \"text\" or an array \"messages\"",
                     where);
}

static marco_status count_lines_of_json(const reader *r, counter *t, chunk *c)
{
    size_t left;
    const char *at = text_of(c, &left), *end = at + left;
    marco_status status = MARCO_OK;
    for (uint64_t line = c->line; !status && at < end; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline : end;
        char where[256];
        json_t *object = NULL;
        size_t size = (size_t)(stop - at);
        marco_error problem = {0};
        snprintf(where, sizeof where, "%.200s:%llu", c->path, (unsigned long long)line);
        if (!base_is_blank(at, size))
            status = format_json_line(at, size, false, &object, &problem);
        if (status)
            base_fail(&c->error, status, "%s: %s", where, problem.message);
        else if (object)
            status = count_object(r, t, where, object, &c->error);
        json_decref(object);
        at = stop + (newline != NULL);
    }
    return status;
}

/* ---- batches ------------------------------------------------------------------------------- */

static void count_chunk(void *user, int64_t part, int thread)
{
    reader *r = user;
    chunk *c = &r->chunks[part];
    counter *t = &r->counters[thread];
    if (c->text.size)
        c->status = is_json(c->path) ? count_lines_of_json(r, t, c) : count_lines_of_text(r, t, c);
}

static marco_status count_files(reader *r, base_pool *pool)
{
    const marco_progress *progress = &r->params->progress;
    marco_status status = find_total(r);
    while (!status && (r->file || r->next_file < r->params->n_files)) {
        int64_t n = 0;
        while (!status && n < N_CHUNKS && (r->file || r->next_file < r->params->n_files)) {
            if (!r->file)
                status = open_next(r);
            if (!status)
                status = fill_chunk(r, &r->chunks[n++]);
        }
        if (status)
            return status;
        base_pool_run(pool, count_chunk, r, n);
        for (int64_t i = 0; i < n; i++) /* the first error in the order of the files */
            if (r->chunks[i].status)
                return base_fail(r->error, r->chunks[i].status, "%s", r->chunks[i].error.message);
        if (progress->fn && progress->fn(progress->user, "reading", r->done, r->total))
            return base_fail(r->error, MARCO_ERROR_CANCELLED, "reading text was cancelled");
    }
    return status;
}

static marco_status gather(reader *r, int n_threads, tok_words *out)
{
    *out = r->counters[0].words;
    r->counters[0].words = (tok_words){0};
    for (int i = 1; i < n_threads; i++) {
        tok_words *from = &r->counters[i].words;
        for (size_t w = 0; w < from->n; w++)
            if (!tok_words_add(out, tok_words_bytes(from, w), from->items[w].size,
                               from->items[w].count))
                return base_fail_memory(r->error, from->bytes.size, "words");
        tok_words_free(from);
    }
    return MARCO_OK;
}

static marco_status prepare(reader *r, const tok_split *split, int n_threads)
{
    r->counters = base_calloc((size_t)n_threads, sizeof *r->counters);
    r->chunks = base_calloc(N_CHUNKS, sizeof *r->chunks);
    if (!r->counters || !r->chunks)
        return base_fail_memory(r->error, N_CHUNKS * sizeof *r->chunks, "lines of text");
    marco_status status = MARCO_OK;
    for (int i = 0; !status && i < n_threads; i++) {
        status = tok_seed_draw(&r->counters[i].words.seed, r->error);
        if (!status)
            status = tok_split_work_create(split, &r->counters[i].split, r->error);
    }
    return status;
}

static void release(reader *r, int n_threads)
{
    for (int i = 0; r->counters && i < n_threads; i++) {
        tok_words_free(&r->counters[i].words);
        tok_split_work_free(r->counters[i].split);
        base_text_free(&r->counters[i].normal);
    }
    for (int i = 0; r->chunks && i < N_CHUNKS; i++)
        base_text_free(&r->chunks[i].text);
    base_free(r->counters);
    base_free(r->chunks);
    base_text_free(&r->rest);
    base_file_close(r->file);
    tok_nfc_free(r->nfc);
}

marco_status tok_count_words(const tok_spec *spec, const marco_tokenizer_train_params *params,
                             tok_words *out, marco_error *error)
{
    reader r = {.params = params, .error = error};
    tok_split *split = NULL;
    base_pool *pool = NULL;
    int n_threads = params->threads ? params->threads : base_cpu_count();
    marco_status status = base_pool_create(n_threads, &pool, error);
    if (!status)
        status = tok_split_create(spec, &split, error);
    if (!status && spec->nfc)
        status = tok_nfc_create(&r.nfc, error);
    if (!status)
        status = prepare(&r, split, n_threads);
    if (!status)
        status = count_files(&r, pool);
    if (!status)
        status = gather(&r, n_threads, out);
    release(&r, n_threads);
    tok_split_free(split);
    base_pool_destroy(pool);
    return status;
}
