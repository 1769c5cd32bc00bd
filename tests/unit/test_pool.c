/* The thread pool: every part once, whatever the number of threads and parts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/pool.h"

enum { MAX_PARTS = 1000 };

typedef struct tally {
    _Atomic int visits[MAX_PARTS];
    _Atomic int bad_thread;
    int n_threads;
} tally;

static void visit(void *user, int64_t part, int thread)
{
    tally *t = user;
    atomic_fetch_add(&t->visits[part], 1);
    if (thread < 0 || thread >= t->n_threads)
        atomic_fetch_add(&t->bad_thread, 1);
}

static void every_part_runs_once(void **state)
{
    (void)state;
    static tally t;
    for (int n_threads = 1; n_threads <= 5; n_threads++) {
        base_pool *pool;
        assert_int_equal(base_pool_create(n_threads, &pool, NULL), MARCO_OK);
        assert_int_equal(base_pool_threads(pool), n_threads);
        for (int round = 0; round < 400; round++) {
            int n_parts = round * 7 % (MAX_PARTS + 1);
            memset(&t, 0, sizeof t);
            t.n_threads = n_threads;
            base_pool_run(pool, visit, &t, n_parts);
            for (int i = 0; i < MAX_PARTS; i++)
                assert_int_equal(t.visits[i], i < n_parts);
            assert_int_equal(t.bad_thread, 0);
        }
        base_pool_destroy(pool);
    }
}

/* What a task writes is seen by the caller, and by the next task on another thread. */
static void add_neighbour(void *user, int64_t part, int thread)
{
    (void)thread;
    int64_t *cells = user;
    cells[part] = cells[(part + 1) % 64 + 64] + 1;
}

static void results_are_seen_across_tasks(void **state)
{
    (void)state;
    base_pool *pool;
    int64_t cells[128] = {0};
    assert_int_equal(base_pool_create(4, &pool, NULL), MARCO_OK);
    for (int round = 1; round <= 500; round++) {
        base_pool_run(pool, add_neighbour, cells, 64);
        for (int i = 0; i < 64; i++)
            assert_int_equal(cells[i], round);
        memcpy(cells + 64, cells, 64 * sizeof *cells);
    }
    base_pool_destroy(pool);
}

static void no_pool_means_the_calling_thread(void **state)
{
    (void)state;
    static tally t;
    memset(&t, 0, sizeof t);
    t.n_threads = 1;
    assert_int_equal(base_pool_threads(NULL), 1);
    base_pool_run(NULL, visit, &t, 10);
    assert_int_equal(t.visits[9], 1);
    assert_int_equal(t.bad_thread, 0);
}

static void a_pool_that_cannot_be_made_leaves_nothing(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 2; n++) {
        base_pool *pool;
        marco_error error;
        base_alloc_fail_at(n);
        assert_int_equal(base_pool_create(3, &pool, &error), MARCO_ERROR_MEMORY);
        base_alloc_fail_at(0);
    }
}

static void there_is_a_core(void **state)
{
    (void)state;
    assert_true(base_cpu_count() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_runs_once),
        cmocka_unit_test(results_are_seen_across_tasks),
        cmocka_unit_test(no_pool_means_the_calling_thread),
        cmocka_unit_test(a_pool_that_cannot_be_made_leaves_nothing),
        cmocka_unit_test(there_is_a_core),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
