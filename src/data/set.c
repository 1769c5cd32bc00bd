#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "data/shard.h"
#include "format/json.h"

enum { JSON_LIMIT = 1 << 28 };

struct data_set {
    char *folder;
    bool chat;
    int32_t n_vocab;
    char tokenizer[BASE_SHA256_TEXT], digest[BASE_SHA256_TEXT];
    data_shard *shards; /* [n_shards] */
    int64_t *first;     /* [n_shards + 1] number of each shard's first document */
    int64_t n_shards, n_documents, n_tokens;
};

/* ---- data.json ----------------------------------------------------------------------------- */

static marco_status need(const char *path, bool there, const char *key, marco_error *error)
{
    return there ? MARCO_OK
                 : base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: no \"%s\"; make the data again with marco data", path, key);
}

static marco_status read_count(const char *path, const json_t *object, const char *key, int64_t low,
                               int64_t high, int64_t *out, marco_error *error)
{
    int64_t value = INT64_MIN;
    marco_status status = format_json_int(path, object, key, low, high, &value, error);
    if (!status)
        status = need(path, value != INT64_MIN, key, error);
    *out = value;
    return status;
}

static marco_status read_digest(const char *path, const json_t *object, const char *key,
                                char out[BASE_SHA256_TEXT], marco_error *error)
{
    const char *text = NULL;
    marco_status status = format_json_string(path, object, key, &text, error);
    if (!status)
        status = need(path, text, key, error);
    if (!status && (strlen(text) != BASE_SHA256_TEXT - 1 ||
                    strspn(text, "0123456789abcdef") != BASE_SHA256_TEXT - 1))
        status = base_fail(error, MARCO_ERROR_FORMAT,
                           "%s: \"%s\" is '%.80s', not 64 hexadecimal digits", path, key, text);
    if (!status)
        memcpy(out, text, BASE_SHA256_TEXT);
    return status;
}

static marco_status read_split(data_set *set, const char *path, const json_t *json,
                               data_split split, marco_error *error)
{
    const json_t *object = json_object_get(json_object_get(json, "splits"), data_split_name(split));
    marco_status status = need(path, json_is_object(object), data_split_name(split), error);
    if (!status)
        status = read_count(path, object, "shards", 0, DATA_SHARDS, &set->n_shards, error);
    if (!status)
        status = read_count(path, object, "documents", 0, INT64_MAX, &set->n_documents, error);
    if (!status)
        status = read_count(path, object, "tokens", 0, INT64_MAX, &set->n_tokens, error);
    return status ? status : read_digest(path, object, "digest", set->digest, error);
}

static marco_status read_json(data_set *set, const char *path, data_split split, marco_error *error)
{
    json_t *json;
    const char *kind = NULL;
    int64_t version, n_vocab = 0, eos = -1;
    marco_status status = format_json_file(path, JSON_LIMIT, &json, error);
    if (status)
        return status;
    status = read_count(path, json, "version", 1, INT32_MAX, &version, error);
    if (!status && version != DATA_VERSION)
        status = base_fail(error, MARCO_ERROR_UNSUPPORTED,
                           "%s: version %" PRId64 " of the format, this program knows %d", path,
                           version, DATA_VERSION);
    if (!status)
        status = format_json_string(path, json, "kind", &kind, error);
    if (!status && (!kind || (strcmp(kind, "text") != 0 && strcmp(kind, "chat") != 0)))
        status =
            base_fail(error, MARCO_ERROR_FORMAT, "%s: \"kind\" is neither text nor chat", path);
    if (!status)
        status = read_digest(path, json, "tokenizer", set->tokenizer, error);
    if (!status)
        status = read_count(path, json, "n_vocab", 1, INT32_MAX, &n_vocab, error);
    if (!status)
        status = read_count(path, json, "eos", -1, n_vocab - 1, &eos, error);
    if (!status)
        status = read_split(set, path, json, split, error);
    if (!status) {
        set->chat = strcmp(kind, "chat") == 0;
        set->n_vocab = (int32_t)n_vocab;
    }
    json_decref(json);
    return status;
}

/* ---- shards -------------------------------------------------------------------------------- */

/* A shard among others: from the same run of marco data, as far as can be told. */
static marco_status check_shard(const data_set *set, const data_shard *shard, marco_error *error)
{
    char tokenizer[BASE_SHA256_TEXT];
    base_sha256_text(shard->head->tokenizer, tokenizer);
    if (strcmp(tokenizer, set->tokenizer) != 0 || shard->head->n_vocab != (uint32_t)set->n_vocab ||
        (shard->targets != NULL) != set->chat)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: made with another tokenizer or of another kind than %s beside it "
                         "says; the folder mixes files of several runs, make it again",
                         shard->file->path, DATA_SET_FILE);
    return MARCO_OK;
}

