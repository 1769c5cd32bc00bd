/* marco run: one prompt, one reply. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "generate.h"
#include "interrupt.h"

struct run_options {
    load_options load;
    generate_options generate;
    const char *prompt;
    const char *file;
    const char *trace;
    bool raw;
};

static const cli_option options[] = {
    CLI_OPTION("prompt", 'p', TEXT, "TEXT", struct run_options, prompt, 0, "The prompt."),
    CLI_OPTION("file", 'f', TEXT, "FILE", struct run_options, file, 0,
               "Read the prompt from FILE (-: standard input, also without -p and -f)."),
    CLI_OPTION(
        "raw", 0, FLAG, NULL, struct run_options, raw, 0,
        "Continue the text as it stands, without the chat template; special tokens in it count."),
    CLI_OPTION("trace", 0, TEXT, "FILE", struct run_options, trace, 0,
               "Write which experts the tokens chose to FILE, a new one, for marco trace."),
    LOAD_OPTIONS(struct run_options),
    GENERATE_OPTIONS(struct run_options),
};

typedef struct reply {
    text text; /* kept for --json */
    bool keep, terminal, short_of_memory;
    int cause; /* why standard output took no more, an errno */
} reply;

static int on_text(void *user, const char *data, size_t size)
{
    reply *r = user;
    if (interrupt_pending())
        return 1;
    if (r->keep) {
        r->short_of_memory = !text_append(&r->text, data, size);
        return r->short_of_memory;
    }
    if (r->terminal)
        print_safely(stdout, data, size);
    else
        fwrite(data, 1, size, stdout);
    return !interrupt_flush(&r->cause);
}

/* Where --trace writes: a file that was not there before, and is not there after a failure. */
typedef struct trace_file {
    const char *path; /* NULL: no trace */
    FILE *file;
    bool used;
    int cause; /* why it took no more, an errno */
} trace_file;

/* A line per token and layer: the pass, the layer, the position, the experts by rank. */
static void write_trace(void *user, uint64_t pass, int32_t layer, int64_t position, int64_t n,
                        const int32_t *experts, int32_t used)
{
    trace_file *t = user;
    t->used = true;
    for (int64_t i = 0; i < n && !t->cause; i++) {
        fprintf(t->file, "%llu %d %lld", (unsigned long long)pass, layer,
                (long long)(position + i));
        for (int32_t k = 0; k < used; k++)
            fprintf(t->file, " %d", experts[i * used + k]);
        if (fputc('\n', t->file) == EOF || ferror(t->file))
            t->cause = errno;
    }
}

static int trace_open(const command *self, struct run_options *o, trace_file *t)
{
    *t = (trace_file){0};
    if (!o->trace)
        return EXIT_SUCCESS;
    t->file = fopen(o->trace, "wxe");
    if (!t->file && errno == EEXIST)
        return command_fail(self, "%s already exists; remove it or choose another name", o->trace);
    if (!t->file)
        return command_fail(self, "cannot write %s: %s", o->trace, strerror(errno));
    t->path = o->trace;
    fputs("# marco trace: pass layer position experts...\n", t->file);
    o->load.trace = write_trace;
    o->load.trace_user = t;
    return EXIT_SUCCESS;
}

static int trace_close(const command *self, trace_file *t, int exit_status)
{
    if (!t->path)
        return exit_status;
    if (fclose(t->file) != 0 && !t->cause)
        t->cause = errno;
    bool ran = exit_status == EXIT_SUCCESS || (exit_status == EXIT_INTERRUPTED && t->used);
    if (!ran || t->cause)
        remove(t->path);
    if (ran && t->cause)
        return command_fail(self, "cannot write %s: %s", t->path, strerror(t->cause));
    return exit_status;
}

/* The prompt as ids: as the user's turn of a chat where the model has a template. */
static int encode(const command *self, const struct run_options *o, const marco_engine *engine,
                  const text *prompt, int32_t **ids, size_t *n)
{
    marco_error error = {0};
    marco_status status;
    if (!o->raw) {
        size_t valid = utf8_invalid(prompt->data, prompt->size);
        if (valid < prompt->size)
            return command_fail(self, "the prompt is not UTF-8 at byte %zu; --raw takes any bytes",
                                valid);
        json_t *messages = json_array();
        if (o->generate.system)
            json_array_append_new(
                messages, message_create("system", o->generate.system, strlen(o->generate.system)));
        json_array_append_new(messages, message_create("user", prompt->data, prompt->size));
        status = chat_ids(engine, &o->generate, messages, ids, n, &error);
        json_decref(messages);
        if (status == MARCO_OK)
            return EXIT_SUCCESS;
        if (status == MARCO_ERROR_UNSUPPORTED)
            return command_fail(self, "%s; --raw does without", error.message);
        /* A checkpoint without a template continues text. */
        if (status != MARCO_ERROR_NOT_FOUND || o->generate.system || o->generate.chat_template)
            return command_status(self, status, &error);
    }
    status = marco_tokenizer_encode(marco_engine_tokenizer(engine), prompt->data, prompt->size,
                                    MARCO_ENCODE_SPECIAL | MARCO_ENCODE_BOS, ids, n, &error);
    return command_status(self, status, &error);
}

