/* Training data: shards of token ids on disk, mixed and packed into batches.
 *
 * Where a batch comes from depends on the seed and on its number alone: not on the number of
 * processes, of threads, or of interruptions. */
#ifndef DATA_DATA_H
#define DATA_DATA_H

#include <jansson.h>

#include "marco/marco.h"

/* ---- what `marco data` writes: a folder of shards (docs/data.md has the format) ------------ */

typedef struct data_set data_set;

typedef enum data_split { DATA_TRAIN, DATA_VALID } data_split;

typedef struct data_document {
    const int32_t *ids;    /* [n], n >= 1, in the mapped file, as they stand there: a damaged file
                              may hold any number */
    const uint8_t *target; /* [n] 1: trained to predict this id; NULL: all are */
    int64_t n;
} data_document;

/* Maps the shards of one split: their kinds, sizes, offsets and counts are checked against the
 * files' real lengths and against data.json, ids when the loader takes them. A split that holds
 * nothing has no documents. */
marco_status data_set_open(const char *folder, data_split split, data_set **out,
                           marco_error *error);
void data_set_close(data_set *set); /* NULL is allowed */
int64_t data_set_documents(const data_set *set);
int64_t data_set_tokens(const data_set *set);
int32_t data_set_vocab(const data_set *set); /* the tokenizer's ids are below it */
/* 0 <= i < data_set_documents */
data_document data_set_document(const data_set *set, int64_t i);
/* 64 hexadecimal digits that name the tokenizer's ids, to be compared. Lives as long as the set. */
const char *data_set_tokenizer(const data_set *set);
/* The same of the split's documents. */
const char *data_set_digest(const data_set *set);
bool data_set_is_chat(const data_set *set); /* documents are conversations with marked targets */
/* The file that document i stands in and its number there, for messages. */
const char *data_set_place(const data_set *set, int64_t i, int64_t *number);

/* The digits of a tokenizer: a hash of what each id stands for. */
marco_status data_tokenizer_digest(const marco_tokenizer *tokenizer, char out[65],
                                   marco_error *error);

/* ---- batches (loader.c) -------------------------------------------------------------------- */

typedef struct data_source {
    const char *path;
    double weight; /* > 0; see temperature */
} data_source;

typedef struct data_loader_params {
    const data_source *sources; /* [n_sources] */
    size_t n_sources;
    /* A sequence is drawn from source i in proportion to weight_i * tokens_i^temperature where
     * temperature >= 0 (1: by size; 0: by weight alone). */
    double temperature;
    data_split split;
    int32_t seq_len;
    /* false (pre-training): documents, each ended by `eos`, follow each other and are cut where a
     * sequence is full; the rest of a document begins the source's next sequence. true (chat):
     * whole documents while they fit, then padding; longer ones are cut at seq_len + 1 tokens. The
     * last token of a document is only a target there. */
    bool whole_documents;
    /* Pre-training: one example per sequence, however many documents it holds; the first token of a
     * document is then a target of the one before. */
    bool attend_across;
    int32_t eos;           /* after each document of pre-training; -1: nothing */
    int32_t pad;           /* fills chat sequences; its targets are -1 */
    int32_t n_vocab;       /* of the model: ids are below it */
    const char *tokenizer; /* digits that every source must have; NULL: not compared */
    uint64_t seed;
} data_loader_params;

/* Whether these parameters find a sequence in the set: a document, and of pre-training as many
 * tokens as a sequence has. */
bool data_set_suffices(const data_set *set, const data_loader_params *params);

typedef struct data_loader data_loader;

/* Sequences of seq_len ids with the ids that follow them; see train_tokens. */
typedef struct data_batch {
    int64_t n_seqs, seq_len;
    int32_t *ids, *targets, *starts; /* [n_seqs * seq_len] */
    int32_t *lengths;                /* [n_seqs] ids of each that are no padding, 1 to seq_len */
    int64_t n_targets;               /* targets that are not -1 */
    int64_t n_padding;               /* ids that are padding */
} data_batch;

marco_status data_batch_create(int64_t n_seqs, int64_t seq_len, data_batch **out,
                               marco_error *error);
void data_batch_free(data_batch *batch);

/* Refuses sources without a document, of another tokenizer, with a larger vocabulary, and
 * pre-training data smaller than one sequence. params is not kept. */
marco_status data_loader_create(const data_loader_params *params, data_loader **out,
                                marco_error *error);
void data_loader_close(data_loader *loader); /* NULL is allowed */

/* The next `total` sequences of the run; `batch` takes those numbered first .. first +
 * batch->n_seqs - 1 of them (the share of one process), the others are passed over, which costs
 * little. Padding stands at a sequence's end, from batch->lengths on; it has targets -1 and attends
 * to itself (starts = its own index). A damaged file whose ids are outside the vocabulary is an
 * error of the process that takes them, and leaves the loader where it was. A batch may hold no
 * target at all (chats whose prompts fill it). */
marco_status data_loader_next(data_loader *loader, int64_t total, int64_t first, data_batch *batch,
                              marco_error *error);

/* Where the loader is, as JSON (a new reference; NULL when out of memory), and back there. The
 * state names the data and the seed it belongs to: others are refused, and leave the loader where
 * it was. */
json_t *data_loader_state(const data_loader *loader);
marco_status data_loader_restore(data_loader *loader, const json_t *state, marco_error *error);

/* Sequences drawn so far, documents begun a second time or more (epochs), tokens cut off (chat). */
typedef struct data_loader_stats {
    int64_t sequences, repeated, cut;
} data_loader_stats;
data_loader_stats data_loader_counts(const data_loader *loader);

#endif
