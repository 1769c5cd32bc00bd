/* Objects: declared properties in their order, each once, then others. */
#include <stdio.h>
#include <string.h>

#include "grammar/schema.h"

/* A name that objects may, or must, have. */
typedef struct property {
    const char *name;
    size_t size;
    bool required;
    int32_t rule;
} property;

/* Names that are not declared, with what their values may be. */
typedef struct others {
    int32_t names, values; /* rules */
} others;

typedef struct object {
    gr_schemas *s;
    const gr_list *list;
    property *properties;
    others *others;
    size_t n, n_others, capacity, others_capacity;
    int64_t min, max; /* properties; max < 0: no bound */
} object;

static const gr_dfa *pattern_of(gr_schemas *s, const json_t *schema, const char *pattern)
{
    return gr_pattern(s, schema, pattern, strlen(pattern));
}

void gr_property(gr_schemas *s, const gr_list *list, const char *name, size_t size, gr_list *out)
{
    for (size_t i = 0; i < list->n && gr_work(s->b, 16 + size / 16); i++) {
        const json_t *schema = list->items[i];
        const json_t *own = json_object_getn(json_object_get(schema, "properties"), name, size);
        const json_t *rest = json_object_get(schema, "additionalProperties");
        json_t *patterns = json_object_get(schema, "patternProperties"), *value;
        const char *pattern;
        bool found = own != NULL;
        if (own)
            gr_list_add(s->b, out, own);
        json_object_foreach(patterns, pattern, value)
        {
            const gr_dfa *dfa = pattern_of(s, schema, pattern);
            if (!gr_bad(s->b) && gr_dfa_accepts(s->b, dfa, name, size)) {
                gr_list_add(s->b, out, value);
                found = true;
            }
        }
        if (!found && rest)
            gr_list_add(s->b, out, rest);
    }
}

/* ---- names --------------------------------------------------------------------------------- */

static property *declared(object *o, const char *name, size_t size)
{
    for (size_t i = 0; i < o->n; i++)
        if (o->properties[i].size == size && memcmp(o->properties[i].name, name, size) == 0)
            return &o->properties[i];
    return NULL;
}

static void declare(object *o, const char *name, size_t size, bool required)
{
    gr_build *b = o->s->b;
    property *known = declared(o, name, size);
    if (!gr_work(b, o->n / 4 + 1))
        return;
    if (known) {
        known->required |= required;
        return;
    }
    void *items = o->properties;
    if (!gr_room(b, &items, &o->capacity, o->n + 1, sizeof *o->properties))
        return;
    o->properties = items;
    o->properties[o->n++] = (property){.name = name, .size = size, .required = required};
}

/* The strings that propertyNames of all the schemas allows; NULL: all. */
static const gr_dfa *allowed_names(object *o)
{
    gr_schemas *s = o->s;
    gr_list list = {0};
    gr_alternatives all;
    for (size_t i = 0; i < o->list->n; i++) {
        const json_t *names = json_object_get(o->list->items[i], "propertyNames");
        if (names)
            gr_list_add(s->b, &list, names);
    }
    if (list.n == 0 || gr_bad(s->b))
        return NULL;
    gr_expand(s, &list, &all);
    if (gr_bad(s->b))
        return NULL;
    if (all.n > 1) {
        char place[200];
        gr_place(s, list.items[0], place);
        gr_fail(s->b, MARCO_ERROR_UNSUPPORTED,
                "%s: alternatives within 'propertyNames' are not supported", place);
        return NULL;
    }
    if (all.n == 0 || !(gr_types_of(s, &all.items[0], false) & GR_STRING))
        return gr_dfa_texts(s->b, NULL, NULL, 0);
    json_t *values;
    const gr_dfa *dfa = gr_strings_of(s, &all.items[0]);
    if (!gr_enumerated(s, &all.items[0], &values) || !values) {
        json_decref(values);
        return dfa;
    }
    size_t n = 0;
    const char **texts = gr_take(s->b, json_array_size(values) + 1, sizeof *texts);
    size_t *sizes = gr_take(s->b, json_array_size(values) + 1, sizeof *sizes);
    for (size_t i = 0; i < json_array_size(values) && !gr_bad(s->b); i++) {
        const json_t *value = json_array_get(values, i);
        if (json_is_string(value)) {
            texts[n] = json_string_value(value); /* the schema's own, which stays */
            sizes[n++] = json_string_length(value);
        }
    }
    if (!gr_bad(s->b))
        dfa = gr_dfa_texts(s->b, texts, sizes, n);
    json_decref(values);
    return dfa;
}

