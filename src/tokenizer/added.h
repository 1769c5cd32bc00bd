/* Added tokens found in text: the longest at the leftmost place, as HF's AddedVocabulary. */
#ifndef TOKENIZER_ADDED_H
#define TOKENIZER_ADDED_H

#include "tokenizer/nfc.h"
#include "tokenizer/spec.h"

/* A set of texts. */
typedef struct tok_trie tok_trie;

bool tok_trie_empty(const tok_trie *trie);

/* The first occurrence that begins at or after `from` and ends at or before `to`; -1 where there
 * is none, otherwise its index in spec->added, with *start and *stop. */
int32_t tok_trie_find(const tok_trie *trie, const char *text, size_t from, size_t to, size_t *start,
                      size_t *stop);

typedef struct tok_added_set {
    tok_trie *raw;        /* those looked for in the text as it comes */
    tok_trie *normalized; /* those looked for in the normalised text, themselves normalised */
} tok_added_set;

/* nfc is NULL for a tokenizer without normaliser. */
marco_status tok_added_create(const tok_spec *spec, const tok_nfc *nfc, tok_added_set **out,
                              marco_error *error);
void tok_added_free(tok_added_set *set);

/* The white space (Unicode's White_Space) that ends text[from, to), or begins it: where it begins,
 * or ends. */
size_t tok_space_before(const char *text, size_t from, size_t to);
size_t tok_space_after(const char *text, size_t from, size_t to);

/* True where text[0, size) ends, or begins, with a word character (UTS #18's \w). */
bool tok_word_before(const char *text, size_t size);
bool tok_word_after(const char *text, size_t size);

#endif
