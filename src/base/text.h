/* A growable byte string. The first failed allocation is remembered: callers append freely and
 * ask once, at the end. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "marco/marco.h"

typedef struct base_text {
    char *data; /* NUL-terminated once anything was appended; NULL before */
    size_t size, capacity;
    bool failed;
} base_text; /* all zero is the empty text */

void base_text_add(base_text *text, const char *s); /* NUL-terminated */
void base_text_add_n(base_text *text, const char *bytes, size_t size);
void base_text_add_char(base_text *text, char c);
void base_text_printf(base_text *text, const char *format, ...) MARCO_PRINTF(2, 3);
void base_text_clear(base_text *text); /* keeps the memory */
void base_text_free(base_text *text);

/* Hands the string over (never NULL on success, "" when empty) and empties the text; NULL when
 * anything failed, with everything released. */
char *base_text_take(base_text *text, size_t *size);

/* A double in the fewest digits that give it back, with a point whatever the locale. */
void base_shortest(double value, char out[32]);

/* Nothing but ASCII's white space. */
bool base_is_blank(const char *s, size_t size);

/* ---- UTF-8 --------------------------------------------------------------------------------- */

/* Length 1 to 4 of the well-formed character at s (Unicode 15, table 3-7), its code point in *cp;
 * 0 where s[0..size) does not begin with one. */
size_t base_utf8_decode(const char *s, size_t size, uint32_t *cp);

/* Length of the beginning of s[0..size), size >= 1, that could still become a character with more
 * bytes (1 to 3), 0 where it is whole or can never become one. */
size_t base_utf8_partial(const char *s, size_t size);

/* Writes 1 to 4 bytes; returns how many, 0 for surrogates and values above 0x10FFFF. */
size_t base_utf8_encode(uint32_t cp, char out[4]);

/* Offset of the first byte that is not part of a well-formed character; size when all is well. */
size_t base_utf8_check(const char *s, size_t size);

/* Bytes of the byte order mark at the beginning of a file's text: 3, or 0 where there is none. */
size_t base_utf8_mark(const char *s, size_t size);

/* Puts a '?' for every byte of a NUL-terminated text that is no part of a well-formed character. */
void base_utf8_repair(char *s);

#endif
