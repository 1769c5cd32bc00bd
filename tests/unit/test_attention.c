/* Attention over long contexts and the types of the KV cache. Contexts are filled rather than
 * computed where only their length matters. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/random.h"
#include "model/context.h"
#include "scratch.h"
#include "tiny_checkpoint.h"

enum { SPAN = 1024, PAGE = 64, MORE = 24 };

static const marco_kv_type types[] = {MARCO_KV_F32, MARCO_KV_F16, MARCO_KV_Q8_0};

typedef struct checkpoint {
    scratch files;
    const char *folder;
    tiny_vector *vector;
} checkpoint;

static void check(marco_status status, const marco_error *error)
{
    if (status)
        fail_msg("%s: %s", marco_status_name(status), error->message);
}

/* The checkpoint, made for 4096 tokens. */
static void open_model(checkpoint *m, const char *name)
{
    static const char context[] = "\"max_position_embeddings\": 512";
    m->vector = tiny_vector_read(name);
    char *at = strstr(m->vector->config, context);
    assert_non_null(at);
    size_t size = strlen(m->vector->config) + 2;
    char *config = malloc(size);
    assert_non_null(config);
    snprintf(config, size, "%.*s\"max_position_embeddings\": 4096%s", (int)(at - m->vector->config),
             m->vector->config, at + strlen(context));
    char *short_config = m->vector->config;
    m->vector->config = config;
    assert_true(scratch_create(&m->files));
    m->folder = scratch_path(&m->files, "checkpoint");
    tiny_checkpoint_write(m->vector, m->folder);
    m->vector->config = short_config;
    free(config);
}

static void close_model(checkpoint *m)
{
    scratch_remove(&m->files);
    tiny_vector_free(m->vector);
}

static marco_session *session(marco_engine *engine, marco_kv_type type, int32_t chunk)
{
    marco_error error = {0};
    marco_session_params params = marco_session_params_default();
    marco_session *s;
    params.kv_type = type;
    params.chunk = chunk;
    check(marco_session_create(engine, &params, &s, &error), &error);
    return s;
}

static bool fits(marco_engine *engine, marco_kv_type type)
{
    return type != MARCO_KV_Q8_0 || marco_engine_info(engine)->head_dim % 32 == 0;
}

typedef struct sink {
    float *logits;
    size_t n, n_vocab;
} sink;

static int keep(void *user, int64_t position, const float *logits)
{
    (void)position;
    sink *s = user;
    memcpy(s->logits + s->n++ * s->n_vocab, logits, s->n_vocab * sizeof *logits);
    return 0;
}

/* Logits [n, n_vocab] of n ids after `filled` positions; released with free(). */
static float *logits_after(marco_engine *engine, marco_kv_type type, int32_t chunk, size_t filled,
                           size_t n)
{
    marco_error error = {0};
    size_t n_vocab = (size_t)marco_engine_info(engine)->n_vocab;
    sink out = {calloc(n * n_vocab, sizeof(float)), 0, n_vocab};
    int32_t *ids = calloc(n, sizeof *ids);
    assert_true(out.logits && ids);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * 29 + 5) % 200);
    marco_session *s = session(engine, type, chunk);
    if (filled)
        check(marco_session_fill(s, filled, 7, &error), &error);
    check(marco_session_eval_each(s, ids, n, keep, &out, &error), &error);
    assert_int_equal(out.n, n);
    marco_session_close(s);
    free(ids);
    return out.logits;
}

/* ---- the same bits -------------------------------------------------------------------------- */

/* Before, across and after the borders of spans: passes of one token and of seven share their work
 * by spans, of all tokens by heads and blocks. */
static void same_bits_at(marco_engine *engine, marco_kv_type type, size_t filled, size_t n,
                         float **first)
{
    static const int32_t chunks[] = {0, 1, 7, 50};
    size_t bytes = n * (size_t)marco_engine_info(engine)->n_vocab * sizeof(float);
    for (size_t i = 0; i < 4; i++) {
        if (n > 100 && chunks[i] == 1)
            continue;
        float *logits = logits_after(engine, type, chunks[i], filled, n);
        if (*first && memcmp(*first, logits, bytes) != 0)
            fail_msg("%d threads, type %d, chunk %d, %zu tokens after %zu: other bits",
                     marco_engine_info(engine)->threads, (int)type, chunks[i], n, filled);
        if (*first)
            free(logits);
        else
            *first = logits;
    }
}