static const gr_dfa *undeclared(object *o, const gr_dfa *allowed)
{
    gr_build *b = o->s->b;
    const gr_dfa *dfa = allowed ? allowed : gr_dfa_all(b);
    const char **texts = gr_take(b, o->n + 1, sizeof *texts);
    size_t *sizes = gr_take(b, o->n + 1, sizeof *sizes);
    if (gr_bad(b))
        return NULL;
    for (size_t i = 0; i < o->n; i++) {
        texts[i] = o->properties[i].name;
        sizes[i] = o->properties[i].size;
    }
    const gr_dfa *own = gr_dfa_texts(b, texts, sizes, o->n);
    return gr_bad(b) ? NULL : gr_dfa_without(b, dfa, own);
}

/* Spells a language's strings out, one after another. */
typedef struct spelling {
    object *o;
    const gr_dfa *dfa;
    int32_t rule;
    size_t n;
    char text[4 * GR_MAX_NAME];
} spelling;

/* Adds a property for every string that goes on from a state with `size` bytes before it. False
 * where they are too many, or too long. */
static bool spell(spelling *sp, int32_t state, size_t size)
{
    object *o = sp->o;
    gr_build *b = o->s->b;
    if (sp->dfa->final[state]) {
        char *name = gr_take(b, size + 1, 1);
        if (!name || sp->n++ == GR_MAX_NAMES)
            return false;
        memcpy(name, sp->text, size);
        declare(o, name, size, false);
        if (gr_bad(b))
            return false;
        o->properties[o->n - 1].rule = sp->rule;
    }
    for (uint32_t i = sp->dfa->begin[state]; i < sp->dfa->begin[state + 1]; i++) {
        const gr_dfa_edge *e = &sp->dfa->edges[i];
        if (size + 4 > sizeof sp->text)
            return false;
        for (uint32_t cp = e->low; cp <= e->high; cp++)
            if (!spell(sp, e->to, size + base_utf8_encode(cp, sp->text + size)))
                return false;
    }
    return true;
}

/* Names that are not declared. A name must not come twice: where endlessly many can follow,
 * whatever has been written of one, those that there are already are ruled out as they come up.
 * Otherwise that could leave no way on, and they are taken for declared ones, if they are few. */
static void add_others(object *o, const gr_dfa *names, const gr_list *values)
{
    gr_build *b = o->s->b;
    if (gr_bad(b) || names->n == 0)
        return;
    for (size_t i = 0; i < values->n; i++)
        if (json_is_false(values->items[i]))
            return;
    int32_t rule = gr_rule_for(o->s, values);
    if (o->max != 1 && !gr_dfa_endless(b, names)) {
        spelling sp = {.o = o, .dfa = names, .rule = rule};
        if (!gr_bad(b) && !spell(&sp, 0, 0) && !gr_bad(b)) {
            char place[200];
            gr_place(o->s, o->list->items[0], place);
            gr_fail(b, MARCO_ERROR_UNSUPPORTED,
                    "%s: 'propertyNames' or 'patternProperties' with a pattern that bounds names "
                    "(so that they could run out) but leaves more than %d: let names go on freely",
                    place, GR_MAX_NAMES);
        }
        return;
    }
    others more = {gr_string_rule(b, names), rule};
    void *items = o->others;
    if (!gr_room(b, &items, &o->others_capacity, o->n_others + 1, sizeof *o->others))
        return;
    o->others = items;
    o->others[o->n_others++] = more;
}

/* A pattern of patternProperties and the schema that has it. */
typedef struct family {
    const json_t *schema, *value;
    const gr_dfa *names;
} family;

