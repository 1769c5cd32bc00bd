/* Perplexity and divergence against the formulas, computed here from the logits of a fresh session
 * in the plainest way; base files, theirs and hostile ones. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "infer/internal.h"
#include "scratch.h"
#include "tiny_checkpoint.h"
#include "tokenizer/spec.h"

/* Chunks whose second half is more than one piece (64 positions), and an odd number of tokens. */
enum { N_CTX = 151, FIRST = N_CTX / 2, PER_CHUNK = N_CTX - 1 - FIRST, N_CHUNKS = 3 };
enum { N_SCORED = N_CHUNKS * PER_CHUNK, TEXT_SIZE = N_CHUNKS * N_CTX + 20, BOS = 256 };

static scratch place;
static char text[TEXT_SIZE]; /* its bytes are its ids */
/* The reference path, the same weights on the other path, other weights, another vocabulary. */
static marco_engine *reference, *faster, *other, *smaller;

static marco_engine *open_case(const char *name, marco_compute compute)
{
    tiny_vector *v = tiny_vector_read(name);
    const char *folder = scratch_path(&place, name);
    if (access(folder, F_OK) != 0)
        tiny_checkpoint_write(v, folder);
    tiny_vector_free(v);
    return tiny_engine_open(folder, compute, 2);
}

static int set_up(void **state)
{
    (void)state;
    if (!scratch_create(&place))
        return -1;
    uint32_t random = 1;
    for (size_t i = 0; i < TEXT_SIZE; i++) {
        random = random * 1664525 + 1013904223;
        text[i] = (char)('!' + (random >> 24) % 90);
    }
    memcpy(text + 100, "<|im_end|>", 10); /* plain characters, like the rest */
    reference = open_case("qwen3moe-256", MARCO_COMPUTE_F32);
    faster = open_case("qwen3moe-256", MARCO_COMPUTE_AUTO);
    other = open_case("llama", MARCO_COMPUTE_F32);
    smaller = open_case("mixtral", MARCO_COMPUTE_F32);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    marco_engine_close(reference);
    marco_engine_close(faster);
    marco_engine_close(other);
    marco_engine_close(smaller);
    scratch_remove(&place);
    return 0;
}

/* ---- the plainest way ----------------------------------------------------------------------- */

typedef struct plain {
    double surprise[N_SCORED]; /* -ln p of the token that followed */
    double *logprobs;          /* [N_SCORED, n_vocab] */
    int32_t top[N_SCORED];
    size_t n_vocab;
} plain;

static plain *plain_run(marco_engine *engine, int32_t bos)
{
    plain *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->n_vocab = (size_t)marco_engine_info(engine)->n_vocab;
    p->logprobs = calloc(N_SCORED * p->n_vocab, sizeof *p->logprobs);
    assert_non_null(p->logprobs);
    for (size_t c = 0, at = 0; c < N_CHUNKS; c++) {
        int32_t ids[N_CTX];
        /* The first token of the whole text is there besides; that of a later chunk replaces one.
         */
        for (size_t i = 0; i < N_CTX; i++)
            ids[i] = (uint8_t)text[c * N_CTX + i - (bos >= 0 && c * N_CTX + i > 0)];
        if (bos >= 0)
            ids[0] = bos;
        float *logits = tiny_logits(engine, 0, ids, N_CTX);
        for (size_t i = FIRST; i + 1 < N_CTX; i++, at++) {
            const float *row = logits + i * p->n_vocab;
            double sum = 0;
            for (size_t v = 0; v < p->n_vocab; v++)
                sum += exp((double)row[v]);
            for (size_t v = 0; v < p->n_vocab; v++)
                p->logprobs[at * p->n_vocab + v] = log(exp((double)row[v]) / sum);
            p->surprise[at] = -p->logprobs[at * p->n_vocab + (size_t)ids[i + 1]];
            p->top[at] = tiny_likeliest(row, (int32_t)p->n_vocab);
        }
        free(logits);
    }
    return p;
}

