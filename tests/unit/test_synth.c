/* Random numbers, the named shapes, and the files made of them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/memory.h"
#include "scratch.h"
#include "upcycle/shapes.h"
#include "upcycle/stream.h"
#include "upcycle/upcycle.h"

static void assert_close(double got, double wanted, double tolerance)
{
    if (!(fabs(got - wanted) <= tolerance))
        fail_msg("%.9g is not within %g of %.9g", got, tolerance, wanted);
}

/* ---- normal deviates ----------------------------------------------------------------------- */

enum { ROWS = 2000, COLS = 1024 };

static float *draw_rows(uint64_t seed, uint64_t stream)
{
    base_gaussian *g = NULL;
    assert_int_equal(base_gaussian_create(&g, NULL), MARCO_OK);
    float *x = base_alloc_array((size_t)ROWS * COLS, sizeof(*x));
    assert_non_null(x);
    for (int r = 0; r < ROWS; r++)
        base_gaussian_fill(g, seed, stream, upcycle_item(0, r), 0, 1, x + (size_t)r * COLS, COLS);
    base_gaussian_free(g);
    return x;
}

/* Bounds are five standard errors of each statistic. */
static void deviates_are_normal(void **state)
{
    (void)state;
    float *x = draw_rows(7, 1);
    const double n = (double)ROWS * COLS;
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, largest = 0;
    double beyond[4] = {0};
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++) {
        double v = x[i], a = fabs(v);
        m1 += v, m2 += v * v, m3 += v * v * v, m4 += v * v * v * v;
        for (int k = 1; k < 4; k++)
            beyond[k] += a > k;
        largest = a > largest ? a : largest;
    }
    assert_close(m1 / n, 0, 5 / sqrt(n));
    assert_close(m2 / n, 1, 5 * sqrt(2 / n));
    assert_close(m3 / n, 0, 5 * sqrt(15 / n));
    assert_close(m4 / n, 3, 5 * sqrt(96 / n) + 0.005); /* the table ends at 4.33 */
    for (int k = 1; k < 4; k++) {
        double p = erfc(k / sqrt(2));
        assert_close(beyond[k] / n, p, 5 * sqrt(p * (1 - p) / n) + 2e-5);
    }
    assert_true(largest > 4.2 && largest < 4.34);
    base_free(x);
}

static double correlation(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum / (double)n;
}

static void deviates_are_independent(void **state)
{
    (void)state;
    float *x = draw_rows(7, 1);
    float *other_seed = draw_rows(8, 1);
    float *other_stream = draw_rows(7, 2);
    size_t n = (size_t)(ROWS - 1) * COLS;
    double bound = 5 / sqrt((double)n);
    for (size_t lag = 1; lag <= 5; lag++)
        assert_close(correlation(x, x + lag, n), 0, bound);
    assert_close(correlation(x, x + COLS, n), 0, bound);
    assert_close(correlation(x, other_seed, n), 0, bound);
    assert_close(correlation(x, other_stream, n), 0, bound);
    base_free(x);
    base_free(other_seed);
    base_free(other_stream);
}

static void short_rows_begin_long_ones(void **state)
{
    (void)state;
    base_gaussian *g = NULL;
    assert_int_equal(base_gaussian_create(&g, NULL), MARCO_OK);
    float whole[64], part[64];
    base_gaussian_fill(g, 3, 4, 5, 1, 2, whole, 64);
    for (int n = 0; n <= 64; n++) {
        memset(part, 0, sizeof(part));
        base_gaussian_fill(g, 3, 4, 5, 1, 2, part, n);
        assert_memory_equal(part, whole, (size_t)n * sizeof(float));
        if (n < 64)
            assert_true(part[n] == 0);
    }
    base_gaussian_free(g);
}

/* Streams and items of all that a model draws differ from each other. */
static void keys_do_not_collide(void **state)
{
    (void)state;
    uint64_t seen[2 * MODEL_ROLE_END * 4];
    size_t n = 0;
    for (int purpose = UPCYCLE_WEIGHTS; purpose <= UPCYCLE_INDICES; purpose++)
        for (int role = 0; role < MODEL_ROLE_END; role++)
            for (int layer = -1; layer < 3; layer++)
                seen[n++] = upcycle_stream((upcycle_purpose)purpose, (model_role)role, layer);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            assert_true(seen[i] != seen[j]);
    assert_true(upcycle_item(0, 1) != upcycle_item(1, 0));
}

/* ---- shapes -------------------------------------------------------------------------------- */

