/* Random replies that grammars allow, and what their masks cost.
 *
 *   grammar_walk TOKENIZER SCHEMAS SEEDS [TOKENS]
 *
 * SCHEMAS holds a JSON schema per line. Prints a line of JSON per schema and seed: the reply and
 * whether it ended within TOKENS (1024), or why the schema is refused; then, on standard error,
 * the time that masks and compilations took. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/random.h"
#include "grammar/grammar.h"

typedef struct times {
    double *items; /* seconds */
    size_t n, capacity;
} times;

typedef struct walker {
    marco_tokenizer *tokenizer;
    grammar_vocab *vocab;
    uint32_t *mask;
    int32_t n_vocab, end, limit;
    int32_t *closing; /* tokens that end something */
    size_t n_closing;
    times masks, compilations;
    double slowest; /* mask, and its schema */
    size_t slowest_schema;
} walker;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "grammar_walk: %s: %s\n", what, why);
    exit(1);
}

static void note(times *t, double seconds)
{
    if (t->n == t->capacity) {
        t->capacity = t->capacity ? t->capacity * 2 : 1024;
        t->items = realloc(t->items, t->capacity * sizeof *t->items);
        if (!t->items)
            die("times", "out of memory");
    }
    t->items[t->n++] = seconds;
}

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static void report(const char *what, times *t)
{
    double sum = 0;
    if (t->n == 0)
        return;
    qsort(t->items, t->n, sizeof *t->items, by_value);
    for (size_t i = 0; i < t->n; i++)
        sum += t->items[i];
    fprintf(stderr, "%s: %zu, microseconds: mean %.1f, median %.1f, p99 %.1f, max %.1f\n", what,
            t->n, sum / (double)t->n * 1e6, t->items[t->n / 2] * 1e6,
            t->items[t->n - 1 - t->n / 100] * 1e6, t->items[t->n - 1] * 1e6);
    free(t->items);
}

static bool allowed(const walker *w, int32_t id)
{
    return w->mask[id / 32] >> id % 32 & 1;
}

/* One allowed token: now and then one that ends something, else any. */
static int32_t pick(const walker *w, uint64_t seed, uint64_t at)
{
    int32_t n = 0;
    if (base_random_below(seed, 1, at, 4) == 0)
        for (size_t i = 0; i < w->n_closing; i++)
            if (allowed(w, w->closing[i]))
                return w->closing[i];
    for (int32_t i = 0; i < (w->n_vocab + 31) / 32; i++)
        n += __builtin_popcount(w->mask[i]);
    if (n == 0)
        die("a mask", "empty");
    int32_t left = (int32_t)base_random_below(seed, 2, at, (uint64_t)n);
    for (int32_t i = 0;; i++) {
        int32_t here = __builtin_popcount(w->mask[i]);
        if (left >= here) {
            left -= here;
            continue;
        }
        for (int32_t id = i * 32;; id++)
            if (allowed(w, id) && left-- == 0)
                return id;
    }
}

