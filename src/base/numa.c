#include "base/numa.h"

#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/memory.h"

void base_nodes_read(const char *root, const base_cpus *allowed, base_nodes *out)
{
    char path[4096];
    base_cpus online, memory;
    out->n = 0;
    snprintf(path, sizeof path, "%s/sys/devices/system/node/has_memory", root);
    base_cpus_read(path, &memory);
    snprintf(path, sizeof path, "%s/sys/devices/system/node/online", root);
    if (!base_cpus_read(path, &online))
        return;
    for (int id = 0; id < BASE_MAX_CPUS && out->n < BASE_MAX_NODES; id++) {
        base_cpus *cpus = &out->cpus[out->n];
        if (!base_cpus_has(&online, id))
            continue;
        snprintf(path, sizeof path, "%s/sys/devices/system/node/node%d/cpulist", root, id);
        if (!base_cpus_read(path, cpus))
            continue;
        for (size_t i = 0; i < sizeof cpus->bits / sizeof *cpus->bits; i++)
            cpus->bits[i] &= allowed->bits[i];
        if (base_cpus_count(cpus) == 0)
            continue;
        out->id[out->n] = id;
        out->memory[out->n] = base_cpus_has(&memory, id);
        out->n++;
    }
}

int base_nodes_place(const base_nodes *nodes, int first, int n_threads, int thread)
{
    int64_t total = 0;
    for (int i = 0; i < nodes->n; i++)
        total += base_cpus_count(&nodes->cpus[i]);
    int64_t rank = thread * total / n_threads;
    for (int i = 0; i < nodes->n; i++) {
        int node = (first + i) % nodes->n;
        rank -= base_cpus_count(&nodes->cpus[node]);
        if (rank < 0)
            return node;
    }
    return first;
}

int base_nodes_find(const base_nodes *nodes, int cpu)
{
    for (int i = 0; i < nodes->n; i++)
        if (base_cpus_has(&nodes->cpus[i], cpu))
            return i;
    return 0;
}

/* Linux's number for it; <numaif.h> comes with libnuma, which one call is not worth. */
enum { MPOL_INTERLEAVE = 3, SMALL = 1 << 20 };

void base_memory_interleave(void *memory, size_t size)
{
    base_cpus allowed, mask = {0};
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)memory;
    uintptr_t first = (at + page - 1) & ~(page - 1), end = (at + size) & ~(page - 1);
    if (size < SMALL || !base_cpus_allowed(&allowed))
        return;
    base_nodes *nodes = base_alloc(sizeof *nodes);
    if (!nodes)
        return;
    base_nodes_read("", &allowed, nodes);
    for (int i = 0; i < nodes->n; i++)
        if (nodes->memory[i])
            base_cpus_add(&mask, nodes->id[i]);
    if (base_cpus_count(&mask) > 1) /* what it returns changes nothing: see the declaration */
        (void)syscall(SYS_mbind, first, end - first, MPOL_INTERLEAVE, mask.bits, 1024 + 1, 0);
    base_free(nodes);
}
