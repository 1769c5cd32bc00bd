/* JSON Schema (draft 2020-12): rules of the values that lists of schemas accept. */
#include "grammar/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gr_rule_key {
    gr_list list;          /* as the schemas came */
    const json_t **sorted; /* [list.n] */
    uint64_t hash;
    int32_t rule;
};

void gr_list_add(gr_build *b, gr_list *list, const json_t *schema)
{
    void *items = list->items;
    if (!gr_room(b, &items, &list->capacity, list->n + 1, sizeof *list->items))
        return;
    list->items = items;
    list->items[list->n++] = schema;
}

void gr_reason(gr_schemas *s, const json_t *schema, const char *why)
{
    char place[200];
    if (s->b->reason[0] || s->proving)
        return;
    gr_place(s, schema, place);
    snprintf(s->b->reason, sizeof s->b->reason, "%.120s %.120s", place, why);
    s->b->reason[base_utf8_check(s->b->reason, strlen(s->b->reason))] = '\0';
}

/* ---- types --------------------------------------------------------------------------------- */

unsigned gr_types_of(gr_schemas *s, const gr_list *list, bool infer)
{
    unsigned types = GR_ANY, implied = 0;
    bool said = false;
    for (size_t i = 0; i < list->n; i++) {
        const json_t *type = json_object_get(list->items[i], "type");
        said |= type != NULL;
        types &= type ? gr_types(type) : GR_ANY;
    }
    for (size_t i = 0; i < list->n && infer && !said; i++)
        implied |= gr_types_implied(s, list->items[i]);
    return implied ? implied : types;
}

/* ---- strings ------------------------------------------------------------------------------- */

static const gr_dfa *with(gr_schemas *s, const gr_dfa *known, const gr_dfa *more)
{
    if (gr_bad(s->b) || !known)
        return more;
    return gr_dfa_and(s->b, known, more);
}

static bool lengths_of(gr_schemas *s, const gr_list *list, int64_t *min, int64_t *max)
{
    char place[200];
    *min = gr_count_most(list, "minLength", 0);
    *max = gr_count_least(list, "maxLength", -1);
    if (*min > GR_MAX_STRING) {
        gr_place(s, list->items[0], place);
        gr_fail(s->b, MARCO_ERROR_UNSUPPORTED, "%s: 'minLength' above %d is not supported", place,
                GR_MAX_STRING);
    }
    if (*max > GR_MAX_STRING)
        *max = GR_MAX_STRING;
    return *min > 0 || *max >= 0;
}

/* Patterns and formats alone. */
static const gr_dfa *spelled_of(gr_schemas *s, const gr_list *list)
{
    const gr_dfa *dfa = NULL;
    for (size_t i = 0; i < list->n && !gr_bad(s->b); i++) {
        const json_t *pattern = json_object_get(list->items[i], "pattern");
        const json_t *format = json_object_get(list->items[i], "format");
        if (!pattern && !format)
            continue;
        if (pattern)
            dfa = with(s, dfa,
                       gr_pattern(s, list->items[i], json_string_value(pattern),
                                  json_string_length(pattern)));
        if (format)
            dfa = with(s, dfa, gr_format(s, list->items[i], json_string_value(format)));
    }
    return dfa;
}

const gr_dfa *gr_strings_of(gr_schemas *s, const gr_list *list)
{
    int64_t min, max;
    const gr_dfa *dfa = spelled_of(s, list);
    if (!gr_bad(s->b) && lengths_of(s, list, &min, &max))
        dfa = with(s, dfa, gr_dfa_lengths(s->b, min, max));
    return gr_bad(s->b) ? NULL : dfa;
}

/* Strings that many schemas ask for: the text of a pattern, the name of a format, or NULL. */
struct gr_string_key {
    const json_t *pattern, *format;
    int64_t min, max;
    int32_t rule;
};

/* False where the schemas have several patterns or formats. */
static bool string_key(const gr_list *list, struct gr_string_key *key)
{
    for (size_t i = 0; i < list->n; i++) {
        const json_t *pattern = json_object_get(list->items[i], "pattern");
        const json_t *format = json_object_get(list->items[i], "format");
        if ((pattern && key->pattern) || (format && key->format))
            return false;
        key->pattern = pattern ? pattern : key->pattern;
        key->format = format ? format : key->format;
    }
    return true;
}

