/* jansson with the strictness untrusted files need. */
#ifndef FORMAT_JSON_H
#define FORMAT_JSON_H

#include <jansson.h>

#include "marco/marco.h"

/* Parses a whole file (at most `limit` bytes) or a buffer named `name` in errors: one JSON value,
 * duplicate keys refused, nesting bounded by jansson (2048), NUL in strings kept. Errors name
 * file, line and column. *out is a new reference. */
marco_status format_json_file(const char *path, size_t limit, json_t **out, marco_error *error);
marco_status format_json_text(const char *name, const char *text, size_t size, json_t **out,
                              marco_error *error);

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

#endif
