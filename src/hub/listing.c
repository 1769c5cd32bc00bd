#include "hub/listing.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "format/json.h"
#include "hub/folder.h"

/* No file is larger; doubles hold it, which is what other programs read JSON numbers as. */
static const int64_t size_most = INT64_C(1) << 52;

void hub_listing_free(hub_listing *listing)
{
    for (size_t i = 0; i < listing->n; i++)
        base_free(listing->files[i].path);
    base_free(listing->files);
    *listing = (hub_listing){0};
}

const char *hub_file_hash(const hub_file *file)
{
    return file->sha256[0] ? file->sha256 : file->oid;
}

static marco_status copy_hash(const char *name, const char *path, const char *hash, bool large,
                              char *to, marco_error *error)
{
    if (!hash || !(large ? hub_is_sha256(hash) : hub_is_commit(hash)))
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: '%s' comes %s, so it could not be checked: not downloaded", name,
                         path, hash ? "with a hash that is none" : "without a hash");
    memcpy(to, hash, strlen(hash) + 1);
    return MARCO_OK;
}

/* Appends a file, its fields checked; `sha256` NULL for a small one. */
static marco_status add_file(hub_listing *listing, const char *name, const json_t *path,
                             int64_t size, const char *oid, const char *sha256, marco_error *error)
{
    const char *text = json_string_value(path);
    if (!text || !hub_file_is_valid(text, json_string_length(path)))
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: a file is called '%.200s', which could lie outside the model's "
                         "folder or upset programs: nothing was downloaded",
                         name, text ? text : "(nothing)");
    hub_file file = {.size = (uint64_t)size};
    marco_status status = copy_hash(name, text, oid, false, file.oid, error);
    if (!status && sha256)
        status = copy_hash(name, text, sha256, true, file.sha256, error);
    if (status)
        return status;
    if (listing->n >= HUB_FILES_MOST)
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: more than %d files", name, HUB_FILES_MOST);
    if (!base_grow((void **)&listing->files, &listing->capacity, listing->n + 1,
                   sizeof *listing->files) ||
        !(file.path = base_strdup(text)))
        return base_fail_memory(error, sizeof file, name);
    listing->files[listing->n++] = file;
    return MARCO_OK;
}

static marco_status parse_root(const char *name, const char *text, size_t size, bool array,
                               json_t **root, marco_error *error)
{
    marco_status status = format_json_text(name, text, size, root, error);
    if (status)
        return status;
    if (array ? json_is_array(*root) : json_is_object(*root))
        return MARCO_OK;
    json_decref(*root);
    return base_fail(error, MARCO_ERROR_FORMAT,
                     "%s: not the answer a hub gives; is its address right?", name);
}

/* An entry of the tree: {"type": "file", "path", "size", "oid", "lfs": {"oid", "size"}}. */
static marco_status add_entry(hub_listing *listing, const char *name, const json_t *entry,
                              marco_error *error)
{
    const char *type = NULL, *oid = NULL, *sha256 = NULL;
    int64_t size = -1;
    if (!json_is_object(entry))
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: an entry that is no object", name);
    marco_status status = format_json_string(name, entry, "type", &type, error);
    if (status || !type || strcmp(type, "file") != 0)
        return status;
    status = format_json_string(name, entry, "oid", &oid, error);
    if (!status)
        status = format_json_int(name, entry, "size", 0, size_most, &size, error);
    const json_t *lfs = json_object_get(entry, "lfs");
    if (!status && json_is_object(lfs)) {
        status = format_json_string(name, lfs, "oid", &sha256, error);
        if (!status)
            status = format_json_int(name, lfs, "size", 0, size_most, &size, error);
        sha256 = sha256 ? sha256 : "";
    }
    if (!status && size < 0)
        status = base_fail(error, MARCO_ERROR_FORMAT, "%s: a file without a size", name);
    if (!status)
        status = add_file(listing, name, json_object_get(entry, "path"), size, oid, sha256, error);
    return status;
}

marco_status hub_listing_add(hub_listing *listing, const char *name, const char *text, size_t size,
                             marco_error *error)
{
    json_t *root, *entry;
    size_t i;
    marco_status status = parse_root(name, text, size, true, &root, error);
    if (status)
        return status;
    json_array_foreach(root, i, entry)
    {
        status = add_entry(listing, name, entry, error);
        if (status)
            break;
    }
    json_decref(root);
    return status;
}

