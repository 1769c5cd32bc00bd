/* The sparse half spread over processes against the same on one: outputs, gradients, statistics;
 * and over threads. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "experts_fixture.h"
#include "fake_comm.h"

typedef struct ranks {
    fake_world world;
    experts_fixture f[FAKE_MAX];
    marco_status status[FAKE_MAX];
    marco_error errors[FAKE_MAX];
    bool again; /* forward twice, as recomputation does */
} ranks;

static void open_ranks(ranks *r, int n, int experts, const experts_shape *each,
                       const train_routing *routing)
{
    *r = (ranks){0};
    fake_world_open(&r->world, n, experts);
    for (int i = 0; i < n; i++) {
        experts_shape shape = *each;
        shape.comm = &r->world.ranks[i].comm;
        shape.first_token = i * each->n;
        experts_open(&r->f[i], &shape);
        r->f[i].routing = *routing;
        r->f[i].pass.aux_scale = 1.0 / n;
        r->f[i].pass.dropout_rate = 0.3;
    }
}

static void close_ranks(ranks *r)
{
    for (int i = 0; i < r->world.n; i++)
        experts_close(&r->f[i]);
    fake_world_close(&r->world);
}

static void forward(void *user, int rank)
{
    ranks *r = user;
    r->status[rank] = experts_try_forward(&r->f[rank], false, &r->errors[rank]);
}

static void both_ways(void *user, int rank)
{
    ranks *r = user;
    forward(r, rank);
    if (!r->status[rank] && r->again)
        r->status[rank] = experts_try_forward(&r->f[rank], true, &r->errors[rank]);
    if (!r->status[rank])
        r->status[rank] = experts_try_back(&r->f[rank], &r->errors[rank]);
}

static void run_ranks(ranks *r)
{
    fake_world_run(&r->world, both_ways, r);
    for (int i = 0; i < r->world.n; i++)
        if (r->status[i])
            fail_msg("process %d: %s", i, r->errors[i].message);
}

/* Distance of a to b, for the largest of b. */
static void assert_near(const char *what, const float *a, const float *b, int64_t n)
{
    float worst = 0, most = 0;
    for (int64_t i = 0; i < n; i++) {
        worst = fmaxf(worst, fabsf(a[i] - b[i]));
        most = fmaxf(most, fabsf(b[i]));
    }
    if (!(worst <= 1e-5f * most))
        fail_msg("%s differs by %g of %g", what, worst, most);
}

/* The gradient of a parameter summed over processes, of the whole model. */
static float *total_gradient(const ranks *r, model_role role)
{
    int holders = model_role_is_expert(role) ? r->world.experts : 1;
    int64_t size = experts_size(&r->f[0], role);
    float *total = calloc((size_t)(size * holders), sizeof *total);
    assert_non_null(total);
    for (int i = 0; i < r->world.n; i++) {
        float *at = total + i % holders * size;
        const float *own = experts_gradient(&r->f[i], role);
        for (int64_t j = 0; j < size; j++)
            at[j] += own[j];
    }
    return total;
}

static void compare(const ranks *r, const experts_fixture *one)
{
    static const model_role roles[] = {MODEL_FFN_NORM, MODEL_ROUTER, MODEL_EXPERT_GATE,
                                       MODEL_EXPERT_UP, MODEL_EXPERT_DOWN};
    int64_t n = r->f[0].shape.n * one->shape.embd;
    double entropy = 0;
    for (int i = 0; i < r->world.n; i++) {
        assert_near("out", r->f[i].out, one->out + i * n, n);
        assert_near("d", r->f[i].d, one->d + i * n, n);
        entropy += r->f[i].stats.entropy;
        for (int32_t e = 0; e < one->shape.experts; e++)
            if (one->routing.balance == TRAIN_BALANCE_GLOBAL)
                assert_int_equal(r->f[i].stats.seen[e], one->stats.seen[e]);
    }
    assert_true(fabs(entropy - one->stats.entropy) <= 1e-5 * one->stats.entropy);
    for (int32_t e = 0; e < one->shape.experts; e++) {
        int64_t load = 0;
        for (int i = 0; i < r->world.n; i++)
            load += r->f[i].stats.load[e];
        assert_int_equal(load, one->stats.load[e]);
    }
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        float *total = total_gradient(r, roles[i]);
        assert_near("gradient", total, experts_gradient(one, roles[i]),
                    experts_size(one, roles[i]));
        free(total);
    }
}

