/* Collectives of a single process, and what mpirun's traces in the environment say. tests/mpi has
 * several processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/memory.h"
#include "train/comm.h"

static const char *const TRACES[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK",
                                     "SLURM_STEP_NUM_TASKS"};

static int no_traces(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof TRACES / sizeof *TRACES; i++)
        unsetenv(TRACES[i]);
    return 0;
}

static void numbers_stay_with_a_single_process(void **state)
{
    (void)state;
    train_comm *c;
    assert_int_equal(train_comm_open(1, &c, NULL), MARCO_OK);
    float f[] = {1, 2}, rows[6] = {1, 2, 3, 4, 5, 6}, rows_in[6] = {0};
    double d[] = {3};
    int64_t n[] = {4, 5}, n_in[2] = {0}, count = 3;
    for (train_group g = TRAIN_WORLD; g < TRAIN_GROUP_END; g++) {
        assert_int_equal(c->rank[g], 0);
        assert_int_equal(c->size[g], 1);
        assert_int_equal(c->ops->all_reduce_f64(c, g, d, 1, NULL), MARCO_OK);
        assert_int_equal(c->ops->all_reduce_i64(c, g, n, 2, NULL), MARCO_OK);
        assert_int_equal(c->ops->reduce_scatter_f32(c, g, f, 2, NULL), MARCO_OK);
        assert_int_equal(c->ops->all_gather(c, g, f, sizeof f, NULL), MARCO_OK);
        assert_int_equal(c->ops->broadcast(c, g, 0, f, sizeof f, NULL), MARCO_OK);
        assert_int_equal(c->ops->all_to_all_i64(c, g, n, n_in, 2, NULL), MARCO_OK);
        assert_memory_equal(n, n_in, sizeof n);
        assert_int_equal(c->ops->all_to_all_rows(c, g, rows, &count, rows_in, &count, 2, NULL),
                         MARCO_OK);
        assert_memory_equal(rows, rows_in, sizeof rows);
    }
    assert_true(f[0] == 1 && f[1] == 2 && d[0] == 3 && n[0] == 4);
    int64_t none = 0;
    assert_int_equal(c->ops->all_to_all_rows(c, TRAIN_WORLD, NULL, &none, NULL, &none, 8, NULL),
                     MARCO_OK);
    assert_int_equal(c->sharers, 1);
    for (int k = 0; k < TRAIN_TRAFFIC_END; k++)
        assert_true(c->sent[k] == 0);
    train_comm_close(c);
    train_comm_close(NULL);
}

static void a_single_process_agrees_and_keeps_its_own_error(void **state)
{
    (void)state;
    train_comm *c;
    marco_error error;
    assert_int_equal(train_comm_open(1, &c, NULL), MARCO_OK);
    assert_int_equal(train_comm_agree(c, "x", 1, "letter", &error), MARCO_OK);
    assert_int_equal(train_comm_settle(c, MARCO_OK, &error), MARCO_OK);
    base_fail(&error, MARCO_ERROR_SPACE, "the disk is full");
    assert_int_equal(train_comm_settle(c, MARCO_ERROR_SPACE, &error), MARCO_ERROR_SPACE);
    assert_string_equal(error.message, "the disk is full");
    assert_int_equal(error.status, MARCO_ERROR_SPACE);
    assert_int_equal(train_comm_settle(c, MARCO_ERROR_SPACE, NULL), MARCO_ERROR_SPACE);
    train_comm_close(c);
}

static void experts_need_processes(void **state)
{
    (void)state;
    train_comm *c;
    marco_error error;
    assert_int_equal(train_comm_open(2, &c, &error), MARCO_ERROR_ARGUMENT);
    assert_null(c);
    assert_non_null(strstr(error.message, "mpirun -n 2"));
    assert_int_equal(train_comm_open(0, &c, &error), MARCO_ERROR_ARGUMENT);
    assert_int_equal(train_comm_open(-3, &c, &error), MARCO_ERROR_ARGUMENT);
    for (uint64_t n = 1;; n++) {
        base_alloc_fail_at(n);
        marco_status status = train_comm_open(1, &c, &error);
        base_alloc_fail_at(0);
        if (status == MARCO_OK)
            break;
        assert_int_equal(status, MARCO_ERROR_MEMORY);
        assert_null(c);
    }
    train_comm_close(c);
}

static void assert_started(const char *name, const char *value, int expected)
{
    setenv(name, value, 1);
    assert_int_equal(train_comm_started(), expected);
}

static void environments_tell_who_started_a_process(void **state)
{
    (void)state;
    assert_int_equal(train_comm_started(), 0);
    static const char *const odd[] = {"", "x", "0", "-4", "4x", "99999999999999999999"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        assert_started("OMPI_COMM_WORLD_SIZE", odd[i], 0);
    assert_started("PMI_SIZE", "8", 8); /* MPICH */
    assert_started("OMPI_COMM_WORLD_SIZE", "4", 4);
    no_traces(NULL);
    assert_started("SLURM_STEP_NUM_TASKS", "6", 0); /* srun without MPI */
    assert_started("PMIX_RANK", "0", 6);
    unsetenv("SLURM_STEP_NUM_TASKS");
    assert_started("PMIX_RANK", "3", 4); /* at least so many */
    assert_started("PMIX_RANK", "0", 1);
}

#if !MARCO_HAS_MPI
static void mpirun_needs_a_build_with_mpi(void **state)
{
    (void)state;
    train_comm *c;
    marco_error error;
    setenv("OMPI_COMM_WORLD_SIZE", "4", 1);
    assert_int_equal(train_comm_open(1, &c, &error), MARCO_ERROR_UNSUPPORTED);
    assert_null(c);
    assert_non_null(strstr(error.message, "4 processes"));
    assert_non_null(strstr(error.message, "-DMARCO_MPI=ON"));
    setenv("OMPI_COMM_WORLD_SIZE", "1", 1);
    assert_int_equal(train_comm_open(1, &c, &error), MARCO_OK);
    train_comm_close(c);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(numbers_stay_with_a_single_process, no_traces),
        cmocka_unit_test_setup(a_single_process_agrees_and_keeps_its_own_error, no_traces),
        cmocka_unit_test_setup(experts_need_processes, no_traces),
        cmocka_unit_test_setup(environments_tell_who_started_a_process, no_traces),
#if !MARCO_HAS_MPI
        cmocka_unit_test_setup(mpirun_needs_a_build_with_mpi, no_traces),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
