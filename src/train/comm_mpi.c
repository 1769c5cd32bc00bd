/* Collectives over MPI (MPI: A Message-Passing Interface Standard, 3.1).
 *
 * MPI only moves bytes here. The standard merely advises that a sum come out the same for the same
 * ranks; implementations choose the order by size, and by who sits where. So sums are made here,
 * rank 0's numbers first. What is received from all for a sum, part by part, costs no more traffic
 * than the ring of a reduce-scatter: each rank sends every other one part.
 *
 * Counts are `int` in MPI 3, so what is larger goes in pieces. */
#include <limits.h>
#include <mpi.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/time.h"
#include "train/comm.h"

enum {
    PIECE = 1 << 30,     /* bytes of one message at most */
    PARTS = 16 << 20,    /* bytes of memory for parts on their way into a sum */
    PATIENCE_S = 5,      /* that the end waits for the other processes */
    POLL_NS = 1000000,   /* between looks at whether they have come */
    ALIGNED = 64,        /* bytes */
    VERSION_SHOWN = 100, /* characters of the library's name in messages */
};

/* What goes to a rank and comes from it. */
typedef struct peer {
    const uint8_t *out;
    uint8_t *in;
    size_t n_out, n_in; /* bytes left */
} peer;

typedef struct mpi_comm {
    train_comm base;
    MPI_Comm comms[TRAIN_GROUP_END]; /* of our own, so that errors come back to us */
    bool ours;                       /* MPI was begun here */
    peer *peers;                     /* [processes] */
    MPI_Request *requests;           /* [2 * processes] */
    uint8_t *parts;                  /* [PARTS] */
} mpi_comm;

static marco_status check(train_comm *c, int code, marco_error *error)
{
    if (code == MPI_SUCCESS)
        return MARCO_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int size = 0;
    MPI_Error_string(code, text, &size);
    c->lost = true;
    return base_fail(error, MARCO_ERROR_NETWORK,
                     "process %d of %d lost touch with the others: %s; start the run again to go "
                     "on from its last checkpoint",
                     c->rank[TRAIN_WORLD], c->size[TRAIN_WORLD], text);
}

static void count(train_comm *c, train_traffic kind, uint64_t bytes)
{
    c->sent[kind] += bytes;
}

/* What all others are to have of this rank's. */
static uint64_t to_others(const train_comm *c, train_group group, size_t bytes)
{
    return (uint64_t)(c->size[group] - 1) * bytes;
}

/* ---- exchange ------------------------------------------------------------------------------ */

static marco_status post(mpi_comm *m, train_group group, int r, bool receive, int *n,
                         marco_error *error)
{
    peer *p = &m->peers[r];
    size_t left = receive ? p->n_in : p->n_out;
    if (left == 0)
        return MARCO_OK;
    int bytes = left > PIECE ? PIECE : (int)left;
    int code;
    if (receive) {
        code = MPI_Irecv(p->in, bytes, MPI_BYTE, r, 0, m->comms[group], &m->requests[*n]);
        p->in += bytes;
        p->n_in -= (size_t)bytes;
    } else {
        code = MPI_Isend(p->out, bytes, MPI_BYTE, r, 0, m->comms[group], &m->requests[*n]);
        p->out += bytes;
        p->n_out -= (size_t)bytes;
    }
    ++*n;
    return check(&m->base, code, error);
}

/* Sends and receives what m->peers says, this rank's own left out. Two ranks cut what they have for
 * each other into the same pieces, in the same order. */
static marco_status exchange(mpi_comm *m, train_group group, marco_error *error)
{
    int rank = m->base.rank[group], size = m->base.size[group], n;
    do {
        n = 0;
        marco_status status = MARCO_OK;
        for (int k = 1; k < size && !status; k++)
            status = post(m, group, (rank + size - k) % size, true, &n, error);
        for (int k = 1; k < size && !status; k++)
            status = post(m, group, (rank + k) % size, false, &n, error);
        if (!status && n > 0)
            status = check(&m->base, MPI_Waitall(n, m->requests, MPI_STATUSES_IGNORE), error);
        if (status)
            return status;
    } while (n > 0);
    return MARCO_OK;
}

