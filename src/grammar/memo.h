/* What is known about the tokens that may follow a node, whatever the stack. */
#ifndef GRAMMAR_MEMO_H
#define GRAMMAR_MEMO_H

#include "grammar/vocab.h"

/* Immutable. The numbers: exits, ends, doubtful tokens, then tokens or the words of a mask. */
typedef struct gr_entry {
    /* Plain tokens of so many characters are allowed (they are not among the tokens); 0: see the
     * tokens. */
    uint32_t run;
    int32_t deepest;  /* the stack may grow by so much, for tokens or for finishing after them */
    uint32_t n_exits; /* trie nodes within which the rule has been left, and below which there are
                       * tokens: what is above on the stack decides about those */
    uint32_t n_ends;  /* trie nodes with a token at whose end the rule has just been left */
    uint32_t n_doubtful; /* tokens that the names on the stack decide about */
    uint32_t n_tokens;
    bool dense; /* a mask */
    uint32_t numbers[];
} gr_entry;

/* Entries by node; threads add to it at once, and nothing is ever taken out. */
struct gr_memo {
    gr_memo *next; /* of another vocabulary */
    uint64_t print;
    int32_t n;
    _Atomic(size_t) bytes;
    _Atomic(gr_entry *) entries[]; /* [n] */
};

gr_memo *gr_memo_create(int32_t n, uint64_t print);
void gr_memo_free(gr_memo *memo); /* and the next ones */

/* The grammar's for a vocabulary; NULL: out of memory. */
gr_memo *gr_memo_of(const marco_grammar *grammar, const grammar_vocab *vocab);

/* Keeps the entry, unless one is known or there is no more room: then the caller still owns it
 * (false). */
bool gr_memo_put(gr_memo *memo, int32_t node, gr_entry *entry, size_t size);

#endif
