/* Engines and sessions: what they refuse, that they come to no harm, and that generation keeps its
 * rules. Weights are random: what the numbers should be is test_logits' business. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/memory.h"
#include "base/text.h"
#include "marco/marco.h"
#include "scratch.h"

static scratch place;
static char model[384];
static marco_engine *engine;

static void make_model(const char *path, const char *type)
{
    marco_synth_params params = marco_synth_params_default();
    marco_error error = {0};
    params.type = type;
    params.overwrite = true;
    if (marco_synth("tiny-qwen3moe", path, &params, &error))
        fail_msg("%s", error.message);
}

static int set_up(void **state)
{
    (void)state;
    if (!scratch_create(&place))
        return -1;
    strcpy(model, scratch_path(&place, "tiny.gguf"));
    make_model(model, "Q8_0");
    marco_engine_params params = marco_engine_params_default();
    params.threads = 2;
    return marco_engine_open(model, &params, &engine, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    marco_engine_close(engine);
    scratch_remove(&place);
    return 0;
}

static marco_session *session(int32_t n_ctx)
{
    marco_session_params params = marco_session_params_default();
    marco_session *s = NULL;
    params.n_ctx = n_ctx;
    assert_int_equal(marco_session_create(engine, &params, &s, NULL), MARCO_OK);
    return s;
}

static size_t length(const marco_session *s)
{
    size_t n;
    marco_session_tokens(s, &n);
    return n;
}

/* ---- sessions ------------------------------------------------------------------------------ */

static void refused_ids_leave_the_session_as_it_was(void **state)
{
    (void)state;
    marco_error error = {0};
    marco_session *s = session(8);
    int32_t n_vocab = marco_engine_info(engine)->n_vocab;
    const int32_t good[] = {1, 2, 3}, unknown[] = {1, n_vocab}, negative[] = {-1};
    const int32_t many[6] = {0};
    assert_null(marco_session_logits(s));
    assert_int_equal(marco_session_eval(s, good, 0, &error), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_session_eval(s, good, 3, &error), MARCO_OK);
    assert_int_equal(marco_session_eval(s, unknown, 2, &error), MARCO_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "position 4"));
    assert_int_equal(marco_session_eval(s, negative, 1, &error), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_session_eval(s, many, 6, &error), MARCO_ERROR_CONTEXT);
    assert_non_null(strstr(error.message, "larger context"));
    assert_int_equal(length(s), 3);
    assert_non_null(marco_session_logits(s));
    assert_int_equal(marco_session_eval(s, many, 5, &error), MARCO_OK);
    assert_int_equal(marco_session_eval(s, many, 1, &error), MARCO_ERROR_CONTEXT);
    marco_session_close(s);
}

static void a_session_may_be_fed_its_own_tokens(void **state)
{
    (void)state;
    marco_session *s = session(0);
    const int32_t ids[] = {9, 8, 7};
    size_t n;
    assert_int_equal(marco_session_eval(s, ids, 3, NULL), MARCO_OK);
    for (int round = 0; round < 5; round++) {
        const int32_t *own = marco_session_tokens(s, &n);
        assert_int_equal(marco_session_eval(s, own, n, NULL), MARCO_OK);
    }
    const int32_t *all = marco_session_tokens(s, &n);
    assert_int_equal(n, 96);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(all[i], ids[i % 3]);
    marco_session_close(s);
}

static int use_another(void *user, int64_t position, const float *logits)
{
    (void)logits;
    const int32_t id = (int32_t)position;
    return marco_session_eval(user, &id, 1, NULL) != MARCO_OK;
}

static void a_callback_may_use_another_session(void **state)
{
    (void)state;
    marco_session *a = session(0), *b = session(0);
    const int32_t ids[] = {1, 2, 3, 4};
    assert_int_equal(marco_session_eval_each(a, ids, 4, use_another, b, NULL), MARCO_OK);
    assert_int_equal(length(b), 4);
    marco_session_close(a);
    marco_session_close(b);
}

static void null_arguments_are_refused(void **state)
{
    (void)state;
    marco_session *s = session(0);
    marco_sampler *sampler;
    const int32_t id = 1;
    marco_engine *nothing;
    assert_int_equal(marco_engine_open(NULL, NULL, &nothing, NULL), MARCO_ERROR_ARGUMENT);
    marco_session *none;
    assert_int_equal(marco_session_create(NULL, NULL, &none, NULL), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_session_eval(NULL, &id, 1, NULL), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_session_eval(s, NULL, 1, NULL), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_session_eval_each(s, &id, 1, NULL, NULL, NULL), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_session_eval_each(NULL, &id, 1, use_another, NULL, NULL),
                     MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_session_generate(s, &id, 1, NULL, NULL, NULL), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_sampler_create(NULL, 5, &sampler, NULL), MARCO_ERROR_ARGUMENT);
    marco_session_close(s);
}

