/* Quantising checkpoints: the types that tensors get, overrides, importance, refusals. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/memory.h"
#include "format/imatrix.h"
#include "memory_source.h"
#include "model/recipe.h"
#include "scratch.h"

static marco_error error;

/* ---- recipes ------------------------------------------------------------------------------- */

/* A shape to ask about: 16 layers, 4 queries to a key, heads apart from the embedding. */
static model_config shape(int32_t n_experts)
{
    model_config c = memory_config(n_experts ? MODEL_QWEN3MOE : MODEL_LLAMA);
    c.n_layers = 16;
    c.n_heads = 8;
    c.n_kv_heads = 2;
    c.n_experts = n_experts;
    return c;
}

static tensor_type ask(const char *recipe, const model_config *c, model_role role, int32_t layer,
                       bool important)
{
    const model_tensor t = {role, layer, TENSOR_F32, 1, 256, 256};
    return model_recipe_type(model_recipe_find(recipe), c, &t, important);
}

static void recipes_are_llama_cpp_s(void **state)
{
    (void)state;
    /* 16 layers: 0, 1, 14, 15, and 4, 7, 10, 13 between have more bits. */
    static const bool more[16] = {1, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 1, 1};
    model_config c = shape(16);
    for (int32_t layer = 0; layer < 16; layer++) {
        tensor_type q4 = more[layer] ? TENSOR_Q6_K : TENSOR_Q4_K;
        tensor_type q5 = more[layer] ? TENSOR_Q6_K : TENSOR_Q5_K;
        tensor_type iq4 = layer < 2 ? TENSOR_Q5_K : TENSOR_IQ4_XS;
        assert_int_equal(ask("Q4_K_M", &c, MODEL_EXPERT_DOWN, layer, false), q4);
        assert_int_equal(ask("Q4_K_M", &c, MODEL_ATTN_V, layer, true), q4);
        assert_int_equal(ask("q5_k_m", &c, MODEL_FFN_DOWN, layer, false), q5);
        assert_int_equal(ask("Q4_K_M", &c, MODEL_EXPERT_UP, layer, false), TENSOR_Q4_K);
        assert_int_equal(ask("Q4_K", &c, MODEL_EXPERT_DOWN, layer, false), TENSOR_Q4_K);
        assert_int_equal(ask("IQ4_XS", &c, MODEL_EXPERT_DOWN, layer, false), iq4);
        assert_int_equal(ask("IQ4_XS", &c, MODEL_EXPERT_DOWN, layer, true), TENSOR_IQ4_XS);
        assert_int_equal(ask("IQ4_XS", &c, MODEL_ATTN_V, layer, true), TENSOR_Q5_K);
        assert_int_equal(ask("Q4_0", &c, MODEL_EXPERT_DOWN, layer, true),
                         layer < 2 ? TENSOR_Q4_1 : TENSOR_Q4_0);
        assert_int_equal(ask("Q4_0", &c, MODEL_EXPERT_DOWN, layer, false), TENSOR_Q4_0);
    }
    c.n_kv_heads = 4;
    assert_int_equal(ask("IQ4_XS", &c, MODEL_ATTN_V, 0, true), TENSOR_IQ4_XS);
}

static void heads_and_eight_experts(void **state)
{
    (void)state;
    model_config c = shape(8);
    c.tied = false;
    assert_int_equal(ask("Q4_0", &c, MODEL_OUTPUT, -1, false), TENSOR_Q6_K);
    assert_int_equal(ask("Q4_0", &c, MODEL_TOKEN_EMBD, -1, false), TENSOR_Q4_0);
    assert_int_equal(ask("Q8_0", &c, MODEL_OUTPUT, -1, false), TENSOR_Q8_0);
    assert_int_equal(ask("BF16", &c, MODEL_OUTPUT, -1, false), TENSOR_BF16);
    c.tied = true;
    assert_int_equal(ask("IQ4_XS", &c, MODEL_TOKEN_EMBD, -1, false), TENSOR_Q6_K);
    assert_int_equal(ask("Q4_K_M", &c, MODEL_ATTN_V, 3, false), TENSOR_Q8_0);
    assert_int_equal(ask("Q4_K_M", &c, MODEL_ATTN_K, 3, false), TENSOR_Q8_0);
    assert_int_equal(ask("Q4_K_M", &c, MODEL_ATTN_OUT, 3, false), TENSOR_Q5_K);
    assert_int_equal(ask("Q5_K_M", &c, MODEL_ATTN_OUT, 3, false), TENSOR_Q5_K);
    assert_int_equal(ask("Q4_0", &c, MODEL_ATTN_OUT, 3, false), TENSOR_Q4_0);
}

