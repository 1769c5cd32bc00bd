/* Texts in and out of files, and what JSON asks of them. */
#ifndef CLI_TEXT_H
#define CLI_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "command.h"

typedef struct text {
    char *data; /* NUL-terminated; free() */
    size_t size;
} text;

/* Appends; false when out of memory, the text then being as it was. */
bool text_append(text *t, const char *data, size_t size);

/* The whole of a file, "-" being standard input. Returns an exit status, errors reported. */
int text_read(const command *self, const char *path, text *out);

/* Replaces a file by the text: it appears whole or not at all. */
int text_write(const command *self, const char *path, const char *data, size_t size);

/* The prompt, of at most one source: TEXT, a file, or else standard input. One newline at the end
 * of a file is not part of it. */
int text_prompt(const command *self, const char *given, const char *path, text *out);

/* Where the first byte is that does not belong to a UTF-8 character, or `size`. */
size_t utf8_invalid(const char *data, size_t size);

/* A JSON string; bytes that are not UTF-8 become U+FFFD. NULL when out of memory. */
json_t *json_text(const char *data, size_t size);

/* Prints a value on a line of its own and releases it. A NULL value is reported as running out of
 * memory. Returns an exit status. */
int json_line(const command *self, json_t *value);

#endif
