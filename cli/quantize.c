/* marco quantize: the same model in fewer bits. */
#include <stdlib.h>
#include <string.h>

#include "interrupt.h"
#include "load.h"
#include "text.h"
#include "write.h"

struct quantize_options {
    write_options write;
    const char *model;
    option_list tensors;
    const char *imatrix;
    bool requantize;
};

static const cli_option options[] = {
    MODEL_OPTION(struct quantize_options, model),
    CLI_OPTION("type", 0, TEXT, "TYPE", struct quantize_options, write.type, 0,
               "What to write, from large and exact to small: F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, "
               "Q4_K_M, IQ4_XS, Q4_0; also Q5_K, Q5_1, Q5_0, Q4_K, Q4_1, IQ4_NL. Needed."),
    CLI_OPTION("tensor", 0, LIST, "PATTERN=TYPE", struct quantize_options, tensors, 0,
               "Another type for the tensors whose GGUF name matches the shell pattern; may be "
               "given again, of several that match the last counts."),
    CLI_OPTION("imatrix", 0, TEXT, "FILE", struct quantize_options, imatrix, 0,
               "Importance of each column, as marco imatrix and llama.cpp measure it; lowers the "
               "error where it matters."),
    CLI_OPTION("requantize", 0, FLAG, NULL, struct quantize_options, requantize, 0,
               "Accept an input of fewer bits than Q8_0; what it lost stays lost."),
    WRITE_OPTIONS(struct quantize_options),
};

static double bits_per_weight(uint64_t bytes, const marco_quantize_stats *stats)
{
    return stats->n_weights ? 8 * (double)bytes / (double)stats->n_weights : 0;
}

static int print_json(const command *self, const char *to, double seconds,
                      const marco_quantize_stats *stats)
{
    return json_line(self, json_pack("{s:o, s:I, s:f, s:I, s:I, s:f, s:I, s:I}", "output",
                                     json_text(to, strlen(to)), "bytes",
                                     (json_int_t)write_bytes(to), "seconds", seconds,
                                     "weight_bytes_before", (json_int_t)stats->bytes_before,
                                     "weight_bytes", (json_int_t)stats->bytes_after,
                                     "bits_per_weight", bits_per_weight(stats->bytes_after, stats),
                                     "fallbacks", (json_int_t)stats->n_fallbacks,
                                     "without_importance", (json_int_t)stats->n_unimportant));
}

static void print_sizes(const marco_quantize_stats *stats, bool imatrix)
{
    char before[32], after[32];
    fprintf(stderr, "%s (%.2f bits a weight) became %s (%.2f)\n",
            format_bytes(stats->bytes_before, before), bits_per_weight(stats->bytes_before, stats),
            format_bytes(stats->bytes_after, after), bits_per_weight(stats->bytes_after, stats));
    if (stats->n_fallbacks)
        fprintf(stderr,
                "note: %zu of %zu matrices have rows that do not divide into their type's blocks "
                "and took a larger one\n",
                stats->n_fallbacks, stats->n_matrices);
    if (imatrix && stats->n_unimportant)
        fprintf(stderr, "note: %zu of %zu matrices are not in the importance matrix\n",
                stats->n_unimportant, stats->n_matrices);
}

static int quantize(const command *self, const struct quantize_options *o, const char *from,
                    const char *to)
{
    interrupt_catch(INTERRUPT_PATIENT);
    progress shown = progress_create(self, o->write.quiet);
    marco_quantize_params params = marco_quantize_params_default();
    params.type = o->write.type;
    params.tensors = o->tensors.items;
    params.n_tensors = o->tensors.n;
    params.imatrix = o->imatrix;
    params.requantize = o->requantize;
    params.overwrite = o->write.overwrite;
    params.threads = o->write.threads;
    params.progress = progress_of(&shown);
    marco_quantize_stats stats = {0};
    marco_error error = {0};
    double start = seconds_now();
    marco_status status = marco_quantize(from, to, &params, &stats, &error);
    progress_clear(&shown);
    if (status == MARCO_OK && o->write.json)
        return print_json(self, to, seconds_now() - start, &stats);
    if (status == MARCO_OK && !o->write.quiet)
        print_sizes(&stats, o->imatrix != NULL);
    return write_report(self, &o->write, to, start, status, &error);
}

static int run(const command *self, int argc, char **argv)
{
    struct quantize_options o = {0};
    int exit_status = 0;
    int n = options_parse(self, argc, argv, &o, &exit_status);
    if (n < 0) {
        free(o.tensors.items);
        return exit_status;
    }
    /* IN OUT, or -m IN OUT. */
    const char *from = o.model ? o.model : argv[argc - n];
    char *path = NULL;
    if (n != (o.model ? 1 : 2))
        exit_status = command_misused(self, "needs an input and an output");
    else if (!o.write.type)
        exit_status = command_misused(self, "needs --type, such as --type Q4_K_M");
    else
        exit_status = load_find(self, from, &path);
    if (path)
        exit_status = quantize(self, &o, path, argv[argc - 1]);
    marco_free(path);
    free(o.tensors.items);
    return exit_status;
}

const command quantize_command = {
    .name = "quantize",
    .summary = "write a model's weights in fewer bits",
    .synopsis = "IN OUT --type TYPE [OPTION...]",
    .details =
        "Reads the checkpoint IN (also -m IN) and writes the GGUF file OUT, whole or not at all. "
        "The _M types and IQ4_XS give more bits to the tensors that need them, as llama.cpp's do. "
        "Norms and routers stay F32. A matrix whose rows do not divide into blocks of 256 takes "
        "the nearest type that has blocks of 32. Memory stays under 1 GiB for any size.\n",
    .example = "marco quantize Marco-Mini-Instruct mini-q4.gguf --type Q4_K_M\n"
               "marco quantize mini-q8.gguf mini-q4.gguf --type Q4_K_M --imatrix mini.imatrix \\\n"
               "    --tensor 'blk.*.attn_*=Q8_0'\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .max_arguments = 2,
    .run = run,
};
