/* Counts of pairs are kept up to date by looking, for each merge, at the words that have the pair.
 *
 * Two merges never make the same bytes: as long as nothing was joined across the ends of a piece of
 * text, what is joined within it depends on the piece alone, so that two such pieces are always cut
 * alike. A merge therefore always makes a new token, and a pair has its words all at once, when the
 * younger of its two tokens is made: afterwards it only loses some. */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "tokenizer/bytes.h"
#include "tokenizer/train.h"

typedef struct pair {
    uint64_t key; /* left << 32 | right */
    int64_t count;
    size_t start; /* places[start, start + n) are the words that had it when it was new */
    uint32_t n, last_word;
} pair;

/* A word of a pair, before they are sorted by pair. */
typedef struct sighting {
    uint32_t pair, word;
} sighting;

/* A pair with the count of when it was put here, which may have fallen since. */
typedef struct queued {
    int64_t count;
    uint64_t key;
    uint32_t pair;
} queued;

typedef struct learner {
    const tok_words *words;
    tok_learnt *out;
    size_t merges_capacity;
    int32_t *symbols; /* of all words, each in the place of its bytes */
    uint32_t *sizes;  /* [words->n] symbols that a word has left */

    pair *pairs;
    size_t n_pairs, pairs_capacity, n_known; /* those from n_known on are not in the queue yet */
    uint32_t *slots;                         /* [n_slots] 1 + an index of pairs, 0: empty */
    size_t n_slots;
    uint32_t *places; /* words */
    size_t n_places, places_capacity;
    sighting *sightings; /* of the pairs from n_known on */
    size_t n_sightings, sightings_capacity;

    queued *queue; /* a binary heap, the next in front */
    size_t n_queue, queue_capacity;
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

/* Room for one more. */
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

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* `word` lost one occurrence of a pair. */
static void lose_pair(learner *l, int32_t left, int32_t right, uint32_t word)
{
    pair *p = &l->pairs[l->slots[pair_slot(l, pair_key(left, right))] - 1];
    p->count -= (int64_t)l->words->items[word].count;
}

/* `word` gained one occurrence of a pair that is not in the queue yet. */
static bool gain_pair(learner *l, int32_t left, int32_t right, uint32_t word)
{
    void *items = l->sightings;
    if (!grow_pairs(l) ||
        !base_grow(&items, &l->sightings_capacity, l->n_sightings + 1, sizeof *l->sightings))
        return false;
    l->sightings = items;
    uint64_t key = pair_key(left, right);
    size_t at = pair_slot(l, key);
    if (!l->slots[at]) {
        l->pairs[l->n_pairs++] = (pair){.key = key};
        l->slots[at] = (uint32_t)l->n_pairs;
    }
    uint32_t index = l->slots[at] - 1;
    pair *p = &l->pairs[index];
    p->count += (int64_t)l->words->items[word].count;
    if (p->n == 0 || p->last_word != word) {
        l->sightings[l->n_sightings++] = (sighting){index, word};
        p->last_word = word;
        p->n++;
    }
    return true;
}

/* ---- the queue ----------------------------------------------------------------------------- */

static bool goes_before(const queued *a, const queued *b)
{
    return a->count != b->count ? a->count > b->count : a->key < b->key;
}

/* Puts an entry in the place of the front one. */
static void replace_front(learner *l, queued entry)
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

/* Takes out the most frequent pair. False: none occurs min_frequency times. */
static bool dequeue(learner *l, int64_t min_frequency, uint32_t *most)
{
    while (l->n_queue) {
        queued front = l->queue[0];
        int64_t count = l->pairs[front.pair].count;
        if (front.count == count) {
            *most = front.pair;
            if (--l->n_queue)
                replace_front(l, l->queue[l->n_queue]);
            return count >= min_frequency;
        }
        front.count = count;
        replace_front(l, front);
    }
    return false;
}

/* Puts the new pairs into the queue. */
static bool queue_new(learner *l)
{
    void *places = l->places;
    if (!base_grow(&places, &l->places_capacity, l->n_places + l->n_sightings, sizeof *l->places))
        return false;
    l->places = places;
    for (size_t i = l->n_known; i < l->n_pairs; i++) {
        l->pairs[i].start = l->n_places;
        l->n_places += l->pairs[i].n;
        l->pairs[i].n = 0;
    }
    for (size_t i = 0; i < l->n_sightings; i++) {
        pair *p = &l->pairs[l->sightings[i].pair];
        l->places[p->start + p->n++] = l->sightings[i].word;
    }
    l->n_sightings = 0;
    for (; l->n_known < l->n_pairs; l->n_known++) {
        const pair *p = &l->pairs[l->n_known];
        if (!enqueue(l, (queued){p->count, p->key, (uint32_t)l->n_known}))
            return false;
    }
    return true;
}

/* ---- merging ------------------------------------------------------------------------------- */

static bool begin(learner *l)
{
    const tok_words *words = l->words;
    int32_t ids[256];
    uint8_t alphabet[256];
    tok_alphabet(alphabet);
    for (int32_t id = 0; id < 256; id++)
        ids[alphabet[id]] = id;
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
            if (!gain_pair(l, symbols[i - 1], symbols[i], (uint32_t)w))
                return false;
    }
    return queue_new(l);
}