static void long_contexts_are_free_of_scheduling(void **state)
{
    static const size_t filled[] = {SPAN - MORE / 2, 2 * SPAN - 3, 3 * SPAN + 100, SPAN - 100};
    static const size_t tokens[] = {MORE, MORE, MORE, 170};
    enum { PLACES = sizeof filled / sizeof *filled, TYPES = 3 };
    float *first[PLACES][TYPES] = {0};
    checkpoint m;
    open_model(&m, *state);
    for (int32_t threads = 1; threads <= 3; threads += 2) {
        marco_engine *engine = tiny_engine_open(m.folder, MARCO_COMPUTE_AUTO, threads);
        for (size_t p = 0; p < PLACES; p++)
            for (size_t t = 0; t < TYPES; t++)
                if (fits(engine, types[t]))
                    same_bits_at(engine, types[t], filled[p], tokens[p], &first[p][t]);
        marco_engine_close(engine);
    }
    for (size_t p = 0; p < PLACES; p++)
        for (size_t t = 0; t < TYPES; t++)
            free(first[p][t]);
    close_model(&m);
}

/* ---- against double precision --------------------------------------------------------------- */

enum { HEADS = 4, KV_HEADS = 2, DIM = 20, POSITIONS = 2 * SPAN + 100 };

static float numbers[4][POSITIONS * HEADS * DIM]; /* q, k, v, out */

/* Softmax over all keys of one head and token at once. */
static void expect_attended(int64_t token, int64_t head)
{
    static double weight[POSITIONS];
    const float *q = numbers[0] + (token * HEADS + head) * DIM;
    double max = -INFINITY, sum = 0, out[DIM] = {0};
    for (int64_t i = 0; i <= token; i++) {
        const float *k = numbers[1] + (i * KV_HEADS + head / 2) * DIM;
        weight[i] = 0;
        for (int d = 0; d < DIM; d++)
            weight[i] += (double)q[d] * (double)k[d] / sqrt(DIM);
        max = weight[i] > max ? weight[i] : max;
    }
    for (int64_t i = 0; i <= token; i++) {
        const float *v = numbers[2] + (i * KV_HEADS + head / 2) * DIM;
        weight[i] = exp(weight[i] - max);
        sum += weight[i];
        for (int d = 0; d < DIM; d++)
            out[d] += weight[i] * (double)v[d];
    }
    for (int d = 0; d < DIM; d++) {
        double got = (double)numbers[3][(token * HEADS + head) * DIM + d];
        if (!(fabs(got - out[d] / sum) <= 1e-5))
            fail_msg("token %d, head %d, number %d: %g, not %g", (int)token, (int)head, d, got,
                     out[d] / sum);
    }
}

/* Keys whose scores are largest in the middle span, so that spans fade both ways. */
static void spans_add_up(void **state)
{
    (void)state;
    static float ones[POSITIONS * DIM / 2], zeros[POSITIONS * DIM / 2];
    model_layer layer = {0};
    model_weights weights = {
        .config = {.n_layers = 1, .n_heads = HEADS, .n_kv_heads = KV_HEADS, .head_dim = DIM},
        .layers = &layer};
    model_context c = {.weights = &weights,
                       .kernels = kern_table_get(NULL),
                       .q = numbers[0],
                       .k = numbers[1],
                       .v = numbers[2],
                       .attended = numbers[3],
                       .cosine = ones,
                       .sine = zeros};
    model_kv kv;
    const model_sequence all = {&kv, NULL, POSITIONS - 1, 0}, last = {&kv, NULL, 1, POSITIONS - 1};
    c.scratch = base_alloc_array(model_attention_scratch(&weights.config), sizeof(float));
    assert_non_null(c.scratch);
    for (int64_t i = 0; i < POSITIONS * HEADS * DIM; i++)
        for (uint64_t n = 0; n < 3; n++)
            numbers[n][i] = (float)(base_random_unit(1, n, (uint64_t)i) * 4 - 2);
    for (int64_t i = 0; i < POSITIONS * KV_HEADS * DIM; i++) {
        int64_t position = i / (KV_HEADS * DIM);
        numbers[1][i] *= (float)(1 + sin((double)position / 300 - 3.4));
    }
    for (int64_t i = 0; i < POSITIONS * DIM / 2; i++)
        ones[i] = 1;
    model_kv_init(&kv, &weights.config, TENSOR_F32);
    assert_int_equal(model_kv_reserve(&kv, 0, POSITIONS, NULL), MARCO_OK);
    assert_int_equal(model_attention_plan(&c, &all, 1, NULL), MARCO_OK);
    c.n_rows = POSITIONS - 1;
    model_attend(&c, 0);
    for (int64_t i = 0; i < POSITIONS - 1; i += 91)
        for (int64_t h = 0; h < HEADS; h++)
            expect_attended(i, h);

    c.q += (POSITIONS - 1) * HEADS * DIM; /* the last by itself, shared by spans */
    c.attended += (POSITIONS - 1) * HEADS * DIM;
    c.k += (POSITIONS - 1) * KV_HEADS * DIM;
    c.v += (POSITIONS - 1) * KV_HEADS * DIM;
    assert_int_equal(model_attention_plan(&c, &last, 1, NULL), MARCO_OK);
    c.n_rows = 1;
    model_attend(&c, 0);
    for (int64_t h = 0; h < HEADS; h++)
        expect_attended(POSITIONS - 1, h);
    model_kv_free(&kv);
    base_free(c.scratch);
    model_attention_release(&c);
}

