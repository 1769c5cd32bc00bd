#include <string.h>

#include "base/memory.h"
#include "tokenizer/train.h"

static size_t slot_of(const tok_words *words, const char *bytes, size_t size, uint32_t hash)
{
    size_t at = hash & (words->n_slots - 1);
    while (words->slots[at]) {
        const tok_word *word = &words->items[words->slots[at] - 1];
        if (word->hash == hash && word->size == size &&
            memcmp(words->bytes.data + word->start, bytes, size) == 0)
            break;
        at = (at + 1) & (words->n_slots - 1);
    }
    return at;
}

/* Room for one more. */
static bool grow(tok_words *words)
{
    void *items = words->items;
    if (words->n >= UINT32_MAX / 2 ||
        !base_grow(&items, &words->capacity, words->n + 1, sizeof *words->items))
        return false;
    words->items = items;
    size_t n_slots = tok_table_size(words->n + 1);
    if (n_slots <= words->n_slots)
        return true;
    uint32_t *slots = base_calloc(n_slots, sizeof *slots);
    if (!slots)
        return false;
    for (size_t i = 0; i < words->n; i++) {
        size_t at = words->items[i].hash & (n_slots - 1);
        while (slots[at])
            at = (at + 1) & (n_slots - 1);
        slots[at] = (uint32_t)i + 1;
    }
    base_free(words->slots);
    words->slots = slots;
    words->n_slots = n_slots;
    return true;
}

bool tok_words_add(tok_words *words, const char *bytes, size_t size, uint64_t count)
{
    if (!grow(words))
        return false;
    uint32_t hash = (uint32_t)tok_hash_bytes(&words->seed, bytes, size);
    size_t at = slot_of(words, bytes, size, hash);
    if (words->slots[at]) {
        words->items[words->slots[at] - 1].count += count;
        return true;
    }
    size_t start = words->bytes.size;
    base_text_add_n(&words->bytes, bytes, size);
    if (words->bytes.failed)
        return false;
    words->items[words->n++] =
        (tok_word){.start = start, .count = count, .size = (uint32_t)size, .hash = hash};
    words->slots[at] = (uint32_t)words->n;
    return true;
}

void tok_words_free(tok_words *words)
{
    base_text_free(&words->bytes);
    base_free(words->items);
    base_free(words->slots);
    *words = (tok_words){0};
}
