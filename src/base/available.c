#include "base/available.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PATH_ROOM = 1400, GROUP_ROOM = 512 };

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
    const char *mount;             /* under root */
    const char *limits[2];         /* either may be missing or "max" */
    const char *used;              /* with the page cache */
    const char *inactive, *active; /* page cache in "memory.stat" */
    const char *tag;               /* its line in /proc/self/cgroup has this between colons */
} group_files;

static const group_files versions[] = {
    {"/sys/fs/cgroup",
     {"memory.max", "memory.high"},
     "memory.current",
     "inactive_file ",
     "active_file ",
     "::"},
    {"/sys/fs/cgroup/memory",
     {"memory.limit_in_bytes", NULL},
     "memory.usage_in_bytes",
     "total_inactive_file ",
     "total_active_file ",
     ":memory:"},
};

/* What one group leaves; UINT64_MAX where it limits nothing. */
static uint64_t left_in(const group_files *v, const char *folder)
{
    char path[PATH_ROOM + 64];
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

/* This process's group in a hierarchy, "/" where it is not said. */
static void find_group(const char *root, const char *tag, char group[GROUP_ROOM])
{
    char path[PATH_ROOM], line[GROUP_ROOM + 64];
    memcpy(group, "/", sizeof "/");
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        const char *at = strstr(line, tag);
        if (at)
            sscanf(at + strlen(tag), "%511s", group);
    }
    if (file)
        fclose(file);
}

/* The least that this process's group and those above it leave. A container may see its group's
 * path but not the folders above its own, whose limits then stand in the root of the mount. */
static uint64_t left_in_groups(const char *root, const group_files *v)
{
    char group[GROUP_ROOM], folder[PATH_ROOM];
    uint64_t left = UINT64_MAX;
    find_group(root, v->tag, group);
    for (;;) {
        snprintf(folder, sizeof folder, "%s%s%s", root, v->mount, group);
        left = least(left, left_in(v, folder));
        char *slash = strrchr(group, '/');
        if (!slash || group[1] == '\0')
            return left;
        slash[slash == group] = '\0';
    }
}

uint64_t base_memory_available_under(const char *root)
{
    char path[PATH_ROOM];
    uint64_t left = UINT64_MAX, kilobytes;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (find_number(path, "MemAvailable:", &kilobytes))
        left = kilobytes * 1024;
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++)
        left = least(left, left_in_groups(root, &versions[i]));
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
