/* Inside the tokenizer room: learning a vocabulary. Words of the text are counted (train_words.c,
 * train_read.c), pairs are merged by their counts (train_learn.c), the outcome becomes a spec
 * (train.c). */
#ifndef TOKENIZER_TRAIN_H
#define TOKENIZER_TRAIN_H

#include "base/text.h"
#include "marco/train.h"
#include "tokenizer/hash.h"
#include "tokenizer/spec.h"

/* ---- words --------------------------------------------------------------------------------- */

typedef struct tok_word {
    uint64_t start; /* into `bytes` */
    uint64_t count;
    uint32_t size, hash;
} tok_word;

/* Distinct byte strings, in the order they were first met, and how often each occurs. */
typedef struct tok_words {
    base_text bytes; /* end to end */
    tok_word *items; /* [n] */
    size_t n, capacity;
    uint32_t *slots; /* [n_slots] 1 + an index, 0: empty */
    size_t n_slots;
    tok_seed seed;
} tok_words; /* all zero but for the seed, tok_seed_draw, is empty */

/* Longer words are counted as several: the work of a merge grows with the words it is in. */
enum { TOK_MAX_WORD = 1 << 16 };

/* Counts `count` more of a word of at most TOK_MAX_WORD bytes. Words that were counted before stay
 * as they are when memory runs out (false). */
bool tok_words_add(tok_words *words, const char *bytes, size_t size, uint64_t count);

static inline const char *tok_words_bytes(const tok_words *words, size_t i)
{
    return words->bytes.data + words->items[i].start;
}

void tok_words_free(tok_words *words);

/* ---- reading ------------------------------------------------------------------------------- */

/* The words of all files, as the spec normalises and splits text: lines of text, newline included,
 * and the strings of JSON lines, each on its own. */
marco_status tok_count_words(const tok_spec *spec, const marco_tokenizer_train_params *params,
                             tok_words *out, marco_error *error);

/* ---- learning ------------------------------------------------------------------------------ */

enum { TOK_N_BYTES = 256 };

/* The bytes in the order of their spelling, which is that of HF's ids for them. */
void tok_alphabet(uint8_t out[TOK_N_BYTES]);

typedef struct tok_merge {
    int32_t left, right; /* ids: 0 to 255 as tok_alphabet has them, 256 + i what merge i makes */
} tok_merge;

typedef struct tok_learnt {
    tok_merge *merges; /* [n_merges], by rank; base_free */
    int32_t n_merges;
    uint64_t n_ids; /* tokens that the counted words come to */
} tok_learnt;

/* Joins the most frequent pair, the one of lowest ids among equals, up to n_merges times or until
 * no pair occurs min_frequency (>= 1) times: Sennrich et al., arXiv 1508.07909, in the order of
 * HF's BpeTrainer. out->merges is to be released in every case. */
marco_status tok_learn(const tok_words *words, int32_t n_merges, int64_t min_frequency,
                       const marco_progress *progress, tok_learnt *out, marco_error *error);

#endif
