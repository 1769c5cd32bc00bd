#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "tokenizer/tokenizer.h"

/* The bytes of an id, none for a special token that is not to be shown. False outside the
 * vocabulary. */
static bool id_bytes(const marco_tokenizer *t, int32_t id, bool special, const char **bytes,
                     size_t *size)
{
    if (id < 0 || id >= t->size)
        return false;
    bool hidden = !special && t->kinds[id] == TOK_KIND_SPECIAL;
    *bytes = t->bytes + t->offsets[id];
    *size = hidden ? 0 : t->offsets[id + 1] - t->offsets[id];
    return true;
}

marco_status marco_tokenizer_decode(const marco_tokenizer *tokenizer, const int32_t *ids, size_t n,
                                    bool special, char **text, size_t *size, marco_error *error)
{
    if (!tokenizer || !text || !size || (n && !ids))
        return base_fail(error, MARCO_ERROR_ARGUMENT, "marco_tokenizer_decode was given a NULL");
    *text = NULL;
    base_text out = {0};
    for (size_t i = 0; i < n; i++) {
        const char *bytes;
        size_t length;
        if (!id_bytes(tokenizer, ids[i], special, &bytes, &length)) {
            base_text_free(&out);
            return base_fail(error, MARCO_ERROR_ARGUMENT,
                             "token id %d is outside the vocabulary of %d", ids[i],
                             tokenizer->size);
        }
        base_text_add_n(&out, bytes, length);
    }
    *text = base_text_take(&out, size);
    return *text ? MARCO_OK : base_fail_memory(error, n, "decoded text");
}

/* ---- streaming ----------------------------------------------------------------------------- */

struct marco_detokenizer {
    const marco_tokenizer *tokenizer;
    bool special;
    char held[3]; /* the beginning of a character */
    size_t n_held;
    base_text raw, out;
};

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

marco_status marco_detokenizer_create(const marco_tokenizer *tokenizer, bool special,
                                      marco_detokenizer **out, marco_error *error)
{
    if (!tokenizer || !out)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "marco_detokenizer_create was given a NULL");
    *out = NULL;
    marco_detokenizer *d = base_calloc(1, sizeof *d);
    if (!d)
        return base_fail_memory(error, sizeof *d, "a detokenizer");
    d->tokenizer = tokenizer;
    d->special = special;
    *out = d;
    return MARCO_OK;
}

void marco_detokenizer_close(marco_detokenizer *detokenizer)
{
    if (!detokenizer)
        return;
    base_text_free(&detokenizer->raw);
    base_text_free(&detokenizer->out);
    base_free(detokenizer);
}

/* How many bytes at s, where no character begins, one U+FFFD stands for: the longest beginning of
 * a character, or one byte (Unicode 15, section 3.9, "substitution of maximal subparts"). */
static size_t broken_size(const char *s, size_t size)
{
    size_t most = size < 3 ? size : 3;
    for (size_t n = most; n > 1; n--)
        if (base_utf8_partial(s, n) == n)
            return n;
    return 1;
}

/* Moves whole characters from raw to out and holds back the beginning of one at the end. */
static void deliver(marco_detokenizer *d)
{
    const char *s = d->raw.data;
    size_t size = d->raw.size;
    d->n_held = 0;
    for (size_t at = 0; at < size;) {
        size_t good = base_utf8_check(s + at, size - at);
        base_text_add_n(&d->out, s + at, good);
        at += good;
        if (at == size)
            break;
        size_t partial = base_utf8_partial(s + at, size - at);
        if (partial && partial == size - at) {
            memcpy(d->held, s + at, partial);
            d->n_held = partial;
            break;
        }
        base_text_add(&d->out, replacement);
        at += broken_size(s + at, size - at);
    }
}

static void hand_out(const marco_detokenizer *d, const char **text, size_t *size)
{
    *text = d->out.size ? d->out.data : "";
    *size = d->out.size;
}

/* After a failure nothing is remembered that a later call could build on. */
static marco_status fail_memory(marco_detokenizer *d, marco_error *error)
{
    d->n_held = 0;
    base_text_free(&d->raw);
    base_text_free(&d->out);
    return base_fail_memory(error, sizeof *d, "decoded text");
}

marco_status marco_detokenizer_add(marco_detokenizer *detokenizer, int32_t id, const char **text,
                                   size_t *size, marco_error *error)
{
    const char *bytes = "";
    size_t length = 0;
    if (!detokenizer || !text || !size)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "marco_detokenizer_add was given a NULL");
    /* A model's vocabulary may go on past the tokenizer's, with padding that has no text. */
    if (id < 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "token id %d is negative", id);
    id_bytes(detokenizer->tokenizer, id, detokenizer->special, &bytes, &length);
    base_text_clear(&detokenizer->raw);
    base_text_clear(&detokenizer->out);
    base_text_add_n(&detokenizer->raw, detokenizer->held, detokenizer->n_held);
    base_text_add_n(&detokenizer->raw, bytes, length);
    if (detokenizer->raw.failed)
        return fail_memory(detokenizer, error);
    deliver(detokenizer);
    if (detokenizer->out.failed)
        return fail_memory(detokenizer, error);
    hand_out(detokenizer, text, size);
    return MARCO_OK;
}

marco_status marco_detokenizer_flush(marco_detokenizer *detokenizer, const char **text,
                                     size_t *size, marco_error *error)
{
    if (!detokenizer || !text || !size)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "marco_detokenizer_flush was given a NULL");
    base_text_clear(&detokenizer->out);
    if (detokenizer->n_held)
        base_text_add(&detokenizer->out, replacement);
    detokenizer->n_held = 0;
    if (detokenizer->out.failed)
        return fail_memory(detokenizer, error);
    hand_out(detokenizer, text, size);
    return MARCO_OK;
}