static void truncation_forgets_and_nothing_else(void **state)
{
    (void)state;
    size_t n_vocab = (size_t)marco_engine_info(engine)->n_vocab;
    int32_t ids[200];
    float *expected = base_alloc_array(n_vocab, sizeof *expected);
    for (int i = 0; i < 200; i++)
        ids[i] = i * 7 % 256;
    marco_session *s = session(0);
    assert_int_equal(marco_session_eval(s, ids, 130, NULL), MARCO_OK);
    memcpy(expected, marco_session_logits(s), n_vocab * sizeof *expected);
    uint64_t kv = marco_session_kv_bytes(s);
    assert_int_equal(marco_session_eval(s, ids + 130, 70, NULL), MARCO_OK);
    assert_true(marco_session_kv_bytes(s) > kv);
    assert_int_equal(marco_session_truncate(s, 201), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_session_truncate(s, 60), MARCO_OK);
    assert_null(marco_session_logits(s));
    assert_true(marco_session_kv_bytes(s) < kv);
    assert_int_equal(marco_session_eval(s, ids + 60, 70, NULL), MARCO_OK);
    assert_memory_equal(expected, marco_session_logits(s), n_vocab * sizeof *expected);
    assert_int_equal(marco_session_kv_bytes(s), kv);
    base_free(expected);
    marco_session_close(s);
}

static void parameters_out_of_range_are_refused(void **state)
{
    (void)state;
    marco_session *s;
    marco_error error = {0};
    const marco_session_params bad[] = {{.n_ctx = -1}, {.n_ctx = 1 << 30}, {.chunk = -5}};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(marco_session_create(engine, &bad[i], &s, &error), MARCO_ERROR_ARGUMENT);
    marco_engine *e;
    const marco_engine_params threads[] = {{.threads = -1}, {.threads = 10000}};
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(marco_engine_open(model, &threads[i], &e, &error), MARCO_ERROR_ARGUMENT);
    const marco_engine_params template = {.chat_template = "no such template"};
    assert_int_equal(marco_engine_open(model, &template, &e, &error), MARCO_ERROR_UNSUPPORTED);
    assert_int_equal(marco_engine_open("no-such-file.gguf", NULL, &e, &error),
                     MARCO_ERROR_NOT_FOUND);
}

static int stop_after_some(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)what, (void)total;
    return done >= *(uint64_t *)user;
}

static void a_long_prompt_can_be_cancelled(void **state)
{
    (void)state;
    uint64_t limit = 20;
    int32_t ids[100] = {0};
    marco_session_params params = {.chunk = 10, .progress = {stop_after_some, &limit}};
    marco_session *s;
    assert_int_equal(marco_session_create(engine, &params, &s, NULL), MARCO_OK);
    assert_int_equal(marco_session_eval(s, ids, 100, NULL), MARCO_ERROR_CANCELLED);
    assert_int_equal(length(s), 0);
    assert_int_equal(marco_session_kv_bytes(s), 0);
    marco_session_close(s);
}

static void loading_can_be_cancelled(void **state)
{
    (void)state;
    uint64_t limit = 1000;
    marco_engine *e;
    marco_engine_params params = {.progress = {stop_after_some, &limit}};
    assert_int_equal(marco_engine_open(model, &params, &e, NULL), MARCO_ERROR_CANCELLED);
}

/* Two sessions of one engine, used from two threads, give what each gives alone. */
typedef struct worker {
    int32_t seed;
    float sum;
} worker;

static void *evaluate(void *user)
{
    worker *w = user;
    marco_session *s = session(0);
    int32_t n_vocab = marco_engine_info(engine)->n_vocab;
    w->sum = 0;
    for (int32_t i = 0; i < 20; i++) {
        const int32_t ids[3] = {(w->seed + i) % 256, (w->seed * i) % 256, i};
        if (marco_session_eval(s, ids, 3, NULL))
            break;
        for (int32_t j = 0; j < n_vocab; j++)
            w->sum += marco_session_logits(s)[j] * (float)(j % 13);
    }
    marco_session_close(s);
    return NULL;
}

