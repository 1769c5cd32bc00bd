/* What a command is, and how commands report. The text of a command's --help and of its man page
 * is this one description. */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include <stddef.h>
#include <stdio.h>

#include <marco/marco.h>

#include "options.h"

enum {
    EXIT_FAIL = 1,         /* the work failed */
    EXIT_USAGE = 2,        /* the command line makes no sense */
    EXIT_INTERRUPTED = 130 /* Ctrl-C, as shells report it */
};

typedef struct command command;

struct command {
    const char *name;     /* "run" */
    const char *summary;  /* one line, no full stop */
    const char *synopsis; /* what follows "marco run" */
    const char *details;  /* paragraphs, a newline after each */
    const char *example;  /* lines to type, a newline after each */
    const cli_option *options;
    size_t n_options;
    int max_arguments; /* that are not options */
    int (*run)(const command *self, int argc, char **argv);
};

/* In the order of the help; NULL after the last. */
extern const command *const commands[];

/* The command of that name, or NULL. */
const command *command_find(const char *name);

/* Help and man page. `self` NULL: of the program as a whole. */
void help_print(const command *self, FILE *out);
void help_man(const command *self, FILE *out);

/* One line on stderr, "marco run: ...". They return the exit status to leave with. */
int command_fail(const command *self, const char *format, ...) MARCO_PRINTF(2, 3);
int command_misused(const command *self, const char *format, ...) MARCO_PRINTF(2, 3);
int command_status(const command *self, marco_status status, const marco_error *error);

/* Writes text to a stream with control characters, other than tab and newline, replaced: names out
 * of a file and a model's reply must not steer the terminal. */
void print_safely(FILE *out, const char *text, size_t size);

#endif