static void rows_that_do_not_divide(void **state)
{
    (void)state;
    static const tensor_type cases[][4] = {
        /* of 512, 384 and 40 columns */
        {TENSOR_Q4_K, TENSOR_Q4_K, TENSOR_Q5_0, TENSOR_F16},
        {TENSOR_Q5_K, TENSOR_Q5_K, TENSOR_Q5_1, TENSOR_F16},
        {TENSOR_Q6_K, TENSOR_Q6_K, TENSOR_Q8_0, TENSOR_F16},
        {TENSOR_IQ4_XS, TENSOR_IQ4_XS, TENSOR_IQ4_NL, TENSOR_F16},
        {TENSOR_Q8_0, TENSOR_Q8_0, TENSOR_Q8_0, TENSOR_F16},
        {TENSOR_BF16, TENSOR_BF16, TENSOR_BF16, TENSOR_BF16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(model_type_for_rows(cases[i][0], 512), cases[i][1]);
        assert_int_equal(model_type_for_rows(cases[i][0], 384), cases[i][2]);
        assert_int_equal(model_type_for_rows(cases[i][0], 40), cases[i][3]);
    }
    assert_null(model_recipe_find("Q2_K"));
    assert_null(model_recipe_find(""));
    assert_non_null(strstr(model_recipe_names(), "Q4_K_M"));
}

/* ---- files --------------------------------------------------------------------------------- */

/* Nano's kind: rows of 256 everywhere but those of 384 in the experts' down. */
static model_config nano(void)
{
    model_config c = memory_config(MODEL_QWEN3MOE);
    c.n_embd = 256;
    c.expert_dim = 384;
    c.n_experts = 3;
    return c;
}

/* The checkpoint to quantise, in F32 unless it is there. */
static const char *parent(scratch *s)
{
    const char *path = scratch_path(s, "parent.gguf");
    model_config c = nano();
    if (!base_exists(path))
        assert_int_equal(memory_write(&c, TENSOR_F32, -1, path, &error), MARCO_OK);
    return path;
}

static marco_status quantize(scratch *s, const char *to, marco_quantize_params params)
{
    error = (marco_error){0};
    params.overwrite = true;
    if (!params.threads)
        params.threads = 2;
    return marco_quantize(parent(s), scratch_path(s, to), &params, NULL, &error);
}

static void must_quantize(scratch *s, const char *to, marco_quantize_params params)
{
    if (quantize(s, to, params) != MARCO_OK)
        fail_msg("%s", error.message);
}

static tensor_type type_in(scratch *s, const char *file, const char *name)
{
    gguf *g = NULL;
    assert_int_equal(gguf_open(scratch_path(s, file), &g, &error), MARCO_OK);
    const gguf_tensor *t = gguf_tensor_find(g, name);
    assert_non_null(t);
    tensor_type type = t->type;
    gguf_close(g);
    return type;
}

static void a_file_gets_its_types(void **state)
{
    scratch *s = *state;
    marco_quantize_stats stats;
    marco_quantize_params params = {.type = "Q4_K_M"};
    const char *to = scratch_path(s, "q.gguf");
    assert_int_equal(marco_quantize(parent(s), to, &params, &stats, &error), MARCO_OK);
    assert_int_equal(type_in(s, "q.gguf", "blk.0.ffn_gate_exps.weight"), TENSOR_Q4_K);
    assert_int_equal(type_in(s, "q.gguf", "blk.0.ffn_down_exps.weight"), TENSOR_Q5_0);
    assert_int_equal(type_in(s, "q.gguf", "blk.1.ffn_down_exps.weight"), TENSOR_Q8_0);
    assert_int_equal(type_in(s, "q.gguf", "blk.1.attn_v.weight"), TENSOR_Q6_K);
    assert_int_equal(type_in(s, "q.gguf", "output.weight"), TENSOR_Q6_K);
    assert_int_equal(type_in(s, "q.gguf", "token_embd.weight"), TENSOR_Q4_K);
    assert_int_equal(type_in(s, "q.gguf", "blk.0.ffn_gate_inp.weight"), TENSOR_F32);
    assert_int_equal(type_in(s, "q.gguf", "blk.0.attn_q_norm.weight"), TENSOR_F32);
    assert_int_equal(stats.n_matrices, 16);
    assert_int_equal(stats.n_fallbacks, 4); /* down, and attn_output of 128 columns */

    gguf *g = NULL;
    model_source *source = NULL;
    int64_t number = 0;
    assert_int_equal(gguf_open(to, &g, &error), MARCO_OK);
    assert_int_equal(gguf_get_int(g, "general.file_type", 0, 99, &number, &error), MARCO_OK);
    assert_int_equal(number, 15);
    assert_int_equal(gguf_get_int(g, "general.quantization_version", 0, 99, &number, &error),
                     MARCO_OK);
    assert_int_equal(number, 2);
    gguf_close(g);
    assert_int_equal(model_source_open(to, &source, &error), MARCO_OK);
    assert_int_equal(model_source_bytes(source), stats.bytes_after);
    model_source_close(source);
    assert_int_equal(model_source_open(parent(s), &source, &error), MARCO_OK);
    assert_int_equal(model_source_bytes(source), stats.bytes_before);
    assert_int_equal(stats.n_weights * 4, stats.bytes_before);
    model_source_close(source);
}

static void threads_make_no_difference(void **state)
{
    scratch *s = *state;
    must_quantize(s, "1.gguf", (marco_quantize_params){.type = "IQ4_XS", .threads = 1});
    must_quantize(s, "3.gguf", (marco_quantize_params){.type = "IQ4_XS", .threads = 3});
    assert_true(scratch_same_file(scratch_path(s, "1.gguf"), scratch_path(s, "3.gguf")));
}

static void overrides_by_name(void **state)
{
    scratch *s = *state;
    const char *tensors[] = {"blk.*=Q4_0", "*_exps.weight=Q8_0", "blk.0.ffn_down_exps.weight=q6_K"};
    marco_quantize_params params = {.type = "Q5_K_M", .tensors = tensors, .n_tensors = 3};
    must_quantize(s, "q.gguf", params);
    assert_int_equal(type_in(s, "q.gguf", "blk.0.attn_q.weight"), TENSOR_Q4_0);
    assert_int_equal(type_in(s, "q.gguf", "blk.0.attn_norm.weight"), TENSOR_F32);
    assert_int_equal(type_in(s, "q.gguf", "blk.1.ffn_up_exps.weight"), TENSOR_Q8_0);
    assert_int_equal(type_in(s, "q.gguf", "blk.0.ffn_down_exps.weight"), TENSOR_Q8_0); /* of 384 */
    assert_int_equal(type_in(s, "q.gguf", "token_embd.weight"), TENSOR_Q5_K);

    static const char *const wrong[][2] = {
        {"blk.7.*=Q8_0", "matches no tensor"},
        {"*norm*=Q8_0", "norms and routers"},
        {"*=Q9_0", "Q9_0"},
        {"*=Q2_K", "Q2_K"},
        {"*=Q4_K_M", "Q4_K_M"},
        {"Q8_0", "PATTERN=TYPE"},
        {"=Q8_0", "PATTERN=TYPE"},
        {"", "PATTERN=TYPE"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        tensors[1] = wrong[i][0];
        assert_int_equal(quantize(s, "w.gguf", params), MARCO_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, wrong[i][1]));
        assert_false(base_exists(scratch_path(s, "w.gguf")));
    }
}

static void refusals(void **state)
{
    scratch *s = *state;
    marco_quantize_params params = {.type = "Q4_K_M"};
    assert_int_equal(quantize(s, "q.gguf", (marco_quantize_params){0}), MARCO_ERROR_ARGUMENT);
    assert_int_equal(quantize(s, "q.gguf", (marco_quantize_params){.type = "Q2_K"}),
                     MARCO_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "IQ4_XS"));
    assert_int_equal(quantize(s, "folder", params), MARCO_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, ".gguf"));

    /* From Q8_0 yes, from fewer bits only when told so. */
    const char *eight = scratch_path(s, "8.gguf"), *four = scratch_path(s, "4.gguf");
    must_quantize(s, "8.gguf", (marco_quantize_params){.type = "Q8_0"});
    assert_int_equal(marco_quantize(eight, four, &params, NULL, &error), MARCO_OK);
    params.overwrite = true;
    assert_int_equal(marco_quantize(four, eight, &params, NULL, &error), MARCO_OK);
    assert_true(scratch_same_file(eight, four)); /* the same types are copied as they are */
    params.type = "Q8_0";
    assert_int_equal(marco_quantize(four, eight, &params, NULL, &error), MARCO_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "--requantize"));
    params.requantize = true;
    assert_int_equal(marco_quantize(four, eight, &params, NULL, &error), MARCO_OK);
}

