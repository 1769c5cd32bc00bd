/* AdamW in shards against AdamW in double; what is clipped, left out and kept in BF16; learning
 * rates at the corners of their schedules. One process; tests/mpi has several. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "train_toy.h"

static const train_optimizer_params USUAL = {
    .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip = 1};

typedef struct run {
    train_comm *comm;
    base_pool *pool;
    toy toy;
    train_optimizer *optimizer;
} run;

static void run_begin(run *r, int threads, tensor_type type, const train_optimizer_params *params)
{
    r->pool = NULL;
    if (threads > 0)
        assert_int_equal(base_pool_create(threads, &r->pool, NULL), MARCO_OK);
    assert_int_equal(train_comm_open(1, &r->comm, NULL), MARCO_OK);
    toy_make(&r->toy, r->comm, r->pool, type);
    assert_int_equal(train_optimizer_create(&r->toy.ctx, params, &r->optimizer, NULL), MARCO_OK);
}

static train_step_result run_step(run *r, uint64_t step, double scale, double lr)
{
    train_step_result result;
    toy_add_gradient(&r->toy, step, (double[]){scale, scale});
    assert_int_equal(train_optimizer_step(r->optimizer, &r->toy.ctx, lr, &result, NULL), MARCO_OK);
    return result;
}

static void run_end(run *r)
{
    train_optimizer_free(r->optimizer);
    toy_free(&r->toy);
    train_comm_close(r->comm);
    base_pool_destroy(r->pool);
}

static void assert_gradients_are_zero(const run *r)
{
    for (int s = 0; s < TRAIN_SECTION_END; s++)
        for (int64_t i = 0; i < r->toy.params.sections[s].graded; i++)
            assert_true(r->toy.params.sections[s].grad[i] == 0);
}

/* Gradients that are clipped in some steps and not in others. */
static double scale_of(int step)
{
    return step % 3 ? 0.1 : 1e-4;
}

static void fifty_steps_are_those_of_adamw(void **state)
{
    (void)state;
    run r;
    plain reference;
    run_begin(&r, 2, TENSOR_F32, &USUAL);
    plain_make(&reference, TENSOR_F32);
    int clipped = 0;
    for (int step = 1; step <= 50; step++) {
        double lr = 1e-2 / step;
        train_step_result result = run_step(&r, (uint64_t)step, scale_of(step), lr);
        double norm = plain_step(&reference, (uint64_t)step, scale_of(step), &USUAL, lr);
        assert_true(fabs(result.norm - norm) <= 1e-6 * norm);
        assert_true(result.finite && !result.skipped);
        clipped += norm > USUAL.clip;
        assert_gradients_are_zero(&r);
    }
    assert_in_range(clipped, 10, 40);
    assert_int_equal(r.optimizer->step, 50);
    assert_true(toy_difference(&r.toy, &reference) < 1e-5);
    plain_free(&reference);
    run_end(&r);
}

