/* marco.h - the public interface of libmarco.
 *
 * An engine is a loaded model: immutable, shared by threads. A session is one timeline of tokens
 * with its key/value cache. Everything a program does with a model goes through these two objects.
 *
 * Conventions
 *   - Functions that can fail return a marco_status: MARCO_OK (0) or a negative code. Those taking
 *     a `marco_error *` (which may be NULL) also fill it with one line a user can act on.
 *   - Pointers returned through `out` parameters belong to the caller: objects are released with
 *     their own _close/_free function, plain memory with marco_free().
 *   - Text is UTF-8. Token ids are int32_t, >= 0 and < the vocabulary's size. Sizes are bytes.
 *   - The library never prints, exits or aborts, and keeps no state outside these objects.
 *   - Pointers may not be NULL unless the text says so. Functions that return a marco_status and
 *     create something set *out to NULL when they fail.
 */
#ifndef MARCO_MARCO_H
#define MARCO_MARCO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MARCO_API               __attribute__((visibility("default")))
#define MARCO_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define MARCO_API
#define MARCO_PRINTF(fmt, args)
#endif

/* ---- status and errors ------------------------------------------------------------------- */

/* X(name, code, text): the one list of status codes. */
#define MARCO_STATUS_LIST(X)                                                                       \
    X(OK, 0, "success")                                                                            \
    X(ERROR_MEMORY, -1, "out of memory")                                                           \
    X(ERROR_IO, -2, "input/output error")                                                          \
    X(ERROR_NOT_FOUND, -3, "not found")                                                            \
    X(ERROR_FORMAT, -4, "malformed file")                                                          \
    X(ERROR_UNSUPPORTED, -5, "not supported")                                                      \
    X(ERROR_ARGUMENT, -6, "invalid argument")                                                      \
    X(ERROR_CONTEXT, -7, "does not fit the context")                                               \
    X(ERROR_CANCELLED, -8, "cancelled")                                                            \
    X(ERROR_SPACE, -9, "no space left on device")                                                  \
    X(ERROR_EXISTS, -10, "already exists")                                                         \
    X(ERROR_NUMERIC, -11, "not a finite number")                                                   \
    X(ERROR_BUSY, -12, "too much asked for at once")                                               \
    X(ERROR_NETWORK, -13, "network error")                                                         \
    X(ERROR_DENIED, -14, "not permitted")

typedef enum marco_status {
#define MARCO_STATUS_ENUM(name, code, text) MARCO_##name = (code),
    MARCO_STATUS_LIST(MARCO_STATUS_ENUM)
#undef MARCO_STATUS_ENUM
} marco_status;

/* "MARCO_ERROR_IO" and "input/output error"; static strings, never NULL. */
MARCO_API const char *marco_status_name(marco_status status);
MARCO_API const char *marco_status_text(marco_status status);

/* What went wrong, in one line naming the file, the value and the remedy. A function that succeeds
 * leaves it untouched. */
typedef struct marco_error {
    marco_status status;
    char message[768];
} marco_error;

/* "0.1.0" */
MARCO_API const char *marco_version(void);

/* The instruction level in use: "portable", "avx2", "avx512vnni". MARCO_CPU in the environment
 * lowers it. */
MARCO_API const char *marco_cpu_level(void);

/* Releases memory that the library handed out as plain memory. NULL is allowed. */
MARCO_API void marco_free(void *memory);

/* Called from time to time during long work: `done` of `total` units (bytes, or tokens where
 * `what` says so); total may be 0 when unknown. Returning non-zero cancels the work with
 * MARCO_ERROR_CANCELLED, leaving nothing half-written. May be called from any one thread, never
 * from two at once. */
typedef int (*marco_progress_fn)(void *user, const char *what, uint64_t done, uint64_t total);

typedef struct marco_progress {
    marco_progress_fn fn; /* NULL: no reports */
    void *user;
} marco_progress;

