/* GPT-2's spelling of bytes: byte-level vocabularies write every byte as one printable character
 * (0x20 as U+0120), so that a token is always valid text ("bytes_to_unicode" in openai/gpt-2). */
#ifndef TOKENIZER_BYTES_H
#define TOKENIZER_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Writes the spelling of `byte` (1 or 2 bytes of UTF-8, NUL-terminated). */
size_t tok_byte_spell(uint8_t byte, char out[3]);

/* The bytes that `text` spells into out (room for `size`); *n their number. False where it has a
 * character that spells no byte. */
bool tok_bytes_unspell(const char *text, size_t size, char *out, size_t *n);

#endif
