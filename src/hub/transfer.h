/* Downloading files: several requests at once, each for a range of one of them. */
#ifndef HUB_TRANSFER_H
#define HUB_TRANSFER_H

#include "hub/blob.h"
#include "hub/net.h"

enum { HUB_CONNECTIONS_MOST = 32 };

typedef struct hub_transfer {
    const hub_net *net;
    const char *model, *commit;
    hub_blob *blobs; /* [n]: named */
    size_t n;
    int connections;
    uint64_t elsewhere,
        total; /* bytes that were there before, and of all files, for the progress */
    /* Called when a blob is in its place. */
    marco_status (*placed)(void *user, const hub_blob *blob, marco_error *error);
    void *user;
} hub_transfer;

/* All or an error; what came until then is kept. */
marco_status hub_transfer_run(const hub_transfer *transfer, marco_error *error);

#endif
