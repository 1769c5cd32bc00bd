/* Text to shards. One thread reads a window of documents, all of them encode it, and the first one
 * writes it in order: the shards do not depend on the threads, and memory is that of a window. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/pool.h"
#include "base/text.h"
#include "data/document.h"
#include "data/input.h"
#include "data/shard.h"
#include "format/json.h"
#include "marco/train.h"

enum {
    WINDOW_BYTES = 8 << 20, /* of text, or one document */
    WINDOW_JOBS = 1 << 14,
};

#define LINE_DEFAULT       ((uint64_t)64 << 20)
#define LINE_MOST          ((uint64_t)1 << 30)
#define SHARD_DEFAULT      ((uint64_t)1 << 28)
#define SHARD_DEFAULT_CHAT ((uint64_t)1 << 26) /* targets are held in memory until it is full */
#define SHARD_MOST         ((uint64_t)1 << 40)

typedef struct file_counts {
    uint64_t size, documents, tokens, empty, bad;
} file_counts;

typedef struct build {
    marco_data_params params; /* defaults filled in */
    marco_tokenizer *tokenizer;
    data_form form;
    base_pool *pool;
    base_folder *folder;
    data_writer writers[2]; /* by data_split */

    base_text text; /* the window */
    data_job *jobs; /* [WINDOW_JOBS] */
    size_t n_jobs;

    file_counts *counts;  /* [n_files] */
    uint64_t read, total; /* bytes of the files */
    marco_data_stats stats;
    marco_error *error;
} build;

marco_data_params marco_data_params_default(void)
{
    return (marco_data_params){0};
}

/* ---- parameters ---------------------------------------------------------------------------- */

static marco_status check_params(const char *to, const marco_data_params *p, marco_error *error)
{
    if (!to || !p->tokenizer || !p->files || p->n_files < 1)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "marco_data_build needs a folder to write, a tokenizer and files");
    if (!(p->valid >= 0 && p->valid < 1))
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "a share of %g to be held out: must be from 0 to less than 1", p->valid);
    if (p->threads < 0 || p->threads > 1024)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "%d threads: must be 0 to 1024", p->threads);
    if (p->max_line > LINE_MOST)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "documents of up to %" PRIu64 " bytes: at most %" PRIu64, p->max_line,
                         LINE_MOST);
    if (p->shard_tokens > SHARD_MOST)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "shards of %" PRIu64 " tokens: at most %" PRIu64, p->shard_tokens,
                         SHARD_MOST);
    for (size_t i = 0; i < p->n_files; i++) {
        const char *path = p->files[i];
        if (base_has_suffix(path, ".json"))
            return base_fail(
                error, MARCO_ERROR_ARGUMENT,
                "%s: one JSON value for all cannot be read in pieces; write one a line "
                "and name the file .jsonl",
                path);
        if (p->chat && !base_has_suffix(path, ".jsonl"))
            return base_fail(error, MARCO_ERROR_ARGUMENT,
                             "%s: conversations come in .jsonl files, one a line", path);
    }
    return MARCO_OK;
}

static marco_status open_tokenizer(build *b)
{
    const marco_data_params *p = &b->params;
    marco_status status = marco_tokenizer_open(p->tokenizer, &b->tokenizer, b->error);
    if (!status && p->chat_template)
        status = marco_tokenizer_set_chat_template(b->tokenizer, p->chat_template, b->error);
    if (status)
        return status;
    b->form = (data_form){.tokenizer = b->tokenizer,
                          .chat = p->chat,
                          .field = p->field ? p->field : "text",
                          .turn_end = marco_tokenizer_find(b->tokenizer, "<|im_end|>"),
                          .hash = p->valid > 0,
                          .max_size = p->max_line};
    if (!p->chat)
        return MARCO_OK;
    if (!marco_tokenizer_chat_template(b->tokenizer))
        return base_fail(b->error, MARCO_ERROR_NOT_FOUND,
                         "%s has no chat template that is known; name one, such as chatml",
                         p->tokenizer);
    if (!marco_tokenizer_is_special(b->tokenizer, b->form.turn_end))
        return base_fail(b->error, MARCO_ERROR_UNSUPPORTED,
                         "%s has no special token <|im_end|>, with which the turns of chat "
                         "template %s end",
                         p->tokenizer, marco_tokenizer_chat_template(b->tokenizer));
    return MARCO_OK;
}

/* All files are looked at before the work begins. */
static marco_status size_files(build *b)
{
    marco_status status = MARCO_OK;
    for (size_t i = 0; !status && i < b->params.n_files; i++) {
        base_file *file;
        status = base_file_open(b->params.files[i], &file, b->error);
        if (status)
            break;
        b->counts[i].size = file->size;
        b->total += file->size;
        base_file_close(file);
    }
    return status;
}

