/* Counts of pairs are kept up to date by looking, for each merge, at the words that have the pair.
 * Three habits of HF's trainer decide what is merged when, and are kept:
 *   - a pair that is merged keeps its count;
 *   - two merges may make one token ("a" "bc" and "ab" "c"); a pair with it that was queued before
 *     is then queued a second time, with the words that are new, and each of the two is merged in
 *     its own words when its turn comes; the later turn is the pair's rank;
 *   - what is queued has the count of when it was queued, and takes the new one only when it comes
 *     to the front. */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "tokenizer/bytes.h"
#include "tokenizer/train.h"

typedef struct pair {
    uint64_t key; /* left << 32 | right */
    int64_t count;
    uint32_t fresh; /* 1 + its index in `fresh`, 0: none */
    uint32_t merge; /* 1 + the last merge of it, 0: none */
} pair;

/* A pair with words that are not queued yet. */
typedef struct fresh_pair {
    size_t start; /* of its words in `places` */
    uint32_t pair, n, last_word;
} fresh_pair;

typedef struct fresh_place {
    uint32_t fresh, word;
} fresh_place;

/* A pair in the queue, with words that may have it. */
typedef struct queued {
    int64_t count;
    uint64_t key;
    size_t start; /* places[start, start + n); grows with every entry */
    uint32_t n, pair;
} queued;

typedef struct learner {
    const tok_words *words;
    tok_learnt *out;
    int32_t *symbols; /* of all words, each in the place of its bytes */
    uint32_t *sizes;  /* [words->n] symbols that a word has left */

    pair *pairs;
    size_t n_pairs, pairs_capacity;
    uint32_t *slots; /* [n_slots] 1 + an index of pairs, 0: empty */
    size_t n_slots;

    uint32_t *places; /* words, for the queue's entries */
    size_t n_places, places_capacity;
    fresh_pair *fresh;
    size_t n_fresh, fresh_capacity;
    fresh_place *fresh_places;
    size_t n_fresh_places, fresh_places_capacity;

    queued *queue; /* a binary heap, the next in front */
    size_t n_queue, queue_capacity;

    uint32_t *merges; /* pairs, in the order of their merges */
    size_t n_merges, merges_capacity;
    base_text joined;
} learner;

void tok_alphabet(uint8_t out[256])
{
    int n = 0;
    for (int others = 0; others < 2; others++) /* those spelt as themselves come first */
        for (int byte = 0; byte < 256; byte++) {
            char spelt[3];
            uint32_t cp = 0;
            base_utf8_decode(spelt, tok_byte_spell((uint8_t)byte, spelt), &cp);
            if ((cp != (uint32_t)byte) == others)
                out[n++] = (uint8_t)byte;
        }
}

/* ---- pairs --------------------------------------------------------------------------------- */

static size_t pair_slot(const learner *l, uint64_t key)
{
    size_t at = tok_hash_mix(&l->words->seed, key >> 32, key & UINT32_MAX) & (l->n_slots - 1);
    while (l->slots[at] && l->pairs[l->slots[at] - 1].key != key)
        at = (at + 1) & (l->n_slots - 1);
    return at;
}

static bool grow_pairs(learner *l)
{
    void *pairs = l->pairs;
    if (l->n_pairs >= UINT32_MAX / 2 ||
        !base_grow(&pairs, &l->pairs_capacity, l->n_pairs + 1, sizeof *l->pairs))
        return false;
    l->pairs = pairs;
    size_t n_slots = tok_table_size(l->n_pairs + 1);
    if (n_slots <= l->n_slots)
        return true;
    uint32_t *slots = base_calloc(n_slots, sizeof *slots);
    if (!slots)
        return false;
    base_free(l->slots);
    l->slots = slots;
    l->n_slots = n_slots;
    for (size_t i = 0; i < l->n_pairs; i++)
        l->slots[pair_slot(l, l->pairs[i].key)] = (uint32_t)i + 1;
    return true;
}

/* Adds to the count of a pair; NULL when out of memory. */
static pair *count_pair(learner *l, int32_t left, int32_t right, int64_t count)
{
    if (!grow_pairs(l))
        return NULL;
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t at = pair_slot(l, key);
    if (!l->slots[at]) {
        l->pairs[l->n_pairs++] = (pair){.key = key};
        l->slots[at] = (uint32_t)l->n_pairs;
    }
    pair *p = &l->pairs[l->slots[at] - 1];
    p->count += count;
    return p;
}

