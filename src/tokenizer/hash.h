/* Hashes of bytes and of pairs. A file cannot be made to collide, as the seed is drawn anew for
 * every table; what is computed must not depend on it. */
#ifndef TOKENIZER_HASH_H
#define TOKENIZER_HASH_H

#include <string.h>

#include "marco/marco.h"

typedef struct tok_seed {
    uint64_t of[2];
} tok_seed;

marco_status tok_seed_draw(tok_seed *seed, marco_error *error);

/* Multiplies and folds as wyhash does. What is added keeps a factor of 0 from swallowing the other
 * one. */
static inline uint64_t tok_hash_mix(const tok_seed *seed, uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)(a ^ seed->of[0]) * (b ^ seed->of[1]);
    return ((uint64_t)product ^ (uint64_t)(product >> 64)) + a + (b << 32 | b >> 32);
}

static inline uint64_t tok_hash_bytes(const tok_seed *seed, const char *bytes, size_t size)
{
    uint64_t hash = size, word;
    for (; size >= 8; bytes += 8, size -= 8) {
        memcpy(&word, bytes, 8);
        hash = tok_hash_mix(seed, hash, word);
    }
    word = 0;
    memcpy(&word, bytes, size);
    return tok_hash_mix(seed, hash, word);
}

/* A power of two that n entries fill to two thirds at most. */
static inline size_t tok_table_size(size_t n)
{
    size_t size = 16;
    while (size < n + n / 2)
        size *= 2;
    return size;
}

#endif