/* A type of `bytes` bytes, one of which begins every `stride`. */
static int strided(size_t bytes, size_t stride, MPI_Datatype *type)
{
    MPI_Datatype whole;
    int code = MPI_Type_contiguous((int)bytes, MPI_BYTE, &whole);
    if (code != MPI_SUCCESS)
        return code;
    code = MPI_Type_create_resized(whole, 0, (MPI_Aint)stride, type);
    MPI_Type_free(&whole);
    if (code == MPI_SUCCESS && (code = MPI_Type_commit(type)) != MPI_SUCCESS)
        MPI_Type_free(type);
    return code;
}

static marco_status collect(mpi_comm *m, train_group group, uint8_t *all, size_t bytes,
                            marco_error *error)
{
    for (size_t at = 0; at < bytes; at += PIECE) {
        size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        MPI_Datatype type;
        int code = strided(n, bytes, &type);
        if (code == MPI_SUCCESS) {
            code = MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, all + at, 1, type,
                                 m->comms[group]);
            MPI_Type_free(&type);
        }
        marco_status status = check(&m->base, code, error);
        if (status)
            return status;
    }
    return MARCO_OK;
}

/* ---- sums ---------------------------------------------------------------------------------- */

typedef void (*add_fn)(void *restrict sum, const void *restrict x, size_t n);

static void add_f32(void *restrict sum, const void *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((float *)sum)[i] += ((const float *)x)[i];
}

static void add_f64(void *restrict sum, const void *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((double *)sum)[i] += ((const double *)x)[i];
}

static void add_i64(void *restrict sum, const void *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint64_t *)sum)[i] += ((const uint64_t *)x)[i];
}

/* Elements of `each` bytes of one rank that have room among the parts. */
static size_t room(int size, size_t each)
{
    size_t bytes = PARTS / (size_t)size / ALIGNED * ALIGNED;
    return bytes / each;
}

static marco_status all_reduce(train_comm *c, train_group group, uint8_t *data, int64_t n,
                               size_t each, add_fn add, marco_error *error)
{
    mpi_comm *m = (mpi_comm *)c;
    int size = c->size[group];
    if (size == 1 || n == 0)
        return MARCO_OK;
    count(c, TRAIN_TRAFFIC_REDUCE, to_others(c, group, (size_t)n * each));
    size_t step = room(size, each);
    for (size_t at = 0; at < (size_t)n; at += step) {
        size_t k = (size_t)n - at < step ? (size_t)n - at : step, bytes = k * each;
        memcpy(m->parts + (size_t)c->rank[group] * bytes, data + at * each, bytes);
        marco_status status = collect(m, group, m->parts, bytes, error);
        if (status)
            return status;
        for (int r = 1; r < size; r++)
            add(m->parts, m->parts + (size_t)r * bytes, k);
        memcpy(data + at * each, m->parts, bytes);
    }
    return MARCO_OK;
}

static marco_status all_reduce_f64(train_comm *c, train_group group, double *data, int64_t n,
                                   marco_error *error)
{
    return all_reduce(c, group, (uint8_t *)data, n, sizeof *data, add_f64, error);
}

static marco_status all_reduce_i64(train_comm *c, train_group group, int64_t *data, int64_t n,
                                   marco_error *error)
{
    return all_reduce(c, group, (uint8_t *)data, n, sizeof *data, add_i64, error);
}

