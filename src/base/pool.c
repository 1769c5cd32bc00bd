#include "base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/numa.h"
#include "base/thread.h"

#if defined(__x86_64__) || defined(__i386__)
#define relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define relax() __asm__ volatile("yield")
#else
#define relax() ((void)0)
#endif

enum {
    LINE = 64,
    /* A decoder's tasks follow each other within microseconds: waiting awake that long saves two
     * system calls and a wake-up each. Longer would take the core from whoever else wants it. */
    SPIN_NS = 40000,
    /* When the caller asks whether those it waits for have lost their core, and how long it looks
     * at whether they run, and what they must have run in that time. */
    LATE_NS = 20000,
    LOOK_NS = 5000,
    RAN_NS = 1000,
    /* A pause lasts 35 to 140 cycles, depending on the processor, and the clock takes about 25 ns:
     * it is looked at once in so many pauses. */
    PAUSES_PER_LOOK = 32,
};

/* What a worker writes is on cache lines of its own. */
typedef struct worker {
    _Alignas(LINE) _Atomic bool busy; /* may be in a part */
    _Atomic int tid;
    int index;
    pthread_t thread;
    base_pool *pool;

    /* The caller's notes while it waits. */
    _Alignas(LINE) int64_t ran;
    bool brought;
    base_cpus allowed;
} worker;

/* A range of parts that one thread takes first. */
typedef struct lane {
    _Alignas(LINE) _Atomic int64_t next;
    int64_t end;
} lane;

/* How a task is shared out. `left` is all that says whether there is work: a thread that sees it
 * positive takes one from it, and has a part if it was still positive then. Only after that does
 * it read the other fields, which stay as they are until the part is reported as done. So it does
 * not matter how late a thread comes, and which task it thought it came for; and the caller waits
 * for nobody who took no part. */
struct base_pool {
    _Alignas(LINE) _Atomic int64_t left; /* parts nobody has taken; 0 or less: nothing to do */
    int64_t n_parts;
    base_task_fn fn;
    void *user;
    bool in_lanes;
    _Atomic int caller_cpu; /* where the caller was when it posted the task */
    _Atomic bool stop;

    _Alignas(LINE) _Atomic int64_t pending; /* parts not done yet */
    /* Whether somebody sleeps, or is about to. Set under the lock, before looking once more at
     * what is waited for; read after changing it: one of the two sees the other. */
    _Atomic bool workers_asleep, caller_asleep;
    pthread_mutex_t lock;
    pthread_cond_t wake; /* workers: left > 0 or stop */
    pthread_cond_t done; /* the caller: pending == 0 */

    int n_threads, n_started;
    worker *workers; /* [n_threads - 1] */
    lane *lanes;     /* [n_threads] */
};

static bool has_task(base_pool *pool)
{
    return atomic_load(&pool->left) > 0 || atomic_load(&pool->stop);
}

static bool is_done(base_pool *pool)
{
    return atomic_load(&pool->pending) == 0;
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Waits awake, for `ns` or little more; returns what `ready` said last. A thread that lost its
 * core meanwhile finds its time over and gives up. */
static bool spin(base_pool *pool, bool (*ready)(base_pool *), int64_t ns)
{
    int64_t end = 0;
    for (;;) {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            if (ready(pool))
                return true;
            relax();
        }
        int64_t now = now_ns();
        if (end == 0)
            end = now + ns;
        else if (now >= end)
            return ready(pool);
    }
}

/* A part from the thread's own lane, or else from the next that has one. There is one: no more
 * threads come here than there are parts in all lanes. */
static int64_t take_from_lane(base_pool *pool, int thread)
{
    for (int i = thread;; i = i + 1 < pool->n_threads ? i + 1 : 0) {
        lane *l = &pool->lanes[i];
        if (atomic_load_explicit(&l->next, memory_order_relaxed) >= l->end)
            continue;
        int64_t part = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed);
        if (part < l->end)
            return part;
    }
}

