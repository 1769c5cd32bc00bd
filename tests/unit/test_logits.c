/* The forward pass against transformers on tiny checkpoints, and against itself: the same ids give
 * the same bits whatever the threads and however a prompt is cut. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scratch.h"
#include "tiny_checkpoint.h"

/* Of the logits' standard deviation: the bar that the reference path must pass. */
#define LARGEST_DIFFERENCE 1e-3
/* Nats, between the reference path and the faster one, whose keys and values are F16 and whose
 * activations are 8 bits wide where weights are quantised. Where experts are chosen, a rounding can
 * choose another one, which changes that position's reply and, a little, those after it: so the
 * middle one of all positions is held tightly, and the mean only where nothing is chosen. */
typedef struct limits {
    double median, mean, mean_sparse;
} limits;

static const limits limits_f32 = {1e-4, 1e-5, 5e-2};
static const limits limits_q8 = {1e-2, 5e-3, 2e-1};

enum { N_CHUNKS = 4, MAX_THREADS = 4 };

typedef struct checkpoint {
    tiny_vector *vector;
    scratch files;
    const char *folder; /* in files */
} checkpoint;

static void open_checkpoint(checkpoint *c, const char *name)
{
    c->vector = tiny_vector_read(name);
    assert_true(scratch_create(&c->files));
    c->folder = scratch_path(&c->files, "checkpoint");
    tiny_checkpoint_write(c->vector, c->folder);
}

static void close_checkpoint(checkpoint *c)
{
    scratch_remove(&c->files);
    tiny_vector_free(c->vector);
}

static void check(marco_status status, const marco_error *error)
{
    if (status)
        fail_msg("%s: %s", marco_status_name(status), error->message);
}

/* ---- against transformers ------------------------------------------------------------------- */

static double log_sum_exp(const float *logits, int32_t n)
{
    double max = logits[tiny_likeliest(logits, n)], sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += exp(logits[i] - max);
    return max + log(sum);
}

/* Largest difference at a position from what transformers computed. */
static double difference_at(const tiny_position *p, const float *logits, int32_t n_vocab)
{
    double largest = fabs(logits[p->likeliest] - p->max);
    double d = fabs(log_sum_exp(logits, n_vocab) - p->log_sum_exp);
    largest = d > largest ? d : largest;
    for (size_t i = 0; i < TINY_SAMPLES; i++) {
        d = fabs(logits[p->sample_ids[i]] - p->samples[i]);
        largest = d > largest ? d : largest;
    }
    return largest;
}

static double difference(const tiny_vector *v, const tiny_sequence *s, marco_engine *engine)
{
    double largest = 0;
    float *logits = tiny_logits(engine, 0, s->ids, s->n);
    for (size_t i = 0; i < s->n; i++) {
        const float *row = logits + i * (size_t)v->n_vocab;
        double d = difference_at(&s->positions[i], row, v->n_vocab);
        if (!(d <= LARGEST_DIFFERENCE * v->deviation))
            fail_msg("position %zu of %zu: a logit is off by %g deviations", i, s->n,
                     d / v->deviation);
        if (tiny_likeliest(row, v->n_vocab) != s->positions[i].likeliest)
            fail_msg("position %zu of %zu: id %d is likeliest, not %d", i, s->n,
                     tiny_likeliest(row, v->n_vocab), s->positions[i].likeliest);
        largest = d > largest ? d : largest;
    }
    free(logits);
    return largest;
}

static void test_reference(void **state)
{
    checkpoint c;
    open_checkpoint(&c, *state);
    const tiny_vector *v = c.vector;
    marco_engine *engine = tiny_engine_open(c.folder, MARCO_COMPUTE_F32, 1);
    double largest = 0;
    assert_int_equal(marco_engine_info(engine)->n_vocab, v->n_vocab);
    for (size_t i = 0; i < v->n_sequences; i++) {
        double d = difference(v, &v->sequences[i], engine);
        largest = d > largest ? d : largest;
    }
    print_message("%s: largest difference %.1e of the logits' deviation\n", (char *)*state,
                  largest / v->deviation);

    int32_t *greedy = calloc(v->n_greedy, sizeof *greedy);
    assert_non_null(greedy);
    tiny_greedy(engine, v->prompt, v->n_prompt, greedy, v->n_greedy);
    for (size_t i = 0; i < v->n_greedy; i++)
        assert_int_equal(greedy[i], v->greedy[i]);
    free(greedy);
    marco_engine_close(engine);
    close_checkpoint(&c);
}

/* ---- the same bits -------------------------------------------------------------------------- */

static void assert_same_bits(const float *a, const float *b, size_t n, int32_t n_vocab,
                             const char *what)
{
    for (size_t i = 0; i < n * (size_t)n_vocab; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s: logit %zu of position %zu is %a, not %a", what, i % (size_t)n_vocab,
                     i / (size_t)n_vocab, (double)b[i], (double)a[i]);
}

