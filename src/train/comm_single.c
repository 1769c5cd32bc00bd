/* A training run of one process: there is nobody to talk to. */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "train/comm.h"

static marco_status reduce_scatter_f32(train_comm *c, train_group group, float *data, int64_t n,
                                       marco_error *error)
{
    (void)c, (void)group, (void)data, (void)n, (void)error;
    return MARCO_OK;
}

static marco_status all_reduce_f64(train_comm *c, train_group group, double *data, int64_t n,
                                   marco_error *error)
{
    (void)c, (void)group, (void)data, (void)n, (void)error;
    return MARCO_OK;
}

static marco_status all_reduce_i64(train_comm *c, train_group group, int64_t *data, int64_t n,
                                   marco_error *error)
{
    (void)c, (void)group, (void)data, (void)n, (void)error;
    return MARCO_OK;
}

static marco_status all_gather(train_comm *c, train_group group, void *data, size_t bytes,
                               marco_error *error)
{
    (void)c, (void)group, (void)data, (void)bytes, (void)error;
    return MARCO_OK;
}

static marco_status all_to_all_i64(train_comm *c, train_group group, const int64_t *out,
                                   int64_t *in, int64_t each, marco_error *error)
{
    (void)c, (void)group, (void)error;
    memmove(in, out, (size_t)each * sizeof *in);
    return MARCO_OK;
}

static marco_status all_to_all_rows(train_comm *c, train_group group, const float *out,
                                    const int64_t *n_out, float *in, const int64_t *n_in,
                                    int64_t row, marco_error *error)
{
    (void)c, (void)group, (void)n_in, (void)error;
    if (*n_out > 0)
        memmove(in, out, (size_t)*n_out * (size_t)row * sizeof *in);
    return MARCO_OK;
}

static marco_status broadcast(train_comm *c, train_group group, int root, void *data, size_t bytes,
                              marco_error *error)
{
    (void)c, (void)group, (void)root, (void)data, (void)bytes, (void)error;
    return MARCO_OK;
}

static marco_status spread(train_comm *c, int expert_ranks, marco_error *error)
{
    (void)c, (void)expert_ranks, (void)error;
    return MARCO_OK;
}

static void close_single(train_comm *c)
{
    base_free(c);
}

const train_comm_ops train_comm_single_ops = {
    .all_reduce_f64 = all_reduce_f64,
    .all_reduce_i64 = all_reduce_i64,
    .reduce_scatter_f32 = reduce_scatter_f32,
    .all_gather = all_gather,
    .all_to_all_i64 = all_to_all_i64,
    .all_to_all_rows = all_to_all_rows,
    .broadcast = broadcast,
    .spread = spread,
    .close = close_single,
};

marco_status train_comm_single(train_comm **out, marco_error *error)
{
    *out = base_calloc(1, sizeof **out);
    if (!*out)
        return base_fail_memory(error, sizeof **out, "a single process's collectives");
    **out = (train_comm){.ops = &train_comm_single_ops, .size = {1, 1, 1}, .sharers = 1};
    return MARCO_OK;
}
