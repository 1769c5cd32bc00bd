/* marco tokenize and marco detokenize: lines in, lines out. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "load.h"
#include "text.h"

struct tokenize_options {
    const char *model;
    bool plain;
    bool no_bos;
    bool json;
};

/* ---- lines, buffered ------------------------------------------------------------------------ */

enum { BLOCK = 1 << 20 };

typedef struct lines {
    text held;     /* read and not yet handed out */
    size_t start;  /* of what remains of it */
    size_t looked; /* no newline before this */
    bool end;
} lines;

/* The next line of standard input, its newline left out. 1, 0 at the end, -1 on an error that has
 * been reported. */
static int next_line(const command *self, lines *in, const char **line, size_t *size)
{
    for (;;) {
        char *newline = in->held.size > in->looked
                            ? memchr(in->held.data + in->looked, '\n', in->held.size - in->looked)
                            : NULL;
        if (newline || (in->end && in->start < in->held.size)) {
            char *last = newline ? newline : in->held.data + in->held.size;
            *line = in->held.data + in->start;
            *size = (size_t)(last - *line);
            in->start += *size + (newline ? 1 : 0);
            in->looked = in->start;
            return 1;
        }
        if (in->end)
            return 0;
        /* Half a line is held, or nothing. It is moved once: a long line that comes in many blocks
         * stays where it is. */
        if (in->start > 0) {
            in->held.size -= in->start;
            memmove(in->held.data, in->held.data + in->start, in->held.size);
            in->start = 0;
        }
        in->looked = in->held.size;
        static char block[BLOCK];
        ssize_t got = read(STDIN_FILENO, block, sizeof(block));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            command_fail(self, "standard input: %s", strerror(errno));
            return -1;
        }
        in->end = got == 0;
        if (!text_append(&in->held, block, (size_t)got)) {
            command_fail(self, "standard input: a line larger than memory or 1 GiB");
            return -1;
        }
    }
}

/* ---- ids to text and back ------------------------------------------------------------------- */

/* "[1,2,3]\n" */
static void print_ids(const int32_t *ids, size_t n)
{
    putc_unlocked('[', stdout);
    for (size_t i = 0; i < n; i++) {
        char digits[12];
        size_t at = sizeof(digits);
        uint32_t id = (uint32_t)ids[i];
        do {
            digits[--at] = (char)('0' + id % 10);
            id /= 10;
        } while (id > 0);
        if (i > 0)
            putc_unlocked(',', stdout);
        fwrite_unlocked(digits + at, 1, sizeof(digits) - at, stdout);
    }
    fwrite_unlocked("]\n", 1, 2, stdout);
}

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r'))
        at++;
    return at;
}

/* Reads a JSON array of ids; ids [room for size / 2 + 1 numbers]. False where it is none. */
static bool read_ids(const char *line, size_t size, int32_t *ids, size_t *n)
{
    const char *end = line + size;
    const char *at = skip_space(line, end);
    *n = 0;
    if (at == end || *at++ != '[')
        return false;
    at = skip_space(at, end);
    bool empty = at < end && *at == ']';
    while (!empty) {
        int64_t id = 0;
        const char *first = at;
        while (at < end && *at >= '0' && *at <= '9' && id <= INT32_MAX)
            id = id * 10 + (*at++ - '0');
        if (at == first || id > INT32_MAX)
            return false;
        ids[(*n)++] = (int32_t)id;
        at = skip_space(at, end);
        if (at < end && *at == ']')
            break;
        if (at == end || *at != ',')
            return false;
        at = skip_space(at + 1, end);
    }
    return skip_space(at + 1, end) == end;
}

static int tokenize_line(const command *self, const struct tokenize_options *o,
                         const marco_tokenizer *tokenizer, const char *line, size_t size)
{
    unsigned flags = (o->plain ? 0U : MARCO_ENCODE_SPECIAL) | (o->no_bos ? 0U : MARCO_ENCODE_BOS);
    int32_t *ids = NULL;
    size_t n = 0;
    marco_error error = {0};
    marco_status status = marco_tokenizer_encode(tokenizer, line, size, flags, &ids, &n, &error);
    if (status != MARCO_OK)
        return command_status(self, status, &error);
    print_ids(ids, n);
    marco_free(ids);
    return EXIT_SUCCESS;
}

