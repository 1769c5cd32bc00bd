#include "fake_comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static int group_of(const train_comm *c, train_group group)
{
    int experts = c->size[TRAIN_EXPERTS], rank = c->rank[TRAIN_WORLD];
    return group == TRAIN_WORLD ? 0 : group == TRAIN_EXPERTS ? rank / experts : rank % experts;
}

/* The process that has a rank in this one's group. */
static int member(const train_comm *c, train_group group, int rank)
{
    int experts = c->size[TRAIN_EXPERTS], number = group_of(c, group);
    return group == TRAIN_WORLD     ? rank
           : group == TRAIN_EXPERTS ? number * experts + rank
                                    : rank * experts + number;
}

static fake_world *world_of(train_comm *c)
{
    return ((fake_rank *)c)->world;
}

static void meet(train_comm *c, train_group group)
{
    pthread_barrier_wait(&world_of(c)->barriers[group][group_of(c, group)]);
}

static void post(train_comm *c, train_group group, const void *data, const int64_t *counts)
{
    world_of(c)->posts[c->rank[TRAIN_WORLD]] = (struct fake_post){data, counts};
    meet(c, group);
}

static const struct fake_post *posted(train_comm *c, train_group group, int rank)
{
    return &world_of(c)->posts[member(c, group, rank)];
}

static marco_status all_reduce_i64(train_comm *c, train_group group, int64_t *data, int64_t n,
                                   marco_error *error)
{
    (void)error;
    int64_t sums[64] = {0};
    post(c, group, data, NULL);
    for (int r = 0; r < c->size[group]; r++)
        for (int64_t i = 0; i < n && i < 64; i++)
            sums[i] += ((const int64_t *)posted(c, group, r)->data)[i];
    meet(c, group);
    memcpy(data, sums, (size_t)n * sizeof *data);
    return n <= 64 ? MARCO_OK : MARCO_ERROR_NETWORK;
}

static marco_status all_gather(train_comm *c, train_group group, void *data, size_t bytes,
                               marco_error *error)
{
    (void)error;
    post(c, group, data, NULL);
    for (int r = 0; r < c->size[group]; r++)
        if (r != c->rank[group])
            memcpy((char *)data + (size_t)r * bytes,
                   (const char *)posted(c, group, r)->data + (size_t)r * bytes, bytes);
    meet(c, group);
    return MARCO_OK;
}

static marco_status all_to_all_i64(train_comm *c, train_group group, const int64_t *out,
                                   int64_t *in, int64_t each, marco_error *error)
{
    (void)error;
    post(c, group, out, NULL);
    for (int r = 0; r < c->size[group]; r++)
        memcpy(in + r * each, (const int64_t *)posted(c, group, r)->data + c->rank[group] * each,
               (size_t)each * sizeof *in);
    meet(c, group);
    return MARCO_OK;
}

static marco_status all_to_all_rows(train_comm *c, train_group group, const float *out,
                                    const int64_t *n_out, float *in, const int64_t *n_in,
                                    int64_t row, marco_error *error)
{
    (void)error;
    marco_status status = MARCO_OK;
    post(c, group, out, n_out);
    for (int r = 0; r < c->size[group]; r++) {
        const struct fake_post *p = posted(c, group, r);
        int64_t before = 0;
        for (int i = 0; i < c->rank[group]; i++)
            before += p->counts[i];
        if (p->counts[c->rank[group]] != n_in[r])
            status = MARCO_ERROR_NETWORK;
        memcpy(in, (const float *)p->data + before * row, (size_t)(n_in[r] * row) * sizeof *in);
        in += n_in[r] * row;
    }
    meet(c, group);
    return status;
}

static marco_status broadcast(train_comm *c, train_group group, int root, void *data, size_t bytes,
                              marco_error *error)
{
    (void)error;
    post(c, group, data, NULL);
    if (c->rank[group] != root)
        memcpy(data, posted(c, group, root)->data, bytes);
    meet(c, group);
    return MARCO_OK;
}

static const train_comm_ops ops = {
    .all_reduce_i64 = all_reduce_i64,
    .all_gather = all_gather,
    .all_to_all_i64 = all_to_all_i64,
    .all_to_all_rows = all_to_all_rows,
    .broadcast = broadcast,
};

void fake_world_open(fake_world *world, int n, int experts)
{
    assert_true(n <= FAKE_MAX && n % experts == 0);
    *world = (fake_world){.n = n, .experts = experts};
    for (int r = 0; r < n; r++) {
        fake_rank *rank = &world->ranks[r];
        rank->world = world;
        rank->comm = (train_comm){
            .ops = &ops,
            .rank =
                {[TRAIN_WORLD] = r, [TRAIN_EXPERTS] = r % experts, [TRAIN_REPLICAS] = r / experts},
            .size = {[TRAIN_WORLD] = n, [TRAIN_EXPERTS] = experts, [TRAIN_REPLICAS] = n / experts},
            .words = rank->words,
        };
    }
    for (train_group g = 0; g < TRAIN_GROUP_END; g++)
        for (int i = 0; i < n; i++)
            assert_int_equal(pthread_barrier_init(&world->barriers[g][i], NULL,
                                                  (unsigned)world->ranks[0].comm.size[g]),
                             0);
}

void fake_world_close(fake_world *world)
{
    for (train_group g = 0; g < TRAIN_GROUP_END; g++)
        for (int i = 0; i < world->n; i++)
            pthread_barrier_destroy(&world->barriers[g][i]);
}

typedef struct started {
    void (*fn)(void *user, int rank);
    void *user;
    int rank;
} started;

static void *run(void *user)
{
    started *s = user;
    s->fn(s->user, s->rank);
    return NULL;
}

void fake_world_run(fake_world *world, void (*fn)(void *user, int rank), void *user)
{
    pthread_t threads[FAKE_MAX];
    started starts[FAKE_MAX];
    for (int r = 0; r < world->n; r++) {
        starts[r] = (started){fn, user, r};
        assert_int_equal(pthread_create(&threads[r], NULL, run, &starts[r]), 0);
    }
    for (int r = 0; r < world->n; r++)
        pthread_join(threads[r], NULL);
}
