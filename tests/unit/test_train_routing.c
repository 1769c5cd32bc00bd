/* The router: which experts are chosen and with what weight, masks, counts, the bias. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "experts_fixture.h"

static const experts_shape shape = {.embd = 16, .width = 4, .experts = 24, .used = 4, .n = 200};

static const float *probs_of(const experts_fixture *f, int64_t t)
{
    return f->saved.probs + t * f->shape.experts;
}

static bool is_masked(const experts_fixture *f, int64_t t, int32_t e)
{
    return probs_of(f, t)[e] == 0;
}

/* How many experts would be chosen before e. */
static int32_t rank_of(const experts_fixture *f, int64_t t, int32_t e, const float *bias)
{
    const float *p = probs_of(f, t);
    int32_t rank = 0;
    float own = p[e] + bias[e];
    for (int32_t i = 0; i < f->shape.experts; i++)
        rank += !is_masked(f, t, i) && (p[i] + bias[i] > own || (p[i] + bias[i] == own && i < e));
    return rank;
}

static void assert_choice(const experts_fixture *f, const float *bias)
{
    const experts_shape *s = &f->shape;
    for (int64_t t = 0; t < s->n; t++) {
        const int32_t *chosen = f->saved.chosen + t * s->used;
        const float *weight = f->saved.weight + t * s->used, *p = probs_of(f, t);
        double sum = 0;
        for (int32_t k = 0; k < s->used; k++)
            sum += p[chosen[k]];
        for (int32_t k = 0; k < s->used; k++) {
            assert_false(is_masked(f, t, chosen[k]));
            assert_int_equal(rank_of(f, t, chosen[k], bias), k);
            double expected = p[chosen[k]] / (s->as_they_are ? 1 : sum);
            assert_true(fabs(weight[k] - expected) <= 1e-6 * expected);
        }
    }
}

static void the_likeliest_are_chosen(void **state)
{
    (void)state;
    static const float zeros[24] = {0};
    for (int as_they_are = 0; as_they_are <= 1; as_they_are++) {
        experts_fixture f;
        experts_shape s = shape;
        s.as_they_are = as_they_are;
        experts_open(&f, &s);
        experts_forward(&f);
        assert_choice(&f, zeros);
        experts_close(&f);
    }
}

static void the_lower_index_wins_a_tie(void **state)
{
    (void)state;
    experts_fixture f;
    experts_open(&f, &shape);
    const train_param *router = train_params_find(f.params, MODEL_ROUTER, 0);
    float *w = (float *)f.params->sections[TRAIN_SHARED].value + router->offset;
    memset(w, 0, (size_t)train_param_size(router) * sizeof *w);
    experts_forward(&f);
    for (int64_t j = 0; j < shape.n * shape.used; j++)
        assert_int_equal(f.saved.chosen[j], j % shape.used);
    experts_close(&f);
}

static void a_bias_moves_the_choice_alone(void **state)
{
    (void)state;
    static const float zeros[24] = {0};
    experts_fixture f;
    experts_open(&f, &shape);
    f.routing.balance = TRAIN_BALANCE_BIAS;
    f.stats.bias[7] = 0.2f;
    f.stats.bias[8] = -1;
    experts_forward(&f);
    assert_choice(&f, f.stats.bias);
    assert_int_equal(f.stats.load[8], 0);
    /* Of no other kind, and not outside of training. */
    f.routing.balance = TRAIN_BALANCE_SWITCH;
    experts_forward(&f);
    assert_choice(&f, zeros);
    f.routing.balance = TRAIN_BALANCE_BIAS;
    f.pass.training = false;
    experts_forward(&f);
    assert_choice(&f, zeros);
    experts_close(&f);
}

/* ---- masks ---------------------------------------------------------------------------------- */

static void copy_masks(const experts_fixture *f, bool *masks)
{
    for (int64_t t = 0; t < shape.n; t++)
        for (int32_t e = 0; e < shape.experts; e++)
            *masks++ = is_masked(f, t, e);
}

