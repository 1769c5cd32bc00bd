/* A reply's text as it comes, taken apart: reasoning, content, calls of tools.
 *
 * Reasoning is what stands between <think> and </think> at the beginning. A call is what Qwen's
 * templates ask for, <tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>. What only looks
 * like a call is content: nothing of a reply is lost but the tags, and the newlines around them. */
#ifndef SERVE_API_PARSER_H
#define SERVE_API_PARSER_H

#include <stdbool.h>
#include <stddef.h>

typedef enum api_reasoning {
    API_REASONING_NONE,  /* <think> is text like other text */
    API_REASONING_MAY,   /* the reply may begin with it */
    API_REASONING_BEGUN, /* the prompt has begun it */
} api_reasoning;

/* Pieces, not NUL-terminated; text and reasoning never empty. `name` is NUL-terminated, the
 * arguments the text of a JSON object as the model wrote it. */
typedef struct api_parser_events {
    void *user;
    void (*on_text)(void *user, const char *text, size_t size);
    void (*on_reasoning)(void *user, const char *text, size_t size);
    void (*on_call)(void *user, const char *name, const char *arguments, size_t size);
} api_parser_events;

typedef struct api_parser api_parser;

/* `tools`: look for calls. NULL when out of memory. */
api_parser *api_parser_create(api_reasoning reasoning, bool tools, const api_parser_events *events);
void api_parser_free(api_parser *parser);

/* False when out of memory; events of the text so far have been called. */
bool api_parser_add(api_parser *parser, const char *text, size_t size);

/* The reply is over: what was held back is handed on. */
bool api_parser_end(api_parser *parser);

#endif
