#include "train/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

static const char HOW_TO_GET_MPI[] =
    "(Debian, Ubuntu: apt-get install libopenmpi-dev openmpi-bin, then cmake -DMARCO_MPI=ON)";

static int number_in(const char *name)
{
    const char *text = getenv(name);
    if (!text || !*text)
        return 0;
    char *end;
    long n = strtol(text, &end, 10);
    return *end == '\0' && n > 0 && n < 1 << 30 ? (int)n : 0;
}

int train_comm_started(void)
{
    static const char *const sizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int n = number_in(sizes[i]);
        if (n > 0)
            return n;
    }
    /* PMIx tells a process its rank, and only Slurm how many there are. */
    if (!getenv("PMIX_RANK"))
        return 0;
    int n = number_in("SLURM_STEP_NUM_TASKS");
    return n > 0 ? n : number_in("PMIX_RANK") + 1;
}

static marco_status begin(train_comm **out, marco_error *error)
{
    int started = train_comm_started();
#if MARCO_HAS_MPI
    if (started > 1)
        return train_comm_mpi(out, error);
#else
    if (started > 1)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "mpirun started %d processes, but this program was built without MPI: "
                         "build it with %s",
                         started, HOW_TO_GET_MPI);
#endif
    return train_comm_single(out, error);
}

marco_status train_comm_open(int expert_ranks, train_comm **out, marco_error *error)
{
    *out = NULL;
    train_comm *c;
    marco_status status = begin(&c, error);
    if (status)
        return status;
    size_t size = (size_t)c->size[TRAIN_WORLD];
    c->words = base_alloc_array(size, sizeof *c->words);
    if (!c->words) {
        c->lost = true; /* to the others, who have gone on */
        status = base_fail_memory(error, size * sizeof *c->words, "the processes' words");
    } else {
        status = train_comm_spread(c, expert_ranks, error);
    }
    if (status) {
        train_comm_close(c);
        return status;
    }
    *out = c;
    return MARCO_OK;
}

void train_comm_close(train_comm *c)
{
    if (!c)
        return;
    base_free(c->words);
    c->ops->close(c);
}

/* FNV-1a (draft-eastlake-fnv), 64 bits: processes are to be told apart, not kept from lying. */
static uint64_t digest(const uint8_t *bytes, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

/* Every rank's `word` into c->words. */
static marco_status exchange(train_comm *c, uint64_t word, marco_error *error)
{
    c->words[c->rank[TRAIN_WORLD]] = word;
    return c->ops->all_gather(c, TRAIN_WORLD, c->words, sizeof word, error);
}

marco_status train_comm_spread(train_comm *c, int expert_ranks, marco_error *error)
{
    int size = c->size[TRAIN_WORLD];
    marco_status status = train_comm_agree(c, &expert_ranks, sizeof expert_ranks,
                                           "number of processes to spread experts over", error);
    if (status)
        return status;
    if (expert_ranks < 1)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "experts cannot be spread over %d processes: give 1 or more",
                         expert_ranks);
    if (size == 1 && expert_ranks > 1)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "experts cannot be spread over %d processes where there is one: start "
                         "them with mpirun -n %d%s%s",
                         expert_ranks, expert_ranks, MARCO_HAS_MPI ? "" : " and a build with MPI ",
                         MARCO_HAS_MPI ? "" : HOW_TO_GET_MPI);
    if (size % expert_ranks)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "experts cannot be spread over %d of %d processes: choose a number that "
                         "divides %d",
                         expert_ranks, size, size);
    return c->ops->spread(c, expert_ranks, error);
}

marco_status train_comm_agree(train_comm *c, const void *data, size_t bytes, const char *what,
                              marco_error *error)
{
    marco_status status = exchange(c, digest(data, bytes), error);
    if (status)
        return status;
    for (int r = 1; r < c->size[TRAIN_WORLD]; r++)
        if (c->words[r] != c->words[0])
            return base_fail(error, MARCO_ERROR_ARGUMENT,
                             "process %d of %d has another %s than process 0: give all of them the "
                             "same",
                             r, c->size[TRAIN_WORLD], what);
    return MARCO_OK;
}

marco_status train_comm_settle(train_comm *c, marco_status own, marco_error *error)
{
    if (c->lost)
        return own;
    marco_error *heard = own ? NULL : error; /* what this rank has to say stays */
    marco_status status = exchange(c, (uint64_t)(int64_t)own, heard);
    if (status)
        return own ? own : status;
    int size = c->size[TRAIN_WORLD], bad = 0;
    while (bad < size && c->words[bad] == MARCO_OK)
        bad++;
    if (bad == size)
        return MARCO_OK;
    marco_status theirs = (marco_status)(int64_t)c->words[bad];
    char message[sizeof error->message] = "";
    if (own)
        snprintf(message, sizeof message, "%s", error ? error->message : marco_status_text(own));
    status = c->ops->broadcast(c, TRAIN_WORLD, bad, message, sizeof message, heard);
    if (own) {
        if (error)
            error->status = theirs;
        return theirs;
    }
    if (status)
        return status;
    message[sizeof message - 1] = '\0';
    return base_fail(error, theirs, "process %d: %s", bad, message);
}
