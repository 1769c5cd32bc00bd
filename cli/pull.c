/* marco pull, list, rm: models from a hub, and what of them is on this machine. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <marco/hub.h>

#include "interrupt.h"
#include "progress.h"
#include "text.h"

/* ---- marco pull ----------------------------------------------------------------------------- */

struct pull_options {
    option_list include;
    const char *endpoint;
    int32_t connections;
    bool quiet;
};

static const cli_option pull_options[] = {
    CLI_OPTION("include", 'i', LIST, "PATTERN", struct pull_options, include, 0,
               "Only files that match, such as '*.gguf'; may be given several times. '*' also "
               "matches a '/'."),
    CLI_OPTION("endpoint", 0, TEXT, "URL", struct pull_options, endpoint, 0,
               "The hub; what HF_ENDPOINT says unless given, or else https://huggingface.co."),
    CLI_OPTION("connections", 0, INT, "N", struct pull_options, connections, 1,
               "Downloads at the same time, 32 at most (8)."),
    CLI_OPTION("quiet", 'q', FLAG, NULL, struct pull_options, quiet, 0,
               "No progress on standard error."),
};

static int pull(const command *self, const char *model, const struct pull_options *o)
{
    marco_error error = {0};
    progress shown = progress_create(self, o->quiet);
    marco_pull_params params = marco_pull_params_default();
    char *folder = NULL;
    params.hub.endpoint = o->endpoint;
    params.include = o->include.items;
    params.n_include = o->include.n;
    params.connections = o->connections;
    params.progress = progress_of(&shown);
    interrupt_catch(INTERRUPT_TWICE_KILLS);
    marco_status status = marco_pull(model, &params, &folder, &error);
    progress_clear(&shown);
    if (status == MARCO_ERROR_CANCELLED) {
        command_fail(self, "interrupted; what was downloaded is kept, and the same command goes on "
                           "from there");
        return EXIT_INTERRUPTED;
    }
    if (status != MARCO_OK)
        return command_status(self, status, &error);
    print_safely(stdout, folder, strlen(folder));
    fputc('\n', stdout);
    marco_free(folder);
    return EXIT_SUCCESS;
}

static int pull_run(const command *self, int argc, char **argv)
{
    struct pull_options o = {0};
    int exit_status = 0;
    int n = options_parse(self, argc, argv, &o, &exit_status);
    if (n == 1)
        exit_status = pull(self, argv[argc - 1], &o);
    else if (n == 0)
        exit_status = command_misused(self, "needs a model: OWNER/NAME");
    free(o.include.items);
    return exit_status;
}

const command pull_command = {
    .name = "pull",
    .summary = "download a model",
    .synopsis = "OWNER/NAME[@REVISION] [--include PATTERN]... [--endpoint URL]",
    .details =
        "Downloads a model from a hub into the cache that huggingface_hub uses too, so that both "
        "have it once. Every file is checked against its hash. What an interrupted download left "
        "is used by the next. Prints the model's folder; afterwards -m OWNER/NAME finds it.\n"
        "The environment is read as huggingface_hub reads it: HF_ENDPOINT, HF_TOKEN (for private "
        "and gated models), HF_HUB_CACHE or HF_HOME, HF_HUB_OFFLINE; and proxies as curl reads "
        "them: https_proxy, no_proxy. SSL_CERT_FILE names the certificates of a site's own "
        "authority.\n",
    .example = "marco pull AIDC-AI/Marco-Mini-Instruct\n"
               "marco pull OWNER/NAME-GGUF --include '*Q4_K_M*'\n",
    .options = pull_options,
    .n_options = sizeof(pull_options) / sizeof(pull_options[0]),
    .max_arguments = 1,
    .run = pull_run,
};

/* ---- marco list ----------------------------------------------------------------------------- */

struct list_options {
    bool json;
};

static const cli_option list_options[] = {
    CLI_OPTION("json", 0, FLAG, NULL, struct list_options, json, 0,
               "A JSON object on a line for each model, with its commit and folder."),
};

static int print_json(const command *self, const marco_hub_entry *e)
{
    return json_line(self, json_pack("{s:o, s:o, s:s, s:o, s:I, s:I, s:I, s:I, s:b}", "name",
                                     json_text(e->name, strlen(e->name)), "revision",
                                     json_text(e->revision, strlen(e->revision)), "commit",
                                     e->commit, "path", json_text(e->path, strlen(e->path)),
                                     "bytes", (json_int_t)e->bytes, "modified",
                                     (json_int_t)e->modified, "files", (json_int_t)e->files,
                                     "of_files", (json_int_t)e->of, "whole", (int)e->whole));
}

