/* scheduler.h - many replies at once from one engine.
 *
 * A scheduler owns a thread that runs the model for all its requests: they join and leave between
 * tokens, prompts are read in slices between the tokens of others, and what was computed for an
 * earlier request is used again by a later one that begins alike. A request's reply is the same, to
 * the bit, as if it had been alone.
 */
#ifndef MARCO_SCHEDULER_H
#define MARCO_SCHEDULER_H

#include <marco/marco.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- grammars ------------------------------------------------------------------------------ */

/* What texts a reply may be: immutable, shared by threads. */
typedef struct marco_grammar marco_grammar;

/* The JSON documents, written without needless space, that a JSON Schema (draft 2020-12, a JSON
 * text of `size` bytes) accepts. A keyword that is not supported is MARCO_ERROR_UNSUPPORTED with
 * its name and place; see docs/structured-output.md for those that are. */
MARCO_API marco_status marco_grammar_from_schema(const char *schema, size_t size,
                                                 marco_grammar **out, marco_error *error);

/* Any JSON object. */
MARCO_API marco_status marco_grammar_json_object(marco_grammar **out, marco_error *error);

/* Calls of tools, in the form that the Qwen templates ask for, nothing before or after them:
 * <tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>. `tools` is the JSON array of
 * definitions as the OpenAI API has them, whose "parameters" are schemas; `name` the one to be
 * called, or NULL for any of them. `several`: calls may follow one another, a newline between. */
MARCO_API marco_status marco_grammar_from_tools(const char *tools, size_t size, const char *name,
                                                bool several, marco_grammar **out,
                                                marco_error *error);

/* No request may still use it. NULL is allowed. */
MARCO_API void marco_grammar_free(marco_grammar *grammar);

/* ---- the scheduler ------------------------------------------------------------------------- */

typedef struct marco_scheduler marco_scheduler;

typedef struct marco_scheduler_params {
    int32_t parallel; /* replies generated at once, 1 to 256; 0: 8 */
    int32_t queue;    /* submissions that may wait for their turn; 0: 64 */
    int32_t n_ctx;    /* tokens of a prompt with its reply; 0: what the model was made for, or less
                       * where the memory for KV caches holds less */
    int32_t chunk;    /* prompt tokens per forward pass; 0: 512. No effect on any result. */
    marco_kv_type kv_type;
    uint64_t kv_bytes; /* KV caches of all requests under way and of those kept; 0: three quarters
                        * of the memory available */
    uint64_t cache_bytes; /* of these, kept of finished requests for later ones; 0: none */
} marco_scheduler_params;

/* All zero, but a cache of an eighth of the memory available, at most 8 GiB. */
MARCO_API marco_scheduler_params marco_scheduler_params_default(void);

/* The engine outlives the scheduler. */
MARCO_API marco_status marco_scheduler_create(marco_engine *engine,
                                              const marco_scheduler_params *params,
                                              marco_scheduler **out, marco_error *error);

/* Cancels what is still under way, waits for its thread. NULL is allowed. */
MARCO_API void marco_scheduler_close(marco_scheduler *scheduler);

/* Tokens of a prompt with its reply. */
MARCO_API int32_t marco_scheduler_context(const marco_scheduler *scheduler);

/* ---- requests ------------------------------------------------------------------------------ */

typedef struct marco_token_score {
    int32_t id;
    float logprob; /* natural, of the model's own distribution: before bias, penalties, temperature
                    * and grammar */
} marco_token_score;

/* A token and the likeliest at its place. */
typedef struct marco_token_event {
    int32_t id;                   /* -1: text only, that was held back until the end */
    float logprob;                /* where asked for */
    const marco_token_score *top; /* [n_top], the likeliest first */
    size_t n_top;
    /* What has become certain to belong to the reply: whole characters, possibly none, and not only
     * this token's. size 0: none. Not NUL-terminated. Empty for tokens of the prompt. */
    const char *text;
    size_t size;
} marco_token_event;

typedef struct marco_request_result {
    marco_status status; /* MARCO_OK, or why there is no (whole) reply */
    const char *message; /* for the user, where status is not MARCO_OK and not CANCELLED */
    marco_finish finish;
    const char *stop;                   /* the stop string that ended the reply, or NULL */
    size_t n_prompt, n_cached, n_reply; /* tokens; those of the prompt not computed again; the
                                         * reply's, a token that ends it included */
    double wait_seconds, prefill_seconds, decode_seconds;
} marco_request_result;

