/* Byte-level byte pair encoding (Sennrich et al., arXiv 1508.07909): the pair of lowest rank is
 * joined first, the leftmost of equals first. */
#ifndef TOKENIZER_BPE_H
#define TOKENIZER_BPE_H

#include "tokenizer/tokenizer.h"

/* What the tokens are, by id; borrowed and outliving the tok_bpe. */
typedef struct tok_vocabulary {
    int32_t size;
    const char *bytes;       /* end to end */
    const uint32_t *offsets; /* [size + 1] */
    const uint8_t *kinds;    /* [size], TOK_KIND_* */
} tok_vocabulary;

/* Refuses merges of or into tokens that do not exist, and two tokens of the same bytes. */
marco_status tok_bpe_create(const tok_spec *spec, const tok_vocabulary *vocabulary, tok_bpe **out,
                            marco_error *error);
void tok_bpe_free(tok_bpe *bpe);

/* The ordinary token of exactly these bytes, or -1. */
int32_t tok_bpe_find(const tok_bpe *bpe, const char *bytes, size_t size);

/* The most entries of the hash tables without an empty one between: what a search looks at, at
 * most. For tests. */
size_t tok_bpe_longest_run(const tok_bpe *bpe);

/* What one call needs besides; all zero is ready to use. */
typedef struct tok_bpe_work {
    struct tok_bpe_memo *memo; /* of pieces seen before */
    void *symbols;             /* of a long piece */
    uint64_t *heap;
    size_t n_heap, heap_capacity, symbols_capacity;
} tok_bpe_work;

/* Worth it for texts of some length; without it all pieces are merged anew. */
bool tok_bpe_work_memo(tok_bpe_work *work);
void tok_bpe_work_free(tok_bpe_work *work);

/* Appends the ids of a piece of fewer than 2^31 bytes. Bytes without a token are left out, as HF
 * does. False: out of memory. */
bool tok_bpe_encode(const tok_bpe *bpe, tok_bpe_work *work, const char *piece, size_t size,
                    tok_ids *out);

#endif