static model_source *open_shape(const char *shape, marco_synth_params params)
{
    model_source *source = NULL;
    marco_error error = {0};
    if (upcycle_synth_source(shape, &params, &source, &error) != MARCO_OK)
        fail_msg("%s: %s", shape, error.message);
    return source;
}

static void shapes_are_listed_and_valid(void **state)
{
    (void)state;
    size_t n = 0;
    const char *description = NULL;
    for (const char *name; (name = marco_synth_shape(n, &description)); n++) {
        model_source *source = open_shape(name, marco_synth_params_default());
        marco_error error = {0};
        if (model_config_check(&source->config, name, &error) != MARCO_OK)
            fail_msg("%s", error.message);
        assert_true(strlen(description) > 10);
        assert_non_null(strstr(source->config.provenance, name));
        assert_non_null(strstr(source->config.provenance, "random weights"));
        model_source_close(source);
    }
    assert_true(n >= 9);
    assert_null(marco_synth_shape(n, NULL));
    assert_null(marco_synth_shape(SIZE_MAX, NULL));
}

/* The models' published sizes, in millions. */
static void sizes_are_the_models(void **state)
{
    (void)state;
    const struct {
        const char *shape;
        double total, active;
    } expected[] = {
        {"marco-mini", 17250, 868},     {"marco-nano", 8000, 603},      {"qwen3-0.6b", 596, 596},
        {"qwen3-30b-a3b", 30532, 3345}, {"smollm2-135m", 134.5, 134.5},
    };
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        model_source *s = open_shape(expected[i].shape, marco_synth_params_default());
        double total = (double)model_config_total_params(&s->config) * 1e-6;
        double active = (double)model_config_active_params(&s->config) * 1e-6;
        assert_close(total, expected[i].total, expected[i].total * 5e-3);
        assert_close(active, expected[i].active, expected[i].active * 5e-3);
        model_source_close(s);
    }
}

/* All rows of a matrix. */
static float *read_matrix(model_source *s, size_t index, int64_t mat)
{
    const model_tensor *t = &s->tensors[index];
    float *x = base_alloc_array((size_t)(t->rows * t->cols), sizeof(*x));
    assert_non_null(x);
    assert_int_equal(t->type, TENSOR_F32);
    assert_int_equal(s->read(s, index, mat, 0, t->rows, x, NULL), MARCO_OK);
    return x;
}

static void tensors_have_the_intended_spread(void **state)
{
    (void)state;
    model_source *s = open_shape("tiny-mixtral", marco_synth_params_default());
    size_t norms = 0;
    for (size_t i = 0; i < s->n_tensors; i++) {
        const model_tensor *t = &s->tensors[i];
        float *x = read_matrix(s, i, t->mats - 1);
        int64_t n = t->rows * t->cols;
        double squares = 0, ones = 0;
        for (int64_t k = 0; k < n; k++)
            squares += (double)x[k] * (double)x[k], ones += x[k] == 1;
        if (t->rows == 1) {
            assert_true(ones == (double)n);
            norms++;
        } else {
            double deviation = 0.64 / sqrt((double)t->cols);
            assert_close(sqrt(squares / (double)n) / deviation, 1, 5 / sqrt(2 * (double)n));
        }
        base_free(x);
    }
    assert_int_equal(norms, 1 + 2 * 2);
    model_source_close(s);
}

/* Rows do not depend on the window they are read in. */
static void windows_agree(void **state)
{
    (void)state;
    model_source *s = open_shape("tiny-qwen3moe", marco_synth_params_default());
    size_t index = (size_t)model_source_find(s, MODEL_EXPERT_UP, 1);
    const model_tensor *t = &s->tensors[index];
    float *whole = read_matrix(s, index, 5);
    float *part = base_alloc_array((size_t)(t->rows * t->cols), sizeof(*part));
    assert_non_null(part);
    for (int64_t row = 0; row < t->rows; row += 3) {
        int64_t n = t->rows - row < 3 ? t->rows - row : 3;
        assert_int_equal(s->read(s, index, 5, row, n, part, NULL), MARCO_OK);
        assert_memory_equal(part, whole + row * t->cols, (size_t)(n * t->cols) * sizeof(float));
    }
    base_free(part);
    base_free(whole);
    model_source_close(s);
}

