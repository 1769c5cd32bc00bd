/* marco train: a training run by a recipe. */
#include <marco/train.h>

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "interrupt.h"
#include "load.h"
#include "progress.h"

/* Seconds between lines where nobody watches a terminal. */
enum { LINE_SECONDS = 30 };

struct train_options {
    const char *to;
    option_list set;
    bool dry_run, restart, print_recipe, quiet;
    int32_t threads;
};

static const cli_option options[] = {
    CLI_OPTION("to", 0, TEXT, "RUN", struct train_options, to, 0,
               "The run's folder, for checkpoints and metrics. Where it holds this recipe's run, "
               "training goes on from its last checkpoint."),
    CLI_OPTION(
        "set", 0, LIST, "KEY=VALUE", struct train_options, set, 0,
        "Change a setting of the recipe, as in optimizer.lr=1e-4; may be given again and "
        "again. Paths in it begin in the current folder, those in the recipe where it lies."),
    CLI_OPTION("dry-run", 0, FLAG, NULL, struct train_options, dry_run, 0,
               "Check recipe and data, print what training will take, and train nothing."),
    CLI_OPTION(
        "restart", 0, FLAG, NULL, struct train_options, restart, 0,
        "Begin anew in a folder that holds a run, whose checkpoints and metrics are removed."),
    CLI_OPTION("print-recipe", 0, FLAG, NULL, struct train_options, print_recipe, 0,
               "Print the recipe with every default filled in, and train nothing."),
    CLI_OPTION("threads", 't', THREADS, "N", struct train_options, threads, 0,
               "Threads of each process; all the cores it may use unless given."),
    CLI_OPTION("quiet", 'q', FLAG, NULL, struct train_options, quiet, 0,
               "No progress and no summary."),
};

/* ---- progress ------------------------------------------------------------------------------ */

typedef struct shown {
    const command *self;
    bool quiet, terminal, line; /* a line stands on the terminal */
    bool told;                  /* that the run is going to stop */
    double last;                /* when something was last printed */
    double valid;               /* last measured */
} shown;

static void wipe(shown *s)
{
    if (s->line)
        fputs("\r\033[K", stderr);
    s->line = false;
}

static const char *format_time(double seconds, char out[32])
{
    if (seconds < 90)
        snprintf(out, 32, "%.0f s", ceil(seconds));
    else if (seconds < 90 * 60)
        snprintf(out, 32, "%.0f min", ceil(seconds / 60));
    else
        snprintf(out, 32, "%.1f h", seconds / 3600);
    return out;
}

/* "12.3k" */
static const char *format_count(double n, char out[32])
{
    static const char *const units[] = {"", "k", "M", "G", "T"};
    size_t unit = 0;
    while (n >= 999.5 && unit < 4) {
        n /= 1000;
        unit++;
    }
    snprintf(out, 32, unit && n < 99.95 ? "%.1f%s" : "%.0f%s", n, units[unit]);
    return out;
}

/* One line about a step, without its end. */
static void describe(const shown *s, const marco_train_step *step, char out[256])
{
    char rate[32], left[32], valid[32] = "", roof[32] = "", dead[48] = "", time[48] = "";
    if (!isnan(s->valid))
        snprintf(valid, sizeof(valid), "  valid %.4f", s->valid);
    if (step->step < step->steps)
        snprintf(time, sizeof(time), "  %s left", format_time(step->seconds_left, left));
    if (step->roof_share > 0)
        snprintf(roof, sizeof(roof), "  %.0f%% of roof", step->roof_share * 100);
    if (step->dead_experts)
        snprintf(dead, sizeof(dead), "  %d dead experts", step->dead_experts);
    snprintf(out, 256, "step %lld/%lld  loss %.4f%s  lr %.1e  norm %.3g%s  %s tok/s%s%s%s",
             (long long)step->step, (long long)step->steps, step->loss, valid, step->lr, step->norm,
             step->skipped ? " (left out)" : "", format_count(step->tokens_per_second, rate), roof,
             time, dead);
}

