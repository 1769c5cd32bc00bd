/* What run and chat share: options of sampling and of the chat, encoding, statistics. */
#ifndef CLI_GENERATE_H
#define CLI_GENERATE_H

#include <jansson.h>

#include "load.h"
#include "text.h"

typedef struct generate_options {
    int32_t tokens;                                        /* -1: no limit */
    float temp, top_p, min_p, repeat, presence, frequency; /* NaN: the checkpoint's */
    int32_t top_k;                                         /* -1: the checkpoint's */
    option_seed seed;
    option_list stop;
    option_list bias;
    marco_logit_bias *biases; /* `bias` as numbers, once read */
    bool ignore_eos;
    const char *chat_template;
    const char *system;
    bool think, no_think;
} generate_options;

/* Every value the checkpoint's own. */
#define GENERATE_DEFAULTS                                                                          \
    {                                                                                              \
        .tokens = -1, .temp = NAN, .top_p = NAN, .min_p = NAN, .repeat = NAN, .presence = NAN,     \
        .frequency = NAN, .top_k = -1                                                              \
    }

/* The rows of a command's option table; `type` has a generate_options named `generate`. */
#define GENERATE_OPTIONS(type)                                                                     \
    CLI_OPTION("tokens", 'n', INT, "N", type, generate.tokens, -1,                                 \
               "The most tokens to generate; -1 (default): until the model ends or the context "   \
               "is full."),                                                                        \
        CLI_OPTION("temp", 0, FLOAT, "T", type, generate.temp, 0,                                  \
                   "Temperature; 0: always the likeliest token. This and the next six default to " \
                   "what the checkpoint's generation_config asks for."),                           \
        CLI_OPTION("top-k", 0, INT, "K", type, generate.top_k, 0,                                  \
                   "Choose among the K likeliest; 0: off."),                                       \
        CLI_OPTION("top-p", 0, FLOAT, "P", type, generate.top_p, 0,                                \
                   "Choose among the likeliest that make up P of the probability; 1: off."),       \
        CLI_OPTION("min-p", 0, FLOAT, "P", type, generate.min_p, 0,                                \
                   "Leave out tokens less than P times as likely as the likeliest; 0: off."),      \
        CLI_OPTION("repeat-penalty", 0, FLOAT, "X", type, generate.repeat, 0,                      \
                   "Divides the logits of tokens seen in prompt and reply; 1: off."),              \
        CLI_OPTION("presence-penalty", 0, FLOAT, "X", type, generate.presence, 0,                  \
                   "Taken off the logits of tokens seen in the reply; -2 to 2."),                  \
        CLI_OPTION("frequency-penalty", 0, FLOAT, "X", type, generate.frequency, 0,                \
                   "The same, times how often each was seen."),                                    \
        CLI_OPTION("seed", 's', SEED, "N", type, generate.seed, 0,                                 \
                   "The same seed gives the same reply; unless given, one is drawn and printed "   \
                   "with the statistics."),                                                        \
        CLI_OPTION("stop", 0, LIST, "TEXT", type, generate.stop, 0,                                \
                   "End the reply before this text. May be given several times."),                 \
        CLI_OPTION("logit-bias", 0, LIST, "ID=X", type, generate.bias, 0,                          \
                   "Add X to the logit of token ID. May be given several times."),                 \
        CLI_OPTION("ignore-eos", 0, FLAG, NULL, type, generate.ignore_eos, 0,                      \
                   "Go on after the end of text."),                                                \
        CLI_OPTION("chat-template", 0, TEXT, "NAME|FILE", type, generate.chat_template, 0,         \
                   "Instead of the checkpoint's: qwen3, qwen2.5, smollm2, chatml, or a "           \
                   "template's file."),                                                            \
        CLI_OPTION("system", 0, TEXT, "TEXT", type, generate.system, 0, "The system message."),    \
        CLI_OPTION("think", 0, FLAG, NULL, type, generate.think, 0,                                \
                   "Have the template turn thinking on, where it knows how."),                     \
        CLI_OPTION("no-think", 0, FLAG, NULL, type, generate.no_think, 0,                          \
                   "Have the template turn thinking off.")

/* The generation these options ask for. Release with generation_free, also after an error.
 * Returns an exit status, errors reported. */
int generation_create(const command *self, generate_options *options, const marco_engine *engine,
                      marco_generation *out);
void generation_free(generate_options *options, marco_generation *generation);

/* A message: {"role": role, "content": content}. NULL when out of memory. */
json_t *message_create(const char *role, const char *content, size_t size);

/* The ids of a chat, ready for the reply (marco_free). */
marco_status chat_ids(const marco_engine *engine, const generate_options *options, json_t *messages,
                      int32_t **ids, size_t *n, marco_error *error);

/* "stop", "length", "cancelled" */
const char *finish_name(marco_finish finish);

/* Speed, memory and parameters: for people, and as JSON (NULL when out of memory). */
void stats_print(FILE *out, const loaded *l, const marco_generation_stats *stats, uint64_t seed);
json_t *stats_json(const loaded *l, const marco_generation_stats *stats, uint64_t seed);

#endif