static bool same_text(const json_t *x, const json_t *y)
{
    return x == y || (x && y && json_equal(x, y));
}

/* The rule that is known for it; GR_NONE: none. */
static int32_t known_string(gr_build *b, const struct gr_string_key *key)
{
    for (size_t i = 0; i < b->n_strings && gr_work(b, 1); i++) {
        const struct gr_string_key *k = &b->strings[i];
        if (k->min == key->min && k->max == key->max && same_text(k->pattern, key->pattern) &&
            same_text(k->format, key->format))
            return k->rule;
    }
    return GR_NONE;
}

static void remember_string(gr_build *b, const struct gr_string_key *key)
{
    void *strings = b->strings;
    if (!gr_room_kept(b, &strings, &b->strings_capacity, b->n_strings + 1, sizeof *b->strings))
        return;
    b->strings = strings;
    b->strings[b->n_strings++] = *key;
}

static void add_strings(gr_schemas *s, gr_nfa *nfa, int32_t from, int32_t to, const gr_list *list)
{
    struct gr_string_key key = {.rule = GR_NONE};
    int64_t min, max;
    int32_t rule = GR_RULE_STRING;
    bool bounded = lengths_of(s, list, &min, &max);
    if (gr_bad(s->b))
        return;
    if (bounded && max >= 0 && max < min) {
        gr_reason(s, list->items[0], "has a 'maxLength' below its 'minLength'");
        return;
    }
    key.min = min;
    key.max = max;
    bool simple = string_key(list, &key);
    if (simple && (key.rule = known_string(s->b, &key)) != GR_NONE) {
        gr_nfa_empty(nfa, gr_nfa_call(nfa, from, key.rule), to);
        return;
    }
    const gr_dfa *dfa = spelled_of(s, list);
    if (dfa && bounded)
        dfa = gr_dfa_and(s->b, dfa, gr_dfa_lengths(s->b, min, max));
    if (gr_bad(s->b))
        return;
    if (dfa && dfa->n == 0) {
        gr_reason(s, list->items[0], "has a pattern, format or length that no string has");
        return;
    }
    if (dfa)
        rule = gr_string_rule(s->b, dfa);
    else if (bounded)
        rule = gr_counted_rule(s->b, min, max);
    key.rule = rule;
    if (simple)
        remember_string(s->b, &key);
    if (!gr_bad(s->b))
        gr_nfa_empty(nfa, gr_nfa_call(nfa, from, rule), to);
}

/* ---- numbers ------------------------------------------------------------------------------- */

static void bound(gr_numbers *n, const json_t *schema, const char *key, bool low, bool open)
{
    const json_t *value = json_object_get(schema, key);
    if (!value)
        return;
    if (low) {
        int order = n->has_low ? gr_number_compare(value, n->low) : 1;
        if (order > 0 || (order == 0 && open)) {
            n->low = value;
            n->low_open = open;
        }
        n->has_low = true;
    } else {
        int order = n->has_high ? gr_number_compare(value, n->high) : -1;
        if (order < 0 || (order == 0 && open)) {
            n->high = value;
            n->high_open = open;
        }
        n->has_high = true;
    }
}