/* ---- types ---------------------------------------------------------------------------------- */

static double log_sum_exp(const float *x, size_t n)
{
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (size_t i = 0; i < n; i++)
        sum += exp(x[i] - max);
    return max + log(sum);
}

/* Mean KL(p || q) per position, nats. */
static double divergence(const float *p, const float *q, size_t rows, size_t n)
{
    double total = 0;
    for (size_t r = 0; r < rows; r++, p += n, q += n) {
        double a = log_sum_exp(p, n), b = log_sum_exp(q, n);
        for (size_t i = 0; i < n; i++)
            total += exp(p[i] - a) * ((p[i] - a) - (q[i] - b));
    }
    return total / (double)rows;
}

static void types_are_close_to_one_another(void **state)
{
    static const double most[] = {0, 1e-5, 2e-3};
    checkpoint m;
    open_model(&m, *state);
    marco_engine *engine = tiny_engine_open(m.folder, MARCO_COMPUTE_F32, 2);
    size_t n_vocab = (size_t)marco_engine_info(engine)->n_vocab;
    float *f32 = logits_after(engine, MARCO_KV_AUTO, 0, 0, 300);
    for (size_t t = 0; t < 3; t++) {
        float *logits = logits_after(engine, types[t], 0, 0, 300);
        double d = divergence(f32, logits, 300, n_vocab);
        print_message("KV type %d against F32: mean divergence %.1e\n", (int)types[t], d);
        assert_true(d <= most[t]);
        assert_true(t == 0 || memcmp(f32, logits, 300 * n_vocab * sizeof *f32) != 0);
        free(logits);
    }
    free(f32);
    marco_engine_close(engine);
    close_model(&m);
}

static void sizes_are_told_as_they_are(void **state)
{
    (void)state;
    static const uint64_t halves[] = {64, 32, 17}; /* of 32 numbers */
    checkpoint m;
    open_model(&m, "qwen3");
    for (int compute = 0; compute < 2; compute++) {
        marco_engine *engine = tiny_engine_open(m.folder, (marco_compute)compute, 1);
        const marco_model_info *info = marco_engine_info(engine);
        uint64_t rows = (uint64_t)(info->n_layers * 2 * info->n_kv_heads);
        assert_int_equal(info->head_dim, 32);
        for (size_t t = 0; t < 3; t++) {
            marco_session *s = session(engine, types[t], 0);
            assert_int_equal(marco_session_kv_bytes_per_token(s), rows * 2 * halves[t]);
            assert_int_equal(marco_session_kv_bytes(s), 0);
            assert_int_equal(marco_session_fill(s, PAGE + 1, 1, NULL), MARCO_OK);
            assert_int_equal(marco_session_kv_bytes(s), 2 * PAGE * rows * 2 * halves[t]);
            marco_session_close(s);
        }
        assert_int_equal(info->kv_bytes_per_token, rows * 2 * halves[compute ? 0 : 1]);
        marco_engine_close(engine);
    }
    close_model(&m);
}

static void types_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    checkpoint m;
    marco_error error = {0};
    marco_session *s;
    open_model(&m, "qwen3moe-256"); /* heads of 16 */
    marco_engine *engine = tiny_engine_open(m.folder, MARCO_COMPUTE_AUTO, 1);
    marco_session_params params = {.kv_type = MARCO_KV_Q8_0};
    assert_int_equal(marco_session_create(engine, &params, &s, &error), MARCO_ERROR_UNSUPPORTED);
    assert_null(s);
    assert_non_null(strstr(error.message, "multiple of 32, not 16"));
    params.kv_type = (marco_kv_type)77;
    assert_int_equal(marco_session_create(engine, &params, &s, &error), MARCO_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "77"));
    marco_engine_close(engine);
    close_model(&m);
}