/* What undeclared names may be: one kind per pattern, one for the rest. */
static void find_others(object *o, const gr_dfa *allowed)
{
    enum { MOST = 64 };
    gr_schemas *s = o->s;
    gr_build *b = s->b;
    family families[MOST];
    size_t n = 0;
    const gr_dfa *rest = undeclared(o, allowed);
    for (size_t i = 0; i < o->list->n && !gr_bad(b); i++) {
        json_t *patterns = json_object_get(o->list->items[i], "patternProperties"), *value;
        const char *pattern;
        json_object_foreach(patterns, pattern, value)
        {
            const gr_dfa *names = pattern_of(s, o->list->items[i], pattern);
            names = gr_bad(b) ? NULL : gr_dfa_and(b, undeclared(o, allowed), names);
            for (size_t k = 0; k < n && !gr_bad(b); k++)
                if (gr_dfa_and(b, names, families[k].names)->n != 0) {
                    char place[200];
                    gr_place(s, o->list->items[i], place);
                    gr_fail(b, MARCO_ERROR_UNSUPPORTED,
                            "%s: two patterns of 'patternProperties' that match the same name",
                            place);
                }
            if (n == MOST) {
                char place[200];
                gr_place(s, o->list->items[0], place);
                gr_fail(b, MARCO_ERROR_UNSUPPORTED,
                        "%s: more than %d patterns of 'patternProperties'", place, MOST);
            }
            if (gr_bad(b))
                return;
            families[n++] = (family){o->list->items[i], value, names};
            rest = gr_dfa_without(b, rest, names);
            if (gr_bad(b))
                return;
        }
    }
    for (size_t k = 0; k <= n && !gr_bad(b); k++) {
        gr_list values = {0};
        for (size_t i = 0; i < o->list->n; i++) {
            const json_t *schema = o->list->items[i];
            const json_t *more = json_object_get(schema, "additionalProperties");
            if (k < n && families[k].schema == schema)
                gr_list_add(b, &values, families[k].value);
            else if (more)
                gr_list_add(b, &values, more);
        }
        add_others(o, k < n ? families[k].names : rest, &values);
    }
}

/* ---- the automaton ------------------------------------------------------------------------- */

/* Declares what the schemas name, and drops what cannot be. False where a required one cannot. */
static bool find_properties(object *o, const gr_dfa *allowed)
{
    gr_schemas *s = o->s;
    gr_build *b = s->b;
    for (size_t i = 0; i < o->list->n && !gr_bad(b); i++) {
        json_t *own = json_object_get(o->list->items[i], "properties"), *value;
        const char *name;
        size_t size;
        json_object_keylen_foreach(own, name, size, value) declare(o, name, size, false);
    }
    for (size_t i = 0; i < o->list->n && !gr_bad(b); i++) {
        const json_t *required = json_object_get(o->list->items[i], "required");
        for (size_t k = 0; k < json_array_size(required) && !gr_bad(b); k++) {
            const json_t *name = json_array_get(required, k);
            declare(o, json_string_value(name), json_string_length(name), true);
        }
    }
    for (size_t i = 0; i < o->n && !gr_bad(b); i++) {
        property *p = &o->properties[i];
        gr_list values = {0};
        gr_property(s, o->list, p->name, p->size, &values);
        bool possible = !allowed || gr_dfa_accepts(b, allowed, p->name, p->size);
        for (size_t k = 0; k < values.n; k++)
            possible &= !json_is_false(values.items[k]);
        if (!possible && p->required) {
            char why[120];
            snprintf(why, sizeof why, "requires the property '%.60s', which it does not allow",
                     p->name);
            gr_reason(s, o->list->items[0], why);
            return false;
        }
        p->rule = possible ? gr_rule_for(s, &values) : GR_NONE;
    }
    return !gr_bad(b);
}

/* State of (declared properties passed, properties written). */
static int32_t *state(int32_t *states, size_t columns, size_t passed, size_t written)
{
    return &states[passed * columns + (written < columns ? written : columns - 1)];
}

static int32_t name_of(object *o, gr_nfa *nfa, int32_t from, const property *p)
{
    base_text text = {0};
    base_text_add_char(&text, '"');
    gr_escape(&text, p->name, p->size);
    base_text_add_char(&text, '"');
    if (text.failed && !gr_bad(o->s->b))
        o->s->b->status = base_fail_memory(o->s->b->error, p->size, "a name");
    int32_t to = text.failed ? from : gr_nfa_bytes(nfa, from, text.data, text.size);
    base_text_free(&text);
    return gr_separator(nfa, to, ':');
}

