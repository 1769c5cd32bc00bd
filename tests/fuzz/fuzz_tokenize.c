/* Arbitrary bytes as text. Without a normaliser, decoding gives the very bytes back, streamed or
 * not; with one, the ids of what was decoded are stable. The first byte says which parts of the
 * text are trusted. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"
#include "tokenizer/spec_build.h"
#include "tokenizer/tokenizer.h"

/* Single bytes, some merges of them, and added tokens with every option. */
static marco_tokenizer *make(bool nfc)
{
    static const char *const merges[] = {"a b", "ab a", "\xC4\xA0 a", "\xC3\x83 \xC2\xA9", "b a"};
    static const char *const made[] = {"ab", "aba", "\304\240a", "\xC3\x83\xC2\xA9", "ba"};
    static const tok_added added[] = {
        {.id = 261, .text = "<x>", .special = true, .normalized = true, .lstrip = true},
        {.id = 262, .text = "<x>y", .special = true},
        {.id = 263, .text = "\xC3\xA9", .normalized = true, .single_word = true},
        {.id = 264, .text = "aa", .rstrip = true}};
    enum { N_MERGES = sizeof merges / sizeof *merges, N_ADDED = sizeof added / sizeof *added };
    tok_spec *spec;
    marco_tokenizer *tokenizer;
    if (tok_spec_bytes(&spec, NULL))
        abort();
    for (int32_t i = 0; i < spec->n_added; i++)
        base_free(spec->added[i].text);
    spec->added = base_realloc(spec->added, sizeof added);
    spec->tokens = base_realloc(spec->tokens, (256 + N_MERGES) * sizeof *spec->tokens);
    spec->merges = base_calloc(N_MERGES, sizeof *spec->merges);
    for (int i = 0; i < N_MERGES; i++) {
        spec->merges[spec->n_merges++] = base_strdup(merges[i]);
        spec->tokens[spec->n_tokens++] = base_strdup(made[i]);
    }
    for (spec->n_added = 0; spec->n_added < N_ADDED; spec->n_added++) {
        spec->added[spec->n_added] = added[spec->n_added];
        spec->added[spec->n_added].text = base_strdup(added[spec->n_added].text);
        spec->added[spec->n_added].size = strlen(added[spec->n_added].text);
    }
    spec->eos = spec->pad = -1;
    spec->nfc = nfc;
    if (tok_compile(spec, &tokenizer, NULL))
        abort();
    return tokenizer;
}

static void check_stream(const marco_tokenizer *t, const tok_ids *ids, const char *text,
                         size_t size)
{
    marco_detokenizer *d;
    const char *piece;
    size_t length, at = 0;
    bool whole = base_utf8_check(text, size) == size;
    if (marco_detokenizer_create(t, true, &d, NULL))
        abort();
    for (size_t i = 0; i <= ids->n; i++) {
        if (i < ids->n ? marco_detokenizer_add(d, ids->items[i], &piece, &length, NULL)
                       : marco_detokenizer_flush(d, &piece, &length, NULL))
            abort();
        if (base_utf8_check(piece, length) != length)
            abort();
        if (whole && (length > size - at || memcmp(piece, text + at, length) != 0))
            abort();
        at += whole ? length : 0;
    }
    if (whole && at != size)
        abort();
    marco_detokenizer_close(d);
}

static char *decode(const marco_tokenizer *t, const tok_ids *ids, size_t *size)
{
    char *text;
    if (marco_tokenizer_decode(t, ids->items, ids->n, true, &text, size, NULL))
        abort();
    check_stream(t, ids, text, *size);
    return text;
}

static void encode(const marco_tokenizer *t, const char *text, size_t size, unsigned flags,
                   tok_ids *out)
{
    if (marco_tokenizer_encode(t, text, size, flags, &out->items, &out->n, NULL))
        abort();
}

/* Plain text: nothing is added, nothing lost. */
static void check_plain(const marco_tokenizer *t, const char *text, size_t size, bool exact)
{
    tok_ids ids = {0}, again = {0};
    size_t length;
    encode(t, text, size, 0, &ids);
    char *decoded = decode(t, &ids, &length);
    if (exact && (length != size || memcmp(decoded, text, size) != 0))
        abort();
    encode(t, decoded, length, 0, &again);
    if (again.n != ids.n ||
        (ids.n && memcmp(again.items, ids.items, ids.n * sizeof *ids.items) != 0))
        abort();
    for (size_t i = 0; i < ids.n; i++)
        if (ids.items[i] >= 261)
            abort();
    base_free(ids.items);
    base_free(again.items);
    marco_free(decoded);
}

/* Cut in three, trusted as `bits` say: all trusted is the whole text with added tokens, none is
 * the whole text without. */
static void check_segments(const marco_tokenizer *t, const char *text, size_t size, unsigned bits)
{
    size_t third = size / 3;
    const tok_segment segments[] = {{text, third, bits & 1},
                                    {text + third, third, bits & 2},
                                    {text + 2 * third, size - 2 * third, bits & 4}};
    tok_ids cut = {0}, whole = {0};
    if (tok_encode_segments(t, segments, 3, 0, &cut, NULL))
        abort();
    if (bits == 0 || bits == 7) {
        encode(t, text, size, bits ? MARCO_ENCODE_SPECIAL : 0, &whole);
        if (cut.n != whole.n ||
            (cut.n && memcmp(cut.items, whole.items, cut.n * sizeof *cut.items) != 0))
            abort();
    }
    size_t length;
    marco_free(decode(t, &cut, &length));
    base_free(cut.items);
    base_free(whole.items);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static marco_tokenizer *plain, *nfc;
    if (!plain) {
        plain = make(false);
        nfc = make(true);
    }
    if (size < 1)
        return 0;
    const char *text = (const char *)data + 1;
    check_plain(plain, text, size - 1, true);
    check_plain(nfc, text, size - 1, false);
    check_segments(plain, text, size - 1, data[0] & 7);
    check_segments(nfc, text, size - 1, data[0] & 7);
    return 0;
}
