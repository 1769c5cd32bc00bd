/* The list of a model's files at one commit: as the hub sends it, and as the cache keeps it. */
#ifndef HUB_LISTING_H
#define HUB_LISTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hub/name.h"

enum { HUB_FILES_MOST = 100000, HUB_JSON_MOST = 64 << 20 };

typedef struct hub_file {
    char *path;
    uint64_t size;
    char oid[HUB_HASH_MAX + 1];    /* git's name of the file, or of the pointer to a large one */
    char sha256[HUB_HASH_MAX + 1]; /* of a large file; "" of a small one */
} hub_file;

typedef struct hub_listing {
    hub_file *files;
    size_t n, capacity;
} hub_listing; /* all zero is empty */

void hub_listing_free(hub_listing *listing);

/* What names the file in the cache, and what it is checked against. */
const char *hub_file_hash(const hub_file *file);

/* Appends a page of the answer to GET /api/models/OWNER/NAME/tree/COMMIT. Every path is checked
 * (hub_file_is_valid). `name` is what errors call the answer. */
marco_status hub_listing_add(hub_listing *listing, const char *name, const char *text, size_t size,
                             marco_error *error);

/* After the last page: sorts by path; a path that comes twice is an error. */
marco_status hub_listing_finish(hub_listing *listing, const char *name, marco_error *error);

/* The commit ("sha") in the answer to GET /api/models/OWNER/NAME/revision/REVISION, into
 * commit [HUB_HASH_MAX + 1]. */
marco_status hub_parse_commit(const char *name, const char *text, size_t size, char *commit,
                              marco_error *error);

/* The file trees/COMMIT.json that huggingface_hub keeps, format 1. */
marco_status hub_listing_write(const hub_listing *listing, const char *path, marco_error *error);
marco_status hub_listing_read(const char *path, hub_listing *out, marco_error *error);

#endif