static void add_declared(object *o, gr_nfa *nfa, int32_t *states, size_t columns)
{
    gr_build *b = o->s->b;
    for (size_t i = 0; i < o->n; i++) {
        const property *p = &o->properties[i];
        for (size_t c = 0; c < columns && !gr_bad(b); c++) {
            int32_t from = *state(states, columns, i, c);
            if (!p->required)
                gr_nfa_empty(nfa, from, *state(states, columns, i + 1, c));
            if (p->rule == GR_NONE || (o->max >= 0 && (int64_t)c >= o->max))
                continue;
            if (c > 0)
                from = gr_separator(nfa, from, ',');
            int32_t after = gr_nfa_call(nfa, name_of(o, nfa, from, p), p->rule);
            gr_nfa_empty(nfa, after, *state(states, columns, i + 1, c + 1));
        }
    }
}

/* An undeclared property; returns the state behind it. */
static int32_t add_other(gr_nfa *nfa, int32_t from, const others *kind)
{
    int32_t named = gr_nfa_name(nfa, from, kind->names);
    return gr_nfa_call(nfa, gr_separator(nfa, named, ':'), kind->values);
}

/* Undeclared ones, and the end, from all declared passed on. */
static void add_undeclared(object *o, gr_nfa *nfa, int32_t *states, size_t columns, int32_t to)
{
    gr_build *b = o->s->b;
    for (size_t c = 0; c < columns && !gr_bad(b); c++) {
        int32_t from = *state(states, columns, o->n, c);
        if ((int64_t)c >= o->min)
            gr_nfa_empty(nfa, gr_nfa_bytes(nfa, from, "}", 1), to);
        if (o->n_others == 0 || (o->max >= 0 && (int64_t)c >= o->max))
            continue;
        int32_t name = c > 0 ? gr_separator(nfa, from, ',') : from;
        for (size_t i = 0; i < o->n_others && !gr_bad(b); i++)
            gr_nfa_empty(nfa, add_other(nfa, name, &o->others[i]),
                         *state(states, columns, o->n, c + 1));
    }
}

/* Can there be as many properties as are asked for? */
static bool check_counts(object *o)
{
    int64_t possible = 0, required = 0;
    for (size_t i = 0; i < o->n; i++) {
        possible += o->properties[i].rule != GR_NONE;
        required += o->properties[i].required;
    }
    const json_t *schema = o->list->items[0];
    if (o->max >= 0 && o->max < o->min)
        gr_reason(o->s, schema, "has a 'maxProperties' below its 'minProperties'");
    else if (o->max >= 0 && o->max < required)
        gr_reason(o->s, schema, "has in 'required' more properties than its 'maxProperties'");
    else if (o->n_others == 0 && possible < o->min)
        gr_reason(o->s, schema, "has a 'minProperties' above the number of names that it allows");
    else
        return true;
    return false;
}

void gr_object_add(gr_schemas *s, gr_nfa *nfa, int32_t from, int32_t to, const gr_list *list)
{
    object o = {.s = s, .list = list};
    gr_build *b = s->b;
    o.min = gr_count_most(list, "minProperties", 0);
    o.max = gr_count_least(list, "maxProperties", -1);
    if (o.min > GR_MAX_ITEMS) {
        char place[200];
        gr_place(s, list->items[0], place);
        gr_fail(b, MARCO_ERROR_UNSUPPORTED, "%s: 'minProperties' above %d", place, GR_MAX_ITEMS);
        return;
    }
    if (o.max > GR_MAX_ITEMS)
        o.max = GR_MAX_ITEMS;
    const gr_dfa *allowed = allowed_names(&o);
    if (gr_bad(b) || !find_properties(&o, allowed))
        return;
    find_others(&o, allowed);
    if (gr_bad(b) || !check_counts(&o))
        return;
    int64_t most = o.max >= 0 ? o.max : o.min > 1 ? o.min : 1;
    size_t columns = (size_t)most + 1, n = (o.n + 1) * columns;
    int32_t *states = gr_take(b, n, sizeof *states);
    for (size_t i = 0; i < n && !gr_bad(b); i++)
        states[i] = gr_nfa_state(nfa);
    if (gr_bad(b))
        return;
    gr_nfa_empty(nfa, gr_nfa_bytes(nfa, from, "{", 1), states[0]);
    add_declared(&o, nfa, states, columns);
    add_undeclared(&o, nfa, states, columns, to);
}
