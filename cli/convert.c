/* marco convert: GGUF to Hugging Face and back. */
#include <stdlib.h>

#include "interrupt.h"
#include "load.h"
#include "write.h"

struct convert_options {
    write_options write;
    const char *model;
};

static const cli_option options[] = {
    MODEL_OPTION(struct convert_options, model),
    CLI_OPTION("type", 0, TEXT, "TYPE", struct convert_options, write.type, 0,
               "Type of the written matrices: F32, F16, BF16, Q8_0, ...; unless given they keep "
               "theirs where the output's format has it."),
    WRITE_OPTIONS(struct convert_options),
};

static int run(const command *self, int argc, char **argv)
{
    struct convert_options o = {0};
    int exit_status = 0;
    int n = options_parse(self, argc, argv, &o, &exit_status);
    if (n < 0)
        return exit_status;
    /* IN OUT, or -m IN OUT. */
    const char *from = o.model ? o.model : argv[argc - n];
    if (n != (o.model ? 1 : 2))
        return command_misused(self, "needs an input and an output");
    const char *to = argv[argc - 1];
    char *path = NULL;
    exit_status = load_find(self, from, &path);
    if (exit_status != EXIT_SUCCESS)
        return exit_status;

    interrupt_catch(INTERRUPT_PATIENT);
    progress shown = progress_create(self, o.write.quiet);
    marco_convert_params params = marco_convert_params_default();
    params.type = o.write.type;
    params.overwrite = o.write.overwrite;
    params.threads = o.write.threads;
    params.progress = progress_of(&shown);
    marco_error error = {0};
    double start = seconds_now();
    marco_status status = marco_convert(path, to, &params, &error);
    marco_free(path);
    progress_clear(&shown);
    return write_report(self, &o.write, to, start, status, &error);
}

const command convert_command = {
    .name = "convert",
    .summary = "turn a Hugging Face folder into a GGUF file, or back",
    .synopsis = "IN OUT [OPTION...]",
    .details =
        "Reads the checkpoint IN (also -m IN) and writes OUT: a GGUF file where the name ends "
        "in .gguf, else a Hugging Face folder. OUT appears whole or not at all. What OUT's "
        "format cannot express is refused by name. Memory stays under 1 GiB for any size.\n",
    .example = "marco convert Marco-Mini-Instruct marco-mini.gguf --type Q8_0\n"
               "marco convert marco-mini.gguf Marco-Mini-HF --type BF16\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .max_arguments = 2,
    .run = run,
};
