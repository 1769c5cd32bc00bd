/* What processes that mpirun started tell each other: check_mpi CASE EXPERT_RANKS, the same for all
 * of them. tests/mpi/test_mpi.sh starts it and knows what each case must end with. */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "base/error.h"
#include "train_toy.h"

/* The process that fails ends the others. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "process %d: %s:%d: %s\n", me, __FILE__, __LINE__, #condition);        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)
#define CHECK_OK(call)                                                                             \
    do {                                                                                           \
        if (call) {                                                                                \
            fprintf(stderr, "process %d: %s:%d: %s\n", me, __FILE__, __LINE__, error.message);     \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static marco_error error;
static int me; /* rank in the world */

/* Sums whose every order gives other bits. */
static float odd(int rank, int64_t i)
{
    return (float)(toy_number(7, rank, i) * pow(10, rank * 3 - 4));
}

static float odd_sum(int first, int stride, int size, int64_t i)
{
    float sum = odd(first, i);
    for (int r = 1; r < size; r++)
        sum += odd(first + r * stride, i);
    return sum;
}

/* The world's rank of a group's rank 0, and from one rank of it to the next. */
static void places(const train_comm *c, train_group g, int *first, int *stride)
{
    *stride = g == TRAIN_REPLICAS ? c->size[TRAIN_EXPERTS] : 1;
    *first = me - c->rank[g] * *stride;
}

static void check_groups(const train_comm *c, int expert_ranks)
{
    int size = c->size[TRAIN_WORLD];
    CHECK(c->size[TRAIN_EXPERTS] == expert_ranks);
    CHECK(c->size[TRAIN_REPLICAS] == size / expert_ranks);
    CHECK(c->rank[TRAIN_EXPERTS] == me % expert_ranks);
    CHECK(c->rank[TRAIN_REPLICAS] == me / expert_ranks);
    CHECK(c->sharers >= 1 && c->sharers <= size);
}

static void check_sums(train_comm *c, train_group g)
{
    enum { N = 1003 };
    int first, stride, size = c->size[g];
    places(c, g, &first, &stride);
    double d[N];
    int64_t n[N];
    for (int i = 0; i < N; i++) {
        d[i] = odd(me, i) / 3.0;
        n[i] = ((int64_t)me << 40) - i;
    }
    CHECK_OK(c->ops->all_reduce_f64(c, g, d, N, &error));
    CHECK_OK(c->ops->all_reduce_i64(c, g, n, N, &error));
    for (int i = 0; i < N; i++) {
        double sum = odd(first, i) / 3.0;
        int64_t count = ((int64_t)first << 40) - i;
        for (int r = 1; r < size; r++) {
            sum += odd(first + r * stride, i) / 3.0;
            count += ((int64_t)(first + r * stride) << 40) - i;
        }
        CHECK(d[i] == sum);
        CHECK(n[i] == count);
    }
}

/* More than the collectives' own memory holds at a time. */
static void check_shards(train_comm *c, train_group g)
{
    int first, stride, size = c->size[g], rank = c->rank[g];
    places(c, g, &first, &stride);
    int64_t part = (2 << 20) + 64, n = part * size;
    float *data = malloc((size_t)n * sizeof *data);
    for (int64_t i = 0; i < n; i++)
        data[i] = odd(me, i % 5003);
    CHECK_OK(c->ops->reduce_scatter_f32(c, g, data, n, &error));
    for (int64_t i = rank * part; i < (rank + 1) * part; i++)
        CHECK(data[i] == odd_sum(first, stride, size, i % 5003));
    CHECK_OK(c->ops->all_gather(c, g, data, (size_t)part * sizeof *data, &error));
    for (int64_t i = 0; i < n; i += 61)
        CHECK(data[i] == odd_sum(first, stride, size, i % 5003));
    free(data);
}

static int64_t rows_between(int from, int to)
{
    return from == to ? 2 : (from * 3 + to) % 4; /* some send none */
}