/* ---- tokenizer --------------------------------------------------------------------------- */

typedef struct marco_tokenizer marco_tokenizer;

enum {
    /* Recognise added and special tokens in the text, as HF's encode does. Without it such text is
     * encoded as the plain characters it is made of: what untrusted content needs. */
    MARCO_ENCODE_SPECIAL = 1,
    /* Add the beginning-of-sequence token where the checkpoint asks for one. */
    MARCO_ENCODE_BOS = 2,
};

/* Opens the tokenizer of a checkpoint: a GGUF file, a Hugging Face folder or a tokenizer.json. */
MARCO_API marco_status marco_tokenizer_open(const char *path, marco_tokenizer **out,
                                            marco_error *error);
MARCO_API void marco_tokenizer_close(marco_tokenizer *tokenizer);

/* Text of `size` bytes to ids. Invalid UTF-8 is encoded byte by byte without loss. *ids is owned
 * by the caller (marco_free), NULL when *n is 0. Thread-safe. */
MARCO_API marco_status marco_tokenizer_encode(const marco_tokenizer *tokenizer, const char *text,
                                              size_t size, unsigned flags, int32_t **ids, size_t *n,
                                              marco_error *error);

/* Ids to bytes; *text is NUL-terminated and owned by the caller, *size excludes the NUL. With
 * `special` false special tokens are left out. An id outside the vocabulary is an error. */
MARCO_API marco_status marco_tokenizer_decode(const marco_tokenizer *tokenizer, const int32_t *ids,
                                              size_t n, bool special, char **text, size_t *size,
                                              marco_error *error);

/* Number of ids the tokenizer knows: 1 + the largest. A model's vocabulary may be larger. */
MARCO_API int32_t marco_tokenizer_size(const marco_tokenizer *tokenizer);

/* The id of a token given its exact text ("<|im_end|>"), or -1. */
MARCO_API int32_t marco_tokenizer_find(const marco_tokenizer *tokenizer, const char *text);

/* True for ids that control the conversation (special added tokens); false for unknown ids. */
MARCO_API bool marco_tokenizer_is_special(const marco_tokenizer *tokenizer, int32_t id);

/* Beginning and end of sequence, or -1 where there is none. */
MARCO_API int32_t marco_tokenizer_bos(const marco_tokenizer *tokenizer);
MARCO_API int32_t marco_tokenizer_eos(const marco_tokenizer *tokenizer);

/* Streaming detokenization: ids in, whole characters out. */
typedef struct marco_detokenizer marco_detokenizer;

MARCO_API marco_status marco_detokenizer_create(const marco_tokenizer *tokenizer, bool special,
                                                marco_detokenizer **out, marco_error *error);
MARCO_API void marco_detokenizer_close(marco_detokenizer *detokenizer);

/* Adds an id. *text points to the characters completed by it (*size bytes, possibly 0), valid
 * until the next call on this object. Half a character is held back until it is whole; bytes that
 * can never become a character come out as U+FFFD. Ids past the tokenizer's, with which a model's
 * vocabulary may be padded, have no text. */
MARCO_API marco_status marco_detokenizer_add(marco_detokenizer *detokenizer, int32_t id,
                                             const char **text, size_t *size, marco_error *error);

/* What is still held back, as U+FFFD; the object is ready for a new text afterwards. */
MARCO_API marco_status marco_detokenizer_flush(marco_detokenizer *detokenizer, const char **text,
                                               size_t *size, marco_error *error);

/* ---- chat -------------------------------------------------------------------------------- */

typedef struct marco_chat_params {
    /* JSON array of messages as the OpenAI API has them: role, content, tool_calls, ... */
    const char *messages;
    /* JSON array of tool definitions, or NULL. */
    const char *tools;
    /* End with the header of the assistant's turn, so that the model replies. */
    bool add_generation_prompt;
    /* -1 unset, 0 false, 1 true; templates without it ignore it. */
    int enable_thinking;
} marco_chat_params;

