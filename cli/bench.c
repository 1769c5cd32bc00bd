/* marco bench: how fast, and what share of what the machine could do. */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "interrupt.h"

struct bench_options {
    load_options load;
    const char *prefill;
    const char *decode;
    int32_t tokens;
    int32_t reps;
};

static const cli_option options[] = {
    CLI_OPTION("prefill", 0, TEXT, "N,N,...", struct bench_options, prefill, 0,
               "Prompts of so many tokens."),
    CLI_OPTION("decode", 0, TEXT, "N,N,...", struct bench_options, decode, 0,
               "Tokens one by one after a context of so many."),
    CLI_OPTION("tokens", 'n', INT, "N", struct bench_options, tokens, 1,
               "Tokens decoded by a repetition (64)."),
    CLI_OPTION("reps", 'r', INT, "N", struct bench_options, reps, 1, "Repetitions (3)."),
    LOAD_OPTIONS(struct bench_options),
};

#define DEFAULT_PREFILL "128,512,2048"
#define DEFAULT_DECODE  "0,4096,16384"

enum { FIRST_TOKENS = 16 }; /* of the short prompts after loading */

typedef struct bench {
    const command *self;
    loaded l;
    bench_report report;
    int32_t *ids; /* of the longest prompt */
    uint64_t drawn;
} bench;

/* ---- the command line ----------------------------------------------------------------------- */

/* "128,512" into items. */
static int add_items(bench *b, const char *list, bool decode)
{
    const char *option = decode ? "decode" : "prefill";
    while (*list) {
        char number[24];
        int64_t n = 0;
        size_t size = strcspn(list, ",");
        snprintf(number, sizeof(number), "%.*s", (int)(size < 23 ? size : 23), list);
        if (!parse_int(number, decode ? 0 : 1, INT32_MAX, &n) ||
            (list[size] == ',' && list[size + 1] == '\0'))
            return command_misused(b->self, "--%s: '%s' is not a list of whole numbers from %d up",
                                   option, list, decode ? 0 : 1);
        if (b->report.n_items == BENCH_MAX_ITEMS)
            return command_misused(b->self, "--prefill and --decode: at most %d measurements",
                                   BENCH_MAX_ITEMS);
        b->report.items[b->report.n_items++] = (bench_item){.decode = decode, .n = (int32_t)n};
        list += size + (list[size] == ',');
    }
    return EXIT_SUCCESS;
}

static int read_options(bench *b, const struct bench_options *o)
{
    bool all = !o->prefill && !o->decode;
    if ((o->prefill && !*o->prefill) || (o->decode && !*o->decode))
        return command_misused(b->self, "--prefill and --decode need numbers; leave one out to "
                                        "measure the other alone");
    if (o->reps > BENCH_MAX_REPS)
        return command_misused(b->self, "--reps %d: must be from 1 to %d", (int)o->reps,
                               BENCH_MAX_REPS);
    int exit_status = add_items(b, all ? DEFAULT_PREFILL : o->prefill ? o->prefill : "", false);
    if (exit_status == EXIT_SUCCESS)
        exit_status = add_items(b, all ? DEFAULT_DECODE : o->decode ? o->decode : "", true);
    return exit_status;
}

static int refuse_item(const bench *b, const bench_item *item, int32_t tokens, int64_t context)
{
    if (item->decode)
        return command_fail(b->self,
                            "--decode %d: with %d tokens after it, that is beyond the "
                            "context of %d",
                            (int)item->n, (int)tokens, (int)context);
    return command_fail(b->self, "--prefill %d: that is beyond the context of %d", (int)item->n,
                        (int)context);
}

/* Refuses what does not fit the context; of the default measurements, leaves that out. */
static int fit_items(bench *b, const struct bench_options *o)
{
    bench_report *r = &b->report;
    int64_t context = marco_session_context(b->l.session);
    size_t kept = 0;
    for (size_t i = 0; i < r->n_items; i++) {
        const bench_item *item = &r->items[i];
        int64_t need = (int64_t)item->n + (item->decode ? o->tokens : 0);
        if (need <= context)
            r->items[kept++] = *item;
        else if (o->prefill || o->decode)
            return refuse_item(b, item, o->tokens, context);
        else if (!o->load.quiet)
            fprintf(stderr, "note: %s %d is left out: the context holds %d tokens\n",
                    item->decode ? "decoding at" : "a prefill of", (int)item->n, (int)context);
    }
    r->n_items = kept;
    return kept ? EXIT_SUCCESS
                : command_fail(b->self,
                               "the context of %d holds none of the measurements; "
                               "--prefill and --decode choose others",
                               (int)context);
}

