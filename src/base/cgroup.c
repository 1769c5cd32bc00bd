#include "base/cgroup.h"

#include <stdio.h>
#include <string.h>

enum { LINE_BYTES = 4096, PATH_BYTES = 2 * LINE_BYTES };

/* Is `name` one of "cpu,cpuacct"? */
static bool has(const char *list, const char *name)
{
    size_t size = strlen(name);
    for (const char *s = list; s; s = strchr(s, ',')) {
        s += *s == ',';
        size_t n = strcspn(s, ",");
        if (n == size && memcmp(s, name, n) == 0)
            return true;
    }
    return false;
}

/* From mount + group up to mount. */
static void climb(const char *mount, const char *group, bool v2, base_cgroup_fn fn, void *user)
{
    char folder[PATH_BYTES];
    if (snprintf(folder, sizeof folder, "%s%s", mount, group) >= (int)sizeof folder) {
        fn(user, mount, v2);
        return;
    }
    for (;;) {
        fn(user, folder, v2);
        if (strlen(folder) <= strlen(mount))
            return;
        *strrchr(folder, '/') = '\0';
    }
}

/* "number:controllers:group"; version 2 names no controllers. */
static void follow(const char *root, char *line, const char *controller, base_cgroup_fn fn,
                   void *user)
{
    char *list = strchr(line, ':'), *group = list ? strchr(list + 1, ':') : NULL, mount[PATH_BYTES];
    if (!group)
        return;
    *list++ = '\0';
    *group++ = '\0';
    group[strcspn(group, "\n")] = '\0';
    /* "/.." is a group that lies outside of what this process is shown. */
    if (group[0] != '/' || group[1] == '\0' || strstr(group, "/.."))
        group = "";
    bool v2 = list[0] == '\0';
    if (!v2 && !has(list, controller))
        return;
    /* Controllers that share a mount are found there by all their names, of which the line may give
     * the last first, and mostly by each. Looking twice does no harm. */
    char swapped[LINE_BYTES];
    int first = (int)strcspn(list, ",");
    snprintf(swapped, sizeof swapped, "%s,%.*s", list + first + (list[first] == ','), first, list);
    const char *mounts[] = {v2 ? "" : controller, v2 ? "unified" : list, swapped};
    for (int i = 0; i < (v2 ? 2 : 3); i++)
        if (snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/%s", root, mounts[i]) <
            (int)sizeof mount)
            climb(mount, group, v2, fn, user);
}

void base_cgroup_each(const char *root, const char *controller, base_cgroup_fn fn, void *user)
{
    char path[PATH_BYTES], line[LINE_BYTES];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        follow(root, line, controller, fn, user);
    if (file)
        fclose(file);
}