/* ---- filling -------------------------------------------------------------------------------- */

/* Logits of one token after a context filled in two steps. */
static void fill_and_eval(marco_engine *engine, size_t a, size_t b, uint64_t seed, float *logits)
{
    const int32_t id = 3;
    size_t n, n_vocab = (size_t)marco_engine_info(engine)->n_vocab;
    marco_session *s = session(engine, MARCO_KV_AUTO, 0);
    assert_int_equal(marco_session_fill(s, a, seed, NULL), MARCO_OK);
    assert_int_equal(marco_session_fill(s, b, seed, NULL), MARCO_OK);
    assert_null(marco_session_logits(s));
    assert_int_equal(marco_session_tokens(s, &n)[a + b - 1], 0);
    assert_int_equal(n, a + b);
    assert_int_equal(marco_session_eval(s, &id, 1, NULL), MARCO_OK);
    memcpy(logits, marco_session_logits(s), n_vocab * sizeof *logits);
    for (size_t i = 0; i < n_vocab; i++)
        assert_true(isfinite(logits[i]));
    marco_session_close(s);
}

static void filling_depends_on_place_and_seed_alone(void **state)
{
    (void)state;
    static float a[1024], b[1024];
    checkpoint m;
    open_model(&m, "qwen3");
    marco_engine *engine = tiny_engine_open(m.folder, MARCO_COMPUTE_AUTO, 3);
    size_t bytes = (size_t)marco_engine_info(engine)->n_vocab * sizeof(float);
    fill_and_eval(engine, 100, 60, 1, a);
    fill_and_eval(engine, 1, 159, 1, b);
    assert_memory_equal(a, b, bytes);
    fill_and_eval(engine, 1, 159, 2, b);
    assert_memory_not_equal(a, b, bytes);

    marco_error error = {0};
    marco_session *s = session(engine, MARCO_KV_AUTO, 0);
    assert_int_equal(marco_session_fill(s, 4097, 1, &error), MARCO_ERROR_CONTEXT);
    assert_int_equal(marco_session_fill(s, 0, 1, &error), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_session_fill(NULL, 1, 1, &error), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_session_kv_bytes(s), 0);
    marco_session_close(s);
    marco_engine_close(engine);
    close_model(&m);
}

static void running_out_of_memory_loses_nothing(void **state)
{
    (void)state;
    const int32_t id = 3;
    checkpoint m;
    open_model(&m, "qwen3");
    marco_engine *engine = tiny_engine_open(m.folder, MARCO_COMPUTE_AUTO, 2);
    marco_session *s = session(engine, MARCO_KV_AUTO, 0);
    marco_status status = MARCO_ERROR_MEMORY;
    for (uint64_t at = 1; status; at++) {
        base_alloc_fail_at(at);
        status = marco_session_fill(s, SPAN, 1, NULL);
        base_alloc_fail_at(0);
        size_t n;
        marco_session_tokens(s, &n);
        assert_int_equal(n, status ? 0 : SPAN);
        assert_true(!status || status == MARCO_ERROR_MEMORY);
        assert_true(!status || marco_session_kv_bytes(s) == 0);
    }
    status = MARCO_ERROR_MEMORY;
    for (uint64_t at = 1; status; at++) { /* the first token past a span needs room of its own */
        base_alloc_fail_at(at);
        status = marco_session_eval(s, &id, 1, NULL);
        base_alloc_fail_at(0);
        assert_true(at < 100 && (!status || status == MARCO_ERROR_MEMORY));
    }
    marco_session_close(s);
    marco_engine_close(engine);
    close_model(&m);
}

int main(void)
{
#define SCHEDULE(name)                                                                             \
    {                                                                                              \
        "long " name, long_contexts_are_free_of_scheduling, NULL, NULL, name                       \
    }
    const struct CMUnitTest tests[] = {
        SCHEDULE("qwen3"),        /* 2 queries to a KV head */
        SCHEDULE("llama"),        /* 3, of 12 numbers */
        SCHEDULE("llama-llama3"), /* 4, one KV head */
        SCHEDULE("llama-linear"), /* 1 */
        cmocka_unit_test(spans_add_up),
        {"types qwen3", types_are_close_to_one_another, NULL, NULL, "qwen3"},
        cmocka_unit_test(sizes_are_told_as_they_are),
        cmocka_unit_test(types_that_do_not_fit_are_refused),
        cmocka_unit_test(filling_depends_on_place_and_seed_alone),
        cmocka_unit_test(running_out_of_memory_loses_nothing),
    };
    return cmocka_run_group_tests_name("attention", tests, NULL, NULL);
}
