/* The thread pool beside another process that wants one of its cores: it keeps what is its share.
 * --bench prints what a task costs instead. */
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "base/pool.h"
#include "base/thread.h"

enum {
    PARTS = 16,   /* of a task */
    TASKS = 1200, /* of a round: some 100 ms, so that both get several turns on the core */
    ROUNDS = 5,
    ATTEMPTS = 3,
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void compute(int64_t steps)
{
    volatile double x = 1;
    for (int64_t i = 0; i < steps; i++)
        x = x * 1.0000001 + 1e-9;
}

static void compute_part(void *user, int64_t part, int thread)
{
    (void)part, (void)thread;
    compute(*(const int64_t *)user);
}

static void nothing(void *user, int64_t part, int thread)
{
    (void)user, (void)part, (void)thread;
}

/* Steps that take 10 us when nothing disturbs them. */
static int64_t calibrate(void)
{
    enum { STEPS = 10000 };
    double best = 1;
    for (int i = 0; i < 50; i++) {
        double start = now();
        compute(STEPS);
        double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    return (int64_t)(STEPS * 10e-6 / best) + 1;
}

/* Seconds for tasks as a decoder has them: 80 us on each of two threads, 2 us between them. */
static double decode_like(base_pool *pool, int64_t steps)
{
    double start = now();
    for (int i = 0; i < TASKS; i++) {
        base_pool_run(pool, compute_part, &steps, PARTS);
        compute(steps / 5);
    }
    return now() - start;
}

/* A process that does nothing but use this core. */
static pid_t start_competitor(int cpu)
{
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        base_cpus one = {0};
        base_cpus_add(&one, cpu);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent || !base_thread_allow(pthread_self(), &one))
            _exit(1);
        for (;;)
            compute(1000000);
    }
    return child;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The middle of several rounds' rates beside a competitor, as a share of the best rate alone; -1
 * where not even that is near what two free cores give. */
static double measure_share(base_pool *pool, int64_t steps, int cpu)
{
    double beside[ROUNDS], alone = 1e9, ideal = TASKS * 82e-6;
    for (int i = 0; i < ROUNDS; i++) {
        double seconds = decode_like(pool, steps);
        alone = seconds < alone ? seconds : alone;
        pid_t child = start_competitor(cpu);
        assert_true(child > 0);
        decode_like(pool, steps / 5); /* the scheduler gets to know it */
        beside[i] = decode_like(pool, steps);
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status)); /* it was there all the time */
    }
    qsort(beside, ROUNDS, sizeof *beside, compare);
    print_message("%d tasks: %.0f ms of work a thread, %.0f ms alone, %.0f ms beside another\n",
                  TASKS, ideal * 1e3, alone * 1e3, beside[ROUNDS / 2] * 1e3);
    return alone > 1.5 * ideal ? -1 : alone / beside[ROUNDS / 2];
}

/* Keeps this process to two cores, whatever the machine has; the second of them, or -1. */
static int keep_to_two_cores(void)
{
    base_cpus allowed, two = {0};
    int last = -1;
    if (base_cpu_count() < 2 || !base_cpus_allowed(&allowed))
        return -1;
    for (int cpu = 0; cpu < BASE_MAX_CPUS && base_cpus_count(&two) < 2; cpu++) {
        base_cpus with = two;
        base_cpus_add(&with, cpu);
        if (base_cpus_has(&allowed, cpu) && base_cpu_cores("", &with) > base_cpus_count(&two)) {
            two = with;
            last = cpu;
        }
    }
    return base_thread_allow(pthread_self(), &two) ? last : -1;
}

/* Two threads on two cores and a process that wants one of them: a core and a half are ours, 0.75
 * of what we have alone. Pools that wait for a thread without a core get 0.5 and less. */
static void a_competitor_takes_no_more_than_its_share(void **state)
{
    (void)state;
    int cpu = keep_to_two_cores();
    if (cpu < 0) {
        print_message("skipped: needs two cores\n");
        skip();
    }
    base_pool *pool;
    double share = 0;
    assert_int_equal(base_pool_create(2, &pool, NULL), MARCO_OK);
    for (int i = 0; i < ATTEMPTS && share < 0.6; i++) {
        share = measure_share(pool, calibrate(), cpu);
        if (share >= 0)
            print_message("%.2f of the rate alone; 0.75 is fair\n", share);
    }
    base_pool_destroy(pool);
    if (share < 0) {
        print_message("skipped: others use the machine\n");
        skip();
    }
    assert_true(share >= 0.6);
}

static int bench(void)
{
    enum { TASKS_TIMED = 5000, REPEATS = 20 };
    static const int parts[] = {2, 16, 64};
    int64_t steps = calibrate();
    for (int n_threads = 1; n_threads <= base_cpu_count(); n_threads *= 2) {
        base_pool *pool;
        if (base_pool_create(n_threads, &pool, NULL))
            return 1;
        print_message("%3d threads: empty tasks of", n_threads);
        for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
            double best = 1;
            for (int r = 0; r < REPEATS; r++) {
                double start = now();
                for (int i = 0; i < TASKS_TIMED; i++)
                    base_pool_run(pool, nothing, NULL, parts[k]);
                double seconds = (now() - start) / TASKS_TIMED;
                best = seconds < best ? seconds : best;
            }
            print_message(" %d parts %.2f us,", parts[k], best * 1e6);
        }
        double best = decode_like(pool, steps);
        for (int r = 1; r < ROUNDS; r++) {
            double seconds = decode_like(pool, steps);
            best = seconds < best ? seconds : best;
        }
        print_message(" tasks of 160 us %.1f us\n", best / TASKS * 1e6);
        base_pool_destroy(pool);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--bench") == 0)
        return bench();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_competitor_takes_no_more_than_its_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
