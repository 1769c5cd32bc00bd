/* The control groups that this process is in, of both versions. */
#ifndef BASE_CGROUP_H
#define BASE_CGROUP_H

#include <stdbool.h>

/* `folder` has the files of a group, or does not exist. */
typedef void (*base_cgroup_fn)(void *user, const char *folder, bool v2);

/* Calls fn for every group that a controller ("cpu", "memory") may limit this process by: its own
 * and those around it, up to the root of the mount. In a container the group's path may be the
 * host's, of which only that root is to be seen. root: where /proc and /sys are, "" for the
 * system's own. */
void base_cgroup_each(const char *root, const char *controller, base_cgroup_fn fn, void *user);

#endif