/* Takes and runs parts while there are any. Returns whether the task is done with them. */
static bool work(base_pool *pool, int thread)
{
    int64_t n = 0;
    while (atomic_load_explicit(&pool->left, memory_order_relaxed) > 0) {
        int64_t left = atomic_fetch_sub_explicit(&pool->left, 1, memory_order_acquire);
        if (left <= 0)
            break;
        int64_t part = pool->in_lanes ? take_from_lane(pool, thread) : pool->n_parts - left;
        pool->fn(pool->user, part, thread);
        n++;
    }
    return n > 0 && atomic_fetch_sub(&pool->pending, n) == n;
}

/* Returns after having been woken, or at once where there is something to do. */
static void sleep_until_woken(base_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->workers_asleep, true);
    if (!has_task(pool))
        pthread_cond_wait(&pool->wake, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

static void wake_workers(base_pool *pool)
{
    if (!atomic_load(&pool->workers_asleep))
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->workers_asleep, false);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

static void wake_caller(base_pool *pool)
{
    if (!atomic_load(&pool->caller_asleep))
        return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *user)
{
    worker *self = user;
    base_pool *pool = self->pool;
    atomic_store(&self->tid, gettid());
    while (!atomic_load(&pool->stop)) {
        if (!spin(pool, has_task, SPIN_NS)) {
            sleep_until_woken(pool);
            continue;
        }
        /* On the caller's core this thread runs in its place and not beside it. The scheduler may
         * leave two threads that wake each other there for seconds. */
        int cpu = atomic_load_explicit(&pool->caller_cpu, memory_order_relaxed);
        if (cpu >= 0 && sched_getcpu() == cpu)
            base_thread_leave(cpu);
        atomic_store(&self->busy, true);
        bool last = work(pool, self->index);
        atomic_store(&self->busy, false);
        if (last)
            wake_caller(pool);
    }
    return NULL;
}

/* ---- waiting for the parts of others ------------------------------------------------------- */

/* Brings workers that have begun a part and lost their core to the caller's core, which is about
 * to be free. Otherwise a process that wants one core would stop all of ours for as long as the
 * scheduler lets it run, some milliseconds, each time it gets its turn: a part is ten microseconds
 * and a worker nearly always in one. Returns whether it brought any. */
static bool bring_stalled(base_pool *pool)
{
    base_cpus here = {0};
    bool any = false;
    int cpu = sched_getcpu();
    base_cpus_add(&here, cpu);
    for (int i = 0; i < pool->n_started; i++) {
        worker *w = &pool->workers[i];
        w->ran = atomic_load(&w->busy) ? base_thread_ran(w->thread) : -1;
    }
    if (spin(pool, is_done, LOOK_NS))
        return false;
    for (int i = 0; i < pool->n_started; i++) {
        worker *w = &pool->workers[i];
        if (w->ran < 0 || !atomic_load(&w->busy) || base_thread_ran(w->thread) - w->ran >= RAN_NS ||
            !base_thread_is_runnable(w->tid))
            continue;
        w->brought = base_thread_allowed(w->thread, &w->allowed) &&
                     base_cpus_has(&w->allowed, cpu) && base_thread_allow(w->thread, &here);
        any |= w->brought;
    }
    return any;
}

/* They may go again. None of them has changed its own mask meanwhile: they do so only when there
 * are parts to take. */
static void let_go(base_pool *pool)
{
    for (int i = 0; i < pool->n_started; i++) {
        worker *w = &pool->workers[i];
        if (w->brought)
            base_thread_allow(w->thread, &w->allowed);
        w->brought = false;
    }
}

static void wait_until_done(base_pool *pool)
{
    if (spin(pool, is_done, LATE_NS))
        return;
    bool brought = bring_stalled(pool);
    if (!brought && spin(pool, is_done, SPIN_NS))
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->caller_asleep, true);
    while (!is_done(pool))
        pthread_cond_wait(&pool->done, &pool->lock);
    atomic_store(&pool->caller_asleep, false);
    pthread_mutex_unlock(&pool->lock);
    if (brought)
        let_go(pool);
}