/* Masks of one pass [n, experts]. */
static void draw(experts_fixture *f, int32_t layer, uint64_t pass, bool *masks)
{
    f->layer = layer;
    f->pass.pass = pass;
    experts_forward(f);
    copy_masks(f, masks);
}

static void masks_are_drawn_as_asked(void **state)
{
    (void)state;
    static const float zeros[24] = {0};
    size_t size = (size_t)(shape.n * shape.experts);
    bool *a = malloc(size), *b = malloc(size);
    assert_true(a && b);
    for (int i = 0; i < 4; i++) {
        bool paths = i / 2, per_token = i % 2;
        experts_fixture f;
        experts_open(&f, &shape);
        f.routing.dropout = paths ? TRAIN_DROP_PATHS : TRAIN_DROP_EXPERTS;
        f.routing.dropout_per_token = per_token;
        f.pass.dropout_rate = 0.3;
        draw(&f, 0, 11, a);
        assert_choice(&f, zeros);
        /* Tokens alike, or not. */
        assert_int_equal(memcmp(a, a + shape.experts, (size_t)shape.experts) != 0, per_token);
        /* Layers alike, or not. */
        draw(&f, 1, 11, b);
        assert_int_equal(memcmp(a, b, size) == 0, paths);
        /* The same pass once more, as recomputation does it; another pass; another seed. */
        marco_error error;
        f.layer = 0;
        assert_int_equal(experts_try_forward(&f, true, &error), MARCO_OK);
        copy_masks(&f, b);
        assert_memory_equal(a, b, size);
        draw(&f, 0, 12, b);
        assert_memory_not_equal(a, b, size);
        f.pass.seed = 1;
        draw(&f, 0, 11, b);
        assert_memory_not_equal(a, b, size);
        f.pass.training = false;
        draw(&f, 0, 11, b);
        assert_null(memchr(b, true, size));
        experts_close(&f);
    }
    free(a);
    free(b);
}

static void masks_have_their_rate(void **state)
{
    (void)state;
    static const double rates[] = {0.05, 0.3, 0.6};
    bool *masks = malloc((size_t)(shape.n * shape.experts));
    assert_non_null(masks);
    experts_fixture f;
    experts_open(&f, &shape);
    f.routing.dropout = TRAIN_DROP_EXPERTS;
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        for (int per_token = 0; per_token <= 1; per_token++) {
            int64_t passes = per_token ? 3 : 600, tokens = per_token ? shape.n : 1, masked = 0;
            f.routing.dropout_per_token = per_token;
            f.pass.dropout_rate = rates[i];
            for (int64_t pass = 0; pass < passes; pass++) {
                draw(&f, 0, (uint64_t)pass, masks);
                for (int64_t j = 0; j < tokens * shape.experts; j++)
                    masked += masks[j];
            }
            double draws = (double)(passes * tokens * shape.experts);
            double deviation = sqrt(rates[i] * (1 - rates[i]) / draws);
            assert_true(fabs((double)masked / draws - rates[i]) <= 4 * deviation);
        }
    }
    experts_close(&f);
    free(masks);
}

static void enough_experts_stay(void **state)
{
    (void)state;
    static const float zeros[24] = {0};
    experts_fixture f;
    experts_open(&f, &shape);
    f.routing.dropout = TRAIN_DROP_PATHS;
    f.pass.dropout_rate = 0.97;
    int64_t most = 0;
    for (int per_token = 0; per_token <= 1; per_token++) {
        f.routing.dropout_per_token = per_token;
        experts_forward(&f);
        assert_choice(&f, zeros);
        for (int64_t t = 0; t < shape.n; t++) {
            int64_t masked = 0;
            for (int32_t e = 0; e < shape.experts; e++)
                masked += is_masked(&f, t, e);
            assert_true(masked <= shape.experts - shape.used);
            most = masked > most ? masked : most;
        }
    }
    assert_int_equal(most, shape.experts - shape.used);
    experts_close(&f);
}

