#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command.h"

extern const command run_command, chat_command, serve_command, score_command, perplexity_command,
    imatrix_command, tokenize_command, detokenize_command, tokenizer_command, inspect_command,
    trace_command, convert_command, quantize_command, data_command, upcycle_command, train_command,
    report_command, synth_command, bench_command, pull_command, list_command, rm_command,
    help_command;

const command *const commands[] = {
    &run_command,        &chat_command,    &serve_command,    &score_command,
    &perplexity_command, &imatrix_command, &tokenize_command, &detokenize_command,
    &tokenizer_command,  &inspect_command, &trace_command,    &convert_command,
    &quantize_command,   &data_command,    &upcycle_command,  &train_command,
    &report_command,     &synth_command,   &bench_command,    &pull_command,
    &list_command,       &rm_command,      &help_command,     NULL,
};

const command *command_find(const char *name)
{
    for (size_t i = 0; commands[i]; i++) {
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    }
    return NULL;
}

void print_safely(FILE *out, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        /* C1 controls, U+0080 to U+009F, are C2 80 to C2 9F in UTF-8. */
        bool c1 = c == 0xC2 && i + 1 < size && ((unsigned char)text[i + 1] & 0xE0) == 0x80;
        if (c1)
            i++;
        if (c1 || (c < 0x20 && c != '\n' && c != '\t') || c == 0x7F)
            fputc('?', out);
        else
            fputc(c, out);
    }
}

static void complain(const command *self, const char *format, va_list args)
{
    char line[2048];
    vsnprintf(line, sizeof(line), format, args);
    for (char *c = line; *c; c++) {
        if (*c == '\n' || *c == '\t')
            *c = ' '; /* one line, whatever a file's names hold */
    }
    fflush(stdout);
    fprintf(stderr, "marco%s%s: ", self ? " " : "", self ? self->name : "");
    print_safely(stderr, line, strlen(line));
    fputc('\n', stderr);
}

int command_fail(const command *self, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    complain(self, format, args);
    va_end(args);
    return EXIT_FAIL;
}

int command_misused(const command *self, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    command_fail(self, "%s (see 'marco%s%s --help')", text, self ? " " : "",
                 self ? self->name : "");
    return EXIT_USAGE;
}

int command_status(const command *self, marco_status status, const marco_error *error)
{
    if (status == MARCO_OK)
        return EXIT_SUCCESS;
    if (status == MARCO_ERROR_CANCELLED) {
        command_fail(self, "interrupted");
        return EXIT_INTERRUPTED;
    }
    return command_fail(self, "%s", error->message[0] ? error->message : marco_status_text(status));
}

/* ---- marco help ----------------------------------------------------------------------------- */

struct help_options {
    bool man;
};

static const cli_option help_options[] = {
    CLI_OPTION("man", 0, FLAG, NULL, struct help_options, man, 0, "Print the man page's source."),
};

static int help_run(const command *self, int argc, char **argv)
{
    struct help_options o = {0};
    int exit_status = 0;
    int n = options_parse(self, argc, argv, &o, &exit_status);
    if (n < 0)
        return exit_status;
    const command *about = NULL;
    if (n == 1) {
        about = command_find(argv[argc - 1]);
        if (!about)
            return command_misused(self, "no command '%s'", argv[argc - 1]);
    }
    if (o.man)
        help_man(about, stdout);
    else
        help_print(about, stdout);
    return EXIT_SUCCESS;
}

const command help_command = {
    .name = "help",
    .summary = "explain a command",
    .synopsis = "[--man] [COMMAND]",
    .details = "Prints what COMMAND does and its options; without COMMAND, the list of commands.\n",
    .example = "marco help upcycle\nmarco help --man run | man -l -\n",
    .options = help_options,
    .n_options = sizeof(help_options) / sizeof(help_options[0]),
    .max_arguments = 1,
    .run = help_run,
};

/* --------------------------------------------------------------------------------------------- */

/* A program started with one of these closed would get it for a file of its own, and messages would
 * go there. What stands in cannot be read or written, as one expects of what is closed. */
static void keep_standard_files(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            exit(EXIT_FAIL); /* there is nowhere to say why */
    }
}

int main(int argc, char **argv)
{
    keep_standard_files();
    /* Characters as the terminal has them; numbers always with a point. */
    setlocale(LC_CTYPE, "");
    int exit_status = EXIT_SUCCESS;
    const command *self = NULL;
    if (argc < 2) {
        help_print(NULL, stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        help_print(NULL, stdout);
    } else if (strcmp(argv[1], "--version") == 0) {
        printf("marco %s (%s)\n", marco_version(), marco_cpu_level());
    } else {
        self = command_find(argv[1]);
        if (!self)
            return command_misused(NULL, "no command '%s'", argv[1]);
        exit_status = self->run(self, argc - 1, argv + 1);
    }
    errno = 0;
    if ((fflush(stdout) != 0 || ferror(stdout)) && exit_status == EXIT_SUCCESS)
        exit_status = command_fail(self, "standard output: %s",
                                   errno ? strerror(errno) : "could not be written");
    return exit_status;
}