/* No tools, generation prompt on, thinking unset. */
MARCO_API marco_chat_params marco_chat_params_default(void);

/* The chat as text, exactly as the checkpoint's own template renders it. MARCO_ERROR_NOT_FOUND
 * where the checkpoint has no template, MARCO_ERROR_UNSUPPORTED where it is not a known one. */
MARCO_API marco_status marco_chat_render(const marco_tokenizer *tokenizer,
                                         const marco_chat_params *params, char **text, size_t *size,
                                         marco_error *error);

/* The chat as ids: the template's own parts with special tokens, everything a message or a tool
 * carries as plain text, so that no content can forge a turn. */
MARCO_API marco_status marco_chat_encode(const marco_tokenizer *tokenizer,
                                         const marco_chat_params *params, int32_t **ids, size_t *n,
                                         marco_error *error);

/* Replaces the checkpoint's template: by a known name ("qwen3", "qwen2.5", "smollm2", "chatml"),
 * or by the text of a template file that is recognised by its content. Changes the tokenizer: no
 * other thread may use it meanwhile. */
MARCO_API marco_status marco_tokenizer_set_chat_template(marco_tokenizer *tokenizer,
                                                         const char *name_or_text,
                                                         marco_error *error);

/* The known name of the template in use, or NULL where there is none or it was not recognised. */
MARCO_API const char *marco_tokenizer_chat_template(const marco_tokenizer *tokenizer);

/* ---- engine ------------------------------------------------------------------------------ */

typedef struct marco_engine marco_engine;

typedef enum marco_compute {
    MARCO_COMPUTE_AUTO = 0, /* the fastest path for the weights' types, F16 KV cache */
    MARCO_COMPUTE_F32 = 1,  /* the reference: dequantised weights, F32 throughout */
} marco_compute;

typedef enum marco_kv_type {
    MARCO_KV_AUTO = 0, /* F16; F32 on the reference path */
    MARCO_KV_F16 = 1,
    MARCO_KV_F32 = 2,
    MARCO_KV_Q8_0 = 3, /* 8 bits in blocks of 32 with a scale; head dimensions of whole blocks */
} marco_kv_type;

typedef struct marco_engine_params {
    int32_t threads; /* 1 to 1024; 0: the cores this process may use */
    marco_compute compute;
    const char *chat_template; /* see marco_tokenizer_set_chat_template; NULL: the checkpoint's */
    marco_progress progress;   /* bytes of weights read */
    /* Where the weights live (docs/residency.md). `ram`: bytes that the whole process may hold,
     * with a session and its KV cache; experts that do not fit are read from the file when tokens
     * choose them; other engines count with what they hold when this one is opened, not with what
     * they take later. 0: as much as is available, everything where it fits. `mmap`: the pages of a
     * GGUF file, shared with other processes that map it; excludes `ram`. No effect on any result.
     */
    uint64_t ram;
    bool mmap;
    marco_kv_type kv_type; /* of the sessions to come: `ram` must leave room for one of them */
} marco_engine_params;

MARCO_API marco_engine_params marco_engine_params_default(void);

typedef struct marco_model_info {
    const char *architecture; /* "qwen3moe", "qwen3", "llama", "mixtral" */
    const char *name;         /* the checkpoint's own, or its file name */
    const char *provenance;   /* a sentence by the program that made the weights ("random weights
                                 ..."), or NULL */
    const char *weight_types; /* "Q8_0, F32": the types in use, most bytes first */
    int32_t n_layers, n_embd, n_heads, n_kv_heads, head_dim;
    int32_t n_experts, n_experts_used; /* 0 for a dense model */
    int32_t expert_dim, ffn_dim;       /* 0 where the model has no such layer */
    int32_t n_vocab;
    int32_t n_ctx_train; /* the context the model was made for, tokens */
    int64_t total_params, active_params;
    uint64_t weight_bytes;       /* in memory at most: those mapped or always there, and the largest
                                  * cache of experts */
    uint64_t bytes_per_token;    /* weights read to decode one token */
    uint64_t kv_bytes_per_token; /* growth of a KV cache of type AUTO per token of context */
    int32_t threads;             /* in use */
    const char *residency;       /* where the weights live, for the user: "17.1 GiB in memory" */
} marco_model_info;

