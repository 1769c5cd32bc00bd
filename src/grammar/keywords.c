#include <stdio.h>
#include <string.h>

#include "grammar/schema.h"

typedef enum value_kind {
    ANYTHING,
    TEXT,
    FLAG,
    COUNT,
    NUMBER,
    POSITIVE,
    LIST,
    NAMES,   /* strings, all different */
    TYPES,   /* a type or several */
    SCHEMA,  /* an object or a boolean */
    SCHEMAS, /* an array of at least one */
    MAP,     /* an object of schemas */
} value_kind;

typedef struct keyword {
    const char *name;
    value_kind value;
    bool refused;
    uint8_t types; /* of the values it speaks of; 0: all, or none */
} keyword;

enum { NUMBERS = GR_WHOLE | GR_PARTIAL };

static const keyword keywords[] = {
    {"type", TYPES, false, 0},
    {"enum", LIST, false, 0},
    {"const", ANYTHING, false, 0},
    {"$ref", TEXT, false, 0},
    {"allOf", SCHEMAS, false, 0},
    {"anyOf", SCHEMAS, false, 0},
    {"oneOf", SCHEMAS, false, 0},
    {"properties", MAP, false, GR_OBJECT},
    {"required", NAMES, false, GR_OBJECT},
    {"additionalProperties", SCHEMA, false, GR_OBJECT},
    {"patternProperties", MAP, false, GR_OBJECT},
    {"propertyNames", SCHEMA, false, GR_OBJECT},
    {"minProperties", COUNT, false, GR_OBJECT},
    {"maxProperties", COUNT, false, GR_OBJECT},
    {"items", SCHEMA, false, GR_ARRAY},
    {"prefixItems", SCHEMAS, false, GR_ARRAY},
    {"minItems", COUNT, false, GR_ARRAY},
    {"maxItems", COUNT, false, GR_ARRAY},
    {"uniqueItems", FLAG, false, GR_ARRAY},
    {"minLength", COUNT, false, GR_STRING},
    {"maxLength", COUNT, false, GR_STRING},
    {"pattern", TEXT, false, GR_STRING},
    {"format", TEXT, false, GR_STRING},
    {"minimum", NUMBER, false, NUMBERS},
    {"maximum", NUMBER, false, NUMBERS},
    {"exclusiveMinimum", NUMBER, false, NUMBERS},
    {"exclusiveMaximum", NUMBER, false, NUMBERS},
    {"multipleOf", POSITIVE, false, NUMBERS},
    /* Without effect on what is accepted. */
    {"$schema", TEXT, false, 0},
    {"$id", TEXT, false, 0},
    {"$comment", TEXT, false, 0},
    {"$defs", MAP, false, 0},
    {"definitions", MAP, false, 0},
    {"title", TEXT, false, 0},
    {"description", TEXT, false, 0},
    {"default", ANYTHING, false, 0},
    {"examples", LIST, false, 0},
    {"deprecated", FLAG, false, 0},
    {"readOnly", FLAG, false, 0},
    {"writeOnly", FLAG, false, 0},
    {"discriminator", ANYTHING, false, 0}, /* OpenAPI's: says which property tells branches apart */
    {"contentEncoding", TEXT, false, 0},
    {"contentMediaType", TEXT, false, 0},
    /* Of this draft or an earlier one, and not supported. */
    {"not", ANYTHING, true, 0},
    {"if", ANYTHING, true, 0},
    {"then", ANYTHING, true, 0},
    {"else", ANYTHING, true, 0},
    {"contains", ANYTHING, true, 0},
    {"minContains", ANYTHING, true, 0},
    {"maxContains", ANYTHING, true, 0},
    {"dependentRequired", ANYTHING, true, 0},
    {"dependentSchemas", ANYTHING, true, 0},
    {"dependencies", ANYTHING, true, 0},
    {"additionalItems", ANYTHING, true, 0},
    {"unevaluatedItems", ANYTHING, true, 0},
    {"unevaluatedProperties", ANYTHING, true, 0},
    {"contentSchema", ANYTHING, true, 0},
    {"$anchor", ANYTHING, true, 0},
    {"$dynamicRef", ANYTHING, true, 0},
    {"$dynamicAnchor", ANYTHING, true, 0},
    {"$recursiveRef", ANYTHING, true, 0},
    {"$recursiveAnchor", ANYTHING, true, 0},
    {"$vocabulary", ANYTHING, true, 0},
};

