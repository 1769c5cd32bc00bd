/* Inside the tokenizer room: what the readers and writers of specs share. */
#ifndef TOKENIZER_SPEC_BUILD_H
#define TOKENIZER_SPEC_BUILD_H

#include "tokenizer/spec.h"

/* Far beyond any tokenizer known; what they multiply to still fits memory. */
enum {
    TOK_MAX_TOKENS = 1 << 24,
    TOK_MAX_ADDED = 1 << 16,
    TOK_MAX_ADDED_SIZE = 4096,
};

/* The pattern of GPT-2, and of ByteLevel with use_regex. */
extern const char tok_pattern_gpt2[];

/* Plain ChatML, as chat_templates.c recognises it. */
extern const char tok_chatml[];

/* An empty spec without special ids; NULL when out of memory. */
tok_spec *tok_spec_create(const char *source);

bool tok_spec_add_pattern(tok_spec *spec, const char *pattern);

/* Sets patterns, nfc and pre by GGUF's name for them. False: out of memory, or no such name
 * (*known tells). */
bool tok_spec_use_pre(tok_spec *spec, const char *name, size_t size, bool *known);

/* The end of reading: sorts the added tokens and checks that ids and texts are unique, finds
 * GGUF's name for what there is. */
marco_status tok_spec_finish(tok_spec *spec, marco_error *error);

/* The text of an id as files show it, NULL for a hole. *added is NULL for an ordinary token. */
const char *tok_spec_text(const tok_spec *spec, int32_t id, const tok_added **added);

/* True where every single byte has a token. */
bool tok_spec_has_all_bytes(const tok_spec *spec);

#endif