static int compare(const void *a, const void *b)
{
    return strcmp(((const hub_file *)a)->path, ((const hub_file *)b)->path);
}

marco_status hub_listing_finish(hub_listing *listing, const char *name, marco_error *error)
{
    if (listing->n > 0)
        qsort(listing->files, listing->n, sizeof *listing->files, compare);
    for (size_t i = 1; i < listing->n; i++)
        if (strcmp(listing->files[i - 1].path, listing->files[i].path) == 0)
            return base_fail(error, MARCO_ERROR_FORMAT, "%s: the file '%s' is listed twice", name,
                             listing->files[i].path);
    return MARCO_OK;
}

marco_status hub_parse_commit(const char *name, const char *text, size_t size, char *commit,
                              marco_error *error)
{
    json_t *root;
    const char *sha = NULL;
    marco_status status = parse_root(name, text, size, false, &root, error);
    if (status)
        return status;
    status = format_json_string(name, root, "sha", &sha, error);
    if (!status && (!sha || !hub_is_commit(sha)))
        status = base_fail(error, MARCO_ERROR_FORMAT,
                           "%s: no commit in the answer; is the hub's address right?", name);
    if (!status)
        memcpy(commit, sha, strlen(sha) + 1);
    json_decref(root);
    return status;
}

/* ---- in the cache --------------------------------------------------------------------------- */

marco_status hub_listing_write(const hub_listing *listing, const char *path, marco_error *error)
{
    base_text out = {0};
    base_text_add(&out, "{\n \"format_version\": 1,\n \"files\": {");
    for (size_t i = 0; i < listing->n; i++) {
        const hub_file *file = &listing->files[i];
        base_text_add(&out, i > 0 ? ",\n  " : "\n  ");
        format_json_escape(&out, file->path, strlen(file->path));
        base_text_printf(&out, ": {\"size\": %llu, \"blob_id\": \"%s\"",
                         (unsigned long long)file->size, file->oid);
        if (file->sha256[0])
            base_text_printf(&out, ", \"lfs_sha256\": \"%s\", \"lfs_size\": %llu", file->sha256,
                             (unsigned long long)file->size);
        base_text_add_char(&out, '}');
    }
    base_text_add(&out, "\n }\n}\n");
    marco_status status = out.failed ? base_fail_memory(error, out.size, path)
                                     : hub_file_put(path, out.data, out.size, error);
    base_text_free(&out);
    return status;
}

marco_status hub_listing_read(const char *path, hub_listing *out, marco_error *error)
{
    json_t *root, *info;
    const char *key;
    int64_t version = 0;
    *out = (hub_listing){0};
    marco_status status = format_json_file(path, HUB_JSON_MOST, &root, error);
    if (status)
        return status;
    if (json_is_object(root))
        status = format_json_int(path, root, "format_version", 0, INT32_MAX, &version, error);
    json_t *files = json_object_get(root, "files");
    if (!status && (version != 1 || !json_is_object(files)))
        status =
            base_fail(error, MARCO_ERROR_UNSUPPORTED, "%s: of a format that is not known", path);
    void *at = status ? NULL : json_object_iter(files);
    for (; at && !status; at = json_object_iter_next(files, at)) {
        const char *oid = NULL, *sha256 = NULL;
        int64_t size = 0;
        key = json_object_iter_key(at);
        info = json_object_iter_value(at);
        status = json_is_object(info)
                     ? format_json_int(path, info, "size", 0, size_most, &size, error)
                     : base_fail(error, MARCO_ERROR_FORMAT, "%s: '%s' is no object", path, key);
        if (!status)
            status = format_json_int(path, info, "lfs_size", 0, size_most, &size, error);
        if (!status)
            status = format_json_string(path, info, "blob_id", &oid, error);
        if (!status)
            status = format_json_string(path, info, "lfs_sha256", &sha256, error);
        json_t *name = status ? NULL : json_string(key);
        if (!status)
            status = name ? add_file(out, path, name, size, oid, sha256, error)
                          : base_fail_memory(error, strlen(key), path);
        json_decref(name);
    }
    json_decref(root);
    if (!status)
        status = hub_listing_finish(out, path, error);
    if (status)
        hub_listing_free(out);
    return status;
}