/* problem: why the reply broke off, or NULL. */
static int print_json(const command *self, const loaded *l, const reply *r,
                      const marco_generation_stats *stats, uint64_t seed, const char *problem)
{
    json_t *object = json_pack("{s:o, s:s, s:o}", "text",
                               json_text(r->text.data ? r->text.data : "", r->text.size), "finish",
                               problem ? "error" : finish_name(stats->finish), "stats",
                               stats_json(l, stats, seed));
    if (object && problem)
        json_object_set_new(object, "error", json_text(problem, strlen(problem)));
    return json_line(self, object);
}

static int generate(const command *self, struct run_options *o, loaded *l, const int32_t *ids,
                    size_t n)
{
    reply r = {.keep = o->load.json, .terminal = isatty(STDOUT_FILENO) != 0};
    marco_generation generation;
    marco_generation_stats stats = {0};
    marco_error error = {0};
    int exit_status = generation_create(self, &o->generate, l->engine, &generation);
    if (exit_status != EXIT_SUCCESS)
        goto done;
    generation.on_text = on_text;
    generation.user = &r;
    uint64_t seed = generation.sampling.seed;
    marco_status status = marco_session_generate(l->session, ids, n, &generation, &stats, &error);
    progress_clear(&l->progress);
    if (status == MARCO_OK && r.short_of_memory) {
        status = MARCO_ERROR_MEMORY;
        snprintf(error.message, sizeof(error.message), "out of memory");
    }
    if (status != MARCO_OK) {
        /* What there is of a reply that broke off: text has been streamed, an object has not. */
        if (o->load.json && stats.n_reply > 0 && status != MARCO_ERROR_CANCELLED)
            print_json(self, l, &r, &stats, seed, error.message);
        exit_status = command_status(self, status, &error);
        goto done;
    }
    if (r.cause) {
        exit_status = command_fail(self, "standard output: %s", strerror(r.cause));
        goto done;
    }
    if (o->load.json)
        exit_status = print_json(self, l, &r, &stats, seed, NULL);
    else
        fputc('\n', stdout);
    fflush(stdout);
    if (interrupt_pending())
        exit_status = EXIT_INTERRUPTED;
    if (!o->load.quiet && !o->load.json) {
        fputc('\n', stderr);
        stats_print(stderr, l, &stats, seed);
    }
done:
    free(r.text.data);
    generation_free(&o->generate, &generation);
    return exit_status;
}

static int run(const command *self, int argc, char **argv)
{
    struct run_options o = {.generate = GENERATE_DEFAULTS};
    int exit_status = 0;
    if (options_parse(self, argc, argv, &o, &exit_status) < 0)
        return exit_status;
    text prompt = {0};
    loaded l = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    trace_file trace = {0};
    if (!o.load.model)
        return command_misused(self, "no model: give -m MODEL");
    exit_status = text_prompt(self, o.prompt, o.file, &prompt);
    if (exit_status == EXIT_SUCCESS)
        exit_status = trace_open(self, &o, &trace);
    if (exit_status == EXIT_SUCCESS)
        exit_status = load_open(self, &o.load, o.generate.chat_template, &l);
    if (exit_status == EXIT_SUCCESS)
        exit_status = encode(self, &o, l.engine, &prompt, &ids, &n);
    if (exit_status == EXIT_SUCCESS)
        exit_status = generate(self, &o, &l, ids, n);
    marco_free(ids);
    load_close(&l);
    free(prompt.data);
    return trace_close(self, &trace, exit_status);
}

const command run_command = {
    .name = "run",
    .summary = "reply to a prompt",
    .synopsis = "-m MODEL [-p TEXT | -f FILE] [OPTION...]",
    .details =
        "Loads a model, streams its reply to standard output and ends with speed, memory and "
        "parameters on standard error.\n"
        "Where the checkpoint has a chat template, the prompt is the user's turn of a chat, its "
        "text encoded so that it cannot pose as anything else. Where it has none, or with --raw, "
        "the prompt is text to be continued.\n"
        "With --json, one object is printed at the end: text, finish (stop, length, cancelled) "
        "and stats. Of a reply that broke off there is what was generated: finish is then "
        "error, and error says why. A run that fails before its reply begins prints no object.\n",
    .example = "marco run -m marco-mini.gguf -p 'Why is the sky blue?' -n 200\n"
               "marco run -m marco-mini.gguf --raw --temp 0 < story.txt\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .run = run,
};
