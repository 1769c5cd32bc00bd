#include "format/json.h"

#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

/* NULL with *problem filled in. */
static json_t *parse_as(const char *text, size_t size, size_t flags, json_error_t *problem)
{
    return json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL | flags,
                      problem);
}

static json_t *parse(const char *text, size_t size, json_error_t *problem)
{
    return parse_as(text, size, 0, problem);
}

/* jansson says what is wrong with a text; where it says nothing, memory ran out. */
static bool is_memory(const json_error_t *problem)
{
    return json_error_code(problem) == json_error_out_of_memory || !problem->text[0];
}

static marco_status give(const char *name, size_t size, json_t *value, const json_error_t *problem,
                         json_t **out, marco_error *error)
{
    if (value) {
        *out = value;
        return MARCO_OK;
    }
    if (is_memory(problem))
        return base_fail_memory(error, size, name);
    if (json_error_code(problem) == json_error_numeric_overflow)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: line %d, column %d: a number out of the supported range: %s; whole "
                         "numbers have 64 bits (write larger ones with an exponent, as 1e20) and "
                         "others end at 1.8e308",
                         name, problem->line, problem->column, problem->text);
    return base_fail(error, MARCO_ERROR_FORMAT, "%s: line %d, column %d: not valid JSON: %s", name,
                     problem->line, problem->column, problem->text);
}

marco_status format_json_text(const char *name, const char *text, size_t size, json_t **out,
                              marco_error *error)
{
    json_error_t problem;
    json_t *value = parse(text, size, &problem);
    return give(name, size, value, &problem, out, error);
}

marco_status format_json_line(const char *text, size_t size, bool exact, json_t **out,
                              marco_error *error)
{
    json_error_t problem;
    *out = parse_as(text, size, exact ? 0 : JSON_DECODE_INT_AS_REAL, &problem);
    if (*out)
        return MARCO_OK;
    if (is_memory(&problem))
        return base_fail_memory(error, size, "a line of JSON");
    return base_fail(error, MARCO_ERROR_FORMAT, "column %d: not valid JSON: %s", problem.column,
                     problem.text);
}

static int append(const char *buffer, size_t size, void *user)
{
    base_text_add_n(user, buffer, size);
    return 0;
}

bool format_json_dump(const json_t *value, size_t flags, char **text, size_t *size)
{
    base_text out = {0};
    bool dumped = json_dump_callback(value, append, &out, flags | JSON_ENCODE_ANY) == 0;
    *text = base_text_take(&out, size);
    if (*text && !dumped) {
        base_free(*text);
        *text = NULL;
    }
    return *text != NULL;
}

/* ---- integers beyond 64 bits --------------------------------------------------------------- */

static bool is_beyond(const char *digits, size_t n, bool negative)
{
    uint64_t magnitude = 0, most = (uint64_t)INT64_MAX + negative;
    for (size_t i = 0; i < n; i++)
        if (__builtin_mul_overflow(magnitude, 10, &magnitude) ||
            __builtin_add_overflow(magnitude, (uint64_t)(digits[i] - '0'), &magnitude) ||
            magnitude > most)
            return true;
    return false;
}

/* The end of the string that begins at text[at]. */
static size_t string_end(const char *text, size_t size, size_t at)
{
    for (at++; at < size && text[at] != '"'; at++)
        at += text[at] == '\\';
    return at < size ? at + 1 : size;
}

/* Appends the text with an exponent after every integer that 64 bits do not hold, which makes a
 * real of it and changes nothing else. */
static void widen(const char *text, size_t size, base_text *out)
{
    size_t copied = 0;
    for (size_t at = 0; at < size;) {
        if (text[at] == '"') {
            at = string_end(text, size, at);
            continue;
        }
        bool negative = text[at] == '-';
        size_t start = at + negative, end = start;
        while (end < size && text[end] >= '0' && text[end] <= '9')
            end++;
        if (end == start) {
            at++;
            continue;
        }
        bool whole = end == size || !strchr(".eE", text[end]);
        at = end;
        while (at < size && strchr("+-.eE0123456789", text[at]))
            at++;
        if (whole && is_beyond(text + start, end - start, negative)) {
            base_text_add_n(out, text + copied, end - copied);
            base_text_add(out, "e0");
            copied = end;
        }
    }
    base_text_add_n(out, text + copied, size - copied);
}

marco_status format_json_like_file(const char *name, const char *text, size_t size, json_t **out,
                                   marco_error *error)
{
    json_error_t problem;
    json_t *value = parse(text, size, &problem);
    base_text wide = {0};
    if (!value && json_error_code(&problem) == json_error_numeric_overflow) {
        widen(text, size, &wide);
        bool failed = wide.failed;
        if (!failed)
            value = parse(wide.data, wide.size, &problem);
        base_text_free(&wide);
        if (failed)
            return base_fail_memory(error, size, name);
    }
    return give(name, size, value, &problem, out, error);
}

marco_status format_json_file(const char *path, size_t limit, json_t **out, marco_error *error)
{
    char *text;
    size_t size;
    marco_status status = base_file_slurp(path, limit, &text, &size, error);
    if (status)
        return status;
    status = format_json_like_file(path, text, size, out, error);
    base_free(text);
    return status;
}

const char *format_json_kind(const json_t *value)
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
        return "a number with a fraction, an exponent or more than 64 bits";
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
                     format_json_kind(value), wanted);
}

/* *value is NULL where the key is absent or null. */
static marco_status field(const char *name, const json_t *object, const char *key,
                          const json_t **value, marco_error *error)
{
    if (!json_is_object(object))
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: \"%s\" was looked for in %s where an object belongs", name, key,
                         object ? format_json_kind(object) : "nothing");
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

void format_json_escape(base_text *out, const char *text, size_t size)
{
    static const char names[] = "\b\t\n\f\r\"\\", letters[] = "btnfr\"\\";
    size_t copied = 0;
    base_text_add_char(out, '"');
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        base_text_add_n(out, text + copied, i - copied);
        copied = i + 1;
        const char *name = memchr(names, c, sizeof names - 1);
        if (name)
            base_text_printf(out, "\\%c", letters[name - names]);
        else
            base_text_printf(out, "\\u%04x", c);
    }
    if (size > copied)
        base_text_add_n(out, text + copied, size - copied);
    base_text_add_char(out, '"');
}

void format_json_plain(base_text *out, const json_t *value)
{
    if (json_is_string(value))
        format_json_escape(out, json_string_value(value), json_string_length(value));
    else if (json_is_integer(value))
        base_text_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_boolean(value))
        base_text_add(out, json_is_true(value) ? "true" : "false");
    else if (json_is_null(value))
        base_text_add(out, "null");
}