static marco_status open_shards(data_set *set, data_split split, marco_error *error)
{
    marco_status status = MARCO_OK;
    int64_t n_shards = set->n_shards;
    uint64_t documents = 0, tokens = 0;
    set->n_shards = 0;
    set->shards = base_alloc_array((size_t)n_shards, sizeof *set->shards);
    set->first = base_alloc_array((size_t)n_shards + 1, sizeof *set->first);
    if (!set->shards || !set->first)
        return base_fail_memory(error, (size_t)n_shards * sizeof *set->shards, "shards");
    set->first[0] = 0;
    while (!status && set->n_shards < n_shards) {
        char name[DATA_SHARD_NAME];
        data_shard_name(split, (uint64_t)set->n_shards, name);
        char *path = base_path_join(set->folder, name);
        if (!path)
            return base_fail_memory(error, strlen(set->folder), "a path");
        data_shard *shard = &set->shards[set->n_shards++];
        status = data_shard_open(path, shard, error);
        base_free(path);
        if (!status)
            status = check_shard(set, shard, error);
        documents += shard->n_documents;
        tokens += shard->n_ids;
        set->first[set->n_shards] = (int64_t)documents;
    }
    if (!status && (documents != (uint64_t)set->n_documents || tokens != (uint64_t)set->n_tokens))
        status = base_fail(error, MARCO_ERROR_FORMAT,
                           "%s: its %s shards hold %" PRIu64 " documents of %" PRIu64
                           " tokens, but %s says %" PRId64 " of %" PRId64
                           "; the folder mixes files of several runs, make it again",
                           set->folder, data_split_name(split), documents, tokens, DATA_SET_FILE,
                           set->n_documents, set->n_tokens);
    return status;
}

marco_status data_set_open(const char *folder, data_split split, data_set **out, marco_error *error)
{
    data_set *set = base_calloc(1, sizeof *set);
    char *path = base_path_join(folder, DATA_SET_FILE);
    marco_status status = MARCO_OK;
    if (!set || !path || !(set->folder = base_strdup(folder)))
        status = base_fail_memory(error, sizeof *set, "training data");
    if (!status && base_is_folder(folder) && !base_exists(path))
        status = base_fail(error, MARCO_ERROR_NOT_FOUND,
                           "%s: no %s in it; training data are made by marco data", folder,
                           DATA_SET_FILE);
    if (!status)
        status = read_json(set, path, split, error);
    if (!status)
        status = open_shards(set, split, error);
    base_free(path);
    if (status)
        data_set_close(set);
    else
        *out = set;
    return status;
}

void data_set_close(data_set *set)
{
    if (!set)
        return;
    for (int64_t i = 0; set->shards && i < set->n_shards; i++)
        data_shard_close(&set->shards[i]);
    base_free(set->shards);
    base_free(set->first);
    base_free(set->folder);
    base_free(set);
}

/* ---- questions ----------------------------------------------------------------------------- */

int64_t data_set_documents(const data_set *set)
{
    return set->n_documents;
}

int64_t data_set_tokens(const data_set *set)
{
    return set->n_tokens;
}

int32_t data_set_vocab(const data_set *set)
{
    return set->n_vocab;
}

const char *data_set_tokenizer(const data_set *set)
{
    return set->tokenizer;
}

const char *data_set_digest(const data_set *set)
{
    return set->digest;
}

bool data_set_is_chat(const data_set *set)
{
    return set->chat;
}

/* The shard of document i, and the document's number in it. */
static const data_shard *find(const data_set *set, int64_t i, int64_t *number)
{
    int64_t low = 0, high = set->n_shards - 1;
    while (low < high) {
        int64_t middle = low + (high - low + 1) / 2;
        if (set->first[middle] <= i)
            low = middle;
        else
            high = middle - 1;
    }
    *number = i - set->first[low];
    return &set->shards[low];
}

data_document data_set_document(const data_set *set, int64_t i)
{
    int64_t k;
    const data_shard *shard = find(set, i, &k);
    uint64_t start = shard->offsets[k];
    return (data_document){.ids = shard->ids + start,
                           .target = shard->targets ? shard->targets + start : NULL,
                           .n = (int64_t)(shard->offsets[k + 1] - start)};
}

const char *data_set_place(const data_set *set, int64_t i, int64_t *number)
{
    return find(set, i, number)->file->path;
}
