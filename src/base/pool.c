#include "base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/memory.h"

#if defined(__x86_64__) || defined(__i386__)
#define relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define relax() __asm__ volatile("yield")
#else
#define relax() ((void)0)
#endif

/* A decoder's tasks follow each other within microseconds: spinning that long saves a system call
 * each. Spinning longer would take the core from whoever else wants it. */
enum { SPINS = 2000 };

struct base_pool {
    pthread_mutex_t lock;
    pthread_cond_t wake; /* workers wait for `epoch` to move */
    pthread_cond_t done; /* the caller waits for `running` to reach 0 */

    _Atomic uint64_t epoch; /* one more for every task; odd and even mean nothing */
    _Atomic int running;    /* workers that have not finished the current task */
    _Atomic int64_t next;   /* first part that nobody has taken */

    base_task_fn fn;
    void *user;
    int64_t n_parts;
    bool stop;

    int n_threads, n_started;
    struct base_worker {
        pthread_t thread;
        base_pool *pool;
        int index;
    } * workers; /* [n_threads - 1] */
};

static void work(base_pool *pool, int thread)
{
    for (;;) {
        int64_t part = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (part >= pool->n_parts)
            return;
        pool->fn(pool->user, part, thread);
    }
}

/* Returns the new epoch once it differs from `seen`. */
static uint64_t wait_for_task(base_pool *pool, uint64_t seen)
{
    for (int i = 0; i < SPINS; i++) {
        uint64_t epoch = atomic_load_explicit(&pool->epoch, memory_order_acquire);
        if (epoch != seen)
            return epoch;
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    uint64_t epoch;
    while ((epoch = atomic_load_explicit(&pool->epoch, memory_order_acquire)) == seen)
        pthread_cond_wait(&pool->wake, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    return epoch;
}

static void *worker_main(void *user)
{
    struct base_worker *worker = user;
    base_pool *pool = worker->pool;
    for (uint64_t seen = 0;;) {
        seen = wait_for_task(pool, seen);
        if (pool->stop)
            return NULL;
        work(pool, worker->index);
        if (atomic_fetch_sub_explicit(&pool->running, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

/* Publishes what fn, user, n_parts and stop now say to the workers. */
static void post(base_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add_explicit(&pool->epoch, 1, memory_order_release);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

marco_status base_pool_create(int n_threads, base_pool **out, marco_error *error)
{
    marco_status status = MARCO_OK;
    base_pool *pool = base_calloc(1, sizeof *pool);
    if (!pool)
        return base_fail_memory(error, sizeof *pool, "threads");
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->n_threads = n_threads;
    pool->workers = base_calloc((size_t)n_threads, sizeof *pool->workers);
    if (!pool->workers)
        status = base_fail_memory(error, (size_t)n_threads * sizeof *pool->workers, "threads");
    for (int i = 0; !status && i < n_threads - 1; i++) {
        struct base_worker *worker = &pool->workers[i];
        *worker = (struct base_worker){.pool = pool, .index = i + 1};
        int code = pthread_create(&worker->thread, NULL, worker_main, worker);
        if (code)
            status = base_fail(error, code == EAGAIN ? MARCO_ERROR_MEMORY : MARCO_ERROR_IO,
                               "cannot start thread %d of %d: the system's limit on threads or "
                               "memory is reached; ask for fewer threads",
                               i + 1, n_threads);
        else
            pool->n_started++;
    }
    if (status)
        base_pool_destroy(pool);
    else
        *out = pool;
    return status;
}

void base_pool_destroy(base_pool *pool)
{
    if (!pool)
        return;
    pool->stop = true;
    post(pool);
    for (int i = 0; i < pool->n_started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    base_free(pool->workers);
    base_free(pool);
}

int base_pool_threads(const base_pool *pool)
{
    return pool ? pool->n_threads : 1;
}

void base_pool_run(base_pool *pool, base_task_fn fn, void *user, int64_t n_parts)
{
    if (!pool || pool->n_threads == 1 || n_parts <= 1) {
        for (int64_t i = 0; i < n_parts; i++)
            fn(user, i, 0);
        return;
    }
    pool->fn = fn;
    pool->user = user;
    pool->n_parts = n_parts;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->running, pool->n_threads - 1, memory_order_relaxed);
    post(pool);
    work(pool, 0);
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&pool->running, memory_order_acquire) == 0)
            return;
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    while (atomic_load_explicit(&pool->running, memory_order_acquire) != 0)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}
