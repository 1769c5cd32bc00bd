/* marco imatrix: which columns of the weights matter, for quantising. */
#include <stdlib.h>
#include <string.h>

#include "interrupt.h"
#include "load.h"
#include "text.h"
#include "write.h"

struct imatrix_options {
    load_options load;
    const char *file;
    const char *output;
    int32_t chunks;
    bool overwrite;
};

static const cli_option options[] = {
    MODEL_OPTION(struct imatrix_options, load.model),
    CLI_OPTION("file", 'f', TEXT, "TEXT", struct imatrix_options, file, 0,
               "The file with the calibration text (-: standard input)."),
    CLI_OPTION("output", 'o', TEXT, "OUT", struct imatrix_options, output, 0,
               "What to write: in GGUF where the name ends in .gguf, else in llama.cpp's older "
               "form."),
    CLI_OPTION("ctx", 'c', INT, "N", struct imatrix_options, load.ctx, 1,
               "Tokens of a chunk, at least 4 (512, or the model's context if that is less)."),
    CLI_OPTION("chunks", 0, INT, "N", struct imatrix_options, chunks, 1,
               "Only the first N chunks; all unless given."),
    CLI_OPTION("threads", 't', THREADS, "N", struct imatrix_options, load.threads, 0,
               "Threads; all the cores this process may use unless given."),
    CLI_OPTION("overwrite", 0, FLAG, NULL, struct imatrix_options, overwrite, 0,
               "Replace an output that exists."),
    CLI_OPTION("json", 0, FLAG, NULL, struct imatrix_options, load.json, 0,
               "Print what was written as a JSON object."),
    CLI_OPTION("quiet", 'q', FLAG, NULL, struct imatrix_options, load.quiet, 0,
               "No progress and no summary."),
};

static int report(const command *self, const struct imatrix_options *o,
                  const marco_imatrix_result *r)
{
    if (o->load.json)
        return json_line(self, json_pack("{s:o, s:i, s:i, s:I, s:I}", "output",
                                         json_text(o->output, strlen(o->output)), "ctx", r->n_ctx,
                                         "chunks", r->n_chunks, "experts", (json_int_t)r->n_experts,
                                         "unused_experts", (json_int_t)r->n_unused));
    if (o->load.quiet)
        return EXIT_SUCCESS;
    fputs("wrote ", stderr);
    print_safely(stderr, o->output, strlen(o->output));
    fprintf(stderr, " (from %d chunks of %d tokens)\n", r->n_chunks, r->n_ctx);
    if (r->n_unused > 0)
        fprintf(stderr,
                "%lld of %lld experts were never used, %d of them in layer %d: a longer or more "
                "varied text reaches more\n",
                (long long)r->n_unused, (long long)r->n_experts, r->worst_unused, r->worst_layer);
    return EXIT_SUCCESS;
}

static int collect(const command *self, const struct imatrix_options *o, loaded *l,
                   const text *calibration)
{
    const char *slash = strrchr(o->file, '/');
    marco_imatrix_params params = marco_imatrix_params_default();
    params.n_ctx = o->load.ctx;
    params.max_chunks = o->chunks;
    params.text_name = slash ? slash + 1 : o->file;
    params.overwrite = o->overwrite;
    params.progress = progress_of(&l->progress);
    marco_imatrix_result result;
    marco_error error = {0};
    marco_status status = marco_imatrix(l->engine, calibration->data, calibration->size, o->output,
                                        &params, &result, &error);
    progress_clear(&l->progress);
    if (status != MARCO_OK)
        return command_status(self, status, &error);
    return report(self, o, &result);
}

static int run(const command *self, int argc, char **argv)
{
    struct imatrix_options o = {.load.compute = "f32"};
    int exit_status = 0;
    if (options_parse(self, argc, argv, &o, &exit_status) < 0)
        return exit_status;
    if (!o.load.model)
        return command_misused(self, "no model: give -m MODEL");
    if (!o.file)
        return command_misused(self, "no text: give -f TEXT");
    if (!o.output)
        return command_misused(self, "no output: give -o OUT");
    if (write_is_same(o.output, o.load.model))
        return command_misused(self, "-o %s: that is the model", o.output);
    text calibration = {0};
    loaded l = {0};
    exit_status = text_read(self, o.file, &calibration);
    if (exit_status == EXIT_SUCCESS)
        exit_status = load_engine(self, &o.load, NULL, &l);
    interrupt_catch(INTERRUPT_PATIENT); /* there may be a file to tidy up */
    if (exit_status == EXIT_SUCCESS)
        exit_status = collect(self, &o, &l, &calibration);
    load_close(&l);
    free(calibration.data);
    return exit_status;
}

const command imatrix_command = {
    .name = "imatrix",
    .summary = "find out which columns of the weights matter, for quantising",
    .synopsis = "-m MODEL -f TEXT -o OUT [OPTION...]",
    .details =
        "Runs the model over a calibration text, on the reference path, and writes an importance "
        "matrix: how large the inputs of each column of each matrix are, by which a quantisation "
        "to few bits can decide what to keep best. The text should be like what the model will be "
        "used for, and long enough that every expert sees some of it.\n"
        "The inputs of an expert are those of the tokens routed to it. Of an expert never used the "
        "file says so, and it is quantised as without an importance matrix.\n"
        "The embedding and the output head are left out, as in llama.cpp, which reads these "
        "files too.\n",
    .example = "marco imatrix -m Marco-Mini-HF -f calibration.txt -o marco-mini.imatrix.gguf\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .run = run,
};
