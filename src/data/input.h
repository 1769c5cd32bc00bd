/* Inside the data room: files of text, a document at a time. */
#ifndef DATA_INPUT_H
#define DATA_INPUT_H

#include "base/file.h"

typedef struct data_input {
    base_file *file;
    uint64_t at;   /* bytes read */
    uint64_t line; /* lines given out */
    uint64_t limit;
    bool lines; /* a document is a line; else it is the file */
    bool given; /* the file was, where it is the document */
    bool skipping;
    char *buffer;
    size_t capacity;
    size_t start, end; /* what is read and not yet given out */
    size_t looked;     /* no newline before this */
} data_input;

typedef struct data_piece {
    const char *text; /* valid until the next call */
    size_t size;      /* without the line's end, or a byte order mark at the file's beginning */
    uint64_t line;    /* counted from 1; 0: the whole file */
    bool too_long;    /* more than `limit` bytes: text is left out */
} data_piece;

/* data_input_close in every case. */
marco_status data_input_open(data_input *input, const char *path, bool lines, uint64_t limit,
                             marco_error *error);
void data_input_close(data_input *input);

/* The next piece; *got is false at the end of the file. Holds little more than `limit` bytes. */
marco_status data_input_next(data_input *input, data_piece *piece, bool *got, marco_error *error);

#endif
