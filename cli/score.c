/* marco score: how likely a text is, token by token. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "interrupt.h"
#include "load.h"
#include "text.h"

struct score_options {
    load_options load;
    const char *ids;
    const char *prompt;
    const char *file;
    int32_t top;
};

static const cli_option options[] = {
    CLI_OPTION("ids", 0, TEXT, "ID,ID,...", struct score_options, ids, 0, "The tokens to score."),
    CLI_OPTION("prompt", 'p', TEXT, "TEXT", struct score_options, prompt, 0,
               "The text to score; special tokens in it count."),
    CLI_OPTION("file", 'f', TEXT, "FILE", struct score_options, file, 0,
               "Read the text from FILE (-: standard input, also without --ids and -p)."),
    CLI_OPTION("top", 'k', INT, "K", struct score_options, top, 0,
               "Also print the K likeliest next tokens at every position (0)."),
    LOAD_OPTIONS(struct score_options),
};

typedef struct scored {
    int32_t id;
    double logprob;
} scored;

/* Up to this many likeliest tokens are kept in order while looking. */
enum { FEW = 64 };

typedef struct scorer {
    const command *self;
    const marco_tokenizer *tokenizer;
    const int32_t *ids; /* [n] */
    size_t n;
    int32_t n_vocab;
    size_t k;
    scored *top; /* [k] likeliest first; room for the vocabulary where k is above FEW */
    double logprob;
    double sum; /* of the logprobs so far */
    bool json, bad_number;
} scorer;

/* ---- numbers -------------------------------------------------------------------------------- */

/* log(sum(exp(logits))), or NaN where they are not all finite. */
static double log_sum_exp(const float *logits, int32_t n)
{
    double max = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        if (!isfinite(logits[i]))
            return NAN;
        max = fmax(max, (double)logits[i]);
    }
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    return max + log(sum);
}

