/* The two hashes by which a hub names files. GnuTLS computes them: libmicrohttpd needs that library
 * anyway, and it uses the processor's instructions for SHA where there are any. */
#ifndef HUB_HASH_H
#define HUB_HASH_H

#include "hub/listing.h"

typedef struct hub_hash hub_hash;

/* For a file of the listing: SHA-256 of a large file's bytes; of a small one git's name of a blob,
 * which is the hash of "blob SIZE", a NUL and the bytes. */
marco_status hub_hash_create(const hub_file *file, hub_hash **out, marco_error *error);
marco_status hub_hash_add(hub_hash *hash, const void *data, size_t size, marco_error *error);

/* Into text [HUB_HASH_MAX + 1]; hub_hash_free all the same. */
void hub_hash_finish(hub_hash *hash, char *text);
void hub_hash_free(hub_hash *hash); /* NULL is allowed */

/* "SHA-256" or "git's SHA-1", for messages. */
const char *hub_hash_name(const hub_file *file);

#endif