/* The same k floats of every rank's part, to the ranks they belong to; their sum into ours. */
static marco_status scatter(mpi_comm *m, train_group group, float *data, size_t part, size_t at,
                            size_t k, marco_error *error)
{
    int rank = m->base.rank[group], size = m->base.size[group];
    float *own = data + (size_t)rank * part + at, *parts = (float *)m->parts;
    for (int r = 0; r < size; r++)
        m->peers[r] = (peer){
            .out = (const uint8_t *)(data + (size_t)r * part + at),
            .in = (uint8_t *)(parts + (size_t)r * k),
            .n_out = k * sizeof(float),
            .n_in = k * sizeof(float),
        };
    marco_status status = exchange(m, group, error);
    if (status)
        return status;
    if (rank == 0) {
        for (int r = 1; r < size; r++)
            add_f32(own, parts + (size_t)r * k, k);
        return MARCO_OK;
    }
    for (int r = 1; r < size; r++)
        add_f32(parts, r == rank ? own : parts + (size_t)r * k, k);
    memcpy(own, parts, k * sizeof(float));
    return MARCO_OK;
}

static marco_status reduce_scatter_f32(train_comm *c, train_group group, float *data, int64_t n,
                                       marco_error *error)
{
    int size = c->size[group];
    size_t part = (size_t)n / (size_t)size, step = room(size, sizeof *data);
    if (size == 1 || n == 0)
        return MARCO_OK;
    count(c, TRAIN_TRAFFIC_SCATTER, to_others(c, group, part * sizeof *data));
    marco_status status = MARCO_OK;
    for (size_t at = 0; at < part && !status; at += step)
        status = scatter((mpi_comm *)c, group, data, part, at, part - at < step ? part - at : step,
                         error);
    return status;
}

/* ---- moves --------------------------------------------------------------------------------- */

static marco_status all_gather(train_comm *c, train_group group, void *data, size_t bytes,
                               marco_error *error)
{
    if (c->size[group] == 1 || bytes == 0)
        return MARCO_OK;
    count(c, TRAIN_TRAFFIC_GATHER, to_others(c, group, bytes));
    return collect((mpi_comm *)c, group, data, bytes, error);
}

static marco_status all_to_all_rows(train_comm *c, train_group group, const float *out,
                                    const int64_t *n_out, float *in, const int64_t *n_in,
                                    int64_t row, marco_error *error)
{
    mpi_comm *m = (mpi_comm *)c;
    int rank = c->rank[group], size = c->size[group];
    if (size == 1)
        return train_comm_single_ops.all_to_all_rows(c, group, out, n_out, in, n_in, row, error);
    size_t row_bytes = (size_t)row * sizeof *out;
    const uint8_t *from = (const uint8_t *)out;
    uint8_t *to = (uint8_t *)in;
    uint64_t sent = 0;
    for (int r = 0; r < size; r++) {
        size_t leaves = (size_t)n_out[r] * row_bytes, comes = (size_t)n_in[r] * row_bytes;
        m->peers[r] = (peer){.out = from, .in = to, .n_out = leaves, .n_in = comes};
        if (r == rank && leaves)
            memcpy(to, from, leaves);
        sent += r == rank ? 0 : leaves;
        /* Nothing is added to what may be NULL. */
        from = leaves ? from + leaves : from;
        to = comes ? to + comes : to;
    }
    count(c, TRAIN_TRAFFIC_EXPERTS, sent);
    return exchange(m, group, error);
}

static marco_status all_to_all_i64(train_comm *c, train_group group, const int64_t *out,
                                   int64_t *in, int64_t each, marco_error *error)
{
    mpi_comm *m = (mpi_comm *)c;
    if (c->size[group] == 1)
        return train_comm_single_ops.all_to_all_i64(c, group, out, in, each, error);
    size_t bytes = (size_t)each * sizeof *out;
    for (int r = 0; r < c->size[group]; r++) {
        const uint8_t *from = (const uint8_t *)(out + r * each);
        uint8_t *to = (uint8_t *)(in + r * each);
        m->peers[r] = (peer){.out = from, .in = to, .n_out = bytes, .n_in = bytes};
        if (r == c->rank[group])
            memcpy(to, from, bytes);
    }
    count(c, TRAIN_TRAFFIC_EXPERTS, to_others(c, group, bytes));
    return exchange(m, group, error);
}

