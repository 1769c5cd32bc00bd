#include "format/json.h"

#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

marco_status format_json_text(const char *name, const char *text, size_t size, json_t **out,
                              marco_error *error)
{
    json_error_t problem;
    json_t *value =
        json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &problem);
    if (!value) {
        if (json_error_code(&problem) == json_error_out_of_memory)
            return base_fail_memory(error, size, name);
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: line %d, column %d: not valid JSON: %s",
                         name, problem.line, problem.column, problem.text);
    }
    *out = value;
    return MARCO_OK;
}

marco_status format_json_file(const char *path, size_t limit, json_t **out, marco_error *error)
{
    char *text;
    size_t size;
    marco_status status = base_file_slurp(path, limit, &text, &size, error);
    if (status)
        return status;
    status = format_json_text(path, text, size, out, error);
    base_free(text);
    return status;
}

static const char *kind_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction or exponent";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        break;
    }
    return "null";
}

static marco_status wrong_kind(const char *name, const char *key, const json_t *value,
                               const char *wanted, marco_error *error)
{
    return base_fail(error, MARCO_ERROR_FORMAT, "%s: \"%s\" is %s where %s belongs", name, key,
                     kind_name(value), wanted);
}

/* *value is NULL where the key is absent or null. */
static marco_status field(const char *name, const json_t *object, const char *key,
                          const json_t **value, marco_error *error)
{
    if (!json_is_object(object))
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: \"%s\" was looked for in %s where an object belongs", name, key,
                         object ? kind_name(object) : "nothing");
    *value = json_object_get(object, key);
    if (json_is_null(*value))
        *value = NULL;
    return MARCO_OK;
}

marco_status format_json_int(const char *name, const json_t *object, const char *key, int64_t low,
                             int64_t high, int64_t *out, marco_error *error)
{
    const json_t *value;
    marco_status status = field(name, object, key, &value, error);
    if (status || !value)
        return status;
    if (!json_is_integer(value))
        return wrong_kind(name, key, value, "an integer", error);
    int64_t number = json_integer_value(value);
    if (number < low || number > high)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: \"%s\" is %lld, outside the allowed %lld to %lld", name, key,
                         (long long)number, (long long)low, (long long)high);
    *out = number;
    return MARCO_OK;
}

marco_status format_json_real(const char *name, const json_t *object, const char *key, double low,
                              double high, double *out, marco_error *error)
{
    const json_t *value;
    marco_status status = field(name, object, key, &value, error);
    if (status || !value)
        return status;
    if (!json_is_number(value))
        return wrong_kind(name, key, value, "a number", error);
    double number = json_number_value(value);
    if (!(number >= low && number <= high))
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: \"%s\" is %g, outside the allowed %g to %g", name, key, number, low,
                         high);
    *out = number;
    return MARCO_OK;
}

marco_status format_json_bool(const char *name, const json_t *object, const char *key, bool *out,
                              marco_error *error)
{
    const json_t *value;
    marco_status status = field(name, object, key, &value, error);
    if (status || !value)
        return status;
    if (!json_is_boolean(value))
        return wrong_kind(name, key, value, "true or false", error);
    *out = json_is_true(value);
    return MARCO_OK;
}

marco_status format_json_string(const char *name, const json_t *object, const char *key,
                                const char **out, marco_error *error)
{
    const json_t *value;
    marco_status status = field(name, object, key, &value, error);
    if (status || !value)
        return status;
    if (!json_is_string(value))
        return wrong_kind(name, key, value, "a string", error);
    /* The caller gets a C string: what follows a NUL would be lost without a word. */
    const char *text = json_string_value(value);
    if (strlen(text) != json_string_length(value))
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: \"%s\" holds a NUL character", name, key);
    *out = text;
    return MARCO_OK;
}
