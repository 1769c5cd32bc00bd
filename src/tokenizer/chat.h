/* Inside the tokenizer room: chat templates, written out in C and recognised by their text. */
#ifndef TOKENIZER_CHAT_H
#define TOKENIZER_CHAT_H

#include <jansson.h>

#include "base/text.h"
#include "marco/marco.h"

/* ---- the known templates (chat_templates.c) ------------------------------------------------ */

typedef struct tok_chat_template {
    const char *name;
    const char *system; /* the system turn where the messages bring none; NULL: no such turn */
    const char *reply;  /* what follows the header of the turn to be generated */
    bool tools;         /* has tool definitions, calls and results; without, plain ChatML */
    bool qwen3_calls;   /* assistant turns as Qwen3 writes them, else as Qwen2.5 does */
    bool reasoning;     /* keeps the reasoning of the turns after the last question */
    bool switchable;    /* enable_thinking false ends the prompt with an empty reasoning block */
    bool double_braces; /* Qwen2.5's early text, whose example of a call has {{ and }} */
} tok_chat_template;

/* The kind (>= 1) of the template with this text, 0 where it is not a known one. Line ends may be
 * CRLF and one newline may follow: Jinja ignores both. NULL is allowed. */
int tok_chat_recognise(const char *text);

/* The kind of this name, 0 where there is none. */
int tok_chat_find(const char *name);

/* The template of a kind, NULL for 0. */
const tok_chat_template *tok_chat_template_of(int kind);

/* Appends "qwen3, qwen2.5, ...". */
void tok_chat_names(base_text *out);

/* ---- messages (chat_messages.c) ------------------------------------------------------------ */

typedef struct tok_span {
    const char *data; /* not NUL-terminated; NULL where a message has no such field */
    size_t size;
} tok_span;

typedef enum tok_chat_role {
    TOK_CHAT_SYSTEM,
    TOK_CHAT_USER,
    TOK_CHAT_ASSISTANT,
    TOK_CHAT_TOOL,
    TOK_CHAT_OTHER,
} tok_chat_role;

typedef struct tok_chat_message {
    tok_chat_role role;
    tok_span role_name, content, reasoning;
    json_t *calls; /* a non-empty array of objects, or NULL */
} tok_chat_message;

typedef struct tok_chat {
    json_t *messages_json, *tools_json; /* what the rest points into */
    tok_chat_message *messages;         /* [n], n >= 1 */
    size_t n;
    json_t *tools; /* a non-empty array of objects, or NULL */
} tok_chat;

/* Parses and checks what the template is to render, so that rendering meets no surprise. Errors
 * name the message by its index. tok_chat_free in every case. */
marco_status tok_chat_parse(const tok_chat_template *form, const marco_chat_params *params,
                            tok_chat *chat, marco_error *error);
void tok_chat_free(tok_chat *chat);

/* A tool call's "name" or "arguments", which stand in the call or in its "function". NULL where
 * there is none. */
json_t *tok_chat_call_field(const tok_chat_template *form, const json_t *call, const char *key);

/* ---- rendering (chat_render.c) ------------------------------------------------------------- */

typedef struct tok_chat_run {
    size_t end; /* offset in the text */
    bool trusted;
} tok_chat_run;

/* The text, and which parts of it are the template's own. */
typedef struct tok_chat_out {
    base_text text;
    tok_chat_run *runs; /* [n_runs], neighbours differ */
    size_t n_runs, capacity;
    bool failed; /* out of memory */
} tok_chat_out;

marco_status tok_chat_render(const tok_chat_template *form, const tok_chat *chat,
                             const marco_chat_params *params, tok_chat_out *out,
                             marco_error *error);
void tok_chat_out_free(tok_chat_out *out);

/* ---- JSON (chat_json.c) -------------------------------------------------------------------- */

/* Appends a value as Python's json.dumps(value, ensure_ascii=False) writes it, which is what a
 * template's `tojson` is. False where it is nested more than 512 deep. */
bool tok_chat_dump_json(json_t *value, base_text *out);

#endif