static marco_status broadcast(train_comm *c, train_group group, int root, void *data, size_t bytes,
                              marco_error *error)
{
    mpi_comm *m = (mpi_comm *)c;
    if (c->size[group] == 1)
        return MARCO_OK;
    count(c, TRAIN_TRAFFIC_GATHER, c->rank[group] == root ? to_others(c, group, bytes) : 0);
    marco_status status = MARCO_OK;
    for (size_t at = 0; at < bytes && !status; at += PIECE) {
        size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        status = check(c, MPI_Bcast((uint8_t *)data + at, (int)n, MPI_BYTE, root, m->comms[group]),
                       error);
    }
    return status;
}

static marco_status spread(train_comm *c, int expert_ranks, marco_error *error)
{
    mpi_comm *m = (mpi_comm *)c;
    int rank = c->rank[TRAIN_WORLD];
    int colours[] = {[TRAIN_EXPERTS] = rank / expert_ranks, [TRAIN_REPLICAS] = rank % expert_ranks};
    for (int g = TRAIN_EXPERTS; g <= TRAIN_REPLICAS; g++) {
        MPI_Comm made;
        marco_status status =
            check(c, MPI_Comm_split(m->comms[TRAIN_WORLD], colours[g], rank, &made), error);
        if (status)
            return status;
        if (m->comms[g] != MPI_COMM_NULL)
            MPI_Comm_free(&m->comms[g]);
        m->comms[g] = made;
        MPI_Comm_rank(made, &c->rank[g]);
        MPI_Comm_size(made, &c->size[g]);
    }
    return MARCO_OK;
}

/* ---- beginning and end --------------------------------------------------------------------- */

/* Whether all processes have come to their end. */
static bool all_are_here(mpi_comm *m)
{
    MPI_Request request;
    if (m->base.lost || MPI_Ibarrier(m->comms[TRAIN_WORLD], &request) != MPI_SUCCESS)
        return false;
    double deadline = base_now() + PATIENCE_S;
    int done = 0;
    while (MPI_Test(&request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done) {
        if (base_now() > deadline)
            return false;
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
    return done;
}

static void close_mpi(train_comm *c)
{
    mpi_comm *m = (mpi_comm *)c;
    if (all_are_here(m)) {
        for (int g = 0; g < TRAIN_GROUP_END; g++)
            if (m->comms[g] != MPI_COMM_NULL)
                MPI_Comm_free(&m->comms[g]);
        if (m->ours)
            MPI_Finalize();
    }
    base_free(m->peers);
    base_free(m->requests);
    base_free(m->parts);
    base_free(m);
}

static const train_comm_ops OPS = {
    .all_reduce_f64 = all_reduce_f64,
    .all_reduce_i64 = all_reduce_i64,
    .reduce_scatter_f32 = reduce_scatter_f32,
    .all_gather = all_gather,
    .all_to_all_i64 = all_to_all_i64,
    .all_to_all_rows = all_to_all_rows,
    .broadcast = broadcast,
    .spread = spread,
    .close = close_mpi,
};

static marco_status start_mpi(bool *ours, marco_error *error)
{
    int begun = 0, ended = 0, threads = 0;
    MPI_Finalized(&ended);
    if (ended)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "MPI has been ended in this process: a process can train once under "
                         "mpirun");
    MPI_Initialized(&begun);
    *ours = !begun;
    if (begun)
        MPI_Query_thread(&threads);
    else if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &threads) != MPI_SUCCESS)
        return base_fail(error, MARCO_ERROR_NETWORK, "MPI does not start");
    if (*ours) /* also for what concerns no group */
        MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (threads < MPI_THREAD_FUNNELED)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "this MPI does not run beside threads (MPI_THREAD_FUNNELED): use one that "
                         "does, such as Open MPI 4");
    return MARCO_OK;
}