static int64_t divisor(int64_t a, int64_t b)
{
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

bool gr_numbers_of(gr_schemas *s, const gr_list *list, bool integer, gr_numbers *out)
{
    enum { MOST = 1000 };
    char place[200];
    *out = (gr_numbers){.integer = integer, .multiple = 1};
    for (size_t i = 0; i < list->n; i++) {
        const json_t *schema = list->items[i];
        bound(out, schema, "minimum", true, false);
        bound(out, schema, "exclusiveMinimum", true, true);
        bound(out, schema, "maximum", false, false);
        bound(out, schema, "exclusiveMaximum", false, true);
        const json_t *multiple = json_object_get(schema, "multipleOf");
        if (!multiple)
            continue;
        /* Multiples of a fraction are not exact in the doubles that validators divide. */
        double value = json_number_value(multiple);
        if (!gr_number_integral(multiple) || value > MOST) {
            gr_place(s, schema, place);
            gr_fail(s->b, MARCO_ERROR_UNSUPPORTED,
                    "%s: 'multipleOf' is supported for whole numbers up to %d", place, MOST);
            return true;
        }
        out->integer = true;
        out->multiple = out->multiple / divisor(out->multiple, (int64_t)value) * (int64_t)value;
        if (out->multiple > MOST) {
            gr_place(s, schema, place);
            gr_fail(s->b, MARCO_ERROR_UNSUPPORTED,
                    "%s: 'multipleOf' with those that must hold beside it is beyond %d", place,
                    MOST);
            return true;
        }
    }
    if (!out->has_low || !out->has_high)
        return true;
    int order = gr_number_compare(out->low, out->high);
    return order < 0 || (order == 0 && !out->low_open && !out->high_open);
}

static void add_numbers(gr_schemas *s, gr_nfa *nfa, int32_t from, int32_t to, const gr_list *list,
                        unsigned types)
{
    gr_numbers numbers;
    if (!gr_numbers_of(s, list, !(types & GR_PARTIAL), &numbers)) {
        gr_reason(
            s, list->items[0],
            "has bounds ('minimum', 'maximum' or their exclusive kin) that no number is between");
        return;
    }
    if (gr_bad(s->b))
        return;
    if (!numbers.has_low && !numbers.has_high && numbers.multiple == 1) {
        int32_t rule = numbers.integer ? GR_RULE_INTEGER : GR_RULE_NUMBER;
        gr_nfa_empty(nfa, gr_nfa_call(nfa, from, rule), to);
        return;
    }
    char place[200];
    bool beyond;
    if (gr_numbers_add(nfa, from, to, &numbers, &beyond))
        return;
    if (numbers.integer && !beyond) {
        gr_reason(s, list->items[0],
                  numbers.multiple == 1
                      ? "has bounds ('minimum', 'maximum' or their exclusive kin) "
                        "that no whole number is between"
                      : "has bounds ('minimum', 'maximum' or their exclusive kin) "
                        "that no multiple of its 'multipleOf' is between");
        return;
    }
    gr_place(s, list->items[0], place);
    if (beyond)
        gr_fail(
            s->b, MARCO_ERROR_UNSUPPORTED,
            "%s: a bound ('minimum', 'maximum' or their exclusive kin) with more than %d digits "
            "before or after its point is not supported",
            place, GR_BOUND_DIGITS);
    else
        gr_fail(s->b, MARCO_ERROR_UNSUPPORTED,
                "%s: bounds ('minimum', 'maximum' or their exclusive kin) so near to one another "
                "that no number of %d digits is between are not supported",
                place, GR_DIGITS);
}

/* ---- arrays -------------------------------------------------------------------------------- */

/* The schemas of the item at an index. */
static int32_t item_rule(gr_schemas *s, const gr_list *list, size_t index)
{
    gr_list items = {0};
    for (size_t i = 0; i < list->n && gr_work(s->b, 8); i++) {
        const json_t *prefix = json_object_get(list->items[i], "prefixItems");
        const json_t *rest = json_object_get(list->items[i], "items");
        if (index < json_array_size(prefix))
            gr_list_add(s->b, &items, json_array_get(prefix, index));
        else if (rest)
            gr_list_add(s->b, &items, rest);
    }
    return gr_rule_for(s, &items);
}

static void add_arrays(gr_schemas *s, gr_nfa *nfa, int32_t from, int32_t to, const gr_list *list)
{
    char place[200];
    int64_t min = gr_count_most(list, "minItems", 0), max = gr_count_least(list, "maxItems", -1);
    size_t prefix = 0;
    for (size_t i = 0; i < list->n; i++) {
        size_t n = json_array_size(json_object_get(list->items[i], "prefixItems"));
        prefix = n > prefix ? n : prefix;
    }
    if (min > GR_MAX_ITEMS || prefix > GR_MAX_ITEMS) {
        gr_place(s, list->items[0], place);
        gr_fail(s->b, MARCO_ERROR_UNSUPPORTED, "%s: more than %d items", place, GR_MAX_ITEMS);
        return;
    }
    if (max > GR_MAX_ITEMS)
        max = GR_MAX_ITEMS;
    if (max >= 0 && max < min) {
        gr_reason(s, list->items[0], "has a 'maxItems' below its 'minItems'");
        return;
    }
    /* Items one by one as far as their number matters; then, without a bound, round and round. */
    int64_t single = max >= 0 ? max : min > (int64_t)prefix ? min : (int64_t)prefix;
    int32_t at = gr_nfa_bytes(nfa, from, "[", 1);
    for (int64_t i = 0; i <= single && !gr_bad(s->b); i++) {
        if (i >= min)
            gr_nfa_empty(nfa, gr_nfa_bytes(nfa, at, "]", 1), to);
        if (i == single && max >= 0)
            break;
        int32_t start = i > 0 ? gr_separator(nfa, at, ',') : at;
        int32_t after = gr_nfa_call(nfa, start, item_rule(s, list, (size_t)i));
        if (i == single && i > 0) {
            gr_nfa_empty(nfa, after, at);
        } else if (i == single) {
            /* The first item has no comma before it, those that follow have. */
            int32_t next = gr_separator(nfa, after, ',');
            gr_nfa_empty(nfa, gr_nfa_call(nfa, next, item_rule(s, list, (size_t)i + 1)), after);
            gr_nfa_empty(nfa, gr_nfa_bytes(nfa, after, "]", 1), to);
        }
        at = after;
    }
}

/* ---- values -------------------------------------------------------------------------------- */

static void add_enumerated(gr_schemas *s, gr_nfa *nfa, int32_t from, int32_t to,
                           const gr_list *list, json_t *values)
{
    json_t *value;
    size_t i;
    json_array_foreach(values, i, value) gr_nfa_empty(nfa, gr_value_add(nfa, from, value, 0), to);
    if (json_array_size(values) == 0)
        gr_reason(s, list->items[0], "has an 'enum' or 'const' with no value that it allows");
}

static void add_word(gr_nfa *nfa, int32_t from, int32_t to, const char *word)
{
    gr_nfa_empty(nfa, gr_nfa_bytes(nfa, from, word, strlen(word)), to);
}

/* The values that all schemas of a list accept. */
static void add_values(gr_schemas *s, gr_nfa *nfa, int32_t from, int32_t to, const gr_list *list)
{
    json_t *values;
    if (!gr_work(s->b, 64 * list->n))
        return;
    bool good = gr_enumerated(s, list, &values);
    if (good && values)
        add_enumerated(s, nfa, from, to, list, values);
    json_decref(values);
    if (!good || values || gr_bad(s->b))
        return;
    unsigned types = gr_types_of(s, list, true), implied = 0;
    for (size_t i = 0; i < list->n; i++)
        implied |= gr_types_implied(s, list->items[i]);
    if (types == GR_ANY && !implied) {
        gr_nfa_empty(nfa, gr_nfa_call(nfa, from, GR_RULE_VALUE), to);
        return;
    }
    if (types == 0)
        gr_reason(s, list->items[0], "asks for types that no value has at once");
    if (types & GR_NULL)
        add_word(nfa, from, to, "null");
    if (types & GR_BOOLEAN) {
        add_word(nfa, from, to, "true");
        add_word(nfa, from, to, "false");
    }
    if (types & (GR_WHOLE | GR_PARTIAL))
        add_numbers(s, nfa, from, to, list, types);
    if (types & GR_STRING)
        add_strings(s, nfa, from, to, list);
    if ((types & GR_OBJECT) && (implied & GR_OBJECT))
        gr_object_add(s, nfa, from, to, list);
    else if (types & GR_OBJECT)
        gr_nfa_empty(nfa, gr_nfa_call(nfa, from, GR_RULE_OBJECT), to);
    if ((types & GR_ARRAY) && (implied & GR_ARRAY))
        add_arrays(s, nfa, from, to, list);
    else if (types & GR_ARRAY)
        gr_nfa_empty(nfa, gr_nfa_call(nfa, from, GR_RULE_ARRAY), to);
}

/* ---- rules --------------------------------------------------------------------------------- */

static int by_address(const void *x, const void *y)
{
    uintptr_t a = (uintptr_t) * (const json_t *const *)x,
              b = (uintptr_t) * (const json_t *const *)y;
    return (a > b) - (a < b);
}

/* What a schema that is nothing but a reference refers to, so that one thing has one rule. */
static const json_t *referred(gr_schemas *s, const json_t *schema)
{
    for (int i = 0; i < 64 && json_object_size(schema) == 1; i++) {
        const char *ref = json_string_value(json_object_get(schema, "$ref"));
        const json_t *target = ref ? gr_resolve(s, schema, ref) : NULL;
        if (!target)
            break;
        schema = target;
    }
    return schema;
}

/* The schemas without repetitions and those that say nothing. */
static void list_rule(gr_schemas *s, const gr_list *schemas, struct gr_rule_key *key)
{
    gr_build *b = s->b;
    key->list.items = gr_keep(b, schemas->n + 1, sizeof *key->list.items);
    key->sorted = gr_keep(b, schemas->n + 1, sizeof *key->sorted);
    for (size_t i = 0; i < schemas->n && !gr_bad(b); i++) {
        const json_t *schema = referred(s, schemas->items[i]);
        bool known = json_is_true(schema) || !gr_work(b, key->list.n / 4 + 4);
        for (size_t k = 0; k < key->list.n && !known; k++)
            known = key->list.items[k] == schema;
        if (!known)
            key->list.items[key->list.n++] = schema;
    }
}

int32_t gr_rule_for(gr_schemas *s, const gr_list *schemas)
{
    gr_build *b = s->b;
    struct gr_rule_key key = {0};
    list_rule(s, schemas, &key);
    if (gr_bad(b) || key.list.n == 0)
        return GR_RULE_VALUE;
    memcpy(key.sorted, key.list.items, key.list.n * sizeof *key.sorted);
    qsort(key.sorted, key.list.n, sizeof *key.sorted, by_address);
    for (size_t i = 0; i < key.list.n; i++)
        key.hash = (key.hash ^ (uintptr_t)key.sorted[i]) * 0x9E3779B97F4A7C15u;
    if (!gr_work(b, s->n_keys / 8 + 1))
        return GR_RULE_VALUE;
    for (size_t i = 0; i < s->n_keys; i++) {
        const struct gr_rule_key *k = &s->keys[i];
        if (k->hash == key.hash && k->list.n == key.list.n &&
            memcmp(k->sorted, key.sorted, key.list.n * sizeof *key.sorted) == 0)
            return k->rule;
    }
    void *keys = s->keys;
    if (!gr_room_kept(b, &keys, &s->keys_capacity, s->n_keys + 1, sizeof *s->keys))
        return GR_RULE_VALUE;
    s->keys = keys;
    key.rule = gr_rule_new(b);
    s->keys[s->n_keys++] = key;
    return gr_bad(b) ? GR_RULE_VALUE : key.rule;
}

/* Names the schema that has turned out too large. */
static void name_large(gr_schemas *s, const json_t *schema)
{
    char place[200];
    uint64_t work = s->b->work;
    if (!s->b->large)
        return;
    s->b->large = false;
    s->b->status = MARCO_OK; /* a place is looked for only while there is no error */
    s->b->work = 0;
    gr_place(s, schema, place);
    s->b->work = work;
    gr_too_large_at(s->b, place);
}

static void compile_rule(gr_schemas *s, const gr_list *list, int32_t rule)
{
    gr_build *b = s->b;
    gr_alternatives all;
    gr_nfa nfa = {.b = b};
    gr_mark mark = gr_mark_now(b);
    gr_expand(s, list, &all);
    int32_t start = gr_nfa_state(&nfa), accept = gr_nfa_state(&nfa);
    for (size_t i = 0; i < all.n && !gr_bad(b); i++)
        add_values(s, &nfa, start, accept, &all.items[i]);
    if (!gr_bad(b))
        gr_emit_rule(b, rule, gr_dfa_of(&nfa, start, accept, GR_NONE, true));
    gr_forget(b, &mark);
}

int32_t gr_schema_rule(gr_build *b, const json_t *root, const json_t *const *schemas, size_t n,
                       const char *prefix)
{
    gr_schemas s = {.b = b, .root = root, .prefix = prefix};
    gr_list list = {0};
    gr_check_document(&s, root);
    for (size_t i = 0; i < n; i++)
        gr_list_add(b, &list, schemas[i]);
    int32_t rule = gr_rule_for(&s, &list);
    for (size_t i = 0; i < s.n_keys && !gr_bad(b); i++) {
        gr_list next = s.keys[i].list; /* a copy: the keys move as they grow */
        compile_rule(&s, &next, s.keys[i].rule);
        name_large(&s, next.items[0]);
    }
    return rule;
}