static marco_status begin(build *b, const char *to)
{
    marco_data_params *p = &b->params;
    uint8_t digest[BASE_SHA256_BYTES];
    p->max_line = p->max_line ? p->max_line : LINE_DEFAULT;
    if (!p->shard_tokens)
        p->shard_tokens = p->chat ? SHARD_DEFAULT_CHAT : SHARD_DEFAULT;
    b->jobs = base_calloc(WINDOW_JOBS, sizeof *b->jobs);
    b->counts = base_calloc(p->n_files, sizeof *b->counts);
    if (!b->jobs || !b->counts)
        return base_fail_memory(b->error, WINDOW_JOBS * sizeof *b->jobs, "documents");
    marco_status status = open_tokenizer(b);
    if (!status)
        status = size_files(b);
    if (!status)
        status = base_pool_create(p->threads ? p->threads : base_cpu_count(), &b->pool, b->error);
    if (!status)
        status = data_tokenizer_hash(b->tokenizer, digest, b->error);
    if (!status)
        status = base_folder_create(to, p->overwrite, &b->folder, b->error);
    for (int split = 0; !status && split < 2; split++)
        data_writer_begin(&b->writers[split], base_folder_path(b->folder), (data_split)split,
                          p->chat, marco_tokenizer_size(b->tokenizer), digest, p->shard_tokens);
    return status;
}

/* ---- windows ------------------------------------------------------------------------------- */

static void encode_part(void *user, int64_t part, int thread)
{
    build *b = user;
    (void)thread;
    data_job *job = &b->jobs[part];
    data_document_encode(&b->form, job->size ? b->text.data + job->start : "", job);
}

/* "FILE, line N: what is wrong" to the statistics, or as the error. */
static marco_status note_bad(build *b, const data_job *job)
{
    const char *path = b->params.files[job->file];
    char line[32] = "";
    marco_error why;
    if (job->line)
        snprintf(line, sizeof line, ", line %" PRIu64, job->line);
    base_fail(&why, MARCO_ERROR_FORMAT, "%s%s: %s", path, line, job->why);
    if (!b->params.skip_bad)
        return base_fail(b->error, MARCO_ERROR_FORMAT,
                         "%s; correct it, or ask to skip what cannot be used", why.message);
    if (b->stats.bad == 0)
        memcpy(b->stats.first_bad, why.message, sizeof b->stats.first_bad);
    b->stats.bad++;
    b->counts[job->file].bad++;
    return MARCO_OK;
}

static marco_status keep(build *b, const data_job *job)
{
    /* The hash as a number from 0 to 1: the same side for the same text, whatever is beside it. */
    bool held_out = (double)(job->hash >> 11) * 0x1p-53 < b->params.valid;
    marco_data_stats *s = &b->stats;
    s->bytes += held_out ? 0 : job->bytes;
    *(held_out ? &s->valid_documents : &s->documents) += 1;
    *(held_out ? &s->valid_tokens : &s->tokens) += job->n;
    b->counts[job->file].documents++;
    b->counts[job->file].tokens += job->n;
    return data_writer_add(&b->writers[held_out ? DATA_VALID : DATA_TRAIN], job->ids, job->targets,
                           job->n, b->error);
}

static marco_status take(build *b, const data_job *job)
{
    if (job->status == MARCO_ERROR_MEMORY)
        return base_fail_memory(b->error, job->size, "a document's tokens");
    if (job->status)
        return base_fail(b->error, job->status, "%s, line %" PRIu64 ": it could not be encoded: %s",
                         b->params.files[job->file], job->line, marco_status_text(job->status));
    if (job->outcome == DATA_BAD)
        return note_bad(b, job);
    if (job->outcome == DATA_KEPT)
        return keep(b, job);
    b->stats.empty++;
    b->counts[job->file].empty++;
    return MARCO_OK;
}

static marco_status report(build *b)
{
    const marco_progress *progress = &b->params.progress;
    if (progress->fn && progress->fn(progress->user, "tokenizing", b->read, b->total))
        return base_fail(b->error, MARCO_ERROR_CANCELLED, "cancelled");
    return MARCO_OK;
}

static marco_status run_window(build *b)
{
    marco_status status = MARCO_OK;
    if (b->text.failed)
        return base_fail_memory(b->error, b->text.size, "documents");
    base_pool_run(b->pool, encode_part, b, (int64_t)b->n_jobs);
    for (size_t i = 0; i < b->n_jobs; i++) {
        if (!status)
            status = take(b, &b->jobs[i]);
        data_document_free(&b->jobs[i]);
    }
    b->n_jobs = 0;
    base_text_clear(&b->text);
    return status ? status : report(b);
}

static marco_status add_piece(build *b, size_t file, const data_piece *piece)
{
    bool json = base_has_suffix(b->params.files[file], ".jsonl");
    b->jobs[b->n_jobs++] = (data_job){.start = b->text.size,
                                      .size = piece->size,
                                      .file = file,
                                      .line = piece->line,
                                      .json = json,
                                      .too_long = piece->too_long};
    base_text_add_n(&b->text, piece->text, piece->size);
    bool full = b->n_jobs == WINDOW_JOBS || b->text.size >= WINDOW_BYTES || b->text.failed;
    return full ? run_window(b) : MARCO_OK;
}

