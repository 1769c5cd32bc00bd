/* Options that every command running a model shares, and opening the model by them. */
#ifndef CLI_LOAD_H
#define CLI_LOAD_H

#include "command.h"
#include "progress.h"
#include "text.h"

typedef struct load_options {
    const char *model;
    int32_t threads;
    const char *compute;
    const char *kv;
    int32_t ctx;
    int32_t chunk;
    const char *ram;
    bool mmap;
    marco_trace_fn trace; /* told of every choice of experts; NULL: nobody */
    void *trace_user;
    bool json;
    bool quiet;
} load_options;

#define MODEL_OPTION(type, field)                                                                  \
    CLI_OPTION(                                                                                    \
        "model", 'm', TEXT, "MODEL", type, field, 0,                                               \
        "The checkpoint: a GGUF file, a Hugging Face folder, or OWNER/NAME of a model that "       \
        "'marco pull' downloaded.")

/* Rows of a command's option table; `type` has a load_options named `load`. Those of the engine: */
#define ENGINE_OPTIONS(type)                                                                       \
    MODEL_OPTION(type, load.model),                                                                \
        CLI_OPTION("threads", 't', THREADS, "N", type, load.threads, 0,                            \
                   "Threads; all the cores this process may use unless given."),                   \
        CLI_OPTION("compute", 0, TEXT, "f32|auto", type, load.compute, 0,                          \
                   "f32: the reference path, 32-bit floating point throughout; auto (default): "   \
                   "the fastest path for the weights' types."),                                    \
        CLI_OPTION("ram", 0, TEXT, "SIZE", type, load.ram, 0,                                      \
                   "The most memory to use in all: bytes, or a number with K, M, G or T (6G). "    \
                   "Experts that do not fit are read from the file when a token needs them. "      \
                   "Unless given: what is available, everything where it fits."),                  \
        CLI_OPTION("mmap", 0, FLAG, NULL, type, load.mmap, 0,                                      \
                   "Map the GGUF file instead of reading it, sharing its pages with other "        \
                   "processes that do.")

/* ... of the session: */
#define KV_OPTION(type)                                                                            \
    CLI_OPTION("kv", 0, TEXT, "f16|f32|q8_0", type, load.kv, 0,                                    \
               "How keys and values are kept: f16 (default), f32 (default under --compute f32), "  \
               "or q8_0, which takes half the memory of f16.")

#define SESSION_OPTIONS(type)                                                                      \
    CLI_OPTION("ctx", 'c', INT, "N", type, load.ctx, 1,                                            \
               "Tokens of context; what the model was made for unless given."),                    \
        KV_OPTION(type),                                                                           \
        CLI_OPTION("chunk", 0, INT, "N", type, load.chunk, 1,                                      \
                   "Prompt tokens per forward pass (512). No effect on any result.")

/* ... of what is printed: */
#define REPORT_OPTIONS(type)                                                                       \
    CLI_OPTION("json", 0, FLAG, NULL, type, load.json, 0,                                          \
               "JSON on standard output, and nothing else there."),                                \
        CLI_OPTION("quiet", 'q', FLAG, NULL, type, load.quiet, 0,                                  \
                   "No progress and no statistics on standard error.")

#define LOAD_OPTIONS(type) ENGINE_OPTIONS(type), SESSION_OPTIONS(type), REPORT_OPTIONS(type)

typedef struct loaded {
    marco_engine *engine;
    marco_session *session;
    progress progress;
} loaded;

/* Opens engine and session, catching Ctrl-C from here on. chat_template: a known name, a file, or
 * NULL. Returns an exit status, errors reported; load_close in any case. */
int load_open(const command *self, const load_options *options, const char *chat_template,
              loaded *out);
void load_close(loaded *l);

/* "6G", "512M", "4096K", "1T" or plain bytes, powers of 1024; false for anything else and for 0. */
bool parse_size(const char *value, uint64_t *bytes);

/* What --kv says; NULL: MARCO_KV_AUTO. Returns an exit status, errors reported. */
int load_kv(const command *self, const char *name, marco_kv_type *type);

/* The checkpoint that -m means: a path that exists, or a model that was pulled. Into *path
 * (marco_free). Returns an exit status, errors reported. */
int load_find(const command *self, const char *model, char **path);

/* A template's name stands for itself and leaves *out empty, a file for its text (free). */
int load_template(const command *self, const char *name, text *out);

/* Opens the engine alone. */
int load_engine(const command *self, const load_options *options, const char *chat_template,
                loaded *out);

/* The most memory the process has held, bytes. */
uint64_t memory_peak(void);

#endif