/* Loads a model: a GGUF file or a Hugging Face folder. */
MARCO_API marco_status marco_engine_open(const char *path, const marco_engine_params *params,
                                         marco_engine **out, marco_error *error);

/* All sessions must be closed before. */
MARCO_API void marco_engine_close(marco_engine *engine);

/* Both live as long as the engine. */
MARCO_API const marco_model_info *marco_engine_info(const marco_engine *engine);
MARCO_API const marco_tokenizer *marco_engine_tokenizer(const marco_engine *engine);

typedef struct marco_residency_stats {
    uint64_t budget;        /* bytes of the whole process; 0: none */
    uint64_t pinned_bytes;  /* weights always in memory; 0 where they are mapped */
    uint64_t cache_bytes;   /* of the cache of experts; 0 where none are read as needed */
    int64_t slots, experts; /* experts that the cache holds now, and all of the model */
    uint64_t hits, misses;  /* experts asked for, once per layer and forward pass */
    uint64_t bytes_read;    /* of experts, since the model was opened */
    double wait_seconds;    /* in which nothing was computed, waiting for reads */
    double read_seconds;    /* in which some read was under way */
} marco_residency_stats;

/* May be asked at any time, from any thread. */
MARCO_API void marco_engine_residency(const marco_engine *engine, marco_residency_stats *stats);

/* What the engine's threads and the memory can do at best, which no result can exceed. */
typedef struct marco_roof {
    double memory_gb_s;         /* 10^9 bytes read a second, by the best of several patterns */
    double int8_gops;           /* 10^9 operations a second: exact products of s8 numbers held as
                                 * s16, summed in s32, in registers; a product and a sum are two */
    double f32_gflops;          /* the same in F32 */
    const char *memory_pattern; /* which pattern was the best; static */
    uint64_t memory_bytes;      /* that were read: weights where they lie, or where those are few, a
                                 * buffer that exists meanwhile */
} marco_roof;

/* Measures for about a second. Waits for a forward pass under way and keeps others waiting. */
MARCO_API marco_status marco_engine_roof(marco_engine *engine, marco_roof *out, marco_error *error);

/* Arithmetic of evaluating n tokens after `position` others with the logits of the last: two
 * operations for each product that is added to a sum. */
typedef struct marco_operations {
    double int8; /* with block-quantised weights; 0 under MARCO_COMPUTE_F32 */
    double f32;  /* with float weights, of the routers, of attention */
} marco_operations;

MARCO_API marco_operations marco_engine_operations(const marco_engine *engine, int64_t position,
                                                   int64_t n);

/* ---- session ----------------------------------------------------------------------------- */

typedef struct marco_session marco_session;

/* A choice of experts: of forward pass `pass` (1, 2, ...), the layer's router chose experts
 * [n, used], by rank, for the tokens at position .. position + n - 1. Called within the pass, which
 * holds the engine's lock: it must call nothing of this engine or its sessions, or waits for ever.
 */
typedef void (*marco_trace_fn)(void *user, uint64_t pass, int32_t layer, int64_t position,
                               int64_t n, const int32_t *experts, int32_t used);

typedef struct marco_session_params {
    int32_t n_ctx;           /* tokens the session can hold; 0: what the model was made for */
    int32_t chunk;           /* tokens per forward pass; 0: 512. Less is taken where that would need
                              * much memory beside the model. No effect on any result. */
    marco_kv_type kv_type;   /* how keys and values are kept */
    marco_progress progress; /* tokens of a long prompt processed */
    marco_trace_fn trace;    /* told of every choice of experts, as it is made; NULL: nobody */
    void *trace_user;
} marco_session_params;

