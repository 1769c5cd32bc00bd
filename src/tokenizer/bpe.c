#include "tokenizer/bpe.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "tokenizer/bytes.h"
#include "tokenizer/hash.h"

/* A merge: open addressing, linear probing, empty where rank is NO_RANK. */
typedef struct merge {
    int32_t left, right, product;
    uint32_t rank;
} merge;

static const uint32_t NO_RANK = UINT32_MAX;

struct tok_bpe {
    tok_vocabulary vocabulary;
    int32_t *slots; /* [slot_mask + 1] tokens by the hash of their bytes, -1: empty */
    size_t slot_mask;
    merge *merges; /* [merge_mask + 1] */
    size_t merge_mask;
    int32_t bytes[256]; /* the token of every single byte, -1: none */
    bool ignore_merges;
    tok_seed seed;
};

static inline uint64_t hash_bytes(const tok_bpe *bpe, const char *bytes, size_t size)
{
    return tok_hash_bytes(&bpe->seed, bytes, size);
}

static inline uint64_t hash_pair(const tok_bpe *bpe, int32_t left, int32_t right)
{
    return tok_hash_mix(&bpe->seed, (uint32_t)left, (uint32_t)right);
}

/* ---- the vocabulary ------------------------------------------------------------------------ */

static bool token_is(const tok_vocabulary *v, int32_t id, const char *bytes, size_t size)
{
    uint32_t offset = v->offsets[id];
    return v->offsets[id + 1] - offset == size && memcmp(v->bytes + offset, bytes, size) == 0;
}

/* The slot of a token of these bytes, or the empty one where it would go. */
static size_t slot_of(const tok_bpe *bpe, const char *bytes, size_t size)
{
    size_t at = hash_bytes(bpe, bytes, size) & bpe->slot_mask;
    while (bpe->slots[at] >= 0 && !token_is(&bpe->vocabulary, bpe->slots[at], bytes, size))
        at = (at + 1) & bpe->slot_mask;
    return at;
}

int32_t tok_bpe_find(const tok_bpe *bpe, const char *bytes, size_t size)
{
    int32_t id = bpe->slots[slot_of(bpe, bytes, size)];
    return id >= 0 && bpe->vocabulary.kinds[id] == TOK_KIND_ORDINARY ? id : -1;
}

/* True for texts that are their own spelling. */
static bool spells_itself(const char *text, size_t size)
{
    while (size && *text > ' ' && *text < 0x7F)
        text++, size--;
    return size == 0;
}

static marco_status fill_slots(tok_bpe *bpe, const tok_spec *spec, marco_error *error)
{
    const tok_vocabulary *v = &bpe->vocabulary;
    size_t n = tok_table_size((size_t)v->size);
    bpe->slots = base_alloc_array(n, sizeof *bpe->slots);
    if (!bpe->slots)
        return base_fail_memory(error, n * sizeof *bpe->slots, "the vocabulary");
    memset(bpe->slots, 0xFF, n * sizeof *bpe->slots);
    bpe->slot_mask = n - 1;
    for (int32_t id = 0; id < v->size; id++) {
        const char *bytes = v->bytes + v->offsets[id];
        if (v->kinds[id] != TOK_KIND_ORDINARY)
            continue;
        size_t at = slot_of(bpe, bytes, v->offsets[id + 1] - v->offsets[id]);
        if (bpe->slots[at] >= 0)
            return base_fail(error, MARCO_ERROR_FORMAT, "%s: tokens %d and %d are both '%s'",
                             spec->source, bpe->slots[at], id, spec->tokens[id]);
        bpe->slots[at] = id;
    }
    /* An added token may be one that merges know too. */
    for (int32_t i = 0; i < spec->n_added; i++) {
        const tok_added *added = &spec->added[i];
        if (!spells_itself(added->text, added->size))
            continue;
        size_t at = slot_of(bpe, added->text, added->size);
        if (bpe->slots[at] >= 0)
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: '%s' is token %d in the vocabulary and %d among the added tokens",
                             spec->source, added->text, bpe->slots[at], added->id);
        bpe->slots[at] = added->id;
    }
    return MARCO_OK;
}

/* The token, ordinary or added, that is spelt text[0, size); -1 where there is none. `scratch` has
 * room for `size` bytes. */