/* In F32 such a beta is 1, and one less it 0. */
static void a_beta_may_be_almost_one(void **state)
{
    (void)state;
    run r;
    plain reference;
    train_optimizer_params slow = USUAL;
    slow.beta1 = 0.99999999;
    slow.beta2 = 0.999999999;
    run_begin(&r, 1, TENSOR_F32, &slow);
    plain_make(&reference, TENSOR_F32);
    for (int step = 1; step <= 10; step++) {
        run_step(&r, (uint64_t)step, scale_of(step), 1e-2);
        plain_step(&reference, (uint64_t)step, scale_of(step), &slow, 1e-2);
    }
    assert_true(toy_difference(&r.toy, &reference) < 1e-5);
    plain_free(&reference);
    run_end(&r);
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    run one, more;
    run_begin(&one, 0, TENSOR_F32, &USUAL);
    for (int step = 1; step <= 4; step++)
        run_step(&one, (uint64_t)step, scale_of(step), 1e-2);
    for (int threads = 1; threads <= 5; threads++) {
        run_begin(&more, threads, TENSOR_F32, &USUAL);
        for (int step = 1; step <= 4; step++)
            run_step(&more, (uint64_t)step, scale_of(step), 1e-2);
        for (int s = 0; s < TRAIN_SECTION_END; s++) {
            const train_values *a = &one.toy.params.sections[s], *b = &more.toy.params.sections[s];
            const struct train_shard *x = &one.optimizer->shards[s],
                                     *y = &more.optimizer->shards[s];
            size_t bytes = (size_t)x->size * sizeof(float);
            assert_int_equal(x->size, a->trained);
            assert_memory_equal(a->value, b->value, (size_t)a->size * sizeof(float));
            assert_memory_equal(x->m, y->m, bytes);
            assert_memory_equal(x->v, y->v, bytes);
        }
        assert_memory_equal(&one.optimizer->norm_mean, &more.optimizer->norm_mean, sizeof(double));
        run_end(&more);
    }
    run_end(&one);
}

static void only_what_is_decayed_shrinks_without_a_gradient(void **state)
{
    (void)state;
    run r;
    run_begin(&r, 1, TENSOR_F32, &USUAL);
    run_step(&r, 1, 0, 0.5);
    for (int p = 0; p < TOY_PARAMS; p++)
        for (int64_t i = 0; i < train_param_size(&r.toy.items[p]); i++) {
            double before = (float)toy_number(0, p, i);
            bool shrinks = TOY_SHAPES[p].decayed && TOY_SHAPES[p].state == TRAIN_TRAINED;
            double after = shrinks ? before * (1 - 0.5 * USUAL.weight_decay) : before;
            assert_true(fabs(toy_value(&r.toy, p, i) - after) <= 1e-7);
        }
    run_end(&r);
}

/* AdamW forgets the size of a first gradient, its moments do not. */
static void moments_see_the_clipped_gradient(void **state)
{
    (void)state;
    for (int clips = 0; clips <= 1; clips++) {
        run r;
        train_optimizer_params params = USUAL;
        params.clip = clips ? 0.25 : 0;
        run_begin(&r, 1, TENSOR_F32, &params);
        double norm = run_step(&r, 1, 3, 1e-3).norm;
        const struct train_shard *shard = &r.optimizer->shards[TRAIN_SHARED];
        double expected = 0.1 * 3 * toy_number(1, 0, 5) * (clips ? 0.25 / norm : 1);
        assert_true(norm > 100);
        assert_true(fabs(shard->m[r.toy.items[0].offset + 5] - expected) <= 1e-6 * fabs(expected));
        run_end(&r);
    }
}

static void outliers_are_left_out_once_norms_are_known(void **state)
{
    (void)state;
    train_optimizer_params params = USUAL;
    params.skip = 4;
    run r;
    run_begin(&r, 1, TENSOR_F32, &params);
    /* Too early to tell. */
    assert_false(run_step(&r, 1, 1e-3, 1e-3).skipped);
    assert_false(run_step(&r, 2, 1, 1e-3).skipped);
    run_end(&r);

    run_begin(&r, 1, TENSOR_F32, &params);
    for (int step = 1; step <= TRAIN_NORMS_LEAST; step++)
        assert_false(run_step(&r, (uint64_t)step, 1e-3, 1e-3).skipped);
    double mean = r.optimizer->norm_mean, w = toy_value(&r.toy, 0, 0);
    assert_true(fabs(mean - run_step(&r, 21, 1e-3, 0).norm) < 0.05 * mean);
    mean = r.optimizer->norm_mean;
    w = toy_value(&r.toy, 0, 0);
    train_step_result result = run_step(&r, 22, 1, 1e-3);
    assert_true(result.skipped && result.finite && result.norm > 100 * mean);
    assert_gradients_are_zero(&r);
    assert_true(toy_value(&r.toy, 0, 0) == w);
    /* It counts as the largest norm that is no outlier. */
    assert_true(fabs(r.optimizer->norm_mean - mean * (1 + 3.0 / (TRAIN_NORMS_LEAST + 2))) <
                1e-9 * mean);
    assert_int_equal(r.optimizer->norm_count, TRAIN_NORMS_LEAST + 2);
    assert_int_equal(r.optimizer->step, TRAIN_NORMS_LEAST + 1);
    /* Three times the mean is no outlier, five times is one. */
    assert_false(run_step(&r, 23, 3e-3, 1e-3).skipped);
    assert_true(toy_value(&r.toy, 0, 0) != w);
    assert_true(run_step(&r, 24, 5e-3, 1e-3).skipped);
    /* Norms that have risen for good are outliers for a while only. */
    int left_out = 0;
    while (left_out < 100 && run_step(&r, (uint64_t)(25 + left_out), 2e-2, 1e-3).skipped)
        left_out++;
    assert_in_range(left_out, 3, 30);
    run_end(&r);
}

