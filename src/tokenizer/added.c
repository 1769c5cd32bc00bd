#include "tokenizer/added.h"

#include <string.h>
#include <utf8proc.h>

#include "base/error.h"
#include "base/memory.h"

/* ---- the trie ------------------------------------------------------------------------------ */

typedef struct node {
    int32_t token;           /* index of the text that ends here, -1 */
    uint32_t child, sibling; /* 0: none (node 0 is never a child) */
    uint8_t byte;
} node;

struct tok_trie {
    node *nodes;
    size_t n, capacity;
    uint32_t first[256]; /* children of the root */
    int only;            /* the byte that all texts begin with, -1 where they differ */
};

static tok_trie *trie_create(void)
{
    tok_trie *trie = base_calloc(1, sizeof *trie);
    if (trie) {
        trie->n = 1;
        trie->only = -1;
    }
    return trie;
}

static void trie_free(tok_trie *trie)
{
    if (!trie)
        return;
    base_free(trie->nodes);
    base_free(trie);
}

bool tok_trie_empty(const tok_trie *trie)
{
    return trie->n == 1;
}

/* The node for `byte` in the list that begins with `head`, 0 where there is none. */
static uint32_t sibling(const tok_trie *trie, uint32_t head, uint8_t byte)
{
    while (head && trie->nodes[head].byte != byte)
        head = trie->nodes[head].sibling;
    return head;
}

/* The first text added wins over an equal one. */
static bool trie_add(tok_trie *trie, const char *text, size_t size, int32_t token)
{
    uint32_t parent = 0;
    void *nodes = trie->nodes;
    if (size == 0)
        return true;
    if (trie->n + size > UINT32_MAX ||
        !base_grow(&nodes, &trie->capacity, trie->n + size, sizeof *trie->nodes))
        return false;
    trie->nodes = nodes;
    trie->only = trie->n == 1 || trie->only == (uint8_t)text[0] ? (uint8_t)text[0] : -1;
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)text[i];
        uint32_t *head = parent ? &trie->nodes[parent].child : &trie->first[byte];
        uint32_t at = sibling(trie, *head, byte);
        if (!at) {
            at = (uint32_t)trie->n++;
            trie->nodes[at] = (node){.token = -1, .sibling = *head, .byte = byte};
            *head = at;
        }
        parent = at;
    }
    if (trie->nodes[parent].token < 0)
        trie->nodes[parent].token = token;
    return true;
}

int32_t tok_trie_find(const tok_trie *trie, const char *text, size_t from, size_t to, size_t *start,
                      size_t *stop)
{
    for (size_t at = from; at < to; at++) {
        if (trie->only >= 0) {
            const char *p = memchr(text + at, trie->only, to - at);
            if (!p)
                return -1;
            at = (size_t)(p - text);
        }
        int32_t found = -1;
        uint32_t next = trie->first[(uint8_t)text[at]];
        for (size_t i = at + 1; next; i++) {
            if (trie->nodes[next].token >= 0) {
                found = trie->nodes[next].token;
                *stop = i;
            }
            if (i >= to)
                break;
            next = sibling(trie, trie->nodes[next].child, (uint8_t)text[i]);
        }
        if (found >= 0) {
            *start = at;
            return found;
        }
    }
    return -1;
}

/* ---- the set ------------------------------------------------------------------------------- */

static bool add_token(tok_added_set *set, const tok_added *token, int32_t index, const tok_nfc *nfc)
{
    if (!token->normalized)
        return trie_add(set->raw, token->text, token->size, index);
    if (!nfc)
        return trie_add(set->normalized, token->text, token->size, index);
    base_text text = {0};
    bool ok = tok_nfc_apply(nfc, token->text, token->size, &text, NULL, NULL, NULL) == MARCO_OK &&
              trie_add(set->normalized, text.data, text.size, index);
    base_text_free(&text);
    return ok;
}

marco_status tok_added_create(const tok_spec *spec, const tok_nfc *nfc, tok_added_set **out,
                              marco_error *error)
{
    tok_added_set *set = base_calloc(1, sizeof *set);
    bool ok = set != NULL;
    if (ok) {
        set->raw = trie_create();
        set->normalized = trie_create();
        ok = set->raw && set->normalized;
    }
    /* Special ones first: they win where two are the same text once normalised. */
    for (int special = 1; special >= 0; special--)
        for (int32_t i = 0; ok && i < spec->n_added; i++)
            if (spec->added[i].special == (special == 1))
                ok = add_token(set, &spec->added[i], i, nfc);
    if (!ok) {
        tok_added_free(set);
        return base_fail_memory(error, sizeof *set, "added tokens");
    }
    *out = set;
    return MARCO_OK;
}

void tok_added_free(tok_added_set *set)
{
    if (!set)
        return;
    trie_free(set->raw);
    trie_free(set->normalized);
    base_free(set);
}

/* ---- what is around a token ---------------------------------------------------------------- */

static bool is_space(uint32_t cp)
{
    return (cp >= 0x09 && cp <= 0x0D) || cp == 0x20 || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F ||
           cp == 0x205F || cp == 0x3000;
}

/* Alphabetic, Mark, Decimal_Number, Connector_Punctuation, Join_Control. Alphabetic is made of
 * letters, letter numbers, marks and the enclosed letters listed here. */
static bool is_word(uint32_t cp)
{
    switch (utf8proc_category((int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return (cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) ||
               (cp >= 0x1F150 && cp <= 0x1F169) || (cp >= 0x1F170 && cp <= 0x1F189) ||
               cp == 0x200C || cp == 0x200D;
    }
}

/* Length of the character that ends text[0, size), 0 where it is not well-formed. */
static size_t last_char(const char *text, size_t size, uint32_t *cp)
{
    size_t n = 1;
    while (n < 4 && n < size && ((unsigned char)text[size - n] & 0xC0) == 0x80)
        n++;
    return size && base_utf8_decode(text + size - n, n, cp) == n ? n : 0;
}

size_t tok_space_before(const char *text, size_t from, size_t to)
{
    uint32_t cp;
    size_t n;
    while ((n = last_char(text + from, to - from, &cp)) > 0 && is_space(cp))
        to -= n;
    return to;
}

size_t tok_space_after(const char *text, size_t from, size_t to)
{
    uint32_t cp;
    size_t n;
    while ((n = base_utf8_decode(text + from, to - from, &cp)) > 0 && is_space(cp))
        from += n;
    return from;
}

bool tok_word_before(const char *text, size_t size)
{
    uint32_t cp;
    return last_char(text, size, &cp) > 0 && is_word(cp);
}

bool tok_word_after(const char *text, size_t size)
{
    uint32_t cp;
    return base_utf8_decode(text, size, &cp) > 0 && is_word(cp);
}
