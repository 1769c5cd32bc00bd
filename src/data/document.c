#include "data/document.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/sha256.h"
#include "base/text.h"
#include "format/json.h"

MARCO_PRINTF(2, 3) static void bad(data_job *job, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    job->outcome = DATA_BAD;
    vsnprintf(job->why, sizeof job->why, format, args);
    va_end(args);
    base_utf8_repair(job->why); /* it may have been cut within a character */
}

static uint64_t hash_of(const void *text, size_t size)
{
    uint8_t digest[BASE_SHA256_BYTES];
    uint64_t hash = 0;
    base_sha256 sha;
    base_sha256_begin(&sha);
    base_sha256_add(&sha, text, size);
    base_sha256_end(&sha, digest);
    for (int i = 0; i < 8; i++)
        hash = hash << 8 | digest[i];
    return hash;
}

/* An error of the tokenizer's: the document's fault, or the end of all work. */
static void fail(data_job *job, marco_status status, const marco_error *error)
{
    if (status == MARCO_ERROR_ARGUMENT || status == MARCO_ERROR_UNSUPPORTED)
        bad(job, "%s", error->message);
    else
        job->status = status;
}

static void encode_text(const data_form *form, const char *text, size_t size, data_job *job)
{
    marco_error error = {0};
    job->bytes = size;
    if (size == 0) {
        job->outcome = DATA_EMPTY;
        return;
    }
    if (form->hash)
        job->hash = hash_of(text, size);
    marco_status status = marco_tokenizer_encode(form->tokenizer, text, size, MARCO_ENCODE_BOS,
                                                 &job->ids, &job->n, &error);
    if (status)
        fail(job, status, &error);
    else if (job->n == 0)
        job->outcome = DATA_EMPTY; /* bytes that the tokenizer has nothing for */
}

static void encode_chat(const data_form *form, const json_t *line, data_job *job)
{
    char *text;
    marco_error error = {0};
    const json_t *messages = json_object_get(line, "messages");
    marco_status status = data_chat_encode(form, messages, json_object_get(line, "tools"),
                                           &job->ids, &job->targets, &job->n, &error);
    if (status) {
        fail(job, status, &error);
        return;
    }
    if (!format_json_dump(messages, JSON_COMPACT, &text, &job->bytes)) {
        job->status = MARCO_ERROR_MEMORY;
        return;
    }
    if (form->hash)
        job->hash = hash_of(text, job->bytes);
    base_free(text);
}

static void encode_line(const data_form *form, const json_t *line, data_job *job)
{
    if (!json_is_object(line)) {
        bad(job, "%s where an object belongs", format_json_kind(line));
        return;
    }
    if (form->chat) {
        encode_chat(form, line, job);
        return;
    }
    const json_t *text = json_object_get(line, form->field);
    if (!text)
        bad(job, "no \"%s\"", form->field);
    else if (!json_is_string(text))
        bad(job, "\"%s\" is %s where a string belongs", form->field, format_json_kind(text));
    else
        encode_text(form, json_string_value(text), json_string_length(text), job);
}

static void encode_json(const data_form *form, const char *text, size_t size, data_job *job)
{
    marco_error error = {0};
    json_t *line = NULL;
    /* Only the numbers of conversations matter. */
    marco_status status = format_json_line(text, size, form->chat, &line, &error);
    if (!status)
        encode_line(form, line, job);
    else if (status == MARCO_ERROR_MEMORY)
        job->status = status;
    else
        bad(job, "%s", error.message);
    json_decref(line);
}

void data_document_encode(const data_form *form, const char *text, data_job *job)
{
    if (job->too_long) {
        bad(job, "longer than the %" PRIu64 " bytes that a document may have", form->max_size);
        return;
    }
    if (base_is_blank(text, job->size)) {
        job->outcome = DATA_EMPTY;
        return;
    }
    size_t good = base_utf8_check(text, job->size);
    if (good == job->size) {
        if (job->json)
            encode_json(form, text, job->size, job);
        else
            encode_text(form, text, job->size, job);
        return;
    }
    size_t line_start = 0;
    if (job->line == 0) {
        job->line = 1;
        for (size_t i = 0; i < good; i++) {
            if (text[i] == '\n') {
                job->line++;
                line_start = i + 1;
            }
        }
    }
    bad(job, "byte %zu (0x%02X) is not valid UTF-8", good - line_start + 1,
        (unsigned char)text[good]);
}

void data_document_free(data_job *job)
{
    base_free(job->ids);
    base_free(job->targets);
    *job = (data_job){0};
}