/* One process with the tokens of all. */
static void open_one(experts_fixture *one, int n, const experts_shape *each,
                     const train_routing *routing)
{
    experts_shape shape = *each;
    shape.n *= n;
    experts_open(one, &shape);
    one->routing = *routing;
    one->pass.dropout_rate = 0.3;
}

static const int worlds[][2] = {{2, 1}, {2, 2}, {4, 2}, {4, 4}};
enum { WORLDS = sizeof worlds / sizeof *worlds };

static void processes_do_as_one_does(void **state)
{
    (void)state;
    static const experts_shape shapes[] = {
        {.embd = 19, .width = 7, .experts = 8, .used = 3, .n = 30},
        {.embd = 19, .width = 7, .experts = 4, .used = 2, .n = 700, .as_they_are = true},
        {.embd = 5, .width = 3, .experts = 8, .used = 2, .n = 1}, /* most experts get nothing */
    };
    static const train_routing routing = {.balance = TRAIN_BALANCE_GLOBAL,
                                          .coefficient = 2,
                                          .z_loss = 0.1,
                                          .dropout = TRAIN_DROP_EXPERTS};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        for (int w = 0; w < WORLDS; w++) {
            ranks r;
            experts_fixture one;
            open_one(&one, worlds[w][0], &shapes[s], &routing);
            experts_forward(&one);
            experts_back(&one);
            open_ranks(&r, worlds[w][0], worlds[w][1], &shapes[s], &routing);
            r.again = w % 2;
            run_ranks(&r);
            compare(&r, &one);
            close_ranks(&r);
            experts_close(&one);
        }
    }
}

/* The second process has nothing but padding. */
static void a_process_may_have_no_token(void **state)
{
    (void)state;
    static const experts_shape shape = {.embd = 19, .width = 7, .experts = 8, .used = 3, .n = 30};
    static const train_routing routing = {.dropout = TRAIN_DROP_EXPERTS};
    static const int32_t lengths[] = {30, 0};
    for (int w = 0; w < 2; w++) {
        ranks r;
        experts_fixture one;
        open_one(&one, 2, &shape, &routing);
        one.tokens = (train_tokens){.n_seqs = 2, .seq_len = 30, .n = 60, .lengths = lengths};
        experts_forward(&one);
        experts_back(&one);
        open_ranks(&r, 2, worlds[w][1], &shape, &routing);
        r.f[1].tokens.lengths = &lengths[1];
        run_ranks(&r);
        compare(&r, &one);
        assert_int_equal(r.f[1].stats.tokens, 0);
        close_ranks(&r);
        experts_close(&one);
    }
}

/* Four processes with an expert each. */
static void open_biased(ranks *r, experts_fixture *one)
{
    static const experts_shape shape = {
        .embd = 9, .width = 5, .experts = 4, .used = 1, .n = 200, .as_they_are = true};
    static const train_routing routing = {.balance = TRAIN_BALANCE_BIAS};
    open_one(one, 4, &shape, &routing);
    open_ranks(r, 4, 4, &shape, &routing);
}

/* All rows come to one process, which has not room for them: it finds some, again and again. */
static void rooms_grow(void **state)
{
    (void)state;
    ranks r;
    experts_fixture one;
    open_biased(&r, &one);
    for (int crowded = 0; crowded < 4; crowded++) {
        for (int e = 0; e < 4; e++)
            one.stats.bias[e] = e == crowded ? 10.0f : 0;
        for (int i = 0; i < 4; i++)
            memcpy(r.f[i].stats.bias, one.stats.bias, 4 * sizeof *one.stats.bias);
        experts_forward(&one);
        experts_back(&one);
        run_ranks(&r);
        for (int i = 0; i < 4; i++)
            assert_int_equal(r.f[i].saved.n_rows, i == crowded ? 800 : 0);
        compare(&r, &one);
    }
    close_ranks(&r);
    experts_close(&one);
}

