/* Inside the grammar room: how a schema becomes an automaton.
 *
 * A grammar is a list of nodes. A node has edges by byte and calls of rules: a call goes on at the
 * rule's first node and comes back to the call's return node once a final node of the rule is
 * reached. That is a pushdown automaton whose stack holds return nodes. Every rule reads at least
 * one byte before it calls itself again.
 *
 * On the way there are languages of symbols: NFAs made from schemas and patterns, DFAs made from
 * those. A symbol is a code point where the language is one of strings (their values, not their
 * spelling), and a byte or a rule where it is one of JSON texts. */
#ifndef GRAMMAR_INTERNAL_H
#define GRAMMAR_INTERNAL_H

#include <jansson.h>
#include <stdatomic.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "grammar/grammar.h"

enum {
    GR_NONE = -1,
    GR_ENDLESS = UINT16_MAX, /* a node's run */
    GR_END = 0,              /* the node where the whole text is over: no edges */
    GR_MAX_DEPTH = 128,      /* return nodes on a stack */
    GR_MAX_SCHEMA = 1 << 20,
    GR_MAX_STRING = 8192,  /* characters of a string whose length is bounded */
    GR_MAX_ITEMS = 4096,   /* of an array whose length is bounded */
    GR_MAX_REPEAT = 1000,  /* {n,m} of a pattern */
    GR_MAX_PATTERN = 4096, /* bytes of a pattern */
    GR_MAX_ALTERNATIVES = 256,
    GR_MAX_NAMES = 64,    /* undeclared ones of an object, where they can run out */
    GR_MAX_NAME = 1024,   /* characters of such a name */
    GR_MAX_NESTING = 128, /* of groups in a pattern, of values in an enum */
    GR_BOUND_DIGITS = 48, /* of a bound, before or after its point */
    GR_DIGITS = 15,       /* of a number: as many as a double keeps */
};

#define GR_LAST_CODE_POINT 0x10FFFFu
#define GR_CALL            0x200000u /* symbol of rule r: GR_CALL + r */
#define GR_NAME            0x400000u /* the same where the text is a name that may not come twice */
#define GR_SYMBOL_EMPTY    0xFFFFFFF0u
#define GR_SYMBOL_BEGIN    0xFFFFFFF1u /* passes before the first symbol only */
#define GR_SYMBOL_END      0xFFFFFFF2u /* passes after the last symbol only */

/* ---- the finished automaton ---------------------------------------------------------------- */

typedef struct gr_edge {
    uint8_t low, high;
    int32_t to;
} gr_edge;

typedef struct gr_call {
    int32_t to; /* a rule while the grammar is built, then that rule's first node */
    int32_t back;
    bool name; /* whose text may not be that of another name of the same object */
} gr_call;

typedef struct gr_node {
    uint32_t edge, call; /* first of each */
    uint16_t n_edges, n_calls;
    /* So many plain characters (vocab.h) may follow, whichever they are; exact: and no more. */
    uint16_t run;
    uint8_t exact;
    uint8_t final;  /* the rule may end here */
    uint8_t simple; /* it may not, and calls no rule */
    int32_t height; /* fewest further return nodes with which the rule can be finished from here */
} gr_node;

typedef struct gr_memo gr_memo; /* memo.h */

struct marco_grammar {
    gr_node *nodes; /* [n_nodes] */
    gr_edge *edges;
    gr_call *calls;
    /* The edges again: table[node * n_classes + classes[byte]] is the node that the byte leads to,
     * 0 where it leads nowhere. NULL where it would be too large. */
    uint8_t classes[256];
    int32_t *table;
    int32_t n_classes;
    int32_t n_nodes, root; /* root: the first node of the rule that is the whole text */
    /* The first nodes are the same in every grammar, and call no others: what is known about them
     * is kept with the vocabulary. */
    int32_t n_common;
    _Atomic(gr_memo *) memo;
};

/* ---- building ------------------------------------------------------------------------------ */

typedef struct gr_block gr_block;
typedef struct gr_chars gr_chars; /* chars.h */

/* Memory for the time of a compilation, and its first error. Functions that make something return
 * what has no meaning once there is one; whoever needs to know asks gr_bad. */