/* ---- counts --------------------------------------------------------------------------------- */

static void a_pass_is_counted_once(void **state)
{
    (void)state;
    experts_fixture f;
    marco_error error;
    experts_open(&f, &shape);
    f.routing = (train_routing){.balance = TRAIN_BALANCE_SWITCH, .coefficient = 1, .z_loss = 1};
    for (int pass = 1; pass <= 2; pass++) {
        experts_forward(&f);
        assert_int_equal(experts_try_forward(&f, true, &error), MARCO_OK);
        experts_back(&f);
        f.pass.training = false;
        experts_forward(&f);
        f.pass.training = true;
        int64_t load = 0;
        for (int32_t e = 0; e < shape.experts; e++) {
            load += f.stats.load[e];
            assert_int_equal(f.stats.seen[e], f.stats.load[e]);
        }
        assert_int_equal(load, pass * shape.n * shape.used);
        assert_int_equal(f.stats.tokens, pass * shape.n);
        assert_int_equal(f.stats.passes, pass);
        /* A router that spreads its tokens over all experts alike has a loss of c. */
        assert_true(f.stats.balance >= 0.99 * pass && f.stats.balance < 2.0 * pass);
        assert_true(f.stats.entropy > 0 &&
                    f.stats.entropy < log(shape.experts) * (double)(pass * shape.n));
        assert_true(f.stats.z > 0);
    }
    experts_close(&f);
}

static void a_step_moves_the_bias_by_signs(void **state)
{
    (void)state;
    int64_t load[4] = {1, 1, 1, 1}, seen[4] = {10, 0, 6, 4}; /* the mean is 5 */
    float bias[4] = {0, 1, 0, 0};
    train_routing_stats stats = {.tokens = 5,
                                 .load = load,
                                 .seen = seen,
                                 .entropy = 1,
                                 .balance = 1,
                                 .z = 1,
                                 .passes = 1,
                                 .bias = bias};
    train_routing routing = {.balance = TRAIN_BALANCE_BIAS, .bias_rate = 0.25};
    train_experts_step(&routing, 4, &stats);
    assert_true(bias[0] == -0.25f && bias[1] == 1.25f && bias[2] == -0.25f && bias[3] == 0.25f);
    for (int e = 0; e < 4; e++)
        assert_true(load[e] == 0 && seen[e] == 0);
    assert_true(stats.tokens == 0 && stats.passes == 0 && stats.entropy == 0 &&
                stats.balance == 0 && stats.z == 0);
    /* As many everywhere: nothing to do. */
    seen[0] = seen[1] = seen[2] = seen[3] = 7;
    train_experts_step(&routing, 4, &stats);
    assert_true(bias[0] == -0.25f && bias[1] == 1.25f);
    /* Another kind has no use for it. */
    seen[0] = 9;
    routing.balance = TRAIN_BALANCE_GLOBAL;
    train_experts_step(&routing, 4, &stats);
    assert_true(bias[0] == -0.25f);
}

/* ---- padding --------------------------------------------------------------------------------- */

static void back_from(experts_fixture *f, const float *d)
{
    marco_error error;
    for (int s = 0; s < TRAIN_SECTION_END; s++)
        memset(f->params->sections[s].grad, 0,
               (size_t)f->params->sections[s].graded * sizeof(float));
    memcpy(f->d, d, (size_t)(f->shape.n * f->shape.embd) * sizeof *d);
    if (train_experts_back(&f->ctx, f->layer, &f->tokens, &f->routing, &f->pass, f->x, &f->saved,
                           f->work, &f->stats, f->d, &error))
        fail_msg("%s", error.message);
}

static void assert_all_near(const float *a, const float *b, int64_t n)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(b[i]));
    for (int64_t i = 0; i < n; i++)
        assert_true(fabsf(a[i] - b[i]) <= 1e-5f * most);
}

static void assert_near(double a, double b)
{
    assert_true(fabs(a - b) <= 1e-5 * fabs(b));
}

