/* What the commands that write a checkpoint share. */
#ifndef CLI_WRITE_H
#define CLI_WRITE_H

#include "command.h"
#include "progress.h"

typedef struct write_options {
    const char *type;
    bool overwrite;
    int32_t threads;
    bool json;
    bool quiet;
} write_options;

/* The rows of a command's option table; `type` has a write_options named `write`. */
#define WRITE_OPTIONS(type)                                                                        \
    CLI_OPTION("overwrite", 0, FLAG, NULL, type, write.overwrite, 0,                               \
               "Replace an output that exists."),                                                  \
        CLI_OPTION("threads", 't', THREADS, "N", type, write.threads, 0,                           \
                   "Threads; all the cores this process may use unless given."),                   \
        CLI_OPTION("json", 0, FLAG, NULL, type, write.json, 0,                                     \
                   "Print what was written as a JSON object: output, bytes, seconds."),            \
        CLI_OPTION("quiet", 'q', FLAG, NULL, type, write.quiet, 0, "No progress and no summary.")

/* Bytes of a file, or of the files in a folder. */
uint64_t write_bytes(const char *path);

/* Whether both names lead to one file that exists. */
bool write_is_same(const char *path, const char *other);

/* Reports the outcome of writing `path`, begun at `start` (seconds_now). Returns an exit status. */
int write_report(const command *self, const write_options *options, const char *path, double start,
                 marco_status status, const marco_error *error);

#endif