static const keyword *find(const char *name)
{
    for (size_t i = 0; i < sizeof keywords / sizeof keywords[0]; i++)
        if (strcmp(keywords[i].name, name) == 0)
            return &keywords[i];
    return NULL;
}

/* ---- types --------------------------------------------------------------------------------- */

static unsigned type_named(const char *name)
{
    static const struct {
        const char *name;
        unsigned types;
    } types[] = {{"null", GR_NULL},   {"boolean", GR_BOOLEAN}, {"integer", GR_WHOLE},
                 {"number", NUMBERS}, {"string", GR_STRING},   {"object", GR_OBJECT},
                 {"array", GR_ARRAY}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(types[i].name, name) == 0)
            return types[i].types;
    return 0;
}

unsigned gr_types(const json_t *type)
{
    if (json_is_string(type))
        return type_named(json_string_value(type));
    unsigned types = 0;
    for (size_t i = 0; i < json_array_size(type); i++)
        types |= gr_types(json_array_get(type, i));
    return types;
}

unsigned gr_types_implied(gr_schemas *s, const json_t *schema)
{
    unsigned types = 0;
    gr_work(s->b, 8 * json_object_size(schema) + 1);
    const char *key;
    json_t *members = (json_t *)schema, *value;
    json_object_foreach(members, key, value)
    {
        const keyword *k = find(key);
        types |= k ? k->types : 0;
    }
    return types;
}

/* ---- values -------------------------------------------------------------------------------- */

static bool is_count(const json_t *v)
{
    return gr_number_integral(v) && json_number_value(v) >= 0 && json_number_value(v) < 9e15;
}

static bool is_schema(const json_t *v)
{
    return json_is_object(v) || json_is_boolean(v);
}

static bool is_types(const json_t *v)
{
    if (json_is_string(v))
        return type_named(json_string_value(v)) != 0;
    bool good = json_array_size(v) > 0 && json_array_size(v) <= 7; /* all different */
    for (size_t i = 0; good && i < json_array_size(v); i++)
        good = json_is_string(json_array_get(v, i)) && gr_types(json_array_get(v, i)) != 0;
    return good;
}

static bool all_of(const json_t *v, bool (*good)(const json_t *))
{
    json_t *members = (json_t *)v, *item;
    const char *key;
    size_t i;
    if (json_is_object(v)) {
        json_object_foreach(members, key, item) if (!good(item)) return false;
        return true;
    }
    json_array_foreach(members, i, item) if (!good(item)) return false;
    return json_is_array(v);
}

static bool is_text(const json_t *v)
{
    return json_is_string(v);
}

/* What the value must be, NULL where it is. */
static const char *wrong_value(value_kind kind, const json_t *v)
{
    switch (kind) {
    case TEXT:
        return json_is_string(v) ? NULL : "a string";
    case FLAG:
        return json_is_boolean(v) ? NULL : "true or false";
    case COUNT:
        return is_count(v) ? NULL : "a whole number that is not negative";
    case NUMBER:
        return json_is_number(v) ? NULL : "a number";
    case POSITIVE:
        return json_is_number(v) && json_number_value(v) > 0 ? NULL : "a number above 0";
    case LIST:
        return json_is_array(v) ? NULL : "an array";
    case NAMES:
        return json_is_array(v) && all_of(v, is_text) ? NULL : "an array of strings";
    case TYPES:
        return is_types(v) ? NULL
                           : "null, boolean, integer, number, string, object, array, or an array "
                             "of these";
    case SCHEMA:
        return is_schema(v) ? NULL : "a schema (an object or a boolean)";
    case SCHEMAS:
        return json_array_size(v) > 0 && all_of(v, is_schema) ? NULL
                                                              : "an array of schemas, not empty";
    case MAP:
        return json_is_object(v) && all_of(v, is_schema) ? NULL : "an object of schemas";
    default:
        return NULL;
    }
}

