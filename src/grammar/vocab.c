#include "grammar/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "grammar/memo.h"
#include "tokenizer/tokenizer.h"

/* A token to be sorted by its text. */
typedef struct word {
    const char *bytes;
    uint32_t size;
    int32_t id;
    bool plain;
} word;

void grammar_vocab_free(grammar_vocab *vocab)
{
    if (!vocab)
        return;
    gr_memo_free(vocab->common);
    base_free(vocab->end);
    base_free(vocab->bytes);
    base_free(vocab->offsets);
    base_free(vocab->same);
    base_free(vocab->trie);
    base_free(vocab->plain);
    base_free(vocab->long_plain);
    base_free(vocab->long_sizes);
    base_free(vocab);
}

static int by_text(const void *x, const void *y)
{
    const word *a = x, *b = y;
    if (a->plain != b->plain)
        return a->plain ? -1 : 1;
    size_t n = a->size < b->size ? a->size : b->size;
    int order = memcmp(a->bytes, b->bytes, n);
    if (order)
        return order;
    if (a->size != b->size)
        return a->size < b->size ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

/* Characters of a plain token, 0 where it is none. */
static size_t plain_size(const char *text, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < size; n++) {
        uint32_t cp;
        size_t length = base_utf8_decode(text + i, size - i, &cp);
        if (length == 0 || cp < 0x20 || cp == '"' || cp == '\\' || cp == 0x2028 || cp == 0x2029)
            return 0;
        i += length;
    }
    return n;
}

/* ---- the tries ----------------------------------------------------------------------------- */

static size_t common_prefix(const word *a, const word *b)
{
    size_t n = 0;
    while (n < a->size && n < b->size && a->bytes[n] == b->bytes[n])
        n++;
    return n;
}

/* Nodes that the sorted words need. */
static size_t count_nodes(const word *words, size_t n)
{
    size_t nodes = 0;
    for (size_t i = 0; i < n; i++)
        nodes += words[i].size - (i > 0 ? common_prefix(&words[i - 1], &words[i]) : 0);
    return nodes;
}

/* Appends the trie of the words; path [longest]: work space. */
static void add_trie(grammar_vocab *v, const word *words, size_t n, uint32_t *path)
{
    size_t open = 0; /* nodes on the path */
    for (size_t i = 0; i < n; i++) {
        size_t shared = i > 0 ? common_prefix(&words[i - 1], &words[i]) : 0;
        while (open > shared)
            v->trie[path[--open]].next = v->n_trie;
        for (; open < words[i].size; open++) {
            path[open] = v->n_trie;
            v->trie[v->n_trie++] = (gr_trie_node){.token = GR_NONE,
                                                  .depth = (uint16_t)(open + 1),
                                                  .byte = (uint8_t)words[i].bytes[open]};
        }
        int32_t *token = &v->trie[path[open - 1]].token;
        v->same[words[i].id] = *token;
        *token = words[i].id;
    }
    while (open > 0)
        v->trie[path[--open]].next = v->n_trie;
}

static marco_status build_tries(grammar_vocab *v, word *words, size_t n, marco_error *error)
{
    size_t n_plain = 0;
    if (n > 1)
        qsort(words, n, sizeof *words, by_text);
    while (n_plain < n && words[n_plain].plain)
        n_plain++;
    size_t nodes = count_nodes(words, n_plain) + count_nodes(words + n_plain, n - n_plain);
    v->trie = base_alloc_array(nodes, sizeof *v->trie);
    uint32_t *path = base_alloc_array(v->longest, sizeof *path);
    marco_status status = MARCO_OK;
    if (!v->trie || !path) {
        status = base_fail_memory(error, nodes * sizeof *v->trie, "a vocabulary's grammar");
    } else {
        add_trie(v, words, n_plain, path);
        v->n_plain = v->n_trie;
        add_trie(v, words + n_plain, n - n_plain, path);
    }
    base_free(path);
    return status;
}

/* ---- plain tokens -------------------------------------------------------------------------- */

typedef struct sized {
    int32_t id;
    uint16_t size;
} sized;

static int by_size(const void *x, const void *y)
{
    const sized *a = x, *b = y;
    return a->size != b->size ? (a->size > b->size) - (a->size < b->size)
                              : (a->id > b->id) - (a->id < b->id);
}

static marco_status find_plain(grammar_vocab *v, const word *words, size_t n, marco_error *error)
{
    marco_status status = MARCO_OK;
    sized *far = NULL;
    size_t n_far = 0, capacity = 0;
    v->plain = base_calloc((GR_RUNS + 1) * v->words, sizeof *v->plain);
    if (!v->plain)
        goto memory;
    for (size_t i = 0; i < n; i++) {
        size_t size = words[i].plain ? plain_size(words[i].bytes, words[i].size) : 0;
        if (size > 0 && size <= GR_RUNS)
            gr_set_bit(v->plain + size * v->words, words[i].id);
        if (size <= GR_RUNS)
            continue;
        void *items = far;
        if (!base_grow(&items, &capacity, n_far + 1, sizeof *far))
            goto memory;
        far = items;
        far[n_far++] = (sized){words[i].id, (uint16_t)size};
    }
    for (size_t size = 1; size <= GR_RUNS; size++)
        for (size_t w = 0; w < v->words; w++)
            v->plain[size * v->words + w] |= v->plain[(size - 1) * v->words + w];
    if (n_far > 1)
        qsort(far, n_far, sizeof *far, by_size);
    v->long_plain = base_alloc_array(n_far, sizeof *v->long_plain);
    v->long_sizes = base_alloc_array(n_far, sizeof *v->long_sizes);
    if (!v->long_plain || !v->long_sizes)
        goto memory;
    for (size_t i = 0; i < n_far; i++) {
        v->long_plain[i] = far[i].id;
        v->long_sizes[i] = far[i].size;
    }
    v->n_long = n_far;
    goto done;
memory:
    status = base_fail_memory(error, v->words * sizeof *v->plain, "a vocabulary's grammar");
done:
    base_free(far);
    return status;
}

