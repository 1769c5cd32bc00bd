/* Finding and listing what the cache holds. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "hub/cache.h"
#include "hub/folder.h"

/* ---- finding -------------------------------------------------------------------------------- */

typedef struct weights {
    char *gguf; /* the path of one, from the snapshot's folder */
    size_t n_gguf;
    bool others; /* safetensors, or a folder's configuration */
    bool failed;
} weights;

static bool see_weights(void *user, const hub_entry *entry)
{
    weights *w = user;
    if (base_has_suffix(entry->path, ".safetensors"))
        w->others = true;
    if (!base_has_suffix(entry->path, ".gguf"))
        return true;
    if (w->n_gguf++ == 0) {
        w->gguf = base_strdup(entry->path);
        w->failed = !w->gguf;
    }
    return !w->failed;
}

/* The snapshot's folder, or the GGUF file in it. */
static marco_status choose(const char *model, char *snapshot, char **path, marco_error *error)
{
    weights w = {0};
    marco_status status = MARCO_OK;
    char *file = NULL;
    if (!hub_folder_walk(snapshot, see_weights, &w)) {
        status = w.failed ? base_fail_memory(error, strlen(snapshot), snapshot)
                          : base_fail(error, MARCO_ERROR_IO, "cannot read the folder %s", snapshot);
    } else if (w.n_gguf > 1 && !w.others) {
        status = base_fail(error, MARCO_ERROR_ARGUMENT,
                           "%s has %zu GGUF files, such as %s: give the path of one of them, below "
                           "%s",
                           model, w.n_gguf, w.gguf, snapshot);
    } else if (w.n_gguf == 1 && !w.others) {
        file = hub_path(snapshot, w.gguf, NULL);
        if (!file)
            status = base_fail_memory(error, strlen(snapshot), snapshot);
    }
    if (!status)
        *path = file ? file : base_strdup(snapshot);
    if (!status && !*path)
        status = base_fail_memory(error, strlen(snapshot), snapshot);
    base_free(w.gguf);
    return status;
}

/* Why a name that is no path was not found, and what to do. */
static marco_status not_found(const char *model, const hub_place *place, bool begun,
                              marco_error *error)
{
    const char *found = begun ? "the download of its revision 'main' was not finished"
                              : "no file or folder has this path, and no model this name";
    if (!MARCO_HAS_HUB)
        return base_fail(error, MARCO_ERROR_NOT_FOUND,
                         "%s: %s in %s; this program was built without MARCO_HUB, so that 'marco "
                         "pull %s' cannot download it: huggingface_hub's 'hf download %s' can",
                         model, found, place->cache, model, model);
    return base_fail(error, MARCO_ERROR_NOT_FOUND, "%s: %s in %s; 'marco pull %s' %s", model, found,
                     place->cache, model, begun ? "goes on with it" : "downloads it");
}

static marco_status find(const char *model, const hub_name *name, const hub_place *place,
                         char **path, marco_error *error)
{
    char commit[HUB_HASH_MAX + 1];
    char *snapshot = NULL, *snapshots = NULL, *folder = hub_model_folder(place, name->model);
    if (folder)
        snapshots = hub_path(folder, "snapshots", NULL);
    marco_status status = snapshots ? hub_read_ref(folder, name->revision, commit, error)
                                    : base_fail_memory(error, strlen(place->cache), model);
    if (!status) {
        snapshot = hub_path(snapshots, commit, NULL);
        if (!snapshot)
            status = base_fail_memory(error, strlen(place->cache), model);
        else if (!base_is_folder(snapshot))
            status = not_found(model, place, false, error);
        else
            status = choose(model, snapshot, path, error);
    } else if (status == MARCO_ERROR_NOT_FOUND) {
        status = not_found(model, place, !name->given && base_is_folder(snapshots), error);
    }
    base_free(snapshot);
    base_free(snapshots);
    base_free(folder);
    return status;
}

marco_status marco_hub_find(const char *model, const marco_hub_params *params, char **path,
                            marco_error *error)
{
    hub_name name;
    hub_place place = {0};
    if (base_exists(model)) {
        *path = base_strdup(model);
        return *path ? MARCO_OK : base_fail_memory(error, strlen(model), model);
    }
    marco_error ignored;
    /* What is spelt like a file is meant as one. */
    if (base_has_suffix(model, ".gguf") || hub_name_parse(model, &name, &ignored) != MARCO_OK)
        return base_fail(error, MARCO_ERROR_NOT_FOUND,
                         "cannot open %s: no file or folder has this path%s", model,
                         base_has_suffix(model, ".gguf")
                             ? ""
                             : ", and it is no name of the form OWNER/NAME[@REVISION] either");
    marco_status status = hub_place_find(params, false, &place, error);
    if (!status)
        status = find(model, &name, &place, path, error);
    hub_place_free(&place);
    return status;
}