static void what_is_not_finite_is_left_out(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY, 1e30f};
    run r;
    run_begin(&r, 2, TENSOR_F32, &USUAL);
    run_step(&r, 1, 1, 1e-3);
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        float w = toy_value(&r.toy, 4, 0);
        double mean = r.optimizer->norm_mean;
        toy_grad(&r.toy, 5)[3 * 90 * 101 + 17] = bad[k];
        train_step_result result = run_step(&r, 2, 1, 1e-3);
        assert_true(result.skipped);
        assert_false(result.finite);
        assert_gradients_are_zero(&r);
        assert_true(toy_value(&r.toy, 4, 0) == w);
        assert_true(r.optimizer->norm_mean == mean);
        assert_int_equal(r.optimizer->step, 1);
    }
    assert_false(run_step(&r, 2, 1, 1e-3).skipped);
    assert_true(isfinite(toy_value(&r.toy, 4, 0)));
    run_end(&r);
}

/* A change of 1e-5 a step is lost on a BF16 number near 1, but not on its master. */
static void masters_keep_what_bf16_cannot(void **state)
{
    (void)state;
    train_optimizer_params params = USUAL;
    params.weight_decay = 0;
    run r;
    run_begin(&r, 2, TENSOR_BF16, &params);
    const train_param *param = &r.toy.items[3];
    struct train_shard *shard = &r.optimizer->shards[TRAIN_SHARED];
    int64_t at = param->offset;
    assert_true(shard->master[at] == toy_value(&r.toy, 3, 0));
    toy_set(&r.toy, 3, 0, 1);
    shard->master[at] = 1;
    for (int step = 0; step < 400; step++) {
        toy_grad(&r.toy, 3)[0] = 1;
        run_step(&r, 1, 0, 1e-5);
    }
    assert_true(fabs(shard->master[at] - (1 - 400e-5)) < 1e-5);
    assert_true(toy_value(&r.toy, 3, 0) == 0.99609375f); /* the BF16 next to 1 */
    run_step(&r, 2, 1, 1e-2);
    for (int p = 0; p < TOY_PARAMS; p++)
        for (int64_t i = 0; i < train_param_size(&r.toy.items[p]); i++) {
            if (TOY_SHAPES[p].state != TRAIN_TRAINED)
                continue;
            const struct train_shard *s = &r.optimizer->shards[r.toy.items[p].section];
            float master = s->master[r.toy.items[p].offset + i];
            assert_true(toy_value(&r.toy, p, i) == tensor_bf16_to_f32(tensor_f32_to_bf16(master)));
        }
    run_end(&r);
}