static void sessions_share_an_engine(void **state)
{
    (void)state;
    worker alone[2] = {{3, 0}, {50, 0}}, together[2] = {{3, 0}, {50, 0}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        evaluate(&alone[i]);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, evaluate, &together[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_true(alone[0].sum != alone[1].sum);
    for (int i = 0; i < 2; i++)
        assert_memory_equal(&alone[i].sum, &together[i].sum, sizeof(float));
}

/* ---- generation ---------------------------------------------------------------------------- */

static int collect(void *user, const char *text, size_t size)
{
    base_text_add_n(user, text, size);
    return 0;
}

/* The reply to a fixed prompt. */
static char *reply(marco_generation g, int32_t n_ctx, marco_generation_stats *stats)
{
    const int32_t prompt[] = {72, 101, 108, 108, 111};
    base_text text = {0};
    marco_session *s = session(n_ctx);
    marco_error error = {0};
    g.on_text = collect;
    g.user = &text;
    if (marco_session_generate(s, prompt, 5, &g, stats, &error))
        fail_msg("%s", error.message);
    marco_session_close(s);
    return base_text_take(&text, NULL);
}

static marco_generation plain(int32_t max_tokens)
{
    marco_generation g = marco_generation_default(engine);
    g.max_tokens = max_tokens;
    g.ignore_eos = true;
    g.sampling.temperature = 1;
    g.sampling.seed = 5;
    return g;
}

static void generation_ends_where_it_is_told(void **state)
{
    (void)state;
    marco_generation_stats stats;
    char *text = reply(plain(40), 0, &stats);
    assert_int_equal(stats.n_prompt, 5);
    assert_int_equal(stats.n_reply, 40);
    assert_int_equal(stats.n_decoded, 39);
    assert_int_equal(stats.finish, MARCO_FINISH_LENGTH);
    assert_int_equal(base_utf8_check(text, strlen(text)), strlen(text));
    base_free(text);
    text = reply(plain(-1), 20, &stats); /* 5 + 15 in the context, and one more sampled */
    assert_int_equal(stats.n_reply, 16);
    assert_int_equal(stats.finish, MARCO_FINISH_LENGTH);
    base_free(text);
    text = reply(plain(0), 0, &stats);
    assert_int_equal(stats.n_reply, 0);
    assert_string_equal(text, "");
    base_free(text);
}

static void stop_strings_end_the_reply_before_them(void **state)
{
    (void)state;
    marco_generation_stats stats;
    marco_generation g = plain(60);
    char *whole = reply(g, 0, &stats);
    size_t size = strlen(whole);
    assert_true(size > 30);
    /* Each stretch of the reply as a stop string: what comes is what is before its first place. */
    for (size_t at = 3; at + 6 < size; at += 5) {
        for (size_t n = 1; n <= 6; n += 2) {
            char *stop = base_strndup(whole + at, n);
            const char *stops[] = {"never in it, surely", stop};
            if (base_utf8_check(stop, n) == n) {
                g.stop = stops;
                g.n_stop = 2;
                char *cut = reply(g, 0, &stats);
                assert_int_equal(strlen(cut), strstr(whole, stop) - whole);
                assert_memory_equal(cut, whole, strlen(cut));
                assert_int_equal(stats.finish, MARCO_FINISH_STOP);
                base_free(cut);
            }
            base_free(stop);
        }
    }
    base_free(whole);
}

static void an_end_token_ends_the_reply(void **state)
{
    (void)state;
    int32_t end = marco_tokenizer_find(marco_engine_tokenizer(engine), "<|im_end|>");
    assert_true(end >= 0);
    const marco_logit_bias bias = {end, 1000};
    marco_generation_stats stats;
    marco_generation g = plain(10);
    g.sampling.logit_bias = &bias;
    g.sampling.n_logit_bias = 1;
    g.ignore_eos = false;
    char *text = reply(g, 0, &stats);
    assert_string_equal(text, "");
    assert_int_equal(stats.finish, MARCO_FINISH_STOP);
    assert_int_equal(stats.n_reply, 1);
    base_free(text);
    g.ignore_eos = true;
    g.special = true;
    text = reply(g, 0, &stats);
    assert_int_equal(stats.n_reply, 10);
    assert_memory_equal(text, "<|im_end|><|im_end|>", 20);
    base_free(text);
}

static int stop_at_once(void *user, const char *text, size_t size)
{
    (void)text, (void)size;
    ++*(int *)user;
    return 1;
}

static void generation_can_be_cancelled_and_refuses_nonsense(void **state)
{
    (void)state;
    const int32_t prompt[] = {65};
    const char *empty[] = {""};
    int calls = 0;
    marco_generation_stats stats;
    marco_session *s = session(0);
    marco_generation g = plain(50);
    assert_int_equal(marco_session_generate(s, prompt, 0, &g, NULL, NULL), MARCO_ERROR_ARGUMENT);
    g.on_text = stop_at_once;
    g.user = &calls;
    assert_int_equal(marco_session_generate(s, prompt, 1, &g, &stats, NULL), MARCO_OK);
    assert_int_equal(stats.finish, MARCO_FINISH_CANCELLED);
    assert_int_equal(calls, 1);
    g.stop = empty;
    g.n_stop = 1;
    assert_int_equal(marco_session_generate(s, prompt, 1, &g, NULL, NULL), MARCO_ERROR_ARGUMENT);
    g.n_stop = 0;
    g.sampling.top_p = 7;
    assert_int_equal(marco_session_generate(s, prompt, 1, &g, NULL, NULL), MARCO_ERROR_ARGUMENT);
    marco_session_close(s);
}

/* ---- damage -------------------------------------------------------------------------------- */

static void weights_that_are_not_numbers_are_named(void **state)
{
    (void)state;
    const char *path = scratch_path(&place, "damaged.gguf");
    const float nan = __builtin_nanf("");
    const int32_t ids[] = {1, 2};
    marco_error error = {0};
    marco_engine *e = NULL;
    marco_session *s = NULL;
    make_model(path, "F32");
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    /* The last tensors are the last layer's experts; each token uses some of them. */
    for (long at = 64; at <= 1 << 16; at += 64) {
        fseek(file, -at, SEEK_END);
        fwrite(&nan, sizeof nan, 1, file);
    }
    fclose(file);
    marco_status status = marco_engine_open(path, NULL, &e, &error);
    if (!status) {
        assert_int_equal(marco_session_create(e, NULL, &s, &error), MARCO_OK);
        status = marco_session_eval(s, ids, 2, &error);
        assert_int_equal(length(s), 0);
    }
    assert_int_equal(status, MARCO_ERROR_NUMERIC);
    assert_non_null(strstr(error.message, "damaged.gguf"));
    marco_session_close(s);
    marco_engine_close(e);
}

static void a_shortened_file_is_refused(void **state)
{
    (void)state;
    const char *path = scratch_path(&place, "short.gguf");
    marco_error error = {0};
    marco_engine *e;
    struct stat st;
    make_model(path, "Q8_0");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 1000), 0);
    assert_int_equal(marco_engine_open(path, NULL, &e, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "short.gguf"));
}

