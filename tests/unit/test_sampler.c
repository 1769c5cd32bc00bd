/* Sampling: each rule against a hand-worked case, and the frequencies of what is drawn. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "marco/marco.h"

static const marco_sampling neutral = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};

static marco_sampler *sampler(marco_sampling sampling, int32_t n_vocab)
{
    marco_sampler *s = NULL;
    marco_error error = {0};
    if (marco_sampler_create(&sampling, n_vocab, &s, &error))
        fail_msg("%s", error.message);
    return s;
}

static int32_t pick(marco_sampler *s, const float *logits)
{
    int32_t id = -1;
    assert_int_equal(marco_sampler_pick(s, logits, &id, NULL), MARCO_OK);
    return id;
}

/* Draws n times and counts. */
static void count(marco_sampling sampling, const float *logits, int32_t n_vocab, int *counts, int n)
{
    marco_sampler *s = sampler(sampling, n_vocab);
    memset(counts, 0, (size_t)n_vocab * sizeof *counts);
    for (int i = 0; i < n; i++)
        counts[pick(s, logits)]++;
    marco_sampler_close(s);
}

static void greedy_takes_the_largest_and_the_lowest_id(void **state)
{
    (void)state;
    marco_sampling p = neutral;
    p.temperature = 0;
    marco_sampler *s = sampler(p, 5);
    assert_int_equal(pick(s, (float[]){1, 3, 2, 3, -1}), 1);
    assert_int_equal(pick(s, (float[]){-INFINITY, -5, -4, -INFINITY, -6}), 2);
    marco_sampler_close(s);
}

static void temperature_shapes_the_frequencies(void **state)
{
    (void)state;
    const float logits[] = {0, logf(2), logf(4), -INFINITY};
    int counts[4];
    const int n = 20000;
    count(neutral, logits, 4, counts, n); /* 1 : 2 : 4 */
    assert_true(abs(counts[0] - n / 7) < 300);
    assert_true(abs(counts[1] - 2 * n / 7) < 300);
    assert_true(abs(counts[2] - 4 * n / 7) < 300);
    assert_int_equal(counts[3], 0);
    marco_sampling half = neutral;
    half.temperature = 0.5f; /* 1 : 4 : 16 */
    count(half, logits, 4, counts, n);
    assert_true(abs(counts[0] - n / 21) < 200);
    assert_true(abs(counts[2] - 16 * n / 21) < 300);
}