/* One by one through eval, as decoding does; forgetting some on the way. */
static void assert_decoding_same(marco_engine *engine, const tiny_sequence *s, const float *whole)
{
    marco_error error = {0};
    size_t n_vocab = (size_t)marco_engine_info(engine)->n_vocab;
    marco_session *session = tiny_session_create(engine, 0);
    assert_null(marco_session_logits(session));
    for (size_t i = 0; i < s->n; i++) {
        check(marco_session_eval(session, &s->ids[i], 1, &error), &error);
        assert_same_bits(whole + i * n_vocab, marco_session_logits(session), 1, (int32_t)n_vocab,
                         "decoding");
    }
    const size_t keep[] = {s->n - 1, 70, 64, 3, 0};
    for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
        size_t n;
        assert_int_equal(marco_session_truncate(session, keep[i]), MARCO_OK);
        assert_null(marco_session_logits(session));
        check(marco_session_eval(session, s->ids + keep[i], s->n - keep[i], &error), &error);
        assert_memory_equal(marco_session_tokens(session, &n), s->ids, s->n * sizeof *s->ids);
        assert_int_equal(n, s->n);
        assert_same_bits(whole + (s->n - 1) * n_vocab, marco_session_logits(session), 1,
                         (int32_t)n_vocab, "after truncation");
    }
    assert_int_not_equal(marco_session_truncate(session, s->n + 1), MARCO_OK);
    marco_session_close(session);
}

/* Numbers of threads with ways to cut the prompt: all sixteen pairs, or ten. Returns the logits. */
static float *assert_schedule_free(const char *path, marco_compute compute, const tiny_sequence *s,
                                   bool all)
{
    static const int32_t chunks[N_CHUNKS] = {0, 1, 7, 64};
    float *first = NULL;
    for (int32_t threads = 1; threads <= MAX_THREADS; threads++) {
        marco_engine *engine = tiny_engine_open(path, compute, threads);
        int32_t n_vocab = marco_engine_info(engine)->n_vocab;
        for (int32_t i = 0; i < N_CHUNKS; i++) {
            if (!all && threads > 1 && i != 0 && i != threads - 1)
                continue;
            float *logits = tiny_logits(engine, chunks[i], s->ids, s->n);
            char what[64];
            snprintf(what, sizeof what, "%d threads, chunk %d", threads, chunks[i]);
            if (!first) {
                first = logits;
                continue;
            }
            assert_same_bits(first, logits, s->n, n_vocab, what);
            free(logits);
        }
        if (threads == 1 || (all && threads == 3))
            assert_decoding_same(engine, s, first);
        marco_engine_close(engine);
    }
    return first;
}

/* ---- the faster path ------------------------------------------------------------------------ */

/* KL(p || q) of one position, nats. */
static double divergence(const float *p, const float *q, int32_t n_vocab)
{
    double p_sum = log_sum_exp(p, n_vocab), q_sum = log_sum_exp(q, n_vocab), total = 0;
    for (int32_t i = 0; i < n_vocab; i++)
        total += exp(p[i] - p_sum) * ((p[i] - p_sum) - (q[i] - q_sum));
    return total;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void assert_close(const float *p, const float *q, size_t n, int32_t n_vocab, double median,
                         double mean)
{
    double *each = calloc(n, sizeof *each), sum = 0;
    assert_non_null(each);
    for (size_t i = 0; i < n; i++)
        sum += each[i] = divergence(p + i * (size_t)n_vocab, q + i * (size_t)n_vocab, n_vocab);
    qsort(each, n, sizeof *each, by_size);
    print_message("divergence of the faster path: median %.1e, mean %.1e\n", each[n / 2],
                  sum / (double)n);
    if (!(each[n / 2] <= median && sum / (double)n <= mean))
        fail_msg("above the limits: median %g, mean %g", median, mean);
    free(each);
}

/* Both paths on one checkpoint: each free of scheduling, and close to one another. */
static void compare_paths(const char *path, const tiny_vector *v, const limits *most, bool all)
{
    const tiny_sequence *s = &v->sequences[1];
    float *reference = assert_schedule_free(path, MARCO_COMPUTE_F32, s, all);
    float *faster = assert_schedule_free(path, MARCO_COMPUTE_AUTO, s, all);
    bool sparse = strstr(v->config, "experts_per_tok") != NULL;
    assert_close(reference, faster, s->n, v->n_vocab, most->median,
                 sparse ? most->mean_sparse : most->mean);
    free(reference);
    free(faster);
}

static void test_schedule(void **state)
{
    checkpoint c;
    open_checkpoint(&c, *state);
    compare_paths(c.folder, c.vector, &limits_f32, strcmp(*state, "qwen3moe-256") == 0);
    close_checkpoint(&c);
}

static void test_schedule_q8(void **state)
{
    checkpoint c;
    marco_error error = {0};
    open_checkpoint(&c, *state);
    const char *path = scratch_path(&c.files, "q8_0.gguf");
    marco_convert_params params = marco_convert_params_default();
    params.type = "Q8_0";
    params.threads = 1;
    check(marco_convert(c.folder, path, &params, &error), &error);
    compare_paths(path, c.vector, &limits_q8, strcmp(*state, "qwen3moe-232") == 0);
    close_checkpoint(&c);
}

#define REFERENCE(name) {"reference " name, test_reference, NULL, NULL, name},
#define SCHEDULE(name)  {"schedule " name, test_schedule, NULL, NULL, name},

int main(void)
{
    const struct CMUnitTest tests[] = {
        TINY_CASES(REFERENCE) TINY_CASES(SCHEDULE)
        /* Those that GGUF can express and most of whose rows are whole blocks. */
        {"q8_0 qwen3moe-256", test_schedule_q8, NULL, NULL, "qwen3moe-256"},
        {"q8_0 qwen3moe-232", test_schedule_q8, NULL, NULL, "qwen3moe-232"},
        {"q8_0 qwen3", test_schedule_q8, NULL, NULL, "qwen3"},
        {"q8_0 llama-linear", test_schedule_q8, NULL, NULL, "llama-linear"},
        {"q8_0 mixtral", test_schedule_q8, NULL, NULL, "mixtral"},
    };
    return cmocka_run_group_tests_name("logits", tests, NULL, NULL);
}
