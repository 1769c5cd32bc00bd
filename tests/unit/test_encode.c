/* The encoders that search for scales: how much error they leave, and what importance changes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "tensor/tensor.h"

enum { ROWS = 64, COLS = 1024, N = ROWS * COLS };

static float numbers[N], decoded[N], importance[COLS];
static uint8_t bytes[N];

/* Normal (Box-Muller); `heavy` divides by another's magnitude now and then, which makes outliers.
 */
static void fill(bool heavy)
{
    for (uint64_t i = 0; i < N; i++) {
        double a = 1 - base_random_unit(1, 0, i), b = base_random_unit(1, 1, i);
        double c = 1 - base_random_unit(1, 2, i), d = base_random_unit(1, 3, i);
        double normal = sqrt(-2 * log(a)) * cos(2 * M_PI * b);
        double other = sqrt(-2 * log(c)) * cos(2 * M_PI * d);
        numbers[i] = (float)(0.02 * normal / (heavy ? 0.3 + fabs(other) : 1));
    }
    for (uint64_t i = 0; i < COLS; i++)
        importance[i] = (float)exp(4 * base_random_unit(2, 0, i));
}

/* Root of the error's share of the squares, weighted by importance where `weighted`. */
static double error_of(const tensor_traits *traits, bool with_importance, bool weighted)
{
    size_t row_bytes = (size_t)(COLS / traits->block * traits->block_bytes);
    double error = 0, square = 0;
    for (int row = 0; row < ROWS; row++) {
        uint8_t *out = bytes + (size_t)row * row_bytes;
        if (with_importance)
            traits->encode_weighted(numbers + row * COLS, importance, out, COLS);
        else
            traits->encode(numbers + row * COLS, out, COLS);
        traits->decode(out, decoded + row * COLS, COLS);
    }
    for (int i = 0; i < N; i++) {
        double w = weighted ? (double)importance[i % COLS] : 1;
        error += w * pow((double)decoded[i] - (double)numbers[i], 2);
        square += w * pow((double)numbers[i], 2);
    }
    return sqrt(error / square);
}

typedef struct bound {
    tensor_type type;
    double normal, heavy; /* what llama.cpp's encoder leaves on the same numbers */
    double weighted_normal, weighted_heavy; /* the same with importance, weighted */
} bound;

static const bound bounds[] = {
    {TENSOR_Q4_0, 0.086197, 0.112176, 0.077821, 0.104224},
    {TENSOR_Q4_1, 0.078196, 0.095120, 0.064430, 0.078931},
    {TENSOR_Q5_0, 0.042738, 0.055892, 0.038574, 0.052010},
    {TENSOR_Q5_1, 0.037788, 0.045903, 0.030924, 0.038201},
    {TENSOR_Q4_K, 0.071391, 0.087672, 0.065405, 0.080593},
    {TENSOR_Q5_K, 0.036080, 0.044247, 0.033012, 0.041087},
    {TENSOR_Q6_K, 0.017848, 0.022528, 0.016297, 0.020880},
    {TENSOR_IQ4_NL, 0.076101, 0.090606, 0.070906, 0.084432},
    {TENSOR_IQ4_XS, 0.076666, 0.091401, 0.071707, 0.085383},
};

static void no_more_error_than_llama_cpp(void **state)
{
    (void)state;
    for (int heavy = 0; heavy < 2; heavy++) {
        fill(heavy);
        for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
            const bound *b = &bounds[i];
            const tensor_traits *traits = tensor_traits_of(b->type);
            double plain = error_of(traits, false, false), most = heavy ? b->heavy : b->normal;
            double weighted = error_of(traits, true, true);
            double most_weighted = heavy ? b->weighted_heavy : b->weighted_normal;
            if (!(plain <= most * 1.00001) || !(plain > most * 0.8))
                fail_msg("%s: error %.6f, not below %.6f", traits->name, plain, most);
            if (!(weighted <= most_weighted) || !(weighted > most_weighted * 0.8))
                fail_msg("%s: weighted error %.6f, not below %.6f", traits->name, weighted,
                         most_weighted);
        }
    }
}

