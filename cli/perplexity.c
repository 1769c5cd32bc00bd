/* marco perplexity: how well a model predicts a text, and how far it is from another run. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "interrupt.h"
#include "load.h"
#include "text.h"
#include "write.h"

struct perplexity_options {
    load_options load;
    const char *file;
    const char *base;
    const char *base_compute;
    const char *save;
    marco_kv_type kv_type;
    int32_t chunks;
    bool overwrite;
};

static const cli_option options[] = {
    ENGINE_OPTIONS(struct perplexity_options),
    CLI_OPTION("file", 'f', TEXT, "TEXT", struct perplexity_options, file, 0,
               "The file with the text (-: standard input)."),
    CLI_OPTION("ctx", 'c', INT, "N", struct perplexity_options, load.ctx, 1,
               "Tokens of a chunk, at least 4 (512, or the model's context if that is less)."),
    KV_OPTION(struct perplexity_options),
    CLI_OPTION("chunks", 0, INT, "N", struct perplexity_options, chunks, 1,
               "Only the first N chunks; all unless given."),
    CLI_OPTION("kl-base", 0, TEXT, "BASE", struct perplexity_options, base, 0,
               "Compare with BASE: a file of --save-kl-base, or a checkpoint, which is then loaded "
               "too."),
    CLI_OPTION("kl-base-compute", 0, TEXT, "f32|auto", struct perplexity_options, base_compute, 0,
               "The path that a checkpoint BASE runs on, as --compute."),
    CLI_OPTION("save-kl-base", 0, TEXT, "FILE", struct perplexity_options, save, 0,
               "Write this run's log-probabilities to FILE, for --kl-base: 2 bytes for each id of "
               "the vocabulary and position scored, so 77 MB a chunk of 512 where there are "
               "151,936 ids."),
    CLI_OPTION("overwrite", 0, FLAG, NULL, struct perplexity_options, overwrite, 0,
               "Replace FILE if it exists."),
    REPORT_OPTIONS(struct perplexity_options),
};

/* Whether BASE is a file of --save-kl-base: those begin with their own name. What cannot be read is
 * left to the library to complain about. */
static bool is_base_file(const char *path)
{
    static const char magic[] = "MARCOKLB";
    char begin[sizeof(magic) - 1];
    FILE *file = fopen(path, "rb");
    if (!file)
        return false;
    bool is = fread(begin, 1, sizeof(begin), file) == sizeof(begin) &&
              memcmp(begin, magic, sizeof(begin)) == 0;
    fclose(file);
    return is;
}

/* ---- what is printed ------------------------------------------------------------------------ */

static void on_chunk(void *user, int32_t n_chunks, double perplexity)
{
    progress *p = user;
    (void)n_chunks;
    snprintf(p->note, sizeof(p->note), "perplexity %.4f", perplexity);
}

static int print_json(const command *self, const marco_perplexity_result *r)
{
    json_t *object = json_pack("{s:i, s:i, s:I, s:f, s:f}", "ctx", r->n_ctx, "chunks", r->n_chunks,
                               "scored", (json_int_t)r->n_scored, "perplexity", r->perplexity,
                               "perplexity_error", r->error);
    const marco_divergence *d = &r->divergence;
    if (object && r->compared) {
        json_t *kl = json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "mean", d->mean, "error", d->error,
                               "median", d->median, "p99", d->p99, "p999", d->p999, "max", d->max);
        json_object_set_new(object, "kl", kl);
        json_object_set_new(object, "same_top", json_real(d->same_top));
        json_object_set_new(object, "base_perplexity", json_real(d->base_perplexity));
        json_object_set_new(object, "log_ratio", json_real(d->log_ratio));
        json_object_set_new(object, "log_ratio_error", json_real(d->log_ratio_error));
    }
    return json_line(self, object);
}

static int print_result(const command *self, const marco_perplexity_result *r, bool json)
{
    const marco_divergence *d = &r->divergence;
    if (json)
        return print_json(self, r);
    printf("perplexity          %.4f +/- %.4f\n", r->perplexity, r->error);
    printf("positions scored    %lld, in %d chunks of %d tokens\n", (long long)r->n_scored,
           r->n_chunks, r->n_ctx);
    if (!r->compared)
        return EXIT_SUCCESS;
    printf("base's perplexity   %.4f\n", d->base_perplexity);
    printf("ln of the ratio     %.6f +/- %.6f\n", d->log_ratio, d->log_ratio_error);
    printf("KL(base || this), nats per token\n");
    printf("  mean              %.6f +/- %.6f\n", d->mean, d->error);
    printf("  median            %.6f\n", d->median);
    printf("  99%%               %.6f\n", d->p99);
    printf("  99.9%%             %.6f\n", d->p999);
    printf("  largest           %.6f\n", d->max);
    printf("same likeliest id   %.3f%%\n", 100 * d->same_top);
    return EXIT_SUCCESS;
}

