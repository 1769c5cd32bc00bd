/* jansson with the strictness untrusted files need. */
#ifndef FORMAT_JSON_H
#define FORMAT_JSON_H

#include <jansson.h>

#include "base/text.h"
#include "marco/marco.h"

/* Parses a buffer named `name` in errors: one JSON value, duplicate keys refused, nesting bounded
 * by jansson (2048), NUL in strings kept, integers beyond 64 bits refused. Errors name file, line
 * and column. *out is a new reference. */
marco_status format_json_text(const char *name, const char *text, size_t size, json_t **out,
                              marco_error *error);

/* The same of a whole file of at most `limit` bytes, and of a buffer read as such a file is.
 * Integers beyond 64 bits become reals here: configuration files have them in fields that nobody
 * reads (transformers writes 10^30 for "no maximum length"), and fields that are read as integers
 * refuse them. */
marco_status format_json_file(const char *path, size_t limit, json_t **out, marco_error *error);
marco_status format_json_like_file(const char *name, const char *text, size_t size, json_t **out,
                                   marco_error *error);

/* One of JSON lines: a line's text, without its end. As format_json_text, but integers become
 * reals, which 64 bits do not bound, unless they are to be `exact`; errors name the column alone.
 */
marco_status format_json_line(const char *text, size_t size, bool exact, json_t **out,
                              marco_error *error);

/* A value as JSON, with jansson's flags; base_free. False, and NULL, when out of memory. */
bool format_json_dump(const json_t *value, size_t flags, char **text, size_t *size);

/* What a value is, for messages: "a string", "null". Static. */
const char *format_json_kind(const json_t *value);

/* Fields of an object with their checks. `name` is the file, for messages. An absent key (or JSON
 * null) leaves *out as it is and returns MARCO_OK; a value of the wrong kind or outside
 * [low, high] is MARCO_ERROR_FORMAT naming key and value. */
marco_status format_json_int(const char *name, const json_t *object, const char *key, int64_t low,
                             int64_t high, int64_t *out, marco_error *error);
marco_status format_json_real(const char *name, const json_t *object, const char *key, double low,
                              double high, double *out, marco_error *error);
marco_status format_json_bool(const char *name, const json_t *object, const char *key, bool *out,
                              marco_error *error);
/* Borrowed from the object. */
marco_status format_json_string(const char *name, const json_t *object, const char *key,
                                const char **out, marco_error *error);

/* Appends UTF-8 text as a JSON string, quotes included, as Python's json.dumps(text,
 * ensure_ascii=False) writes it. */
void format_json_escape(base_text *out, const char *text, size_t size);

/* Appends a string, a whole number, true, false or null; nothing for other values, of which there
 * is more than one way to write them. */
void format_json_plain(base_text *out, const json_t *value);

#endif
