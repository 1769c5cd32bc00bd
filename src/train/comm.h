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

/* What was sent, for docs/scaling.md: bytes that left this process for others, by kind. Of what all
 * ranks are to have, a process is counted as the sender of its own part to each of the others,
 * whichever of them hands it on. */
typedef enum train_traffic {
    TRAIN_TRAFFIC_REDUCE,  /* all_reduce */
    TRAIN_TRAFFIC_SCATTER, /* reduce_scatter */
    TRAIN_TRAFFIC_GATHER,  /* all_gather, broadcast; also of agree and settle */
    TRAIN_TRAFFIC_EXPERTS, /* all_to_all */
    TRAIN_TRAFFIC_END,
} train_traffic;

typedef struct train_comm train_comm;

/* Collectives are called by all ranks of the group with the same sizes, in the same order, from the
 * thread that opened the comm. Sums begin with rank 0's numbers, then rank 1's and so on, and all
 * ranks get the same bits. Every function may fail (MARCO_ERROR_NETWORK) when a process is lost;
 * the run is then over. A group of one costs nothing. */
typedef struct train_comm_ops {
    /* data[i] = sum over ranks; in place. For few numbers: each rank sends all of its own to all
     * others. */
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
    /* See train_comm_spread, which checks that X divides the world. */
    marco_status (*spread)(train_comm *c, int expert_ranks, marco_error *error);
    void (*close)(train_comm *c);
} train_comm_ops;

struct train_comm {
    const train_comm_ops *ops;
    int rank[TRAIN_GROUP_END], size[TRAIN_GROUP_END];
    int sharers;                      /* processes that may use this one's processors, itself too */
    uint64_t sent[TRAIN_TRAFFIC_END]; /* bytes, since the run began */
    uint64_t *words; /* [processes] of agree and settle, which must not fail for want of memory */
    bool lost;       /* a collective has failed: the others cannot be reached any more */
};

/* The processes that mpirun started, or this one alone, with train_comm_spread(expert_ranks). Fails
 * where mpirun started several of a program built without MPI, saying how to get it. MPI is begun
 * here, and only where mpirun (or a scheduler in its place) started several; a process can do so
 * once. */
marco_status train_comm_open(int expert_ranks, train_comm **out, marco_error *error);

/* Spreads experts over expert_ranks processes from now on, the same number on all: X, 1 or more,
 * which must divide the number of processes. Fails on all or none. */
marco_status train_comm_spread(train_comm *c, int expert_ranks, marco_error *error);

/* Ends MPI once the others are here as well, which train_comm_settle as the last thing before sees
 * to. They are waited for for five seconds: where one does not come, MPI is left as it is, and
 * mpirun ends the others when this process does. NULL is allowed. */
void train_comm_close(train_comm *c);

/* Fails on every rank, naming the first that differs from rank 0, where `data` is not the same on
 * all: versions, recipes, data. `what` is for the message. */
marco_status train_comm_agree(train_comm *c, const void *data, size_t bytes, const char *what,
                              marco_error *error);

/* Turns one rank's failure into everybody's: `status` is this rank's own so far, `error` what it
 * has to say about it (or NULL). All ranks call it, and all get the status of the first that was
 * not well; those that were get its message too, with "process N: " before it. One that a
 * collective has failed for gets its own back at once. */
marco_status train_comm_settle(train_comm *c, marco_status status, marco_error *error);

/* ---- behind it ----------------------------------------------------------------------------- */

/* How many processes mpirun says it started, as the environment has it (Open MPI, MPICH and its
 * kin, Slurm): 0 where it did not start this one. */
int train_comm_started(void);

/* The table of one process, also of groups of one. */
extern const train_comm_ops train_comm_single_ops;

/* All is filled but `words`, which train_comm_open makes; of groups, TRAIN_WORLD at least. */
marco_status train_comm_single(train_comm **out, marco_error *error);
marco_status train_comm_mpi(train_comm **out, marco_error *error);

#endif