static void plain_free(plain *p)
{
    free(p->logprobs);
    free(p);
}

static double mean_of(const double *values)
{
    double sum = 0;
    for (size_t i = 0; i < N_SCORED; i++)
        sum += values[i];
    return sum / N_SCORED;
}

static double error_of(const double *values)
{
    double mean = mean_of(values), sum = 0;
    for (size_t i = 0; i < N_SCORED; i++)
        sum += pow(values[i] - mean, 2);
    return sqrt(sum / (N_SCORED - 1)) / sqrt(N_SCORED);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double at_share(const double *sorted, double share)
{
    double rank = share * (N_SCORED - 1), below = floor(rank);
    size_t i = (size_t)below;
    return sorted[i] + (rank - below) * (sorted[i + 1] - sorted[i]);
}

/* KL(b || a) at each position, in ascending order. */
static void plain_divergences(const plain *b, const plain *a, double *out)
{
    for (size_t i = 0; i < N_SCORED; i++) {
        out[i] = 0;
        for (size_t v = i * b->n_vocab; v < (i + 1) * b->n_vocab; v++)
            out[i] += exp(b->logprobs[v]) * (b->logprobs[v] - a->logprobs[v]);
    }
    qsort(out, N_SCORED, sizeof *out, ascending);
}

static void near(double seen, double wanted, double tolerance, const char *what)
{
    if (!(fabs(seen - wanted) <= tolerance))
        fail_msg("%s: %.12g, not %.12g", what, seen, wanted);
}

static void compare(const marco_perplexity_result *r, const plain *b, const plain *a,
                    double tolerance)
{
    const marco_divergence *d = &r->divergence;
    double kl[N_SCORED], more[N_SCORED], same = 0;
    plain_divergences(b, a, kl);
    for (size_t i = 0; i < N_SCORED; i++) {
        more[i] = a->surprise[i] - b->surprise[i];
        same += a->top[i] == b->top[i];
    }
    assert_true(r->compared);
    near(d->mean, mean_of(kl), tolerance, "mean");
    near(d->error, error_of(kl), tolerance, "its error");
    near(d->median, at_share(kl, 0.5), 10 * tolerance, "median");
    near(d->p99, at_share(kl, 0.99), 10 * tolerance, "99%");
    near(d->p999, at_share(kl, 0.999), 10 * tolerance, "99.9%");
    near(d->max, kl[N_SCORED - 1], 10 * tolerance, "largest");
    near(d->same_top, same / N_SCORED, 1e-12, "same likeliest id");
    near(log(d->base_perplexity), mean_of(b->surprise), 1e-9, "the base's perplexity");
    near(d->log_ratio, mean_of(more), 1e-9, "ratio");
    near(d->log_ratio_error, error_of(more), 1e-9, "its error");
}

/* ---- */

static marco_perplexity_result measure(marco_engine *engine, marco_perplexity_params params)
{
    marco_perplexity_result r;
    marco_error error = {0};
    params.n_ctx = N_CTX;
    params.overwrite = true;
    if (marco_perplexity(engine, text, TEXT_SIZE, &params, &r, &error))
        fail_msg("%s", error.message);
    return r;
}

static void refuses(marco_engine *engine, marco_perplexity_params params, marco_status status,
                    const char *pattern)
{
    marco_perplexity_result r;
    marco_error error = {0};
    params.n_ctx = params.n_ctx ? params.n_ctx : N_CTX;
    assert_int_equal(marco_perplexity(engine, text, TEXT_SIZE, &params, &r, &error), status);
    if (!strstr(error.message, pattern))
        fail_msg("no \"%s\" in: %s", pattern, error.message);
}

typedef struct seen {
    int32_t chunks;
    double perplexity;
    uint64_t done, total;
    uint64_t stop; /* cancel when this much is done */
} seen;

static void on_chunk(void *user, int32_t n_chunks, double perplexity)
{
    seen *s = user;
    assert_int_equal(n_chunks, s->chunks + 1);
    s->chunks = n_chunks;
    s->perplexity = perplexity;
}

static int on_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    seen *s = user;
    assert_non_null(strstr(what, "tokens"));
    assert_true(done >= s->done && done <= total);
    s->done = done;
    s->total = total;
    return s->stop && done >= s->stop;
}

