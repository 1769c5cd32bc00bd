#include "hub/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "hub/folder.h"

/* The record: this many bytes that say what it is of, then '0' or '1' for each block. */
enum { HEAD = 128 };

static void head_of(const hub_blob *blob, char *head)
{
    char text[HEAD + 1];
    snprintf(text, sizeof text, "marco blocks 1 %s %llu %d", hub_file_hash(blob->file),
             (unsigned long long)blob->file->size, HUB_BLOCK);
    memset(head, ' ', HEAD);
    memcpy(head, text, strlen(text));
    head[HEAD - 1] = '\n';
}

static char *join_hash(const char *folder, const char *hash, const char *end)
{
    char name[HUB_HASH_MAX + 32];
    snprintf(name, sizeof name, "%s%s", hash, end);
    return base_path_join(folder, name);
}

marco_status hub_blob_name(hub_blob *blob, const hub_file *file, const char *model_folder,
                           const char *lock_folder, marco_error *error)
{
    const char *hash = hub_file_hash(file);
    *blob = (hub_blob){.file = file, .fd = -1, .record_fd = -1, .lock_fd = -1};
    blob->blocks = (size_t)((file->size + HUB_BLOCK - 1) / HUB_BLOCK);
    char *blobs = hub_path(model_folder, "blobs", NULL);
    if (blobs) {
        blob->path = join_hash(blobs, hash, "");
        blob->part = join_hash(blobs, hash, ".marco.incomplete");
        blob->record = join_hash(blobs, hash, ".marco-blocks.incomplete");
        blob->lock = join_hash(lock_folder, hash, ".lock");
    }
    base_free(blobs);
    if (blob->path && blob->part && blob->record && blob->lock)
        return MARCO_OK;
    hub_blob_free(blob);
    return base_fail_memory(error, strlen(model_folder), file->path);
}

static uint64_t block_size(const hub_blob *blob, size_t i)
{
    uint64_t begin = (uint64_t)i * HUB_BLOCK, left = blob->file->size - begin;
    return left < HUB_BLOCK ? left : HUB_BLOCK;
}

bool hub_blob_is_there(const hub_blob *blob)
{
    struct stat st;
    return stat(blob->path, &st) == 0 && S_ISREG(st.st_mode) &&
           (uint64_t)st.st_size == blob->file->size;
}

/* ---- what a past download left -------------------------------------------------------------- */

/* Reads the record into state [blocks] (NULL: only adds up); returns the bytes it vouches for. 0
 * where it is none, or of something else. */
static uint64_t read_record(const hub_blob *blob, int record, int part, uint8_t *state)
{
    char head[HEAD], wanted[HEAD], marks[4096];
    struct stat st;
    uint64_t present = 0;
    head_of(blob, wanted);
    if (fstat(part, &st) != 0 || pread(record, head, HEAD, 0) != HEAD ||
        memcmp(head, wanted, HEAD) != 0)
        return 0;
    for (size_t i = 0; i < blob->blocks;) {
        size_t n = blob->blocks - i < sizeof marks ? blob->blocks - i : sizeof marks;
        if (pread(record, marks, n, (off_t)(HEAD + i)) != (ssize_t)n)
            break;
        for (size_t k = 0; k < n; k++, i++) {
            uint64_t size = block_size(blob, i);
            if (marks[k] != '1' || (uint64_t)i * HUB_BLOCK + size > (uint64_t)st.st_size)
                continue;
            present += size;
            if (state)
                state[i] = HUB_KEPT;
        }
    }
    return present;
}

/* O_NONBLOCK: opening a FIFO must not hang before fstat tells what it is. -1 with EEXIST where
 * something else than a file has the name. */
static int open_plain(const char *path, int flags)
{
    struct stat st;
    int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (fd < 0 || (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)))
        return fd;
    close(fd);
    errno = EEXIST;
    return -1;
}

static marco_status open_to_write(const char *path, int *fd, marco_error *error)
{
    *fd = open_plain(path, O_RDWR | O_CREAT);
    if (*fd >= 0)
        return MARCO_OK;
    if (errno == EEXIST || errno == ELOOP || errno == EISDIR || errno == ENXIO)
        return base_fail(error, MARCO_ERROR_IO,
                         "cannot write %s: something that is no plain file has this name: remove "
                         "it, and try again",
                         path);
    return base_fail_errno(error, errno, "cannot write", path);
}

uint64_t hub_blob_kept(const hub_blob *blob)
{
    int part = open_plain(blob->part, O_RDONLY), record = open_plain(blob->record, O_RDONLY);
    uint64_t kept = part >= 0 && record >= 0 ? read_record(blob, record, part, NULL) : 0;
    if (part >= 0)
        close(part);
    if (record >= 0)
        close(record);
    return kept;
}

