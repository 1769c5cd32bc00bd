/* Inside the data room: shards, the files of token ids.
 *
 *   data_shard_head    64 bytes
 *   ids                int32 [n_ids], zeros up to a multiple of 8 bytes
 *   offsets            uint64 [n_documents + 1]: document i is ids offsets[i] .. offsets[i + 1] - 1
 *   targets            uint8 [n_ids], of chats alone, zeros up to a multiple of 8 bytes
 *   data_shard_tail    24 bytes
 *
 * The counts come last, since a shard is written from front to back. */
#ifndef DATA_SHARD_H
#define DATA_SHARD_H

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "base/sha256.h"
#include "data/data.h"

#define DATA_SET_FILE   "data.json"
#define DATA_SHARD_HEAD "MARCOIDS"
#define DATA_SHARD_TAIL "SDIOCRAM"

enum {
    DATA_VERSION = 1,
    DATA_SHARD_CHAT = 1, /* flag: targets follow */
    /* What the writer holds of a shard in memory: offsets, and targets of chats. */
    DATA_SHARD_DOCUMENTS = 1 << 22,
    DATA_SHARDS = 1 << 20, /* far beyond any corpus */
};

typedef struct data_shard_head {
    char magic[8];
    uint32_t version, flags, n_vocab, zero;
    uint8_t tokenizer[BASE_SHA256_BYTES]; /* see data_tokenizer_digest */
    uint8_t zeros[8];
} data_shard_head;

typedef struct data_shard_tail {
    uint64_t n_documents, n_ids;
    char magic[8];
} data_shard_tail;

_Static_assert(sizeof(data_shard_head) == 64 && sizeof(data_shard_tail) == 24, "as in the files");

/* "train" or "valid". */
const char *data_split_name(data_split split);

/* "train-00000.ids" */
enum { DATA_SHARD_NAME = 32 };
void data_shard_name(data_split split, uint64_t index, char out[DATA_SHARD_NAME]);

/* ---- writing (shard_write.c) --------------------------------------------------------------- */

/* The shards of one split. */
typedef struct data_writer {
    const char *folder;
    data_split split;
    data_shard_head head;
    uint64_t shard_tokens;
    uint64_t n_shards, n_documents, n_ids; /* of all shards, the open one among them */

    base_output *output; /* the open shard, NULL: none */
    uint64_t *offsets;   /* [n_open + 1] */
    uint8_t *targets;    /* [offsets[n_open]] */
    size_t n_open, offsets_capacity, targets_capacity;
    base_sha256 digest; /* of the documents: their lengths, ids and targets */
} data_writer;

/* Both strings are borrowed. */
void data_writer_begin(data_writer *writer, const char *folder, data_split split, bool chat,
                       int32_t n_vocab, const uint8_t tokenizer[BASE_SHA256_BYTES],
                       uint64_t shard_tokens);

/* Appends a document of n >= 1 ids; targets are NULL for text. A document lies in one shard whole:
 * the shard ends with the document that fills it. */
marco_status data_writer_add(data_writer *writer, const int32_t *ids, const uint8_t *targets,
                             size_t n, marco_error *error);

/* Ends the last shard; the digest to `digest`. */
marco_status data_writer_end(data_writer *writer, char digest[BASE_SHA256_TEXT],
                             marco_error *error);
/* Releases what the writer holds, and removes a shard that is not whole. */
void data_writer_free(data_writer *writer);

/* ---- reading (shard_read.c) ---------------------------------------------------------------- */

typedef struct data_shard {
    base_file *file;
    const uint8_t *map; /* all of the file; what follows points into it */
    const data_shard_head *head;
    const int32_t *ids;      /* [n_ids], any numbers */
    const uint64_t *offsets; /* [n_documents + 1], rising from 0 to n_ids */
    const uint8_t *targets;  /* [n_ids] or NULL */
    uint64_t n_documents, n_ids;
} data_shard;

/* Maps and checks one file. data_shard_close in every case. */
marco_status data_shard_open(const char *path, data_shard *shard, marco_error *error);
void data_shard_close(data_shard *shard);

/* ---- the tokenizer's digest (digest.c) ----------------------------------------------------- */

marco_status data_tokenizer_hash(const marco_tokenizer *tokenizer, uint8_t out[BASE_SHA256_BYTES],
                                 marco_error *error);

#endif