static void truncation_keeps_what_its_rule_says(void **state)
{
    (void)state;
    /* probabilities 0.4, 0.3, 0.2, 0.1, out of order */
    const float logits[] = {logf(0.2f), logf(0.4f), logf(0.1f), logf(0.3f)};
    const struct {
        int32_t top_k;
        float top_p, min_p;
        int kept[4]; /* which ids may come */
    } cases[] = {
        {1, 1, 0, {0, 1, 0, 0}},     {2, 1, 0, {0, 1, 0, 1}},       {0, 0.39f, 0, {0, 1, 0, 0}},
        {0, 0.5f, 0, {0, 1, 0, 1}},  {0, 0.75f, 0, {1, 1, 0, 1}},   {0, 1, 0.6f, {0, 1, 0, 1}},
        {0, 1, 0.45f, {1, 1, 0, 1}}, {3, 0.5f, 0, {0, 1, 0, 1}},    {2, 0.56f, 0, {0, 1, 0, 0}},
        {9, 1, 0, {1, 1, 1, 1}},     {0, 0.9999f, 0, {1, 1, 1, 1}}, {0, 1, 0.2f, {1, 1, 1, 1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        marco_sampling p = neutral;
        int counts[4];
        p.top_k = cases[i].top_k;
        p.top_p = cases[i].top_p;
        p.min_p = cases[i].min_p;
        count(p, logits, 4, counts, 600);
        for (int id = 0; id < 4; id++)
            if ((counts[id] > 0) != cases[i].kept[id])
                fail_msg("case %zu: id %d came %d times", i, id, counts[id]);
    }
}

static void truncated_draws_keep_their_ratios(void **state)
{
    (void)state;
    const float logits[] = {logf(0.2f), logf(0.4f), logf(0.1f), logf(0.3f)};
    marco_sampling p = neutral;
    int counts[4];
    p.top_k = 2; /* 4 : 3 */
    count(p, logits, 4, counts, 14000);
    assert_true(abs(counts[1] - 8000) < 300);
}

static void penalties_follow_their_definitions(void **state)
{
    (void)state;
    marco_sampling p = neutral;
    p.temperature = 0;
    p.repetition_penalty = 2;
    marco_sampler *s = sampler(p, 3);
    assert_int_equal(pick(s, (float[]){4, 3, -1}), 0);
    marco_sampler_accept(s, 0, false); /* prompts count for this one: 4 / 2 < 3 */
    assert_int_equal(pick(s, (float[]){4, 3, -1}), 1);
    assert_int_equal(pick(s, (float[]){-1, -1.5f, -9}), 1); /* -1 * 2 < -1.5 */
    marco_sampler_close(s);

    p.repetition_penalty = 1;
    p.presence_penalty = 0.5f;
    p.frequency_penalty = 0.25f;
    s = sampler(p, 2);
    marco_sampler_accept(s, 0, false); /* but not for these */
    assert_int_equal(pick(s, (float[]){1.1f, 1}), 0);
    marco_sampler_accept(s, 0, true); /* 2 - 0.5 - 0.25 = 1.25 */
    assert_int_equal(pick(s, (float[]){2, 1.2f}), 0);
    assert_int_equal(pick(s, (float[]){2, 1.3f}), 1);
    marco_sampler_accept(s, 0, true); /* 2 - 0.5 - 0.5 = 1 */
    assert_int_equal(pick(s, (float[]){2, 1.1f}), 1);
    marco_sampler_close(s);
}

static void bias_adds_to_the_logit(void **state)
{
    (void)state;
    const marco_logit_bias bias[] = {{2, 5}, {0, -100}};
    marco_sampling p = neutral;
    p.temperature = 0;
    p.logit_bias = bias;
    p.n_logit_bias = 2;
    marco_sampler *s = sampler(p, 3);
    assert_int_equal(pick(s, (float[]){50, 4, 0}), 2);
    marco_sampler_close(s);
}

static void the_same_seed_draws_the_same(void **state)
{
    (void)state;
    float logits[100];
    int same = 0;
    for (int i = 0; i < 100; i++)
        logits[i] = (float)(i % 7) * 0.1f;
    marco_sampling p = neutral, other = neutral;
    p.top_p = 0.95f;
    other.top_p = 0.95f;
    other.seed = 1;
    marco_sampler *a = sampler(p, 100), *b = sampler(p, 100), *c = sampler(other, 100);
    for (int i = 0; i < 200; i++) {
        int32_t id = pick(a, logits);
        assert_int_equal(pick(b, logits), id);
        same += pick(c, logits) == id;
    }
    assert_true(same < 40);
    marco_sampler_close(a);
    marco_sampler_close(b);
    marco_sampler_close(c);
}

static void nonsense_is_refused_by_name(void **state)
{
    (void)state;
    const marco_logit_bias outside = {7, 1}, nan_bias = {0, NAN};
    const struct {
        marco_sampling p;
        const char *name;
    } cases[] = {
        {{.temperature = -1, .top_p = 1, .repetition_penalty = 1}, "temperature"},
        {{.temperature = NAN, .top_p = 1, .repetition_penalty = 1}, "temperature"},
        {{.top_k = -1, .top_p = 1, .repetition_penalty = 1}, "top-k"},
        {{.top_p = 0, .repetition_penalty = 1}, "top-p"},
        {{.top_p = 1.5f, .repetition_penalty = 1}, "top-p"},
        {{.top_p = 1, .min_p = -1, .repetition_penalty = 1}, "min-p"},
        {{.top_p = 1, .repetition_penalty = 0}, "repetition"},
        {{.top_p = 1, .repetition_penalty = 1, .presence_penalty = 3}, "presence"},
        {{.top_p = 1, .repetition_penalty = 1, .frequency_penalty = INFINITY}, "frequency"},
        {{.top_p = 1, .repetition_penalty = 1, .logit_bias = &outside, .n_logit_bias = 1}, "id 7"},
        {{.top_p = 1, .repetition_penalty = 1, .logit_bias = &nan_bias, .n_logit_bias = 1}, "bias"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        marco_sampler *s;
        marco_error error = {0};
        assert_int_equal(marco_sampler_create(&cases[i].p, 5, &s, &error), MARCO_ERROR_ARGUMENT);
        if (!strstr(error.message, cases[i].name))
            fail_msg("'%s' does not name %s", error.message, cases[i].name);
    }
    marco_sampler *s = sampler(neutral, 3);
    int32_t id;
    assert_int_equal(marco_sampler_pick(s, (float[]){0, NAN, 0}, &id, NULL), MARCO_ERROR_NUMERIC);
    assert_int_equal(marco_sampler_pick(s, (float[]){0, INFINITY, 0}, &id, NULL),
                     MARCO_ERROR_NUMERIC);
    assert_int_equal(marco_sampler_accept(s, 3, true), MARCO_ERROR_ARGUMENT);
    marco_sampler_close(s);
}

static void failed_allocations_are_reported(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 5; n++) {
        marco_sampler *s;
        base_alloc_fail_at(n);
        assert_int_equal(marco_sampler_create(&neutral, 10, &s, NULL), MARCO_ERROR_MEMORY);
        base_alloc_fail_at(0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_largest_and_the_lowest_id),
        cmocka_unit_test(temperature_shapes_the_frequencies),
        cmocka_unit_test(truncation_keeps_what_its_rule_says),
        cmocka_unit_test(truncated_draws_keep_their_ratios),
        cmocka_unit_test(penalties_follow_their_definitions),
        cmocka_unit_test(bias_adds_to_the_logit),
        cmocka_unit_test(the_same_seed_draws_the_same),
        cmocka_unit_test(nonsense_is_refused_by_name),
        cmocka_unit_test(failed_allocations_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
