/* The prefixes of a scheduler in a file, the latest used first:
 *
 *     offset  bytes
 *          0      8  "marcoKV1"
 *          8      8  the model and how its caches are kept (fingerprint)
 *         16      8  bytes of a page
 *         24      8  timelines
 *         32      8  pages
 *         40         of each timeline: its length (8), its ids (4 each), zeros to a multiple of 8,
 *                    and the numbers of its pages (8 each); a page that is met for the first time
 *                    has the next number, so that the first timelines need only the first pages
 *                    the pages
 *     the last    8  a hash of all before
 *
 * Numbers are little-endian. */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "infer/scheduler.h"

static const char magic[8] = "marcoKV1";

enum { HEADER_BYTES = 40, HASH_BYTES = 8 };

/* Of timelines and tokens in a file: beyond these it is not one of ours. */
#define MOST_TIMELINES ((uint64_t)1 << 20)

/* A word at a time; finds damage, not forgery. */
static uint64_t hash_bytes(uint64_t hash, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    for (; size >= 8; size -= 8, bytes += 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        hash = (hash ^ word) * 0x100000001B3u;
        hash ^= hash >> 29;
    }
    for (; size > 0; size--)
        hash = (hash ^ *bytes++) * 0x100000001B3u;
    return hash;
}

/* ---- which model it is ---------------------------------------------------------------------- */

