#include "base/available.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/cgroup.h"

enum { PATH_ROOM = 8192 + 64 };

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The number that follows `name` (and blanks) at a line's beginning; false where there is none. */
static bool find_number(const char *path, const char *name, uint64_t *value)
{
    char line[256];
    size_t n = strlen(name);
    bool found = false;
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    while (!found && fgets(line, sizeof line, file)) {
        unsigned long long number;
        found = strncmp(line, name, n) == 0 && sscanf(line + n, "%llu", &number) == 1;
        if (found)
            *value = number;
    }
    fclose(file);
    return found;
}

/* A control group's files: their names and what they say differ between the versions. */
typedef struct group_files {
    const char *limits[2];         /* either may be missing or "max" */
    const char *used;              /* with the page cache */
    const char *inactive, *active; /* page cache in "memory.stat" */
} group_files;

static const group_files versions[] = {
    {{"memory.limit_in_bytes", NULL},
     "memory.usage_in_bytes",
     "total_inactive_file ",
     "total_active_file "},
    {{"memory.max", "memory.high"}, "memory.current", "inactive_file ", "active_file "},
};

/* What one group leaves; UINT64_MAX where it limits nothing. */
static uint64_t left_in(const group_files *v, const char *folder)
{
    char path[PATH_ROOM];
    uint64_t limit = UINT64_MAX, used, inactive = 0, active = 0;
    for (int i = 0; i < 2 && v->limits[i]; i++) {
        uint64_t here;
        snprintf(path, sizeof path, "%s/%s", folder, v->limits[i]);
        if (find_number(path, "", &here))
            limit = least(limit, here);
    }
    snprintf(path, sizeof path, "%s/%s", folder, v->used);
    if (limit == UINT64_MAX || !find_number(path, "", &used))
        return UINT64_MAX;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    find_number(path, v->inactive, &inactive);
    find_number(path, v->active, &active);
    uint64_t cache = least(inactive + active, used);
    return limit > used - cache ? limit - (used - cache) : 0;
}

static void tighten(void *user, const char *folder, bool v2)
{
    uint64_t *left = user;
    *left = least(*left, left_in(&versions[v2], folder));
}

uint64_t base_memory_available_under(const char *root)
{
    char path[PATH_ROOM];
    uint64_t left = UINT64_MAX, kilobytes;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (find_number(path, "MemAvailable:", &kilobytes))
        left = kilobytes * 1024;
    base_cgroup_each(root, "memory", tighten, &left);
    return left;
}

/* Bytes that a resource limit leaves, `name` being its use in /proc/self/status. */
static uint64_t left_in_limit(int resource, const char *name)
{
    struct rlimit limit;
    uint64_t kilobytes;
    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        !find_number("/proc/self/status", name, &kilobytes))
        return UINT64_MAX;
    return limit.rlim_cur > kilobytes * 1024 ? limit.rlim_cur - kilobytes * 1024 : 0;
}

uint64_t base_memory_available(void)
{
    uint64_t left = base_memory_available_under("");
    left = least(left, left_in_limit(RLIMIT_AS, "VmSize:"));
    return least(left, left_in_limit(RLIMIT_DATA, "VmData:"));
}

uint64_t base_memory_resident(void)
{
    uint64_t kilobytes = 0;
    find_number("/proc/self/status", "VmRSS:", &kilobytes);
    return kilobytes * 1024;
}