static void print(size_t index, uint64_t seed, const char *key, const char *text, size_t size,
                  const char *finish, int32_t tokens)
{
    json_t *line = json_pack("{s:I, s:I, s:s, s:i}", "schema", (json_int_t)index, "seed",
                             (json_int_t)seed, "finish", finish, "tokens", (int)tokens);
    json_t *value = json_stringn(text, size);
    if (!value) /* cut within a character */
        value = json_null();
    json_object_set_new(line, key, value);
    json_dumpf(line, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(line);
}

static void reply(walker *w, const marco_grammar *grammar, size_t index, uint64_t seed)
{
    grammar_state *state;
    marco_error error;
    int32_t ids[4096];
    int32_t n = 0;
    const char *finish = "length";
    if (grammar_state_create(grammar, w->vocab, &state, &error))
        die("a state", error.message);
    while (n < w->limit) {
        double start = now();
        if (grammar_state_mask(state, w->mask, &error))
            die("a mask", error.message);
        double took = now() - start;
        note(&w->masks, took);
        if (took > w->slowest) {
            w->slowest = took;
            w->slowest_schema = index;
        }
        int32_t id = pick(w, seed * 1000003 + index, (uint64_t)n);
        if (grammar_state_accept(state, id, &error))
            die("a token", error.message);
        if (id == w->end) {
            finish = "stop";
            break;
        }
        ids[n++] = id;
    }
    char *text;
    size_t size;
    if (marco_tokenizer_decode(w->tokenizer, ids, (size_t)n, true, &text, &size, &error))
        die("a reply", error.message);
    print(index, seed, "text", text, size, finish, n);
    marco_free(text);
    grammar_state_free(state);
}

static void run(walker *w, const char *schema, size_t size, size_t index, uint64_t seeds)
{
    marco_grammar *grammar;
    marco_error error;
    double start = now();
    marco_status status = marco_grammar_from_schema(schema, size, &grammar, &error);
    note(&w->compilations, now() - start);
    if (status) {
        print(index, 0, "error", error.message, strlen(error.message), "refused", 0);
        return;
    }
    for (uint64_t seed = 1; seed <= seeds; seed++)
        reply(w, grammar, index, seed);
    marco_grammar_free(grammar);
}

static void open_vocab(walker *w, const char *path)
{
    static const char *const texts[] = {"\"", "}", "]", "\"}", "\"]"};
    marco_error error;
    if (marco_tokenizer_open(path, &w->tokenizer, &error))
        die("the tokenizer", error.message);
    w->n_vocab = (marco_tokenizer_size(w->tokenizer) + 255) / 256 * 256;
    w->end = marco_tokenizer_eos(w->tokenizer);
    if (w->end < 0)
        w->end = marco_tokenizer_find(w->tokenizer, "<|im_end|>");
    double start = now();
    if (grammar_vocab_create(w->tokenizer, w->n_vocab, &w->end, 1, &w->vocab, &error))
        die("the vocabulary", error.message);
    fprintf(stderr, "vocabulary of %" PRId32 ": %.1f ms\n", w->n_vocab, (now() - start) * 1e3);
    w->mask = calloc(grammar_mask_words(w->n_vocab), sizeof *w->mask);
    w->closing = calloc(1 + sizeof texts / sizeof texts[0], sizeof *w->closing);
    if (!w->mask || !w->closing)
        die("a mask", "out of memory");
    w->closing[w->n_closing++] = w->end;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        int32_t *ids;
        size_t n;
        if (marco_tokenizer_encode(w->tokenizer, texts[i], strlen(texts[i]), 0, &ids, &n, &error))
            die("the tokenizer", error.message);
        if (n == 1)
            w->closing[w->n_closing++] = ids[0];
        marco_free(ids);
    }
}

int main(int argc, char **argv)
{
    walker w = {.limit = 1024};
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    if (argc < 4 || argc > 5) {
        fprintf(stderr, "usage: grammar_walk TOKENIZER SCHEMAS SEEDS [TOKENS]\n");
        return 2;
    }
    if (argc > 4)
        w.limit = atoi(argv[4]);
    if (w.limit < 1 || w.limit > 4096)
        die(argv[4], "1 to 4096 tokens");
    FILE *schemas = fopen(argv[2], "r");
    if (!schemas)
        die(argv[2], "cannot be opened");
    open_vocab(&w, argv[1]);
    for (size_t i = 0; (size = getline(&line, &capacity, schemas)) > 0; i++)
        run(&w, line, (size_t)size, i, strtoull(argv[3], NULL, 10));
    free(line);
    fclose(schemas);
    report("masks", &w.masks);
    fprintf(stderr, "the slowest mask was of schema %zu\n", w.slowest_schema);
    report("compilations", &w.compilations);
    free(w.mask);
    free(w.closing);
    grammar_vocab_free(w.vocab);
    marco_tokenizer_close(w.tokenizer);
    return 0;
}
