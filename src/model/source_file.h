/* Checkpoints on disk: what the readers of both formats share. */
#ifndef MODEL_SOURCE_FILE_H
#define MODEL_SOURCE_FILE_H

#include "format/safetensors.h"
#include "model/source.h"

/* Where a matrix begins. */
typedef struct model_source_place {
    const base_file *file;
    uint64_t offset;
} model_source_place;

typedef struct model_source_file {
    model_source source; /* first: the two are one object */
    gguf *gguf;
    safetensors *safetensors;
    model_tensor *tensors;
    model_source_place *places; /* [n_places] every matrix of every tensor */
    size_t n_places, places_capacity;
    size_t *first;        /* [n_tensors] a tensor's first in places */
    bool permuted;        /* rows of Q and K are stored as GGUF "llama" does */
    const char **ignored; /* tensors of the file that no reader needs; names owned by the file */
    size_t n_ignored;
} model_source_file;

/* Lists the tensors that the configuration asks for. */
marco_status model_source_plan(model_source_file *file, marco_error *error);

/* Room for the places of tensor i, in *places. Asked for tensor by tensor, once it is found: a
 * configuration alone must not decide how much memory is taken. */
marco_status model_source_places(model_source_file *file, size_t i, model_source_place **places,
                                 marco_error *error);

/* Orders pointers for qsort and bsearch: how the tensors that nobody asked for are found. */
int model_source_compare(const void *a, const void *b);

/* Fills everything but path; on failure what was opened stays in `file` for its close. */
marco_status model_source_open_hf(model_source_file *file, marco_error *error);
marco_status model_source_open_gguf(model_source_file *file, marco_error *error);

/* The row (in Hugging Face's order) that GGUF "llama" stores as row `row` of Q or K: there, the two
 * rows of a head that rotate together lie side by side. */
int64_t model_source_unpermuted_row(int64_t row, int64_t head_dim);

/* The file behind a source that model_source_open made, NULL for other sources. */
model_source_file *model_source_file_of(model_source *source);

#endif
