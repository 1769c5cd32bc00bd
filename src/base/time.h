/* The clock that only goes forward. */
#ifndef BASE_TIME_H
#define BASE_TIME_H

#include <time.h>

/* Seconds since some moment before the process began. */
static inline double base_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
