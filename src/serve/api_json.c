#include "serve/api_json.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "format/json.h"

bool api_refuse(api_refusal *refusal, const char *param, const char *code, const char *format, ...)
{
    refusal->status = 400;
    refusal->code = code;
    snprintf(refusal->param, sizeof refusal->param, "%s", param ? param : "");
    va_list args;
    va_start(args, format);
    vsnprintf(refusal->message, sizeof refusal->message, format, args);
    va_end(args);
    base_utf8_repair(refusal->param); /* what a client sent may have been cut in a character */
    base_utf8_repair(refusal->message);
    return false;
}

bool api_refuse_memory(api_refusal *refusal)
{
    api_refuse(refusal, NULL, NULL, "the server is out of memory: try again later");
    refusal->status = 503;
    return false;
}

/* ---- the whole ----------------------------------------------------------------------------- */

typedef struct shape {
    size_t depth, values;
} shape;

/* How deep brackets outside of strings lie, and how much the values will take; stops at more than
 * is allowed. What else may be wrong with the text is left to the parser. */
static shape measure(const char *text, size_t size)
{
    enum { OBJECT_VALUES = 8 }; /* even an empty one has a table */
    shape most = {0};
    size_t depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < size && most.depth <= API_MAX_DEPTH && most.values <= API_MAX_VALUES;
         i++) {
        char c = text[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '[' || c == '{') {
            depth++;
            most.depth = depth > most.depth ? depth : most.depth;
            most.values += c == '{' ? OBJECT_VALUES : 1;
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        } else if (c == ',' || c == ':') {
            most.values++;
        }
    }
    return most;
}

bool api_parse_body(const char *text, size_t size, json_t **out, api_refusal *refusal)
{
    *out = NULL;
    if (size == 0)
        return api_refuse(refusal, NULL, NULL,
                          "the request has no body: a JSON object belongs there");
    shape found = measure(text, size);
    if (found.depth > API_MAX_DEPTH)
        return api_refuse(refusal, NULL, NULL,
                          "the request body has arrays and objects more than %d deep in each other",
                          API_MAX_DEPTH);
    if (found.values > API_MAX_VALUES)
        return api_refuse(refusal, NULL, NULL,
                          "the request body has more than %d values (a member of an object counts "
                          "as two, an object as eight): send several requests",
                          API_MAX_VALUES);
    marco_error error = {0};
    marco_status status = format_json_text("the request body", text, size, out, &error);
    if (status == MARCO_ERROR_MEMORY)
        return api_refuse_memory(refusal);
    if (status)
        return api_refuse(refusal, NULL, NULL, "%s", error.message);
    if (json_is_object(*out))
        return true;
    json_decref(*out);
    *out = NULL;
    return api_refuse(refusal, NULL, NULL, "the request body is not a JSON object");
}

/* ---- members ------------------------------------------------------------------------------- */

/* The number of letters to change, add, leave out or swap with the next; more than 3 is 4. */
static size_t distance(const char *a, const char *b)
{
    enum { MOST = 40 };
    size_t n = strlen(a), m = strlen(b), rows[3][MOST + 1];
    if (n > MOST || m > MOST || n > m + 3 || m > n + 3)
        return 4;
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *now = rows[i % 3], *last = rows[(i - 1) % 3], *before = rows[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
            best = last[j] + 1 < best ? last[j] + 1 : best;
            best = now[j - 1] + 1 < best ? now[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    size_t d = rows[n % 3][m];
    return d < 4 ? d : 4;
}

static const char *nearest(const char *key, const api_member *members)
{
    const char *name = NULL;
    size_t best = 1 + (strlen(key) >= 6);
    for (const api_member *member = members; member->name; member++) {
        size_t d = member->kind == API_REFUSED ? 4 : distance(key, member->name);
        if (d <= best && (!name || d < best)) {
            best = d;
            name = member->name;
        }
    }
    return name;
}

static bool refuse_unknown(const api_object *object, const char *key, const api_member *members)
{
    char param[120];
    snprintf(param, sizeof param, "%s%.60s", object->path, key);
    const char *meant = nearest(key, members);
    if (meant)
        return api_refuse(object->refusal, param, "unknown_parameter",
                          "there is no parameter \"%s\": did you mean \"%s\"?", param, meant);
    return api_refuse(object->refusal, param, "unknown_parameter",
                      "there is no parameter \"%s\" here", param);
}

static bool is_among(const json_t *value, const char *choices, bool *memory)
{
    char *text = api_dump(value);
    *memory = !text;
    bool found = false;
    size_t size = text ? strlen(text) : 0;
    for (const char *at = choices; text && !found; at = strchr(at, '|') + 1) {
        size_t n = strcspn(at, "|");
        found = n == size && memcmp(at, text, n) == 0;
        if (!at[n])
            break;
    }
    base_free(text);
    return found;
}

static bool check_strings(const api_object *object, const char *key, const json_t *value)
{
    const char *name;
    json_t *item;
    if (!json_is_object(value))
        return api_wrong_kind(object, key, "an object");
    if (json_object_size(value) > API_MAX_STRINGS)
        return api_refuse(object->refusal, key, "invalid_value",
                          "\"%s\" has %zu members: at most %d are allowed", key,
                          json_object_size(value), API_MAX_STRINGS);
    json_object_foreach((json_t *)value, name, item)
    {
        if (!json_is_string(item))
            return api_wrong_kind(object, key, "an object of strings");
    }
    return true;
}

static bool check_member(const api_object *object, const api_member *member, const json_t *value)
{
    char param[120];
    bool memory = false;
    snprintf(param, sizeof param, "%s%s", object->path, member->name);
    switch (member->kind) {
    case API_READ:
        return true;
    case API_ANY_STRING:
        return json_is_string(value) || api_wrong_kind(object, member->name, "a string");
    case API_ANY_STRINGS:
        return check_strings(object, member->name, value);
    case API_ANY_OBJECT:
        return json_is_object(value) || api_wrong_kind(object, member->name, "an object");
    case API_ANY_INTEGER:
        return json_is_integer(value) || api_wrong_kind(object, member->name, "an integer");
    case API_ONLY:
        if (is_among(value, member->note, &memory))
            return true;
        return memory ? api_refuse_memory(object->refusal)
                      : api_refuse(object->refusal, param, "unsupported_value",
                                   "\"%s\" is supported with no other value than %s", param,
                                   member->note);
    case API_REFUSED:
        break;
    }
    return api_refuse(object->refusal, param, "unsupported_parameter",
                      "\"%s\" is not supported: %s", param, member->note);
}

bool api_check_members(const api_object *object, const api_member *members)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object->json, key, value)
    {
        const api_member *member = members;
        while (member->name && strcmp(member->name, key) != 0)
            member++;
        if (!member->name)
            return refuse_unknown(object, key, members);
        if (!json_is_null(value) && !check_member(object, member, value))
            return false;
    }
    return true;
}