static void matrices_differ(void **state)
{
    (void)state;
    model_source *s = open_shape("tiny-qwen3moe", marco_synth_params_default());
    marco_synth_params other = marco_synth_params_default();
    other.seed = 2;
    model_source *o = open_shape("tiny-qwen3moe", other);
    size_t up = (size_t)model_source_find(s, MODEL_EXPERT_UP, 1);
    float *x[] = {
        read_matrix(s, up, 0),
        read_matrix(s, up, 1),
        read_matrix(s, (size_t)model_source_find(s, MODEL_EXPERT_UP, 0), 0),
        read_matrix(s, (size_t)model_source_find(s, MODEL_EXPERT_GATE, 1), 0),
        read_matrix(o, up, 0),
    };
    enum { N = sizeof(x) / sizeof(x[0]) };
    for (int i = 0; i < N; i++)
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(x[i], x[j], 64 * sizeof(float));
    for (int i = 0; i < N; i++)
        base_free(x[i]);
    model_source_close(s);
    model_source_close(o);
}

static void byte_tokenizer_chats(void **state)
{
    (void)state;
    model_source *s = open_shape("tiny-llama", marco_synth_params_default());
    assert_non_null(s->tokenizer->chat_template);
    assert_int_equal(s->config.n_eos, 2); /* end of text, end of turn */
    assert_int_equal(s->config.eos[0] + s->config.eos[1], 256 + 258);
    model_source_close(s);
}

static void layers_can_be_fewer(void **state)
{
    (void)state;
    marco_synth_params params = marco_synth_params_default();
    params.layers = 2;
    model_source *s = open_shape("marco-mini", params);
    assert_int_equal(s->config.n_layers, 2);
    assert_true(model_source_find(s, MODEL_ROUTER, 1) >= 0);
    assert_int_equal(model_source_find(s, MODEL_ROUTER, 2), -1);
    model_source_close(s);
}

/* ---- errors -------------------------------------------------------------------------------- */

static void assert_refused(const char *shape, const char *to, const marco_synth_params *params,
                           const char *words)
{
    marco_error error = {0};
    assert_true(marco_synth(shape, to, params, &error) != MARCO_OK);
    if (!strstr(error.message, words))
        fail_msg("'%s' lacks '%s'", error.message, words);
    assert_null(strchr(error.message, '\n'));
}

static void bad_requests_are_refused(void **state)
{
    scratch *dir = *state;
    const char *to = scratch_path(dir, "refused.gguf");
    marco_synth_params p = marco_synth_params_default();
    assert_refused("marco-midi", to, &p, "marco-mini");
    assert_refused("marco-midi", to, &p, "marco-midi");
    p.layers = -1;
    assert_refused("tiny-llama", to, &p, "-1");
    p.layers = MODEL_MAX_LAYERS + 1;
    assert_refused("tiny-llama", to, &p, "1024");
    p = marco_synth_params_default();
    p.type = "Q9_9";
    assert_refused("tiny-llama", to, &p, "Q8_0");
    p.type = "Q2_K"; /* only read */
    assert_refused("tiny-llama", to, &p, "Q2_K");
    p = marco_synth_params_default();
    p.type = "Q8_0";
    assert_refused("tiny-llama", scratch_path(dir, "refused"), &p, "Q8_0");
    p = marco_synth_params_default();
    p.tokenizer = scratch_path(dir, "absent/tokenizer.json");
    assert_refused("tiny-llama", to, &p, "absent");
    p = marco_synth_params_default();
    p.threads = -2;
    assert_refused("tiny-llama", to, &p, "threads: -2 is not");
    p.threads = 1025;
    assert_refused("tiny-llama", to, &p, "threads: 1025 is not");
    assert_refused(NULL, to, NULL, "needs a shape");
    assert_refused("tiny-llama", NULL, NULL, "needs a shape");
    assert_false(base_exists(to));
    assert_int_equal(scratch_count(dir->folder), 0);
}

