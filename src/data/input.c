#include "data/input.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"

enum { BLOCK = 1 << 20 };

marco_status data_input_open(data_input *input, const char *path, bool lines, uint64_t limit,
                             marco_error *error)
{
    *input = (data_input){.lines = lines, .limit = limit};
    return base_file_open(path, &input->file, error);
}

void data_input_close(data_input *input)
{
    base_file_close(input->file);
    base_free(input->buffer);
    *input = (data_input){0};
}

/* Reads `size` more bytes after what is held. */
static marco_status read_more(data_input *input, size_t size, marco_error *error)
{
    void *buffer = input->buffer;
    if (input->start > 0) {
        /* A long line that comes in many blocks is moved once. */
        memmove(input->buffer, input->buffer + input->start, input->end - input->start);
        input->end -= input->start;
        input->looked -= input->start;
        input->start = 0;
    }
    if (!base_grow(&buffer, &input->capacity, input->end + size, 1))
        return base_fail_memory(error, input->end + size, input->file->path);
    input->buffer = buffer;
    marco_status status =
        base_file_read(input->file, input->at, input->buffer + input->end, size, error);
    if (!status) {
        input->at += size;
        input->end += size;
    }
    return status;
}

static void give(data_input *input, size_t size, data_piece *piece)
{
    *piece = (data_piece){.text = size ? input->buffer + input->start : "", .size = size};
    piece->line = input->lines ? ++input->line : 0;
    piece->too_long = input->skipping || size > input->limit;
    input->skipping = false;
    size_t mark = piece->line <= 1 ? base_utf8_mark(piece->text, size) : 0;
    piece->text += mark;
    piece->size -= mark;
    if (input->lines && piece->size && piece->text[piece->size - 1] == '\r')
        piece->size--;
    if (piece->too_long) {
        piece->text = "";
        piece->size = 0;
    }
}

static marco_status next_line(data_input *input, data_piece *piece, bool *got, marco_error *error)
{
    for (;;) {
        size_t left = input->end - input->looked;
        const char *newline = left ? memchr(input->buffer + input->looked, '\n', left) : NULL;
        bool last = !newline && input->at == input->file->size;
        if (last && input->start == input->end && !input->skipping)
            return MARCO_OK;
        if (newline || last) {
            size_t end = newline ? (size_t)(newline - input->buffer) : input->end;
            give(input, end - input->start, piece);
            input->start = input->looked = newline ? end + 1 : end;
            *got = true;
            return MARCO_OK;
        }
        input->looked = input->end;
        if (input->end - input->start > input->limit) {
            input->skipping = true;
            input->start = input->end = input->looked = 0;
        }
        uint64_t rest = input->file->size - input->at;
        marco_status status = read_more(input, rest < BLOCK ? (size_t)rest : BLOCK, error);
        if (status)
            return status;
    }
}

marco_status data_input_next(data_input *input, data_piece *piece, bool *got, marco_error *error)
{
    *got = false;
    if (input->lines)
        return next_line(input, piece, got, error);
    if (input->given)
        return MARCO_OK;
    *got = input->given = true;
    input->skipping = input->file->size > input->limit;
    marco_status status =
        input->skipping ? MARCO_OK : read_more(input, (size_t)input->file->size, error);
    if (!status)
        give(input, input->end, piece);
    input->at = input->file->size;
    return status;
}
