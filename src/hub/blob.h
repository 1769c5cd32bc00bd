/* A file on its way into the cache: blobs/HASH.marco.incomplete, with holes where bytes are
 * missing, and beside it a record of the blocks that are there, HASH.marco-blocks.incomplete. The
 * record only names blocks that are safe on the disk, so whatever ends the program, or the machine,
 * the next download goes on from there. (Both names end as those of huggingface_hub's own half
 * downloads, so that it knows what to tidy up; but it never writes to them.) */
#ifndef HUB_BLOB_H
#define HUB_BLOB_H

#include "hub/hash.h"

enum { HUB_BLOCK = 1 << 20 };

typedef struct hub_blob {
    const hub_file *file;
    char *path;     /* blobs/HASH */
    char *part;     /* what has been downloaded of it */
    char *record;   /* which blocks those are */
    char *lock;     /* .locks/.../HASH.lock */
    uint8_t *state; /* [blocks]: one of hub_block_state */
    size_t blocks;
    size_t first;     /* blocks before this are there */
    uint64_t present; /* bytes of blocks that are there */
    uint64_t hashed;  /* bytes from the beginning that `hash` has had */
    hub_hash *hash;
    int fd, record_fd, lock_fd;
    int users;       /* requests that are at work on it */
    bool dirty;      /* blocks have come that the record does not name */
    bool whole_only; /* the server ignores ranges: all of it by one request */
    /* The transfer's own: */
    bool spoilt;   /* to be begun anew when nobody is at work on it */
    int tries;     /* to get the whole */
    double resume; /* when to try again */
} hub_blob;

typedef enum hub_block_state {
    HUB_MISSING,
    HUB_CLAIMED, /* a request is under way for it */
    HUB_CAME,
    HUB_KEPT, /* the record names it */
} hub_block_state;

/* Names only; nothing is opened. */
marco_status hub_blob_name(hub_blob *blob, const hub_file *file, const char *model_folder,
                           const char *lock_folder, marco_error *error);

/* The bytes that a past download left of it. */
uint64_t hub_blob_kept(const hub_blob *blob);

/* Whether blobs/HASH is there, whole. */
bool hub_blob_is_there(const hub_blob *blob);

/* Takes the lock and opens what there is of the file. *busy: somebody else is at it, nothing was
 * opened. */
marco_status hub_blob_open(hub_blob *blob, bool *busy, marco_error *error);

/* Claims up to `most` bytes of missing blocks next to each other; false where none is missing. With
 * whole_only it is the whole file or nothing. */
bool hub_blob_claim(hub_blob *blob, uint64_t most, uint64_t *begin, uint64_t *end);

/* Forgets what has come, for a server that ignores ranges: from now on whole_only. No request may
 * be at work on it. */
marco_status hub_blob_restart(hub_blob *blob, marco_error *error);

/* Gives back what was claimed and has not come, of [at, end). */
void hub_blob_unclaim(hub_blob *blob, uint64_t at, uint64_t end);

/* Bytes that came for [at, at + size) of a claim that began at a block's beginning. */
marco_status hub_blob_write(hub_blob *blob, uint64_t at, const void *data, size_t size,
                            marco_error *error);

/* Makes what has come safe, and records it. */
marco_status hub_blob_keep(hub_blob *blob, marco_error *error);

/* Hashes one more block where it is there; *worked: whether it was. buffer [HUB_BLOCK]. */
marco_status hub_blob_hash(hub_blob *blob, uint8_t *buffer, bool *worked, marco_error *error);

/* All has come and all is hashed: checks, and gives the file its name. A wrong hash leaves nothing.
 */
bool hub_blob_is_complete(const hub_blob *blob);
marco_status hub_blob_commit(hub_blob *blob, marco_error *error);

/* Keeps what has come, closes and unlocks; the names stay. */
void hub_blob_close(hub_blob *blob);
void hub_blob_free(hub_blob *blob);

#endif