/* ---- the pool ------------------------------------------------------------------------------ */

/* Where memory is in several nodes, the workers are spread over them, each free to move within its
 * own; on one node the system does better than a fixed place, which somebody else may want too. The
 * caller's thread is not ours to bind. */
static void bind_to_nodes(base_pool *pool)
{
    base_cpus allowed;
    base_nodes *nodes = base_alloc(sizeof *nodes);
    if (nodes && base_cpus_allowed(&allowed)) {
        base_nodes_read("", &allowed, nodes);
        int first = base_nodes_find(nodes, sched_getcpu());
        for (int i = 0; nodes->n > 1 && i < pool->n_started; i++) {
            int node = base_nodes_place(nodes, first, pool->n_threads, i + 1);
            base_thread_allow(pool->workers[i].thread, &nodes->cpus[node]);
        }
    }
    base_free(nodes);
}

marco_status base_pool_create(int n_threads, base_pool **out, marco_error *error)
{
    marco_status status = MARCO_OK;
    base_pool *pool = base_alloc_aligned(sizeof *pool);
    if (!pool)
        return base_fail_memory(error, sizeof *pool, "threads");
    *pool = (base_pool){.n_threads = n_threads};
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->workers = base_alloc_aligned((size_t)n_threads * sizeof *pool->workers);
    pool->lanes = base_alloc_aligned((size_t)n_threads * sizeof *pool->lanes);
    if (!pool->workers || !pool->lanes)
        status = base_fail_memory(error, (size_t)n_threads * sizeof *pool->workers, "threads");
    for (int i = 0; !status && i < n_threads - 1; i++) {
        worker *w = &pool->workers[i];
        *w = (worker){.pool = pool, .index = i + 1};
        int code = pthread_create(&w->thread, NULL, worker_main, w);
        if (code)
            status = base_fail(error, code == EAGAIN ? MARCO_ERROR_MEMORY : MARCO_ERROR_IO,
                               "cannot start thread %d of %d: the system's limit on threads or "
                               "memory is reached; ask for fewer threads",
                               i + 1, n_threads);
        else
            pool->n_started++;
    }
    if (status) {
        base_pool_destroy(pool);
        return status;
    }
    if (n_threads > 1)
        bind_to_nodes(pool);
    *out = pool;
    return MARCO_OK;
}

void base_pool_destroy(base_pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->stop, true);
    wake_workers(pool);
    for (int i = 0; i < pool->n_started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    base_free(pool->workers);
    base_free(pool->lanes);
    base_free(pool);
}

int base_pool_threads(const base_pool *pool)
{
    return pool ? pool->n_threads : 1;
}

static void run(base_pool *pool, base_task_fn fn, void *user, int64_t n_parts, bool in_lanes)
{
    if (!pool || pool->n_threads == 1 || n_parts <= 1) {
        for (int64_t i = 0; i < n_parts; i++)
            fn(user, i, 0);
        return;
    }
    pool->fn = fn;
    pool->user = user;
    pool->n_parts = n_parts;
    pool->in_lanes = in_lanes;
    for (int i = 0; in_lanes && i < pool->n_threads; i++) {
        int64_t begin = n_parts * i / pool->n_threads;
        atomic_store_explicit(&pool->lanes[i].next, begin, memory_order_relaxed);
        pool->lanes[i].end = n_parts * (i + 1) / pool->n_threads;
    }
    atomic_store_explicit(&pool->caller_cpu, sched_getcpu(), memory_order_relaxed);
    atomic_store_explicit(&pool->pending, n_parts, memory_order_relaxed);
    atomic_store(&pool->left, n_parts);
    wake_workers(pool);
    if (!work(pool, 0))
        wait_until_done(pool);
}

void base_pool_run(base_pool *pool, base_task_fn fn, void *user, int64_t n_parts)
{
    run(pool, fn, user, n_parts, false);
}

void base_pool_run_lanes(base_pool *pool, base_task_fn fn, void *user, int64_t n_parts)
{
    run(pool, fn, user, n_parts, true);
}
