/* marco data: text into shards of token ids to train on. */
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <marco/train.h>

#include "interrupt.h"
#include "load.h"
#include "text.h"
#include "write.h"

struct data_options {
    write_options write;
    const char *tokenizer, *to, *field, *chat_template, *max_line;
    bool lines, chat, skip_bad;
    double valid;
    int32_t shard_tokens;
};

static const cli_option options[] = {
    CLI_OPTION("tokenizer", 0, TEXT, "MODEL", struct data_options, tokenizer, 0,
               "Whose ids to write: a checkpoint, a tokenizer.json, or OWNER/NAME of a model that "
               "'marco pull' downloaded."),
    CLI_OPTION("to", 0, TEXT, "OUT", struct data_options, to, 0,
               "The folder to write, which appears whole or not at all."),
    CLI_OPTION("lines", 0, FLAG, NULL, struct data_options, lines, 0,
               "Take each line of a text file as a document; else the file is one."),
    CLI_OPTION("field", 0, TEXT, "NAME", struct data_options, field, 0,
               "The field of a JSONL line that holds the text (text)."),
    CLI_OPTION("chat", 0, FLAG, NULL, struct data_options, chat, 0,
               "Read conversations, {\"messages\": [...]} a line, with \"tools\" where there are "
               "any; only the assistant's turns are trained on."),
    CLI_OPTION("chat-template", 0, TEXT, "NAME|FILE", struct data_options, chat_template, 0,
               "Use another chat template than the tokenizer's: qwen3, qwen2.5, smollm2, chatml, "
               "or a template's file."),
    CLI_OPTION("valid", 0, DOUBLE, "SHARE", struct data_options, valid, 0,
               "Hold out this share of the documents for validation, 0 (default) to 1, chosen by "
               "a hash of their text: the same text is always on the same side."),
    CLI_OPTION("skip-bad", 0, FLAG, NULL, struct data_options, skip_bad, 0,
               "Count documents that cannot be used and go on; else the first one is an error."),
    CLI_OPTION("max-line", 0, TEXT, "SIZE", struct data_options, max_line, 0,
               "The most a document may have: bytes, or a number with K, M or G (64M)."),
    CLI_OPTION("shard-tokens", 0, INT, "N", struct data_options, shard_tokens, 1,
               "Begin a new file of ids after so many (268435456; with --chat 67108864)."),
    WRITE_OPTIONS(struct data_options),
};

static int print_json(const command *self, const char *to, double seconds,
                      const marco_data_stats *s)
{
    return json_line(
        self,
        json_pack("{s:o, s:I, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "output",
                  json_text(to, strlen(to)), "bytes", (json_int_t)write_bytes(to), "seconds",
                  seconds, "documents", (json_int_t)s->documents, "tokens", (json_int_t)s->tokens,
                  "text_bytes", (json_int_t)s->bytes, "valid_documents",
                  (json_int_t)s->valid_documents, "valid_tokens", (json_int_t)s->valid_tokens,
                  "empty", (json_int_t)s->empty, "bad", (json_int_t)s->bad, "first_bad",
                  s->bad ? json_text(s->first_bad, strlen(s->first_bad)) : json_null()));
}

static const char *plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

static void print_summary(const struct data_options *o, const marco_data_stats *s)
{
    fprintf(stderr,
            "%" PRIu64 " document%s, %" PRIu64 " token%s to train on, %.2f bytes of %s a token\n",
            s->documents, plural(s->documents), s->tokens, plural(s->tokens),
            (double)s->bytes / (double)s->tokens, o->chat ? "JSON" : "text");
    if (o->valid > 0)
        fprintf(stderr, "%" PRIu64 " document%s, %" PRIu64 " token%s held out\n",
                s->valid_documents, plural(s->valid_documents), s->valid_tokens,
                plural(s->valid_tokens));
    if (s->empty)
        fprintf(stderr, "note: %" PRIu64 " empty document%s left out\n", s->empty,
                plural(s->empty));
    if (s->bad) {
        fprintf(stderr, "note: %" PRIu64 " document%s could not be used; the first: ", s->bad,
                plural(s->bad));
        print_safely(stderr, s->first_bad, strlen(s->first_bad));
        fputc('\n', stderr);
    }
}