static void the_perplexity_is_that_of_the_formula(void **state)
{
    (void)state;
    plain *p = plain_run(reference, -1);
    seen s = {0};
    marco_perplexity_result r = measure(
        reference,
        (marco_perplexity_params){.on_chunk = on_chunk, .user = &s, .progress = {on_progress, &s}});
    assert_int_equal(r.n_chunks, N_CHUNKS);
    assert_int_equal(r.n_scored, N_SCORED);
    assert_int_equal(r.n_ctx, N_CTX);
    assert_false(r.compared);
    near(log(r.perplexity), mean_of(p->surprise), 1e-9, "perplexity");
    near(r.error, r.perplexity * error_of(p->surprise), 1e-9, "its error");
    assert_int_equal(s.chunks, N_CHUNKS);
    near(s.perplexity, r.perplexity, 1e-9, "the running value");
    assert_int_equal(s.done, N_CHUNKS * N_CTX);
    assert_int_equal(s.total, N_CHUNKS * N_CTX);

    r = measure(reference, (marco_perplexity_params){.max_chunks = 1});
    double sum = 0;
    for (size_t i = 0; i < PER_CHUNK; i++)
        sum += p->surprise[i];
    assert_int_equal(r.n_chunks, 1);
    near(log(r.perplexity), sum / PER_CHUNK, 1e-9, "of one chunk");
    plain_free(p);
}

static void the_divergence_is_that_of_the_formula(void **state)
{
    (void)state;
    plain *b = plain_run(reference, -1), *a = plain_run(other, -1), *f = plain_run(faster, -1);
    marco_perplexity_result r = measure(other, (marco_perplexity_params){.base_engine = reference});
    compare(&r, b, a, 1e-9);
    assert_true(r.divergence.mean > 0.5 && r.divergence.same_top < 0.5);
    r = measure(reference, (marco_perplexity_params){.base_engine = other});
    compare(&r, a, b, 1e-9);
    r = measure(faster, (marco_perplexity_params){.base_engine = reference});
    compare(&r, b, f, 1e-9);
    assert_true(r.divergence.mean > 0 && r.divergence.mean < 0.1);
    r = measure(reference, (marco_perplexity_params){.base_engine = reference});
    near(r.divergence.mean, 0, 1e-12, "from itself");
    near(r.divergence.max, 0, 1e-12, "from itself");
    assert_true(r.divergence.same_top == 1 && r.divergence.log_ratio == 0);
    plain_free(a);
    plain_free(b);
    plain_free(f);
}

/* What the file rounds must stay far below the differences that matter: 1e-4 nats. */
static void a_base_file_says_the_same(void **state)
{
    (void)state;
    const char *path = scratch_path(&place, "saved.kl");
    plain *b = plain_run(reference, -1), *a = plain_run(other, -1);
    marco_perplexity_result plain_result = measure(reference, (marco_perplexity_params){0});
    marco_perplexity_result r = measure(reference, (marco_perplexity_params){.save = path});
    assert_true(r.perplexity == plain_result.perplexity);
    r = measure(other, (marco_perplexity_params){.base = path});
    compare(&r, b, a, 1e-4);
    r = measure(reference, (marco_perplexity_params){.base = path});
    near(r.divergence.mean, 0, 1e-6, "from itself");
    assert_true(r.divergence.same_top == 1 && r.divergence.log_ratio == 0);
    plain_free(a);
    plain_free(b);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    marco_perplexity_result first = {0};
    for (int32_t threads = 1; threads <= 4; threads++) {
        marco_engine *engine =
            tiny_engine_open(scratch_path(&place, "qwen3moe-256"), MARCO_COMPUTE_AUTO, threads);
        const char *path = scratch_path(&place, threads == 1 ? "one.kl" : "many.kl");
        measure(engine, (marco_perplexity_params){.save = path});
        marco_perplexity_result r =
            measure(engine, (marco_perplexity_params){.base_engine = other});
        if (threads == 1)
            first = r;
        assert_memory_equal(&r.divergence, &first.divergence, sizeof r.divergence);
        assert_true(r.perplexity == first.perplexity && r.error == first.error);
        if (threads > 1)
            assert_true(scratch_same_file(scratch_path(&place, "one.kl"), path));
        marco_engine_close(engine);
    }
}

