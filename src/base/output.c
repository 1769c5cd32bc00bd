#include "base/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

enum { BUFFER_BYTES = 1 << 20, ASIDE = 2000 /* K of a folder that was moved aside */ };

struct base_output {
    char *path;      /* final name */
    char *temporary; /* name while it is written */
    char *buffer;    /* [BUFFER_BYTES] of small writes not yet in the file */
    size_t buffered;
    uint64_t size;
    int fd;
    bool overwrite;
};

/* "folder/.name.tmp-PID-K": beside the final name, so that the rename stays in one file system;
 * hidden, so that no pattern picks up half a file. A long name is cut, to stay a possible one. */
static char *temporary_name(const char *path, unsigned k)
{
    enum { LONGEST = 200 };
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    size_t name = length;
    while (name > 0 && path[name - 1] != '/')
        name--;
    size_t shown = length - name < LONGEST ? length - name : LONGEST;
    size_t capacity = length + 48;
    char *out = base_alloc(capacity);
    if (out)
        snprintf(out, capacity, "%.*s.%.*s.tmp-%ld-%u", (int)name, path, (int)shown, path + name,
                 (long)getpid(), k);
    return out;
}

/* Gives `from` the name `to`, which must be free: what appeared there since it was looked for is
 * somebody's work. */
static int rename_new(const char *from, const char *to)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    /* A file system without that: files can be linked, which never replaces; for folders there is
     * only looking again. */
    if (link(from, to) == 0)
        return unlink(from);
    if (errno == EEXIST)
        return -1;
    if (base_exists(to)) {
        errno = EEXIST;
        return -1;
    }
    return rename(from, to);
}

/* Opens the folder that holds a path, for making a new name in it durable. Done before the name
 * is given, since after that nothing may fail any more. */
static marco_status open_parent(const char *path, int *fd, marco_error *error)
{
    const char *slash = strrchr(path, '/');
    char *parent =
        slash ? base_strndup(path, slash == path ? 1 : (size_t)(slash - path)) : base_strdup(".");
    if (!parent)
        return base_fail_memory(error, strlen(path), path);
    marco_status status = MARCO_OK;
    *fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0)
        status = base_fail_errno(error, errno, "cannot open the folder", parent);
    base_free(parent);
    return status;
}

static marco_status fail_exists(const char *path, marco_error *error)
{
    return base_fail(error, MARCO_ERROR_EXISTS,
                     "%s already exists; remove it or ask to overwrite it", path);
}

