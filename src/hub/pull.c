/* marco_pull: asks what there is, compares with what is there, downloads the rest. */
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "hub/api.h"
#include "hub/cache.h"
#include "hub/folder.h"
#include "hub/transfer.h"

enum { CONNECTIONS = 8, SPARE_BYTES = 16 << 20 };

typedef struct pull {
    const marco_pull_params *params;
    hub_name name;
    hub_place place;
    hub_net net;
    char commit[HUB_HASH_MAX + 1];
    hub_listing listing;
    char *model_folder, *snapshot, *locks;
    hub_blob *blobs; /* [n] files that are not there */
    size_t n;
    uint64_t total, elsewhere; /* bytes of the files wanted; of those that are there */
} pull;

marco_pull_params marco_pull_params_default(void)
{
    return (marco_pull_params){0};
}

/* ---- what is wanted ------------------------------------------------------------------------- */

/* As huggingface_hub matches: '*' also takes in '/', '\\' is nothing special, and "folder/" is all
 * that is in it. */
static bool matches(const char *pattern, const char *path)
{
    size_t size = strlen(pattern);
    if (size > 0 && pattern[size - 1] == '/')
        return strncmp(pattern, path, size) == 0;
    return fnmatch(pattern, path, FNM_NOESCAPE) == 0;
}

/* Whether there is something to download for every pattern: one that matches nothing is a slip, and
 * better told before the others' gigabytes than missed afterwards. */
static marco_status check_patterns(const pull *p, marco_error *error)
{
    if (p->listing.n == 0)
        return base_fail(error, MARCO_ERROR_NOT_FOUND, "%s: the model has no files", p->name.model);
    for (size_t i = 0; i < p->params->n_include; i++) {
        size_t at = 0;
        while (at < p->listing.n && !matches(p->params->include[i], p->listing.files[at].path))
            at++;
        if (at == p->listing.n)
            return base_fail(error, MARCO_ERROR_NOT_FOUND,
                             "%s: none of its %zu files (such as %s) matches '%s'; nothing was "
                             "downloaded",
                             p->name.model, p->listing.n, p->listing.files[0].path,
                             p->params->include[i]);
    }
    return MARCO_OK;
}

static bool is_wanted(const marco_pull_params *params, const char *path)
{
    for (size_t i = 0; i < params->n_include; i++)
        if (matches(params->include[i], path))
            return true;
    return params->n_include == 0;
}

static bool is_link_to(const char *link, const char *target)
{
    char found[4 * HUB_FILE_MAX];
    ssize_t size = readlink(link, found, sizeof found - 1);
    found[size < 0 ? 0 : size] = '\0';
    return strcmp(found, target) == 0;
}

/* Makes `link`, in the place of what has that name: an older link, or half a file of somebody who
 * made no links. */
static marco_status make_link(const pull *p, const char *link, const char *target, const char *hash,
                              marco_error *error)
{
    char name[HUB_HASH_MAX + 16];
    marco_status status = hub_folder_make_for(link, error);
    if (status || is_link_to(link, target))
        return status;
    snprintf(name, sizeof name, ".%s.link", hash);
    char *fresh = hub_path(p->model_folder, name, NULL);
    if (!fresh)
        return base_fail_memory(error, strlen(link), link);
    unlink(fresh);
    if ((symlink(target, fresh) != 0 || rename(fresh, link) != 0) && !is_link_to(link, target))
        status = base_fail_errno(error, errno, "cannot write", link);
    unlink(fresh);
    base_free(fresh);
    return status;
}

/* The link of a file in the snapshot. */
static marco_status place_link(const pull *p, const hub_blob *blob, marco_error *error)
{
    base_text target = {0};
    const char *hash = hub_file_hash(blob->file);
    char *link = hub_path(p->snapshot, blob->file->path, NULL);
    base_text_add(&target, "../../");
    for (const char *at = blob->file->path; *at; at++)
        if (*at == '/')
            base_text_add(&target, "../");
    base_text_printf(&target, "blobs/%s", hash);
    marco_status status = !link || target.failed ? base_fail_memory(error, 256, blob->file->path)
                                                 : make_link(p, link, target.data, hash, error);
    base_text_free(&target);
    base_free(link);
    return status;
}