/* The room of a session, and whatever more: the piece is as large as fits, the result the same. */
static void a_budget_is_kept(void **state)
{
    (void)state;
    const model_plan unbound = reference->plan;
    marco_perplexity_result r, want = measure(reference, (marco_perplexity_params){0});
    marco_error error = {0};
    const marco_perplexity_params params = {.n_ctx = N_CTX};
    size_t n = 0, refused = 0, row = (size_t)marco_engine_info(reference)->n_vocab * sizeof(float);
    for (uint64_t room = 64 << 10; n < 20; room += 8 << 10) {
        reference->plan.room = reference->plan.budget = room;
        marco_status status = marco_perplexity(reference, text, TEXT_SIZE, &params, &r, &error);
        assert_int_equal(reference->taken, 0);
        if (status) {
            assert_int_equal(status, MARCO_ERROR_MEMORY);
            assert_true(n == 0);
            refused++;
            continue;
        }
        n++;
        assert_true(r.perplexity == want.perplexity && r.error == want.error);
    }
    assert_true(refused > 0 &&
                n * (8 << 10) > 64 * row); /* from the smallest piece to the largest */
    refuses(other, (marco_perplexity_params){.base_engine = reference}, MARCO_ERROR_ARGUMENT,
            "cannot share a budget");
    refuses(reference, (marco_perplexity_params){.base_engine = other}, MARCO_ERROR_ARGUMENT,
            "cannot share a budget");
    reference->plan = unbound;
}

static void every_chunk_begins_with_bos_where_the_checkpoint_asks(void **state)
{
    (void)state;
    const char *folder = scratch_path(&place, "qwen3moe-256");
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json"};
    tok_spec *spec;
    for (size_t i = 0; i < 2; i++) {
        char *path = base_path_join(folder, files[i]);
        assert_int_equal(unlink(path), 0);
        base_free(path);
    }
    assert_int_equal(tok_spec_bytes(&spec, NULL), MARCO_OK);
    spec->bos = BOS;
    spec->add_bos = true;
    assert_int_equal(tok_spec_write_hf(spec, folder, NULL), MARCO_OK);
    tok_spec_free(spec);

    marco_engine *engine = tiny_engine_open(folder, MARCO_COMPUTE_F32, 1);
    /* One token more: the text that a chunk needs is one byte less. */
    plain *p = plain_run(engine, BOS), *without = plain_run(reference, -1);
    marco_perplexity_result r = measure(engine, (marco_perplexity_params){0});
    near(log(r.perplexity), mean_of(p->surprise), 1e-9, "perplexity");
    assert_true(fabs(mean_of(p->surprise) - mean_of(without->surprise)) > 1e-6);
    /* The tokens differ, and are not compared. */
    refuses(engine, (marco_perplexity_params){.base_engine = reference}, MARCO_ERROR_ARGUMENT,
            "other tokens");
    plain_free(p);
    plain_free(without);
    marco_engine_close(engine);
}

/* ---- refusals ------------------------------------------------------------------------------- */