/* Called from the scheduler's thread, never two at once for one scheduler. They must return soon,
 * and may call marco_request_cancel alone of what is declared here; the last one may release the
 * request, and free its grammar where no other uses it. Each may be NULL. */
typedef struct marco_request_events {
    void *user;
    /* So much of the prompt has been read, from time to time while that takes long. */
    void (*on_prompt)(void *user, size_t done, size_t total);
    /* A token of the prompt, by its index, with the score that the tokens before it gave it; those
     * of the first are NaN and n_top 0. Only where prompt_scores asks for them; before any
     * on_token. */
    void (*on_prompt_token)(void *user, size_t index, const marco_token_event *event);
    void (*on_token)(void *user, const marco_token_event *event);
    /* Exactly once for a submitted request, the last call. `result` lives until it returns. */
    void (*on_finish)(void *user, const marco_request_result *result);
} marco_request_events;

/* Everything is copied but the grammar, which must outlive the request. */
typedef struct marco_request_params {
    const int32_t *prompt; /* [n_prompt], n_prompt >= 1 */
    size_t n_prompt;
    int32_t max_tokens; /* >= 0; < 0: until the context is full */
    marco_sampling sampling;
    const char *const *stop; /* [n_stop] strings ending the reply, themselves left out */
    size_t n_stop;
    bool ignore_eos;
    bool special;                 /* show special tokens in the text */
    int32_t n_top;                /* likeliest tokens to report, 0 to 64 */
    bool scores;                  /* of the reply's tokens: logprob and top */
    bool prompt_scores;           /* of the prompt's tokens */
    const marco_grammar *grammar; /* what the reply must be; NULL: anything */
    marco_request_events events;
} marco_request_params;

/* The checkpoint's sampling, until end of text, no scores. */
MARCO_API marco_request_params marco_request_params_default(const marco_engine *engine);

typedef struct marco_request marco_request;

/* Submits n >= 1 requests that belong together: they take one place in the queue, and are begun as
 * there is room for them. `client` says whose they are: clients take turns. requests [n] receives a
 * handle each, to be released by the caller; they are all NULL when it fails, and then no event is
 * called. MARCO_ERROR_BUSY: the queue is full. MARCO_ERROR_CONTEXT: a prompt does not fit.
 * MARCO_ERROR_ARGUMENT names what is out of range. Any thread, events excepted. */
MARCO_API marco_status marco_scheduler_submit(marco_scheduler *scheduler, uint64_t client,
                                              const marco_request_params *params, size_t n,
                                              marco_request **requests, marco_error *error);

/* Ends the request before its next token; on_finish tells MARCO_FINISH_CANCELLED, unless it has
 * been called already. Any thread, at any time before the release; returns at once. */
MARCO_API void marco_request_cancel(marco_request *request);

/* The caller is done with the handle; does not cancel. */
MARCO_API void marco_request_release(marco_request *request);

/* ---- state --------------------------------------------------------------------------------- */

typedef struct marco_scheduler_stats {
    int32_t parallel, active; /* replies that may be, and that are, under way */
    int32_t queue, waiting;   /* submissions that may wait, and that do */
    uint64_t requests;        /* finished, cancelled ones included */
    uint64_t prompt_tokens, cached_tokens, reply_tokens;
    uint64_t passes;   /* that decoded */
    uint64_t kv_bytes; /* of all requests and of the cache, shared pages once */
    uint64_t cache_entries;
    double busy_seconds; /* in which the model ran */
} marco_scheduler_stats;

/* At any time, from any thread. */
MARCO_API void marco_scheduler_stats_get(marco_scheduler *scheduler, marco_scheduler_stats *out);

/* Writes the cache of finished requests to `path`, at most `limit` bytes of the latest ones, whole
 * or not at all; reads it back. A file of another model, another type of cache or another
 * instruction level is MARCO_ERROR_UNSUPPORTED, a damaged one MARCO_ERROR_FORMAT; neither has any
 * effect. Not while requests are under way. */
MARCO_API marco_status marco_scheduler_save(marco_scheduler *scheduler, const char *path,
                                            uint64_t limit, marco_error *error);
MARCO_API marco_status marco_scheduler_load(marco_scheduler *scheduler, const char *path,
                                            marco_error *error);

#ifdef __cplusplus
}
#endif
#endif
