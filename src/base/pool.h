/* A pool of threads that run one task at a time, split into numbered parts. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "marco/marco.h"

typedef struct base_pool base_pool;

/* Called once for each part in [0, n_parts), by thread [0, n_threads), in no set order. */
typedef void (*base_task_fn)(void *user, int64_t part, int thread);

/* n_threads >= 1, the caller's among them. */
marco_status base_pool_create(int n_threads, base_pool **out, marco_error *error);
void base_pool_destroy(base_pool *pool);
int base_pool_threads(const base_pool *pool);

/* Runs all parts and returns when they are done. One caller at a time, and not from within a part.
 * Threads that are late, asleep or without a core cost nothing as long as others take the parts; a
 * part that was begun is waited for, so parts are best kept to some ten microseconds. A NULL pool
 * runs them in the calling thread. */
void base_pool_run(base_pool *pool, base_task_fn fn, void *user, int64_t n_parts);

/* The same for tasks that read memory, part after part: every thread has a lane, a range of
 * neighbouring parts, which it reads from end to end, as hardware likes it; a thread that is
 * through with its own takes from the others' lanes. */
void base_pool_run_lanes(base_pool *pool, base_task_fn fn, void *user, int64_t n_parts);

/* Cores this process may use: physical ones within the affinity mask, capped by the CPU quota of
 * its control groups (see base/cpu.h); at least 1. */
int base_cpu_count(void);

#endif