/* Loads, generates, and returns the first failure. */
static marco_status load_and_generate(const char *path)
{
    const int32_t ids[] = {5, 6, 7};
    marco_engine *e = NULL;
    marco_session *s = NULL;
    marco_engine_params params = {.threads = 2};
    marco_error error;
    marco_status status = marco_engine_open(path, &params, &e, &error);
    if (!status)
        status = marco_session_create(e, NULL, &s, &error);
    if (!status) {
        marco_generation g = marco_generation_default(e);
        g.max_tokens = 3;
        g.ignore_eos = true;
        status = marco_session_generate(s, ids, 3, &g, NULL, &error);
    }
    marco_session_close(s);
    marco_engine_close(e);
    if (status)
        assert_int_equal(status, error.status);
    return status;
}

/* Every allocation in turn is the one that fails: the call says so, and releases what it holds
 * (LeakSanitizer looks in the sanitizer build). */
static void survive_every_failed_allocation(const char *path, bool json)
{
    uint64_t n = 1;
    for (;; n++) {
        base_alloc_fail_at(n);
        marco_status status = load_and_generate(path);
        base_alloc_fail_at(0);
        if (!status)
            break;
        if (status != MARCO_ERROR_MEMORY && !(json && status == MARCO_ERROR_FORMAT))
            fail_msg("allocation %llu: %s", (unsigned long long)n, marco_status_name(status));
    }
    assert_true(n > 100);
}

static void a_file_survives_every_failed_allocation(void **state)
{
    (void)state;
    survive_every_failed_allocation(model, false);
}

/* jansson allocates for a folder's JSON, through the same hook here. It does not always tell want
 * of memory from a fault in the text. */
static void a_folder_survives_every_failed_allocation(void **state)
{
    (void)state;
    char folder[384];
    strcpy(folder, scratch_path(&place, "tiny"));
    make_model(folder, "BF16");
    json_set_alloc_funcs(base_alloc, base_free);
    survive_every_failed_allocation(folder, true);
    json_set_alloc_funcs(malloc, free);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_ids_leave_the_session_as_it_was),
        cmocka_unit_test(a_session_may_be_fed_its_own_tokens),
        cmocka_unit_test(a_callback_may_use_another_session),
        cmocka_unit_test(null_arguments_are_refused),
        cmocka_unit_test(truncation_forgets_and_nothing_else),
        cmocka_unit_test(parameters_out_of_range_are_refused),
        cmocka_unit_test(a_long_prompt_can_be_cancelled),
        cmocka_unit_test(loading_can_be_cancelled),
        cmocka_unit_test(sessions_share_an_engine),
        cmocka_unit_test(generation_ends_where_it_is_told),
        cmocka_unit_test(stop_strings_end_the_reply_before_them),
        cmocka_unit_test(an_end_token_ends_the_reply),
        cmocka_unit_test(generation_can_be_cancelled_and_refuses_nonsense),
        cmocka_unit_test(weights_that_are_not_numbers_are_named),
        cmocka_unit_test(a_shortened_file_is_refused),
        cmocka_unit_test(a_file_survives_every_failed_allocation),
        cmocka_unit_test(a_folder_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
