/* The file that one run of marco_perplexity leaves for others to be compared with: the
 * log-probabilities of the whole vocabulary at every scored position.
 *
 *     offset  size
 *          0     8   "MARCOKLB"
 *          8     4   version, 1
 *         12     4   n_vocab
 *         16     4   n_ctx
 *         20     4   n_chunks
 *         24     8   hash of the ids evaluated (FNV-1a, 64 bits)
 *         32         rows, one for each scored position, in order
 *
 * A row is the log-probability of the token that followed (F64), the id of the likeliest token
 * (I32), four bytes of zeros, and log-probabilities [n_vocab] in F16. Numbers are little-endian.
 *
 * F16 keeps 11 bits of a log-probability, so what weighs most in a divergence is kept best. The
 * reader makes the rounded probabilities sum to 1 again, which leaves of the roundings only their
 * product with the difference of the two models. */
#ifndef INFER_KL_FILE_H
#define INFER_KL_FILE_H

#include <stdbool.h>

#include "base/file.h"
#include "base/output.h"
#include "infer/chunks.h"

/* What two runs must have in common to be compared. */
typedef struct infer_kl_key {
    uint32_t n_vocab, n_ctx, n_chunks;
    uint64_t hash;
} infer_kl_key;

infer_kl_key infer_kl_key_of(const infer_chunks *chunks, int32_t n_vocab);

/* Writes the header; rows are then appended with base_output_write. */
marco_status infer_kl_begin(base_output *output, const infer_kl_key *key, marco_error *error);

/* Opens a file with this key and n_rows rows; anything else is refused by name. */
marco_status infer_kl_open(const char *path, const infer_kl_key *key, uint64_t n_rows,
                           base_file **out, marco_error *error);

size_t infer_kl_row_bytes(uint32_t n_vocab);

/* Reads n rows from row `first` on. */
marco_status infer_kl_read(const base_file *file, uint32_t n_vocab, uint64_t first, size_t n,
                           uint8_t *rows, marco_error *error);

/* What is known of a position besides the logits. */
typedef struct infer_kl_row {
    double logprob; /* of the token that followed */
    int32_t top;    /* the likeliest id */
} infer_kl_row;

/* logits [n_vocab] minus log_sum are the log-probabilities. */
void infer_kl_encode(const infer_kl_row *row, const float *logits, double log_sum, uint32_t n_vocab,
                     uint8_t *out);

/* The log-probabilities as rounded, into logits [n_vocab]. False where one of them, or of the row's
 * other numbers, is impossible. */
bool infer_kl_decode(const uint8_t *in, uint32_t n_vocab, infer_kl_row *row, float *logits);

#endif