/* A pair that `word` has come to have, to be queued. */
static bool add_pair(learner *l, int32_t left, int32_t right, uint32_t word)
{
    pair *p = count_pair(l, left, right, (int64_t)l->words->items[word].count);
    if (!p)
        return false;
    if (!p->fresh) {
        void *items = l->fresh;
        if (!base_grow(&items, &l->fresh_capacity, l->n_fresh + 1, sizeof *l->fresh))
            return false;
        l->fresh = items;
        l->fresh[l->n_fresh++] = (fresh_pair){.pair = (uint32_t)(p - l->pairs)};
        p->fresh = (uint32_t)l->n_fresh;
    }
    fresh_pair *f = &l->fresh[p->fresh - 1];
    if (f->n && f->last_word == word)
        return true;
    void *items = l->fresh_places;
    if (!base_grow(&items, &l->fresh_places_capacity, l->n_fresh_places + 1,
                   sizeof *l->fresh_places))
        return false;
    l->fresh_places = items;
    l->fresh_places[l->n_fresh_places++] = (fresh_place){p->fresh - 1, word};
    f->last_word = word;
    f->n++;
    return true;
}

/* ---- the queue ----------------------------------------------------------------------------- */

static bool goes_before(const queued *a, const queued *b)
{
    if (a->count != b->count)
        return a->count > b->count;
    return a->key != b->key ? a->key < b->key : a->start < b->start;
}

static void sift_down(learner *l, queued entry)
{
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < l->n_queue; at = child) {
        child += child + 1 < l->n_queue && goes_before(&l->queue[child + 1], &l->queue[child]);
        if (!goes_before(&l->queue[child], &entry))
            break;
        l->queue[at] = l->queue[child];
    }
    l->queue[at] = entry;
}

static bool enqueue(learner *l, queued entry)
{
    void *items = l->queue;
    if (!base_grow(&items, &l->queue_capacity, l->n_queue + 1, sizeof *l->queue))
        return false;
    l->queue = items;
    size_t at = l->n_queue++;
    for (; at && goes_before(&entry, &l->queue[(at - 1) / 2]); at = (at - 1) / 2)
        l->queue[at] = l->queue[(at - 1) / 2];
    l->queue[at] = entry;
    return true;
}

/* The next pair to merge into *next. False: none is left. */
static bool dequeue(learner *l, int64_t min_frequency, queued *next)
{
    while (l->n_queue) {
        queued *front = &l->queue[0];
        int64_t count = l->pairs[front->pair].count;
        if (front->count == count) {
            *next = *front;
            if (--l->n_queue)
                sift_down(l, l->queue[l->n_queue]);
            return count >= min_frequency;
        }
        queued changed = *front;
        changed.count = count;
        sift_down(l, changed);
    }
    return false;
}

/* Queues the fresh pairs. */
static bool flush_fresh(learner *l)
{
    void *places = l->places;
    if (!base_grow(&places, &l->places_capacity, l->n_places + l->n_fresh_places,
                   sizeof *l->places))
        return false;
    l->places = places;
    for (size_t i = 0; i < l->n_fresh; i++) {
        l->fresh[i].start = l->n_places;
        l->n_places += l->fresh[i].n;
        l->fresh[i].n = 0;
    }
    for (size_t i = 0; i < l->n_fresh_places; i++) {
        fresh_pair *f = &l->fresh[l->fresh_places[i].fresh];
        l->places[f->start + f->n++] = l->fresh_places[i].word;
    }
    for (size_t i = 0; i < l->n_fresh; i++) {
        const fresh_pair *f = &l->fresh[i];
        pair *p = &l->pairs[f->pair];
        p->fresh = 0;
        queued entry = {p->count, p->key, f->start, f->n, f->pair};
        if (p->count > 0 && !enqueue(l, entry))
            return false;
    }
    l->n_fresh = l->n_fresh_places = 0;
    return true;
}

/* ---- merging ------------------------------------------------------------------------------- */

static bool begin(learner *l)
{
    const tok_words *words = l->words;
    int32_t ids[256];
    uint8_t alphabet[256];
    tok_alphabet(alphabet);
    for (int32_t id = 0; id < 256; id++) {
        ids[alphabet[id]] = id;
        if (!tok_words_add(&l->out->tokens, (const char *)&alphabet[id], 1, 0))
            return false;
    }
    l->symbols = base_alloc_array(words->bytes.size, sizeof *l->symbols);
    l->sizes = base_alloc_array(words->n, sizeof *l->sizes);
    if (!l->symbols || !l->sizes)
        return false;
    for (size_t i = 0; i < words->bytes.size; i++)
        l->symbols[i] = ids[(uint8_t)words->bytes.data[i]];
    for (size_t w = 0; w < words->n; w++) {
        const int32_t *symbols = l->symbols + words->items[w].start;
        l->sizes[w] = words->items[w].size;
        for (uint32_t i = 1; i < l->sizes[w]; i++)
            if (!add_pair(l, symbols[i - 1], symbols[i], (uint32_t)w))
                return false;
    }
    return flush_fresh(l);
}

