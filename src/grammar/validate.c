/* Values of a schema's own, against its other keywords; and schemas that share no value. */
#include <math.h>
#include <string.h>

#include "grammar/schema.h"

static unsigned type_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_NULL:
        return GR_NULL;
    case JSON_TRUE:
    case JSON_FALSE:
        return GR_BOOLEAN;
    case JSON_STRING:
        return GR_STRING;
    case JSON_OBJECT:
        return GR_OBJECT;
    case JSON_ARRAY:
        return GR_ARRAY;
    default:
        return gr_number_integral(v) ? GR_WHOLE : GR_PARTIAL;
    }
}

static size_t characters(const char *text, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < size; i++)
        n += ((uint8_t)text[i] & 0xC0) != 0x80;
    return n;
}

static bool list_accepts(gr_schemas *s, const gr_list *list, const json_t *value, int depth)
{
    for (size_t i = 0; i < list->n; i++)
        if (!gr_accepts(s, list->items[i], value, false, depth + 1))
            return false;
    return true;
}

static bool accepts_number(const json_t *schema, const json_t *v)
{
    const json_t *low = json_object_get(schema, "minimum");
    const json_t *high = json_object_get(schema, "maximum");
    const json_t *above = json_object_get(schema, "exclusiveMinimum");
    const json_t *below = json_object_get(schema, "exclusiveMaximum");
    const json_t *multiple = json_object_get(schema, "multipleOf");
    return !(low && gr_number_compare(v, low) < 0) && !(high && gr_number_compare(v, high) > 0) &&
           !(above && gr_number_compare(v, above) <= 0) &&
           !(below && gr_number_compare(v, below) >= 0) &&
           !(multiple && fmod(json_number_value(v), json_number_value(multiple)) != 0);
}

static bool accepts_string(gr_schemas *s, const json_t *schema, const json_t *v)
{
    gr_list list = {0};
    gr_list_add(s->b, &list, schema);
    gr_work(s->b, 8 + json_string_length(v) / 8);
    int64_t length = (int64_t)characters(json_string_value(v), json_string_length(v));
    if (gr_bad(s->b) || length < gr_count_most(&list, "minLength", 0) ||
        length > gr_count_least(&list, "maxLength", INT64_MAX))
        return false;
    const json_t *pattern = json_object_get(schema, "pattern");
    const json_t *format = json_object_get(schema, "format");
    if (!pattern && !format)
        return true;
    const gr_dfa *dfa = gr_strings_of(s, &list);
    return !gr_bad(s->b) &&
           (!dfa || gr_dfa_accepts(s->b, dfa, json_string_value(v), json_string_length(v)));
}

static bool accepts_object(gr_schemas *s, const json_t *schema, const json_t *v, int depth)
{
    gr_list one = {0};
    const json_t *required = json_object_get(schema, "required");
    const json_t *names = json_object_get(schema, "propertyNames");
    int64_t n = (int64_t)json_object_size(v);
    gr_list_add(s->b, &one, schema);
    if (gr_bad(s->b) || n < gr_count_most(&one, "minProperties", 0) ||
        n > gr_count_least(&one, "maxProperties", INT64_MAX))
        return false;
    for (size_t i = 0; i < json_array_size(required) && gr_work(s->b, 8); i++)
        if (!json_object_get(v, json_string_value(json_array_get(required, i))))
            return false;
    const char *key;
    size_t size;
    json_t *members = (json_t *)v, *value;
    json_object_keylen_foreach(members, key, size, value)
    {
        gr_list wanted = {0};
        gr_property(s, &one, key, size, &wanted);
        if (!list_accepts(s, &wanted, value, depth))
            return false;
        if (!names)
            continue;
        json_t *name = json_stringn(key, size);
        bool good = name && gr_accepts(s, names, name, false, depth + 1);
        if (!name && !gr_bad(s->b))
            s->b->status = base_fail_memory(s->b->error, size, "a name");
        json_decref(name);
        if (!good)
            return false;
    }
    return true;
}