typedef struct gr_build {
    gr_block *blocks, *kept; /* until they are forgotten; to the end */
    size_t taken;            /* bytes */
    uint64_t work;
    marco_status status;
    marco_error *error;
    gr_node *nodes;
    gr_edge *edges;
    gr_call *calls;
    size_t n_nodes, n_edges, n_calls, nodes_capacity, edges_capacity, calls_capacity;
    int32_t *rules; /* [n_rules] first nodes, GR_NONE while not known */
    size_t n_rules, rules_capacity;
    int32_t n_common;
    int32_t *counted; /* [n_counted] nodes within a string of at most so many further characters */
    size_t n_counted, counted_capacity;
    int32_t free_inside; /* within a string of any characters */
    gr_chars *wide[3];   /* of \d, \w and \s, once they have been asked for */
    int32_t closed;      /* after a string's closing quote */
    int32_t *tails[3];   /* [n_tails] by node: what reads 1 to 3 bytes before it; 0: none yet */
    size_t n_tails[3];
    struct gr_string_key *strings; /* [n_strings] that have a rule */
    size_t n_strings, strings_capacity;
    bool large;       /* the first error is that the schema is too large */
    char reason[256]; /* the first reason found why something cannot be matched, or "" */
} gr_build;

/* Rules that every grammar has. */
enum {
    GR_RULE_VALUE, /* any JSON value */
    GR_RULE_OBJECT,
    GR_RULE_ARRAY,
    GR_RULE_STRING,
    GR_RULE_NUMBER,
    GR_RULE_INTEGER,
    GR_RULES_COMMON,
};

static inline bool gr_bad(const gr_build *b)
{
    return b->status != MARCO_OK;
}

/* Remembers the first error. */
void gr_fail(gr_build *b, marco_status status, const char *format, ...) MARCO_PRINTF(3, 4);

/* Zeroed; NULL once there is an error. */
void *gr_take(gr_build *b, size_t count, size_t size);
/* Room for `need` elements in an array of this memory; false once there is an error. */
bool gr_room(gr_build *b, void **items, size_t *capacity, size_t need, size_t size);
/* Fails for being too large; gr_too_large_at says where instead, once that is known. */
void gr_too_large(gr_build *b);
void gr_too_large_at(gr_build *b, const char *place);
/* Counts steps of about 10 ns: too many are an error. Whatever takes time asks here. */
bool gr_work(gr_build *b, uint64_t steps);

/* The same, of memory that gr_forget leaves. */
void *gr_keep(gr_build *b, size_t count, size_t size);
bool gr_room_kept(gr_build *b, void **items, size_t *capacity, size_t need, size_t size);

/* gr_forget gives back what has been taken since the mark, but what is kept. */
typedef struct gr_mark {
    gr_block *block;
    size_t used;
} gr_mark;

gr_mark gr_mark_now(const gr_build *b);
void gr_forget(gr_build *b, const gr_mark *mark);

/* Begins a grammar with the common rules; finishes it with `rule` as the whole text; gives the
 * memory back, in every case. */
void gr_build_begin(gr_build *b, marco_error *error);
marco_status gr_build_end(gr_build *b, int32_t rule, marco_grammar **out);

int32_t gr_rule_new(gr_build *b);
int32_t gr_node_new(gr_build *b);
/* Once per node. */
void gr_node_fill(gr_build *b, int32_t node, const gr_edge *edges, size_t n_edges,
                  const gr_call *calls, size_t n_calls, bool final);

/* ---- NFAs (nfa.c) -------------------------------------------------------------------------- */

typedef struct gr_nfa_edge {
    uint32_t low, high;
    int32_t to, next; /* next: edge of the same state */
} gr_nfa_edge;

typedef struct gr_nfa {
    gr_build *b;
    int32_t *first; /* [n] edge of a state */
    gr_nfa_edge *edges;
    size_t n, n_edges, capacity, edges_capacity;
} gr_nfa;

int32_t gr_nfa_state(gr_nfa *nfa);
void gr_nfa_edge_add(gr_nfa *nfa, int32_t from, uint32_t low, uint32_t high, int32_t to);
void gr_nfa_empty(gr_nfa *nfa, int32_t from, int32_t to);
/* The bytes one after another; returns the state behind them. */
int32_t gr_nfa_bytes(gr_nfa *nfa, int32_t from, const char *bytes, size_t size);
int32_t gr_nfa_call(gr_nfa *nfa, int32_t from, int32_t rule);
/* A call of a name that may not come twice. Its rule must leave, whatever has been read of a name,
 * endlessly many to go on with (gr_dfa_endless), or come once at most. */