/* A GGUF file gives its tokenizer whatever it is called, as everywhere else. */
static void tokenizers_come_from_any_checkpoint(void **state)
{
    scratch *dir = *state;
    marco_synth_params p = marco_synth_params_default();
    marco_error error = {0};
    assert_int_equal(marco_synth("tiny-qwen3", scratch_path(dir, "m.gguf"), &p, NULL), MARCO_OK);
    assert_int_equal(rename(scratch_path(dir, "m.gguf"), scratch_path(dir, "blob")), 0);
    p.tokenizer = scratch_path(dir, "blob");
    if (marco_synth("tiny-qwen3", scratch_path(dir, "n.gguf"), &p, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    marco_tokenizer *tokenizer = NULL;
    assert_int_equal(marco_tokenizer_open(scratch_path(dir, "n.gguf"), &tokenizer, NULL), MARCO_OK);
    assert_int_equal(marco_tokenizer_find(tokenizer, "<|im_end|>"), 258);
    marco_tokenizer_close(tokenizer);
}

static void seed_0_is_the_default(void **state)
{
    (void)state;
    assert_true(marco_synth_params_default().seed == 0);
    assert_true(marco_upcycle_params_default().seed == 0);
}

static void bad_upcycle_arguments_are_refused(void **state)
{
    scratch *dir = *state;
    const char *from = scratch_path(dir, "p.gguf"), *to = scratch_path(dir, "m.gguf");
    marco_error error = {0};
    assert_int_equal(marco_synth("tiny-qwen3", from, NULL, NULL), MARCO_OK);
    marco_upcycle_params p = marco_upcycle_params_default();
    p.n_experts = 8;
    p.expert_dim = 64;
    p.top_k = 4;
    p.threads = -3;
    assert_int_equal(marco_upcycle(from, to, &p, &error), MARCO_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "threads: -3 is not"));
    assert_int_equal(marco_upcycle(NULL, to, &p, NULL), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_upcycle(from, NULL, &p, NULL), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_upcycle(from, to, NULL, NULL), MARCO_ERROR_ARGUMENT);
    assert_false(marco_upcycle_preset(NULL, "marco-mini"));
    assert_false(marco_upcycle_preset(&p, NULL));
    assert_int_equal(scratch_count(dir->folder), 1);
    p.threads = 1;
    assert_int_equal(marco_upcycle(from, to, &p, NULL), MARCO_OK);
}

static void big_tokenizers_are_refused(void **state)
{
    scratch *dir = *state;
    tok_spec *spec = NULL;
    assert_int_equal(tok_spec_bytes(&spec, NULL), MARCO_OK);
    spec->added[spec->n_added - 1].id = 512; /* the 513th */
    assert_int_equal(tok_spec_write_hf(spec, dir->folder, NULL), MARCO_OK);
    tok_spec_free(spec);
    marco_synth_params p = marco_synth_params_default();
    p.tokenizer = dir->folder;
    const char *to = scratch_path(dir, "out.gguf");
    assert_refused("tiny-llama", to, &p, "tiny-llama (512)");
    assert_refused("tiny-llama", to, &p, "513");
    assert_refused("tiny-llama", to, &p, dir->folder);
}

/* ---- files --------------------------------------------------------------------------------- */

static void make(const char *shape, const char *to, marco_synth_params params)
{
    marco_error error = {0};
    if (marco_synth(shape, to, &params, &error) != MARCO_OK)
        fail_msg("%s", error.message);
}

static void threads_do_not_change_bytes(void **state)
{
    scratch *dir = *state;
    marco_synth_params p = marco_synth_params_default();
    p.threads = 1;
    make("tiny-qwen3moe", scratch_path(dir, "1.gguf"), p);
    make("tiny-qwen3moe", scratch_path(dir, "f1"), p);
    for (p.threads = 2; p.threads <= 3; p.threads++) {
        p.overwrite = true;
        make("tiny-qwen3moe", scratch_path(dir, "n.gguf"), p);
        assert_true(scratch_same_file(scratch_path(dir, "1.gguf"), scratch_path(dir, "n.gguf")));
        make("tiny-qwen3moe", scratch_path(dir, "fn"), p);
        assert_true(scratch_same_folder(scratch_path(dir, "f1"), scratch_path(dir, "fn")));
    }
    p.seed = 2;
    make("tiny-qwen3moe", scratch_path(dir, "n.gguf"), p);
    assert_false(scratch_same_file(scratch_path(dir, "1.gguf"), scratch_path(dir, "n.gguf")));
}

/* What is read back is what was drawn; matrices have the default type, the rest is F32. */
static void files_hold_the_stream(void **state)
{
    scratch *dir = *state;
    for (size_t i = 0; upcycle_shape_at(i); i++) {
        const char *shape = upcycle_shape_at(i)->name;
        if (strncmp(shape, "tiny-", 5) != 0)
            continue;
        const char *path = scratch_path(dir, "model.gguf");
        marco_synth_params p = marco_synth_params_default();
        p.type = "F32";
        p.overwrite = true;
        make(shape, path, p);
        model_source *drawn = open_shape(shape, p), *file = NULL;
        marco_error error = {0};
        if (model_source_open(path, &file, &error) != MARCO_OK)
            fail_msg("%s", error.message);
        assert_string_equal(file->config.provenance, drawn->config.provenance);
        assert_int_equal(file->n_tensors, drawn->n_tensors);
        for (size_t t = 0; t < drawn->n_tensors; t++) {
            int64_t mat = drawn->tensors[t].mats - 1;
            float *a = read_matrix(drawn, t, mat), *b = read_matrix(file, t, mat);
            assert_memory_equal(
                a, b, (size_t)(drawn->tensors[t].rows * drawn->tensors[t].cols) * sizeof(float));
            base_free(a);
            base_free(b);
        }
        model_source_close(drawn);
        model_source_close(file);
    }
}

static void default_types(void **state)
{
    scratch *dir = *state;
    make("tiny-llama", scratch_path(dir, "m.gguf"), marco_synth_params_default());
    make("tiny-llama", scratch_path(dir, "m"), marco_synth_params_default());
    for (int folder = 0; folder < 2; folder++) {
        model_source *s = NULL;
        assert_int_equal(model_source_open(scratch_path(dir, folder ? "m" : "m.gguf"), &s, NULL),
                         MARCO_OK);
        for (size_t i = 0; i < s->n_tensors; i++) {
            if (!model_role_is_float(s->tensors[i].role))
                assert_int_equal(s->tensors[i].type, folder ? TENSOR_BF16 : TENSOR_Q8_0);
        }
        model_source_close(s);
    }
}

static void files_can_chat(void **state)
{
    scratch *dir = *state;
    make("tiny-llama", scratch_path(dir, "m.gguf"), marco_synth_params_default());
    make("tiny-llama", scratch_path(dir, "m"), marco_synth_params_default());
    for (int folder = 0; folder < 2; folder++) {
        marco_tokenizer *tokenizer = NULL;
        marco_error error = {0};
        if (marco_tokenizer_open(scratch_path(dir, folder ? "m" : "m.gguf"), &tokenizer, &error))
            fail_msg("%s", error.message);
        assert_non_null(marco_tokenizer_chat_template(tokenizer));
        assert_string_equal(marco_tokenizer_chat_template(tokenizer), "chatml");
        marco_tokenizer_close(tokenizer);
    }
}

static int cancel_at_third(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)what, (void)done, (void)total;
    return ++*(int *)user >= 3;
}

