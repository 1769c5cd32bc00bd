#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "data/shard.h"

const char *data_split_name(data_split split)
{
    return split == DATA_TRAIN ? "train" : "valid";
}

void data_shard_name(data_split split, uint64_t index, char out[DATA_SHARD_NAME])
{
    snprintf(out, DATA_SHARD_NAME, "%s-%05u.ids", data_split_name(split), (unsigned)index);
}

void data_writer_begin(data_writer *writer, const char *folder, data_split split, bool chat,
                       int32_t n_vocab, const uint8_t tokenizer[BASE_SHA256_BYTES],
                       uint64_t shard_tokens)
{
    *writer = (data_writer){.folder = folder, .split = split, .shard_tokens = shard_tokens};
    writer->head = (data_shard_head){
        .version = DATA_VERSION, .flags = chat ? DATA_SHARD_CHAT : 0, .n_vocab = (uint32_t)n_vocab};
    memcpy(writer->head.magic, DATA_SHARD_HEAD, sizeof writer->head.magic);
    memcpy(writer->head.tokenizer, tokenizer, sizeof writer->head.tokenizer);
    base_sha256_begin(&writer->digest);
}

static marco_status open_shard(data_writer *writer, marco_error *error)
{
    char name[DATA_SHARD_NAME];
    if (writer->n_shards == DATA_SHARDS)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "more than %d shards; let each hold more than %llu tokens", DATA_SHARDS,
                         (unsigned long long)writer->shard_tokens);
    data_shard_name(writer->split, writer->n_shards, name);
    char *path = base_path_join(writer->folder, name);
    if (!path)
        return base_fail_memory(error, strlen(writer->folder), "a path");
    marco_status status = base_output_create(path, false, &writer->output, error);
    base_free(path);
    if (status)
        return status;
    writer->n_shards++;
    writer->n_open = 0;
    return base_output_write(writer->output, &writer->head, sizeof writer->head, error);
}

static marco_status close_shard(data_writer *writer, marco_error *error)
{
    data_shard_tail tail = {.n_documents = writer->n_open,
                            .n_ids = writer->offsets[writer->n_open]};
    memcpy(tail.magic, DATA_SHARD_TAIL, sizeof tail.magic);
    base_output *output = writer->output;
    marco_status status = base_output_align(output, 8, error);
    if (!status)
        status = base_output_write(output, writer->offsets,
                                   (writer->n_open + 1) * sizeof *writer->offsets, error);
    if (!status && (writer->head.flags & DATA_SHARD_CHAT))
        status = base_output_write(output, writer->targets, (size_t)tail.n_ids, error);
    if (!status)
        status = base_output_align(output, 8, error);
    if (!status)
        status = base_output_write(output, &tail, sizeof tail, error);
    if (status)
        return status;
    writer->output = NULL;
    return base_output_commit(output, error);
}

/* Notes where the document ends, and its targets. */
static bool note(data_writer *writer, const uint8_t *targets, size_t n)
{
    void *offsets = writer->offsets;
    if (!base_grow(&offsets, &writer->offsets_capacity, writer->n_open + 2,
                   sizeof *writer->offsets))
        return false;
    writer->offsets = offsets;
    writer->offsets[0] = 0;
    size_t start = (size_t)writer->offsets[writer->n_open];
    if (targets) {
        void *bytes = writer->targets;
        if (!base_grow(&bytes, &writer->targets_capacity, start + n, 1))
            return false;
        writer->targets = bytes;
        memcpy(writer->targets + start, targets, n);
    }
    writer->offsets[++writer->n_open] = start + n;
    return true;
}

marco_status data_writer_add(data_writer *writer, const int32_t *ids, const uint8_t *targets,
                             size_t n, marco_error *error)
{
    uint64_t length = n;
    marco_status status = writer->output ? MARCO_OK : open_shard(writer, error);
    if (status)
        return status;
    if (!note(writer, targets, n))
        return base_fail_memory(error, n, "a shard's offsets");
    base_sha256_add(&writer->digest, &length, sizeof length);
    base_sha256_add(&writer->digest, ids, n * sizeof *ids);
    if (targets)
        base_sha256_add(&writer->digest, targets, n);
    writer->n_documents++;
    writer->n_ids += n;
    status = base_output_write(writer->output, ids, n * sizeof *ids, error);
    if (!status && (writer->offsets[writer->n_open] >= writer->shard_tokens ||
                    writer->n_open == DATA_SHARD_DOCUMENTS))
        status = close_shard(writer, error);
    return status;
}

marco_status data_writer_end(data_writer *writer, char digest[BASE_SHA256_TEXT], marco_error *error)
{
    uint8_t bytes[BASE_SHA256_BYTES];
    base_sha256_end(&writer->digest, bytes);
    base_sha256_text(bytes, digest);
    return writer->output ? close_shard(writer, error) : MARCO_OK;
}

void data_writer_free(data_writer *writer)
{
    base_output_abort(writer->output);
    base_free(writer->offsets);
    base_free(writer->targets);
    writer->output = NULL;
    writer->offsets = NULL;
    writer->targets = NULL;
}