/* A revision in the width of its column: of a commit, the beginning. */
enum { REVISION_WIDTH = 12 };

static void print_row(const marco_hub_entry *e, int width)
{
    char size[32], date[32] = "-";
    time_t seconds = (time_t)e->modified;
    struct tm local;
    if (e->modified > 0 && localtime_r(&seconds, &local))
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M", &local);
    printf("%-*s  %-*.*s  %8s  %-16s  ", width, e->name, REVISION_WIDTH,
           strcmp(e->revision, e->commit) == 0 ? REVISION_WIDTH : 64, e->revision,
           format_bytes(e->bytes, size), date);
    if (e->whole)
        puts("whole");
    else if (e->files < e->of)
        printf("%" PRId64 " of %" PRId64 " files\n", e->files, e->of);
    else
        puts("not whole");
}

static int list_run(const command *self, int argc, char **argv)
{
    struct list_options o = {0};
    int exit_status = 0, width = 5;
    if (options_parse(self, argc, argv, &o, &exit_status) < 0)
        return exit_status;
    marco_error error = {0};
    marco_hub_entry *entries = NULL;
    size_t n = 0;
    marco_status status = marco_hub_list(NULL, &entries, &n, &error);
    if (status != MARCO_OK)
        return command_status(self, status, &error);
    for (size_t i = 0; i < n; i++)
        width = (int)strlen(entries[i].name) > width ? (int)strlen(entries[i].name) : width;
    if (!o.json && n > 0)
        printf("%-*s  %-*s  %8s  %-16s  %s\n", width, "MODEL", REVISION_WIDTH, "REVISION", "SIZE",
               "LAST CHANGE", "STATE");
    for (size_t i = 0; i < n && exit_status == EXIT_SUCCESS; i++) {
        if (o.json)
            exit_status = print_json(self, &entries[i]);
        else
            print_row(&entries[i], width);
    }
    if (!o.json && n == 0)
        fputs("marco list: no models; 'marco pull OWNER/NAME' downloads one\n", stderr);
    marco_hub_list_free(entries, n);
    return exit_status;
}

const command list_command = {
    .name = "list",
    .summary = "list the models that were downloaded",
    .synopsis = "[--json]",
    .details = "Lists the models in the cache (HF_HUB_CACHE, or hub in HF_HOME), whoever "
               "downloaded them, with revision, size, date, and whether nothing is missing.\n",
    .example = "marco list\n",
    .options = list_options,
    .n_options = sizeof(list_options) / sizeof(list_options[0]),
    .max_arguments = 0,
    .run = list_run,
};

/* ---- marco rm ------------------------------------------------------------------------------- */

struct rm_options {
    bool yes;
};

static const cli_option rm_options[] = {
    CLI_OPTION("yes", 'y', FLAG, NULL, struct rm_options, yes, 0,
               "Do not ask. (Nothing is asked either where standard input is no terminal.)"),
};

static bool confirm(const char *model)
{
    char answer[16] = "";
    fprintf(stderr, "Remove %s from this machine? [y/N] ", model);
    fflush(stderr);
    return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

static int rm_run(const command *self, int argc, char **argv)
{
    struct rm_options o = {0};
    int exit_status = 0;
    int n = options_parse(self, argc, argv, &o, &exit_status);
    if (n < 0)
        return exit_status;
    if (n == 0)
        return command_misused(self, "needs a model: OWNER/NAME");
    const char *model = argv[argc - 1];
    if (!o.yes && isatty(STDIN_FILENO) && !confirm(model))
        return command_fail(self, "%s is kept", model);
    marco_error error = {0};
    uint64_t freed = 0;
    char size[32];
    marco_status status = marco_hub_remove(model, NULL, &freed, &error);
    if (status == MARCO_OK)
        printf("%s removed, %s freed\n", model, format_bytes(freed, size));
    return command_status(self, status, &error);
}

const command rm_command = {
    .name = "rm",
    .summary = "remove a downloaded model",
    .synopsis = "OWNER/NAME[@REVISION] [--yes]",
    .details = "Removes a model from the cache, or one revision of it with the files that no other "
               "revision uses. huggingface_hub has it there no longer either.\n",
    .example = "marco rm OWNER/NAME\nmarco rm OWNER/NAME@v1.0 --yes\n",
    .options = rm_options,
    .n_options = sizeof(rm_options) / sizeof(rm_options[0]),
    .max_arguments = 1,
    .run = rm_run,
};
