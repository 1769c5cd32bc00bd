/* Replies as JSON, in the words of each API: whole, or as the events of a stream. */
#ifndef SERVE_API_REPLY_H
#define SERVE_API_REPLY_H

#include "base/text.h"
#include "marco/scheduler.h"
#include "serve/api_request.h"

typedef enum api_finish {
    API_UNFINISHED,
    API_FINISH_STOP,
    API_FINISH_STRING, /* a stop string */
    API_FINISH_LENGTH,
    API_FINISH_CALLS,
} api_finish;

typedef struct api_call {
    size_t index; /* among the calls of its choice */
    char id[40];
    char *name, *arguments; /* the latter the text of a JSON object */
} api_call;

/* One of the replies to a request: of a stream what has not been written yet, else all of it. */
typedef struct api_choice {
    base_text text, reasoning;
    api_call *calls; /* [n_calls] */
    size_t n_calls, calls_capacity, calls_seen;
    /* Scores, where they are asked for: JSON without the brackets around. A chat's are objects in
     * `tokens`. */
    base_text tokens, values, tops, offsets;
    api_finish finish;
    char *stop; /* of API_FINISH_STRING */
} api_choice;

typedef struct api_reply {
    api_form form;
    char id[48];
    const char *model;
    int64_t created;
    bool logprobs;
    bool include_usage;  /* in a stream's last chunk */
    api_choice *choices; /* [n] */
    size_t n;
    size_t n_prompt, n_cached, n_reply; /* tokens */
    /* Of a stream of API_MESSAGES. */
    size_t blocks;     /* begun so far */
    const char *block; /* "text" or "thinking", the one that is open, or NULL */
} api_reply;

void api_choice_clear(api_choice *choice); /* but the finish, and how many calls were seen */
void api_choice_free(api_choice *choice);
size_t api_choice_bytes(const api_choice *choice); /* that it holds */

/* False when out of memory. */
bool api_choice_add_call(api_choice *choice, api_form form, const char *name, const char *arguments,
                         size_t size);

/* `prefix` and 24 random letters and digits. */
void api_random_id(char *out, size_t size, const char *prefix);

/* The bytes of a token, as far as it has any; its name: the text where it is one, else its bytes
 * as "bytes:\xe2\x80", else "token_id:7". */
void api_token_bytes(const marco_tokenizer *tokenizer, int32_t id, base_text *bytes);
void api_token_name(const char *bytes, size_t size, int32_t id, base_text *name);

/* Adds a token's scores to those of a choice. `offset`: where it begins in the text, characters.
 * A logprob of NaN: there is none. */
void api_choice_add_scores(api_choice *choice, api_form form, const marco_tokenizer *tokenizer,
                           const marco_token_event *event, size_t offset);

/* Each appends to `out`; failures of memory are `out`'s. */
void api_write_whole(const api_reply *reply, base_text *out);
/* The events of a stream: its beginning; what a choice holds (which is then empty); a choice's end;
 * the end of all; an error in place of it. */
void api_write_start(api_reply *reply, base_text *out);
void api_write_delta(api_reply *reply, size_t index, base_text *out);
void api_write_finish(api_reply *reply, size_t index, base_text *out);
void api_write_end(const api_reply *reply, base_text *out);
void api_write_error(api_form form, int status, const char *message, base_text *out);
/* So much of the prompt has been read: keeps the client waiting. */
void api_write_progress(api_form form, size_t done, size_t total, base_text *out);

/* As JSON strings. */
void api_add_string(base_text *out, const char *text);
void api_add_text(base_text *out, const base_text *text);

/* ---- by API (api_reply_openai.c, api_reply_anthropic.c) ------------------------------------ */

void api_openai_whole(const api_reply *reply, base_text *out);
void api_openai_start(const api_reply *reply, base_text *out);
void api_openai_delta(const api_reply *reply, size_t index, base_text *out);
void api_openai_finish(const api_reply *reply, size_t index, base_text *out);
void api_openai_end(const api_reply *reply, base_text *out);

void api_anthropic_whole(const api_reply *reply, base_text *out);
void api_anthropic_start(const api_reply *reply, base_text *out);
void api_anthropic_delta(api_reply *reply, size_t index, base_text *out);
void api_anthropic_finish(api_reply *reply, size_t index, base_text *out);
void api_anthropic_end(const api_reply *reply, base_text *out);

#endif
