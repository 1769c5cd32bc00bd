/* Options by table: parsing, and the text of help and man pages, come from the same rows. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct command command;

typedef enum option_kind {
    OPTION_FLAG,    /* bool */
    OPTION_TEXT,    /* const char * */
    OPTION_INT,     /* int32_t, from `min` to INT32_MAX */
    OPTION_THREADS, /* int32_t, 1 to 1024 */
    OPTION_FLOAT,   /* float, finite */
    OPTION_DOUBLE,  /* double, finite */
    OPTION_SEED,    /* option_seed */
    OPTION_LIST,    /* option_list: may be given again and again */
} option_kind;

typedef struct option_seed {
    uint64_t value; /* at most INT64_MAX, which JSON can say */
    bool given;
} option_seed;

typedef struct option_list {
    const char **items; /* free() */
    size_t n;
} option_list;

typedef struct cli_option {
    const char *name; /* "temp" for --temp */
    char letter;      /* 'n' for -n, 0 for none */
    option_kind kind;
    const char *value; /* its name in the help, NULL for flags */
    size_t offset;     /* where it goes, in the command's struct */
    int32_t min;       /* for OPTION_INT */
    const char *help;
} cli_option;

/* A row: `field` of the command's struct `type`. */
#define CLI_OPTION(name, letter, kind, value, type, field, min, help)                              \
    {                                                                                              \
        name, letter, OPTION_##kind, value, offsetof(type, field), min, help                       \
    }

/* Reads argv[1..] into `target`, whose fields hold the defaults. Returns the number of arguments
 * that are not options, which then stand at the end of argv, or -1 to leave with *exit_status:
 * after --help, or after an error that has been reported. */
int options_parse(const command *self, int argc, char **argv, void *target, int *exit_status);

/* Whole numbers and numbers, nothing before or after them. */
bool parse_int(const char *text, int64_t min, int64_t max, int64_t *value);
bool parse_double(const char *text, double *value);

#endif
