/* The texts of a vocabulary, as a trie to walk beside an automaton. */
#ifndef GRAMMAR_VOCAB_H
#define GRAMMAR_VOCAB_H

#include "grammar/internal.h"

/* In the order of a walk: a node, then what is below it. */
typedef struct gr_trie_node {
    uint32_t next; /* the first node that is not below this one */
    int32_t token; /* that ends here, or GR_NONE */
    uint16_t depth;
    uint8_t byte;
} gr_trie_node;

enum { GR_RUNS = 32 };

struct grammar_vocab {
    int32_t n_vocab, n_end;
    int32_t *end;
    size_t words;    /* of a mask */
    char *bytes;     /* what the tokens decode to, end to end; nothing for those never allowed */
    size_t *offsets; /* [n_vocab + 1] */
    int32_t *same;   /* [n_vocab] the next token of the same text, or GR_NONE */
    /* Two tries one after the other. A plain token is one of whole characters that stand for
     * themselves in a JSON string, and are no line ends to anybody. */
    gr_trie_node *trie;
    uint32_t n_trie, n_plain; /* nodes; those of plain tokens */
    size_t longest;           /* token, bytes */
    /* [GR_RUNS + 1][words]: the plain tokens of at most so many characters; those of more. */
    uint32_t *plain;
    int32_t *long_plain;  /* [n_long] */
    uint16_t *long_sizes; /* [n_long] characters, ascending */
    size_t n_long;
    uint64_t print;  /* of everything above: vocabularies of the same print are the same */
    gr_memo *common; /* of the common nodes */
};

static inline void gr_set_bit(uint32_t *mask, int32_t id)
{
    mask[id / 32] |= 1u << id % 32;
}

/* Is it one of those that end a reply? */
static inline bool gr_is_end(const grammar_vocab *vocab, int32_t id)
{
    for (int32_t i = 0; i < vocab->n_end; i++)
        if (vocab->end[i] == id)
            return true;
    return false;
}

/* Sets the plain tokens of at most `run` characters. */
void gr_vocab_plain(const grammar_vocab *vocab, uint32_t run, uint32_t *mask);

#endif
