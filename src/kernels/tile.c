/* Rows of F32 into a tile of the KV cache. */
#include <string.h>

#include "kernels/kernels.h"
#include "tensor/blocks.h"

/* Numbers encoded at a time: whole blocks of every type. */
enum { PIECE = 64 };

/* One row in the tile's type. `n` is at most PIECE. */
static void encode(const kern_table *kern, tensor_type type, const float *x, void *out, int64_t n)
{
    if (type == TENSOR_F16) {
        kern->f32_to_f16(x, out, n);
    } else {
        tensor_traits_of(type)->encode(x, out, n);
    }
}

void kern_tile_put_value(const kern_table *kern, tensor_type type, const float *x, int64_t dim,
                         int64_t slot, void *tile)
{
    char *row = (char *)tile + (size_t)slot * tensor_row_bytes(type, dim);
    for (int64_t d = 0; d < dim; d += PIECE) {
        int64_t n = dim - d < PIECE ? dim - d : PIECE;
        encode(kern, type, x + d, row + tensor_row_bytes(type, d), n);
    }
}

/* Spreads n numbers of `size` bytes GROUP apart. */
static void spread(const char *from, char *to, int64_t n, size_t size)
{
    for (int64_t i = 0; i < n; i++) {
        memcpy(to + (size_t)i * KERN_TILE_GROUP * size, from + (size_t)i * size, size);
    }
}

void kern_tile_put_key(const kern_table *kern, tensor_type type, const float *x, int64_t dim,
                       int64_t slot, void *tile)
{
    size_t lane = (size_t)(slot % KERN_TILE_GROUP);
    char *group =
        (char *)tile + (size_t)(slot - slot % KERN_TILE_GROUP) * tensor_row_bytes(type, dim);
    for (int64_t d = 0; d < dim; d += PIECE) {
        int64_t n = dim - d < PIECE ? dim - d : PIECE;
        char piece[PIECE * sizeof(float)];
        char *to = group + KERN_TILE_GROUP * tensor_row_bytes(type, d);
        encode(kern, type, x + d, piece, n);
        if (type == TENSOR_F32) {
            spread(piece, to + lane * 4, n, 4);
        } else if (type == TENSOR_F16) {
            spread(piece, to + lane * 2, n, 2);
        } else {
            const tensor_q8_0 *block = (const tensor_q8_0 *)(const void *)piece;
            for (int64_t b = 0; b < n / 32; b++, to += KERN_TILE_GROUP * sizeof(*block)) {
                memcpy(to + lane * 2, block[b].d, 2);
                spread((const char *)block[b].q, to + KERN_TILE_GROUP * 2 + lane, 32, 1);
            }
        }
    }
}
