/* marco synth: random weights in a named shape. */
#include <stdlib.h>

#include "interrupt.h"
#include "text.h"
#include "write.h"

struct synth_options {
    write_options write;
    option_seed seed;
    int32_t layers;
    const char *tokenizer;
    bool list;
};

static const cli_option options[] = {
    CLI_OPTION("type", 0, TEXT, "TYPE", struct synth_options, write.type, 0,
               "Type of the matrices; Q8_0 for GGUF and BF16 for a folder unless given."),
    CLI_OPTION("seed", 's', SEED, "N", struct synth_options, seed, 0,
               "The same seed gives the same bytes; 0 unless given."),
    CLI_OPTION("layers", 0, INT, "N", struct synth_options, layers, 1,
               "Layers; the shape's unless given."),
    CLI_OPTION("tokenizer", 0, TEXT, "FILE", struct synth_options, tokenizer, 0,
               "Take the tokenizer from this checkpoint or tokenizer.json; unless given, 256 bytes "
               "padded to the shape's vocabulary."),
    CLI_OPTION("list", 0, FLAG, NULL, struct synth_options, list, 0, "List the shapes."),
    WRITE_OPTIONS(struct synth_options),
};

static int print_shapes(const command *self, bool json)
{
    json_t *array = json ? json_array() : NULL;
    const char *name;
    const char *description = "";
    for (size_t i = 0; (name = marco_synth_shape(i, &description)) != NULL; i++) {
        if (json)
            json_array_append_new(
                array, json_pack("{s:s, s:s}", "name", name, "description", description));
        else
            printf("%-18s %s\n", name, description);
    }
    return json ? json_line(self, array) : EXIT_SUCCESS;
}

static int run(const command *self, int argc, char **argv)
{
    struct synth_options o = {0};
    int exit_status = 0;
    int n = options_parse(self, argc, argv, &o, &exit_status);
    if (n < 0)
        return exit_status;
    if (o.list)
        return print_shapes(self, o.write.json);
    if (n != 2)
        return command_misused(self, "needs a shape (--list) and an output");
    const char *to = argv[argc - 1];

    interrupt_catch(INTERRUPT_PATIENT);
    progress shown = progress_create(self, o.write.quiet);
    marco_synth_params params = marco_synth_params_default();
    params.type = o.write.type;
    params.seed = o.seed.value;
    params.layers = o.layers;
    params.tokenizer = o.tokenizer;
    params.overwrite = o.write.overwrite;
    params.threads = o.write.threads;
    params.progress = progress_of(&shown);
    marco_error error = {0};
    double start = seconds_now();
    marco_status status = marco_synth(argv[argc - 2], to, &params, &error);
    progress_clear(&shown);
    return write_report(self, &o.write, to, start, status, &error);
}

const command synth_command = {
    .name = "synth",
    .summary = "write random weights in a named shape",
    .synopsis = "SHAPE OUT [OPTION...]",
    .details =
        "Writes a checkpoint of full size whose weights are random, to measure speed and "
        "memory without the real ones. OUT is a GGUF file where the name ends in .gguf, else "
        "a Hugging Face folder.\n",
    .example = "marco synth --list\nmarco synth marco-nano nano-random.gguf --type Q8_0\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .max_arguments = 2,
    .run = run,
};
