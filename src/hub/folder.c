#include "hub/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "base/text.h"
#include "hub/name.h"

/* Folders in one another. Whatever may be downloaded can be walked and removed: a file lies below
 * the model's folder, "snapshots" and the commit, so at HUB_PARTS_MOST + 2 at most. */
enum { DEEPEST = 64 };
_Static_assert(HUB_PARTS_MOST + 2 < DEEPEST, "what is downloaded can be removed");

char *hub_path(const char *part, ...)
{
    base_text out = {0};
    va_list parts;
    va_start(parts, part);
    for (const char *p = part; p; p = va_arg(parts, const char *)) {
        if (p != part)
            base_text_add_char(&out, '/');
        base_text_add(&out, p);
    }
    va_end(parts);
    return base_text_take(&out, NULL);
}

marco_status hub_folder_make(const char *path, marco_error *error)
{
    char *copy = base_strdup(path);
    if (!copy)
        return base_fail_memory(error, strlen(path), path);
    marco_status status = MARCO_OK;
    for (char *at = copy + 1; !status && copy[0]; at++) {
        char c = *at;
        if (c != '/' && c != '\0')
            continue;
        *at = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            status = base_fail_errno(error, errno, "cannot make the folder", copy);
        *at = c;
        if (c == '\0')
            break;
    }
    if (!status && !base_is_folder(copy))
        status = base_fail(error, MARCO_ERROR_EXISTS, "%s is not a folder", path);
    base_free(copy);
    return status;
}

marco_status hub_folder_make_for(const char *path, marco_error *error)
{
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path)
        return MARCO_OK;
    char *folder = base_strndup(path, (size_t)(slash - path));
    if (!folder)
        return base_fail_memory(error, strlen(path), path);
    marco_status status = hub_folder_make(folder, error);
    base_free(folder);
    return status;
}

marco_status hub_file_put(const char *path, const char *data, size_t size, marco_error *error)
{
    base_output *output;
    marco_status status = hub_folder_make_for(path, error);
    if (!status)
        status = base_output_create(path, true, &output, error);
    if (status)
        return status;
    status = base_output_write(output, data, size, error);
    if (status) {
        base_output_abort(output);
        return status;
    }
    return base_output_commit(output, error);
}

/* An open folder as a stream; NULL where it cannot be read. The descriptor is the stream's, or
 * closed. */
static DIR *stream(int fd)
{
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir && fd >= 0)
        close(fd);
    return dir;
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* The next entry; NULL at the end, and with *good false where the rest cannot be read. */
static struct dirent *next_entry(DIR *dir, bool *good)
{
    errno = 0;
    struct dirent *e = readdir(dir);
    *good = e || errno == 0;
    return e;
}

static bool walk(int fd, const char *path, int depth, hub_visit_fn visit, void *user)
{
    DIR *dir = stream(fd);
    bool good = dir != NULL && depth < DEEPEST;
    for (struct dirent *e; good && (e = next_entry(dir, &good));) {
        hub_entry entry = {.folder = dirfd(dir), .name = e->d_name};
        if (is_dots(e->d_name))
            continue;
        char *inner = path[0] ? hub_path(path, e->d_name, NULL) : base_strdup(e->d_name);
        entry.path = inner;
        if (!inner) {
            good = false;
        } else if (fstatat(entry.folder, e->d_name, &entry.st, AT_SYMLINK_NOFOLLOW) != 0) {
            good = errno == ENOENT; /* gone since it was read */
        } else if (S_ISDIR(entry.st.st_mode)) {
            int next =
                openat(entry.folder, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            good = walk(next, inner, depth + 1, visit, user);
        } else {
            good = visit(user, &entry);
        }
        base_free(inner);
    }
    if (dir)
        closedir(dir);
    return good;
}

bool hub_folder_walk(const char *path, hub_visit_fn visit, void *user)
{
    return walk(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), "", 0, visit, user);
}

uint64_t hub_bytes_of(const struct stat *st)
{
    if (!S_ISREG(st->st_mode) || st->st_nlink > 1)
        return 0;
    /* Half a download has holes. */
    uint64_t held = (uint64_t)st->st_blocks * 512, size = (uint64_t)st->st_size;
    return held < size ? held : size;
}

/* Empties an open folder, which is closed. Returns 0 or an errno. */
static int empty(int fd, int depth, uint64_t *freed)
{
    DIR *dir = stream(fd);
    if (!dir || depth >= DEEPEST) {
        int code = dir ? ELOOP : errno;
        if (dir)
            closedir(dir);
        return code;
    }
    int code = 0;
    for (struct dirent *e; !code && (e = readdir(dir));) {
        struct stat st;
        if (is_dots(e->d_name))
            continue;
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            code = errno == ENOENT ? 0 : errno;
            continue;
        }
        if (S_ISDIR(st.st_mode)) {
            int inner =
                openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            code = inner < 0 ? errno : empty(inner, depth + 1, freed);
        }
        if (!code && unlinkat(dirfd(dir), e->d_name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) != 0)
            code = errno == ENOENT ? 0 : errno;
        else if (!code)
            *freed += hub_bytes_of(&st);
    }
    closedir(dir);
    return code;
}

marco_status hub_folder_remove(const char *path, uint64_t *freed, marco_error *error)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return errno == ENOENT ? MARCO_OK : base_fail_errno(error, errno, "cannot look at", path);
    if (!S_ISDIR(st.st_mode))
        return base_fail(error, MARCO_ERROR_EXISTS,
                         "%s is a link or a file where the cache has a folder: not removed; see "
                         "where it leads and remove it by hand",
                         path);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int code = fd < 0 ? errno : empty(fd, 0, freed);
    if (!code && rmdir(path) != 0)
        code = errno;
    if (code == ELOOP)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "%s holds folders nested more than %d deep, as no download makes them; "
                         "remove it by hand",
                         path, DEEPEST);
    return code ? base_fail_errno(error, code, "cannot remove", path) : MARCO_OK;
}

const char *hub_amount(uint64_t bytes, char *out)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= (unit ? 999.95 : 1000) && unit < 6; unit++)
        value /= 1000;
    snprintf(out, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return out;
}