/* Sequences with padding against their tokens alone. */
static void compare_padded(const experts_fixture *padded, const experts_fixture *packed)
{
    const train_routing_stats *a = &padded->stats, *b = &packed->stats;
    size_t row = (size_t)packed->shape.embd;
    int64_t at = 0;
    for (int64_t t = 0; t < padded->shape.n; t++) {
        const float *out = padded->out + t * row, *d = padded->d + t * row;
        if (t % padded->tokens.seq_len < padded->tokens.lengths[t / padded->tokens.seq_len]) {
            assert_all_near(out, packed->out + at * row, (int64_t)row);
            assert_all_near(d, packed->d + at++ * row, (int64_t)row);
            continue;
        }
        /* It goes by. */
        assert_memory_equal(out, padded->x + t * row, row * sizeof *out);
        for (size_t i = 0; i < row; i++)
            assert_true(d[i] == 3);
    }
    assert_int_equal(a->tokens, at);
    assert_int_equal(a->tokens, b->tokens);
    assert_memory_equal(a->load, b->load, (size_t)shape.experts * sizeof *a->load);
    assert_memory_equal(a->seen, b->seen, (size_t)shape.experts * sizeof *a->seen);
    assert_near(a->entropy, b->entropy);
    assert_near(a->balance, b->balance);
    assert_near(a->z, b->z);
    for (int s = 0; s < TRAIN_SECTION_END; s++)
        assert_all_near(padded->params->sections[s].grad, packed->params->sections[s].grad,
                        packed->params->sections[s].graded);
}

static void padding_is_no_token(void **state)
{
    (void)state;
    enum { SEQS = 4, LENGTH = 50, REAL = 50 + 13 + 0 + 37 };
    static const int32_t lengths[SEQS] = {50, 13, 0, 37};
    for (train_balance_kind kind = TRAIN_BALANCE_NONE; kind <= TRAIN_BALANCE_BIAS; kind++) {
        experts_fixture padded, packed;
        experts_shape s = shape;
        experts_open(&padded, &s);
        s.n = REAL;
        experts_open(&packed, &s);
        padded.tokens = (train_tokens){
            .n_seqs = SEQS, .seq_len = LENGTH, .n = SEQS * LENGTH, .lengths = lengths};
        padded.routing = packed.routing =
            (train_routing){.balance = kind, .coefficient = 2, .z_loss = 0.3};
        float *d = calloc((size_t)(SEQS * LENGTH * s.embd), sizeof *d);
        assert_non_null(d);
        int64_t at = 0, row = s.embd;
        experts_gradient_of_out(&packed, packed.d);
        for (int64_t i = 0; i < SEQS * LENGTH; i++) {
            bool real = i % LENGTH < lengths[i / LENGTH];
            for (int64_t j = 0; j < row; j++) {
                d[i * row + j] = real ? packed.d[at * row + j] : 3;
                padded.x[i * row + j] = real ? packed.x[at * row + j] : 0.5f;
            }
            at += real;
        }
        experts_forward(&padded);
        experts_forward(&packed);
        back_from(&padded, d);
        experts_back(&packed);
        compare_padded(&padded, &packed);
        free(d);
        experts_close(&padded);
        experts_close(&packed);
    }
}

static void a_pass_may_be_nothing_but_padding(void **state)
{
    (void)state;
    static const int32_t none[1] = {0};
    for (train_balance_kind kind = TRAIN_BALANCE_NONE; kind <= TRAIN_BALANCE_BIAS; kind++) {
        experts_fixture f;
        experts_open(&f, &shape);
        f.tokens.lengths = none;
        f.routing = (train_routing){.balance = kind, .coefficient = 2, .z_loss = 0.3};
        experts_forward(&f);
        experts_back(&f);
        assert_memory_equal(f.out, f.x, (size_t)(shape.n * shape.embd) * sizeof *f.x);
        experts_gradient_of_out(&f, f.out);
        assert_memory_equal(f.d, f.out, (size_t)(shape.n * shape.embd) * sizeof *f.x);
        assert_int_equal(f.stats.tokens, 0);
        assert_true(f.stats.entropy == 0 && f.stats.balance == 0 && f.stats.z == 0);
        for (int s = 0; s < TRAIN_SECTION_END; s++)
            for (int64_t i = 0; i < f.params->sections[s].graded; i++)
                assert_true(f.params->sections[s].grad[i] == 0);
        experts_close(&f);
    }
}