/* The options as parameters. Returns an exit status, errors reported. */
static int read_params(const command *self, const struct data_options *o, marco_data_params *params)
{
    *params = marco_data_params_default();
    if (o->max_line && !parse_size(o->max_line, &params->max_line))
        return command_misused(self, "--max-line '%s': must be bytes, or a number with K, M or G",
                               o->max_line);
    if (!(o->valid >= 0 && o->valid < 1))
        return command_misused(self, "--valid %g: must be from 0 to less than 1", o->valid);
    if (o->chat && (o->lines || o->field))
        return command_misused(self, "--chat and --%s exclude each other",
                               o->lines ? "lines" : "field");
    if (o->chat_template && !o->chat)
        return command_misused(self, "--chat-template is for --chat");
    params->lines = o->lines;
    params->chat = o->chat;
    params->field = o->field;
    params->valid = o->valid;
    params->skip_bad = o->skip_bad;
    params->shard_tokens = (uint64_t)o->shard_tokens;
    params->overwrite = o->write.overwrite;
    params->threads = o->write.threads;
    return EXIT_SUCCESS;
}

static int build(const command *self, const struct data_options *o, marco_data_params *params)
{
    interrupt_catch(INTERRUPT_PATIENT);
    progress shown = progress_create(self, o->write.quiet);
    params->progress = progress_of(&shown);
    marco_data_stats stats = {0};
    marco_error error = {0};
    double start = seconds_now();
    marco_status status = marco_data_build(o->to, params, &stats, &error);
    progress_clear(&shown);
    if (status == MARCO_OK && o->write.json)
        return print_json(self, o->to, seconds_now() - start, &stats);
    if (status == MARCO_OK && !o->write.quiet)
        print_summary(o, &stats);
    return write_report(self, &o->write, o->to, start, status, &error);
}

static int run(const command *self, int argc, char **argv)
{
    struct data_options o = {0};
    int exit_status = 0;
    int n = options_parse(self, argc, argv, &o, &exit_status);
    if (n < 0)
        return exit_status;
    if (!o.tokenizer || !o.to || n == 0)
        return command_misused(self, "needs --tokenizer MODEL, --to OUT and files");
    char *tokenizer = NULL;
    text template_text = {0};
    marco_data_params params;
    exit_status = read_params(self, &o, &params);
    if (exit_status == EXIT_SUCCESS)
        exit_status = load_find(self, o.tokenizer, &tokenizer);
    if (exit_status == EXIT_SUCCESS)
        exit_status = load_template(self, o.chat_template, &template_text);
    if (exit_status == EXIT_SUCCESS) {
        params.tokenizer = tokenizer;
        params.files = (const char *const *)argv + (argc - n);
        params.n_files = (size_t)n;
        params.chat_template = template_text.data ? template_text.data : o.chat_template;
        exit_status = build(self, &o, &params);
    }
    free(template_text.data);
    marco_free(tokenizer);
    return exit_status;
}

const command data_command = {
    .name = "data",
    .summary = "turn text into tokens to train on",
    .synopsis = "--tokenizer MODEL --to OUT FILE... [OPTION...]",
    .details =
        "Reads text files, a document each, and .jsonl files, a document or a conversation a "
        "line, and writes a folder of token ids that 'marco train' maps into memory. Special "
        "tokens in the text are taken as the plain characters they are made of. The same files "
        "give the same bytes, whatever the number of threads.\n"
        "Text that is not valid UTF-8, lines that are no JSON or have no such field, and "
        "documents longer than --max-line are errors that name the file and the line; --skip-bad "
        "leaves them out and counts them. Empty ones are always left out and counted.\n",
    .example = "marco data --tokenizer Qwen3-0.6B-Base --to corpus --valid 0.01 *.jsonl\n"
               "marco data --tokenizer Qwen3-0.6B --to talk --chat talk.jsonl\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .max_arguments = INT_MAX,
    .run = run,
};
