/* Options that every command running a model shares, and opening the model by them. */
#ifndef CLI_LOAD_H
#define CLI_LOAD_H

#include "command.h"
#include "progress.h"

typedef struct load_options {
    const char *model;
    int32_t threads;
    const char *compute;
    const char *kv;
    int32_t ctx;
    int32_t chunk;
    bool json;
    bool quiet;
} load_options;

#define MODEL_OPTION(type, field)                                                                  \
    CLI_OPTION("model", 'm', TEXT, "MODEL", type, field, 0,                                        \
               "The checkpoint: a GGUF file or a Hugging Face folder.")

/* The rows of a command's option table; `type` has a load_options named `load`. */
#define LOAD_OPTIONS(type)                                                                         \
    MODEL_OPTION(type, load.model),                                                                \
        CLI_OPTION("threads", 't', INT, "N", type, load.threads, 1,                                \
                   "Threads; all the cores this process may use unless given."),                   \
        CLI_OPTION("compute", 0, TEXT, "f32|auto", type, load.compute, 0,                          \
                   "f32: the reference path, 32-bit floating point throughout; auto (default): "   \
                   "the fastest path for the weights' types."),                                    \
        CLI_OPTION("kv", 0, TEXT, "f16|f32|q8_0", type, load.kv, 0,                                \
                   "How keys and values are kept: f16 (default), f32 (default under --compute "    \
                   "f32), or q8_0, which takes half the memory of f16."),                          \
        CLI_OPTION("ctx", 'c', INT, "N", type, load.ctx, 1,                                        \
                   "Tokens of context; what the model was made for unless given."),                \
        CLI_OPTION("chunk", 0, INT, "N", type, load.chunk, 1,                                      \
                   "Prompt tokens per forward pass (512). No effect on any result."),              \
        CLI_OPTION("json", 0, FLAG, NULL, type, load.json, 0,                                      \
                   "JSON on standard output, and nothing else there."),                            \
        CLI_OPTION("quiet", 'q', FLAG, NULL, type, load.quiet, 0,                                  \
                   "No progress and no statistics on standard error.")

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

/* The most memory the process has held, bytes. */
uint64_t memory_peak(void);

#endif
