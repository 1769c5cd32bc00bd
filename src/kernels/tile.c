/* Rows of F32 into a tile of the KV cache. */
#include <string.h>

#include "kernels/kernels.h"

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

void kern_tile_put_key(const kern_table *kern, tensor_type type, const float *x, int64_t dim,
                       int64_t slot, void *tile)
{
    kern_tile_put_value(kern, type, x, dim, slot, tile);
}