static void importance_lowers_the_error_it_weighs(void **state)
{
    (void)state;
    fill(false);
    for (uint32_t type = 0; type < TENSOR_TYPE_END; type++) {
        const tensor_traits *traits = tensor_traits_of(type);
        if (!traits || !traits->encode_weighted)
            continue;
        double without = error_of(traits, false, true), with = error_of(traits, true, true);
        if (!(with < without * 0.985))
            fail_msg("%s: %.6f with importance, %.6f without", traits->name, with, without);
    }
}

/* Importance that is zero, or equal, throughout a group says nothing. */
static void silent_importance(void **state)
{
    (void)state;
    fill(true);
    memset(importance, 0, sizeof importance);
    for (uint32_t type = 0; type < TENSOR_TYPE_END; type++) {
        const tensor_traits *traits = tensor_traits_of(type);
        if (!traits || !traits->encode_weighted)
            continue;
        double without = error_of(traits, false, false), with = error_of(traits, true, false);
        if (traits->block == 256 || type == TENSOR_IQ4_NL)
            assert_true(with == without);
        else
            assert_true(with < without * 1.001);
    }
}

/* One column that matters alone is hit nearly exactly, whatever the others are. */
static void a_lone_important_column(void **state)
{
    (void)state;
    fill(false);
    memset(importance, 0, sizeof importance);
    for (int i = 5; i < COLS; i += 16)
        importance[i] = 1;
    for (uint32_t type = 0; type < TENSOR_TYPE_END; type++) {
        const tensor_traits *traits = tensor_traits_of(type);
        if (!traits || !traits->encode_weighted)
            continue;
        double without = error_of(traits, false, true), with = error_of(traits, true, true);
        if (!(with < without * 0.75))
            fail_msg("%s: %.6f with importance, %.6f without", traits->name, with, without);
    }
}

/* What a format can say exactly: zeros and constants. */
static void constants_are_exact_or_near(void **state)
{
    (void)state;
    for (uint32_t type = 0; type < TENSOR_TYPE_END; type++) {
        const tensor_traits *traits = tensor_traits_of(type);
        if (!traits || !traits->encode)
            continue;
        static const float constants[] = {0, 1, -1, 0.02f, -0.02f, 1e4f, -1e4f};
        for (size_t k = 0; k < sizeof constants / sizeof *constants; k++) {
            float in[256], out[256];
            for (int i = 0; i < 256; i++)
                in[i] = constants[k];
            traits->encode(in, bytes, 256);
            traits->decode(bytes, out, 256);
            for (int i = 0; i < 256; i++)
                if (!(fabsf(out[i] - in[i]) <= 0.01f * fabsf(in[i])))
                    fail_msg("%s: %g for %g", traits->name, (double)out[i], (double)in[i]);
        }
    }
}

/* A row's bytes do not depend on what else a call encodes. */
static void blocks_stand_alone(void **state)
{
    (void)state;
    static uint8_t alone[N];
    fill(true);
    for (uint32_t type = 0; type < TENSOR_TYPE_END; type++) {
        const tensor_traits *traits = tensor_traits_of(type);
        if (!traits || !traits->encode_weighted)
            continue;
        size_t size = (size_t)(COLS / 256 * (256 / traits->block) * traits->block_bytes);
        traits->encode_weighted(numbers, importance, bytes, COLS);
        for (int at = 0; at < COLS; at += 256)
            traits->encode_weighted(numbers + at, importance + at, alone + size * (size_t)at / COLS,
                                    256);
        assert_memory_equal(bytes, alone, size);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_more_error_than_llama_cpp),
        cmocka_unit_test(importance_lowers_the_error_it_weighs),
        cmocka_unit_test(silent_importance),
        cmocka_unit_test(a_lone_important_column),
        cmocka_unit_test(constants_are_exact_or_near),
        cmocka_unit_test(blocks_stand_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