/* Joins every occurrence in the word, from the left, and counts the neighbours anew. */
static bool merge_in_word(learner *l, uint32_t word, int32_t left, int32_t right, int32_t product)
{
    int32_t *symbols = l->symbols + l->words->items[word].start;
    int64_t count = (int64_t)l->words->items[word].count;
    uint32_t size = l->sizes[word], kept = 0;
    for (uint32_t i = 0; i < size; i++) {
        if (symbols[i] != left || i + 1 == size || symbols[i + 1] != right) {
            symbols[kept++] = symbols[i];
            continue;
        }
        if (kept && (!count_pair(l, symbols[kept - 1], left, -count) ||
                     !add_pair(l, symbols[kept - 1], product, word)))
            return false;
        if (i + 2 < size && (!count_pair(l, right, symbols[i + 2], -count) ||
                             !add_pair(l, product, symbols[i + 2], word)))
            return false;
        symbols[kept++] = product;
        i++;
    }
    l->sizes[word] = kept;
    return true;
}

/* The id of both tokens' bytes end to end, which is new unless others were joined to them before;
 * -1 when out of memory. */
static int32_t join_tokens(learner *l, int32_t left, int32_t right)
{
    tok_words *tokens = &l->out->tokens;
    base_text_clear(&l->joined);
    base_text_add_n(&l->joined, tok_words_bytes(tokens, (size_t)left), tokens->items[left].size);
    base_text_add_n(&l->joined, tok_words_bytes(tokens, (size_t)right), tokens->items[right].size);
    if (l->joined.failed || !tok_words_add(tokens, l->joined.data, l->joined.size, 0))
        return -1;
    return (int32_t)tok_words_find(tokens, l->joined.data, l->joined.size);
}

static bool merge_next(learner *l, const queued *next)
{
    int32_t left = (int32_t)(next->key >> 32), right = (int32_t)(next->key & UINT32_MAX);
    void *merges = l->merges;
    if (!base_grow(&merges, &l->merges_capacity, l->n_merges + 1, sizeof *l->merges))
        return false;
    l->merges = merges;
    l->merges[l->n_merges++] = next->pair;
    l->pairs[next->pair].merge = (uint32_t)l->n_merges;
    int32_t product = join_tokens(l, left, right);
    bool ok = product >= 0;
    for (uint32_t i = 0; ok && i < next->n; i++)
        ok = merge_in_word(l, l->places[next->start + i], left, right, product);
    return ok && flush_fresh(l);
}

/* ---- the outcome --------------------------------------------------------------------------- */

static bool finish(learner *l)
{
    tok_learnt *out = l->out;
    out->merges = base_alloc_array(l->n_merges, 2 * sizeof *out->merges);
    if (!out->merges)
        return false;
    for (size_t i = 0; i < l->n_merges; i++) {
        const pair *p = &l->pairs[l->merges[i]];
        if (p->merge != i + 1)
            continue;
        out->merges[2 * out->n_merges] = (int32_t)(p->key >> 32);
        out->merges[2 * out->n_merges + 1] = (int32_t)(p->key & UINT32_MAX);
        out->n_merges++;
    }
    for (size_t w = 0; w < l->words->n; w++)
        out->n_ids += l->sizes[w] * l->words->items[w].count;
    return true;
}

static void release(learner *l)
{
    base_free(l->symbols);
    base_free(l->sizes);
    base_free(l->pairs);
    base_free(l->slots);
    base_free(l->places);
    base_free(l->fresh);
    base_free(l->fresh_places);
    base_free(l->queue);
    base_free(l->merges);
    base_text_free(&l->joined);
}

marco_status tok_learn(const tok_words *words, int32_t n_tokens, int64_t min_frequency,
                       const marco_progress *progress, tok_learnt *out, marco_error *error)
{
    enum { REPORT_EVERY = 16 }; /* merges */
    *out = (tok_learnt){.tokens.seed = words->seed};
    learner l = {.words = words, .out = out};
    marco_status status = MARCO_OK;
    bool ok = begin(&l);
    queued next;
    while (ok && !status && out->tokens.n < (size_t)n_tokens && dequeue(&l, min_frequency, &next)) {
        ok = merge_next(&l, &next);
        if (progress->fn && l.n_merges % REPORT_EVERY == 0 &&
            progress->fn(progress->user, "learning tokens", out->tokens.n, (uint64_t)n_tokens))
            status = base_fail(error, MARCO_ERROR_CANCELLED, "learning tokens was cancelled");
    }
    if (!status && (!ok || !finish(&l)))
        status = base_fail_memory(error, words->bytes.size * sizeof *l.symbols, "learning tokens");
    release(&l);
    return status;
}

void tok_learnt_free(tok_learnt *learnt)
{
    tok_words_free(&learnt->tokens);
    base_free(learnt->merges);
    *learnt = (tok_learnt){0};
}
