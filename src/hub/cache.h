/* What is where in the cache of huggingface_hub:
 *
 *   CACHE/models--OWNER--NAME/blobs/HASH             the files, each once
 *                             snapshots/COMMIT/...   the model's folder at a commit: links to blobs
 *                             refs/REVISION          the commit that a branch or a tag was last at
 *                             trees/COMMIT.json      what files the commit has
 *   CACHE/.locks/models--OWNER--NAME/HASH.lock       held while blobs/HASH is made
 */
#ifndef HUB_CACHE_H
#define HUB_CACHE_H

#include "hub/name.h"
#include "hub/place.h"

/* "CACHE/models--OWNER--NAME"; base_free; NULL when out of memory. */
char *hub_model_folder(const hub_place *place, const char *model);

/* The commit that a revision was last at, into commit [HUB_HASH_MAX + 1]; a commit is itself.
 * MARCO_ERROR_NOT_FOUND where no reference has the name. */
marco_status hub_read_ref(const char *model_folder, const char *revision, char *commit,
                          marco_error *error);

/* The blob's name in what a link of a snapshot says ("../../blobs/NAME", so many times up as the
 * link lies deep), or NULL for links that lead elsewhere. */
const char *hub_blob_of_link(const char *target);

/* Where the snapshot lacks files that its commit has: how many it has, how many there are (0 where
 * nothing tells). */
typedef struct hub_count {
    size_t present, all;
    bool broken; /* a link leads nowhere, or it cannot be read */
    uint64_t bytes;
    int64_t modified;
} hub_count;

marco_status hub_snapshot_count(const char *model_folder, const char *commit, hub_count *out,
                                marco_error *error);

#endif
