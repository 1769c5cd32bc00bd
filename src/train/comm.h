/* Collectives: what the processes of one training run tell each other. One table of functions, with
 * MPI behind it (comm_mpi.c) or nothing (comm_single.c, a single process). */
#ifndef TRAIN_COMM_H
#define TRAIN_COMM_H

#include <stddef.h>
#include <stdint.h>

#include "marco/marco.h"

/* Who takes part. With P processes and experts spread over X of them (X divides P):
 *   WORLD     all P; rank = the process's own.
 *   EXPERTS   X neighbours, ranks r with the same r / X: together they hold every expert once;
 *             rank in the group: r % X.
 *   REPLICAS  P / X processes with the same r % X: they hold the same experts; rank: r / X. */
typedef enum train_group {
    TRAIN_WORLD,
    TRAIN_EXPERTS,
    TRAIN_REPLICAS,
    TRAIN_GROUP_END,
} train_group;

/* What was sent, for docs/scaling.md: bytes that left this process, by kind. */
typedef enum train_traffic {
    TRAIN_TRAFFIC_REDUCE,  /* all_reduce */
    TRAIN_TRAFFIC_SCATTER, /* reduce_scatter */
    TRAIN_TRAFFIC_GATHER,  /* all_gather, gather */
    TRAIN_TRAFFIC_EXPERTS, /* all_to_all */
    TRAIN_TRAFFIC_END,
} train_traffic;

typedef struct train_comm train_comm;

/* Collectives are called by all ranks of the group with the same sizes, from one thread at a time.
 * Sums are in an order that depends on the group's size alone. Every function may fail
 * (MARCO_ERROR_NETWORK) when a process is lost; the run is then over. */
typedef struct train_comm_ops {
    /* data[i] = sum over ranks; in place. */
    marco_status (*all_reduce_f32)(train_comm *c, train_group group, float *data, int64_t n,
                                   marco_error *error);
    marco_status (*all_reduce_f64)(train_comm *c, train_group group, double *data, int64_t n,
                                   marco_error *error);
    marco_status (*all_reduce_i64)(train_comm *c, train_group group, int64_t *data, int64_t n,
                                   marco_error *error);
    /* data [n], n a multiple of the group's size: this rank's n / size elements, at data + rank * n
     * / size, become the sum; the others are left undefined. */
    marco_status (*reduce_scatter_f32)(train_comm *c, train_group group, float *data, int64_t n,
                                       marco_error *error);
    /* data [size * bytes]: each rank's own part, at data + rank * bytes, comes to all. */
    marco_status (*all_gather)(train_comm *c, train_group group, void *data, size_t bytes,
                               marco_error *error);
    /* counts_out [size] -> counts_in [size]: out[r] goes to rank r. */
    marco_status (*all_to_all_i64)(train_comm *c, train_group group, const int64_t *out,
                                   int64_t *in, int64_t each, marco_error *error);
    /* Rows of `row` floats: n_out[r] rows, in order of r, go to rank r; n_in[r] come from it. */
    marco_status (*all_to_all_rows)(train_comm *c, train_group group, const float *out,
                                    const int64_t *n_out, float *in, const int64_t *n_in,
                                    int64_t row, marco_error *error);
    /* Of `bytes` bytes from rank `root`. */
    marco_status (*broadcast)(train_comm *c, train_group group, int root, void *data, size_t bytes,
                              marco_error *error);
    /* Every rank's `bytes` bytes at `data` come to rank 0's `all` [size * bytes] (NULL elsewhere).
     */
    marco_status (*gather)(train_comm *c, train_group group, const void *data, void *all,
                           size_t bytes, marco_error *error);
    marco_status (*barrier)(train_comm *c, train_group group, marco_error *error);
    void (*close)(train_comm *c);
} train_comm_ops;

struct train_comm {
    const train_comm_ops *ops;
    int rank[TRAIN_GROUP_END], size[TRAIN_GROUP_END];
    int local;                        /* processes of the world on this machine */
    uint64_t sent[TRAIN_TRAFFIC_END]; /* bytes, since the run began */
    uint64_t calls[TRAIN_TRAFFIC_END];
};

/* The processes that mpirun started, or this one alone; expert_ranks >= 1 is X. Errors where X does
 * not divide the number of processes, and where mpirun started several of a program built without
 * MPI, saying how to get it. */
marco_status train_comm_open(int expert_ranks, train_comm **out, marco_error *error);
void train_comm_close(train_comm *c); /* NULL is allowed */

/* Fails on every rank, naming the first that differs, where `data` is not the same on all:
 * versions, recipes, data. `what` is for the message. */
marco_status train_comm_agree(train_comm *c, const void *data, size_t bytes, const char *what,
                              marco_error *error);

/* Turns one rank's failure into everybody's: `status` is this rank's own so far. All ranks call it;
 * those that were well get MARCO_ERROR_CANCELLED naming the rank that was not. */
marco_status train_comm_settle(train_comm *c, marco_status status, marco_error *error);

#endif
