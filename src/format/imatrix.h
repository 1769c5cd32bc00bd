/* Importance matrices: how strong the inputs of each weight tensor were over a calibration text, so
 * that a quantiser can spend its precision on the columns that matter.
 *
 * Both of llama.cpp's file forms: GGUF (tensors NAME.in_sum2 and NAME.counts) and the older one
 * without a magic number (usually *.dat). Reading checks sizes against the file before it
 * allocates, names for duplicates and emptiness, and that all values are finite and not negative.
 */
#ifndef FORMAT_IMATRIX_H
#define FORMAT_IMATRIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "marco/marco.h"

/* What went into one weight tensor. n_values is a multiple of n_mats: value i belongs to column
 * i % (n_values / n_mats) of matrix i / (n_values / n_mats). */
typedef struct imatrix_entry {
    char *name;       /* the tensor's in GGUF: "blk.0.ffn_down_exps.weight" */
    int64_t n_values; /* columns * experts; at least 1 */
    int64_t n_mats;   /* how many counts there are: experts, else 1. Files of the older form always
                       * say 1, also where the values are of many experts */
    float *sums;      /* [n_values] of the squares of the inputs */
    float *counts;    /* [n_mats] of the inputs summed up; 0: the expert was never chosen */
} imatrix_entry;

typedef struct imatrix {
    imatrix_entry *entries;
    size_t n, capacity;
    int64_t n_chunks, chunk_size; /* of the calibration text, and tokens in each; 0: not told */
    char *dataset;                /* the text's name; NULL: not told */
} imatrix; /* all zero is the empty one; imatrix_clear releases what it holds */

/* Adds an entry of zeros; NULL when out of memory. The pointer is good until the next is added;
 * its arrays stay where they are. The name must be new. */
imatrix_entry *imatrix_add(imatrix *m, const char *name, int64_t n_values, int64_t n_mats);

/* NULL where there is none. */
const imatrix_entry *imatrix_find(const imatrix *m, const char *name);

void imatrix_clear(imatrix *m);

/* Mean squares: sums / counts, 1 for the values of an expert that was never chosen, as in
 * llama.cpp. out: [n_values]. */
void imatrix_means(const imatrix_entry *entry, float *out);

/* Reads either form into *m, which is empty when it fails. */
marco_status imatrix_read(const char *path, imatrix *m, marco_error *error);

/* Writes GGUF where the name ends in ".gguf", else the older form. The older form has one count an
 * entry: sums are scaled to it, and the values of experts never chosen become means of 1. */
marco_status imatrix_write(const char *path, bool overwrite, const imatrix *m, marco_error *error);

#endif
