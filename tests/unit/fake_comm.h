/* Processes of a training run that are threads of a test: collectives by way of shared memory.
 * Those that the sparse half uses. */
#ifndef FAKE_COMM_H
#define FAKE_COMM_H

#include <pthread.h>

#include "train/comm.h"

enum { FAKE_MAX = 8 };

typedef struct fake_world fake_world;

typedef struct fake_rank {
    train_comm comm; /* first: is cast */
    fake_world *world;
    uint64_t words[FAKE_MAX];
} fake_rank;

struct fake_world {
    int n, experts;
    fake_rank ranks[FAKE_MAX];
    pthread_barrier_t barriers[TRAIN_GROUP_END][FAKE_MAX]; /* by the number of the group */
    struct fake_post {
        const void *data;
        const int64_t *counts;
    } posts[FAKE_MAX];
};

/* n processes, experts over `experts` of them. */
void fake_world_open(fake_world *world, int n, int experts);
void fake_world_close(fake_world *world);

/* Runs fn(user, rank) in a thread for each, to the end. */
void fake_world_run(fake_world *world, void (*fn)(void *user, int rank), void *user);

#endif
