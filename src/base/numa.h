/* Machines whose memory is in several nodes, each near some of the processors. */
#ifndef BASE_NUMA_H
#define BASE_NUMA_H

#include <stddef.h>

#include "base/cpu.h"

enum { BASE_MAX_NODES = 64 };

typedef struct base_nodes {
    int n; /* nodes that have processors of the set asked for; further ones are left out */
    int id[BASE_MAX_NODES];
    bool memory[BASE_MAX_NODES];    /* whether it has any */
    base_cpus cpus[BASE_MAX_NODES]; /* those of the set */
} base_nodes;

/* The nodes of the processors `allowed`, by number. None where the system does not tell. `root` as
 * in base/cpu.h. */
void base_nodes_read(const char *root, const base_cpus *allowed, base_nodes *out);

/* The index into `nodes` for thread [0, n_threads): threads are spread in proportion to the nodes'
 * processors, and thread 0 is on node `first`. nodes->n >= 1. */
int base_nodes_place(const base_nodes *nodes, int first, int n_threads, int thread);

/* The index of the node that has the processor; 0 where none has. */
int base_nodes_find(const base_nodes *nodes, int cpu);

/* Spreads memory that has not been written to yet over the nodes that the calling thread may run
 * on, page by page, so that all of them read it at the same rate. Does nothing with one node. Only
 * a wish: the kernel may refuse it, and everything works as before. */
void base_memory_interleave(void *memory, size_t size);

#endif
