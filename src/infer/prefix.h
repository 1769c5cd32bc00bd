/* Finished timelines that later ones may begin with, the latest used first. They are the
 * scheduler's worker's, or those of whoever holds its lock while it rests; where timelines are
 * freed or shared, the engine's turn is the caller's, too. */
#ifndef INFER_PREFIX_H
#define INFER_PREFIX_H

#include "infer/timeline.h"

typedef struct infer_prefix {
    struct infer_prefix *next;
    infer_timeline line;
} infer_prefix;

typedef struct infer_prefixes {
    infer_prefix *first;
    size_t n;
    uint64_t limit; /* bytes of pages, each counted once */
    uint32_t round; /* of counting them */
} infer_prefixes;

/* Tokens that two lists begin with alike. */
size_t infer_common_prefix(const int32_t *a, size_t n_a, const int32_t *b, size_t n_b);

/* The one with the longest common beginning, *n tokens (0: NULL). */
infer_prefix *infer_prefixes_match(const infer_prefixes *prefixes, const int32_t *ids, size_t n_ids,
                                   size_t *n);

/* It is the latest used now. */
void infer_prefixes_touch(infer_prefixes *prefixes, infer_prefix *prefix);

/* Takes the timeline over, leaving an empty one, and drops those it makes needless and those beyond
 * the limit. One too short to be worth while, or that another begins with, is freed. */
void infer_prefixes_put(infer_prefixes *prefixes, infer_timeline *line);

/* Drops the one that has not been used for longest; false where there is none. */
bool infer_prefixes_drop(infer_prefixes *prefixes);

/* A number for the round that a count or a numbering of pages is. */
uint32_t infer_prefixes_round(infer_prefixes *prefixes);

void infer_prefixes_free(infer_prefixes *prefixes);

#endif
