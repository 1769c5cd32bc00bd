/* Any bytes as a shard of token ids, with a data.json that says of it what it says of itself: what
 * opens can be read to its end, and the loader takes nothing from it that is outside the
 * vocabulary. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/shard.h"

enum { VOCAB = 300 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(const char *folder, const char *name, const void *data, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file) != 0)
        abort();
}

/* Reads all there is, so that a sanitizer sees what is outside. */
static void read_all(const data_shard *shard)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < shard->n_documents; i++)
        for (uint64_t k = shard->offsets[i]; k < shard->offsets[i + 1]; k++)
            sum += (uint32_t)shard->ids[k] + (shard->targets ? shard->targets[k] : 0);
    if (sum == UINT64_MAX) /* keeps the reads from being left out */
        abort();
}

static void load(const char *folder, bool whole)
{
    data_source source = {folder, 1};
    data_loader_params p = {.sources = &source,
                            .n_sources = 1,
                            .seq_len = 7,
                            .whole_documents = whole,
                            .attend_across = true,
                            .eos = 1,
                            .n_vocab = VOCAB};
    data_loader *loader;
    data_batch *batch;
    if (data_loader_create(&p, &loader, NULL))
        return;
    if (data_batch_create(3, 7, &batch, NULL))
        abort();
    for (int step = 0; step < 4 && !data_loader_next(loader, 4, 1, batch, NULL); step++)
        for (int i = 0; i < 21; i++)
            if (batch->ids[i] < 0 || batch->ids[i] >= VOCAB || batch->targets[i] < -1 ||
                batch->targets[i] >= VOCAB || batch->starts[i] < 0 || batch->starts[i] > i % 7)
                abort();
    json_t *state = data_loader_state(loader);
    if (data_loader_restore(loader, state, NULL))
        abort();
    json_decref(state);
    data_batch_free(batch);
    data_loader_close(loader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char folder[64], path[128], json[1024], digest[BASE_SHA256_TEXT];
    data_shard shard;
    snprintf(folder, sizeof folder, "/dev/shm/fuzz-data-%d", (int)getpid());
    snprintf(path, sizeof path, "%s/train-00000.ids", folder);
    mkdir(folder, 0700);
    put(folder, "train-00000.ids", data, size);
    if (data_shard_open(path, &shard, NULL) == MARCO_OK) {
        read_all(&shard);
        base_sha256_text(shard.head->tokenizer, digest);
        int n =
            snprintf(json, sizeof json,
                     "{\"version\": 1, \"kind\": \"%s\", \"tokenizer\": \"%s\", \"n_vocab\": "
                     "%" PRIu32 ", \"eos\": -1, \"splits\": {\"train\": {\"shards\": 1, "
                     "\"documents\": %" PRIu64 ", \"tokens\": %" PRIu64 ", \"digest\": \"%s\"}}}",
                     shard.targets ? "chat" : "text", digest, shard.head->n_vocab,
                     shard.n_documents, shard.n_ids, digest);
        put(folder, "data.json", json, (size_t)n);
        load(folder, false);
        load(folder, true);
        snprintf(json, sizeof json, "%s/data.json", folder);
        unlink(json);
    }
    data_shard_close(&shard);
    unlink(path);
    rmdir(folder);
    return 0;
}
