/* Inside the tokenizer room: the compiled tokenizer and the way chat feeds it pieces of text. */
#ifndef TOKENIZER_TOKENIZER_H
#define TOKENIZER_TOKENIZER_H

#include "base/memory.h"
#include "tokenizer/added.h"
#include "tokenizer/nfc.h"
#include "tokenizer/spec.h"
#include "tokenizer/split.h"

/* A growable array of ids; all zero is empty. */
typedef struct tok_ids {
    int32_t *items;
    size_t n, capacity;
} tok_ids;

static inline bool tok_ids_add(tok_ids *ids, int32_t id)
{
    void *items = ids->items;
    if (!base_grow(&items, &ids->capacity, ids->n + 1, sizeof *ids->items))
        return false;
    ids->items = items;
    ids->items[ids->n++] = id;
    return true;
}

/* Part of a text. Added tokens are recognised only where they lie within trusted segments. */
typedef struct tok_segment {
    const char *text;
    size_t size;
    bool trusted;
} tok_segment;

typedef struct tok_bpe tok_bpe; /* bpe.h */

struct marco_tokenizer {
    tok_spec *spec; /* tokens and merges released once compiled */
    tok_nfc *nfc;   /* NULL: no normaliser */
    tok_added_set *added;
    tok_split *split;
    tok_bpe *bpe;
    int32_t size;      /* 1 + the largest id */
    char *bytes;       /* what every id decodes to, end to end */
    uint32_t *offsets; /* [size + 1] into bytes */
    uint8_t *kinds;    /* [size], TOK_KIND_* */
    int chat_kind;     /* the chat template that was set, chat.h; 0: the spec's */
};

enum {
    TOK_KIND_NONE = 0, /* a hole in the numbering */
    TOK_KIND_ORDINARY,
    TOK_KIND_ADDED,
    TOK_KIND_SPECIAL,
};

/* Appends the ids of the segments' texts taken as one: added tokens are recognised only where they
 * lie entirely within a run of neighbouring trusted segments; what is between two of them is
 * normalised, split and merged across the segments' borders. With all segments trusted this is
 * marco_tokenizer_encode of the whole with MARCO_ENCODE_SPECIAL. flags: MARCO_ENCODE_BOS. */
marco_status tok_encode_segments(const marco_tokenizer *tokenizer, const tok_segment *segments,
                                 size_t n, unsigned flags, tok_ids *out, marco_error *error);

#endif