void gr_vocab_plain(const grammar_vocab *v, uint32_t run, uint32_t *mask)
{
    const uint32_t *plain = v->plain + (run < GR_RUNS ? run : GR_RUNS) * v->words;
    for (size_t w = 0; w < v->words; w++)
        mask[w] |= plain[w];
    for (size_t i = 0; i < v->n_long && v->long_sizes[i] <= run; i++)
        gr_set_bit(mask, v->long_plain[i]);
}

/* ---- creation ------------------------------------------------------------------------------ */

/* Takes the texts over. words [n_vocab]; *n: those that have one. */
static marco_status take_texts(grammar_vocab *v, const marco_tokenizer *t, word *words, size_t *n,
                               marco_error *error)
{
    enum { LONGEST = UINT16_MAX };
    size_t size = 0;
    *n = 0;
    v->print = (uint64_t)v->n_vocab;
    for (int32_t id = 0; id < v->n_vocab; id++) {
        v->offsets[id] = size;
        v->same[id] = GR_NONE;
        bool known =
            id < t->size && (t->kinds[id] == TOK_KIND_ORDINARY || t->kinds[id] == TOK_KIND_ADDED);
        size_t length = known ? t->offsets[id + 1] - t->offsets[id] : 0;
        if (length == 0 || length > LONGEST || gr_is_end(v, id))
            continue;
        const char *text = t->bytes + t->offsets[id];
        memcpy(v->bytes + size, text, length);
        words[(*n)++] = (word){v->bytes + size, (uint32_t)length, id, plain_size(text, length) > 0};
        size += length;
        v->longest = length > v->longest ? length : v->longest;
        for (size_t i = 0; i < length; i++)
            v->print = base_random_mix(v->print * 31 + (uint8_t)text[i]);
        v->print = base_random_mix(v->print ^ (uint64_t)id << 8);
    }
    v->offsets[v->n_vocab] = size;
    bool have[256] = {false};
    for (size_t i = 0; i < *n; i++)
        if (words[i].size == 1)
            have[(uint8_t)words[i].bytes[0]] = true;
    /* Not the bytes that only begin a character: some vocabularies lack those of planes without
     * characters, and nothing that has begun then needs them. */
    for (int c = 0x20; c < 0xC0; c++)
        if (!have[c] && c != 0x7F)
            return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                             "the vocabulary has no token of the single byte 0x%02X: replies of a "
                             "given form need one for every byte",
                             c);
    if (!have['\n'])
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "the vocabulary has no token of a newline");
    return MARCO_OK;
}

static marco_status copy_ends(grammar_vocab *v, const int32_t *end, int32_t n_end,
                              marco_error *error)
{
    v->end = base_alloc_array((size_t)n_end, sizeof *v->end);
    if (!v->end)
        return base_fail_memory(error, (size_t)n_end * sizeof *v->end, "a vocabulary's grammar");
    for (int32_t i = 0; i < n_end; i++) {
        if (end[i] < 0 || end[i] >= v->n_vocab)
            return base_fail(error, MARCO_ERROR_ARGUMENT,
                             "the token %d that ends a reply is not in the vocabulary of %d",
                             (int)end[i], (int)v->n_vocab);
        v->end[v->n_end++] = end[i];
    }
    return MARCO_OK;
}

/* How many nodes all grammars have in common. */
static marco_status count_common(int32_t *n, marco_error *error)
{
    marco_grammar *grammar;
    marco_status status = marco_grammar_json_object(&grammar, error);
    if (!status)
        *n = grammar->n_common;
    marco_grammar_free(grammar);
    return status;
}

marco_status grammar_vocab_create(const marco_tokenizer *tokenizer, int32_t n_vocab,
                                  const int32_t *end, int32_t n_end, grammar_vocab **out,
                                  marco_error *error)
{
    *out = NULL;
    if (n_vocab < 1 || n_end < 1)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "a vocabulary of %d tokens with %d that end a reply", (int)n_vocab,
                         (int)n_end);
    size_t n, room = tokenizer->size ? tokenizer->offsets[tokenizer->size] : 0;
    int32_t n_common = 0;
    word *words = base_alloc_array((size_t)n_vocab, sizeof *words);
    grammar_vocab *v = base_calloc(1, sizeof *v);
    marco_status status = MARCO_ERROR_MEMORY;
    if (!words || !v)
        goto memory;
    v->n_vocab = n_vocab;
    v->words = grammar_mask_words(n_vocab);
    v->bytes = base_alloc(room);
    v->offsets = base_alloc_array((size_t)n_vocab + 1, sizeof *v->offsets);
    v->same = base_alloc_array((size_t)n_vocab, sizeof *v->same);
    if (!v->bytes || !v->offsets || !v->same)
        goto memory;
    if ((status = copy_ends(v, end, n_end, error)) ||
        (status = take_texts(v, tokenizer, words, &n, error)) ||
        (status = build_tries(v, words, n, error)) || (status = find_plain(v, words, n, error)) ||
        (status = count_common(&n_common, error)))
        goto done;
    v->common = gr_memo_create(n_common, v->print);
    if (v->common)
        goto done;
memory:
    status = base_fail_memory(error, (size_t)n_vocab * sizeof *words, "a vocabulary's grammar");
done:
    base_free(words);
    if (status)
        grammar_vocab_free(v);
    else
        *out = v;
    return status;
}
