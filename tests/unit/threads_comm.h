/* Several processes of a training run as threads of one: as much of the collectives as writing and
 * reading checkpoints needs. */
#ifndef TESTS_THREADS_COMM_H
#define TESTS_THREADS_COMM_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "train/comm.h"

enum { THREADS_MOST = 8 };

typedef struct threads_world {
    pthread_barrier_t barrier;
    void *parts[THREADS_MOST];
    int size, expert_ranks;
    void (*fn)(train_comm *comm, void *user);
    void *user;
} threads_world;

typedef struct threads_comm {
    train_comm comm;
    threads_world *world;
    uint64_t words[THREADS_MOST];
} threads_comm;

static inline marco_status threads_broadcast(train_comm *c, train_group group, int root, void *data,
                                             size_t bytes, marco_error *error)
{
    threads_world *w = ((threads_comm *)c)->world;
    (void)group, (void)error;
    w->parts[c->rank[TRAIN_WORLD]] = data;
    pthread_barrier_wait(&w->barrier);
    if (c->rank[TRAIN_WORLD] != root)
        memcpy(data, w->parts[root], bytes);
    pthread_barrier_wait(&w->barrier);
    return MARCO_OK;
}

static inline marco_status threads_all_gather(train_comm *c, train_group group, void *data,
                                              size_t bytes, marco_error *error)
{
    threads_world *w = ((threads_comm *)c)->world;
    (void)group, (void)error;
    w->parts[c->rank[TRAIN_WORLD]] = data;
    pthread_barrier_wait(&w->barrier);
    for (int r = 0; r < w->size; r++)
        if (r != c->rank[TRAIN_WORLD])
            memcpy((char *)data + (size_t)r * bytes, (char *)w->parts[r] + (size_t)r * bytes,
                   bytes);
    pthread_barrier_wait(&w->barrier);
    return MARCO_OK;
}

typedef struct threads_start {
    threads_world *world;
    int rank;
} threads_start;

static inline void *threads_main(void *user)
{
    static const train_comm_ops ops = {.broadcast = threads_broadcast,
                                       .all_gather = threads_all_gather};
    const threads_start *start = user;
    const threads_world *w = start->world;
    int x = w->expert_ranks, r = start->rank;
    threads_comm c = {.comm = {.ops = &ops,
                               .rank = {r, r % x, r / x},
                               .size = {w->size, x, w->size / x},
                               .sharers = 1},
                      .world = start->world};
    c.comm.words = c.words;
    w->fn(&c.comm, w->user);
    return NULL;
}

/* Runs fn in `size` processes, experts spread over `expert_ranks` of them. */
static inline void threads_run(int size, int expert_ranks, void (*fn)(train_comm *, void *),
                               void *user)
{
    threads_world w = {.size = size, .expert_ranks = expert_ranks, .fn = fn, .user = user};
    pthread_t threads[THREADS_MOST];
    threads_start starts[THREADS_MOST];
    pthread_barrier_init(&w.barrier, NULL, (unsigned)size);
    for (int r = 0; r < size; r++) {
        starts[r] = (threads_start){.world = &w, .rank = r};
        if (pthread_create(&threads[r], NULL, threads_main, &starts[r]) != 0)
            abort();
    }
    for (int r = 0; r < size; r++)
        pthread_join(threads[r], NULL);
    pthread_barrier_destroy(&w.barrier);
}

#endif