/* Cut where the terminal ends: a line that goes on below could not be wiped. */
static void show_step(const shown *s, const marco_train_step *step)
{
    char line[256];
    struct winsize size;
    describe(s, step, line);
    int width = (int)sizeof(line);
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
        width = size.ws_col - 1;
    fprintf(stderr, "\r\033[K%.*s", width, line);
    fflush(stderr);
}

static void on_step(void *user, const marco_train_step *step)
{
    shown *s = user;
    double now = seconds_now();
    bool measured = !isnan(step->valid_loss), last = step->step == step->steps;
    if (measured)
        s->valid = step->valid_loss;
    if (s->quiet)
        return;
    if (s->terminal && !s->told) {
        show_step(s, step);
        s->line = true;
    } else if (!s->terminal && (measured || last || now - s->last >= LINE_SECONDS)) {
        char line[256];
        describe(s, step, line);
        fprintf(stderr, "marco %s: %s\n", s->self->name, line);
        s->last = now;
    }
}

static void on_note(void *user, const char *line)
{
    shown *s = user;
    wipe(s);
    command_fail(s->self, "note: %s", line);
}

static int cancelled(void *user)
{
    shown *s = user;
    if (!interrupt_pending())
        return 0;
    if (!s->told && s->terminal) {
        wipe(s);
        fputs(
            "stopping with a checkpoint; Ctrl-C again ends at once, and loses the steps since the "
            "last one\n",
            stderr);
    }
    s->told = true;
    return 1;
}

/* ---- what is printed at the end ------------------------------------------------------------ */

static void print_row(const char *what, const char *value)
{
    printf("%-28s %s\n", what, value);
}

static void print_bytes(const char *what, uint64_t bytes)
{
    char digits[32];
    print_row(what, format_bytes(bytes, digits));
}

static void print_count(const char *what, int64_t n)
{
    char digits[64], rounded[32];
    snprintf(digits, sizeof(digits), "%lld (%s)", (long long)n, format_count((double)n, rounded));
    if (n < 10000)
        snprintf(digits, sizeof(digits), "%lld", (long long)n);
    print_row(what, digits);
}

static void print_plan(const marco_train_plan *plan)
{
    char digits[64];
    print_count("parameters", plan->total_params);
    print_count("  active for a token", plan->active_params);
    print_count("  trained", plan->trained_params);
    print_count("training data, tokens", plan->train_tokens);
    print_count("held-out data, tokens", plan->valid_tokens);
    print_count("tokens a step", plan->tokens_per_step);
    snprintf(digits, sizeof(digits), "%.3g", plan->flops_per_step);
    print_row("operations a step", digits);
    if (plan->processes > 1) {
        print_count("processes", plan->processes);
        print_count("  that experts are spread over", plan->expert_processes);
    }
    puts(plan->processes > 1 ? "memory of this process" : "memory");
    print_bytes("  weights", plan->weight_bytes);
    print_bytes("  gradients", plan->gradient_bytes);
    print_bytes("  optimizer", plan->optimizer_bytes);
    print_bytes("  activations", plan->activation_bytes);
    print_bytes("  together", plan->total_bytes);
}

static void print_summary(const marco_train_result *result, double seconds)
{
    char time[32], bytes[32], tokens[32];
    const marco_train_step *last = &result->last;
    if (last->step == 0) {
        fprintf(stderr, "nothing left to train: step %lld of this run is its last\n",
                (long long)result->resumed);
    } else {
        fprintf(stderr,
                "trained %lld steps, %s tokens in all, in %s; loss %.4f; at most %s of memory\n",
                (long long)(last->step - result->resumed),
                format_count((double)last->total_tokens, tokens), format_time(seconds, time),
                last->loss, format_bytes(result->peak_bytes, bytes));
    }
    if (result->checkpoint[0]) {
        fputs("checkpoint: ", stderr);
        print_safely(stderr, result->checkpoint, strlen(result->checkpoint));
        fputc('\n', stderr);
    }
}

/* Of the processes that mpirun started, one speaks to the person. */
static bool is_first(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *rank = getenv(names[i]);
        if (rank)
            return strcmp(rank, "0") == 0;
    }
    return true;
}

