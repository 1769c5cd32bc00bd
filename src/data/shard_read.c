#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "data/shard.h"

static marco_status check_head(const data_shard *shard, marco_error *error)
{
    const char *path = shard->file->path;
    const data_shard_head *head = shard->head;
    if (memcmp(head->magic, DATA_SHARD_HEAD, sizeof head->magic) != 0)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: not a shard of token ids; they are made by marco data", path);
    if (head->version != DATA_VERSION)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "%s: version %" PRIu32 " of the format, this program knows %d", path,
                         head->version, DATA_VERSION);
    if ((head->flags & ~(uint32_t)DATA_SHARD_CHAT) || head->n_vocab < 1 ||
        head->n_vocab > INT32_MAX)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: flags %" PRIu32 " or a vocabulary of %" PRIu32
                         " cannot be; the file is damaged",
                         path, head->flags, head->n_vocab);
    return MARCO_OK;
}

/* Lays the parts out over the file, which they must fill. */
static marco_status lay_out(data_shard *shard, marco_error *error)
{
    const base_file *file = shard->file;
    uint64_t limit = file->size; /* no count of what the file holds is larger, so no sum wraps */
    data_shard_tail tail;
    memcpy(&tail, shard->map + file->size - sizeof tail, sizeof tail);
    if (memcmp(tail.magic, DATA_SHARD_TAIL, sizeof tail.magic) != 0)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: the end of the file is missing; was it copied whole?", file->path);
    bool chat = shard->head->flags & DATA_SHARD_CHAT;
    uint64_t at = sizeof *shard->head, offsets = 0, targets = 0, end = 0;
    bool fits = tail.n_documents >= 1 && tail.n_documents <= limit / 8 && tail.n_ids <= limit / 4 &&
                tail.n_documents <= tail.n_ids;
    if (fits) {
        offsets = (at + tail.n_ids * 4 + 7) / 8 * 8;
        targets = offsets + (tail.n_documents + 1) * 8;
        end = targets + (chat ? (tail.n_ids + 7) / 8 * 8 : 0) + sizeof tail;
    }
    if (!fits || end != file->size)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: says that it holds %" PRIu64 " documents of %" PRIu64
                         " tokens, which does not go with its size of %" PRIu64
                         " bytes; the file is damaged",
                         file->path, tail.n_documents, tail.n_ids, file->size);
    shard->n_documents = tail.n_documents;
    shard->n_ids = tail.n_ids;
    shard->ids = (const int32_t *)(shard->map + at);
    shard->offsets = (const uint64_t *)(shard->map + offsets);
    shard->targets = chat ? shard->map + targets : NULL;
    return MARCO_OK;
}

static marco_status check_offsets(const data_shard *shard, marco_error *error)
{
    const uint64_t *offsets = shard->offsets;
    bool fine = offsets[0] == 0 && offsets[shard->n_documents] == shard->n_ids;
    uint64_t i = 0;
    for (; fine && i < shard->n_documents; i++)
        fine = offsets[i] < offsets[i + 1];
    if (!fine)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: document %" PRIu64 " begins or ends where it cannot; the file is "
                         "damaged",
                         shard->file->path, i ? i - 1 : 0);
    return MARCO_OK;
}

marco_status data_shard_open(const char *path, data_shard *shard, marco_error *error)
{
    *shard = (data_shard){0};
    marco_status status = base_file_open(path, &shard->file, error);
    if (status)
        return status;
    if (shard->file->size < sizeof(data_shard_head) + sizeof(data_shard_tail))
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: %" PRIu64 " bytes are too few for a shard of token ids; was it "
                         "copied whole?",
                         path, shard->file->size);
    status = base_file_map(shard->file, &shard->map, error);
    if (status)
        return status;
    shard->head = (const data_shard_head *)shard->map;
    status = check_head(shard, error);
    if (!status)
        status = lay_out(shard, error);
    return status ? status : check_offsets(shard, error);
}

void data_shard_close(data_shard *shard)
{
    if (shard->file)
        base_file_unmap(shard->map, shard->file->size);
    base_file_close(shard->file);
    *shard = (data_shard){0};
}
