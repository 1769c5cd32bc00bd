/* What the writers of this room share: tensors are described, then their data comes in the same
 * order; the first thing that goes wrong is remembered, and nothing happens after it. */
#ifndef FORMAT_WRITER_H
#define FORMAT_WRITER_H

#include "base/output.h"
#include "format/internal.h"
#include "tensor/tensor.h"

typedef struct format_described {
    char *name;
    tensor_type type;
    int n_dims;
    int64_t dims[4];
    uint64_t bytes;
    uint64_t begin; /* in the data of its file */
    size_t shard;
} format_described;

typedef struct format_writer {
    char *path;          /* the file or folder, for messages */
    base_output *output; /* the file being written */
    format_described *tensors;
    size_t n_tensors, capacity;
    bool begun;
    size_t current;      /* tensor being written */
    uint64_t left;       /* bytes it still needs */
    marco_error problem; /* the first thing that went wrong; MARCO_OK where nothing did */
} format_writer;

marco_status format_writer_init(format_writer *w, const char *path, marco_error *error);
/* Also removes the file being written. */
void format_writer_free(format_writer *w);

bool format_writer_failed(const format_writer *w);
/* The problem as what a function of the interface returns. */
marco_status format_writer_report(const format_writer *w, marco_error *error);

/* Adds a tensor, with a copy of the name. `problem` is what is wrong with it, NULL where nothing
 * is. */
void format_writer_put(format_writer *w, const char *name, const char *problem,
                       const format_described *described);

/* Sorts the names; remembers a problem where two are the same. */
void format_writer_refuse_twins(format_writer *w, const char *what, format_names *names);
/* Of the described tensors. */
void format_writer_refuse_twin_tensors(format_writer *w);

/* From here on data may come. */
void format_writer_begin(format_writer *w);

/* Writes the next bytes of the current tensor; true where that made it whole and `current` has
 * moved on. */
bool format_writer_add(format_writer *w, const void *data, size_t size);

/* Remembers a problem where not all tensors are whole. */
void format_writer_finish(format_writer *w);

/* Gives the file being written its name. */
void format_writer_commit_file(format_writer *w);

#endif