MARCO_API marco_session_params marco_session_params_default(void);

/* The KV cache grows with use; nothing is allocated for context that is never reached. */
MARCO_API marco_status marco_session_create(marco_engine *engine,
                                            const marco_session_params *params, marco_session **out,
                                            marco_error *error);
MARCO_API void marco_session_close(marco_session *session);

/* Appends n >= 1 ids and computes the logits after the last one. On error the session keeps the
 * tokens it had before; their logits may be gone. One thread at a time per session; several
 * sessions of an engine take turns, a forward pass each. */
MARCO_API marco_status marco_session_eval(marco_session *session, const int32_t *ids, size_t n,
                                          marco_error *error);

/* Logits of every position: called in order with position 0 .. and its logits [n_vocab], valid
 * during the call. Non-zero cancels. */
typedef int (*marco_logits_fn)(void *user, int64_t position, const float *logits);

MARCO_API marco_status marco_session_eval_each(marco_session *session, const int32_t *ids, size_t n,
                                               marco_logits_fn fn, void *user, marco_error *error);

/* Logits after the last token, [n_vocab]; NULL before the first eval, after a truncation, and after
 * an eval that failed under way. Valid until the next call on this session. */
MARCO_API const float *marco_session_logits(const marco_session *session);

/* The ids of this session so far, valid until the next call on it. */
MARCO_API const int32_t *marco_session_tokens(const marco_session *session, size_t *n);

/* Forgets all but the first n tokens. n may not exceed the session's length. */
MARCO_API marco_status marco_session_truncate(marco_session *session, size_t n);

/* Tokens that fit. */
MARCO_API int32_t marco_session_context(const marco_session *session);

/* Bytes now held by the KV cache. */
MARCO_API uint64_t marco_session_kv_bytes(const marco_session *session);

/* What each token of context adds to that, and what decoding reads of it for each. */
MARCO_API uint64_t marco_session_kv_bytes_per_token(const marco_session *session);

/* For measurements at depth: appends n >= 1 tokens of id 0 without running the model, with random
 * keys and values (mean 0, deviation 1) that depend on the seed and on their place alone. There are
 * no logits until the next eval. */
MARCO_API marco_status marco_session_fill(marco_session *session, size_t n, uint64_t seed,
                                          marco_error *error);

/* ---- sampling and generation ------------------------------------------------------------- */

typedef struct marco_logit_bias {
    int32_t id;
    float bias; /* added to the logit */
} marco_logit_bias;

/* Applied in this order: bias, penalties, temperature, top-k, top-p, min-p. */
typedef struct marco_sampling {
    float temperature;        /* [0, 100]; 0: greedy (the lowest id wins a tie) */
    int32_t top_k;            /* 0: off */
    float top_p;              /* (0, 1]; 1: off */
    float min_p;              /* [0, 1); 0: off */
    float repetition_penalty; /* (0, 1000]; 1: off (CTRL, arXiv 1909.05858), prompt and reply */
    float presence_penalty;   /* [-2, 2]; 0: off, reply only, as in the OpenAI API */
    float frequency_penalty;  /* [-2, 2]; 0: off, reply only */
    uint64_t seed;
    const marco_logit_bias *logit_bias; /* [n_logit_bias], must outlive the sampler */
    size_t n_logit_bias;
} marco_sampling;

/* What the checkpoint's generation_config asks for; greedy where it asks for nothing. */
MARCO_API marco_sampling marco_engine_sampling(const marco_engine *engine);

typedef struct marco_sampler marco_sampler;

/* Values out of range are refused by name. */
MARCO_API marco_status marco_sampler_create(const marco_sampling *sampling, int32_t n_vocab,
                                            marco_sampler **out, marco_error *error);
