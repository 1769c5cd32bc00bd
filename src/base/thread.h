/* Where threads run: what a thread that waits for another can find out, and do, about it. All of it
 * is a help to the scheduler that may fail (in a sandbox, say) without anything going wrong. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>
#include <stdint.h>

#include "base/cpu.h"

/* Processor time used so far, in nanoseconds; -1 where it is not told. */
int64_t base_thread_ran(pthread_t thread);

/* Whether a thread of this process, by its gettid(), runs or waits for a processor, rather than for
 * a read or a lock. */
bool base_thread_is_runnable(int tid);

/* Where the thread may run. */
bool base_thread_allow(pthread_t thread, const base_cpus *cpus);
bool base_thread_allowed(pthread_t thread, base_cpus *out);

/* Moves the calling thread to another processor of those that it may run on, if there is one. */
void base_thread_leave(int cpu);

#endif