int32_t gr_nfa_name(gr_nfa *nfa, int32_t from, int32_t rule);

/* ---- DFAs (dfa.c) -------------------------------------------------------------------------- */

typedef struct gr_dfa_edge {
    uint32_t low, high;
    int32_t to;
} gr_dfa_edge;

typedef struct gr_dfa {
    int32_t n;          /* state 0 is the first; 0 states: the empty language */
    gr_dfa_edge *edges; /* of a state in order, apart from one another */
    uint32_t *begin;    /* [n + 1] */
    bool *final;        /* [n] */
} gr_dfa;

/* `sink`: a state from which everything is accepted, or GR_NONE. States from which nothing can be
 * accepted are left out where `trim` is set. */
gr_dfa *gr_dfa_of(gr_nfa *nfa, int32_t start, int32_t accept, int32_t sink, bool trim);
/* What both accept; what a accepts and b does not. */
gr_dfa *gr_dfa_and(gr_build *b, const gr_dfa *x, const gr_dfa *y);
gr_dfa *gr_dfa_without(gr_build *b, const gr_dfa *x, const gr_dfa *y);
/* All strings; strings of min to max characters (max < 0: no bound); these strings. */
gr_dfa *gr_dfa_all(gr_build *b);
gr_dfa *gr_dfa_lengths(gr_build *b, int64_t min, int64_t max);
gr_dfa *gr_dfa_texts(gr_build *b, const char *const *texts, const size_t *sizes, size_t n);
/* Are there endlessly many strings, whatever they begin with? */
bool gr_dfa_endless(gr_build *b, const gr_dfa *dfa);
bool gr_dfa_accepts(gr_build *b, const gr_dfa *dfa, const char *text, size_t size);

/* The rule whose texts are these JSON texts. */
void gr_emit_rule(gr_build *b, int32_t rule, const gr_dfa *dfa);

/* ---- strings (lower.c, pattern.c, format.c) ------------------------------------------------ */

/* The rule of JSON strings whose value the DFA accepts. */
int32_t gr_string_rule(gr_build *b, const gr_dfa *dfa);
/* Of min to max characters; max < 0: no bound. */
int32_t gr_counted_rule(gr_build *b, int64_t min, int64_t max);
/* The node within a string, and the rule, of any characters: builds them. */
void gr_free_string(gr_build *b, int32_t rule);

/* Appends the JSON spelling that the automata know: quotes, backslashes and control characters
 * escaped, the short way where there is one. */
void gr_escape(base_text *out, const char *text, size_t size);

/* ---- numbers (number.c) -------------------------------------------------------------------- */

typedef struct gr_numbers {
    bool integer, has_low, has_high, low_open, high_open; /* open: the bound itself is not in */
    const json_t *low, *high;
    int64_t multiple; /* 1: any */
} gr_numbers;

/* Adds the numbers between two states. False where there are none that have so few digits as are
 * written; *beyond: it is a bound that has too many. */
bool gr_numbers_add(gr_nfa *nfa, int32_t from, int32_t to, const gr_numbers *numbers, bool *beyond);

/* ---- values (values.c) --------------------------------------------------------------------- */

/* Adds one value, written in one way but for the space that may follow a colon or comma. */
int32_t gr_value_add(gr_nfa *nfa, int32_t from, const json_t *value, int depth);
/* A separator, and the space that may follow it. */
int32_t gr_separator(gr_nfa *nfa, int32_t from, char c);
/* As JSON Schema compares: 1 and 1.0 are equal. */
bool gr_value_equal(gr_build *b, const json_t *x, const json_t *y);
/* Of two numbers. */
int gr_number_compare(const json_t *x, const json_t *y);
bool gr_number_integral(const json_t *x);

/* The rule of documents that all of the schemas accept. `root` is the document that they lie in,
 * `prefix` what the pointers in errors begin with. */
int32_t gr_schema_rule(gr_build *b, const json_t *root, const json_t *const *schemas, size_t n,
                       const char *prefix);

#endif