static bool accepts_array(gr_schemas *s, const json_t *schema, const json_t *v, int depth)
{
    gr_list one = {0};
    const json_t *prefix = json_object_get(schema, "prefixItems");
    const json_t *items = json_object_get(schema, "items");
    int64_t n = (int64_t)json_array_size(v);
    gr_list_add(s->b, &one, schema);
    if (gr_bad(s->b) || n < gr_count_most(&one, "minItems", 0) ||
        n > gr_count_least(&one, "maxItems", INT64_MAX))
        return false;
    for (size_t i = 0; i < json_array_size(v) && (prefix || items); i++) {
        const json_t *item = i < json_array_size(prefix) ? json_array_get(prefix, i) : items;
        if (item && !gr_accepts(s, item, json_array_get(v, i), false, depth + 1))
            return false;
    }
    return true;
}

static bool accepts_combined(gr_schemas *s, const json_t *schema, const json_t *v, int depth)
{
    const char *ref = json_string_value(json_object_get(schema, "$ref"));
    const json_t *target = ref ? gr_resolve(s, schema, ref) : json_true();
    if (!target || !gr_accepts(s, target, v, false, depth + 1))
        return false;
    const json_t *all = json_object_get(schema, "allOf");
    for (size_t i = 0; i < json_array_size(all); i++)
        if (!gr_accepts(s, json_array_get(all, i), v, false, depth + 1))
            return false;
    const char *const keys[] = {"anyOf", "oneOf"};
    for (size_t k = 0; k < 2; k++) {
        const json_t *any = json_object_get(schema, keys[k]);
        bool found = any == NULL;
        for (size_t i = 0; i < json_array_size(any) && !found; i++)
            found = gr_accepts(s, json_array_get(any, i), v, false, depth + 1);
        if (!found)
            return false;
    }
    return true;
}

/* Without regard to enum and const. */
static bool accepts_otherwise(gr_schemas *s, const json_t *schema, const json_t *value, bool plain,
                              int depth)
{
    const json_t *types = json_object_get(schema, "type");
    unsigned type = type_of(value);
    if (types && !(gr_types(types) & type))
        return false;
    if (!plain && !accepts_combined(s, schema, value, depth))
        return false;
    if (type & (GR_WHOLE | GR_PARTIAL))
        return accepts_number(schema, value);
    if (type == GR_STRING)
        return accepts_string(s, schema, value);
    if (type == GR_OBJECT)
        return accepts_object(s, schema, value, depth);
    return type != GR_ARRAY || accepts_array(s, schema, value, depth);
}

bool gr_accepts(gr_schemas *s, const json_t *schema, const json_t *value, bool plain, int depth)
{
    if (gr_bad(s->b) || !gr_work(s->b, 16))
        return false;
    if (depth > 4 * GR_MAX_NESTING) {
        gr_fail(s->b, MARCO_ERROR_UNSUPPORTED, "%s: a value of the schema's is nested too deep",
                s->prefix);
        return false;
    }
    if (!json_is_object(schema))
        return json_is_true(schema);
    gr_check_keywords(s, schema);
    const json_t *constant = json_object_get(schema, "const");
    const json_t *values = json_object_get(schema, "enum");
    if (gr_bad(s->b) || (constant && !gr_value_equal(s->b, constant, value)))
        return false;
    bool listed = values == NULL;
    for (size_t i = 0; i < json_array_size(values) && !listed; i++)
        listed = gr_value_equal(s->b, json_array_get(values, i), value);
    return listed && accepts_otherwise(s, schema, value, plain, depth);
}

/* `listing`: the one that lists the value, or NULL. */
static bool all_accept(gr_schemas *s, const gr_list *list, const json_t *value,
                       const json_t *listing)
{
    for (size_t i = 0; i < list->n && gr_work(s->b, 16); i++) {
        const json_t *schema = list->items[i];
        bool both = json_object_get(schema, "const") && json_object_get(schema, "enum");
        bool good = schema == listing && !both ? accepts_otherwise(s, schema, value, true, 0)
                                               : gr_accepts(s, schema, value, true, 0);
        if (!good)
            return false;
    }
    return true;
}

