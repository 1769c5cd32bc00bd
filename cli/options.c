#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"

/* getopt_long's values for options are their index in the table plus this. */
enum { FIRST = 256, MAX_OPTIONS = 48 };

bool parse_int(const char *text, int64_t min, int64_t max, int64_t *value)
{
    if (!isdigit((unsigned char)text[0]) && text[0] != '-')
        return false;
    char *end = NULL;
    errno = 0;
    long long parsed = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || parsed < min || parsed > max)
        return false;
    *value = parsed;
    return true;
}

bool parse_double(const char *text, double *value)
{
    /* strtod would also take spaces, hexadecimal, "inf" and "nan". */
    if (text[0] == '\0' || text[strspn(text, "+-.0123456789eE")] != '\0')
        return false;
    char *end = NULL;
    errno = 0;
    double parsed = strtod(text, &end);
    if (errno == ERANGE && fabs(parsed) > 1)
        return false;
    if (end == text || *end != '\0' || !isfinite(parsed))
        return false;
    *value = parsed;
    return true;
}

static bool parse_seed(const char *text, option_seed *seed)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    char *end = NULL;
    errno = 0;
    unsigned long long parsed = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || parsed > INT64_MAX)
        return false;
    *seed = (option_seed){.value = parsed, .given = true};
    return true;
}

/* Stores one value. Returns NULL, or what the value should have been. */
static const char *store(const cli_option *o, const char *text, void *field, int argc)
{
    int64_t integer = 0;
    double number = 0;
    switch (o->kind) {
    case OPTION_FLAG:
        *(bool *)field = true;
        return NULL;
    case OPTION_TEXT:
        *(const char **)field = text;
        return NULL;
    case OPTION_INT:
        if (!parse_int(text, o->min, INT32_MAX, &integer))
            return o->min == 0   ? "a whole number from 0 to 2147483647"
                   : o->min == 1 ? "a whole number from 1 to 2147483647"
                                 : "a whole number from -1 to 2147483647";
        *(int32_t *)field = (int32_t)integer;
        return NULL;
    case OPTION_THREADS:
        if (!parse_int(text, 1, 1024, &integer))
            return "a whole number from 1 to 1024";
        *(int32_t *)field = (int32_t)integer;
        return NULL;
    case OPTION_FLOAT:
        if (!parse_double(text, &number) || !isfinite((float)number))
            return "a number";
        *(float *)field = (float)number;
        return NULL;
    case OPTION_DOUBLE:
        if (!parse_double(text, &number))
            return "a number";
        *(double *)field = number;
        return NULL;
    case OPTION_SEED:
        return parse_seed(text, field) ? NULL : "a whole number from 0 to 9223372036854775807";
    case OPTION_LIST: {
        option_list *list = field;
        /* No more values than words on the command line. */
        if (!list->items)
            list->items = calloc((size_t)argc, sizeof(*list->items));
        if (!list->items)
            return "stored (out of memory)";
        list->items[list->n++] = text;
        return NULL;
    }
    }
    return NULL;
}

/* getopt's two descriptions of the table: letters [2 * MAX_OPTIONS + 3], names [MAX_OPTIONS + 2].
 */
static void describe(const command *self, char *letters, struct option *names)
{
    *letters++ = ':'; /* missing values are told from unknown options */
    *letters++ = 'h';
    for (size_t i = 0; i < self->n_options; i++) {
        const cli_option *o = &self->options[i];
        bool valued = o->kind != OPTION_FLAG;
        if (o->letter) {
            *letters++ = o->letter;
            if (valued)
                *letters++ = ':';
        }
        names[i] = (struct option){o->name, valued ? required_argument : no_argument, NULL,
                                   FIRST + (int)i};
    }
    *letters = '\0';
    names[self->n_options] = (struct option){"help", no_argument, NULL, 'h'};
    names[self->n_options + 1] = (struct option){NULL, 0, NULL, 0};
}

static const cli_option *find(const command *self, int code)
{
    if (code >= FIRST)
        return &self->options[code - FIRST];
    for (size_t i = 0; i < self->n_options; i++) {
        if (self->options[i].letter == code)
            return &self->options[i];
    }
    return NULL;
}

int options_parse(const command *self, int argc, char **argv, void *target, int *exit_status)
{
    char letters[2 * MAX_OPTIONS + 3];
    struct option names[MAX_OPTIONS + 2];
    describe(self, letters, names);
    opterr = 0;
    optind = 1;
    int code;
    while ((code = getopt_long(argc, argv, letters, names, NULL)) != -1) {
        const char *word = argv[optind - 1];
        if (code == 'h') {
            help_print(self, stdout);
            *exit_status = EXIT_SUCCESS;
            return -1;
        }
        if (code == ':') {
            *exit_status = command_misused(self, "option '%s' needs a value", word);
            return -1;
        }
        if (code == '?') {
            *exit_status = optopt > 0 && optopt < FIRST
                               ? command_misused(self, "unknown option '-%c'", optopt)
                               : command_misused(self, "unknown option '%s'", word);
            return -1;
        }
        const cli_option *o = find(self, code);
        const char *wanted = store(o, optarg, (char *)target + o->offset, argc);
        if (wanted) {
            *exit_status = command_misused(self, "--%s '%s': must be %s", o->name, optarg, wanted);
            return -1;
        }
    }
    if (argc - optind > self->max_arguments) {
        *exit_status =
            command_misused(self, "unexpected argument '%s'", argv[optind + self->max_arguments]);
        return -1;
    }
    return argc - optind;
}