marco_status base_output_create(const char *path, bool overwrite, base_output **out,
                                marco_error *error)
{
    marco_status status;
    if (!path[0] || base_has_suffix(path, "/"))
        return base_fail(error, MARCO_ERROR_ARGUMENT, "'%s' cannot be the name of a file", path);
    if (base_exists(path)) {
        if (base_is_folder(path))
            return base_fail(error, MARCO_ERROR_EXISTS, "%s is a folder, not a file to write",
                             path);
        if (!overwrite)
            return fail_exists(path, error);
        struct stat st;
        if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
            return base_fail(error, MARCO_ERROR_EXISTS,
                             "%s is a device or a pipe, which a file would replace; not written",
                             path);
    }
    base_output *output = base_calloc(1, sizeof *output);
    if (!output)
        return base_fail_memory(error, sizeof *output, path);
    output->fd = -1;
    output->overwrite = overwrite;
    output->path = base_strdup(path);
    output->buffer = base_alloc(BUFFER_BYTES);
    if (!output->path || !output->buffer) {
        status = base_fail_memory(error, BUFFER_BYTES, path);
        goto fail;
    }
    for (unsigned k = 0; output->fd < 0; k++) {
        base_free(output->temporary);
        output->temporary = temporary_name(path, k);
        if (!output->temporary) {
            status = base_fail_memory(error, strlen(path), path);
            goto fail;
        }
        output->fd = open(output->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (output->fd < 0 && (errno != EEXIST || k > 1000)) {
            status = base_fail_errno(error, errno, "cannot write", path);
            base_free(output->temporary);
            output->temporary = NULL;
            goto fail;
        }
    }
    *out = output;
    return MARCO_OK;
fail:
    base_output_abort(output);
    return status;
}

static marco_status write_all(base_output *output, const char *data, size_t size,
                              marco_error *error)
{
    while (size) {
        ssize_t n = write(output->fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return base_fail_errno(error, errno, "cannot write", output->path);
        data += n;
        size -= (size_t)n;
    }
    return MARCO_OK;
}

static marco_status flush(base_output *output, marco_error *error)
{
    marco_status status = write_all(output, output->buffer, output->buffered, error);
    output->buffered = 0;
    return status;
}

void base_output_keep_private(base_output *output)
{
    fchmod(output->fd, 0600);
}

marco_status base_output_write(base_output *output, const void *data, size_t size,
                               marco_error *error)
{
    marco_status status = MARCO_OK;
    if (output->buffered + size > BUFFER_BYTES)
        status = flush(output, error);
    if (!status && size >= BUFFER_BYTES)
        status = write_all(output, data, size, error);
    else if (!status && size) {
        memcpy(output->buffer + output->buffered, data, size);
        output->buffered += size;
    }
    if (!status)
        output->size += size;
    return status;
}

marco_status base_output_align(base_output *output, size_t alignment, marco_error *error)
{
    static const char zeros[256];
    size_t missing = (size_t)(-output->size & (alignment - 1));
    while (missing) {
        size_t n = missing < sizeof zeros ? missing : sizeof zeros;
        marco_status status = base_output_write(output, zeros, n, error);
        if (status)
            return status;
        missing -= n;
    }
    return MARCO_OK;
}

uint64_t base_output_tell(const base_output *output)
{
    return output->size;
}

marco_status base_output_commit(base_output *output, marco_error *error)
{
    int parent = -1;
    marco_status status = flush(output, error);
    if (!status && fsync(output->fd) != 0)
        status = base_fail_errno(error, errno, "cannot write", output->path);
    int fd = output->fd;
    output->fd = -1; /* closed whatever close says */
    if (close(fd) != 0 && !status)
        status = base_fail_errno(error, errno, "cannot write", output->path);
    if (!status)
        status = open_parent(output->path, &parent, error);
    if (!status && (output->overwrite ? rename(output->temporary, output->path)
                                      : rename_new(output->temporary, output->path)) != 0)
        status = errno == EEXIST ? fail_exists(output->path, error)
                                 : base_fail_errno(error, errno, "cannot write", output->path);
    if (!status) {
        base_free(output->temporary);
        output->temporary = NULL;
        fsync(parent); /* some file systems refuse it for folders; there is nothing more to do */
    }
    if (parent >= 0)
        close(parent);
    base_output_abort(output);
    return status;
}

void base_output_abort(base_output *output)
{
    if (!output)
        return;
    if (output->fd >= 0)
        close(output->fd);
    if (output->temporary)
        unlink(output->temporary);
    base_free(output->temporary);
    base_free(output->path);
    base_free(output->buffer);
    base_free(output);
}

marco_status base_output_put(const char *folder, const char *name, const char *data, size_t size,
                             marco_error *error)
{
    base_output *output;
    char *path = base_path_join(folder, name);
    if (!path)
        return base_fail_memory(error, strlen(folder), "a path");
    marco_status status = base_output_create(path, false, &output, error);
    base_free(path);
    if (status)
        return status;
    status = base_output_write(output, data, size, error);
    if (!status)
        return base_output_commit(output, error);
    base_output_abort(output);
    return status;
}

/* ---- folders ------------------------------------------------------------------------------- */

struct base_folder {
    char *path;
    char *temporary;
    int fd; /* of the temporary folder, locked: whoever finds it knows that it is being written */
    bool overwrite;
    bool made; /* the temporary folder exists */
};

/* Names that a checkpoint's folder or one of training data has from us; anything else is somebody's
 * and is not deleted. */
static bool is_checkpoint_file(const char *name)
{
    static const char *const names[] = {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "added_tokens.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.json",
        "model.safetensors.index.json",
        "merges.txt",
        "chat_template.jinja",
        "data.json",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    if (strncmp(name, "train-", 6) == 0 || strncmp(name, "valid-", 6) == 0)
        return base_has_suffix(name, ".ids");
    return strncmp(name, "model", 5) == 0 && base_has_suffix(name, ".safetensors");
}

/* And those that checkpoints of training runs have besides: such a folder is not overwritten. */
static bool is_training_file(const char *name)
{
    return strcmp(name, "trainer.json") == 0 ||
           strcmp(name, "optimizer.safetensors.index.json") == 0 ||
           (base_has_suffix(name, ".safetensors") &&
            (strncmp(name, "optimizer", 9) == 0 || strncmp(name, "adapters", 8) == 0));
}

/* What a temporary name is made of: PID, K, and the final name of the file or folder; false for
 * other names. */
static bool parse_temporary(const char *name, unsigned *pid, unsigned *k, char out[256])
{
    const char *end = NULL;
    char same[40];
    for (const char *at = name; (at = strstr(at, ".tmp-")); at++)
        end = at;
    if (name[0] != '.' || !end || sscanf(end, ".tmp-%9u-%9u", pid, k) != 2)
        return false;
    snprintf(same, sizeof same, ".tmp-%u-%u", *pid, *k);
    if (strcmp(end, same) != 0)
        return false;
    snprintf(out, 256, "%.*s", (int)(end - name - 1), name + 1);
    return true;
}

/* May a file of this name be removed with the folder that holds it? */
static bool may_remove(const char *name)
{
    char final[256];
    unsigned pid, k;
    if (parse_temporary(name, &pid, &k, final))
        name = final;
    return is_checkpoint_file(name) || is_training_file(name);
}

typedef enum { CHECK_ONLY, CHECK_TRAINING, REMOVE } visit_mode;

/* Looks at (or removes) every file of a flat folder. False with the name of the first entry that
 * is not ours to remove. */
static bool visit_folder(const char *path, visit_mode mode, char *offender, size_t capacity)
{
    DIR *dir = opendir(path);
    bool fine = dir != NULL;
    while (fine) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) {
            fine = errno == 0;
            break;
        }
        const char *name = entry->d_name;
        struct stat st;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        fine = (mode == CHECK_ONLY ? is_checkpoint_file(name) : may_remove(name)) &&
               fstatat(dirfd(dir), name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
        if (!fine)
            snprintf(offender, capacity, "%s", name);
        else if (mode == REMOVE)
            unlinkat(dirfd(dir), name, 0);
    }
    if (dir)
        closedir(dir);
    return fine;
}

static void remove_folder(const char *path)
{
    char offender[256];
    visit_folder(path, REMOVE, offender, sizeof offender);
    rmdir(path);
}

/* A folder that may be replaced: a real one, holding nothing but a checkpoint's files. */
static marco_status check_replaceable(const char *path, marco_error *error)
{
    char offender[256] = "(unreadable)";
    struct stat st;
    if (lstat(path, &st) != 0)
        return base_fail_errno(error, errno, "cannot look at", path);
    if (S_ISLNK(st.st_mode))
        return base_fail(error, MARCO_ERROR_EXISTS,
                         "%s is a symbolic link; give the folder that it points to", path);
    if (!S_ISDIR(st.st_mode))
        return base_fail(error, MARCO_ERROR_EXISTS, "%s is a file, not a folder to write", path);
    if (!visit_folder(path, CHECK_ONLY, offender, sizeof offender))
        return base_fail(error, MARCO_ERROR_EXISTS,
                         "%s holds '%s', which is no part of a checkpoint; not overwritten", path,
                         offender);
    return MARCO_OK;
}

/* Takes the lock of a folder that is written under a temporary name, and keeps it with *fd open.
 * False where another has it, or where there are no locks. */
static bool lock_folder(const char *path, int *fd)
{
    *fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return *fd >= 0 && flock(*fd, LOCK_EX | LOCK_NB) == 0;
}

/* Removes a temporary folder if its process was killed: it is none of here, nor of another machine
 * or container, which would have the folder locked. */
static void remove_left(const char *path, unsigned pid)
{
    int fd = -1;
    char offender[256];
    if (pid > 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH && lock_folder(path, &fd) &&
        visit_folder(path, CHECK_TRAINING, offender, sizeof offender))
        remove_folder(path);
    if (fd >= 0)
        close(fd);
}

/* Removes what killed processes left of a folder of this name. What was moved aside stays as long
 * as nothing has taken its place: it may be all there is. */
static void sweep_left(const char *path)
{
    const char *name = base_path_name(path);
    char *parent = name == path ? base_strdup(".") : base_strndup(path, (size_t)(name - path));
    bool taken = base_exists(path);
    DIR *dir = parent ? opendir(parent) : NULL;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char final[256];
        unsigned pid, k;
        if (!parse_temporary(entry->d_name, &pid, &k, final) || strcmp(final, name) != 0 ||
            (k == ASIDE && !taken))
            continue;
        char *left = base_path_join(parent, entry->d_name);
        if (left)
            remove_left(left, pid);
        base_free(left);
    }
    if (dir)
        closedir(dir);
    base_free(parent);
}

marco_status base_folder_create(const char *path, bool overwrite, base_folder **out,
                                marco_error *error)
{
    marco_status status;
    if (!path[0])
        return base_fail(error, MARCO_ERROR_ARGUMENT, "the name of a folder to write is empty");
    char *name = base_strdup(path);
    if (!name)
        return base_fail_memory(error, strlen(path), path);
    for (size_t n = strlen(name); n > 1 && name[n - 1] == '/'; n--)
        name[n - 1] = '\0'; /* lstat would follow a link for the slash's sake */
    status = MARCO_OK;
    if (base_exists(name))
        status = overwrite ? check_replaceable(name, error) : fail_exists(name, error);
    if (status) {
        base_free(name);
        return status;
    }
    base_folder *folder = base_calloc(1, sizeof *folder);
    if (!folder) {
        base_free(name);
        return base_fail_memory(error, sizeof *folder, path);
    }
    folder->path = name;
    folder->overwrite = overwrite;
    folder->fd = -1;
    sweep_left(name);
    for (unsigned k = 0; !folder->made; k++) {
        base_free(folder->temporary);
        folder->temporary = temporary_name(path, k);
        if (!folder->temporary) {
            status = base_fail_memory(error, strlen(path), path);
            goto fail;
        }
        folder->made = mkdir(folder->temporary, 0777) == 0;
        if (!folder->made && (errno != EEXIST || k > 1000)) {
            status = base_fail_errno(error, errno, "cannot make the folder", path);
            goto fail;
        }
    }
    /* Where there are no locks it is written all the same. */
    if (!lock_folder(folder->temporary, &folder->fd) && folder->fd < 0) {
        status = base_fail_errno(error, errno, "cannot open the folder", folder->temporary);
        goto fail;
    }
    *out = folder;
    return MARCO_OK;
fail:
    base_folder_abort(folder);
    return status;
}

const char *base_folder_path(const base_folder *folder)
{
    return folder->temporary;
}

/* An existing folder is moved aside first and removed last, so that at no moment less than one
 * whole checkpoint is on disk. It is looked at again: writing may have taken hours. */
static marco_status replace_folder(base_folder *folder, marco_error *error)
{
    marco_status status = check_replaceable(folder->path, error);
    if (status)
        return status;
    char *aside = temporary_name(folder->path, ASIDE);
    if (!aside)
        return base_fail_memory(error, strlen(folder->path), folder->path);
    if (rename(folder->path, aside) != 0) {
        status = base_fail_errno(error, errno, "cannot replace", folder->path);
    } else if (rename(folder->temporary, folder->path) != 0) {
        status = base_fail_errno(error, errno, "cannot replace", folder->path);
        rename(aside, folder->path);
    } else {
        folder->made = false;
        remove_folder(aside);
    }
    base_free(aside);
    return status;
}

marco_status base_folder_commit(base_folder *folder, marco_error *error)
{
    int parent = -1;
    marco_status status = open_parent(folder->path, &parent, error);
    if (!status && fsync(folder->fd) != 0 && errno != EINVAL)
        status = base_fail_errno(error, errno, "cannot write", folder->path);
    if (!status && folder->overwrite && base_exists(folder->path))
        status = replace_folder(folder, error);
    else if (!status && rename_new(folder->temporary, folder->path) != 0)
        status = errno == EEXIST ? fail_exists(folder->path, error)
                                 : base_fail_errno(error, errno, "cannot write", folder->path);
    if (!status) {
        folder->made = false;
        fsync(parent);
    }
    if (parent >= 0)
        close(parent);
    base_folder_abort(folder);
    return status;
}

void base_folder_abort(base_folder *folder)
{
    if (!folder)
        return;
    if (folder->made)
        remove_folder(folder->temporary);
    if (folder->fd >= 0)
        close(folder->fd);
    base_free(folder->temporary);
    base_free(folder->path);
    base_free(folder);
}

marco_status base_folder_remove(const char *path, marco_error *error)
{
    char offender[256] = "(unreadable)";
    struct stat st;
    if (lstat(path, &st) != 0)
        return base_fail_errno(error, errno, "cannot look at", path);
    if (!S_ISDIR(st.st_mode) || !visit_folder(path, CHECK_TRAINING, offender, sizeof offender))
        return base_fail(error, MARCO_ERROR_EXISTS,
                         "%s holds '%s', which is no part of a checkpoint; not removed", path,
                         offender);
    char *aside = temporary_name(path, ASIDE);
    if (!aside)
        return base_fail_memory(error, strlen(path), path);
    marco_status status = MARCO_OK;
    if (rename(path, aside) != 0)
        status = base_fail_errno(error, errno, "cannot remove", path);
    else
        remove_folder(aside);
    base_free(aside);
    return status;
}

void base_folder_sweep(const char *parent, const char *prefix)
{
    DIR *dir = opendir(parent);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char final[256];
        unsigned pid, k;
        struct stat st;
        if (!parse_temporary(entry->d_name, &pid, &k, final) ||
            strncmp(final, prefix, strlen(prefix)) != 0 ||
            fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        char *path = base_path_join(parent, entry->d_name);
        if (path && S_ISDIR(st.st_mode))
            remove_folder(path);
        else if (path && S_ISREG(st.st_mode))
            unlink(path);
        base_free(path);
    }
    if (dir)
        closedir(dir);
}
