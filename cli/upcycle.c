/* marco upcycle: a dense model cut into a mixture of experts. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "interrupt.h"
#include "load.h"
#include "write.h"

struct upcycle_options {
    write_options write;
    const char *from, *to, *preset;
    int32_t experts, expert_dim, top_k;
    const char *scale, *drop_index, *router;
    double drop;
    option_seed seed;
};

static const cli_option options[] = {
    CLI_OPTION("from", 'm', TEXT, "DENSE", struct upcycle_options, from, 0,
               "The dense parent: qwen3 or llama, a GGUF file or a Hugging Face folder."),
    CLI_OPTION("model", 0, TEXT, "DENSE", struct upcycle_options, from, 0, "The same as --from."),
    CLI_OPTION("to", 0, TEXT, "OUT", struct upcycle_options, to, 0,
               "The output: a GGUF file where the name ends in .gguf, else a Hugging Face folder."),
    CLI_OPTION("preset", 0, TEXT, "NAME", struct upcycle_options, preset, 0,
               "Set what follows as for marco-mini or marco-nano; options given besides win."),
    CLI_OPTION("experts", 0, INT, "E", struct upcycle_options, experts, 1,
               "Experts a layer, a multiple of the slices N."),
    CLI_OPTION("expert-dim", 0, INT, "F", struct upcycle_options, expert_dim, 1,
               "Width of an expert; the parent's feed-forward width is N times this."),
    CLI_OPTION("top-k", 0, INT, "K", struct upcycle_options, top_k, 1,
               "Experts at work on each token."),
    CLI_OPTION("scale", 0, TEXT, "HOW", struct upcycle_options, scale, 0,
               "cube-root (default): gate, up and down by the cube root of N; down: down by N, "
               "which is exact; none."),
    CLI_OPTION("drop", 0, DOUBLE, "R", struct upcycle_options, drop, 0,
               "The share of each expert's width that is drawn anew, 0 to 1 (0.5)."),
    CLI_OPTION(
        "drop-index", 0, TEXT, "HOW", struct upcycle_options, drop_index, 0,
        "matrix (default): gate, up and down draw their own indices; shared: one draw for all."),
    CLI_OPTION("router", 0, TEXT, "HOW", struct upcycle_options, router, 0,
               "normal (default): rows from N(0, 0.02); virtual-group: E/N rows, each repeated N "
               "times in a row, so that whole copies of the parent are picked."),
    CLI_OPTION("type", 0, TEXT, "TYPE", struct upcycle_options, write.type, 0,
               "Type of the written matrices; the parent's where possible unless given."),
    CLI_OPTION("seed", 's', SEED, "N", struct upcycle_options, seed, 0,
               "The same seed gives the same bytes; 0 unless given."),
    WRITE_OPTIONS(struct upcycle_options),
};

/* The index of `given` among NULL-ended names, or -1 with the misuse reported in *exit_status. */
static int choose(const command *self, const char *option, const char *given,
                  const char *const *names, int *exit_status)
{
    char list[128] = "";
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], given) == 0)
            return i;
        size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", names[i]);
    }
    *exit_status = command_misused(self, "--%s '%s': must be one of %s", option, given, list);
    return -1;
}

/* The options over the preset over the defaults. Returns an exit status, errors reported. */
static int read_params(const command *self, const struct upcycle_options *o,
                       marco_upcycle_params *params)
{
    static const char *const scales[] = {"cube-root", "down", "none", NULL};
    static const char *const indices[] = {"matrix", "shared", NULL};
    static const char *const routers[] = {"normal", "virtual-group", NULL};
    int exit_status = EXIT_SUCCESS;
    int choice = 0;
    *params = marco_upcycle_params_default();
    if (o->preset && !marco_upcycle_preset(params, o->preset))
        return command_misused(self, "no preset '%s': marco-mini, marco-nano", o->preset);
    if (o->experts)
        params->n_experts = o->experts;
    if (o->expert_dim)
        params->expert_dim = o->expert_dim;
    if (o->top_k)
        params->top_k = o->top_k;
    if (!isnan(o->drop))
        params->drop = o->drop;
    if (o->seed.given)
        params->seed = o->seed.value;
    if (o->write.type)
        params->type = o->write.type;
    if (o->scale && (choice = choose(self, "scale", o->scale, scales, &exit_status)) >= 0)
        params->scale = (marco_upcycle_scale)choice;
    if (choice >= 0 && o->drop_index &&
        (choice = choose(self, "drop-index", o->drop_index, indices, &exit_status)) >= 0)
        params->drop_shared = choice == 1;
    if (choice >= 0 && o->router &&
        (choice = choose(self, "router", o->router, routers, &exit_status)) >= 0)
        params->router = (marco_upcycle_router)choice;
    if (exit_status != EXIT_SUCCESS)
        return exit_status;
    if (!params->n_experts || !params->expert_dim || !params->top_k)
        return command_misused(self, "needs --experts, --expert-dim and --top-k, or --preset");
    return EXIT_SUCCESS;
}

static int run(const command *self, int argc, char **argv)
{
    struct upcycle_options o = {.drop = NAN};
    int exit_status = 0;
    if (options_parse(self, argc, argv, &o, &exit_status) < 0)
        return exit_status;
    if (!o.from || !o.to)
        return command_misused(self, "needs --from DENSE and --to OUT");
    marco_upcycle_params params;
    exit_status = read_params(self, &o, &params);
    char *from = NULL;
    if (exit_status == EXIT_SUCCESS)
        exit_status = load_find(self, o.from, &from);
    if (exit_status != EXIT_SUCCESS)
        return exit_status;

    interrupt_catch(INTERRUPT_PATIENT);
    progress shown = progress_create(self, o.write.quiet);
    params.overwrite = o.write.overwrite;
    params.threads = o.write.threads;
    params.progress = progress_of(&shown);
    marco_error error = {0};
    double start = seconds_now();
    marco_status status = marco_upcycle(from, o.to, &params, &error);
    marco_free(from);
    progress_clear(&shown);
    return write_report(self, &o.write, o.to, start, status, &error);
}

const command upcycle_command = {
    .name = "upcycle",
    .summary = "cut a dense model into a mixture of experts",
    .synopsis = "--from DENSE --to OUT --experts E --expert-dim F --top-k K [OPTION...]",
    .details =
        "Slices each feed-forward layer of the parent into N = width / F experts, copies them to "
        "E, "
        "scales them, draws a share of each anew and adds a router. OUT appears whole or not at "
        "all.\n"
        "With --scale down --drop 0 --router virtual-group and K = N the result computes what "
        "its parent does: a mixture of experts to train from, whose copies are identical until "
        "then.\n",
    .example =
        "marco upcycle --from Qwen3-0.6B-Base --to marco-mini-init.gguf --preset marco-mini\n"
        "marco upcycle --from dense.gguf --to moe.gguf --experts 12 --expert-dim 512 --top-k 3 "
        "--scale down --drop 0 --router virtual-group\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .run = run,
};
