/* What a reply may be, token by token.
 *
 * A marco_grammar (scheduler.h) is a set of texts, compiled once. A grammar_vocab knows what every
 * token of a model's vocabulary decodes to. A grammar_state is one reply's place within a grammar:
 * it says which tokens may come next. */
#ifndef GRAMMAR_GRAMMAR_H
#define GRAMMAR_GRAMMAR_H

#include "marco/scheduler.h"

typedef struct grammar_vocab grammar_vocab;

/* `n_vocab` ids, of which the tokenizer may know fewer; end [n_end]: those that end a reply.
 * Tokens that control the conversation, that have no text or none of their own are never allowed,
 * but the ends are where the text may end. Immutable, shared by threads; it does not keep the
 * tokenizer. */
marco_status grammar_vocab_create(const marco_tokenizer *tokenizer, int32_t n_vocab,
                                  const int32_t *end, int32_t n_end, grammar_vocab **out,
                                  marco_error *error);
void grammar_vocab_free(grammar_vocab *vocab);

typedef struct grammar_state grammar_state;

/* At the beginning of a text. Both outlive the state. */
marco_status grammar_state_create(const marco_grammar *grammar, const grammar_vocab *vocab,
                                  grammar_state **out, marco_error *error);
void grammar_state_free(grammar_state *state);

/* Words of a mask: bit id % 32 of word id / 32. */
static inline size_t grammar_mask_words(int32_t n_vocab)
{
    return ((size_t)n_vocab + 31) / 32;
}

/* The tokens that may come next: mask [grammar_mask_words(n_vocab)], 1 for allowed. Never empty
 * while the state is sound: where nothing else may follow, the ends are allowed. (It is empty where
 * a text that the grammar demands has a character that the vocabulary cannot write.)
 * MARCO_ERROR_UNSUPPORTED where alternatives that begin alike, within one another, leave more
 * readings open than are followed; grammar_state_accept says the same. One thread at a time per
 * state; states of one grammar may be asked at once. */
marco_status grammar_state_mask(grammar_state *state, uint32_t *mask, marco_error *error);

/* Goes on by a token. MARCO_ERROR_ARGUMENT, and the state as it was, where it is not allowed. */
marco_status grammar_state_accept(grammar_state *state, int32_t id, marco_error *error);

/* May the text end here? And may nothing else follow? */
bool grammar_state_may_end(const grammar_state *state);
bool grammar_state_must_end(const grammar_state *state);

#endif