static void check_rows(train_comm *c, train_group g)
{
    enum { ROW = 5, MOST = 4 * TOY_MOST_RANKS };
    int size = c->size[g], rank = c->rank[g];
    int64_t n_out[TOY_MOST_RANKS], n_in[TOY_MOST_RANKS], total = 0;
    float out[MOST * ROW] = {0}, in[MOST * ROW] = {0};
    for (int r = 0; r < size; r++) {
        n_out[r] = rows_between(rank, r);
        for (int64_t i = 0; i < n_out[r] * ROW; i++)
            out[total * ROW + i] = (float)(rank * 10000 + r * 1000 + i);
        total += n_out[r];
    }
    CHECK_OK(c->ops->all_to_all_i64(c, g, n_out, n_in, 1, &error));
    CHECK_OK(c->ops->all_to_all_rows(c, g, out, n_out, in, n_in, ROW, &error));
    total = 0;
    for (int r = 0; r < size; r++) {
        CHECK(n_in[r] == rows_between(r, rank));
        for (int64_t i = 0; i < n_in[r] * ROW; i++)
            CHECK(in[total * ROW + i] == (float)(r * 10000 + rank * 1000 + i));
        total += n_in[r];
    }
    CHECK(in[total * ROW] == 0);
    int64_t none[TOY_MOST_RANKS] = {0};
    CHECK_OK(c->ops->all_to_all_rows(c, g, NULL, none, NULL, none, ROW, &error));
}

static void check_moves(train_comm *c, train_group g)
{
    int first, stride, size = c->size[g];
    places(c, g, &first, &stride);
    int64_t pair[2] = {me, -me};
    for (int root = 0; root < size; root++) {
        pair[0] = me;
        CHECK_OK(c->ops->broadcast(c, g, root, pair, sizeof pair, &error));
        CHECK(pair[0] == first + root * stride);
    }
}

static void check_counters(train_comm *c, train_group g)
{
    uint64_t others = (uint64_t)c->size[g] - 1;
    uint64_t sent[TRAIN_TRAFFIC_END];
    memcpy(sent, c->sent, sizeof sent);
    double d[3] = {0};
    float f[128 * TOY_MOST_RANKS] = {0}, in[128] = {0};
    int64_t n[TOY_MOST_RANKS] = {1, 1, 1, 1}, n_in[TOY_MOST_RANKS];
    CHECK_OK(c->ops->all_reduce_f64(c, g, d, 3, &error));
    CHECK_OK(c->ops->reduce_scatter_f32(c, g, f, 128 * c->size[g], &error));
    CHECK_OK(c->ops->all_gather(c, g, f, 100, &error));
    CHECK_OK(c->ops->all_to_all_i64(c, g, n, n_in, 1, &error));
    CHECK_OK(c->ops->all_to_all_rows(c, g, f, n, in, n_in, 16, &error));
    CHECK(c->sent[TRAIN_TRAFFIC_REDUCE] - sent[TRAIN_TRAFFIC_REDUCE] == others * 24);
    CHECK(c->sent[TRAIN_TRAFFIC_SCATTER] - sent[TRAIN_TRAFFIC_SCATTER] == others * 512);
    CHECK(c->sent[TRAIN_TRAFFIC_GATHER] - sent[TRAIN_TRAFFIC_GATHER] == others * 100);
    CHECK(c->sent[TRAIN_TRAFFIC_EXPERTS] - sent[TRAIN_TRAFFIC_EXPERTS] == others * (8 + 64));
}

static void check_collectives(train_comm *c)
{
    for (train_group g = TRAIN_WORLD; g < TRAIN_GROUP_END; g++) {
        check_sums(c, g);
        check_shards(c, g);
        check_rows(c, g);
        check_moves(c, g);
        check_counters(c, g);
    }
    CHECK_OK(train_comm_agree(c, "the same", 8, "word", &error));
    CHECK_OK(train_comm_settle(c, MARCO_OK, &error));
}

/* ---- the optimiser ------------------------------------------------------------------------- */

/* A rank's share of a gradient: they differ, and add up to 1. */
static double share(const train_comm *c, train_group g)
{
    int size = c->size[g];
    return (c->rank[g] + 1) / (size * (size + 1) / 2.0);
}

