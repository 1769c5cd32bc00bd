#include "base/cpu.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cgroup.h"
#include "base/pool.h"

enum { WORD = 8 * sizeof(unsigned long), PATH_BYTES = 4096 + 256, LINE_BYTES = 4096 };

bool base_cpus_has(const base_cpus *set, int cpu)
{
    return cpu >= 0 && cpu < BASE_MAX_CPUS && (set->bits[cpu / WORD] >> (cpu % WORD) & 1);
}

void base_cpus_add(base_cpus *set, int cpu)
{
    if (cpu >= 0 && cpu < BASE_MAX_CPUS)
        set->bits[cpu / WORD] |= 1ul << (cpu % WORD);
}

void base_cpus_remove(base_cpus *set, int cpu)
{
    if (cpu >= 0 && cpu < BASE_MAX_CPUS)
        set->bits[cpu / WORD] &= ~(1ul << (cpu % WORD));
}

int base_cpus_count(const base_cpus *set)
{
    int n = 0;
    for (size_t i = 0; i < sizeof set->bits / sizeof *set->bits; i++)
        n += __builtin_popcountl(set->bits[i]);
    return n;
}

/* A number of a list; moves *s behind it. -1 where there is none that a set can hold. */
static int parse_number(const char **s)
{
    char *end;
    if (**s < '0' || **s > '9')
        return -1;
    unsigned long value = strtoul(*s, &end, 10);
    *s = end;
    return value < BASE_MAX_CPUS ? (int)value : -1;
}

bool base_cpus_parse(const char *list, base_cpus *out)
{
    *out = (base_cpus){0};
    const char *s = list;
    while (*s != '\0' && *s != '\n') {
        int first = parse_number(&s), last = first;
        if (first >= 0 && *s == '-') {
            s++;
            last = parse_number(&s);
        }
        bool more = *s == ',' && s[1] >= '0' && s[1] <= '9';
        if (first < 0 || last < first || (!more && *s != '\0' && *s != '\n')) {
            *out = (base_cpus){0};
            return false;
        }
        for (int cpu = first; cpu <= last; cpu++)
            base_cpus_add(out, cpu);
        s += more;
    }
    return true;
}

/* The first line of a small file, cut to `size`. */
static bool read_line(const char *path, char *line, int size)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool ok = fgets(line, size, file) != NULL;
    fclose(file);
    return ok;
}

bool base_cpus_read(const char *path, base_cpus *out)
{
    char line[LINE_BYTES];
    *out = (base_cpus){0};
    return read_line(path, line, sizeof line) && base_cpus_parse(line, out);
}

bool base_cpus_allowed(base_cpus *out)
{
    *out = (base_cpus){0};
    return sched_getaffinity(0, sizeof out->bits, (cpu_set_t *)(void *)out->bits) == 0;
}

int base_cpu_cores(const char *root, const base_cpus *cpus)
{
    base_cpus counted = {0}, siblings;
    int cores = 0;
    for (int cpu = 0; cpu < BASE_MAX_CPUS; cpu++) {
        char path[PATH_BYTES];
        if (!base_cpus_has(cpus, cpu) || base_cpus_has(&counted, cpu))
            continue;
        cores++;
        snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                 root, cpu);
        if (!base_cpus_read(path, &siblings))
            continue;
        for (size_t i = 0; i < sizeof siblings.bits / sizeof *siblings.bits; i++)
            counted.bits[i] |= siblings.bits[i];
    }
    return cores;
}

/* ---- quotas of control groups -------------------------------------------------------------- */

static int cores_of(long long quota, long long period)
{
    if (quota <= 0 || period <= 0)
        return INT_MAX;
    long long rest = quota % period, cores = quota / period + (rest >= period - rest);
    return cores < 1 ? 1 : cores > INT_MAX ? INT_MAX : (int)cores;
}

/* "max 100000" or "150000 100000": microseconds of processor time in each period of so many. */
static int quota_v2(const char *folder)
{
    char path[PATH_BYTES], line[LINE_BYTES];
    long long quota, period;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (!read_line(path, line, sizeof line) || sscanf(line, "%lld %lld", &quota, &period) != 2)
        return INT_MAX;
    return cores_of(quota, period);
}

/* The same in two files; a quota of -1 is none. */
static int quota_v1(const char *folder)
{
    static const char *const names[] = {"cpu.cfs_quota_us", "cpu.cfs_period_us"};
    long long value[2];
    for (int i = 0; i < 2; i++) {
        char path[PATH_BYTES], line[LINE_BYTES];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (!read_line(path, line, sizeof line) || sscanf(line, "%lld", &value[i]) != 1)
            return INT_MAX;
    }
    return cores_of(value[0], value[1]);
}

static void tighten(void *user, const char *folder, bool v2)
{
    int *cores = user, here = v2 ? quota_v2(folder) : quota_v1(folder);
    *cores = here < *cores ? here : *cores;
}

int base_cpu_quota(const char *root)
{
    int cores = INT_MAX;
    base_cgroup_each(root, "cpu", tighten, &cores);
    return cores;
}

int base_cpu_count(void)
{
    base_cpus allowed;
    int cores = base_cpus_allowed(&allowed) ? base_cpu_cores("", &allowed) : 1;
    int quota = base_cpu_quota("");
    cores = quota < cores ? quota : cores;
    return cores > 0 ? cores : 1;
}
