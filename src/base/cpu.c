/* How many cores this process may really use: the affinity mask says which processors, the
 * topology which of them are the same core, the cgroup quota how much time they get. */
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/pool.h"

enum { MAX_CPUS = 1 << 16 };

/* One number from a small file; -1 where it cannot be read. */
static long read_number(const char *path)
{
    long value = -1;
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    if (fscanf(file, "%ld", &value) != 1)
        value = -1;
    fclose(file);
    return value;
}

/* The first processor sharing a core with `cpu`, as the kernel lists them; `cpu` where unknown. */
static long core_of(int cpu)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    long first = read_number(path);
    return first < 0 || first > cpu ? cpu : first;
}

/* Counts the cores of a set, each once. `seen` is of the same size and empty. */
static int count_cores(const cpu_set_t *set, cpu_set_t *seen, size_t size)
{
    int cores = 0;
    for (int cpu = 0; cpu < (int)(8 * size); cpu++) {
        if (!CPU_ISSET_S((size_t)cpu, size, set))
            continue;
        size_t core = (size_t)core_of(cpu);
        if (!CPU_ISSET_S(core, size, seen)) {
            CPU_SET_S(core, size, seen);
            cores++;
        }
    }
    return cores;
}

static int cores_in_mask(void)
{
    int cores = 0;
    /* The kernel refuses a set smaller than its own, whose size it does not tell. */
    for (int cpus = CPU_SETSIZE; cores == 0 && cpus <= MAX_CPUS; cpus *= 2) {
        size_t size = CPU_ALLOC_SIZE(cpus);
        cpu_set_t *set = base_calloc(1, size), *seen = base_calloc(1, size);
        if (set && seen && sched_getaffinity(0, size, set) == 0)
            cores = count_cores(set, seen, size);
        base_free(set);
        base_free(seen);
    }
    return cores ? cores : 1;
}

/* cgroup v2's "cpu.max" of one group: cores rounded up, or a large number where unlimited. */
static int quota_at(const char *folder)
{
    char path[1200], quota[32];
    long period;
    int cores = MAX_CPUS;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    FILE *file = fopen(path, "re");
    if (!file)
        return cores;
    long value;
    if (fscanf(file, "%31s %ld", quota, &period) == 2 && sscanf(quota, "%ld", &value) == 1 &&
        period > 0 && value > 0)
        cores = (int)((value + period - 1) / period);
    fclose(file);
    return cores > 0 ? cores : 1;
}

/* The tightest quota from this process's group up to the root. */
static int quota_v2(void)
{
    char group[512] = "/", line[600];
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file) {
        while (fgets(line, sizeof line, file))
            if (strncmp(line, "0::", 3) == 0)
                sscanf(line + 3, "%511s", group);
        fclose(file);
    }
    int cores = MAX_CPUS;
    for (;;) {
        char folder[600];
        snprintf(folder, sizeof folder, "/sys/fs/cgroup%s", group);
        int here = quota_at(folder);
        cores = here < cores ? here : cores;
        char *slash = strrchr(group, '/');
        if (!slash || group[1] == '\0')
            break;
        slash[slash == group] = '\0';
    }
    return cores;
}

static int quota_v1(void)
{
    long quota = read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    long period = read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    return quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : MAX_CPUS;
}

int base_cpu_count(void)
{
    int cores = cores_in_mask(), v2 = quota_v2(), v1 = quota_v1();
    cores = v2 < cores ? v2 : cores;
    cores = v1 < cores ? v1 : cores;
    return cores > 0 ? cores : 1;
}