static void check_optimizer(train_comm *c, tensor_type type, double tolerance)
{
    static const train_optimizer_params params = {
        .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1, .clip = 1};
    toy t;
    plain reference;
    train_optimizer *o;
    train_step_result result;
    toy_make(&t, c, NULL, type);
    plain_make(&reference, type);
    CHECK_OK(train_optimizer_create(&t.ctx, &params, &o, &error));
    for (int s = 0; s < TRAIN_SECTION_END; s++) {
        train_group g = s == TRAIN_SHARED ? TRAIN_WORLD : TRAIN_REPLICAS;
        CHECK(o->shards[s].size == t.params.sections[s].trained / c->size[g]);
        CHECK(o->shards[s].begin == o->shards[s].size * c->rank[g]);
    }
    for (int step = 1; step <= 12; step++) {
        double scale = step % 3 ? 0.1 : 1e-4, lr = 1e-2 / step;
        double scales[] = {scale * share(c, TRAIN_WORLD), scale * share(c, TRAIN_REPLICAS)};
        if (step == 7) { /* what one process cannot use, none does */
            if (me == c->size[TRAIN_WORLD] - 1)
                toy_grad(&t, 4)[0] = NAN;
            CHECK_OK(train_optimizer_step(o, &t.ctx, lr, &result, &error));
            CHECK(result.skipped && !result.finite);
        }
        toy_add_gradient(&t, (uint64_t)step, scales);
        CHECK_OK(train_optimizer_step(o, &t.ctx, lr, &result, &error));
        double norm = plain_step(&reference, (uint64_t)step, scale, &params, lr);
        CHECK(fabs(result.norm - norm) <= 1e-6 * norm && !result.skipped);
    }
    CHECK(toy_difference(&t, &reference) < tolerance);
    for (int s = 0; s < TRAIN_SECTION_END; s++)
        for (int64_t i = 0; i < t.params.sections[s].graded; i++)
            CHECK(t.params.sections[s].grad[i] == 0);
    const train_values *shared = &t.params.sections[TRAIN_SHARED];
    CHECK_OK(train_comm_agree(c, shared->value, tensor_row_bytes(type, shared->size), "shared part",
                              &error));
    train_optimizer_free(o);
    plain_free(&reference);
    toy_free(&t);
}

/* ---- what goes wrong ----------------------------------------------------------------------- */

static void check_disagreement(train_comm *c)
{
    const char *word = me == 2 ? "other" : "words";
    CHECK(train_comm_agree(c, word, 5, "recipe", &error) == MARCO_ERROR_ARGUMENT);
    CHECK(strstr(error.message, "process 2 of 4 has another recipe than process 0"));
}

static void check_failure(train_comm *c)
{
    marco_status status = MARCO_OK;
    if (me == 1 || me == 3)
        status = me == 1 ? base_fail(&error, MARCO_ERROR_SPACE, "no room in process 1's disk")
                         : base_fail(&error, MARCO_ERROR_IO, "process 3's disk is broken");
    CHECK(train_comm_settle(c, status, &error) == MARCO_ERROR_SPACE);
    CHECK(error.status == MARCO_ERROR_SPACE);
    CHECK(strstr(error.message, me == 1   ? "no room"
                                : me == 3 ? "process 3's disk"
                                          : "process 1: no room in process 1's disk"));
}

/* One process goes without a word, while the others wait for it. */
static void wait_for_one(train_comm *c, int one, bool killed)
{
    CHECK_OK(train_comm_settle(c, MARCO_OK, &error));
    if (me == one) {
        if (killed)
            raise(SIGKILL);
        train_comm_close(c);
        _exit(3);
    }
    double d[4] = {0};
    marco_status status = c->ops->all_reduce_f64(c, TRAIN_WORLD, d, 4, &error);
    fprintf(stderr, "process %d went on: %s\n", me, status ? error.message : "");
    CHECK(status);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const char *name = argv[1];
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    int expert_ranks = atoi(argv[2]);
    train_comm *c;
    if (strcmp(name, "mixed") == 0 && rank && atoi(rank) == 3)
        expert_ranks = 2;
    if (train_comm_open(expert_ranks, &c, &error)) {
        printf("%s: %s\n", marco_status_name(error.status), error.message);
        return 3;
    }
    me = c->rank[TRAIN_WORLD];
    check_groups(c, expert_ranks);
    for (int other = c->size[TRAIN_WORLD]; other > 0; other--) {
        if (c->size[TRAIN_WORLD] % other)
            continue;
        CHECK_OK(train_comm_spread(c, other, &error));
        check_groups(c, other);
    }
    CHECK_OK(train_comm_spread(c, expert_ranks, &error));
    if (strcmp(name, "all") == 0) {
        check_collectives(c);
        check_optimizer(c, TENSOR_F32, 1e-5);
        check_optimizer(c, TENSOR_BF16, 1.0 / 256);
    } else if (strcmp(name, "disagreement") == 0) {
        check_disagreement(c);
    } else if (strcmp(name, "failure") == 0) {
        check_failure(c);
    } else if (strcmp(name, "left") == 0 || strcmp(name, "killed") == 0) {
        wait_for_one(c, 2, name[0] == 'k');
    }
    train_comm_close(c);
    printf("process %d is done\n", me);
    return 0;
}