static int32_t resolve(const tok_bpe *bpe, const char *text, size_t size, char *scratch)
{
    size_t n;
    return tok_bytes_unspell(text, size, scratch, &n) ? bpe->slots[slot_of(bpe, scratch, n)] : -1;
}

static void fill_bytes(tok_bpe *bpe)
{
    for (int byte = 0; byte < 256; byte++) {
        char spelt[3], scratch[3];
        size_t n = tok_byte_spell((uint8_t)byte, spelt);
        int32_t id = resolve(bpe, spelt, n, scratch);
        /* Text that is not searched for control tokens must not turn into one. */
        if (id >= 0 && bpe->vocabulary.kinds[id] == TOK_KIND_SPECIAL)
            id = -1;
        bpe->bytes[byte] = id;
    }
}

/* ---- merges -------------------------------------------------------------------------------- */

static inline merge *merge_slot(const tok_bpe *bpe, int32_t left, int32_t right)
{
    size_t at = hash_pair(bpe, left, right) & bpe->merge_mask;
    while (bpe->merges[at].rank != NO_RANK &&
           (bpe->merges[at].left != left || bpe->merges[at].right != right))
        at = (at + 1) & bpe->merge_mask;
    return &bpe->merges[at];
}

static marco_status add_merge(tok_bpe *bpe, const tok_spec *spec, int32_t rank, base_text *joined,
                              base_text *scratch, marco_error *error)
{
    const char *text = spec->merges[rank], *space = strchr(text, ' ');
    size_t size = strlen(text), left_size = space ? (size_t)(space - text) : 0;
    if (!space || left_size == 0 || left_size + 1 == size || strchr(space + 1, ' '))
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: merge %d '%s' is not two tokens with a space between", spec->source,
                         rank, text);
    base_text_clear(joined);
    base_text_add_n(joined, text, left_size);
    base_text_add(joined, space + 1);
    base_text_clear(scratch);
    base_text_add(scratch, text); /* room enough for what any part unspells to */
    if (joined->failed || scratch->failed)
        return base_fail_memory(error, size, "a merge");
    merge m = {
        .left = resolve(bpe, text, left_size, scratch->data),
        .right = resolve(bpe, space + 1, size - left_size - 1, scratch->data),
        .product = resolve(bpe, joined->data, joined->size, scratch->data),
        .rank = (uint32_t)rank,
    };
    if (m.left < 0 || m.right < 0 || m.product < 0)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: merge %d '%s': '%.*s' is not in the vocabulary", spec->source, rank,
                         text, m.left < 0 ? (int)left_size : (int)size,
                         m.left < 0    ? text
                         : m.right < 0 ? space + 1
                                       : joined->data);
    /* HF finds a special token in text before any merge could make it. Untrusted text is not
     * searched for them, and must not become one by merging either. */
    if (bpe->vocabulary.kinds[m.product] != TOK_KIND_SPECIAL)
        *merge_slot(bpe, m.left, m.right) = m; /* a repeated pair: the last counts, as in HF */
    return MARCO_OK;
}

static marco_status fill_merges(tok_bpe *bpe, const tok_spec *spec, marco_error *error)
{
    size_t n = tok_table_size((size_t)spec->n_merges);
    bpe->merges = base_alloc_array(n, sizeof *bpe->merges);
    if (!bpe->merges)
        return base_fail_memory(error, n * sizeof *bpe->merges, "the merges");
    memset(bpe->merges, 0xFF, n * sizeof *bpe->merges);
    bpe->merge_mask = n - 1;
    base_text joined = {0}, scratch = {0};
    marco_status status = MARCO_OK;
    for (int32_t rank = 0; !status && rank < spec->n_merges; rank++)
        status = add_merge(bpe, spec, rank, &joined, &scratch, error);
    base_text_free(&joined);
    base_text_free(&scratch);
    return status;
}