/* ---- measuring ------------------------------------------------------------------------------ */

/* Any token: random weights choose experts by it, so a repeated one would be an easy case. */
static int32_t any_id(bench *b)
{
    uint64_t z = (b->drawn += 0x9E3779B97F4A7C15u); /* SplitMix64 (Steele, Lea and Flood 2014) */
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (int32_t)((z >> 33) % (uint64_t)b->report.info->n_vocab);
}

static marco_status eval_prompt(bench *b, size_t n, double *seconds, marco_error *error)
{
    for (size_t i = 0; i < n; i++)
        b->ids[i] = any_id(b);
    marco_session_truncate(b->l.session, 0);
    double start = seconds_now();
    marco_status status = marco_session_eval(b->l.session, b->ids, n, error);
    *seconds = seconds_now() - start;
    return status;
}

static marco_status decode(bench *b, int32_t context, double *seconds, marco_error *error)
{
    size_t length = 0;
    marco_status status = MARCO_OK;
    marco_session_tokens(b->l.session, &length);
    if (length < (size_t)context)
        status = marco_session_fill(b->l.session, (size_t)context - length, 1, error);
    else
        marco_session_truncate(b->l.session, (size_t)context);
    double start = seconds_now();
    for (int32_t i = 0; !status && i < b->report.tokens; i++) {
        int32_t id = any_id(b);
        status = marco_session_eval(b->l.session, &id, 1, error);
        if (!status && interrupt_pending())
            status = MARCO_ERROR_CANCELLED;
    }
    *seconds = seconds_now() - start;
    return status;
}

static marco_status measure_roof(bench *b, marco_error *error)
{
    bench_report *r = &b->report;
    marco_status status = marco_engine_roof(b->l.engine, &r->roofs[r->n_roofs], error);
    r->n_roofs += !status;
    return !status && interrupt_pending() ? MARCO_ERROR_CANCELLED : status;
}

double bench_bytes_per_token(const bench_report *r, const bench_item *item)
{
    /* A token reads its own keys and values too: 1, 2, ... more than the context before it. */
    double context = item->n + (r->tokens + 1) / 2.0;
    return (double)r->info->bytes_per_token + context * (double)r->kv_bytes_per_token;
}

/* The share of the roof of repetition `rep`, by the mean of the roofs before and after it. */
static double share_of(const bench *b, const bench_item *item, int32_t rep)
{
    const bench_report *r = &b->report;
    const marco_roof *before = &r->roofs[r->n_roofs - 2], *after = &r->roofs[r->n_roofs - 1];
    double memory = (before->memory_gb_s + after->memory_gb_s) / 2;
    double int8 = (before->int8_gops + after->int8_gops) / 2;
    double f32 = (before->f32_gflops + after->f32_gflops) / 2;
    if (item->decode)
        return item->rate[rep] * bench_bytes_per_token(r, item) / (memory * 1e9);
    marco_operations work = marco_engine_operations(b->l.engine, 0, item->n);
    double seconds = work.int8 / (int8 * 1e9) + work.f32 / (f32 * 1e9);
    return seconds * item->rate[rep] / item->n;
}

/* On a terminal, which measurement is being made. */
static void show_item(bench *b, const bench_item *item, int32_t rep)
{
    progress *p = &b->l.progress;
    if (p->quiet || !p->bar)
        return;
    progress_clear(p);
    fprintf(stderr, "%s %d: repetition %d of %d", item->decode ? "decoding at" : "a prefill of",
            (int)item->n, (int)rep + 1, (int)b->report.reps);
    fflush(stderr);
    p->shown = true;
}

static uint64_t expert_bytes_read(const bench *b)
{
    marco_residency_stats stats;
    marco_engine_residency(b->l.engine, &stats);
    return stats.bytes_read;
}

/* Repetitions of each measurement, with the roof measured before, between and after them, so that
 * whatever else the machine does meets both. */