/* A record of nothing; what the part holds is of no use any more. */
static marco_status begin_anew(hub_blob *blob, marco_error *error)
{
    char head[HEAD];
    head_of(blob, head);
    if (ftruncate(blob->record_fd, 0) != 0 || ftruncate(blob->fd, 0) != 0 ||
        pwrite(blob->record_fd, head, HEAD, 0) != HEAD)
        return base_fail_errno(error, errno, "cannot write", blob->record);
    /* Zeros: nothing is there. */
    if (ftruncate(blob->record_fd, (off_t)(HEAD + blob->blocks)) != 0)
        return base_fail_errno(error, errno, "cannot write", blob->record);
    memset(blob->state, HUB_MISSING, blob->blocks);
    return MARCO_OK;
}

/* ---- opening -------------------------------------------------------------------------------- */

/* huggingface_hub takes the same lock on the same file (flock, by its package filelock). Whoever
 * tidies up may remove the file while we wait: then the lock is on nothing, and we begin again. */
static marco_status take_lock(hub_blob *blob, bool *busy, marco_error *error)
{
    struct stat held, there;
    *busy = false;
    for (int tries = 0; tries < 100; tries++) {
        marco_status status = hub_folder_make_for(blob->lock, error);
        if (status)
            return status;
        blob->lock_fd = open(blob->lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0664);
        if (blob->lock_fd < 0 && errno == ENOENT)
            continue;
        if (blob->lock_fd < 0)
            return base_fail_errno(error, errno, "cannot make the lock", blob->lock);
        int code = flock(blob->lock_fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
        /* A file system without locks: the record's own checks and the hash have to do. */
        *busy = code == EWOULDBLOCK;
        if (!*busy && fstat(blob->lock_fd, &held) == 0 && stat(blob->lock, &there) == 0 &&
            held.st_dev == there.st_dev && held.st_ino == there.st_ino)
            return MARCO_OK;
        close(blob->lock_fd);
        blob->lock_fd = -1;
        if (*busy)
            return MARCO_OK;
    }
    return base_fail(error, MARCO_ERROR_BUSY, "cannot keep the lock %s: something removes it",
                     blob->lock);
}

static marco_status open_part(hub_blob *blob, marco_error *error)
{
    blob->state = base_calloc(blob->blocks, 1);
    if (!blob->state)
        return base_fail_memory(error, blob->blocks, blob->file->path);
    marco_status status = hub_hash_create(blob->file, &blob->hash, error);
    if (status)
        return status;
    status = open_to_write(blob->part, &blob->fd, error);
    if (!status)
        status = open_to_write(blob->record, &blob->record_fd, error);
    if (status)
        return status;
    blob->present = read_record(blob, blob->record_fd, blob->fd, blob->state);
    if (blob->present == 0)
        return begin_anew(blob, error);
    return MARCO_OK;
}

marco_status hub_blob_open(hub_blob *blob, bool *busy, marco_error *error)
{
    marco_status status = take_lock(blob, busy, error);
    if (status || *busy)
        return status;
    blob->first = 0;
    blob->present = blob->hashed = 0;
    blob->dirty = blob->whole_only = blob->spoilt = false;
    /* Who held the lock before may have been downloading it. */
    if (!hub_blob_is_there(blob))
        status = open_part(blob, error);
    if (status)
        hub_blob_close(blob);
    return status;
}

/* ---- blocks --------------------------------------------------------------------------------- */

bool hub_blob_claim(hub_blob *blob, uint64_t most, uint64_t *begin, uint64_t *end)
{
    size_t i = blob->first, n = 0;
    if (blob->whole_only) {
        if (blob->users > 0 || blob->blocks == 0 || blob->state[0] != HUB_MISSING)
            return false;
        memset(blob->state, HUB_CLAIMED, blob->blocks);
        *begin = 0;
        *end = blob->file->size;
        return true;
    }
    while (i < blob->blocks && blob->state[i] != HUB_MISSING)
        i++;
    while (i + n < blob->blocks && blob->state[i + n] == HUB_MISSING &&
           (n == 0 || (uint64_t)(n + 1) * HUB_BLOCK <= most))
        n++;
    if (n == 0)
        return false;
    memset(blob->state + i, HUB_CLAIMED, n);
    *begin = (uint64_t)i * HUB_BLOCK;
    *end = *begin + (uint64_t)(n - 1) * HUB_BLOCK + block_size(blob, i + n - 1);
    return true;
}

marco_status hub_blob_restart(hub_blob *blob, marco_error *error)
{
    hub_hash_free(blob->hash);
    blob->hash = NULL;
    blob->whole_only = true;
    blob->first = 0;
    blob->present = blob->hashed = 0;
    blob->dirty = false;
    marco_status status = begin_anew(blob, error);
    return status ? status : hub_hash_create(blob->file, &blob->hash, error);
}

void hub_blob_unclaim(hub_blob *blob, uint64_t at, uint64_t end)
{
    for (size_t i = (size_t)(at / HUB_BLOCK); (uint64_t)i * HUB_BLOCK < end; i++)
        if (blob->state[i] == HUB_CLAIMED)
            blob->state[i] = HUB_MISSING;
}

marco_status hub_blob_write(hub_blob *blob, uint64_t at, const void *data, size_t size,
                            marco_error *error)
{
    const char *from = data;
    uint64_t end = at + size;
    for (uint64_t to = at; to < end;) {
        ssize_t n = pwrite(blob->fd, from, (size_t)(end - to), (off_t)to);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return base_fail_errno(error, errno, "cannot write", blob->part);
        from += n;
        to += (uint64_t)n;
    }
    for (size_t i = (size_t)(at / HUB_BLOCK); i < blob->blocks; i++) {
        if ((uint64_t)i * HUB_BLOCK + block_size(blob, i) > end)
            break;
        if (blob->state[i] != HUB_CLAIMED)
            continue;
        blob->state[i] = HUB_CAME;
        blob->present += block_size(blob, i);
        blob->dirty = true;
    }
    while (blob->first < blob->blocks && blob->state[blob->first] >= HUB_CAME)
        blob->first++;
    return MARCO_OK;
}

marco_status hub_blob_keep(hub_blob *blob, marco_error *error)
{
    if (!blob->dirty || blob->fd < 0)
        return MARCO_OK;
    if (fdatasync(blob->fd) != 0)
        return base_fail_errno(error, errno, "cannot write", blob->part);
    for (size_t i = 0; i < blob->blocks; i++) {
        if (blob->state[i] != HUB_CAME)
            continue;
        if (pwrite(blob->record_fd, "1", 1, (off_t)(HEAD + i)) != 1)
            return base_fail_errno(error, errno, "cannot write", blob->record);
        blob->state[i] = HUB_KEPT;
    }
    blob->dirty = false;
    return MARCO_OK;
}

/* ---- checking ------------------------------------------------------------------------------- */

marco_status hub_blob_hash(hub_blob *blob, uint8_t *buffer, bool *worked, marco_error *error)
{
    size_t i = (size_t)(blob->hashed / HUB_BLOCK);
    *worked = false;
    if (blob->fd < 0 || blob->hashed == blob->file->size || blob->state[i] < HUB_CAME)
        return MARCO_OK;
    size_t size = (size_t)block_size(blob, i);
    for (size_t at = 0; at < size;) {
        ssize_t n = pread(blob->fd, buffer + at, size - at, (off_t)(blob->hashed + at));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return base_fail_errno(error, n < 0 ? errno : EIO, "cannot read", blob->part);
        at += (size_t)n;
    }
    marco_status status = hub_hash_add(blob->hash, buffer, size, error);
    blob->hashed += size;
    *worked = !status;
    return status;
}

bool hub_blob_is_complete(const hub_blob *blob)
{
    return blob->fd >= 0 && blob->users == 0 && blob->present == blob->file->size &&
           blob->hashed == blob->file->size;
}

static void discard(hub_blob *blob)
{
    unlink(blob->part);
    unlink(blob->record);
    if (blob->fd >= 0)
        close(blob->fd);
    blob->fd = -1; /* nothing to keep */
}

marco_status hub_blob_commit(hub_blob *blob, marco_error *error)
{
    char found[HUB_HASH_MAX + 1];
    hub_hash_finish(blob->hash, found);
    if (strcmp(found, hub_file_hash(blob->file)) != 0) {
        discard(blob);
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: what was downloaded is not the hub's file: its %s is %s and not %s; "
                         "it was thrown away, try again",
                         blob->file->path, hub_hash_name(blob->file), found,
                         hub_file_hash(blob->file));
    }
    if (fsync(blob->fd) != 0 || rename(blob->part, blob->path) != 0)
        return base_fail_errno(error, errno, "cannot write", blob->path);
    discard(blob);
    return MARCO_OK;
}

void hub_blob_close(hub_blob *blob)
{
    marco_error ignored;
    hub_blob_keep(blob, &ignored);
    hub_hash_free(blob->hash);
    base_free(blob->state);
    blob->hash = NULL;
    blob->state = NULL;
    int *fds[] = {&blob->fd, &blob->record_fd, &blob->lock_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

void hub_blob_free(hub_blob *blob)
{
    hub_blob_close(blob);
    base_free(blob->path);
    base_free(blob->part);
    base_free(blob->record);
    base_free(blob->lock);
    *blob = (hub_blob){.fd = -1, .record_fd = -1, .lock_fd = -1};
}