static int detokenize_line(const command *self, const struct tokenize_options *o,
                           const marco_tokenizer *tokenizer, const char *line, size_t size)
{
    int32_t *ids = malloc((size / 2 + 1) * sizeof(*ids));
    if (!ids)
        return command_fail(self, "out of memory");
    char *decoded = NULL;
    size_t n = 0;
    size_t length = 0;
    int exit_status = EXIT_SUCCESS;
    if (!read_ids(line, size, ids, &n)) {
        exit_status = command_fail(self, "standard input: not a JSON array of token ids: %.*s%s",
                                   size > 40 ? 40 : (int)size, line, size > 40 ? "..." : "");
        goto done;
    }
    marco_error error = {0};
    marco_status status =
        marco_tokenizer_decode(tokenizer, ids, n, !o->plain, &decoded, &length, &error);
    if (status != MARCO_OK) {
        exit_status = command_status(self, status, &error);
    } else if (o->json) {
        exit_status = json_line(self, json_text(decoded, length));
    } else {
        fwrite(decoded, 1, length, stdout);
        fputc('\n', stdout);
    }
done:
    marco_free(decoded);
    free(ids);
    return exit_status;
}

typedef int (*line_fn)(const command *self, const struct tokenize_options *o,
                       const marco_tokenizer *tokenizer, const char *line, size_t size);

static int each_line(const command *self, int argc, char **argv, line_fn work)
{
    struct tokenize_options o = {0};
    int exit_status = 0;
    if (options_parse(self, argc, argv, &o, &exit_status) < 0)
        return exit_status;
    if (!o.model)
        return command_misused(self, "no model: give -m MODEL");
    marco_tokenizer *tokenizer = NULL;
    char *path = NULL;
    exit_status = load_find(self, o.model, &path);
    if (exit_status != EXIT_SUCCESS)
        return exit_status;
    marco_error error = {0};
    marco_status status = marco_tokenizer_open(path, &tokenizer, &error);
    marco_free(path);
    if (status != MARCO_OK)
        return command_status(self, status, &error);
    lines in = {0};
    const char *line = NULL;
    size_t size = 0;
    int got = 0;
    while (exit_status == EXIT_SUCCESS && !ferror(stdout) &&
           (got = next_line(self, &in, &line, &size)) > 0)
        exit_status = work(self, &o, tokenizer, line, size);
    if (got < 0)
        exit_status = EXIT_FAIL;
    free(in.held.data);
    marco_tokenizer_close(tokenizer);
    return exit_status;
}

/* --------------------------------------------------------------------------------------------- */

static int tokenize(const command *self, int argc, char **argv)
{
    return each_line(self, argc, argv, tokenize_line);
}

static int detokenize(const command *self, int argc, char **argv)
{
    return each_line(self, argc, argv, detokenize_line);
}

static const cli_option options[] = {
    MODEL_OPTION(struct tokenize_options, model),
    CLI_OPTION("no-special", 0, FLAG, NULL, struct tokenize_options, plain, 0,
               "Take special tokens in the text as the plain characters they are made of."),
    CLI_OPTION("no-bos", 0, FLAG, NULL, struct tokenize_options, no_bos, 0,
               "Leave out the beginning-of-sequence token where the checkpoint asks for one."),
    CLI_OPTION("json", 0, FLAG, NULL, struct tokenize_options, json, 0,
               "Accepted: the output is JSON in any case."),
};

static const cli_option detokenize_options[] = {
    MODEL_OPTION(struct tokenize_options, model),
    CLI_OPTION("no-special", 0, FLAG, NULL, struct tokenize_options, plain, 0,
               "Leave special tokens out of the text."),
    CLI_OPTION("json", 0, FLAG, NULL, struct tokenize_options, json, 0,
               "Each text as a JSON string on a line; bytes that are not UTF-8 become U+FFFD."),
};

const command tokenize_command = {
    .name = "tokenize",
    .summary = "turn lines of text into token ids",
    .synopsis = "-m MODEL [OPTION...] < TEXT",
    .details =
        "Prints a JSON array of token ids for each line of standard input. The newline that ends a "
        "line is not part of it; a carriage return before it is. MODEL may also be a "
        "tokenizer.json.\n",
    .example = "echo 'Hello, world' | marco tokenize -m marco-mini.gguf\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .run = tokenize,
};

const command detokenize_command = {
    .name = "detokenize",
    .summary = "turn token ids into text",
    .synopsis = "-m MODEL [OPTION...] < IDS",
    .details = "Prints the text of each line of standard input, a JSON array of token ids.\n",
    .example = "echo '[9707, 11, 1879]' | marco detokenize -m marco-mini.gguf\n",
    .options = detokenize_options,
    .n_options = sizeof(detokenize_options) / sizeof(detokenize_options[0]),
    .run = detokenize,
};
