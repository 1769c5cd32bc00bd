/* JSON values as they stand in a schema's enum. */
#include <math.h>

#include "grammar/internal.h"

int32_t gr_separator(gr_nfa *nfa, int32_t from, char c)
{
    int32_t after = gr_nfa_bytes(nfa, from, &c, 1);
    int32_t to = gr_nfa_bytes(nfa, after, " ", 1);
    gr_nfa_empty(nfa, after, to);
    return to;
}

static int32_t add_text(gr_nfa *nfa, int32_t from, base_text *text)
{
    if (text->failed && !gr_bad(nfa->b))
        nfa->b->status = base_fail_memory(nfa->b->error, text->capacity, "a grammar");
    else
        from = gr_nfa_bytes(nfa, from, text->data, text->size);
    base_text_free(text);
    return from;
}

static int32_t add_string(gr_nfa *nfa, int32_t from, const char *string, size_t size)
{
    base_text text = {0};
    base_text_add_char(&text, '"');
    gr_escape(&text, string, size);
    base_text_add_char(&text, '"');
    return add_text(nfa, from, &text);
}

static int32_t add_number(gr_nfa *nfa, int32_t from, const json_t *value)
{
    base_text text = {0};
    if (json_is_integer(value)) {
        base_text_printf(&text, "%lld", (long long)json_integer_value(value));
        return add_text(nfa, from, &text);
    }
    char digits[32];
    base_shortest(json_real_value(value), digits);
    base_text_add(&text, digits);
    return add_text(nfa, from, &text);
}

static int32_t add_object(gr_nfa *nfa, int32_t from, const json_t *value, int depth)
{
    json_t *members = (json_t *)value, *member;
    const char *key;
    size_t size;
    bool first = true;
    from = gr_nfa_bytes(nfa, from, "{", 1);
    json_object_keylen_foreach(members, key, size, member)
    {
        if (!first)
            from = gr_separator(nfa, from, ',');
        first = false;
        from = gr_separator(nfa, add_string(nfa, from, key, size), ':');
        from = gr_value_add(nfa, from, member, depth + 1);
    }
    return gr_nfa_bytes(nfa, from, "}", 1);
}

int32_t gr_value_add(gr_nfa *nfa, int32_t from, const json_t *value, int depth)
{
    if (!gr_work(nfa->b, json_is_real(value) ? 64 : 4))
        return from;
    if (depth > GR_MAX_NESTING) {
        gr_fail(nfa->b, MARCO_ERROR_UNSUPPORTED,
                "a value of the schema's is nested more than %d "
                "deep",
                GR_MAX_NESTING);
        return from;
    }
    switch (json_typeof(value)) {
    case JSON_NULL:
        return gr_nfa_bytes(nfa, from, "null", 4);
    case JSON_TRUE:
        return gr_nfa_bytes(nfa, from, "true", 4);
    case JSON_FALSE:
        return gr_nfa_bytes(nfa, from, "false", 5);
    case JSON_STRING:
        return add_string(nfa, from, json_string_value(value), json_string_length(value));
    case JSON_OBJECT:
        return add_object(nfa, from, value, depth);
    case JSON_ARRAY:
        from = gr_nfa_bytes(nfa, from, "[", 1);
        for (size_t i = 0; i < json_array_size(value); i++) {
            if (i > 0)
                from = gr_separator(nfa, from, ',');
            from = gr_value_add(nfa, from, json_array_get(value, i), depth + 1);
        }
        return gr_nfa_bytes(nfa, from, "]", 1);
    default:
        return add_number(nfa, from, value);
    }
}

/* ---- comparing ----------------------------------------------------------------------------- */

int gr_number_compare(const json_t *x, const json_t *y)
{
    if (json_is_integer(x) && json_is_integer(y)) {
        json_int_t a = json_integer_value(x), b = json_integer_value(y);
        return (a > b) - (a < b);
    }
    double a = json_number_value(x), b = json_number_value(y);
    return (a > b) - (a < b);
}

bool gr_number_integral(const json_t *x)
{
    return json_is_integer(x) ||
           (json_is_real(x) && floor(json_real_value(x)) == json_real_value(x));
}

/* jansson's own comparison is recursive too, and takes 1 and 1.0 for different. */
static bool equal_at(gr_build *b, const json_t *x, const json_t *y, int depth)
{
    if (!gr_work(b, 1 + json_string_length(x) / 256))
        return false;
    if (json_is_number(x) && json_is_number(y))
        return gr_number_compare(x, y) == 0;
    if (json_typeof(x) != json_typeof(y) || depth > GR_MAX_NESTING)
        return false;
    if (json_is_array(x)) {
        bool equal = json_array_size(x) == json_array_size(y);
        for (size_t i = 0; equal && i < json_array_size(x); i++)
            equal = equal_at(b, json_array_get(x, i), json_array_get(y, i), depth + 1);
        return equal;
    }
    if (json_is_object(x)) {
        json_t *members = (json_t *)x, *member;
        const char *key;
        size_t size;
        if (json_object_size(x) != json_object_size(y))
            return false;
        json_object_keylen_foreach(members, key, size, member)
        {
            const json_t *other = json_object_getn(y, key, size);
            if (!other || !equal_at(b, member, other, depth + 1))
                return false;
        }
        return true;
    }
    return json_equal(x, y);
}

bool gr_value_equal(gr_build *b, const json_t *x, const json_t *y)
{
    return equal_at(b, x, y, 0);
}