static marco_status on_placed(void *user, const hub_blob *blob, marco_error *error)
{
    return place_link(user, blob, error);
}

static bool is_in_snapshot(const pull *p, const hub_file *file)
{
    struct stat st;
    char *path = hub_path(p->snapshot, file->path, NULL);
    bool there =
        path && stat(path, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == file->size;
    base_free(path);
    return there;
}

/* Which files are wanted, and which of them are not there; those whose bytes are there under
 * another commit get their link. *needed: bytes to download. */
static marco_status plan(pull *p, uint64_t *needed, marco_error *error)
{
    p->blobs = base_alloc_array(p->listing.n, sizeof *p->blobs);
    if (!p->blobs)
        return base_fail_memory(error, p->listing.n * sizeof *p->blobs, p->name.model);
    *needed = 0;
    for (size_t i = 0; i < p->listing.n; i++) {
        const hub_file *file = &p->listing.files[i];
        if (!is_wanted(p->params, file->path))
            continue;
        if (!base_add_u64(p->total, file->size, &p->total))
            return base_fail(error, MARCO_ERROR_FORMAT, "%s: sizes that cannot be", p->name.model);
        if (is_in_snapshot(p, file)) {
            p->elsewhere += file->size;
            continue;
        }
        hub_blob *blob = &p->blobs[p->n];
        marco_status status = hub_blob_name(blob, file, p->model_folder, p->locks, error);
        if (status)
            return status;
        p->n++;
        if (!hub_blob_is_there(blob)) {
            *needed += file->size - hub_blob_kept(blob);
            continue;
        }
        status = place_link(p, blob, error);
        hub_blob_free(blob);
        p->n--;
        if (status)
            return status;
        p->elsewhere += file->size;
    }
    return MARCO_OK;
}

static marco_status check_space(const pull *p, uint64_t needed, marco_error *error)
{
    struct statvfs fs;
    char much[32], room[32], missing[32];
    if (needed == 0 || statvfs(p->model_folder, &fs) != 0)
        return MARCO_OK;
    uint64_t available = (uint64_t)fs.f_bavail * fs.f_frsize;
    uint64_t wanted = needed <= UINT64_MAX - SPARE_BYTES ? needed + SPARE_BYTES : UINT64_MAX;
    if (wanted <= available)
        return MARCO_OK;
    return base_fail(error, MARCO_ERROR_SPACE,
                     "%s: %s are to be downloaded and %s has room for %s; free %s more, choose "
                     "files (--include), or set HF_HUB_CACHE to another disk",
                     p->name.model, hub_amount(needed, much), p->place.cache,
                     hub_amount(available, room), hub_amount(wanted - available, missing));
}

/* ---- the cache ------------------------------------------------------------------------------ */

static marco_status make_folders(pull *p, marco_error *error)
{
    char folder[HUB_MODEL_MAX + 16];
    hub_name_folder(p->name.model, folder);
    p->model_folder = hub_model_folder(&p->place, p->name.model);
    p->locks = hub_path(p->place.cache, ".locks", folder, NULL);
    if (p->model_folder)
        p->snapshot = hub_path(p->model_folder, "snapshots", p->commit, NULL);
    char *blobs = p->model_folder ? hub_path(p->model_folder, "blobs", NULL) : NULL;
    marco_status status = MARCO_OK;
    if (!p->locks || !p->snapshot || !blobs)
        status = base_fail_memory(error, strlen(p->place.cache), p->name.model);
    if (!status)
        status = hub_folder_make(p->snapshot, error);
    if (!status)
        status = hub_folder_make(blobs, error);
    base_free(blobs);
    return status;
}

/* What huggingface_hub puts there too: a mark for programs that make backups, and the list of the
 * commit's files, by which it and we tell a whole snapshot from half of one. */
static marco_status put_notes(const pull *p, marco_error *error)
{
    static const char tag[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
                              "# A cache directory: backups may leave it out "
                              "(https://bford.info/cachedir/).\n";
    char name[HUB_HASH_MAX + 8];
    snprintf(name, sizeof name, "%s.json", p->commit);
    char *mark = hub_path(p->place.cache, "CACHEDIR.TAG", NULL);
    char *tree = hub_path(p->model_folder, "trees", name, NULL);
    marco_status status = MARCO_OK;
    if (!mark || !tree)
        status = base_fail_memory(error, strlen(p->place.cache), "CACHEDIR.TAG");
    if (!status && !base_exists(mark))
        status = hub_file_put(mark, tag, sizeof tag - 1, error);
    if (!status && !base_exists(tree))
        status = hub_listing_write(&p->listing, tree, error);
    base_free(mark);
    base_free(tree);
    return status;
}

/* Last of all: until then, the name stands for what was there before. */
static marco_status put_ref(const pull *p, marco_error *error)
{
    char now[HUB_HASH_MAX + 1];
    marco_error ignored;
    if (strcmp(p->name.revision, p->commit) == 0 ||
        (hub_read_ref(p->model_folder, p->name.revision, now, &ignored) == MARCO_OK &&
         strcmp(now, p->commit) == 0))
        return MARCO_OK;
    char *path = hub_path(p->model_folder, "refs", p->name.revision, NULL);
    marco_status status = path ? hub_file_put(path, p->commit, strlen(p->commit), error)
                               : base_fail_memory(error, 256, "a reference");
    base_free(path);
    return status;
}

/* --------------------------------------------------------------------------------------------- */

static marco_status download(pull *p, marco_error *error)
{
    uint64_t needed = 0;
    int32_t connections = p->params->connections;
    marco_status status = plan(p, &needed, error);
    if (!status)
        status = check_space(p, needed, error);
    if (!status)
        status = put_notes(p, error);
    if (status)
        return status;
    hub_transfer transfer = {
        .net = &p->net,
        .model = p->name.model,
        .commit = p->commit,
        .blobs = p->blobs,
        .n = p->n,
        .connections = connections > 0 ? connections : CONNECTIONS,
        .elsewhere = p->elsewhere,
        .total = p->total,
        .placed = on_placed,
        .user = p,
    };
    if (transfer.connections > HUB_CONNECTIONS_MOST)
        transfer.connections = HUB_CONNECTIONS_MOST;
    if (p->n > 0)
        status = hub_transfer_run(&transfer, error);
    return status ? status : put_ref(p, error);
}

static void pull_close(pull *p)
{
    for (size_t i = 0; i < p->n; i++)
        hub_blob_free(&p->blobs[i]);
    base_free(p->blobs);
    base_free(p->model_folder);
    base_free(p->snapshot);
    base_free(p->locks);
    hub_listing_free(&p->listing);
    hub_net_close(&p->net);
    hub_place_free(&p->place);
}

marco_status marco_pull(const char *model, const marco_pull_params *params, char **folder,
                        marco_error *error)
{
    static const marco_pull_params none;
    pull p = {.params = params ? params : &none};
    marco_status status = hub_name_parse(model, &p.name, error);
    if (!status && hub_is_offline())
        status = base_fail(error, MARCO_ERROR_NETWORK,
                           "%s: HF_HUB_OFFLINE is set, which forbids downloads", model);
    if (!status)
        status = hub_place_find(&p.params->hub, true, &p.place, error);
    if (!status)
        status = hub_net_open(&p.net, &p.place, p.params->progress, error);
    if (!status)
        status = hub_api_commit(&p.net, &p.name, p.commit, error);
    if (!status)
        status = hub_api_list(&p.net, p.name.model, p.commit, &p.listing, error);
    if (!status)
        status = check_patterns(&p, error);
    if (!status)
        status = make_folders(&p, error);
    if (!status)
        status = download(&p, error);
    if (!status && folder) {
        *folder = p.snapshot;
        p.snapshot = NULL;
    }
    pull_close(&p);
    return status;
}