bool gr_enumerated(gr_schemas *s, const gr_list *list, json_t **out)
{
    const json_t *values = NULL, *constant = NULL, *listing = NULL;
    *out = NULL;
    for (size_t i = 0; i < list->n && !values && !constant; i++) {
        listing = list->items[i];
        constant = json_object_get(list->items[i], "const");
        values = json_object_get(list->items[i], "enum");
    }
    if (!values && !constant)
        return true;
    *out = json_array();
    size_t n = constant ? 1 : json_array_size(values);
    bool good = *out != NULL;
    for (size_t i = 0; i < n && good && !gr_bad(s->b); i++) {
        const json_t *value = constant ? constant : json_array_get(values, i);
        if (all_accept(s, list, value, listing))
            good = json_array_append(*out, (json_t *)value) == 0;
    }
    if (!good && !gr_bad(s->b))
        s->b->status = base_fail_memory(s->b->error, n * sizeof(json_t *), "an enum");
    return good;
}

/* ---- what shares no value ------------------------------------------------------------------ */

static bool strings_disjoint(gr_schemas *s, const gr_list *x, const gr_list *y)
{
    const gr_dfa *a = gr_strings_of(s, x), *b = gr_strings_of(s, y);
    if (!a || !b)
        return (a && a->n == 0) || (b && b->n == 0);
    const gr_dfa *both = gr_dfa_and(s->b, a, b);
    return both && both->n == 0;
}

static bool numbers_disjoint(gr_schemas *s, const gr_list *x, const gr_list *y)
{
    gr_list both = {0};
    gr_numbers numbers;
    for (size_t i = 0; i < x->n; i++)
        gr_list_add(s->b, &both, x->items[i]);
    for (size_t i = 0; i < y->n; i++)
        gr_list_add(s->b, &both, y->items[i]);
    return !gr_bad(s->b) && !gr_numbers_of(s, &both, true, &numbers);
}

static bool has_false(const gr_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        if (json_is_false(list->items[i]))
            return true;
    return false;
}

/* A property that x requires and that cannot be the same in both. */
static bool told_apart(gr_schemas *s, const gr_list *x, const gr_list *y, int depth)
{
    for (size_t i = 0; i < x->n; i++) {
        const json_t *required = json_object_get(x->items[i], "required");
        for (size_t k = 0; k < json_array_size(required) && !gr_bad(s->b); k++) {
            const json_t *name = json_array_get(required, k);
            gr_list a = {0}, b = {0};
            gr_property(s, x, json_string_value(name), json_string_length(name), &a);
            gr_property(s, y, json_string_value(name), json_string_length(name), &b);
            if (has_false(&a) || has_false(&b) || gr_disjoint(s, &a, &b, depth + 1))
                return true;
        }
    }
    return false;
}

static bool pair_disjoint(gr_schemas *s, const gr_list *x, const gr_list *y, int depth)
{
    unsigned types = gr_types_of(s, x, false) & gr_types_of(s, y, false);
    const gr_list *sides[2] = {x, y};
    for (int i = 0; i < 2; i++) {
        json_t *values, *value;
        size_t k;
        bool shared = false;
        if (!gr_enumerated(s, sides[i], &values) || !values) {
            json_decref(values);
            continue;
        }
        json_array_foreach(values, k, value) shared |= all_accept(s, sides[1 - i], value, NULL);
        json_decref(values);
        if (!shared)
            return !gr_bad(s->b);
    }
    if (types & (GR_NULL | GR_BOOLEAN | GR_ARRAY))
        return false;
    if ((types & (GR_WHOLE | GR_PARTIAL)) && !numbers_disjoint(s, x, y))
        return false;
    if ((types & GR_STRING) && !strings_disjoint(s, x, y))
        return false;
    return !(types & GR_OBJECT) || told_apart(s, x, y, depth) || told_apart(s, y, x, depth);
}

bool gr_disjoint(gr_schemas *s, const gr_list *x, const gr_list *y, int depth)
{
    enum { DEEPEST = 4 };
    gr_alternatives a, b;
    gr_mark mark = gr_mark_now(s->b);
    bool disjoint = depth <= DEEPEST, proving = s->proving;
    s->proving = true;
    if (disjoint) {
        gr_expand(s, x, &a);
        gr_expand(s, y, &b);
    }
    for (size_t i = 0; disjoint && !gr_bad(s->b) && i < a.n; i++)
        for (size_t k = 0; disjoint && !gr_bad(s->b) && k < b.n; k++)
            disjoint = gr_work(s->b, 16 * (a.items[i].n + b.items[k].n)) &&
                       pair_disjoint(s, &a.items[i], &b.items[k], depth);
    s->proving = proving;
    gr_forget(s->b, &mark);
    return disjoint && !gr_bad(s->b);
}