static void check_keyword(gr_schemas *s, const json_t *schema, const char *key, const json_t *value)
{
    char place[200];
    const keyword *k = find(key);
    const char *wrong = k && !k->refused ? wrong_value(k->value, value) : NULL;
    bool inner_id = k && strcmp(key, "$id") == 0 && schema != s->root;
    bool unique = k && strcmp(key, "uniqueItems") == 0 && json_is_true(value);
    if (unique) {
        const json_t *most = json_object_get(schema, "maxItems");
        unique = !most || !is_count(most) || json_number_value(most) > 1;
    }
    if (k && !k->refused && !wrong && !inner_id && !unique)
        return;
    gr_place(s, schema, place);
    if (!k)
        gr_fail(s->b, MARCO_ERROR_UNSUPPORTED, "%s: '%.60s' is not a keyword of JSON Schema", place,
                key);
    else if (wrong && k->value == SCHEMA && json_is_array(value))
        gr_fail(s->b, MARCO_ERROR_UNSUPPORTED,
                "%s: '%s' must be a schema; an array of them is 'prefixItems'", place, key);
    else if (wrong)
        gr_fail(s->b, MARCO_ERROR_ARGUMENT, "%s: '%s' must be %s", place, key, wrong);
    else
        gr_fail(s->b, MARCO_ERROR_UNSUPPORTED, "%s: the keyword '%s' is not supported%s", place,
                key, inner_id ? " but at the top" : "");
}

void gr_check_keywords(gr_schemas *s, const json_t *schema)
{
    const char *key;
    json_t *members = (json_t *)schema, *value;
    json_object_foreach(members, key, value)
    {
        if (!gr_work(s->b, 8 + json_array_size(value) + 2 * json_object_size(value)))
            return;
        check_keyword(s, schema, key, value);
    }
}

void gr_check_document(gr_schemas *s, const json_t *schema)
{
    const char *key;
    json_t *members = (json_t *)schema, *value, *item;
    if (gr_bad(s->b) || !json_is_object(schema))
        return;
    gr_check_keywords(s, schema);
    json_object_foreach(members, key, value)
    {
        const keyword *k = gr_bad(s->b) ? NULL : find(key);
        const char *inner;
        size_t i;
        if (!k)
            return;
        if (k->value == SCHEMA)
            gr_check_document(s, value);
        if (k->value == SCHEMAS)
            json_array_foreach(value, i, item) gr_check_document(s, item);
        if (k->value == MAP)
            json_object_foreach(value, inner, item) gr_check_document(s, item);
    }
}

/* ---- counts -------------------------------------------------------------------------------- */

int64_t gr_count_most(const gr_list *list, const char *key, int64_t otherwise)
{
    int64_t most = -1;
    for (size_t i = 0; i < list->n; i++) {
        const json_t *v = json_object_get(list->items[i], key);
        if (v && (int64_t)json_number_value(v) > most)
            most = (int64_t)json_number_value(v);
    }
    return most < 0 ? otherwise : most;
}

int64_t gr_count_least(const gr_list *list, const char *key, int64_t otherwise)
{
    int64_t least = -1;
    for (size_t i = 0; i < list->n; i++) {
        const json_t *v = json_object_get(list->items[i], key);
        if (v && (least < 0 || (int64_t)json_number_value(v) < least))
            least = (int64_t)json_number_value(v);
    }
    return least < 0 ? otherwise : least;
}

/* ---- places and references ----------------------------------------------------------------- */