static void memory_is_as_planned_and_may_be_refused(void **state)
{
    (void)state;
    static const tensor_type types[] = {TENSOR_F32, TENSOR_BF16};
    for (size_t k = 0; k < 2; k++) {
        run r;
        run_begin(&r, 1, types[k], &USUAL);
        uint64_t bytes = 0;
        for (int s = 0; s < TRAIN_SECTION_END; s++) {
            const struct train_shard *shard = &r.optimizer->shards[s];
            bytes += (uint64_t)shard->size * sizeof(float) * (shard->master ? 3 : 2);
        }
        assert_int_equal(train_optimizer_bytes(&r.toy.params, r.comm), bytes);
        for (uint64_t n = 1;; n++) {
            train_optimizer *other;
            marco_error error;
            base_alloc_fail_at(n);
            marco_status status = train_optimizer_create(&r.toy.ctx, &USUAL, &other, &error);
            base_alloc_fail_at(0);
            if (status == MARCO_OK) {
                assert_true(n > 4);
                train_optimizer_free(other);
                break;
            }
            assert_int_equal(status, MARCO_ERROR_MEMORY);
            assert_null(other);
        }
        run_end(&r);
    }
}

static void assert_rate(const train_schedule *s, int64_t step, double expected)
{
    double rate = train_schedule_at(s, step);
    if (fabs(rate - expected) > 1e-15)
        fail_msg("step %lld: %.17g, not %.17g", (long long)step, rate, expected);
}

static void rates_follow_their_schedules(void **state)
{
    (void)state;
    train_schedule s = {.kind = TRAIN_CONSTANT,
                        .lr = 1e-3,
                        .min_lr = 1e-4,
                        .warmup = 10,
                        .decay = 20,
                        .steps = 110};
    assert_rate(&s, 0, 1e-4);
    assert_rate(&s, 4, 5e-4);
    assert_rate(&s, 9, 1e-3);
    assert_rate(&s, 10, 1e-3);
    assert_rate(&s, 109, 1e-3);
    s.kind = TRAIN_COSINE;
    assert_rate(&s, 0, 1e-4);
    assert_rate(&s, 9, 1e-3);
    assert_rate(&s, 59, 5.5e-4);
    assert_rate(&s, 34, 1e-4 + 9e-4 * (0.5 + sqrt(0.125)));
    assert_rate(&s, 109, 1e-4);
    assert_rate(&s, 500, 1e-4);
    s.kind = TRAIN_WSD;
    assert_rate(&s, 9, 1e-3);
    assert_rate(&s, 89, 1e-3);
    assert_rate(&s, 90, 1e-3 - 9e-4 / 20);
    assert_rate(&s, 99, 5.5e-4);
    assert_rate(&s, 109, 1e-4);
    assert_rate(&s, 110, 1e-4);
    /* No decay, more of it than there are steps, no warm-up, nothing but warm-up. */
    s.decay = 0;
    assert_rate(&s, 108, 1e-3);
    s.decay = 1000;
    assert_rate(&s, 9, 1e-3);
    assert_rate(&s, 59, 5.5e-4);
    assert_rate(&s, 109, 1e-4);
    s = (train_schedule){.kind = TRAIN_COSINE, .lr = 1, .steps = 4};
    assert_rate(&s, 1, 0.5);
    assert_rate(&s, 3, 0);
    s = (train_schedule){.kind = TRAIN_COSINE, .lr = 1, .warmup = 8, .steps = 4};
    assert_rate(&s, 3, 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fifty_steps_are_those_of_adamw),
        cmocka_unit_test(a_beta_may_be_almost_one),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(only_what_is_decayed_shrinks_without_a_gradient),
        cmocka_unit_test(moments_see_the_clipped_gradient),
        cmocka_unit_test(outliers_are_left_out_once_norms_are_known),
        cmocka_unit_test(what_is_not_finite_is_left_out),
        cmocka_unit_test(masters_keep_what_bf16_cannot),
        cmocka_unit_test(memory_is_as_planned_and_may_be_refused),
        cmocka_unit_test(rates_follow_their_schedules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
