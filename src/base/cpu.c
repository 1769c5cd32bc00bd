/* How many cores this process may really use: the affinity mask says which processors, the
 * topology which of them are the same core, the cgroup quota how much time they get. */
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/pool.h"

enum { MAX_CPUS = CPU_SETSIZE };

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
    return first < 0 || first >= MAX_CPUS ? cpu : first;
}

static int cores_in_mask(void)
{
    cpu_set_t set, seen;
    CPU_ZERO(&seen);
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    int cores = 0;
    for (int cpu = 0; cpu < MAX_CPUS; cpu++) {
        if (!CPU_ISSET(cpu, &set))
            continue;
        long core = core_of(cpu);
        if (!CPU_ISSET((size_t)core, &seen)) {
            CPU_SET((size_t)core, &seen);
            cores++;
        }
    }
    return cores;
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