/* Writes the way from `at` to `target` backwards before out[*end]; true where it is within. */
static bool find_place(gr_build *b, const json_t *at, const json_t *target, char *out, size_t *end)
{
    json_t *members = (json_t *)at, *item;
    const char *key;
    size_t i;
    if (at == target)
        return true;
    if (!gr_work(b, 2))
        return false;
    char number[24];
    const char *step = NULL;
    if (json_is_object(at)) {
        json_object_foreach(members, key, item) if (find_place(b, item, target, out, end))
        {
            step = key;
            break;
        }
    } else if (json_is_array(at)) {
        json_array_foreach(members, i, item) if (find_place(b, item, target, out, end))
        {
            snprintf(number, sizeof number, "%zu", i);
            step = number;
            break;
        }
    }
    if (!step)
        return false;
    for (size_t n = strlen(step); n > 0; n--) {
        char c = step[n - 1];
        if (*end < 2)
            break;
        out[--*end] = c == '~' ? '0' : c == '/' ? '1' : c;
        if (c == '~' || c == '/')
            out[--*end] = '~';
    }
    if (*end > 0)
        out[--*end] = '/';
    return true;
}

void gr_place(const gr_schemas *s, const json_t *schema, char out[200])
{
    char path[160];
    size_t end = sizeof path - 1;
    path[end] = '\0';
    if (!gr_bad(s->b)) /* otherwise nobody will read it */
        find_place(s->b, s->root, schema, path, &end);
    const char *way = path + end;
    /* Where it has been cut, it may begin within a character. */
    while (((uint8_t)*way & 0xC0) == 0x80)
        way++;
    snprintf(out, 200, "%.30s%s%s", s->prefix, end < 2 ? "..." : "", way);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

/* The next step of a pointer, after its '/': %XX and ~0, ~1 undone. */
static void add_step(base_text *step, const char *at, size_t size)
{
    base_text_clear(step);
    base_text_add(step, "");
    for (size_t i = 0; i < size; i++) {
        char c = at[i];
        if (c == '%' && i + 2 < size && hex_digit(at[i + 1]) >= 0 && hex_digit(at[i + 2]) >= 0) {
            c = (char)(hex_digit(at[i + 1]) * 16 + hex_digit(at[i + 2]));
            i += 2;
        } else if (c == '~' && i + 1 < size && (at[i + 1] == '0' || at[i + 1] == '1')) {
            c = at[++i] == '0' ? '~' : '/';
        }
        base_text_add_char(step, c);
    }
}

static const json_t *step_into(const json_t *at, const base_text *step)
{
    if (json_is_object(at))
        return json_object_getn(at, step->data, step->size);
    if (!json_is_array(at) || step->size == 0 || step->size > 9)
        return NULL;
    size_t index = 0;
    for (size_t i = 0; i < step->size; i++) {
        if (step->data[i] < '0' || step->data[i] > '9')
            return NULL;
        index = index * 10 + (size_t)(step->data[i] - '0');
    }
    return json_array_get(at, index);
}

const json_t *gr_resolve(gr_schemas *s, const json_t *schema, const char *ref)
{
    char place[200];
    const json_t *at = s->root;
    base_text step = {0};
    if (!gr_work(s->b, 16 + strlen(ref)))
        return NULL;
    bool inside = ref[0] == '#' && (ref[1] == '/' || ref[1] == '\0');
    for (const char *p = ref + 1; inside && at && *p == '/';) {
        size_t size = strcspn(p + 1, "/");
        add_step(&step, p + 1, size);
        at = step.failed ? NULL : step_into(at, &step);
        p += 1 + size;
    }
    bool failed = step.failed;
    base_text_free(&step);
    if (inside && at && is_schema(at))
        return at;
    gr_place(s, schema, place);
    if (failed)
        s->b->status = base_fail_memory(s->b->error, strlen(ref), "a reference");
    else if (!inside)
        gr_fail(s->b, MARCO_ERROR_UNSUPPORTED,
                "%s: '$ref' to '%.100s': only references within the document, #/..., are supported",
                place, ref);
    else
        gr_fail(s->b, MARCO_ERROR_ARGUMENT, "%s: '$ref' to '%.100s', where there is no schema",
                place, ref);
    return NULL;
}
