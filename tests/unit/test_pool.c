/* The thread pool: every part once, whatever the number of threads and parts. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

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
    static const int counts[] = {1, 2, 3, 5, 8, 40};
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
        int n_threads = counts[k];
        base_pool *pool;
        assert_int_equal(base_pool_create(n_threads, &pool, NULL), MARCO_OK);
        assert_int_equal(base_pool_threads(pool), n_threads);
        for (int round = 0; round < 400; round++) {
            int n_parts = round * 7 % (MAX_PARTS + 1);
            memset(&t, 0, sizeof t);
            t.n_threads = n_threads;
            if (round % 2)
                base_pool_run_lanes(pool, visit, &t, n_parts);
            else
                base_pool_run(pool, visit, &t, n_parts);
            for (int i = 0; i < MAX_PARTS; i++)
                assert_int_equal(t.visits[i], i < n_parts);
            assert_int_equal(t.bad_thread, 0);
        }
        base_pool_destroy(pool);
    }
}

/* One thread takes its lane, which is everything, in order. */
static void note_order(void *user, int64_t part, int thread)
{
    (void)thread;
    int64_t *expected = user;
    assert_int_equal(part, *expected);
    ++*expected;
}

static void a_lane_is_taken_from_end_to_end(void **state)
{
    (void)state;
    int64_t expected = 0;
    base_pool_run_lanes(NULL, note_order, &expected, 100);
    assert_int_equal(expected, 100);

    /* Of two lanes, whoever runs alone takes its own first, and then the other's. */
    static tally t = {.n_threads = 2};
    base_pool *pool;
    assert_int_equal(base_pool_create(2, &pool, NULL), MARCO_OK);
    for (int round = 0; round < 200; round++) {
        memset(t.visits, 0, sizeof t.visits);
        base_pool_run_lanes(pool, visit, &t, 7);
        for (int i = 0; i < 7; i++)
            assert_int_equal(t.visits[i], 1);
    }
    base_pool_destroy(pool);
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

/* Tasks so short that the next begins while threads still look for parts of the last. Each has a
 * stamp of its own, and its parts are of that one. */
typedef struct stamped {
    int64_t stamp, n_parts;
    _Atomic int64_t parts, bad;
} stamped;

static _Atomic int64_t current;

static void check_stamp(void *user, int64_t part, int thread)
{
    stamped *s = user;
    (void)thread;
    if (s->stamp != atomic_load(&current) || part < 0 || part >= s->n_parts)
        atomic_fetch_add(&s->bad, 1);
    atomic_fetch_add(&s->parts, part + 1);
}

static void late_threads_take_parts_of_the_task_there_is(void **state)
{
    (void)state;
    enum { ROUNDS = 20000 };
    for (int n_threads = 2; n_threads <= 6; n_threads += 2) {
        base_pool *pool;
        assert_int_equal(base_pool_create(n_threads, &pool, NULL), MARCO_OK);
        for (int64_t i = 0; i < ROUNDS; i++) {
            stamped s = {.stamp = i, .n_parts = i % 4};
            atomic_store(&current, i);
            base_pool_run(pool, check_stamp, &s, s.n_parts);
            assert_int_equal(s.parts, s.n_parts * (s.n_parts + 1) / 2);
            assert_int_equal(s.bad, 0);
            if (i % 4000 == 0)
                usleep(1000); /* they fall asleep: the next task has to wake them */
        }
        base_pool_destroy(pool);
    }
}

/* Two threads of one index at a time would share that index's scratch memory. */
static void count_inside(void *user, int64_t part, int thread)
{
    tally *t = user;
    (void)part;
    if (atomic_fetch_add(&t->visits[thread], 1) != 0)
        atomic_fetch_add(&t->bad_thread, 1);
    for (int i = 0; i < 200; i++)
        __asm__ volatile("");
    atomic_fetch_sub(&t->visits[thread], 1);
}

static void an_index_is_in_one_part_at_a_time(void **state)
{
    (void)state;
    static tally t;
    base_pool *pool;
    memset(&t, 0, sizeof t);
    assert_int_equal(base_pool_create(7, &pool, NULL), MARCO_OK);
    for (int round = 0; round < 500; round++)
        base_pool_run(pool, count_inside, &t, 30);
    assert_int_equal(t.bad_thread, 0);
    base_pool_destroy(pool);
}

/* A thread that is held up outside of any part is not waited for: it took none. */
static pthread_t held_thread;
static _Atomic bool worker_came, held, released;

static void note_worker(void *user, int64_t part, int thread)
{
    (void)user, (void)part;
    if (thread == 1) {
        held_thread = pthread_self();
        atomic_store(&worker_came, true);
    }
    /* The caller leaves the other part to the worker. */
    while (!atomic_load(&worker_came))
        usleep(100);
}

static void hold(int signal)
{
    (void)signal;
    atomic_store(&held, true);
    while (!atomic_load(&released))
        usleep(100);
}

static void a_thread_that_took_no_part_is_not_waited_for(void **state)
{
    (void)state;
    static tally t;
    base_pool *pool;
    const struct sigaction action = {.sa_handler = hold, .sa_flags = SA_RESTART};
    memset(&t, 0, sizeof t);
    t.n_threads = 2;
    assert_int_equal(base_pool_create(2, &pool, NULL), MARCO_OK);
    base_pool_run(pool, note_worker, NULL, 2);
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    assert_int_equal(pthread_kill(held_thread, SIGUSR1), 0);
    while (!atomic_load(&held))
        usleep(100);
    alarm(60); /* waiting for it would be for ever */
    for (int round = 0; round < 100; round++)
        base_pool_run(pool, visit, &t, 10);
    alarm(0);
    atomic_store(&released, true);
    assert_int_equal(t.visits[0], 100);
    assert_int_equal(t.visits[9], 100);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_runs_once),
        cmocka_unit_test(a_lane_is_taken_from_end_to_end),
        cmocka_unit_test(results_are_seen_across_tasks),
        cmocka_unit_test(late_threads_take_parts_of_the_task_there_is),
        cmocka_unit_test(an_index_is_in_one_part_at_a_time),
        cmocka_unit_test(a_thread_that_took_no_part_is_not_waited_for),
        cmocka_unit_test(no_pool_means_the_calling_thread),
        cmocka_unit_test(a_pool_that_cannot_be_made_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
