/* How much memory there is to be had, and how much is held. */
#ifndef BASE_AVAILABLE_H
#define BASE_AVAILABLE_H

#include <stdint.h>

/* Bytes that this process can still take without swapping or being killed: the least of what the
 * system says is available, of what its control groups (v2 and v1, all the way up) leave, page
 * cache that can be dropped counted as free, and of what its own limits (ulimit -v, -d) leave.
 * UINT64_MAX where nothing is known. */
uint64_t base_memory_available(void);

/* For tests: the same with /proc and /sys looked for under `root`, without this process's limits.
 */
uint64_t base_memory_available_under(const char *root);

/* Bytes resident in memory; 0 where the system does not tell. */
uint64_t base_memory_resident(void);

#endif