marco_status tok_bpe_create(const tok_spec *spec, const tok_vocabulary *vocabulary, tok_bpe **out,
                            marco_error *error)
{
    tok_bpe *bpe = base_calloc(1, sizeof *bpe);
    if (!bpe)
        return base_fail_memory(error, sizeof *bpe, "the vocabulary");
    bpe->vocabulary = *vocabulary;
    bpe->ignore_merges = spec->ignore_merges;
    marco_status status = tok_seed_draw(&bpe->seed, error);
    if (!status)
        status = fill_slots(bpe, spec, error);
    if (!status)
        status = fill_merges(bpe, spec, error);
    if (status) {
        tok_bpe_free(bpe);
        return status;
    }
    fill_bytes(bpe);
    *out = bpe;
    return MARCO_OK;
}

void tok_bpe_free(tok_bpe *bpe)
{
    if (!bpe)
        return;
    base_free(bpe->slots);
    base_free(bpe->merges);
    base_free(bpe);
}

static size_t longest_run(const tok_bpe *bpe, bool merges)
{
    size_t mask = merges ? bpe->merge_mask : bpe->slot_mask, run = 0, longest = 0;
    for (size_t i = 0; i <= 2 * mask + 1; i++) { /* twice around: a run may go over the end */
        bool used = merges ? bpe->merges[i & mask].rank != NO_RANK : bpe->slots[i & mask] >= 0;
        run = used ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    return longest;
}

size_t tok_bpe_longest_run(const tok_bpe *bpe)
{
    size_t slots = longest_run(bpe, false), merges = longest_run(bpe, true);
    return slots > merges ? slots : merges;
}

/* ---- short pieces: look at every pair, join the best, again -------------------------------- */

enum { SHORT = 48 };

static void merge_short(const tok_bpe *bpe, const char *piece, size_t size, int32_t *ids, size_t *n)
{
    const merge *pairs[SHORT]; /* of ids[i] and ids[i + 1] */
    size_t count = 0;
    for (size_t i = 0; i < size; i++) {
        int32_t id = bpe->bytes[(uint8_t)piece[i]];
        if (id >= 0)
            ids[count++] = id;
    }
    for (size_t i = 0; i + 1 < count; i++)
        pairs[i] = merge_slot(bpe, ids[i], ids[i + 1]);
    for (;;) {
        size_t best = 0;
        uint32_t rank = NO_RANK;
        for (size_t i = 0; i + 1 < count; i++) {
            if (pairs[i]->rank < rank) {
                rank = pairs[i]->rank;
                best = i;
            }
        }
        if (rank == NO_RANK)
            break;
        ids[best] = pairs[best]->product;
        count--;
        memmove(ids + best + 1, ids + best + 2, (count - best - 1) * sizeof *ids);
        if (best + 1 < count)
            memmove(pairs + best + 1, pairs + best + 2, (count - best - 2) * sizeof *pairs);
        if (best > 0)
            pairs[best - 1] = merge_slot(bpe, ids[best - 1], ids[best]);
        if (best + 1 < count)
            pairs[best] = merge_slot(bpe, ids[best], ids[best + 1]);
    }
    *n = count;
}

/* ---- long pieces: a heap of pairs over a linked list --------------------------------------- */

typedef struct symbol {
    int32_t id;
    int32_t previous, next; /* -1 at the ends */
    uint32_t rank;          /* of the pair with the next one; NO_RANK where it has none */
} symbol;

/* Entries are rank << 32 | position: the lowest rank first, the leftmost of equals. One that no
 * longer agrees with its symbol's rank is out of date. */
static bool heap_push(tok_bpe_work *work, uint64_t entry)
{
    void *heap = work->heap;
    if (!base_grow(&heap, &work->heap_capacity, work->n_heap + 1, sizeof *work->heap))
        return false;
    work->heap = heap;
    size_t at = work->n_heap++;
    while (at > 0 && work->heap[(at - 1) / 2] > entry) {
        work->heap[at] = work->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    work->heap[at] = entry;
    return true;
}

static uint64_t heap_pop(tok_bpe_work *work)
{
    uint64_t *heap = work->heap, top = heap[0], last = heap[--work->n_heap];
    size_t at = 0, n = work->n_heap;
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (last <= heap[child])
            break;
        heap[at] = heap[child];
    }
    heap[at] = last;
    return top;
}

static bool update_pair(const tok_bpe *bpe, tok_bpe_work *work, symbol *symbols, int32_t at)
{
    if (at < 0)
        return true;
    int32_t next = symbols[at].next;
    symbols[at].rank = next < 0 ? NO_RANK : merge_slot(bpe, symbols[at].id, symbols[next].id)->rank;
    return symbols[at].rank == NO_RANK ||
           heap_push(work, (uint64_t)symbols[at].rank << 32 | (uint32_t)at);
}

static bool merge_long(const tok_bpe *bpe, tok_bpe_work *work, const char *piece, size_t size,
                       tok_ids *out)
{
    if (!base_grow(&work->symbols, &work->symbols_capacity, size, sizeof(symbol)))
        return false;
    symbol *symbols = work->symbols;
    int32_t n = 0;
    for (size_t i = 0; i < size; i++) {
        int32_t id = bpe->bytes[(uint8_t)piece[i]];
        if (id >= 0) {
            symbols[n] = (symbol){id, n - 1, n + 1, NO_RANK};
            n++;
        }
    }
    if (n == 0)
        return true;
    symbols[n - 1].next = -1;
    work->n_heap = 0;
    for (int32_t i = 0; i < n; i++)
        if (!update_pair(bpe, work, symbols, i))
            return false;
    while (work->n_heap) {
        uint64_t entry = heap_pop(work);
        symbol *left = &symbols[(uint32_t)entry];
        if (left->rank != entry >> 32)
            continue;
        symbol *right = &symbols[left->next];
        left->id = merge_slot(bpe, left->id, right->id)->product;
        left->next = right->next;
        right->rank = NO_RANK;
        int32_t at = (int32_t)(left - symbols);
        if (left->next >= 0)
            symbols[left->next].previous = at;
        if (!update_pair(bpe, work, symbols, at) ||
            !update_pair(bpe, work, symbols, left->previous))
            return false;
    }
    for (int32_t i = 0; i >= 0; i = symbols[i].next)
        if (!tok_ids_add(out, symbols[i].id))
            return false;
    return true;
}

/* ---- pieces seen before -------------------------------------------------------------------- */

enum { MEMO_SIZE = 4096, MEMO_KEY = 22, MEMO_IDS = 10 };

/* One cache line. */
struct tok_bpe_memo {
    int32_t ids[MEMO_IDS];
    uint8_t size, n; /* size 0: empty */
    char key[MEMO_KEY];
};

bool tok_bpe_work_memo(tok_bpe_work *work)
{
    if (!work->memo)
        work->memo = base_calloc(MEMO_SIZE, sizeof *work->memo);
    return work->memo != NULL;
}

void tok_bpe_work_free(tok_bpe_work *work)
{
    base_free(work->memo);
    base_free(work->symbols);
    base_free(work->heap);
    *work = (tok_bpe_work){0};
}

static bool add_all(tok_ids *out, const int32_t *ids, size_t n)
{
    void *items = out->items;
    if (!base_grow(&items, &out->capacity, out->n + n, sizeof *ids))
        return false;
    out->items = items;
    memcpy(out->items + out->n, ids, n * sizeof *ids);
    out->n += n;
    return true;
}

bool tok_bpe_encode(const tok_bpe *bpe, tok_bpe_work *work, const char *piece, size_t size,
                    tok_ids *out)
{
    if (size == 1) {
        int32_t id = bpe->bytes[(uint8_t)piece[0]];
        return id < 0 || tok_ids_add(out, id);
    }
    struct tok_bpe_memo *memo = NULL;
    if (work->memo && size <= MEMO_KEY) {
        memo = &work->memo[hash_bytes(bpe, piece, size) % MEMO_SIZE];
        if (memo->size == size && memcmp(memo->key, piece, size) == 0)
            return add_all(out, memo->ids, memo->n);
    }
    int32_t whole = bpe->ignore_merges ? tok_bpe_find(bpe, piece, size) : -1;
    if (whole >= 0)
        return tok_ids_add(out, whole);
    if (size > SHORT)
        return merge_long(bpe, work, piece, size, out);
    int32_t ids[SHORT];
    size_t n;
    merge_short(bpe, piece, size, ids, &n);
    if (memo && n <= MEMO_IDS) {
        memo->size = (uint8_t)size;
        memo->n = (uint8_t)n;
        memcpy(memo->key, piece, size);
        memcpy(memo->ids, ids, n * sizeof *ids);
    }
    return n == 0 || add_all(out, ids, n);
}
