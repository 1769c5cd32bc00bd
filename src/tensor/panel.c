#include "tensor/panel.h"

#include <string.h>

/* Where a block's lone two-byte field stands. */
typedef enum lone {
    LONE_NONE,
    LONE_FIRST,
    LONE_LAST,
    NO_PANELS,
} lone;

static lone lone_of(tensor_type type)
{
    switch (type) {
    case TENSOR_Q8_0:
    case TENSOR_Q4_0:
    case TENSOR_Q5_0:
    case TENSOR_IQ4_NL:
        return LONE_FIRST;
    case TENSOR_Q6_K:
        return LONE_LAST;
    case TENSOR_Q4_1:
    case TENSOR_Q5_1:
    case TENSOR_Q4_K:
    case TENSOR_Q5_K:
    case TENSOR_IQ4_XS:
        return LONE_NONE;
    default:
        return NO_PANELS;
    }
}

bool tensor_has_panels(tensor_type type)
{
    return lone_of(type) != NO_PANELS;
}

/* One block of row r between its place in a row and its eight places in a panel. */
static inline void move_block(size_t bytes, lone where, uint8_t *panel, int r, uint8_t *row,
                              bool pack)
{
    uint8_t *lone_at = panel + 2 * (size_t)r;
    size_t at = 0, end = bytes;
    if (where == LONE_FIRST) {
        panel += 2 * TENSOR_PANEL_ROWS;
        at = 2;
    } else if (where == LONE_LAST) {
        end = bytes - 2;
        lone_at += end * TENSOR_PANEL_ROWS;
    }
    if (where != LONE_NONE) {
        uint8_t *lone_in_row = row + (where == LONE_FIRST ? 0 : end);
        memcpy(pack ? lone_at : lone_in_row, pack ? lone_in_row : lone_at, 2);
    }
    for (; at < end; at += 4, panel += 4 * TENSOR_PANEL_ROWS)
        memcpy(pack ? panel + 4 * r : row + at, pack ? row + at : panel + 4 * r, 4);
}

void tensor_panel_pack(tensor_type type, const void *rows, void *panel, int64_t cols)
{
    size_t bytes = (size_t)tensor_traits_of(type)->block_bytes;
    size_t row_bytes = tensor_row_bytes(type, cols);
    lone where = lone_of(type);
    for (size_t at = 0; at < row_bytes; at += bytes)
        for (int r = 0; r < TENSOR_PANEL_ROWS; r++)
            move_block(bytes, where, (uint8_t *)panel + at * TENSOR_PANEL_ROWS, r,
                       (uint8_t *)rows + (size_t)r * row_bytes + at, true);
}

void tensor_panel_row(tensor_type type, const void *panel, int r, void *row, int64_t cols)
{
    size_t bytes = (size_t)tensor_traits_of(type)->block_bytes;
    size_t row_bytes = tensor_row_bytes(type, cols);
    lone where = lone_of(type);
    for (size_t at = 0; at < row_bytes; at += bytes)
        move_block(bytes, where, (uint8_t *)panel + at * TENSOR_PANEL_ROWS, r, (uint8_t *)row + at,
                   false);
}