MARCO_API void marco_sampler_close(marco_sampler *sampler);

/* Tells the sampler of a token for the penalties; `reply` is false for those of the prompt. */
MARCO_API marco_status marco_sampler_accept(marco_sampler *sampler, int32_t id, bool reply);

/* Picks the next id from logits [n_vocab]. MARCO_ERROR_NUMERIC where they are NaN. The same
 * sampling, history and logits give the same id. */
MARCO_API marco_status marco_sampler_pick(marco_sampler *sampler, const float *logits, int32_t *id,
                                          marco_error *error);

typedef enum marco_finish {
    MARCO_FINISH_STOP = 0,   /* end of text, or a stop string */
    MARCO_FINISH_LENGTH = 1, /* max_tokens reached, or the context is full */
    MARCO_FINISH_CANCELLED = 2,
} marco_finish;

/* A piece of the reply: whole characters. After every token also called with size 0, whether or not
 * it had text. Non-zero stops the reply. */
typedef int (*marco_text_fn)(void *user, const char *text, size_t size);

typedef struct marco_generation {
    int32_t max_tokens; /* < 0: until the context is full */
    marco_sampling sampling;
    const char *const *stop; /* [n_stop] strings ending the reply, themselves left out */
    size_t n_stop;
    bool ignore_eos;
    bool special; /* show special tokens in the text */
    marco_text_fn on_text;
    void *user;
} marco_generation;

/* The checkpoint's sampling, until end of text. */
MARCO_API marco_generation marco_generation_default(const marco_engine *engine);

typedef struct marco_generation_stats {
    marco_finish finish;
    size_t n_prompt, n_reply; /* tokens; the reply's include the end-of-text token */
    double prefill_seconds, decode_seconds;
    size_t n_decoded; /* forward passes in decode_seconds */
} marco_generation_stats;

/* Feeds the prompt's ids and generates a reply, streaming it through on_text. The reply's tokens
 * but the last stay in the session. An empty prompt on an empty session is an error. stats may be
 * NULL. */
MARCO_API marco_status marco_session_generate(marco_session *session, const int32_t *ids, size_t n,
                                              const marco_generation *generation,
                                              marco_generation_stats *stats, marco_error *error);

/* ---- measuring over a text --------------------------------------------------------------- */

/* The text is encoded as plain characters and cut into chunks of n_ctx tokens, each evaluated on
 * its own; tokens after the last whole chunk are left out. Where the checkpoint asks for a
 * beginning-of-sequence token, every chunk begins with it, in place of its first token. As
 * llama.cpp does. */

typedef struct marco_perplexity_params {
    int32_t n_ctx;      /* tokens of a chunk, at least 4; 0: 512, or the model's context if less */
    int32_t max_chunks; /* 0: all */
    /* How the run keeps keys and values; base_engine's is MARCO_KV_AUTO. */
    marco_kv_type kv_type;
    /* Compare with another run, at most one of the two: a file that `save` left, or an engine with
     * the same vocabulary and tokenizer, which evaluates the same chunks. NULL: don't. */
    const char *base;
    marco_engine *base_engine;
    /* Where to leave this run's log-probabilities for later ones: 2 bytes for each id of the
     * vocabulary and position scored. Appears whole or not at all. NULL: nowhere. Not together with
     * a comparison. */
    const char *save;
    bool overwrite;          /* a file that exists at `save`; else it is refused */
    marco_progress progress; /* tokens */
    /* The perplexity so far, after each chunk; NULL: not called. */
    void (*on_chunk)(void *user, int32_t n_chunks, double perplexity);
    void *user;
} marco_perplexity_params;

/* All zero. */
MARCO_API marco_perplexity_params marco_perplexity_params_default(void);

/* KL(base || this) of the distributions at a position, in nats, over the positions. Percentiles
 * lie between the two nearest positions' values, in proportion. */