/* --------------------------------------------------------------------------------------------- */

static int measure(const command *self, const struct perplexity_options *o, loaded *l,
                   marco_engine *base, const text *measured)
{
    marco_perplexity_params params = marco_perplexity_params_default();
    params.n_ctx = o->load.ctx;
    params.max_chunks = o->chunks;
    params.base = base ? NULL : o->base;
    params.base_engine = base;
    params.save = o->save;
    params.overwrite = o->overwrite;
    params.progress = progress_of(&l->progress);
    params.on_chunk = on_chunk;
    params.kv_type = o->kv_type;
    params.user = &l->progress;
    marco_perplexity_result result;
    marco_error error = {0};
    marco_status status =
        marco_perplexity(l->engine, measured->data, measured->size, &params, &result, &error);
    progress_clear(&l->progress);
    if (status != MARCO_OK)
        return command_status(self, status, &error);
    return print_result(self, &result, o->load.json);
}

static int run(const command *self, int argc, char **argv)
{
    struct perplexity_options o = {0};
    int exit_status = 0;
    if (options_parse(self, argc, argv, &o, &exit_status) < 0)
        return exit_status;
    if (o.base && o.save)
        return command_misused(self, "--kl-base and --save-kl-base exclude each other");
    exit_status = load_kv(self, o.load.kv, &o.kv_type);
    if (exit_status != EXIT_SUCCESS)
        return exit_status;
    bool base_file = o.base && is_base_file(o.base);
    if (o.base_compute && (!o.base || base_file))
        return command_misused(self, "--kl-base-compute is for a checkpoint given to --kl-base");
    if (o.load.ram && o.base && !base_file)
        return command_misused(self,
                               "--ram is for one model: make a file of %s first (--save-kl-base) "
                               "and give that to --kl-base",
                               o.base);
    if (!o.load.model)
        return command_misused(self, "no model: give -m MODEL");
    if (!o.file)
        return command_misused(self, "no text: give -f TEXT");
    if (o.save && write_is_same(o.save, o.load.model))
        return command_misused(self, "--save-kl-base %s: that is the model", o.save);

    text measured = {0};
    loaded l = {0}, base = {0};
    exit_status = text_read(self, o.file, &measured);
    if (exit_status == EXIT_SUCCESS)
        exit_status = load_engine(self, &o.load, NULL, &l);
    if (exit_status == EXIT_SUCCESS && o.base && !base_file) {
        load_options other = o.load;
        other.model = o.base;
        other.compute = o.base_compute;
        exit_status = load_engine(self, &other, NULL, &base);
    }
    if (exit_status == EXIT_SUCCESS && o.save)
        interrupt_catch(INTERRUPT_PATIENT); /* there is a file to tidy up */
    if (exit_status == EXIT_SUCCESS)
        exit_status = measure(self, &o, &l, base.engine, &measured);
    load_close(&base);
    load_close(&l);
    free(measured.data);
    return exit_status;
}

const command perplexity_command = {
    .name = "perplexity",
    .summary = "measure how well a model predicts a text, and how far it is from another",
    .synopsis = "-m MODEL -f TEXT [OPTION...]",
    .details =
        "Cuts the text into chunks of --ctx tokens, each evaluated on its own, and scores the "
        "second half of each: the perplexity is exp of the mean of -ln p over these tokens. "
        "Special tokens in the text count as plain characters.\n"
        "With --kl-base it also tells how far the probabilities of all tokens are from those of "
        "another run on the same text, a better measure of what a quantisation or a faster path "
        "costs than the perplexity itself: KL(base || this) and how often both find the same "
        "token likeliest. BASE must have the same vocabulary.\n"
        "Results are the same to the bit for any --threads.\n",
    .example = "marco perplexity -m marco-mini-q4.gguf -f wiki.txt\n"
               "marco perplexity -m marco-mini-q8.gguf -f wiki.txt --save-kl-base q8.kl\n"
               "marco perplexity -m marco-mini-q4.gguf -f wiki.txt --kl-base q8.kl\n"
               "marco perplexity -m small.gguf -f wiki.txt --kl-base small.gguf "
               "--kl-base-compute f32\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .run = run,
};
