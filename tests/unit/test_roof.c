/* What results are measured against: that the loops do the work they count, and that the counting
 * of a pass's operations agrees with counting by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/random.h"
#include "infer/internal.h"
#include "kernels/roof.h"
#include "marco/marco.h"
#include "model/operations.h"
#include "scratch.h"

/* ---- loops --------------------------------------------------------------------------------- */

static void reading_touches_every_word(void **state)
{
    (void)state;
    enum { WORDS = 4 * KERN_READ_UNIT / 8 };
    static uint64_t words[WORDS + 1];
    uint64_t all = 0;
    for (uint64_t i = 0; i < WORDS; i++)
        all ^= words[i] = base_random_u64(1, 2, i);
    words[WORDS] = 0x5555; /* past the end */
    for (int level = 0; kern_table_at(level); level++) {
        const kern_roof *roof = kern_roof_of(kern_table_at(level));
        for (int pattern = 0; pattern < KERN_READ_PATTERNS; pattern++)
            assert_true(roof->read[pattern](words, WORDS * sizeof *words) == all);
    }
}

static void products_are_as_many_as_counted(void **state)
{
    (void)state;
    int16_t a[KERN_ROOF_LANES], b[KERN_ROOF_LANES];
    float x[KERN_ROOF_LANES], y[KERN_ROOF_LANES];
    int64_t dot = 0;
    for (int i = 0; i < KERN_ROOF_LANES; i++) {
        a[i] = (int16_t)(i * 17 - 128);
        b[i] = (int16_t)(100 - i * i);
        dot += a[i] * b[i];
        x[i] = (float)(i + 1); /* small whole numbers: F32 sums are exact */
        y[i] = 1;
    }
    for (int level = 0; kern_table_at(level); level++) {
        const kern_roof *roof = kern_roof_of(kern_table_at(level));
        for (int64_t rounds = 0; rounds <= 2048; rounds = rounds * 8 + 1) {
            assert_true(roof->int8(a, b, rounds) == rounds * KERN_ROOF_PRODUCTS * dot);
            assert_true(roof->f32(x, y, rounds) == (float)(rounds * KERN_ROOF_PRODUCTS * 136));
        }
        /* The extremes: nothing overflows. */
        for (int i = 0; i < KERN_ROOF_LANES; i++)
            a[i] = b[i] = -128;
        assert_true(roof->int8(a, b, 2048) ==
                    (int64_t)2048 * KERN_ROOF_PRODUCTS * KERN_ROOF_LANES * 128 * 128);
        for (int i = 0; i < KERN_ROOF_LANES; i++) {
            a[i] = (int16_t)(i * 17 - 128);
            b[i] = (int16_t)(100 - i * i);
        }
    }
}

/* ---- counting ------------------------------------------------------------------------------ */

static model_matrix matrix(tensor_type type, int64_t mats, int64_t rows, int64_t cols)
{
    return (model_matrix){.type = type, .mats = mats, .rows = rows, .cols = cols};
}

/* Marco-Nano's shape, with these types of weights. */
static void make_nano(model_weights *w, model_layer *layers, tensor_type type)
{
    *w = (model_weights){.layers = layers};
    w->config.n_layers = 28;
    w->config.n_heads = 16;
    w->config.head_dim = 128;
    w->config.n_experts = 232;
    w->config.n_experts_used = 8;
    w->output = matrix(type, 1, 151936, 1024);
    for (int i = 0; i < 28; i++) {
        layers[i] = (model_layer){
            .q = matrix(type, 1, 2048, 1024),
            .k = matrix(type, 1, 1024, 1024),
            .v = matrix(type, 1, 1024, 1024),
            .out = matrix(type, 1, 1024, 2048),
            .router = matrix(TENSOR_F32, 1, 232, 1024),
            .expert_gate = matrix(type, 232, 384, 1024),
            .expert_up = matrix(type, 232, 384, 1024),
            .expert_down = matrix(type, 232, 1024, 384),
        };
    }
}