typedef struct marco_divergence {
    double mean, error; /* and the mean's standard error */
    double median, p99, p999, max;
    double same_top;        /* share of positions where both find the same id likeliest */
    double base_perplexity; /* of the run compared with */
    double log_ratio, log_ratio_error; /* ln(perplexity / base_perplexity), its standard error */
} marco_divergence;

typedef struct marco_perplexity_result {
    int32_t n_ctx, n_chunks;
    int64_t n_scored;         /* positions */
    double perplexity, error; /* exp(mean of -ln p), its standard error */
    bool compared;
    marco_divergence divergence; /* where compared */
} marco_perplexity_result;

/* How well the model predicts the text: of each chunk the tokens n_ctx/2 + 1 to n_ctx - 1, counted
 * from 0, given those before them in the chunk. The same to the bit for any number of threads. */
MARCO_API marco_status marco_perplexity(marco_engine *engine, const char *text, size_t size,
                                        const marco_perplexity_params *params,
                                        marco_perplexity_result *result, marco_error *error);

typedef struct marco_imatrix_params {
    int32_t n_ctx;           /* as in marco_perplexity_params */
    int32_t max_chunks;      /* 0: all */
    const char *text_name;   /* is kept in the file; NULL: none */
    bool overwrite;          /* a file that exists; else it is refused */
    marco_progress progress; /* tokens */
} marco_imatrix_params;

/* All zero. */
MARCO_API marco_imatrix_params marco_imatrix_params_default(void);

typedef struct marco_imatrix_result {
    int32_t n_ctx, n_chunks;
    /* Experts of all layers, how many of them no token was routed to, and the layer with the most
     * of those. 0 in a dense model. */
    int64_t n_experts, n_unused;
    int32_t worst_layer, worst_unused;
} marco_imatrix_result;

/* Writes an importance matrix, for marco_quantize and llama.cpp: over the tokens of a text, the sum
 * of squares of every column that the weights of each matrix in the layers meet, and their number;
 * for an expert over the tokens routed to it. GGUF where `to` ends in ".gguf", else llama.cpp's
 * older form. The engine must be on MARCO_COMPUTE_F32. The same bytes for any number of threads. */
MARCO_API marco_status marco_imatrix(marco_engine *engine, const char *text, size_t size,
                                     const char *to, const marco_imatrix_params *params,
                                     marco_imatrix_result *result, marco_error *error);

/* ---- working on checkpoints -------------------------------------------------------------- */

/* Everything about a checkpoint as a JSON object, without loading its weights. Documented in
 * docs/inspect.md. */
MARCO_API marco_status marco_inspect(const char *path, char **json, marco_error *error);

/* The output of the next four: a path ending in ".gguf" is a GGUF file, any other a Hugging Face
 * folder (which marco_quantize refuses). It appears whole or not at all; an existing one is refused
 * unless `overwrite`. */

typedef struct marco_convert_params {
    const char *type; /* "F32", "F16", "BF16", "Q8_0", ... for the matrices; NULL: keep */
    bool overwrite;
    int32_t threads; /* 1 to 1024; 0: the cores this process may use */
    marco_progress progress;
} marco_convert_params;

MARCO_API marco_convert_params marco_convert_params_default(void);
MARCO_API marco_status marco_convert(const char *from, const char *to,
                                     const marco_convert_params *params, marco_error *error);

typedef struct marco_quantize_params {
    /* "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "BF16", ...: see docs/quantize.md.
     * Norms and routers are F32 always. */
    const char *type;
    /* [n_tensors] "PATTERN=TYPE": other types for tensors whose GGUF name the shell pattern
     * matches; of several the last. */
    const char *const *tensors;
    size_t n_tensors;
    const char *imatrix; /* an importance matrix's file, as llama.cpp makes; NULL: none */
    bool requantize;     /* also from matrices of few bits already, adding error to error */
    bool overwrite;
    int32_t threads; /* 1 to 1024; 0: the cores this process may use */
    marco_progress progress;
} marco_quantize_params;