static void what_cannot_be_measured_is_refused(void **state)
{
    (void)state;
    typedef marco_perplexity_params params;
    marco_error error = {0};
    marco_perplexity_result r;
    params standard = marco_perplexity_params_default();
    const char *path = scratch_path(&place, "refused.kl");
    refuses(reference, (params){.n_ctx = 3}, MARCO_ERROR_ARGUMENT, "context: 3 is not between 4");
    refuses(reference, (params){.n_ctx = 513}, MARCO_ERROR_ARGUMENT, "512");
    refuses(reference, (params){.n_ctx = 500}, MARCO_ERROR_ARGUMENT, "the text has 473 tokens");
    refuses(reference, (params){.max_chunks = -1}, MARCO_ERROR_ARGUMENT, "negative");
    refuses(reference, (params){.base_engine = smaller}, MARCO_ERROR_ARGUMENT, "vocabulary of 320");
    refuses(reference, (params){.base = path, .save = path}, MARCO_ERROR_ARGUMENT, "not both");
    refuses(reference, (params){.base = path}, MARCO_ERROR_NOT_FOUND, "refused.kl");
    seen s = {.stop = N_CTX + FIRST + 64};
    refuses(reference, (params){.save = path, .progress = {on_progress, &s}}, MARCO_ERROR_CANCELLED,
            "cancelled");
    assert_int_equal(s.done, s.stop);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(marco_perplexity(reference, NULL, 0, &standard, &r, &error),
                     MARCO_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "the text has 0 tokens"));
    assert_int_equal(marco_perplexity(NULL, text, 1, NULL, &r, NULL), MARCO_ERROR_ARGUMENT);
    measure(reference, (params){.save = path});
    refuses(reference, (params){.save = path}, MARCO_ERROR_EXISTS, "refused.kl");
    refuses(smaller, (params){.base = path}, MARCO_ERROR_ARGUMENT, "vocabulary of 384");
    refuses(reference, (params){.base = path, .n_ctx = 150}, MARCO_ERROR_ARGUMENT,
            "context of 151");
    refuses(reference, (params){.base = path, .max_chunks = 2}, MARCO_ERROR_ARGUMENT, "3 chunks");
    text[0] ^= 1;
    refuses(reference, (params){.base = path}, MARCO_ERROR_ARGUMENT, "another text");
    text[0] ^= 1;
}

/* A copy of a good base file with `size` bytes replaced at `offset`, cut or grown to `length`. */
static void damaged(size_t offset, const void *bytes, size_t size, size_t length,
                    marco_status status, const char *pattern)
{
    const char *path = scratch_path(&place, "damaged.kl");
    char *data;
    size_t whole;
    base_output *output;
    assert_int_equal(base_file_slurp(scratch_path(&place, "good.kl"), 1 << 24, &data, &whole, NULL),
                     MARCO_OK);
    char *grown = calloc(1, whole + 8);
    assert_non_null(grown);
    memcpy(grown, data, whole);
    memcpy(grown + offset, bytes, size);
    assert_int_equal(base_output_create(path, true, &output, NULL), MARCO_OK);
    assert_int_equal(base_output_write(output, grown, length == SIZE_MAX ? whole : length, NULL),
                     MARCO_OK);
    assert_int_equal(base_output_commit(output, NULL), MARCO_OK);
    refuses(reference, (marco_perplexity_params){.base = path}, status, pattern);
    free(grown);
    base_free(data);
}