/* Likeliest first; among equals the lower id. */
static int compare(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    if (x->logprob != y->logprob)
        return x->logprob > y->logprob ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Fills s->top: by insertion for a few, since nearly every logit fails the first comparison; by
 * sorting them all for many. */
static void find_top(scorer *s, const float *logits, double log_sum)
{
    bool few = s->k <= FEW;
    size_t room = few ? s->k : (size_t)s->n_vocab, filled = 0;
    for (int32_t id = 0; id < s->n_vocab && s->k > 0; id++) {
        double logprob = (double)logits[id] - log_sum;
        if (filled == room && logprob <= s->top[filled - 1].logprob)
            continue;
        size_t at = filled < room ? filled++ : filled - 1;
        while (few && at > 0 && s->top[at - 1].logprob < logprob) {
            s->top[at] = s->top[at - 1];
            at--;
        }
        s->top[at] = (scored){id, logprob};
    }
    if (!few)
        qsort(s->top, filled, sizeof(*s->top), compare);
}

/* ---- output --------------------------------------------------------------------------------- */

/* 17 digits say a double exactly, so that equal outputs mean equal results. */
static void print_json(const scorer *s, int64_t position)
{
    printf("{\"pos\":%lld,\"id\":%d,\"logprob\":", (long long)position, s->ids[position]);
    if (position == 0)
        printf("null");
    else
        printf("%.17g", s->logprob);
    printf(",\"top\":[");
    for (size_t i = 0; i < s->k; i++)
        printf("%s[%d,%.17g]", i ? "," : "", s->top[i].id, s->top[i].logprob);
    printf("]}\n");
}

/* A token's text, quoted. */
static void print_token(const scorer *s, int32_t id)
{
    char *decoded = NULL;
    size_t size = 0;
    marco_error error = {0};
    if (marco_tokenizer_decode(s->tokenizer, &id, 1, true, &decoded, &size, &error) == MARCO_OK) {
        json_t *string = json_text(decoded, size);
        char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
        if (quoted)
            print_safely(stdout, quoted, strlen(quoted));
        free(quoted);
        json_decref(string);
    }
    marco_free(decoded);
}

static void print_row(const scorer *s, int64_t position)
{
    printf("%6lld  %7d  ", (long long)position, s->ids[position]);
    if (position == 0)
        printf("%10s  ", "-");
    else
        printf("%10.5f  ", s->logprob);
    print_token(s, s->ids[position]);
    for (size_t i = 0; i < s->k; i++) {
        printf("\n%27s%10.5f  %7d ", "", s->top[i].logprob, s->top[i].id);
        print_token(s, s->top[i].id);
    }
    fputc('\n', stdout);
}

static int on_logits(void *user, int64_t position, const float *logits)
{
    scorer *s = user;
    double log_sum = log_sum_exp(logits, s->n_vocab);
    if (isnan(log_sum)) {
        s->bad_number = true;
        return 1;
    }
    find_top(s, logits, log_sum);
    if (s->json)
        print_json(s, position);
    else
        print_row(s, position);
    if ((size_t)position + 1 < s->n) {
        s->logprob = (double)logits[s->ids[position + 1]] - log_sum;
        s->sum += s->logprob;
    }
    return interrupt_pending() || ferror(stdout);
}

/* ---- input ---------------------------------------------------------------------------------- */

/* "9707,11,1879" (free) */
static int read_ids(const command *self, const char *list, int32_t **ids, size_t *n)
{
    size_t count = 1;
    for (const char *c = list; *c; c++)
        count += *c == ',';
    int32_t *parsed = malloc(count * sizeof(*parsed));
    if (!parsed)
        return command_fail(self, "out of memory");
    const char *at = list;
    for (size_t i = 0; i < count; i++) {
        size_t length = strcspn(at, ",");
        char word[16];
        int64_t id = 0;
        snprintf(word, sizeof(word), "%.*s", (int)(length < 15 ? length : 15), at);
        if (length > 14 || !parse_int(word, 0, INT32_MAX, &id)) {
            free(parsed);
            return command_misused(self, "--ids: '%s' is not a token id", word);
        }
        parsed[i] = (int32_t)id;
        at += length + 1;
    }
    *ids = parsed;
    *n = count;
    return EXIT_SUCCESS;
}

/* The ids of the text to score (marco_free). */
static int encode(const command *self, const struct score_options *o, const marco_engine *engine,
                  int32_t **ids, size_t *n)
{
    text prompt;
    int exit_status = text_prompt(self, o->prompt, o->file, &prompt);
    if (exit_status != EXIT_SUCCESS)
        return exit_status;
    marco_error error = {0};
    marco_status status =
        marco_tokenizer_encode(marco_engine_tokenizer(engine), prompt.data, prompt.size,
                               MARCO_ENCODE_SPECIAL | MARCO_ENCODE_BOS, ids, n, &error);
    free(prompt.data);
    return command_status(self, status, &error);
}

/* --------------------------------------------------------------------------------------------- */

static int score(const command *self, const struct score_options *o, loaded *l, const int32_t *ids,
                 size_t n)
{
    const marco_model_info *info = marco_engine_info(l->engine);
    scorer s = {.self = self,
                .tokenizer = marco_engine_tokenizer(l->engine),
                .ids = ids,
                .n = n,
                .n_vocab = info->n_vocab,
                .k = (size_t)(o->top < info->n_vocab ? o->top : info->n_vocab),
                .json = o->load.json};
    for (size_t i = 0; i < n; i++) {
        if (ids[i] >= info->n_vocab)
            return command_fail(self, "--ids: %d is not a token of %s, whose vocabulary has %d",
                                ids[i], o->load.model, info->n_vocab);
    }
    s.top = calloc(s.k > FEW ? (size_t)s.n_vocab : s.k + 1, sizeof(*s.top));
    if (!s.top)
        return command_fail(self, "out of memory");
    marco_error error = {0};
    marco_status status = marco_session_eval_each(l->session, ids, n, on_logits, &s, &error);
    progress_clear(&l->progress);
    int exit_status = EXIT_SUCCESS;
    if (s.bad_number)
        exit_status =
            command_fail(self, "%s: the model's logits are not finite numbers", o->load.model);
    else if (status != MARCO_OK && !ferror(stdout))
        exit_status = command_status(self, status, &error);
    else if (status == MARCO_OK && !o->load.json && n > 1)
        printf("\n%zu tokens, mean logprob %.5f, perplexity %.4f\n", n - 1, s.sum / (double)(n - 1),
               exp(-s.sum / (double)(n - 1)));
    free(s.top);
    return exit_status;
}

static int run(const command *self, int argc, char **argv)
{
    struct score_options o = {0};
    int exit_status = 0;
    if (options_parse(self, argc, argv, &o, &exit_status) < 0)
        return exit_status;
    if (o.ids && (o.prompt || o.file))
        return command_misused(self, "--ids excludes -p and -f");
    int32_t *given = NULL;
    int32_t *encoded = NULL;
    size_t n = 0;
    loaded l = {0};
    if (o.ids)
        exit_status = read_ids(self, o.ids, &given, &n);
    if (exit_status == EXIT_SUCCESS)
        exit_status = load_open(self, &o.load, NULL, &l);
    if (exit_status == EXIT_SUCCESS && !given)
        exit_status = encode(self, &o, l.engine, &encoded, &n);
    if (exit_status == EXIT_SUCCESS)
        exit_status = score(self, &o, &l, given ? given : encoded, n);
    load_close(&l);
    marco_free(encoded);
    free(given);
    return exit_status;
}

const command score_command = {
    .name = "score",
    .summary = "print the log-probability of each token of a text",
    .synopsis = "-m MODEL [--ids ID,ID,... | -p TEXT | -f FILE] [OPTION...]",
    .details =
        "Prints a row for each token: its position, id, natural logarithm of its probability given "
        "those before it, and text; then, with --top, the likeliest next tokens. It ends with the "
        "perplexity.\n"
        "With --json, one object a line: {\"pos\":0,\"id\":9707,\"logprob\":null,\"top\":"
        "[[id,logprob],...]}, where logprob is null at position 0 and top holds the likeliest "
        "tokens after this one, likeliest first.\n"
        "Results are the same to the bit for any --threads and --chunk.\n",
    .example = "marco score -m marco-mini.gguf --ids 9707,11,1879 --top 5 --compute f32 --json\n"
               "marco score -m marco-mini.gguf -f story.txt\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .run = run,
};