static void cancelling_leaves_nothing(void **state)
{
    scratch *dir = *state;
    for (int folder = 0; folder < 2; folder++) {
        int calls = 2;
        marco_synth_params p = marco_synth_params_default();
        p.progress = (marco_progress){cancel_at_third, &calls};
        const char *to = scratch_path(dir, folder ? "m" : "m.gguf");
        assert_int_equal(marco_synth("tiny-qwen3moe", to, &p, NULL), MARCO_ERROR_CANCELLED);
        assert_int_equal(scratch_count(dir->folder), 0);
    }
}

static void running_out_of_memory_leaves_nothing(void **state)
{
    scratch *dir = *state;
    marco_synth_params p = marco_synth_params_default();
    p.threads = 1;
    for (uint64_t n = 1;; n++) {
        marco_error error = {0};
        base_alloc_fail_at(n);
        marco_status status = marco_synth("tiny-mixtral", scratch_path(dir, "m.gguf"), &p, &error);
        base_alloc_fail_at(0);
        if (status == MARCO_OK)
            break;
        assert_int_equal(status, MARCO_ERROR_MEMORY);
        assert_true(error.message[0]);
        assert_int_equal(scratch_count(dir->folder), 0);
        assert_true(n < 100000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deviates_are_normal),
        cmocka_unit_test(deviates_are_independent),
        cmocka_unit_test(short_rows_begin_long_ones),
        cmocka_unit_test(keys_do_not_collide),
        cmocka_unit_test(shapes_are_listed_and_valid),
        cmocka_unit_test(sizes_are_the_models),
        cmocka_unit_test(tensors_have_the_intended_spread),
        cmocka_unit_test(windows_agree),
        cmocka_unit_test(matrices_differ),
        cmocka_unit_test(byte_tokenizer_chats),
        cmocka_unit_test(layers_can_be_fewer),
        SCRATCH_TEST(bad_requests_are_refused),
        SCRATCH_TEST(tokenizers_come_from_any_checkpoint),
        SCRATCH_TEST(big_tokenizers_are_refused),
        cmocka_unit_test(seed_0_is_the_default),
        SCRATCH_TEST(bad_upcycle_arguments_are_refused),
        SCRATCH_TEST(threads_do_not_change_bytes),
        SCRATCH_TEST(files_hold_the_stream),
        SCRATCH_TEST(default_types),
        SCRATCH_TEST(files_can_chat),
        SCRATCH_TEST(cancelling_leaves_nothing),
        SCRATCH_TEST(running_out_of_memory_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