/* What one layer needed more than its share is there for the next, as with recomputation, where the
 * layers share what they save; and is found where it is once it has moved. */
static void layers_share_what_has_grown(void **state)
{
    (void)state;
    ranks r;
    experts_fixture one;
    open_biased(&r, &one);
    train_experts_saved second[4];
    void *memory[4];
    for (int i = 0; i < 4; i++) {
        train_arena arena = {0};
        for (int pass = 0; pass < 2; pass++) {
            train_experts_save(&one.params->config, r.f[i].shape.n, &r.f[i].grown, &arena,
                               &second[i]);
            if (pass == 0)
                arena = (train_arena){.base = memory[i] = base_alloc_aligned(arena.used)};
        }
    }
    for (int layer = 0; layer < 4; layer++) {
        for (int i = 0; i < 4; i++) {
            r.f[i].stats.bias[2] = 10;
            r.f[i].layer = layer % 2;
            train_experts_saved other = second[i];
            second[i] = r.f[i].saved;
            r.f[i].saved = other;
        }
        one.stats.bias[2] = 10;
        one.layer = layer % 2;
        experts_forward(&one);
        experts_back(&one);
        base_alloc_fail_at(layer > 0);
        run_ranks(&r);
        base_alloc_fail_at(0);
        compare(&r, &one);
        /* As another layer with still more rows would. */
        train_experts_grown *grown = &r.f[2].grown;
        float *moved =
            base_alloc_aligned((size_t)(2 * grown->rows * one.shape.width) * sizeof *moved);
        assert_non_null(moved);
        base_free(grown->memory);
        grown->memory = moved;
    }
    for (int i = 0; i < 4; i++)
        base_free(memory[i]);
    close_ranks(&r);
    experts_close(&one);
}

static void no_room_is_everybodys_error(void **state)
{
    (void)state;
    static const experts_shape shape = {.embd = 9, .width = 5, .experts = 4, .used = 1, .n = 20};
    static const train_routing routing = {.balance = TRAIN_BALANCE_BIAS};
    ranks r;
    open_ranks(&r, 4, 2, &shape, &routing);
    for (int i = 0; i < 4; i++)
        r.f[i].stats.bias[3] = 10;
    /* Two processes hold the expert, each of which asks for room twice. */
    for (uint64_t fail = 1; fail <= 4; fail++) {
        for (int i = 0; i < 4; i++) {
            train_experts_grown_release(&r.f[i].grown);
            train_experts_work_release(r.f[i].work);
        }
        base_alloc_fail_at(fail);
        fake_world_run(&r.world, forward, &r);
        base_alloc_fail_at(0);
        for (int i = 0; i < 4; i++)
            assert_int_equal(r.status[i], MARCO_ERROR_MEMORY);
    }
    run_ranks(&r);
    close_ranks(&r);
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    static const experts_shape shape = {
        .embd = 70, .width = 24, .experts = 9, .used = 3, .n = 1500, .router = 3};
    uint64_t first = 0;
    for (int threads = 1; threads <= 4; threads++) {
        experts_fixture f;
        experts_shape s = shape;
        s.threads = threads;
        experts_open(&f, &s);
        f.routing = (train_routing){.balance = TRAIN_BALANCE_GLOBAL,
                                    .coefficient = 0.1,
                                    .z_loss = 0.01,
                                    .dropout = TRAIN_DROP_EXPERTS,
                                    .dropout_per_token = true};
        f.pass.dropout_rate = 0.1;
        experts_forward(&f);
        experts_back(&f);
        uint64_t hash = experts_hash(&f);
        assert_true(threads == 1 || hash == first);
        first = hash;
        experts_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes_do_as_one_does),
        cmocka_unit_test(a_process_may_have_no_token),
        cmocka_unit_test(rooms_grow),
        cmocka_unit_test(layers_share_what_has_grown),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(no_room_is_everybodys_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