static uint64_t hash_file(const char *path)
{
    struct stat st;
    if (stat(path, &st) || !S_ISREG(st.st_mode))
        return 0;
    const uint64_t facts[] = {(uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec,
                              (uint64_t)st.st_mtim.tv_nsec};
    return hash_bytes(1, facts, sizeof facts);
}

/* Sizes and times of the checkpoint's files: another model, or the same one written anew, which
 * costs no more than reading some prompts again, has others. */
static uint64_t hash_checkpoint(const char *path)
{
    DIR *folder = opendir(path);
    uint64_t sum = 0;
    if (!folder)
        return hash_file(path);
    for (struct dirent *e; (e = readdir(folder)) != NULL;) {
        char *file = base_path_join(path, e->d_name);
        uint64_t hash = file ? hash_file(file) : 0;
        sum += hash ? hash_bytes(hash, e->d_name, strlen(e->d_name)) : 0;
        base_free(file);
    }
    closedir(folder);
    return sum;
}

static uint64_t fingerprint(const marco_scheduler *s)
{
    const model_weights *w = s->engine->weights;
    const uint64_t facts[] = {hash_checkpoint(w->path), w->config.n_vocab, (uint64_t)s->kv_type,
                              s->engine->f32};
    uint64_t hash = hash_bytes(2, facts, sizeof facts);
    hash = hash_bytes(hash, marco_version(), strlen(marco_version())); /* may compute otherwise */
    return hash_bytes(hash, marco_cpu_level(), strlen(marco_cpu_level()));
}

/* ---- writing -------------------------------------------------------------------------------- */

typedef struct writer {
    base_output *output;
    uint64_t hash;
    marco_error *error;
} writer;

static marco_status put(writer *w, const void *data, size_t size)
{
    w->hash = hash_bytes(w->hash, data, size);
    return base_output_write(w->output, data, size, w->error);
}

static size_t padding(size_t length)
{
    return length % 2 ? sizeof(int32_t) : 0;
}

static size_t pages_of(uint64_t length)
{
    return (size_t)((length + MODEL_KV_PAGE - 1) / MODEL_KV_PAGE);
}

static marco_status put_timeline(writer *w, infer_timeline *line, uint32_t round, uint64_t *next)
{
    const uint64_t length = line->length, zero = 0;
    marco_status status = put(w, &length, sizeof length);
    if (!status)
        status = put(w, line->ids, line->length * sizeof *line->ids);
    if (!status)
        status = put(w, &zero, padding(line->length));
    for (size_t i = 0; i < pages_of(length) && !status; i++) {
        uint64_t number = model_kv_number(&line->kv, i, round, next);
        status = put(w, &number, sizeof number);
    }
    return status;
}

/* The first timelines whose pages come to at most `limit` bytes, and how many pages those are. */
static size_t choose(infer_prefixes *p, uint64_t limit, uint64_t *pages)
{
    size_t n = 0;
    uint32_t round = infer_prefixes_round(p);
    *pages = 0;
    for (infer_prefix *at = p->first; at; at = at->next, n++) {
        uint64_t next = *pages;
        for (size_t i = 0; i < pages_of(at->line.length); i++)
            model_kv_number(&at->line.kv, i, round, &next);
        if (next * at->line.kv.page_bytes > limit)
            break;
        *pages = next;
    }
    return n;
}

static marco_status put_all(writer *w, marco_scheduler *s, size_t n, uint64_t pages)
{
    infer_prefixes *p = &s->prefixes;
    const uint64_t header[] = {fingerprint(s), p->first ? p->first->line.kv.page_bytes : 0, n,
                               pages};
    uint64_t next = 0;
    uint32_t round = infer_prefixes_round(p);
    marco_status status = put(w, magic, sizeof magic);
    if (!status)
        status = put(w, header, sizeof header);
    infer_prefix *at = p->first;
    for (size_t k = 0; k < n && !status; k++, at = at->next)
        status = put_timeline(w, &at->line, round, &next);
    /* In the order of their numbers: as the timelines meet them. */
    round = infer_prefixes_round(p);
    next = 0;
    at = p->first;
    for (size_t k = 0; k < n && !status; k++, at = at->next)
        for (size_t i = 0; i < pages_of(at->line.length) && !status; i++) {
            uint64_t before = next;
            model_kv_number(&at->line.kv, i, round, &next);
            if (next > before)
                status = put(w, at->line.kv.pages[i], at->line.kv.page_bytes);
        }
    uint64_t hash = w->hash;
    return status ? status : put(w, &hash, sizeof hash);
}

/* Waits for the worker to put its last request away; it then sleeps as long as the lock is held. */
static marco_status lock_idle(marco_scheduler *s, marco_error *error)
{
    pthread_mutex_lock(&s->lock);
    while (s->busy && s->live == 0)
        pthread_cond_wait(&s->rested, &s->lock);
    if (s->live == 0)
        return MARCO_OK;
    pthread_mutex_unlock(&s->lock);
    return base_fail(error, MARCO_ERROR_BUSY, "requests are under way");
}

marco_status marco_scheduler_save(marco_scheduler *s, const char *path, uint64_t limit,
                                  marco_error *error)
{
    writer w = {.hash = 3, .error = error};
    marco_status status = lock_idle(s, error);
    if (status)
        return status;
    uint64_t pages;
    size_t n = choose(&s->prefixes, limit, &pages);
    status = base_output_create(path, true, &w.output, error);
    if (!status) {
        base_output_keep_private(w.output); /* it holds what people wrote */
        status = put_all(&w, s, n, pages);
        if (status)
            base_output_abort(w.output);
        else
            status = base_output_commit(w.output, error);
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

/* ---- reading -------------------------------------------------------------------------------- */

typedef struct reader {
    base_file *file;
    uint64_t at, end; /* end: where the hash is */
    uint64_t hash;
    uint8_t **pages;               /* [known] those that timelines have, by number */
    uint64_t n_pages, known, most; /* in the file; of those taken; to be taken */
    uint64_t numbered;             /* pages that timelines have named so far */
    bool full;                     /* no more timelines are taken */
    marco_error *error;
} reader;

static marco_status damaged(const reader *r, const char *what)
{
    return base_fail(r->error, MARCO_ERROR_FORMAT, "%s: %s; the file is damaged, remove it",
                     r->file->path, what);
}

static marco_status get(reader *r, void *data, uint64_t size)
{
    if (size > r->end - r->at)
        return damaged(r, "it ends too soon");
    marco_status status = base_file_read(r->file, r->at, data, (size_t)size, r->error);
    if (!status)
        r->hash = hash_bytes(r->hash, data, (size_t)size);
    r->at += size;
    return status;
}

/* Pages of a timeline of that length. Without room for them all, that and those after it are not
 * taken. */
static marco_status get_pages(reader *r, infer_timeline *line, uint64_t length)
{
    for (size_t i = 0; i < pages_of(length); i++) {
        uint64_t number;
        marco_status status = get(r, &number, sizeof number);
        if (status)
            return status;
        if (number > r->numbered || number >= r->n_pages)
            return damaged(r, "a page that it does not have");
        r->numbered += number == r->numbered;
        r->full |= number >= r->most;
        if (r->full)
            continue;
        uint8_t *page = number < r->known ? r->pages[number] : NULL;
        page = model_kv_append(&line->kv, page, r->error);
        if (!page)
            return MARCO_ERROR_MEMORY;
        r->pages[number] = page;
        r->known += number == r->known;
    }
    return MARCO_OK;
}

static marco_status get_timeline(reader *r, const marco_scheduler *s, infer_timeline *line)
{
    const int32_t n_vocab = s->engine->weights->config.n_vocab;
    uint64_t length, zero;
    marco_status status = get(r, &length, sizeof length);
    if (status)
        return status;
    if (length == 0 || length > (uint64_t)s->params.n_ctx)
        return damaged(r, "a context of a length that no request has");
    line->ids = base_alloc_array((size_t)length, sizeof *line->ids);
    if (!line->ids)
        return base_fail_memory(r->error, (size_t)length * sizeof *line->ids, "a saved context");
    line->capacity = (size_t)length;
    status = get(r, line->ids, length * sizeof *line->ids);
    if (!status)
        status = get(r, &zero, padding((size_t)length));
    for (uint64_t i = 0; i < length && !status; i++)
        if (line->ids[i] < 0 || line->ids[i] >= n_vocab)
            status = damaged(r, "a token outside the vocabulary");
    line->length = status ? 0 : (size_t)length;
    return status ? status : get_pages(r, line, length);
}

/* The pages, those that nobody has taken too, then the hash. */
static marco_status get_contents(reader *r, size_t page_bytes)
{
    marco_status status = MARCO_OK;
    uint64_t hash;
    if (r->numbered != r->n_pages || r->end - r->at != r->n_pages * page_bytes)
        return damaged(r, "it has not the size that it should have");
    uint8_t *scrap = r->known < r->n_pages ? base_alloc(page_bytes) : NULL;
    if (r->known < r->n_pages && !scrap)
        return base_fail_memory(r->error, page_bytes, "saved contexts");
    for (uint64_t i = 0; i < r->n_pages && !status; i++)
        status = get(r, i < r->known ? r->pages[i] : scrap, page_bytes);
    base_free(scrap);
    if (status)
        return status;
    status = base_file_read(r->file, r->end, &hash, sizeof hash, r->error);
    return status || hash == r->hash ? status : damaged(r, "its hash is another");
}

/* Checks that everything the header says can be, against the file's length and the memory there
 * is. */
static marco_status get_header(reader *r, const marco_scheduler *s, size_t page_bytes,
                               uint64_t *timelines)
{
    char begin[sizeof magic];
    uint64_t header[4], bytes;
    if (r->file->size < HEADER_BYTES + HASH_BYTES)
        return damaged(r, "it is too short");
    r->end = r->file->size - HASH_BYTES;
    marco_status status = get(r, begin, sizeof begin);
    if (!status)
        status = get(r, header, sizeof header);
    if (status)
        return status;
    if (memcmp(begin, magic, sizeof magic) != 0)
        return damaged(r, "it does not hold saved contexts");
    if (header[0] != fingerprint(s))
        return base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                         "%s: it was saved by another model, another kind of KV cache or another "
                         "instruction level",
                         r->file->path);
    *timelines = header[2];
    r->n_pages = header[3];
    if (*timelines > MOST_TIMELINES || (*timelines > 0 && header[1] != page_bytes) ||
        !base_mul_u64(r->n_pages, page_bytes, &bytes) || bytes > r->file->size)
        return damaged(r, "its header contradicts itself");
    r->most = s->params.cache_bytes / page_bytes;
    return MARCO_OK;
}

static marco_status read_all(reader *r, marco_scheduler *s, infer_prefixes *into)
{
    model_kv kv;
    uint64_t timelines = 0;
    model_kv_init(&kv, &s->engine->weights->config, s->kv_type);
    marco_status status = get_header(r, s, kv.page_bytes, &timelines);
    if (!status && r->n_pages) {
        r->most = r->most < r->n_pages ? r->most : r->n_pages;
        r->pages = base_calloc((size_t)r->most, sizeof *r->pages);
        if (!r->pages)
            status =
                base_fail_memory(r->error, (size_t)r->n_pages * sizeof *r->pages, "saved contexts");
    }
    infer_prefix **last = &into->first;
    for (uint64_t i = 0; i < timelines && !status; i++) {
        infer_prefix *prefix = base_calloc(1, sizeof *prefix);
        if (!prefix)
            return base_fail_memory(r->error, sizeof *prefix, "saved contexts");
        infer_timeline_init(&prefix->line, s->engine, s->kv_type, s->params.n_ctx);
        uint64_t known = r->known;
        status = get_timeline(r, s, &prefix->line);
        if (status || r->full) {
            r->known = known; /* pages that only this one has go with it */
            infer_timeline_free(&prefix->line);
            base_free(prefix);
            continue;
        }
        *last = prefix;
        last = &prefix->next;
        into->n++;
    }
    return status ? status : get_contents(r, kv.page_bytes);
}

/* The plan's room for what was read; gives up the oldest where there is not enough. */
static void take_room(infer_prefixes *p)
{
    for (infer_prefix **at = &p->first; *at;) {
        infer_prefix *prefix = *at;
        if (!infer_timeline_reserve(&prefix->line, prefix->line.length, NULL)) {
            at = &prefix->next;
            continue;
        }
        *at = prefix->next;
        infer_timeline_free(&prefix->line);
        base_free(prefix);
        p->n--;
    }
}

marco_status marco_scheduler_load(marco_scheduler *s, const char *path, marco_error *error)
{
    reader r = {.hash = 3, .error = error};
    infer_prefixes read = {0};
    marco_status status = base_file_open(path, &r.file, error);
    if (status)
        return status;
    status = lock_idle(s, error);
    if (!status) {
        pthread_mutex_lock(&s->engine->turn);
        status = read_all(&r, s, &read);
        if (!status)
            take_room(&read);
        if (status) {
            infer_prefixes_free(&read);
        } else {
            infer_prefixes_free(&s->prefixes);
            s->prefixes.first = read.first;
            s->prefixes.n = read.n;
        }
        pthread_mutex_unlock(&s->engine->turn);
        pthread_mutex_unlock(&s->lock);
    }
    base_free(r.pages);
    base_file_close(r.file);
    return status;
}
