#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"

/* Files below this are read through the page cache: not worth a second descriptor. */
enum { DIRECT_FROM = 1 << 20 };

/* The open file once more, past the page cache; -1 where the system or its file system cannot. By
 * its descriptor: the path may name another file by now. */
static int open_direct(int fd)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
}

marco_status base_file_open(const char *path, base_file **out, marco_error *error)
{
    marco_status status;
    struct stat st;
    base_file *file = base_calloc(1, sizeof *file);
    if (!file)
        return base_fail_memory(error, sizeof *file, path);
    file->path = base_strdup(path);
    file->fd = file->direct = -1;
    if (!file->path) {
        status = base_fail_memory(error, strlen(path), path);
        goto fail;
    }
    /* O_NONBLOCK: opening a FIFO must not hang before fstat can refuse it. */
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file->fd < 0 || fstat(file->fd, &st) != 0) {
        status = base_fail_errno(error, errno, "cannot open", path);
        goto fail;
    }
    if (!S_ISREG(st.st_mode)) {
        status = base_fail(error, MARCO_ERROR_ARGUMENT, "%s: not a regular file", path);
        goto fail;
    }
    file->size = (uint64_t)st.st_size;
    file->written = st.st_mtim;
    if (file->size >= DIRECT_FROM)
        file->direct = open_direct(file->fd);
    *out = file;
    return MARCO_OK;
fail:
    base_file_close(file);
    return status;
}

void base_file_close(base_file *file)
{
    if (!file)
        return;
    if (file->fd >= 0)
        close(file->fd);
    if (file->direct >= 0)
        close(file->direct);
    base_free(file->path);
    base_free(file);
}

/* A look at the clock of the file for every read costs nothing beside the read, and half of one
 * model with half of another would run and talk nonsense. */
static marco_status check_unchanged(const base_file *file, marco_error *error)
{
    struct stat st;
    if (fstat(file->fd, &st) != 0)
        return base_fail_errno(error, errno, "cannot read", file->path);
    if ((uint64_t)st.st_size != file->size || st.st_mtim.tv_sec != file->written.tv_sec ||
        st.st_mtim.tv_nsec != file->written.tv_nsec)
        return base_fail(error, MARCO_ERROR_IO,
                         "%s: something changed the file while it was read; try again when that is "
                         "done",
                         file->path);
    return MARCO_OK;
}

static marco_status check_range(const base_file *file, uint64_t offset, size_t size,
                                marco_error *error)
{
    uint64_t end;
    if (!base_add_u64(offset, size, &end) || end > file->size)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: data at byte %llu (%zu bytes) lies past the end of the file (%llu "
                         "bytes); is the download complete?",
                         file->path, (unsigned long long)offset, size,
                         (unsigned long long)file->size);
    return MARCO_OK;
}