/* Joins every occurrence in the word, from the left, and counts the neighbours anew. */
static bool merge_in_word(learner *l, uint32_t word, int32_t left, int32_t right, int32_t product)
{
    int32_t *symbols = l->symbols + l->words->items[word].start;
    uint32_t size = l->sizes[word], kept = 0;
    for (uint32_t i = 0; i < size; i++) {
        if (symbols[i] != left || i + 1 == size || symbols[i + 1] != right) {
            symbols[kept++] = symbols[i];
            continue;
        }
        if (kept) {
            lose_pair(l, symbols[kept - 1], left, word);
            if (!gain_pair(l, symbols[kept - 1], product, word))
                return false;
        }
        if (i + 2 < size) {
            lose_pair(l, right, symbols[i + 2], word);
            if (!gain_pair(l, product, symbols[i + 2], word))
                return false;
        }
        symbols[kept++] = product;
        i++;
    }
    l->sizes[word] = kept;
    return true;
}

static bool merge_pair(learner *l, uint32_t most)
{
    tok_learnt *out = l->out;
    const pair p = l->pairs[most];
    int32_t left = (int32_t)(p.key >> 32), right = (int32_t)(p.key & UINT32_MAX);
    int32_t product = TOK_N_BYTES + out->n_merges;
    void *merges = out->merges;
    if (!base_grow(&merges, &l->merges_capacity, (size_t)out->n_merges + 1, sizeof *out->merges))
        return false;
    out->merges = merges;
    out->merges[out->n_merges++] = (tok_merge){left, right};
    for (uint32_t i = 0; i < p.n; i++)
        if (!merge_in_word(l, l->places[p.start + i], left, right, product))
            return false;
    return queue_new(l);
}

static void release(learner *l)
{
    base_free(l->symbols);
    base_free(l->sizes);
    base_free(l->pairs);
    base_free(l->slots);
    base_free(l->places);
    base_free(l->sightings);
    base_free(l->queue);
}

marco_status tok_learn(const tok_words *words, int32_t n_merges, int64_t min_frequency,
                       const marco_progress *progress, tok_learnt *out, marco_error *error)
{
    enum { REPORT_EVERY = 16 }; /* merges */
    *out = (tok_learnt){0};
    learner l = {.words = words, .out = out};
    marco_status status = MARCO_OK;
    uint32_t most;
    bool ok = begin(&l);
    while (ok && !status && out->n_merges < n_merges && dequeue(&l, min_frequency, &most)) {
        ok = merge_pair(&l, most);
        if (progress->fn && out->n_merges % REPORT_EVERY == 0 &&
            progress->fn(progress->user, "learning tokens", (uint64_t)out->n_merges,
                         (uint64_t)n_merges))
            status = base_fail(error, MARCO_ERROR_CANCELLED, "learning tokens was cancelled");
    }
    for (size_t w = 0; ok && w < words->n; w++)
        out->n_ids += l.sizes[w] * words->items[w].count;
    if (!ok)
        status = base_fail_memory(error, words->bytes.size * sizeof *l.symbols, "learning tokens");
    release(&l);
    return status;
}