static int report(const command *self, const struct train_options *o, marco_status status,
                  const marco_error *error, const marco_train_result *result, double seconds)
{
    /* All processes know what went wrong in one, and the first tells it: mpirun would end it before
     * that if another one failed first. Where a process is lost, only those that missed it know. */
    if (!is_first() && status != MARCO_ERROR_NETWORK)
        return EXIT_SUCCESS;
    if (status == MARCO_ERROR_CANCELLED) { /* here, or in another process */
        command_fail(self, "%s", error->message);
        return EXIT_INTERRUPTED;
    }
    if (status != MARCO_OK)
        return command_status(self, status, error);
    if (o->dry_run)
        print_plan(&result->plan);
    else if (!o->quiet)
        print_summary(result, seconds);
    return EXIT_SUCCESS;
}

/* ---- the command --------------------------------------------------------------------------- */

static int print_recipe(const command *self, const marco_train_params *params)
{
    char *json = NULL;
    marco_error error = {0};
    marco_status status = marco_train_recipe(params, &json, &error);
    if (status == MARCO_OK)
        fputs(json, stdout);
    marco_free(json);
    return command_status(self, status, &error);
}

static int train(const command *self, const struct train_options *o, marco_train_params *params)
{
    shown s = {.self = self,
               .quiet = o->quiet,
               .terminal = isatty(STDERR_FILENO) != 0,
               .last = seconds_now(),
               .valid = NAN};
    marco_error error = {0};
    marco_train_result result;
    double start = seconds_now();
    params->on_step = on_step;
    params->on_note = on_note;
    params->cancelled = cancelled;
    params->user = &s;
    interrupt_catch(INTERRUPT_TWICE_KILLS);
    signal(SIGPIPE, SIG_IGN); /* training goes on where nobody reads its progress */
    marco_status status = marco_train(params, &result, &error);
    if (s.line)
        fputc('\n', stderr); /* the last step's line stays */
    return report(self, o, status, &error, &result, seconds_now() - start);
}

static int run(const command *self, int argc, char **argv)
{
    struct train_options o = {0};
    int exit_status = 0;
    int n = options_parse(self, argc, argv, &o, &exit_status);
    if (n < 0)
        goto done;
    exit_status = EXIT_SUCCESS;
    if (n == 0 && o.set.n == 0)
        exit_status = command_misused(self, "needs a RECIPE");
    else if (!o.to && !o.dry_run && !o.print_recipe)
        exit_status = command_misused(self, "needs --to RUN");
    if (exit_status != EXIT_SUCCESS)
        goto done;
    marco_train_prepare();
    marco_train_params params = marco_train_params_default();
    params.recipe = n ? argv[argc - 1] : NULL;
    params.set = o.set.items;
    params.n_set = o.set.n;
    params.to = o.to;
    params.restart = o.restart;
    params.dry_run = o.dry_run;
    params.threads = o.threads;
    exit_status = o.print_recipe ? print_recipe(self, &params) : train(self, &o, &params);
done:
    free(o.set.items);
    return exit_status;
}

const command train_command = {
    .name = "train",
    .summary = "train a model by a recipe",
    .synopsis = "RECIPE --to RUN [OPTION...]",
    .details =
        "Trains a checkpoint, or a model of random numbers, as the JSON file RECIPE says, on data "
        "that 'marco data' wrote. docs/training.md explains every setting.\n"
        "Checkpoints, in RUN/checkpoints, are Hugging Face folders that marco and transformers "
        "load. "
        "After Ctrl-C, a crash or a power cut the same command goes on from the last one, to the "
        "same "
        "weights, bit by bit, that training without a break gives.\n"
        "With MPI, 'mpirun -n 4 marco train ...' trains in 4 processes.\n",
    .example = "marco train recipe.json --to run1\n"
               "marco train recipe.json --to run2 --set optimizer.lr=1e-4 --set steps=2000\n"
               "marco train recipe.json --dry-run\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .max_arguments = 1,
    .run = run,
};