/* ---- values -------------------------------------------------------------------------------- */

const json_t *api_get(const api_object *object, const char *key)
{
    const json_t *value = json_object_get(object->json, key);
    return json_is_null(value) ? NULL : value;
}

bool api_wrong_kind(const api_object *object, const char *key, const char *wanted)
{
    char param[120];
    const json_t *value = json_object_get(object->json, key);
    snprintf(param, sizeof param, "%s%s", object->path, key);
    if (!value || json_is_null(value))
        return api_refuse(object->refusal, param, "missing_required_parameter",
                          "\"%s\" is missing: %s belongs there", param, wanted);
    return api_refuse(object->refusal, param, "invalid_type", "\"%s\" is %s where %s belongs",
                      param, format_json_kind(value), wanted);
}

bool api_refuse_member(const api_object *object, const char *key, const char *why)
{
    char param[120];
    snprintf(param, sizeof param, "%s%s", object->path, key);
    return api_refuse(object->refusal, param, "invalid_value", "\"%s\" %s", param, why);
}

bool api_get_int(const api_object *object, const char *key, int64_t low, int64_t high, int64_t *out)
{
    const json_t *value = api_get(object, key);
    if (!value)
        return true;
    if (!json_is_integer(value))
        return api_wrong_kind(object, key, "an integer");
    int64_t number = json_integer_value(value);
    char param[120];
    snprintf(param, sizeof param, "%s%s", object->path, key);
    if (number < low || number > high)
        return api_refuse(object->refusal, param, "invalid_value",
                          "\"%s\" is %lld, outside the allowed %lld to %lld", param,
                          (long long)number, (long long)low, (long long)high);
    *out = number;
    return true;
}

bool api_get_real(const api_object *object, const char *key, double low, double high, double *out)
{
    const json_t *value = api_get(object, key);
    if (!value)
        return true;
    if (!json_is_number(value))
        return api_wrong_kind(object, key, "a number");
    double number = json_number_value(value);
    char param[120];
    snprintf(param, sizeof param, "%s%s", object->path, key);
    if (!(number >= low && number <= high))
        return api_refuse(object->refusal, param, "invalid_value",
                          "\"%s\" is %g, outside the allowed %g to %g", param, number, low, high);
    *out = number;
    return true;
}

bool api_get_bool(const api_object *object, const char *key, bool *out)
{
    const json_t *value = api_get(object, key);
    if (!value)
        return true;
    if (!json_is_boolean(value))
        return api_wrong_kind(object, key, "true or false");
    *out = json_is_true(value);
    return true;
}

bool api_get_string(const api_object *object, const char *key, size_t most, const char **out)
{
    const json_t *value = api_get(object, key);
    if (!value)
        return true;
    if (!json_is_string(value))
        return api_wrong_kind(object, key, "a string");
    size_t size = json_string_length(value);
    char param[120];
    snprintf(param, sizeof param, "%s%s", object->path, key);
    if (size < 1 || size > most)
        return api_refuse(object->refusal, param, "invalid_value",
                          "\"%s\" has %zu bytes: 1 to %zu are allowed", param, size, most);
    if (strlen(json_string_value(value)) != size)
        return api_refuse(object->refusal, param, "invalid_value", "\"%s\" holds a NUL character",
                          param);
    *out = json_string_value(value);
    return true;
}

static int append(const char *bytes, size_t size, void *user)
{
    base_text *text = user;
    base_text_add_n(text, bytes, size);
    return text->failed ? -1 : 0;
}

char *api_dump(const json_t *value)
{
    base_text text = {0};
    if (json_dump_callback(value, append, &text, JSON_COMPACT | JSON_ENCODE_ANY) != 0)
        text.failed = true;
    size_t size;
    return base_text_take(&text, &size);
}
