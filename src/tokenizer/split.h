/* Pre-tokenization: text cut into the pieces that are merged apart from one another. */
#ifndef TOKENIZER_SPLIT_H
#define TOKENIZER_SPLIT_H

#include "tokenizer/spec.h"

typedef struct tok_split tok_split;

/* Takes what it needs out of the spec. */
marco_status tok_split_create(const tok_spec *spec, tok_split **out, marco_error *error);
void tok_split_free(tok_split *split);

/* What one call needs besides: a tok_split is shared by threads, this is not. */
typedef struct tok_split_work tok_split_work;

marco_status tok_split_work_create(const tok_split *split, tok_split_work **out,
                                   marco_error *error);
void tok_split_work_free(tok_split_work *work);

/* Gets the pieces in order; never empty. False: out of memory. */
typedef bool (*tok_piece_fn)(void *user, const char *piece, size_t size);

/* The text must be well-formed. */
marco_status tok_split_run(tok_split_work *work, const char *text, size_t size, tok_piece_fn fn,
                           void *user, marco_error *error);

#endif
