/* marco tokenizer train: a vocabulary learnt from text. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <marco/train.h>

#include "interrupt.h"
#include "load.h"
#include "text.h"
#include "write.h"

struct tokenizer_options {
    write_options write;
    const char *to, *max_bytes;
    int32_t vocab_size, min_frequency;
    option_list special;
};

static const cli_option options[] = {
    CLI_OPTION("to", 0, TEXT, "DIR", struct tokenizer_options, to, 0,
               "The folder to make, with tokenizer.json and tokenizer_config.json."),
    CLI_OPTION("vocab-size", 0, INT, "N", struct tokenizer_options, vocab_size, 1,
               "Tokens in all: 256 bytes, what is learnt, and the special tokens."),
    CLI_OPTION("special", 0, LIST, "T", struct tokenizer_options, special, 0,
               "A special token; may be given again and again. Their ids are the last ones, in "
               "this order. <|endoftext|>, <|im_start|> and <|im_end|> unless given."),
    CLI_OPTION("min-frequency", 0, INT, "N", struct tokenizer_options, min_frequency, 1,
               "Learn nothing that occurs less often (2)."),
    CLI_OPTION("max-bytes", 0, TEXT, "SIZE", struct tokenizer_options, max_bytes, 0,
               "Read this much of each file, from its beginning: bytes, or a number with K, M, G "
               "or T. All of it unless given."),
    WRITE_OPTIONS(struct tokenizer_options),
};

static int report(const command *self, const struct tokenizer_options *o, double start,
                  const marco_tokenizer_train_stats *stats)
{
    double seconds = seconds_now() - start;
    double per_token = stats->tokens ? (double)stats->bytes / (double)stats->tokens : 0;
    if (o->write.json)
        return json_line(self,
                         json_pack("{s:o, s:I, s:f, s:i, s:i, s:I, s:I, s:I}", "output",
                                   json_text(o->to, strlen(o->to)), "bytes",
                                   (json_int_t)write_bytes(o->to), "seconds", seconds, "vocab_size",
                                   (int)stats->vocab_size, "merges", (int)stats->merges, "words",
                                   (json_int_t)stats->words, "text_bytes", (json_int_t)stats->bytes,
                                   "text_tokens", (json_int_t)stats->tokens));
    if (o->write.quiet)
        return EXIT_SUCCESS;
    if (stats->vocab_size < o->vocab_size)
        fprintf(
            stderr,
            "note: the vocabulary is %d and not %d: no other pair occurs %d times or more; more "
            "text, or a lower --min-frequency, gives more\n",
            (int)stats->vocab_size, (int)o->vocab_size,
            (int)(o->min_frequency ? o->min_frequency : 2));
    char size[32];
    fprintf(stderr, "wrote ");
    print_safely(stderr, o->to, strlen(o->to));
    fprintf(stderr,
            ": %d tokens from %s of text, which has %llu distinct words and takes %.2f bytes a "
            "token (%.1f s)\n",
            (int)stats->vocab_size, format_bytes(stats->bytes, size),
            (unsigned long long)stats->words, per_token, seconds);
    return EXIT_SUCCESS;
}

static int train(const command *self, const struct tokenizer_options *o, char *const *files,
                 size_t n_files)
{
    marco_tokenizer_train_params params = marco_tokenizer_train_params_default();
    if (!o->to || !o->vocab_size || n_files == 0)
        return command_misused(self, "needs --to DIR, --vocab-size N and a FILE or more");
    if (o->max_bytes && !parse_size(o->max_bytes, &params.max_bytes))
        return command_misused(self, "--max-bytes '%s': must be a size, as 500M", o->max_bytes);
    interrupt_catch(INTERRUPT_PATIENT);
    progress shown = progress_create(self, o->write.quiet);
    params.files = (const char *const *)files;
    params.n_files = n_files;
    params.vocab_size = o->vocab_size;
    params.special = o->special.items;
    params.n_special = o->special.n;
    params.min_frequency = o->min_frequency;
    params.overwrite = o->write.overwrite;
    params.threads = o->write.threads;
    params.progress = progress_of(&shown);
    marco_error error = {0};
    marco_tokenizer_train_stats stats = {0};
    double start = seconds_now();
    marco_status status = marco_tokenizer_train(o->to, &params, &stats, &error);
    progress_clear(&shown);
    if (status != MARCO_OK)
        return command_status(self, status, &error);
    return report(self, o, start, &stats);
}

static int run(const command *self, int argc, char **argv)
{
    struct tokenizer_options o = {0};
    int exit_status = EXIT_SUCCESS;
    int n = options_parse(self, argc, argv, &o, &exit_status);
    if (n == 0 || (n > 0 && strcmp(argv[argc - n], "train") != 0))
        exit_status = command_misused(self, "what to do with a tokenizer: the first word must be "
                                            "'train'");
    else if (n > 0)
        exit_status = train(self, &o, argv + argc - n + 1, (size_t)n - 1);
    free(o.special.items);
    return exit_status;
}

const command tokenizer_command = {
    .name = "tokenizer",
    .summary = "learn a tokenizer from text",
    .synopsis = "train --to DIR --vocab-size N [OPTION...] FILE...",
    .details =
        "Learns a byte-level BPE tokenizer with the normaliser (NFC) and the splitting of Qwen's: "
        "the same tokens as Hugging Face's trainer. Programs that read tokenizer.json load the "
        "folder, and marco takes it wherever it takes a tokenizer.\n"
        "A FILE whose name ends in .jsonl has a JSON object a line: what its \"text\" says, or the "
        "contents of its \"messages\". Any other is text in UTF-8, learnt line by line.\n"
        "Documents end with <|endoftext|>, or the first special token where there is none. With "
        "<|im_start|> and <|im_end|> the folder has a ChatML template.\n"
        "With --json also: vocab_size, merges, and of the text the distinct words, text_bytes and "
        "text_tokens.\n",
    .example = "marco tokenizer train --to tokenizer --vocab-size 16384 corpus/*.txt\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .max_arguments = INT_MAX,
    .run = run,
};