/* The mpirun of another MPI starts processes that do not know of each other. */
static marco_status check_size(int size, marco_error *error)
{
    int started = train_comm_started();
    if (size == started)
        return MARCO_OK;
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int n = 0;
    MPI_Get_library_version(version, &n);
    version[strcspn(version, ",\n")] = '\0';
    return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                     "mpirun started %d processes, but MPI knows of %d: start them with the mpirun "
                     "of the MPI that this program was built with (%.*s)",
                     started, size, VERSION_SHOWN, version);
}

/* Processes of this machine whose processors are not all others than this one's. */
static marco_status count_sharers(mpi_comm *m, marco_error *error)
{
    train_comm *c = &m->base;
    MPI_Comm near;
    marco_status status = check(c,
                                MPI_Comm_split_type(m->comms[TRAIN_WORLD], MPI_COMM_TYPE_SHARED,
                                                    c->rank[TRAIN_WORLD], MPI_INFO_NULL, &near),
                                error);
    if (status)
        return status;
    base_cpus own, theirs;
    int size = 1, rank = 0;
    MPI_Comm_size(near, &size);
    MPI_Comm_rank(near, &rank);
    if (!base_cpus_allowed(&own))
        memset(&own, 0xFF, sizeof own);
    c->sharers = 0;
    for (int r = 0; r < size && !status; r++) {
        theirs = own;
        status = check(c, MPI_Bcast(&theirs, (int)sizeof theirs, MPI_BYTE, r, near), error);
        unsigned long common = 0;
        for (size_t i = 0; i < sizeof own.bits / sizeof *own.bits; i++)
            common |= own.bits[i] & theirs.bits[i];
        c->sharers += common != 0 || r == rank;
    }
    MPI_Comm_free(&near);
    return status;
}

static marco_status make_world(mpi_comm *m, marco_error *error)
{
    train_comm *c = &m->base;
    marco_status status = check(c, MPI_Comm_dup(MPI_COMM_WORLD, &m->comms[TRAIN_WORLD]), error);
    if (status)
        return status;
    MPI_Comm world = m->comms[TRAIN_WORLD];
    MPI_Comm_set_errhandler(world, MPI_ERRORS_RETURN); /* those made of it inherit this */
    MPI_Comm_rank(world, &c->rank[TRAIN_WORLD]);
    MPI_Comm_size(world, &c->size[TRAIN_WORLD]);
    status = check_size(c->size[TRAIN_WORLD], error);
    return status ? status : count_sharers(m, error);
}

marco_status train_comm_mpi(train_comm **out, marco_error *error)
{
    *out = NULL;
    bool ours = false;
    marco_status status = start_mpi(&ours, error);
    if (status)
        return status;
    mpi_comm *m = base_calloc(1, sizeof *m);
    if (!m)
        return base_fail_memory(error, sizeof *m, "collectives");
    *m = (mpi_comm){.base.ops = &OPS, .ours = ours};
    for (int g = 0; g < TRAIN_GROUP_END; g++)
        m->comms[g] = MPI_COMM_NULL;
    status = make_world(m, error);
    if (!status) {
        size_t size = (size_t)m->base.size[TRAIN_WORLD];
        m->peers = base_alloc_array(size, sizeof *m->peers);
        m->requests = base_alloc_array(2 * size, sizeof *m->requests);
        m->parts = base_alloc_aligned(PARTS);
        if (!m->peers || !m->requests || !m->parts) {
            m->base.lost = true; /* to the others, who have gone on */
            status = base_fail_memory(error, PARTS, "collectives");
        }
    }
    if (status) {
        close_mpi(&m->base);
        return status;
    }
    *out = &m->base;
    return MARCO_OK;
}