/* ---- listing -------------------------------------------------------------------------------- */

typedef struct list {
    marco_hub_entry *entries;
    size_t n, capacity;
} list;

static void entry_free(marco_hub_entry *entry)
{
    base_free(entry->name);
    base_free(entry->revision);
    base_free(entry->commit);
    base_free(entry->path);
}

void marco_hub_list_free(marco_hub_entry *entries, size_t n)
{
    for (size_t i = 0; i < n; i++)
        entry_free(&entries[i]);
    base_free(entries);
}

/* The references that are at a commit: "main" if it is among them, else the first by name. */
typedef struct naming {
    const char *model_folder, *commit;
    char *name;
    bool failed;
} naming;

static bool see_ref(void *user, const hub_entry *entry)
{
    naming *n = user;
    char commit[HUB_HASH_MAX + 1];
    marco_error ignored;
    if (!hub_revision_is_valid(entry->path) || hub_is_commit(entry->path) ||
        hub_read_ref(n->model_folder, entry->path, commit, &ignored) != MARCO_OK ||
        strcmp(commit, n->commit) != 0)
        return true;
    bool main = strcmp(entry->path, "main") == 0;
    if (n->name && !main && (strcmp(n->name, "main") == 0 || strcmp(n->name, entry->path) <= 0))
        return true;
    base_free(n->name);
    n->name = base_strdup(entry->path);
    n->failed = !n->name;
    return !n->failed;
}

static marco_status add_snapshot(list *l, const char *model, const char *model_folder,
                                 const char *commit, marco_error *error)
{
    marco_hub_entry entry = {0};
    hub_count count = {0};
    naming n = {.model_folder = model_folder, .commit = commit};
    char *refs = hub_path(model_folder, "refs", NULL);
    marco_status status = hub_snapshot_count(model_folder, commit, &count, error);
    if (refs)
        hub_folder_walk(refs, see_ref, &n); /* there may be none */
    entry.name = base_strdup(model);
    entry.revision = n.name ? n.name : base_strdup(commit);
    entry.commit = base_strdup(commit);
    entry.path = hub_path(model_folder, "snapshots", commit, NULL);
    entry.bytes = count.bytes;
    entry.modified = count.modified;
    entry.files = (int64_t)count.present;
    entry.of = (int64_t)count.all;
    entry.whole = !count.broken && (count.all ? count.present == count.all : count.present > 0);
    if (!status &&
        (!refs || n.failed || !entry.name || !entry.revision || !entry.commit || !entry.path ||
         !base_grow((void **)&l->entries, &l->capacity, l->n + 1, sizeof *l->entries)))
        status = base_fail_memory(error, sizeof entry, model_folder);
    if (status)
        entry_free(&entry);
    else
        l->entries[l->n++] = entry;
    base_free(refs);
    return status;
}

static marco_status list_model(list *l, const char *model, const char *model_folder,
                               marco_error *error)
{
    char *snapshots = hub_path(model_folder, "snapshots", NULL);
    if (!snapshots)
        return base_fail_memory(error, strlen(model_folder), model);
    marco_status status = MARCO_OK;
    DIR *dir = opendir(snapshots);
    for (struct dirent *e; dir && !status && (e = readdir(dir));)
        if (hub_is_commit(e->d_name))
            status = add_snapshot(l, model, model_folder, e->d_name, error);
    if (dir)
        closedir(dir);
    base_free(snapshots);
    return status;
}

static int compare(const void *a, const void *b)
{
    const marco_hub_entry *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : strcmp(x->revision, y->revision);
}

marco_status marco_hub_list(const marco_hub_params *params, marco_hub_entry **entries, size_t *n,
                            marco_error *error)
{
    list l = {0};
    hub_place place;
    DIR *dir = NULL;
    marco_status status = hub_place_find(params, false, &place, error);
    if (status)
        goto done;
    dir = opendir(place.cache);
    if (!dir && errno != ENOENT)
        status = base_fail_errno(error, errno, "cannot read the cache", place.cache);
    for (struct dirent *e; dir && !status && (e = readdir(dir));) {
        char model[HUB_MODEL_MAX + 1];
        if (!hub_name_of_folder(e->d_name, model))
            continue;
        char *folder = base_path_join(place.cache, e->d_name);
        status = folder ? list_model(&l, model, folder, error)
                        : base_fail_memory(error, strlen(place.cache), e->d_name);
        base_free(folder);
    }
    if (!status && l.n > 0)
        qsort(l.entries, l.n, sizeof *l.entries, compare);
    if (!status) {
        *entries = l.entries;
        *n = l.n;
        l = (list){0};
    }
done:
    if (dir)
        closedir(dir);
    marco_hub_list_free(l.entries, l.n);
    hub_place_free(&place);
    return status;
}