static marco_status measure(bench *b, marco_error *error)
{
    bench_report *r = &b->report;
    marco_status status = measure_roof(b, error);
    for (size_t i = 0; !status && i < r->n_items; i++) {
        bench_item *item = &r->items[i];
        for (int32_t rep = 0; !status && rep < r->reps; rep++) {
            double seconds = 0;
            int32_t tokens = item->decode ? r->tokens : item->n;
            show_item(b, item, rep);
            uint64_t read = expert_bytes_read(b);
            status = item->decode ? decode(b, item->n, &seconds, error)
                                  : eval_prompt(b, (size_t)item->n, &seconds, error);
            item->rate[rep] = tokens / fmax(seconds, 1e-9);
            item->expert_bytes += (double)(expert_bytes_read(b) - read);
            if (!status)
                status = measure_roof(b, error);
            if (!status)
                item->share[rep] = share_of(b, item, rep);
        }
    }
    return status;
}

/* Room for what measuring keeps. */
static int reserve(bench *b)
{
    bench_report *r = &b->report;
    size_t longest = FIRST_TOKENS;
    for (size_t i = 0; i < r->n_items; i++)
        if (!r->items[i].decode && (size_t)r->items[i].n > longest)
            longest = (size_t)r->items[i].n;
    b->ids = malloc(longest * sizeof(*b->ids));
    r->roofs = calloc(r->n_items * (size_t)r->reps + 1, sizeof(*r->roofs));
    return b->ids && r->roofs ? EXIT_SUCCESS : command_fail(b->self, "out of memory");
}

static int run_loaded(bench *b, const struct bench_options *o)
{
    bench_report *r = &b->report;
    marco_error error = {0};
    r->info = marco_engine_info(b->l.engine);
    r->kv_bytes_per_token = marco_session_kv_bytes_per_token(b->l.session);
    int exit_status = fit_items(b, o);
    if (exit_status == EXIT_SUCCESS)
        exit_status = reserve(b);
    if (exit_status != EXIT_SUCCESS)
        return exit_status;
    int32_t context = marco_session_context(b->l.session);
    r->first_tokens = context < FIRST_TOKENS ? context : FIRST_TOKENS;
    /* Before anything else, which might warm up what the first request finds cold. */
    marco_status status = eval_prompt(b, (size_t)r->first_tokens, &r->first_seconds, &error);
    if (!status)
        status = eval_prompt(b, (size_t)r->first_tokens, &r->second_seconds, &error);
    if (!status)
        status = measure(b, &error);
    progress_clear(&b->l.progress);
    if (status)
        return command_status(b->self, status, &error);
    if (o->load.json)
        return bench_print_json(b->self, r);
    bench_print_text(r);
    return EXIT_SUCCESS;
}

static int run(const command *self, int argc, char **argv)
{
    struct bench_options o = {.tokens = 64, .reps = 3};
    int exit_status = EXIT_SUCCESS;
    if (options_parse(self, argc, argv, &o, &exit_status) < 0)
        return exit_status;
    bench *b = calloc(1, sizeof(*b));
    if (!b)
        return command_fail(self, "out of memory");
    b->self = self;
    b->report.model = o.load.model;
    b->report.tokens = o.tokens;
    b->report.reps = o.reps;
    exit_status = read_options(b, &o);
    if (exit_status == EXIT_SUCCESS) {
        double start = seconds_now();
        exit_status = load_open(self, &o.load, NULL, &b->l);
        b->report.load_seconds = seconds_now() - start;
    }
    if (exit_status == EXIT_SUCCESS)
        exit_status = run_loaded(b, &o);
    load_close(&b->l);
    free(b->ids);
    free(b->report.roofs);
    free(b);
    return exit_status;
}

const command bench_command = {
    .name = "bench",
    .summary = "measure speed, and what share it is of what the machine can do",
    .synopsis = "-m MODEL [--prefill N,N,...] [--decode N,N,...] [OPTION...]",
    .details =
        "Measures prompts of 128, 512 and 2048 tokens, and decoding after contexts of 0, 4096 and "
        "16384, or of --prefill and --decode those that are given. Tokens are random ones; "
        "contexts are filled with random keys and values.\n"
        "Between the repetitions it measures the roof: how fast the same threads can read memory, "
        "by the best of several patterns, and how many operations they can do, on 8-bit integers "
        "held in 16 and on F32. Decoding's share of it is tokens/s times the bytes that a token "
        "reads, weights and KV cache, by the memory's rate. A prompt's is the time that its "
        "operations would take at the peak rates, by the time that it took. Each repetition is "
        "held against the roofs just before and after it.\n"
        "Leave the machine alone meanwhile. With --json, one object as docs/performance.md "
        "describes it.\n",
    .example = "marco bench -m marco-mini.gguf\n"
               "marco bench -m marco-mini.gguf --prefill 512 --decode 0,4096 --reps 5 --json\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .run = run,
};