static marco_status read_file(build *b, size_t file)
{
    const char *path = b->params.files[file];
    bool lines = b->params.lines || base_has_suffix(path, ".jsonl"), got = true;
    uint64_t before = b->read;
    data_input input;
    marco_status status = data_input_open(&input, path, lines, b->params.max_line, b->error);
    while (!status && got) {
        data_piece piece;
        status = data_input_next(&input, &piece, &got, b->error);
        b->read = before + input.at;
        if (!status && got)
            status = add_piece(b, file, &piece);
    }
    data_input_close(&input);
    return status;
}

/* ---- data.json ----------------------------------------------------------------------------- */

static json_t *split_json(data_writer *writer, const char *digest)
{
    return json_pack("{s:I, s:I, s:I, s:s}", "shards", (json_int_t)writer->n_shards, "documents",
                     (json_int_t)writer->n_documents, "tokens", (json_int_t)writer->n_ids, "digest",
                     digest);
}

static json_t *file_json(const char *path, const file_counts *c)
{
    char *name = base_strdup(path);
    if (!name)
        return NULL;
    base_utf8_repair(name);
    json_t *json =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "path", name, "bytes", (json_int_t)c->size,
                  "documents", (json_int_t)c->documents, "tokens", (json_int_t)c->tokens, "empty",
                  (json_int_t)c->empty, "bad", (json_int_t)c->bad);
    base_free(name);
    return json;
}

static json_t *files_json(const build *b)
{
    json_t *files = json_array();
    for (size_t i = 0; files && i < b->params.n_files; i++) {
        if (json_array_append_new(files, file_json(b->params.files[i], &b->counts[i])) != 0) {
            json_decref(files);
            files = NULL;
        }
    }
    return files;
}

static marco_status write_json(build *b, char digests[2][BASE_SHA256_TEXT])
{
    char tokenizer[BASE_SHA256_TEXT];
    char *text = NULL;
    size_t size = 0;
    base_sha256_text(b->writers[0].head.tokenizer, tokenizer);
    json_t *json = json_pack(
        "{s:i, s:s, s:s, s:i, s:i, s:{s:o, s:o}, s:o}", "version", DATA_VERSION, "kind",
        b->params.chat ? "chat" : "text", "tokenizer", tokenizer, "n_vocab",
        marco_tokenizer_size(b->tokenizer), "eos", marco_tokenizer_eos(b->tokenizer), "splits",
        "train", split_json(&b->writers[DATA_TRAIN], digests[DATA_TRAIN]), "valid",
        split_json(&b->writers[DATA_VALID], digests[DATA_VALID]), "files", files_json(b));
    bool dumped = json && format_json_dump(json, JSON_INDENT(1), &text, &size);
    json_decref(json);
    if (!dumped)
        return base_fail_memory(b->error, 0, DATA_SET_FILE);
    marco_status status =
        base_output_put(base_folder_path(b->folder), DATA_SET_FILE, text, size, b->error);
    base_free(text);
    return status;
}

/* ---- all of it ----------------------------------------------------------------------------- */

static marco_status finish(build *b)
{
    char digests[2][BASE_SHA256_TEXT];
    marco_status status = MARCO_OK;
    if (b->stats.documents == 0)
        return base_fail(b->error, MARCO_ERROR_ARGUMENT,
                         "no document is left to train on: %" PRIu64 " were empty, %" PRIu64
                         " could not be used, %" PRIu64 " held out",
                         b->stats.empty, b->stats.bad, b->stats.valid_documents);
    for (int split = 0; !status && split < 2; split++)
        status = data_writer_end(&b->writers[split], digests[split], b->error);
    if (!status)
        status = write_json(b, digests);
    if (status)
        return status;
    base_folder *folder = b->folder;
    b->folder = NULL;
    return base_folder_commit(folder, b->error);
}

static void release(build *b)
{
    for (size_t i = 0; b->jobs && i < b->n_jobs; i++)
        data_document_free(&b->jobs[i]);
    for (int split = 0; split < 2; split++)
        data_writer_free(&b->writers[split]);
    base_folder_abort(b->folder);
    base_pool_destroy(b->pool);
    marco_tokenizer_close(b->tokenizer);
    base_text_free(&b->text);
    base_free(b->jobs);
    base_free(b->counts);
}

marco_status marco_data_build(const char *to, const marco_data_params *params,
                              marco_data_stats *stats, marco_error *error)
{
    if (!params)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "marco_data_build needs parameters");
    build b = {.params = *params, .error = error};
    marco_status status = check_params(to, params, error);
    if (!status)
        status = begin(&b, to);
    for (size_t i = 0; !status && i < params->n_files; i++)
        status = read_file(&b, i);
    if (!status && b.n_jobs)
        status = run_window(&b);
    if (!status)
        status = finish(&b);
    release(&b);
    if (!status && stats)
        *stats = b.stats;
    return status;
}
