/* Compiled grammars, the latest asked for: one that comes with every request of a program is
 * compiled once, and keeps what it has found out about the vocabulary. Any thread. */
#ifndef SERVE_GRAMMARS_H
#define SERVE_GRAMMARS_H

#include "marco/scheduler.h"

typedef struct serve_grammars serve_grammars;

marco_status serve_grammars_create(serve_grammars **out, marco_error *error);

/* None is in use. NULL is allowed. */
void serve_grammars_free(serve_grammars *grammars);

typedef enum serve_grammar_kind {
    SERVE_GRAMMAR_OBJECT, /* any JSON object */
    SERVE_GRAMMAR_SCHEMA,
    SERVE_GRAMMAR_TOOL,  /* one call */
    SERVE_GRAMMAR_TOOLS, /* one call or several */
} serve_grammar_kind;

/* The grammar of a schema or of tools, `text`, of which `tool` is to be called (NULL: any of them);
 * held until serve_grammars_release. Errors: marco_grammar_from_schema and _from_tools. */
marco_status serve_grammars_get(serve_grammars *grammars, serve_grammar_kind kind, const char *text,
                                const char *tool, const marco_grammar **out, marco_error *error);

/* NULL is allowed. */
void serve_grammars_release(serve_grammars *grammars, const marco_grammar *grammar);

#endif