static void damaged_base_files_are_refused(void **state)
{
    (void)state;
    const size_t row = 16 + 384 * 2, whole = 32 + N_SCORED * row;
    const uint32_t version = 2, many = UINT32_MAX, id = 384;
    const double nan_value = NAN, positive = 0.5;
    const uint16_t nan_half = 0x7e00, infinite = 0xfc00, half_one = 0x3c00;
    const int32_t negative = -1;
    uint16_t certain[384] = {0};
    measure(reference, (marco_perplexity_params){.save = scratch_path(&place, "good.kl")});
    damaged(0, "GGUF", 4, SIZE_MAX, MARCO_ERROR_FORMAT, "no log-probabilities");
    damaged(8, &version, 4, SIZE_MAX, MARCO_ERROR_UNSUPPORTED, "version 2");
    damaged(12, &many, 4, SIZE_MAX, MARCO_ERROR_ARGUMENT, "vocabulary of 4294967295");
    damaged(16, &many, 4, SIZE_MAX, MARCO_ERROR_ARGUMENT, "context of 4294967295");
    damaged(20, &many, 4, SIZE_MAX, MARCO_ERROR_ARGUMENT, "4294967295 chunks");
    damaged(24, &many, 4, SIZE_MAX, MARCO_ERROR_ARGUMENT, "another text");
    damaged(0, "", 0, 0, MARCO_ERROR_FORMAT, "no log-probabilities");
    damaged(0, "", 0, 31, MARCO_ERROR_FORMAT, "no log-probabilities");
    damaged(0, "", 0, 32, MARCO_ERROR_FORMAT, "has 32 bytes");
    damaged(0, "", 0, whole - 1, MARCO_ERROR_FORMAT, "not whole");
    damaged(0, "", 0, whole + 1, MARCO_ERROR_FORMAT, "not whole");
    const size_t at = 32 + 70 * row; /* in the second piece */
    damaged(at, &nan_value, 8, SIZE_MAX, MARCO_ERROR_FORMAT, "row 70");
    damaged(at, &positive, 8, SIZE_MAX, MARCO_ERROR_FORMAT, "row 70");
    damaged(at + 8, &id, 4, SIZE_MAX, MARCO_ERROR_FORMAT, "row 70");
    damaged(at + 8, &negative, 4, SIZE_MAX, MARCO_ERROR_FORMAT, "row 70");
    damaged(at + 16, &nan_half, 2, SIZE_MAX, MARCO_ERROR_FORMAT, "row 70");
    damaged(at + 16, &infinite, 2, SIZE_MAX, MARCO_ERROR_FORMAT, "row 70");
    damaged(at + 16, &half_one, 2, SIZE_MAX, MARCO_ERROR_FORMAT, "row 70");
    damaged(at + 16, certain, sizeof certain, SIZE_MAX, MARCO_ERROR_FORMAT, "row 70");
}

static void running_out_of_memory_leaves_nothing(void **state)
{
    (void)state;
    const char *path = scratch_path(&place, "memory.kl");
    marco_perplexity_params params = {.n_ctx = 32, .max_chunks = 1, .save = path};
    int before = scratch_count(place.folder);
    for (int comparing = 0; comparing < 2; comparing++) {
        marco_status status = MARCO_ERROR_MEMORY;
        uint64_t n = 1;
        if (comparing)
            params = (marco_perplexity_params){.n_ctx = 32, .max_chunks = 1, .base_engine = other};
        for (; status && n < 2000; n++) {
            marco_perplexity_result r;
            base_alloc_fail_at(n);
            status = marco_perplexity(reference, text, TEXT_SIZE, &params, &r, NULL);
            base_alloc_fail_at(0);
            if (status)
                assert_int_equal(status, MARCO_ERROR_MEMORY);
            if (status)
                assert_int_equal(scratch_count(place.folder), before);
        }
        assert_int_equal(status, MARCO_OK);
        assert_true(n > 10);
        before = scratch_count(place.folder);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_perplexity_is_that_of_the_formula),
        cmocka_unit_test(the_divergence_is_that_of_the_formula),
        cmocka_unit_test(a_base_file_says_the_same),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(a_budget_is_kept),
        cmocka_unit_test(what_cannot_be_measured_is_refused),
        cmocka_unit_test(damaged_base_files_are_refused),
        cmocka_unit_test(running_out_of_memory_leaves_nothing),
        cmocka_unit_test(every_chunk_begins_with_bos_where_the_checkpoint_asks),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
