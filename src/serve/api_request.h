/* What a client asks for, checked: the bodies of the three ways to ask for a reply. */
#ifndef SERVE_API_REQUEST_H
#define SERVE_API_REQUEST_H

#include "serve/api_json.h"

typedef enum api_form {
    API_CHAT,       /* POST /v1/chat/completions */
    API_COMPLETION, /* POST /v1/completions */
    API_MESSAGES,   /* POST /v1/messages */
    API_COUNT,      /* POST /v1/messages/count_tokens */
} api_form;

typedef enum api_tool_choice {
    API_TOOL_NONE, /* no tools, or they are not to be called: the model does not hear of them */
    API_TOOL_AUTO,
    API_TOOL_REQUIRED,
    API_TOOL_NAMED,
} api_tool_choice;

typedef enum api_reply_format {
    API_FORMAT_TEXT,
    API_FORMAT_OBJECT, /* any JSON object */
    API_FORMAT_SCHEMA,
} api_reply_format;

enum {
    API_MAX_N = 16,
    API_MAX_STOP = 16,
    API_MAX_STOP_BYTES = 256,
    API_MAX_TOP = 20,
    API_MAX_MESSAGES = 1 << 14,
    API_MAX_TOOLS = 128,
    API_MAX_BIAS = 1024,
    API_MAX_PROMPTS = 2048,
    API_MAX_CHOICES = 4096,   /* prompts times n */
    API_MAX_SCORES = 2 << 20, /* of the tokens of prompts, the likeliest at their places included */
};

/* Text, or ids where text is NULL. */
typedef struct api_prompt {
    const char *text; /* [size] */
    size_t size;
    int32_t *ids; /* [n] */
    size_t n;
} api_prompt;

/* NaN, -1 and NULL stand for what was not said; the model's own defaults apply then. */
typedef struct api_request {
    api_form form;
    json_t *body;      /* what strings here point into */
    const char *model; /* NULL: the default */
    /* A chat: JSON texts for marco_chat_encode and marco_grammar_from_tools. */
    char *messages, *tools;
    int enable_thinking;
    api_tool_choice tool_choice;
    const char *tool_name; /* of API_TOOL_NAMED */
    bool parallel;         /* several calls in a reply */
    api_prompt *prompts;   /* [n_prompts] of a completion */
    size_t n_prompts;
    bool echo;
    int32_t n, max_tokens;
    bool stream, include_usage;
    bool logprobs;
    int32_t n_top;
    double temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    int32_t top_k;
    bool seeded;
    uint64_t seed;
    const char *stop[API_MAX_STOP];
    size_t n_stop;
    marco_logit_bias *bias; /* [n_bias] */
    size_t n_bias;
    bool ignore_eos;
    api_reply_format format;
    char *schema; /* JSON text of API_FORMAT_SCHEMA */
} api_request;

/* Reads a body. api_request_free in every case. */
bool api_request_parse(api_form form, const char *body, size_t size, api_request *out,
                       api_refusal *refusal);
void api_request_free(api_request *request);

/* Releases what was sent, for the time of the reply: only what is no text stays (n, stream, ...).
 */
void api_request_slim(api_request *request);

/* The sampling asked for, over the model's own; the biases stay the request's. */
marco_sampling api_request_sampling(const api_request *request, marco_sampling model);

/* ---- parts (api_chat.c, api_completion.c, api_messages.c) ---------------------------------- */

bool api_parse_chat(const api_object *body, api_request *out);
bool api_parse_completion(const api_object *body, api_request *out);
bool api_parse_messages(const api_object *body, api_request *out);

/* Members that chats and completions share: sampling, n, stop, stream, ... */
bool api_parse_common(const api_object *body, api_request *out);

/* "stop" or "stop_sequences". */
bool api_parse_stop(const api_object *body, const char *key, api_request *out);

/* 1 to 64 letters, digits, _ and -: what a function may be called. */
bool api_is_function_name(const char *name);

/* A string, or a list of parts {"type": "text", "text": ...} joined by newlines, as a new JSON
 * string in *out; `members` are those of a part. An absent one is NULL and no error. */
bool api_parse_text(const api_object *object, const char *key, const api_member *members,
                    json_t **out);

/* "messages" is an array, neither empty nor too long. */
bool api_check_messages(const api_object *body);

/* Whether one of the first n definitions, in OpenAI's form, has that name. */
bool api_has_tool(const json_t *tools, size_t n, const char *name);

/* Results of tools stand after the turn that called them, one for each call; the template has no
 * ids, so they are put in the order of the calls. `messages` is a list that was checked otherwise.
 */
bool api_order_results(json_t *messages, api_refusal *refusal);

#endif
