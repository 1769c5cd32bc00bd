#include "hub/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "hub/folder.h"
#include "hub/listing.h"

enum { REF_FILE_MAX = 256 };

char *hub_model_folder(const hub_place *place, const char *model)
{
    char folder[HUB_MODEL_MAX + 16];
    hub_name_folder(model, folder);
    return base_path_join(place->cache, folder);
}

marco_status hub_read_ref(const char *model_folder, const char *revision, char *commit,
                          marco_error *error)
{
    char *path = hub_path(model_folder, "refs", revision, NULL), *text = NULL;
    size_t size = 0;
    if (!path)
        return base_fail_memory(error, strlen(model_folder), revision);
    marco_error ignored;
    marco_status status = base_file_slurp(path, REF_FILE_MAX, &text, &size, &ignored);
    while (!status && size > 0 && strchr(" \r\n", text[size - 1]))
        text[--size] = '\0';
    if (status == MARCO_OK && !hub_is_commit(text))
        status = base_fail(error, MARCO_ERROR_FORMAT, "%s: holds no commit; remove the file", path);
    else if (status == MARCO_OK)
        memcpy(commit, text, size + 1);
    else if (hub_is_commit(revision)) {
        memcpy(commit, revision, strlen(revision) + 1);
        status = MARCO_OK;
    } else {
        status = base_fail(error, status == MARCO_ERROR_MEMORY ? status : MARCO_ERROR_NOT_FOUND,
                           "%s", ignored.message);
    }
    base_free(text);
    base_free(path);
    return status;
}

const char *hub_blob_of_link(const char *target)
{
    const char *at = target;
    while (strncmp(at, "../", 3) == 0)
        at += 3;
    if (at == target || strncmp(at, "blobs/", 6) != 0)
        return NULL;
    at += 6;
    return base_path_is_plain(at) ? at : NULL;
}

/* ---- counting ------------------------------------------------------------------------------- */

typedef struct identity {
    dev_t device;
    ino_t inode;
    uint64_t size;
} identity;

typedef struct counting {
    hub_count count;
    identity *files; /* to count those once that have several names */
    size_t n, capacity;
    bool failed;
} counting;

static bool count_file(void *user, const hub_entry *entry)
{
    counting *c = user;
    struct stat st;
    if (fstatat(entry->folder, entry->name, &st, 0) != 0) {
        c->count.broken = true;
        return true;
    }
    if (!S_ISREG(st.st_mode))
        return true;
    if (!base_grow((void **)&c->files, &c->capacity, c->n + 1, sizeof *c->files)) {
        c->failed = true;
        return false;
    }
    c->files[c->n++] = (identity){st.st_dev, st.st_ino, (uint64_t)st.st_size};
    c->count.present++;
    if (st.st_mtim.tv_sec > c->count.modified)
        c->count.modified = st.st_mtim.tv_sec;
    return true;
}

static int compare(const void *a, const void *b)
{
    const identity *x = a, *y = b;
    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    return x->inode < y->inode ? -1 : x->inode > y->inode;
}

/* How many files of the listing the snapshot has. */
static size_t count_listed(const hub_listing *listing, const char *snapshot)
{
    size_t present = 0;
    for (size_t i = 0; i < listing->n; i++) {
        struct stat st;
        char *path = hub_path(snapshot, listing->files[i].path, NULL);
        present += path && stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
                   (uint64_t)st.st_size == listing->files[i].size;
        base_free(path);
    }
    return present;
}

marco_status hub_snapshot_count(const char *model_folder, const char *commit, hub_count *out,
                                marco_error *error)
{
    counting c = {0};
    hub_listing listing = {0};
    marco_status status = MARCO_OK;
    char file[HUB_HASH_MAX + 8];
    snprintf(file, sizeof file, "%s.json", commit);
    char *snapshot = hub_path(model_folder, "snapshots", commit, NULL);
    char *tree = hub_path(model_folder, "trees", file, NULL);
    if (!snapshot || !tree) {
        status = base_fail_memory(error, strlen(model_folder), commit);
        goto done;
    }
    if (!hub_folder_walk(snapshot, count_file, &c)) {
        c.count.broken = true;
        if (c.failed) {
            status = base_fail_memory(error, c.n * sizeof *c.files, snapshot);
            goto done;
        }
    }
    if (c.n > 0)
        qsort(c.files, c.n, sizeof *c.files, compare);
    for (size_t i = 0; i < c.n; i++)
        if (i == 0 || compare(&c.files[i - 1], &c.files[i]) != 0)
            c.count.bytes += c.files[i].size;
    /* A listing that is missing or broken tells nothing. */
    marco_error ignored;
    if (hub_listing_read(tree, &listing, &ignored) == MARCO_OK) {
        c.count.all = listing.n;
        c.count.present = count_listed(&listing, snapshot);
    }
    *out = c.count;
done:
    hub_listing_free(&listing);
    base_free(c.files);
    base_free(snapshot);
    base_free(tree);
    return status;
}
