/* Inside the data room: what the loader is. */
#ifndef DATA_LOADER_H
#define DATA_LOADER_H

#include "data/data.h"

/* Where a source goes on. */
typedef struct data_cursor {
    int64_t epoch;    /* times that all documents were gone through */
    int64_t position; /* in the order of this epoch */
    int64_t token;    /* of the document there, its eos counted; 0: not begun */
} data_cursor;

typedef struct data_stream {
    data_set *set;
    double until; /* its share and those of the sources before it, added up; the last has 1 */
    data_cursor at;
} data_stream;

struct data_loader {
    data_loader_params params; /* without sources and tokenizer */
    data_stream *streams;      /* [n_streams] */
    data_cursor *before;       /* [n_streams] as it was before the call under way */
    size_t n_streams;
    data_loader_stats stats;
};

/* Number of the document that the stream is at. */
int64_t data_loader_document(const data_loader *loader, size_t stream);

/* Tokens of a document with what is put after it. */
int64_t data_loader_length(const data_loader *loader, const data_document *document);

#endif
