#include "base/thread.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

int64_t base_thread_ran(pthread_t thread)
{
    clockid_t clock;
    struct timespec t;
    if (pthread_getcpuclockid(thread, &clock) || clock_gettime(clock, &t))
        return -1;
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

bool base_thread_is_runnable(int tid)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    size_t n = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[n] = '\0';
    /* "tid (name) state ...", where the name may have parentheses of its own. */
    const char *state = strrchr(line, ')');
    return state && state[1] == ' ' && state[2] == 'R';
}

bool base_thread_allow(pthread_t thread, const base_cpus *cpus)
{
    const cpu_set_t *set = (const cpu_set_t *)(const void *)cpus->bits;
    return pthread_setaffinity_np(thread, sizeof cpus->bits, set) == 0;
}

bool base_thread_allowed(pthread_t thread, base_cpus *out)
{
    *out = (base_cpus){0};
    return pthread_getaffinity_np(thread, sizeof out->bits, (cpu_set_t *)(void *)out->bits) == 0;
}

void base_thread_leave(int cpu)
{
    base_cpus allowed, others;
    pthread_t self = pthread_self();
    if (!base_thread_allowed(self, &allowed) || !base_cpus_has(&allowed, cpu))
        return;
    others = allowed;
    base_cpus_remove(&others, cpu);
    /* The kernel refuses the empty set. */
    if (base_thread_allow(self, &others))
        base_thread_allow(self, &allowed);
}
