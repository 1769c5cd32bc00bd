/* A recorded run's choices of experts, and what a cache of so many slots would have made of them.
 */
#ifndef CLI_REPLAY_H
#define CLI_REPLAY_H

#include "command.h"

/* A step is what a layer's pass asks for: its experts, each once, in ascending order. */
typedef struct trace {
    int32_t *keys; /* [n_keys] the layers' experts that occur, numbered from 0, step after step */
    size_t *first; /* [n_steps + 1] a step's first in keys */
    size_t n_keys, n_steps;
    int32_t range;  /* one above the last of keys */
    int32_t layers; /* one above the last */
    size_t keys_room, steps_room;
} trace;

/* Returns an exit status, errors reported. Release with trace_free either way. */
int trace_read(const command *self, const char *path, trace *out);
void trace_free(trace *t);

typedef enum policy {
    POLICY_LRU, /* the one used least recently goes: what marco does */
    POLICY_LFU, /* the one used least often goes, a use of 64 steps of its layer ago counting half
                 */
    POLICY_OPT, /* the one needed again last goes (Belady, 1966): no policy can know that */
    POLICY_END,
} policy;

extern const char *const policy_names[POLICY_END];

/* Plays a step as marco does: experts that are there are used first, in order, then the others take
 * the place of what the policy gives up. False when out of memory. */
bool trace_replay(const trace *t, policy which, int64_t slots, uint64_t *hits);

#endif
