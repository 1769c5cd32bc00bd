/* From schemas that combine others to lists of plain ones. */
#include <string.h>

#include "grammar/schema.h"

/* A schema on its way into a list, with the one that brought it (an index of `met`). */
typedef struct step {
    const json_t *schema;
    int32_t by;
} step;

/* One way of choosing among anyOf and oneOf. */
typedef struct choice {
    step *met; /* [n_met] schemas in the list */
    step *due; /* [n_due] those before `next` are done */
    size_t n_met, n_due, next, met_capacity, due_capacity;
} choice;

typedef struct expansion {
    gr_schemas *s;
    choice *open; /* [n_open] */
    size_t n_open, capacity, n_choices;
} expansion;

static void add_step(gr_build *b, step **steps, size_t *n, size_t *capacity, const json_t *schema,
                     int32_t by)
{
    void *items = *steps;
    if (!gr_room(b, &items, capacity, *n + 1, sizeof **steps))
        return;
    *steps = items;
    (*steps)[(*n)++] = (step){schema, by};
}

static void due(gr_build *b, choice *c, const json_t *schema, int32_t by)
{
    add_step(b, &c->due, &c->n_due, &c->due_capacity, schema, by);
}

/* A copy that goes on with another branch. */
static void branch(expansion *e, const choice *c, const json_t *schema, int32_t by)
{
    gr_build *b = e->s->b;
    choice copy = {.next = c->next};
    char place[200];
    if (++e->n_choices > GR_MAX_ALTERNATIVES) {
        gr_place(e->s, c->met[by].schema, place);
        gr_fail(b, MARCO_ERROR_UNSUPPORTED, "%s: more than %d combinations of alternatives", place,
                GR_MAX_ALTERNATIVES);
        return;
    }
    for (size_t i = 0; i < c->n_met; i++)
        add_step(b, &copy.met, &copy.n_met, &copy.met_capacity, c->met[i].schema, c->met[i].by);
    for (size_t i = 0; i < c->n_due; i++)
        due(b, &copy, c->due[i].schema, c->due[i].by);
    due(b, &copy, schema, by);
    void *open = e->open;
    if (!gr_room(b, &open, &e->capacity, e->n_open + 1, sizeof *e->open))
        return;
    e->open = open;
    e->open[e->n_open++] = copy;
}

static void check_disjoint(gr_schemas *s, const json_t *schema, const json_t *branches)
{
    char place[200];
    size_t n = json_array_size(branches);
    for (size_t i = 0; i < n && !gr_bad(s->b); i++)
        for (size_t k = i + 1; k < n && !gr_bad(s->b); k++) {
            gr_list x = {0}, y = {0};
            gr_list_add(s->b, &x, json_array_get(branches, i));
            gr_list_add(s->b, &y, json_array_get(branches, k));
            if (gr_bad(s->b) || gr_disjoint(s, &x, &y, 0))
                continue;
            gr_place(s, schema, place);
            gr_fail(
                s->b, MARCO_ERROR_UNSUPPORTED,
                "%s: 'oneOf' is supported where no value can match two branches; branches %zu "
                "and %zu may both match: use 'anyOf', or a property with a different 'const' in "
                "each",
                place, i, k);
        }
}

/* Takes in one schema. False where nothing can match. */
static bool take(expansion *e, choice *c, const json_t *schema, int32_t by)
{
    gr_schemas *s = e->s;
    gr_build *b = s->b;
    char place[200];
    if (json_is_true(schema))
        return true;
    if (json_is_false(schema)) {
        gr_reason(s, by < 0 ? s->root : c->met[by].schema, "has a schema that is 'false'");
        return false;
    }
    if (!gr_work(b, c->n_met / 4 + 8))
        return false;
    for (int32_t i = by; i >= 0; i = c->met[i].by)
        if (c->met[i].schema == schema) {
            gr_place(s, schema, place);
            gr_fail(b, MARCO_ERROR_ARGUMENT, "%s: the schema refers to itself without end", place);
            return false;
        }
    for (size_t i = 0; i < c->n_met; i++)
        if (c->met[i].schema == schema)
            return true;
    gr_check_keywords(s, schema);
    if (gr_bad(b))
        return false;
    int32_t me = (int32_t)c->n_met;
    add_step(b, &c->met, &c->n_met, &c->met_capacity, schema, by);
    const char *ref = json_string_value(json_object_get(schema, "$ref"));
    const json_t *target = ref ? gr_resolve(s, schema, ref) : NULL;
    if (target)
        due(b, c, target, me);
    const json_t *all = json_object_get(schema, "allOf");
    for (size_t i = 0; i < json_array_size(all) && !gr_bad(b); i++)
        due(b, c, json_array_get(all, i), me);
    const json_t *any = json_object_get(schema, "anyOf"), *one = json_object_get(schema, "oneOf");
    if (one && !s->proving)
        check_disjoint(s, schema, one);
    if (any && one) {
        gr_place(s, schema, place);
        gr_fail(b, MARCO_ERROR_UNSUPPORTED, "%s: 'anyOf' and 'oneOf' in one schema", place);
    }
    any = any ? any : one;
    for (size_t i = 1; i < json_array_size(any) && !gr_bad(b); i++)
        branch(e, c, json_array_get(any, i), me);
    if (any && !gr_bad(b))
        due(b, c, json_array_get(any, 0), me);
    return !gr_bad(b);
}

void gr_expand(gr_schemas *s, const gr_list *schemas, gr_alternatives *out)
{
    expansion e = {.s = s};
    gr_build *b = s->b;
    choice first = {0};
    *out = (gr_alternatives){0};
    for (size_t i = 0; i < schemas->n; i++)
        due(b, &first, schemas->items[i], GR_NONE);
    void *open = NULL;
    if (!gr_room(b, &open, &e.capacity, 1, sizeof *e.open))
        return;
    e.open = open;
    e.open[e.n_open++] = first;
    /* Choices are finished in the order of the branches. */
    for (size_t i = 0; i < e.n_open && !gr_bad(b); i++) {
        choice c = e.open[i];
        bool possible = true;
        while (possible && c.next < c.n_due) {
            step next = c.due[c.next++];
            possible = take(&e, &c, next.schema, next.by);
        }
        if (!possible)
            continue;
        void *items = out->items;
        if (!gr_room(b, &items, &out->capacity, out->n + 1, sizeof *out->items))
            return;
        out->items = items;
        gr_list list = {0};
        for (size_t k = 0; k < c.n_met; k++)
            gr_list_add(b, &list, c.met[k].schema);
        out->items[out->n++] = list;
    }
}