/* ---- importance ---------------------------------------------------------------------------- */

/* Entries for all matrices but the embedding. Of 32 columns the last 8 are important, of every
 * second expert's the first 8. */
static void write_imatrix(const char *path, int64_t extra, const char *other)
{
    model_tensor tensors[64];
    model_config c = nano();
    size_t n = model_config_tensors(&c, tensors, 64);
    imatrix m = {0};
    for (size_t i = 1; i < n; i++) {
        char name[128];
        const model_tensor *t = &tensors[i];
        if (model_role_is_vector(t->role))
            continue;
        model_tensor_gguf_name(t, name);
        imatrix_entry *entry = imatrix_add(&m, name, t->mats * (t->cols + extra), t->mats);
        assert_non_null(entry);
        for (int64_t k = 0; k < entry->n_values; k++) {
            int64_t mat = k / (t->cols + extra), at = k % (t->cols + extra) % 32;
            entry->sums[k] = (mat % 2 ? at < 8 : at >= 24) ? 1000 : 1;
        }
        for (int64_t mat = 0; mat < t->mats; mat++)
            entry->counts[mat] = 10;
    }
    if (other)
        assert_non_null(imatrix_add(&m, other, 4, 1));
    assert_int_equal(imatrix_write(path, true, &m, &error), MARCO_OK);
    imatrix_clear(&m);
}

