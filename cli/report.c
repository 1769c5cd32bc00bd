/* marco report: what training runs have come to, as a page. */
#include <marco/train.h>

#include "progress.h"
#include "write.h"

struct report_options {
    write_options write;
    const char *to;
};

static const cli_option options[] = {
    CLI_OPTION("out", 'o', TEXT, "OUT.html", struct report_options, to, 0, "The page to write."),
    CLI_OPTION("overwrite", 0, FLAG, NULL, struct report_options, write.overwrite, 0,
               "Replace a page that exists."),
    CLI_OPTION("json", 0, FLAG, NULL, struct report_options, write.json, 0,
               "Print what was written as a JSON object: output, bytes, seconds."),
    CLI_OPTION("quiet", 'q', FLAG, NULL, struct report_options, write.quiet, 0, "No summary."),
};

static int run(const command *self, int argc, char **argv)
{
    struct report_options o = {0};
    int exit_status = 0;
    int n = options_parse(self, argc, argv, &o, &exit_status);
    if (n < 0)
        return exit_status;
    if (n == 0 || !o.to)
        return command_misused(self, "needs the folder of a training run and -o OUT.html");
    marco_error error = {0};
    double start = seconds_now();
    marco_status status = marco_train_report((const char *const *)argv + argc - n, (size_t)n, o.to,
                                             o.write.overwrite, &error);
    return write_report(self, &o.write, o.to, start, status, &error);
}

const command report_command = {
    .name = "report",
    .summary = "show the course of training runs as an HTML page",
    .synopsis = "RUN... -o OUT.html [OPTION...]",
    .details =
        "Reads RUN/metrics.jsonl, which marco train writes, of one run or several to compare: "
        "losses, learning rate, gradient norm, the load of every expert, numbers and recipe. Works "
        "while a run goes on.\n"
        "OUT.html is one file without scripts, which needs no network.\n",
    .example = "marco report runs/pico -o pico.html\n"
               "marco report runs/upcycled runs/dense runs/scratch -o comparison.html\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .max_arguments = 64,
    .run = run,
};
