/* Which processors this process may use, and which of them are cores of their own. Functions that
 * read /sys or /proc take the folder those are in: "" means the system's own, tests make others. */
#ifndef BASE_CPU_H
#define BASE_CPU_H

#include <stdbool.h>

enum { BASE_MAX_CPUS = 8192 }; /* the most that Linux is built for */

/* A set of processors (or of nodes), by number; in the kernel's own form. */
typedef struct base_cpus {
    unsigned long bits[BASE_MAX_CPUS / (8 * sizeof(unsigned long))];
} base_cpus; /* all zero is the empty set */

bool base_cpus_has(const base_cpus *set, int cpu);
void base_cpus_add(base_cpus *set, int cpu);
void base_cpus_remove(base_cpus *set, int cpu);
int base_cpus_count(const base_cpus *set);

/* Reads a list as the kernel writes it: "0-3,8\n", or nothing for none. False where it is not one;
 * `out` is then empty. */
bool base_cpus_parse(const char *list, base_cpus *out);
bool base_cpus_read(const char *path, base_cpus *out);

/* The calling thread's affinity mask, which the kernel keeps within its cpuset. False where it
 * cannot be had. */
bool base_cpus_allowed(base_cpus *out);

/* Processors of the set that do not share their core with one of lower number in the set. Cores of
 * different kinds count alike: parts are handed out as threads finish, so slow cores help too. */
int base_cpu_cores(const char *root, const base_cpus *cpus);

/* The tightest CPU quota of this process's control groups (version 1 and 2, this group and those
 * around it), in cores: rounded to the nearest, as all of 1.5 cores is worth more than a pause of
 * 25 of each 100 ms costs, while at 1.1 cores two threads would pause for 45; at least 1. INT_MAX
 * without a quota. */
int base_cpu_quota(const char *root);

#endif
