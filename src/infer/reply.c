#include "infer/reply.h"

#include <string.h>

#include "base/error.h"
#include "infer/internal.h"

marco_status infer_reply_check(const char *const *stop, size_t n_stop, marco_error *error)
{
    for (size_t i = 0; i < n_stop; i++)
        if (!stop[i] || !stop[i][0])
            return base_fail(error, MARCO_ERROR_ARGUMENT, "stop string %zu is empty", i + 1);
    return MARCO_OK;
}

marco_status infer_reply_init(infer_reply *r, const marco_engine *engine, const char *const *stop,
                              size_t n_stop, bool ignore_eos, bool special, marco_error *error)
{
    *r = (infer_reply){.engine = engine, .stop = stop, .n_stop = n_stop, .ignore_eos = ignore_eos};
    return marco_detokenizer_create(engine->tokenizer, special, &r->detokenizer, error);
}

void infer_reply_free(infer_reply *r)
{
    base_text_free(&r->ready);
    base_text_free(&r->held);
    marco_detokenizer_close(r->detokenizer);
    *r = (infer_reply){0};
}

/* Length of the longest end of `text` that is a proper beginning of a stop string. */
static size_t undecided(const infer_reply *r, const char *text, size_t size)
{
    size_t longest = 0;
    for (size_t i = 0; i < r->n_stop; i++) {
        size_t n = strlen(r->stop[i]);
        for (size_t k = n - 1 < size ? n - 1 : size; k > longest; k--)
            if (memcmp(text + size - k, r->stop[i], k) == 0) {
                longest = k;
                break;
            }
    }
    return longest;
}

/* Where the first stop string in what is held begins, or NULL; of those that begin there, the one
 * that the caller named first. */
static const char *find_stop(infer_reply *r)
{
    const char *first = NULL;
    for (size_t i = 0; i < r->n_stop; i++) {
        const char *at = memmem(r->held.data, r->held.size, r->stop[i], strlen(r->stop[i]));
        if (at && (!first || at < first)) {
            first = at;
            r->stopper = r->stop[i];
        }
    }
    return first;
}

static marco_status add_text(infer_reply *r, const char *text, size_t size, bool last,
                             marco_error *error)
{
    base_text_add_n(&r->held, text, size);
    if (!r->held.failed && r->held.size > 0) {
        const char *stop = find_stop(r);
        size_t keep = last || stop ? 0 : undecided(r, r->held.data, r->held.size);
        size_t ready = stop ? (size_t)(stop - r->held.data) : r->held.size - keep;
        base_text_add_n(&r->ready, r->held.data, ready);
        memmove(r->held.data, r->held.data + r->held.size - keep, keep);
        r->held.size = keep;
        r->ended |= stop != NULL;
    }
    if (r->held.failed || r->ready.failed)
        return base_fail_memory(error, size, "the reply");
    return MARCO_OK;
}

static bool ends_reply(const marco_engine *engine, int32_t id)
{
    for (int32_t i = 0; i < engine->n_end; i++)
        if (engine->end[i] == id)
            return true;
    return false;
}

marco_status infer_reply_add(infer_reply *r, int32_t id, marco_error *error)
{
    const char *text;
    size_t size;
    if (!r->ignore_eos && ends_reply(r->engine, id)) {
        r->ended = true;
        return MARCO_OK;
    }
    /* A model's vocabulary may be padded beyond the tokenizer's: such an id has no text. */
    if (id >= marco_tokenizer_size(r->engine->tokenizer))
        return MARCO_OK;
    marco_status status = marco_detokenizer_add(r->detokenizer, id, &text, &size, error);
    return status ? status : add_text(r, text, size, false, error);
}

marco_status infer_reply_finish(infer_reply *r, marco_error *error)
{
    const char *text;
    size_t size;
    if (r->stopper)
        return MARCO_OK;
    marco_status status = marco_detokenizer_flush(r->detokenizer, &text, &size, error);
    return status ? status : add_text(r, text, size, true, error);
}
