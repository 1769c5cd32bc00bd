/* Reading requests: every member is known, or refused by name. */
#ifndef SERVE_API_JSON_H
#define SERVE_API_JSON_H

#include <jansson.h>

#include "base/text.h"
#include "marco/marco.h"

/* Why a request is not served, for serve_refuse. */
typedef struct api_refusal {
    int status;       /* of HTTP */
    const char *code; /* static, or NULL */
    char param[120];  /* "" for none */
    char message[768];
} api_refusal;

/* Fills in a 400 and returns false, for functions that return whether all was well. */
bool api_refuse(api_refusal *refusal, const char *param, const char *code, const char *format, ...)
    MARCO_PRINTF(4, 5);

/* 503. */
bool api_refuse_memory(api_refusal *refusal);

enum {
    API_MAX_DEPTH = 64, /* arrays and objects of a request in each other */
    /* All of them; in memory some 64 bytes each, which many small ones make far more than the text
     * is. A member of an object counts as two, an object as eight. */
    API_MAX_VALUES = 1 << 20,
    API_MAX_STRINGS = 16, /* members of API_ANY_STRINGS */
};

/* A body: one JSON object, valid UTF-8, no member twice, within these bounds. *out is a new
 * reference. */
bool api_parse_body(const char *text, size_t size, json_t **out, api_refusal *refusal);

/* A part of a request, and where it stands in it: "" for the whole, else "messages[2].". */
typedef struct api_object {
    const json_t *json;
    const char *path;
    api_refusal *refusal;
} api_object;

typedef enum api_member_kind {
    API_READ = 0,    /* the caller reads it */
    API_ANY_STRING,  /* a string without effect */
    API_ANY_STRINGS, /* an object of strings without effect */
    API_ANY_OBJECT,  /* an object without effect */
    API_ANY_INTEGER, /* an integer without effect */
    API_ONLY,        /* only the values of `note`, JSON texts with | between: they change nothing */
    API_REFUSED,     /* not supported: `note` says why */
} api_member_kind;

typedef struct api_member {
    const char *name;
    api_member_kind kind;
    const char *note;
} api_member;

/* Checks an object's members against a table that ends with a NULL name. null is taken as
 * absent everywhere. */
bool api_check_members(const api_object *object, const api_member *members);

/* A member, NULL where it is absent or null. */
const json_t *api_get(const api_object *object, const char *key);

/* These leave *out as it was where the member is absent or null. */
bool api_get_int(const api_object *object, const char *key, int64_t low, int64_t high,
                 int64_t *out);
bool api_get_real(const api_object *object, const char *key, double low, double high, double *out);
bool api_get_bool(const api_object *object, const char *key, bool *out);
/* Of 1 to `most` bytes without a NUL. Lives as long as the JSON. */
bool api_get_string(const api_object *object, const char *key, size_t most, const char **out);

/* "is an array" and so on is refused: `wanted` belongs there. Returns false. */
bool api_wrong_kind(const api_object *object, const char *key, const char *wanted);

/* "messages[2].name" and `why`, which goes on with "is" or the like. Returns false. */
bool api_refuse_member(const api_object *object, const char *key, const char *why);

/* The JSON text of a value, on one line, to be released with base_free; NULL when out of memory. */
char *api_dump(const json_t *value);

#endif
