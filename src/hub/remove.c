/* Removing models and revisions from the cache. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "hub/cache.h"
#include "hub/folder.h"

/* A blob that is being made is locked. */
static bool see_lock(void *user, const hub_entry *entry)
{
    bool *busy = user;
    int fd = openat(entry->folder, entry->name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return true;
    *busy = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    return !*busy;
}

static marco_status check_idle(const hub_place *place, const char *model, marco_error *error)
{
    char folder[HUB_MODEL_MAX + 16];
    bool busy = false;
    hub_name_folder(model, folder);
    char *locks = hub_path(place->cache, ".locks", folder, NULL);
    if (!locks)
        return base_fail_memory(error, strlen(place->cache), model);
    hub_folder_walk(locks, see_lock, &busy);
    base_free(locks);
    return busy ? base_fail(error, MARCO_ERROR_BUSY,
                            "%s is being downloaded; wait for the end or stop that first", model)
                : MARCO_OK;
}

/* ---- one revision --------------------------------------------------------------------------- */

/* Names of blobs. */
typedef struct names {
    char **items;
    size_t n, capacity;
    bool failed;
} names;

static void names_free(names *list)
{
    for (size_t i = 0; i < list->n; i++)
        base_free(list->items[i]);
    base_free(list->items);
}

static bool see_link(void *user, const hub_entry *entry)
{
    names *list = user;
    char target[4 * HUB_FILE_MAX];
    if (!S_ISLNK(entry->st.st_mode))
        return true;
    ssize_t size = readlinkat(entry->folder, entry->name, target, sizeof target - 1);
    if (size < 0)
        return errno == ENOENT; /* gone since it was seen */
    target[size] = '\0';
    const char *blob = hub_blob_of_link(target);
    if (!blob)
        return true;
    if (!base_grow((void **)&list->items, &list->capacity, list->n + 1, sizeof *list->items) ||
        !(list->items[list->n] = base_strdup(blob)))
        list->failed = true;
    else
        list->n++;
    return !list->failed;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_sort(names *list)
{
    if (list->n > 0)
        qsort(list->items, list->n, sizeof *list->items, compare);
}

/* The blobs that one snapshot uses. What cannot be read might use any. */
static marco_status see_snapshot(const char *path, names *list, marco_error *error)
{
    if (hub_folder_walk(path, see_link, list))
        return MARCO_OK;
    return list->failed ? base_fail_memory(error, list->n * sizeof *list->items, path)
                        : base_fail(error, MARCO_ERROR_IO,
                                    "cannot read all of the folder %s, so nobody knows which files "
                                    "it uses: nothing was removed; make it readable, or remove it "
                                    "by hand first",
                                    path);
}

/* The blobs of the snapshot `commit` in *own, of all others in *kept; *others counts those. */
static marco_status see_snapshots(const char *model_folder, const char *commit, names *own,
                                  names *kept, size_t *others, marco_error *error)
{
    char *snapshots = hub_path(model_folder, "snapshots", NULL);
    DIR *dir = snapshots ? opendir(snapshots) : NULL;
    marco_status status = MARCO_OK;
    if (!snapshots)
        status = base_fail_memory(error, strlen(model_folder), model_folder);
    else if (!dir)
        status = base_fail_errno(error, errno, "cannot read the folder", snapshots);
    while (!status) {
        struct stat st;
        errno = 0;
        struct dirent *e = readdir(dir);
        if (!e && errno)
            status = base_fail_errno(error, errno, "cannot read the folder", snapshots);
        if (!e)
            break;
        bool own_one = strcmp(e->d_name, commit) == 0;
        /* Files of others, such as a desktop's notes, use nothing. */
        bool stray =
            !own_one && fstatat(dirfd(dir), e->d_name, &st, 0) == 0 && !S_ISDIR(st.st_mode);
        if (!base_path_is_plain(e->d_name) || stray)
            continue;
        char *path = hub_path(snapshots, e->d_name, NULL);
        status = path ? see_snapshot(path, own_one ? own : kept, error)
                      : base_fail_memory(error, strlen(model_folder), model_folder);
        *others += !own_one;
        base_free(path);
    }
    if (dir)
        closedir(dir);
    base_free(snapshots);
    names_sort(own);
    names_sort(kept);
    return status;
}

/* Removes model_folder/a/b, a file or link itself. */
static void remove_file(const char *model_folder, const char *a, const char *b, uint64_t *freed)
{
    struct stat st;
    char *path = hub_path(model_folder, a, b, NULL);
    if (path && lstat(path, &st) == 0 && !S_ISDIR(st.st_mode) && unlink(path) == 0)
        *freed += hub_bytes_of(&st);
    base_free(path);
}

static marco_status remove_subfolder(const char *model_folder, const char *a, const char *b,
                                     uint64_t *freed, marco_error *error)
{
    char *path = hub_path(model_folder, a, b, NULL);
    marco_status status = path ? hub_folder_remove(path, freed, error)
                               : base_fail_memory(error, strlen(model_folder), model_folder);
    base_free(path);
    return status;
}

typedef struct stale {
    const char *model_folder, *commit;
} stale;

/* References to the commit go first: they would lead nowhere. */
static bool remove_ref(void *user, const hub_entry *entry)
{
    const stale *s = user;
    char commit[HUB_HASH_MAX + 1];
    marco_error ignored;
    if (hub_read_ref(s->model_folder, entry->path, commit, &ignored) == MARCO_OK &&
        strcmp(commit, s->commit) == 0)
        unlinkat(entry->folder, entry->name, 0);
    return true;
}

static marco_status remove_revision(const char *model_folder, const char *commit, uint64_t *freed,
                                    marco_error *error)
{
    names own = {0}, kept = {0};
    size_t others = 0;
    char tree[HUB_HASH_MAX + 8];
    char *refs = NULL;
    marco_status status = see_snapshots(model_folder, commit, &own, &kept, &others, error);
    if (status)
        goto done;
    if (others == 0) {
        status = hub_folder_remove(model_folder, freed, error);
        goto done;
    }
    refs = hub_path(model_folder, "refs", NULL);
    stale s = {model_folder, commit};
    if (refs)
        hub_folder_walk(refs, remove_ref, &s);
    status = remove_subfolder(model_folder, "snapshots", commit, freed, error);
    if (!status)
        status = remove_subfolder(model_folder, ".no_exist", commit, freed, error);
    snprintf(tree, sizeof tree, "%s.json", commit);
    if (!status)
        remove_file(model_folder, "trees", tree, freed);
    for (size_t i = 0; i < own.n && !status; i++) {
        bool again = i > 0 && strcmp(own.items[i - 1], own.items[i]) == 0;
        bool used = kept.n > 0 &&
                    bsearch(&own.items[i], kept.items, kept.n, sizeof *kept.items, compare) != NULL;
        if (!again && !used)
            remove_file(model_folder, "blobs", own.items[i], freed);
    }
done:
    base_free(refs);
    names_free(&own);
    names_free(&kept);
    return status;
}

/* --------------------------------------------------------------------------------------------- */

marco_status marco_hub_remove(const char *model, const marco_hub_params *params, uint64_t *freed,
                              marco_error *error)
{
    hub_name name;
    hub_place place = {0};
    char commit[HUB_HASH_MAX + 1];
    char *folder = NULL, *snapshot = NULL;
    uint64_t bytes = 0;
    marco_status status = hub_name_parse(model, &name, error);
    if (!status)
        status = hub_place_find(params, false, &place, error);
    if (status)
        goto done;
    folder = hub_model_folder(&place, name.model);
    if (!folder) {
        status = base_fail_memory(error, strlen(model), model);
        goto done;
    }
    marco_error ignored;
    bool there = base_exists(folder);
    if (there && name.given) {
        there = hub_read_ref(folder, name.revision, commit, &ignored) == MARCO_OK;
        snapshot = there ? hub_path(folder, "snapshots", commit, NULL) : NULL;
        there = snapshot && base_exists(snapshot);
    }
    if (!there) {
        status = base_fail(error, MARCO_ERROR_NOT_FOUND,
                           "%s is not in %s; 'marco list' prints what is", model, place.cache);
        goto done;
    }
    status = check_idle(&place, name.model, error);
    if (!status && name.given)
        status = remove_revision(folder, commit, &bytes, error);
    else if (!status)
        status = hub_folder_remove(folder, &bytes, error);
    *freed = bytes;
done:
    base_free(snapshot);
    base_free(folder);
    hub_place_free(&place);
    return status;
}