/* ---- what goes wrong ------------------------------------------------------------------------- */

static void numbers_that_are_none_do_no_harm(void **state)
{
    (void)state;
    experts_fixture f;
    experts_open(&f, &shape);
    f.routing = (train_routing){.dropout = TRAIN_DROP_EXPERTS, .balance = TRAIN_BALANCE_BIAS};
    f.pass.dropout_rate = 0.3;
    f.stats.bias[3] = NAN;
    f.x[5 * shape.embd] = NAN;
    f.x[6 * shape.embd] = INFINITY;
    experts_forward(&f);
    for (int64_t t = 0; t < shape.n; t++) {
        bool seen[24] = {false};
        for (int32_t k = 0; k < shape.used; k++) {
            int32_t e = f.saved.chosen[t * shape.used + k];
            assert_true(e >= 0 && e < shape.experts && !seen[e]);
            seen[e] = true;
        }
    }
    assert_true(isnan(f.out[5 * shape.embd]));
    assert_false(isnan(f.out[7 * shape.embd]));
    experts_back(&f);
    experts_close(&f);
}

/* A bias can outdo any probability, even of experts that have none in F32. */
static void what_is_chosen_may_have_no_probability(void **state)
{
    (void)state;
    experts_fixture f;
    experts_shape s = shape;
    s.router = 1000;
    experts_open(&f, &s);
    f.routing = (train_routing){.balance = TRAIN_BALANCE_BIAS};
    for (int32_t e = 0; e < s.used; e++)
        f.stats.bias[e] = 1000;
    experts_forward(&f);
    int64_t vanished = 0;
    for (int64_t t = 0; t < s.n; t++) {
        const float *p = probs_of(&f, t), *weight = f.saved.weight + t * s.used;
        float sum = 0, weights = 0;
        for (int32_t k = 0; k < s.used; k++) {
            assert_in_range(f.saved.chosen[t * s.used + k], 0, s.used - 1);
            sum += p[k];
            weights += weight[k];
        }
        vanished += sum == 0;
        assert_true(fabsf(weights - 1) < 1e-5f);
    }
    assert_true(vanished > s.n / 2);
    experts_back(&f);
    for (int64_t i = 0; i < s.n * s.embd; i++)
        assert_true(isfinite(f.out[i]) && isfinite(f.d[i]));
    experts_close(&f);
}

static void one_process_asks_for_no_memory(void **state)
{
    (void)state;
    experts_fixture f;
    experts_open(&f, &shape);
    base_alloc_fail_at(1);
    experts_forward(&f);
    experts_back(&f);
    assert_int_equal(base_alloc_fail_at(0), 0);
    experts_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_likeliest_are_chosen),
        cmocka_unit_test(the_lower_index_wins_a_tie),
        cmocka_unit_test(a_bias_moves_the_choice_alone),
        cmocka_unit_test(masks_are_drawn_as_asked),
        cmocka_unit_test(masks_have_their_rate),
        cmocka_unit_test(enough_experts_stay),
        cmocka_unit_test(a_pass_is_counted_once),
        cmocka_unit_test(a_step_moves_the_bias_by_signs),
        cmocka_unit_test(numbers_that_are_none_do_no_harm),
        cmocka_unit_test(what_is_chosen_may_have_no_probability),
        cmocka_unit_test(one_process_asks_for_no_memory),
        cmocka_unit_test(padding_is_no_token),
        cmocka_unit_test(a_pass_may_be_nothing_but_padding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