static void operations_agree_with_counting_by_hand(void **state)
{
    (void)state;
    static model_weights w;
    static model_layer layers[28];
    const kern_table *kernels = kern_table_get(NULL);
    make_nano(&w, layers, TENSOR_Q8_0);

    /* By hand, of one token: a layer's attention has 2 * 2048 * 1024 + 2 * 1024 * 1024 = 6291456
     * products, its experts 8 * 3 * 384 * 1024 = 9437184: 440401920 in 28 layers. The head has
     * 155582464, the routers 28 * 232 * 1024 = 6651904, attention 2 * 28 * 16 * 128 = 114688 for
     * each position seen. */
    marco_operations one = model_operations(&w, kernels, 0, 1);
    assert_true(one.int8 == 2 * (440401920.0 + 155582464.0));
    assert_true(one.f32 == 2 * (6651904.0 + 114688.0));

    /* 512 tokens see 512 * 513 / 2 = 131328 positions. */
    marco_operations prompt = model_operations(&w, kernels, 0, 512);
    assert_true(prompt.int8 == 2 * (512 * 440401920.0 + 155582464.0));
    assert_true(prompt.f32 == 2 * (512 * 6651904.0 + 131328 * 114688.0));

    /* Three tokens after 1000 see 1001 + 1002 + 1003. */
    marco_operations later = model_operations(&w, kernels, 1000, 3);
    assert_true(later.f32 == 2 * (3 * 6651904.0 + 3006 * 114688.0));

    /* The reference path, and float weights: all in F32. */
    marco_operations reference = model_operations(&w, NULL, 0, 512);
    assert_true(reference.int8 == 0 && reference.f32 == prompt.int8 + prompt.f32);
    make_nano(&w, layers, TENSOR_BF16);
    marco_operations floats = model_operations(&w, kernels, 0, 512);
    assert_true(floats.int8 == 0 && floats.f32 == prompt.int8 + prompt.f32);

    /* Block formats are multiplied as bytes, but for the two whose kernels decode them to F32. */
    const tensor_type types[] = {TENSOR_Q4_0, TENSOR_Q4_K, TENSOR_Q6_K, TENSOR_IQ4_XS};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        make_nano(&w, layers, types[i]);
        assert_true(model_operations(&w, kernels, 0, 512).int8 == prompt.int8);
    }
    make_nano(&w, layers, TENSOR_Q2_K);
    assert_true(model_operations(&w, kernels, 0, 512).int8 == 0);
    make_nano(&w, layers, TENSOR_Q3_K);
    assert_true(model_operations(&w, kernels, 0, 512).f32 == prompt.int8 + prompt.f32);
}

/* ---- an engine's --------------------------------------------------------------------------- */

static scratch place;
static marco_engine *engine;

static int set_up(void **state)
{
    (void)state;
    marco_synth_params synth = marco_synth_params_default();
    marco_engine_params params = marco_engine_params_default();
    params.threads = 2;
    if (!scratch_create(&place))
        return -1;
    const char *model = scratch_path(&place, "tiny.gguf");
    return marco_synth("tiny-qwen3moe", model, &synth, NULL) ||
           marco_engine_open(model, &params, &engine, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    marco_engine_close(engine);
    scratch_remove(&place);
    return 0;
}

static void an_engine_has_a_roof(void **state)
{
    (void)state;
    marco_roof roof;
    marco_error error = {0};
    assert_int_equal(marco_engine_roof(engine, &roof, &error), MARCO_OK);
    assert_true(roof.memory_gb_s > 0.01 && roof.memory_gb_s < 1e5);
    assert_true(roof.int8_gops > 0.01 && roof.int8_gops < 1e7);
    assert_true(roof.f32_gflops > 0.01 && roof.f32_gflops < 1e7);
    assert_true(roof.memory_bytes >= (uint64_t)60 << 20); /* the model itself is a tiny one */
    assert_true(strlen(roof.memory_pattern) > 0);
    assert_int_equal(marco_engine_roof(NULL, &roof, &error), MARCO_ERROR_ARGUMENT);
    assert_int_equal(marco_engine_roof(engine, NULL, &error), MARCO_ERROR_ARGUMENT);
    assert_true(marco_engine_operations(engine, 0, 2).int8 > 0);
}

static void the_buffer_keeps_to_a_budget(void **state)
{
    (void)state;
    const model_plan unbound = engine->plan;
    marco_roof roof;
    engine->plan.budget = 1; /* which number does not matter */
    engine->plan.room = (uint64_t)70 << 20;
    assert_int_equal(marco_engine_roof(engine, &roof, NULL), MARCO_OK);
    assert_in_range(roof.memory_bytes, (uint64_t)60 << 20, engine->plan.room);
    engine->plan.room = (uint64_t)10 << 20; /* the weights, then, though they are few */
    assert_int_equal(marco_engine_roof(engine, &roof, NULL), MARCO_OK);
    assert_in_range(roof.memory_bytes, 1, engine->weights->bytes);
    assert_int_equal(engine->taken, 0);
    engine->plan = unbound;
}

static void measuring_survives_every_failed_allocation(void **state)
{
    (void)state;
    marco_status status = MARCO_ERROR_MEMORY;
    marco_roof roof;
    uint64_t n = 0;
    while (status && ++n < 100) {
        marco_error error = {0};
        base_alloc_fail_at(n);
        status = marco_engine_roof(engine, &roof, &error);
        base_alloc_fail_at(0);
        assert_true(status == MARCO_OK ||
                    (status == MARCO_ERROR_MEMORY && strlen(error.message) > 0));
    }
    assert_true(status == MARCO_OK && n > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading_touches_every_word),
        cmocka_unit_test(products_are_as_many_as_counted),
        cmocka_unit_test(operations_agree_with_counting_by_hand),
        cmocka_unit_test(an_engine_has_a_roof),
        cmocka_unit_test(the_buffer_keeps_to_a_budget),
        cmocka_unit_test(measuring_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