marco_status base_file_read(const base_file *file, uint64_t offset, void *buffer, size_t size,
                            marco_error *error)
{
    marco_status status = check_range(file, offset, size, error);
    if (status)
        return status;
    char *at = buffer;
    while (size) {
        ssize_t n = pread(file->fd, at, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return base_fail(error, MARCO_ERROR_IO, "%s: cannot read %zu bytes at byte %llu: %s",
                             file->path, size, (unsigned long long)offset, strerror(errno));
        if (n == 0)
            return base_fail(error, MARCO_ERROR_IO,
                             "%s: ended at byte %llu although it had %llu bytes when opened; "
                             "something shortened it while it was read",
                             file->path, (unsigned long long)offset,
                             (unsigned long long)file->size);
        at += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return check_unchanged(file, error);
}

/* Is all of the range in the page cache already? Where the system cannot tell (Linux before 6.5),
 * no. */
static bool is_cached(const base_file *file, uint64_t offset, uint64_t size)
{
    enum { CACHESTAT = 451 }; /* the system call's number, the same on every architecture */
    struct {
        uint64_t offset, size;
    } range = {offset, size};
    struct {
        uint64_t cached, dirty, writeback, evicted, recently_evicted;
    } found = {0};
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (size == 0 || syscall(CACHESTAT, file->fd, &range, &found, 0) != 0)
        return false;
    return found.cached >= (offset + size - 1) / page - offset / page + 1;
}

/* Bytes first .. end - 1 to buffer, `first` a multiple of the alignment. False where that did not
 * work: the read through the page cache then tells why, or does it. */
static bool read_direct(const base_file *file, uint64_t first, uint64_t end, uint8_t *buffer)
{
    const uint64_t mask = BASE_FILE_ALIGN - 1;
    uint64_t last = (end + mask) & ~mask, at = first;
    while (at < end) {
        ssize_t n = pread(file->direct, buffer + (at - first), (size_t)(last - at), (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        if (at + (uint64_t)n >= end)
            return true;
        if ((uint64_t)n <= mask)
            return false;
        at += (uint64_t)n & ~mask; /* a short read may end anywhere, the next begins aligned */
    }
    return true;
}

marco_status base_file_read_past(const base_file *file, uint64_t offset, void *buffer, size_t size,
                                 const uint8_t **data, marco_error *error)
{
    marco_status status = check_range(file, offset, size, error);
    if (status)
        return status;
    uint64_t first = offset & ~(uint64_t)(BASE_FILE_ALIGN - 1);
    bool cached = is_cached(file, offset, size);
    if (!cached && file->direct >= 0 && read_direct(file, first, offset + size, buffer)) {
        *data = (uint8_t *)buffer + (offset - first);
        return check_unchanged(file, error);
    }
    *data = buffer;
    status = base_file_read(file, offset, buffer, size, error);
    if (!cached)
        posix_fadvise(file->fd, (off_t)offset, (off_t)size, POSIX_FADV_DONTNEED);
    return status;
}

marco_status base_file_share(const base_file *file, base_file **out, marco_error *error)
{
    base_file *copy = base_calloc(1, sizeof *copy);
    if (!copy)
        return base_fail_memory(error, sizeof *copy, file->path);
    *copy = *file;
    copy->path = base_strdup(file->path);
    copy->fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 0);
    copy->direct = file->direct < 0 ? -1 : fcntl(file->direct, F_DUPFD_CLOEXEC, 0);
    marco_status status = MARCO_OK;
    if (!copy->path)
        status = base_fail_memory(error, strlen(file->path), file->path);
    else if (copy->fd < 0)
        status = base_fail_errno(error, errno, "cannot open", file->path);
    if (status)
        base_file_close(copy);
    else
        *out = copy;
    return status;
}

marco_status base_file_map(const base_file *file, const uint8_t **out, marco_error *error)
{
    marco_status status = check_unchanged(file, error);
    if (status)
        return status;
    void *map = mmap(NULL, (size_t)file->size, PROT_READ, MAP_SHARED, file->fd, 0);
    if (map == MAP_FAILED)
        return base_fail_errno(error, errno, "cannot map", file->path);
    *out = map;
    return MARCO_OK;
}

void base_file_unmap(const uint8_t *map, uint64_t size)
{
    if (map)
        munmap((void *)map, (size_t)size);
}

marco_status base_file_slurp(const char *path, size_t limit, char **data, size_t *size,
                             marco_error *error)
{
    base_file *file;
    char *buffer = NULL;
    marco_status status = base_file_open(path, &file, error);
    if (status)
        return status;
    if (file->size > limit) {
        status = base_fail(error, MARCO_ERROR_FORMAT, "%s: %llu bytes, more than the %zu allowed",
                           path, (unsigned long long)file->size, limit);
        goto done;
    }
    size_t n = (size_t)file->size;
    buffer = base_alloc(n + 1);
    if (!buffer) {
        status = base_fail_memory(error, n, path);
        goto done;
    }
    status = base_file_read(file, 0, buffer, n, error);
    if (status)
        goto done;
    buffer[n] = '\0';
    *data = buffer;
    *size = n;
    buffer = NULL;
done:
    base_free(buffer);
    base_file_close(file);
    return status;
}

bool base_is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool base_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

char *base_path_join(const char *folder, const char *name)
{
    size_t a = strlen(folder), b = strlen(name);
    while (a > 1 && folder[a - 1] == '/')
        a--;
    char *path = base_alloc(a + b + 2);
    if (path) {
        memcpy(path, folder, a);
        path[a] = '/';
        memcpy(path + a + 1, name, b + 1);
    }
    return path;
}

const char *base_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

bool base_path_is_plain(const char *name)
{
    return name[0] && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

bool base_has_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path), m = strlen(suffix);
    return n >= m && strcmp(path + n - m, suffix) == 0;
}
