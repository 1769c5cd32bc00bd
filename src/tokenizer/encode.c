#include <string.h>

#include "base/error.h"
#include "tokenizer/bpe.h"
#include "tokenizer/tokenizer.h"

/* The order is HF's: added tokens that are looked for in the raw text, normaliser, added tokens
 * that are looked for in the normalised text, splitter, merges. */

/* Positions in a piece are int32_t, with one left over. */
enum { MAX_TEXT = INT32_MAX - 1 };

/* Below this size of text nothing repeats often enough to be worth remembering. */
enum { MEMO_TEXT = 4096 };

/* One encoding under way. */
typedef struct call {
    const marco_tokenizer *t;
    tok_ids *out;
    tok_split_work *split;
    tok_bpe_work bpe;
    tok_ranges trusted; /* where in the raw text added tokens count */
    size_t next;        /* the first of `trusted` that does not end before the text at hand */
    base_text normal;   /* the text at hand, normalised */
    tok_ranges normal_trusted;
    marco_error *error;
} call;

static bool take_piece(void *user, const char *piece, size_t size)
{
    call *c = user;
    return tok_bpe_encode(c->t->bpe, &c->bpe, piece, size, c->out);
}

static marco_status encode_plain(call *c, const char *text, size_t start, size_t stop)
{
    return tok_split_run(c->split, text + start, stop - start, take_piece, c, c->error);
}

/* ---- added tokens -------------------------------------------------------------------------- */

/* Text between added tokens: text[start, stop). */
typedef marco_status (*plain_fn)(call *c, const char *text, size_t start, size_t stop);

/* Widens [*start, *stop) by the white space that the token swallows, but not to before `from`.
 * *space_end is where the last white space looked at ends: one that begins within it ends there
 * too, so that none is looked at again for every token in it. False where the token is not to be
 * found inside a word and is. */
static bool fit_token(const tok_added *token, const char *text, size_t from, size_t size,
                      size_t *space_end, size_t *start, size_t *stop)
{
    if (token->single_word &&
        (tok_word_before(text, *start) || tok_word_after(text + *stop, size - *stop)))
        return false;
    if (token->lstrip && *start > from)
        *start = tok_space_before(text, from, *start);
    if (token->rstrip) {
        if (*stop >= *space_end)
            *space_end = tok_space_after(text, *stop, size);
        *stop = *space_end;
    }
    return true;
}

/* Finds the tokens of `trie` within the ranges, adds their ids and hands what is between them to
 * `plain`. */
static marco_status extract(call *c, const tok_trie *trie, const char *text, size_t size,
                            const tok_ranges *ranges, plain_fn plain)
{
    const tok_spec *spec = c->t->spec;
    marco_status status = MARCO_OK;
    size_t from = 0, space_end = 0;
    for (size_t i = 0; !status && !tok_trie_empty(trie) && i < ranges->n; i++) {
        size_t at = ranges->items[i].start, start, stop;
        int32_t found;
        while (!status &&
               (found = tok_trie_find(trie, text, at, ranges->items[i].stop, &start, &stop)) >= 0) {
            at = stop;
            if (!fit_token(&spec->added[found], text, from, size, &space_end, &start, &stop))
                continue;
            if (from < start)
                status = plain(c, text, from, start);
            if (!status && !tok_ids_add(c->out, spec->added[found].id))
                status = base_fail_memory(c->error, size, "token ids");
            from = stop;
        }
    }
    return !status && from < size ? plain(c, text, from, size) : status;
}

/* ---- normalising --------------------------------------------------------------------------- */

/* The trusted parts of the raw text [start, stop), counted from `start`. The texts come in order.
 */
static bool clip_trusted(call *c, size_t start, size_t stop)
{
    c->normal_trusted.n = 0;
    while (c->next < c->trusted.n && c->trusted.items[c->next].stop <= start)
        c->next++;
    for (size_t i = c->next; i < c->trusted.n && c->trusted.items[i].start < stop; i++) {
        tok_range r = c->trusted.items[i];
        size_t a = r.start > start ? r.start : start, b = r.stop < stop ? r.stop : stop;
        if (a < b && !tok_ranges_add(&c->normal_trusted, a - start, b - start))
            return false;
    }
    return true;
}