/* Squared error of one expert's columns first .. first + n - 1. */
static double error_in(scratch *s, const char *file, int64_t mat, int64_t first, int64_t n)
{
    model_source *source = NULL;
    double sum = 0;
    assert_int_equal(model_source_open(scratch_path(s, file), &source, &error), MARCO_OK);
    int64_t index = model_source_find(source, MODEL_EXPERT_UP, 1);
    const model_tensor *t = &source->tensors[index];
    for (int64_t row = 0; row < t->rows; row++) {
        char bytes[1024];
        float got[256];
        assert_int_equal(source->read(source, (size_t)index, mat, row, 1, bytes, &error), MARCO_OK);
        tensor_traits_of(t->type)->decode(bytes, got, t->cols);
        for (int64_t i = first; i < first + n; i++)
            sum += pow((double)got[i] - (double)memory_value(t, mat, row * t->cols + i), 2);
    }
    model_source_close(source);
    return sum;
}

static void importance_goes_to_its_columns_and_experts(void **state)
{
    scratch *s = *state;
    must_quantize(s, "plain.gguf", (marco_quantize_params){.type = "Q4_K"});
    for (int form = 0; form < 2; form++) {
        const char *path = scratch_path(s, form ? "i.gguf" : "i.dat");
        marco_quantize_params params = {.type = "Q4_K", .imatrix = path, .overwrite = true};
        marco_quantize_stats stats;
        write_imatrix(path, 0, NULL);
        assert_int_equal(
            marco_quantize(parent(s), scratch_path(s, "i4.gguf"), &params, &stats, &error),
            MARCO_OK);
        assert_int_equal(stats.n_unimportant, 1); /* the embedding */
        for (int64_t mat = 0; mat < 3; mat++) {
            int64_t least = mat % 2 ? 24 : 0, most = mat % 2 ? 0 : 24;
            assert_true(error_in(s, "i4.gguf", mat, most, 8) <
                        0.9 * error_in(s, "plain.gguf", mat, most, 8));
            assert_true(error_in(s, "i4.gguf", mat, least, 8) >
                        1.1 * error_in(s, "plain.gguf", mat, least, 8));
        }
    }
}

static void importance_of_another_model_is_refused(void **state)
{
    scratch *s = *state;
    const char *path = scratch_path(s, "i.dat");
    marco_quantize_params params = {.type = "Q4_0", .imatrix = path};
    write_imatrix(path, 1, NULL);
    assert_int_equal(quantize(s, "q.gguf", params), MARCO_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "another model"));
    write_imatrix(path, 0, "blk.2.attn_q.weight");
    assert_int_equal(quantize(s, "q.gguf", params), MARCO_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "blk.2.attn_q.weight"));
    params.imatrix = scratch_path(s, "nowhere");
    assert_int_equal(quantize(s, "q.gguf", params), MARCO_ERROR_NOT_FOUND);
    assert_false(base_exists(scratch_path(s, "q.gguf")));
}

static void failing_memory_is_reported(void **state)
{
    scratch *s = *state;
    const char *from = parent(s), *to = scratch_path(s, "m.gguf"), *path = scratch_path(s, "i.dat");
    marco_quantize_params params = {.type = "Q8_0", .imatrix = path, .overwrite = true};
    marco_status status = MARCO_ERROR_MEMORY;
    params.threads = 1;
    write_imatrix(path, 0, NULL);
    uint64_t n = 1;
    /* Every request while files are opened and types chosen; later ones now and then. */
    for (; status == MARCO_ERROR_MEMORY; n += 1 + n / 64) {
        base_alloc_fail_at(n);
        status = marco_quantize(from, to, &params, NULL, &error);
        base_alloc_fail_at(0);
        assert_int_equal(base_exists(to), status == MARCO_OK);
    }
    assert_int_equal(status, MARCO_OK);
    assert_true(n > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recipes_are_llama_cpp_s),
        cmocka_unit_test(heads_and_eight_experts),
        cmocka_unit_test(rows_that_do_not_divide),
        SCRATCH_TEST(a_file_gets_its_types),
        SCRATCH_TEST(threads_make_no_difference),
        SCRATCH_TEST(overrides_by_name),
        SCRATCH_TEST(refusals),
        SCRATCH_TEST(importance_goes_to_its_columns_and_experts),
        SCRATCH_TEST(importance_of_another_model_is_refused),
        SCRATCH_TEST(failing_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