typedef struct marco_quantize_stats {
    uint64_t bytes_before, bytes_after; /* of all tensors */
    uint64_t n_weights;
    size_t n_matrices;    /* tensors, norms and routers left out */
    size_t n_fallbacks;   /* of them in another type, since rows do not divide into its blocks */
    size_t n_unimportant; /* of them without an entry in the importance matrix */
} marco_quantize_stats;

/* No type (to be set), no patterns, no importance matrix. */
MARCO_API marco_quantize_params marco_quantize_params_default(void);

/* Writes a GGUF file with weights of fewer bits. Memory does not depend on the checkpoint's size,
 * the importance matrix apart. stats may be NULL. */
MARCO_API marco_status marco_quantize(const char *from, const char *to,
                                      const marco_quantize_params *params,
                                      marco_quantize_stats *stats, marco_error *error);

typedef struct marco_synth_params {
    const char *type;      /* NULL: Q8_0 for GGUF, BF16 for a folder */
    uint64_t seed;         /* same seed, same bytes; 0 unless set */
    int32_t layers;        /* 0: the shape's */
    const char *tokenizer; /* a checkpoint or tokenizer.json to take it from; NULL: 256 bytes */
    bool overwrite;
    int32_t threads; /* 1 to 1024; 0: the cores this process may use */
    marco_progress progress;
} marco_synth_params;

/* All zero: the types above, seed 0, the shape's layers, 256 bytes. */
MARCO_API marco_synth_params marco_synth_params_default(void);

/* Writes random weights in a named shape. */
MARCO_API marco_status marco_synth(const char *shape, const char *to,
                                   const marco_synth_params *params, marco_error *error);

/* The i-th shape's name and a one-line description, or NULL past the last. */
MARCO_API const char *marco_synth_shape(size_t i, const char **description);

typedef enum marco_upcycle_scale {
    MARCO_SCALE_CUBE_ROOT = 0, /* gate, up and down by N^(1/3) each */
    MARCO_SCALE_DOWN = 1,      /* down by N: exact */
    MARCO_SCALE_NONE = 2,
} marco_upcycle_scale;

typedef enum marco_upcycle_router {
    MARCO_ROUTER_NORMAL = 0,        /* N(0, 0.02) */
    MARCO_ROUTER_VIRTUAL_GROUP = 1, /* E/N rows, each repeated N times in a row */
} marco_upcycle_router;

typedef struct marco_upcycle_params {
    int32_t n_experts;  /* a multiple of the slices N = ffn_dim / expert_dim */
    int32_t expert_dim; /* divides the parent's ffn_dim */
    int32_t top_k;      /* 1 to n_experts */
    marco_upcycle_scale scale;
    double drop;      /* ratio of the intermediate dimension re-initialised, [0, 1] */
    bool drop_shared; /* the same indices for gate, up and down */
    marco_upcycle_router router;
    const char *type; /* of the written matrices; NULL: the parent's where possible */
    uint64_t seed;    /* same seed, same bytes; 0 unless set */
    bool overwrite;
    int32_t threads; /* 1 to 1024; 0: the cores this process may use */
    marco_progress progress;
} marco_upcycle_params;

/* Drop 0.5 per matrix, cube-root scale, normal router, seed 0; experts and dims 0 (to be set). */
MARCO_API marco_upcycle_params marco_upcycle_params_default(void);

/* Fills in a preset: "marco-mini", "marco-nano". False where there is none of that name. */
MARCO_API bool marco_upcycle_preset(marco_upcycle_params *params, const char *name);

/* Cuts a dense qwen3 or llama checkpoint into a mixture of experts. */
MARCO_API marco_status marco_upcycle(const char *from, const char *to,
                                     const marco_upcycle_params *params, marco_error *error);

#ifdef __cplusplus
}
#endif
#endif