static marco_status normalise(call *c, const char *text, size_t size, bool ranges)
{
    tok_ranges from = c->normal_trusted;
    c->normal_trusted = (tok_ranges){0};
    base_text_clear(&c->normal);
    marco_status status = tok_nfc_apply(c->t->nfc, text, size, &c->normal, ranges ? &from : NULL,
                                        &c->normal_trusted, c->error);
    base_free(from.items);
    return status;
}

/* Well-formed raw text without raw added tokens. */
static marco_status encode_text(call *c, const char *text, size_t start, size_t stop)
{
    const tok_trie *trie = c->t->added->normalized;
    const char *at = text + start;
    size_t size = stop - start;
    bool ranges = c->trusted.n && !tok_trie_empty(trie);
    if (ranges && !clip_trusted(c, start, stop))
        return base_fail_memory(c->error, size, "normalised text");
    if (c->t->nfc && !tok_nfc_is_normal(c->t->nfc, at, size)) {
        marco_status status = normalise(c, at, size, ranges);
        if (status)
            return status;
        at = c->normal.data;
        size = c->normal.size;
    }
    return ranges ? extract(c, trie, at, size, &c->normal_trusted, encode_plain)
                  : encode_plain(c, at, 0, size);
}

/* Raw text without raw added tokens. A byte that is not part of a character is a piece of its own,
 * and the text before and after it is taken as two. */
static marco_status encode_bytes(call *c, const char *text, size_t start, size_t stop)
{
    marco_status status = MARCO_OK;
    while (!status && start < stop) {
        size_t good = base_utf8_check(text + start, stop - start);
        if (good)
            status = encode_text(c, text, start, start + good);
        start += good;
        if (!status && start < stop && !take_piece(c, text + start++, 1))
            status = base_fail_memory(c->error, stop - start, "token ids");
    }
    return status;
}

/* ---- calls --------------------------------------------------------------------------------- */

static marco_status run(call *c, const char *text, size_t size, unsigned flags)
{
    const tok_spec *spec = c->t->spec;
    if (size > MAX_TEXT)
        return base_fail(c->error, MARCO_ERROR_ARGUMENT,
                         "a text of %zu bytes is too long to encode at once (at most %d)", size,
                         MAX_TEXT);
    if ((flags & MARCO_ENCODE_BOS) && spec->add_bos && spec->bos >= 0 &&
        !tok_ids_add(c->out, spec->bos))
        return base_fail_memory(c->error, size, "token ids");
    marco_status status = tok_split_work_create(c->t->split, &c->split, c->error);
    if (!status && size >= MEMO_TEXT && !tok_bpe_work_memo(&c->bpe))
        status = base_fail_memory(c->error, size, "token ids");
    if (!status)
        status = extract(c, c->t->added->raw, text, size, &c->trusted, encode_bytes);
    tok_split_work_free(c->split);
    tok_bpe_work_free(&c->bpe);
    base_text_free(&c->normal);
    base_free(c->normal_trusted.items);
    return status;
}

marco_status tok_encode_segments(const marco_tokenizer *tokenizer, const tok_segment *segments,
                                 size_t n, unsigned flags, tok_ids *out, marco_error *error)
{
    call c = {.t = tokenizer, .out = out, .error = error};
    base_text whole = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        size_t start = whole.size;
        base_text_add_n(&whole, segments[i].text, segments[i].size);
        ok = !whole.failed &&
             (!segments[i].trusted || tok_ranges_add(&c.trusted, start, whole.size));
    }
    marco_status status = ok ? run(&c, whole.data, whole.size, flags)
                             : base_fail_memory(error, whole.size, "a text to encode");
    base_free(c.trusted.items);
    base_text_free(&whole);
    return status;
}

marco_status marco_tokenizer_encode(const marco_tokenizer *tokenizer, const char *text, size_t size,
                                    unsigned flags, int32_t **ids, size_t *n, marco_error *error)
{
    if (!tokenizer || !ids || !n || (size && !text) ||
        (flags & ~(unsigned)(MARCO_ENCODE_SPECIAL | MARCO_ENCODE_BOS)))
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "marco_tokenizer_encode was given a NULL or an unknown flag");
    tok_range whole = {0, size};
    tok_ids out = {0};
    call c = {.t = tokenizer, .out = &out, .error = error};
    if (flags & MARCO_ENCODE_SPECIAL)
        c.trusted = (tok_ranges){.items = &whole, .n = 1};
    marco_status status = run(&c, text, size, flags);
    if (status || out.n == 0) {
        base_free(out.items);
        out = (tok_ids){0};
    }
    *ids = out.items;
    *n = out.n;
    return status;
}
