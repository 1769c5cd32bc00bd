/* Between the files that compile schemas. */
#ifndef GRAMMAR_SCHEMA_H
#define GRAMMAR_SCHEMA_H

#include "grammar/internal.h"

enum {
    GR_NULL = 1,
    GR_BOOLEAN = 2,
    GR_WHOLE = 4,   /* integers */
    GR_PARTIAL = 8, /* numbers that are none */
    GR_STRING = 16,
    GR_OBJECT = 32,
    GR_ARRAY = 64,
    GR_ANY = 127,
};

/* Schemas that must all hold. */
typedef struct gr_list {
    const json_t **items;
    size_t n, capacity;
} gr_list;

typedef struct gr_schemas {
    gr_build *b;
    const json_t *root;
    const char *prefix;
    bool proving; /* that two schemas are disjoint: oneOf within them is taken for anyOf */
    struct gr_rule_key *keys; /* [n_keys] */
    size_t n_keys, keys_capacity;
} gr_schemas;

/* "#/properties/a": where a schema lies, cut to the size of `out`. It looks through the whole
 * document: for errors alone. */
void gr_place(const gr_schemas *s, const json_t *schema, char out[200]);

void gr_list_add(gr_build *b, gr_list *list, const json_t *schema);

/* Why something can never be matched; the first reason is kept. */
void gr_reason(gr_schemas *s, const json_t *schema, const char *why);

/* ---- keywords.c ---------------------------------------------------------------------------- */

/* Refuses keywords that are not known or not supported, and values that they cannot have. */
void gr_check_keywords(gr_schemas *s, const json_t *schema);
/* The same of a schema and all within it, used or not. */
void gr_check_document(gr_schemas *s, const json_t *schema);
/* What a $ref refers to; NULL and an error where there is no such schema. */
const json_t *gr_resolve(gr_schemas *s, const json_t *schema, const char *ref);
/* Types of a "type" keyword. */
unsigned gr_types(const json_t *type);
/* Types that the keywords of a schema speak of. */
unsigned gr_types_implied(gr_schemas *s, const json_t *schema);

/* The largest (smallest) value of a count among the schemas, `otherwise` where none has it. */
int64_t gr_count_most(const gr_list *list, const char *key, int64_t otherwise);
int64_t gr_count_least(const gr_list *list, const char *key, int64_t otherwise);

/* ---- expand.c ------------------------------------------------------------------------------ */

typedef struct gr_alternatives {
    gr_list *items;
    size_t n, capacity;
} gr_alternatives;

/* Resolves $ref, allOf, anyOf and oneOf: lists of schemas of which one must hold. In them these
 * keywords have no further meaning. None: nothing can match. */
void gr_expand(gr_schemas *s, const gr_list *schemas, gr_alternatives *out);

/* ---- validate.c ---------------------------------------------------------------------------- */

/* Does the schema accept the value? `plain`: without regard to $ref, allOf, anyOf and oneOf. */
bool gr_accepts(gr_schemas *s, const json_t *schema, const json_t *value, bool plain, int depth);
/* The values that an enum or const of the schemas lists and that all of them accept, as a new
 * array in *out; *out is NULL where there is none such keyword. False: out of memory. */
bool gr_enumerated(gr_schemas *s, const gr_list *list, json_t **out);
/* Certainly no value is accepted by both lists. */
bool gr_disjoint(gr_schemas *s, const gr_list *x, const gr_list *y, int depth);

/* ---- schema.c ------------------------------------------------------------------------------ */

/* The types that all of the schemas allow. `infer`: where none says any, those that they speak
 * of. */
unsigned gr_types_of(gr_schemas *s, const gr_list *list, bool infer);
/* The strings that all of the schemas allow, but for enum and const; NULL: all. */
const gr_dfa *gr_strings_of(gr_schemas *s, const gr_list *list);
/* False where there can be none. */
bool gr_numbers_of(gr_schemas *s, const gr_list *list, bool integer, gr_numbers *out);
/* The rule of the values that all of the schemas accept; compiled later. */
int32_t gr_rule_for(gr_schemas *s, const gr_list *schemas);

/* ---- pattern.c, format.c ------------------------------------------------------------------- */

/* Strings that a pattern of ECMA-262 (with the u flag) matches somewhere; `schema` has it. */
gr_dfa *gr_pattern(gr_schemas *s, const json_t *schema, const char *pattern, size_t size);
/* Strings of a format; NULL and an error where it is not known. */
gr_dfa *gr_format(gr_schemas *s, const json_t *schema, const char *name);

/* ---- object.c ------------------------------------------------------------------------------ */

/* The schemas that a property's value must satisfy, `false` among them where it may not be. */
void gr_property(gr_schemas *s, const gr_list *list, const char *name, size_t size, gr_list *out);
/* Adds objects. */
void gr_object_add(gr_schemas *s, gr_nfa *nfa, int32_t from, int32_t to, const gr_list *list);

#endif
