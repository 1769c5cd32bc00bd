/* Weights in blocks of 32 times activations in kern_q8: exact in integers within a block, one F32
 * sum over the blocks of a row, in their order. */
#include <string.h>

#include "kernels/portable.h"
#include "tensor/blocks.h"

/* A block of weights: d * q + m. */
typedef struct unpacked {
    float d, m;
    int8_t q[32];
} unpacked;

typedef void (*unpack_fn)(const void *block, unpacked *u);

static inline float scale(const uint8_t bytes[2])
{
    uint16_t h;
    memcpy(&h, bytes, sizeof(h));
    return tensor_f16_to_f32(h);
}

static inline void unpack_q8_0(const void *block, unpacked *u)
{
    const tensor_q8_0 *b = block;
    u->d = scale(b->d);
    memcpy(u->q, b->q, sizeof(u->q));
}

static inline void unpack_nibbles(const uint8_t q[16], int offset, int8_t out[32])
{
    for (int i = 0; i < 16; i++) {
        out[i] = (int8_t)((q[i] & 15) - offset);
        out[16 + i] = (int8_t)((q[i] >> 4) - offset);
    }
}

static inline void add_fifth_bits(const uint8_t bits[4], int8_t q[32])
{
    for (int i = 0; i < 32; i++) {
        q[i] = (int8_t)(q[i] + (bits[i / 8] >> i % 8 & 1) * 16);
    }
}

static inline void unpack_q4_0(const void *block, unpacked *u)
{
    const tensor_q4_0 *b = block;
    u->d = scale(b->d);
    unpack_nibbles(b->q, 8, u->q);
}

static inline void unpack_q4_1(const void *block, unpacked *u)
{
    const tensor_q4_1 *b = block;
    u->d = scale(b->d);
    u->m = scale(b->m);
    unpack_nibbles(b->q, 0, u->q);
}

static inline void unpack_q5_0(const void *block, unpacked *u)
{
    const tensor_q5_0 *b = block;
    u->d = scale(b->d);
    unpack_nibbles(b->q, 16, u->q);
    add_fifth_bits(b->h, u->q);
}

static inline void unpack_q5_1(const void *block, unpacked *u)
{
    const tensor_q5_1 *b = block;
    u->d = scale(b->d);
    u->m = scale(b->m);
    unpack_nibbles(b->q, 0, u->q);
    add_fifth_bits(b->h, u->q);
}

static inline void unpack_iq4_nl(const void *block, unpacked *u)
{
    const tensor_iq4_nl *b = block;
    u->d = scale(b->d);
    for (int i = 0; i < 16; i++) {
        u->q[i] = tensor_iq4_values[b->q[i] & 15];
        u->q[16 + i] = tensor_iq4_values[b->q[i] >> 4];
    }
}

static inline int32_t dot_block(const int8_t a[32], const int8_t b[32])
{
    int32_t sum = 0;
    for (int i = 0; i < 32; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* One row with up to TILE activations, so that a block is unpacked once for all of them. */
enum { TILE = 8 };

static inline __attribute__((always_inline)) void matmul_row(unpack_fn unpack, size_t block_bytes,
                                                             bool has_min, const char *w,
                                                             int64_t blocks, const kern_q8 *x,
                                                             int64_t n_x, float sums[TILE])
{
    unpacked u = {0};
    for (int64_t t = 0; t < n_x; t++) {
        sums[t] = 0;
    }
    for (int64_t b = 0; b < blocks; b++) {
        unpack(w + (size_t)b * block_bytes, &u);
        for (int64_t t = 0; t < n_x; t++) {
            const kern_q8 *xb = &x[t * blocks + b];
            float product = (float)dot_block(u.q, xb->q) * (u.d * xb->d);
            sums[t] += has_min ? product + u.m * xb->s : product;
        }
    }
}

/* Inlined into each type's function, where the unpacking is known. */
static inline __attribute__((always_inline)) void matmul_q8(unpack_fn unpack, size_t block_bytes,
                                                            bool has_min, const char *w,
                                                            int64_t rows, int64_t cols,
                                                            const kern_q8 *x, int64_t n_x,
                                                            float *out, int64_t out_stride)
{
    int64_t blocks = cols / 32;
    float sums[TILE];
    for (int64_t r = 0; r < rows; r++) {
        const char *row = w + (size_t)(r * blocks) * block_bytes;
        for (int64_t t = 0; t < n_x; t += TILE) {
            int64_t tile = n_x - t < TILE ? n_x - t : TILE;
            matmul_row(unpack, block_bytes, has_min, row, blocks, x + t * blocks, tile, sums);
            for (int64_t i = 0; i < tile; i++) {
                out[(t + i) * out_stride + r] = sums[i];
            }
        }
    }
}

#define MATMUL_Q8(type, has_min)                                                                   \
    KERN_PORTABLE_MATMUL(type##_q8)                                                                \
    {                                                                                              \
        (void)scratch;                                                                             \
        matmul_q8(unpack_##type, sizeof(tensor_##type), has_min, w, rows, cols, x, n_x, out,       \
                  out_stride);                                                                     \
    }

MATMUL_Q8(q8_0, false)
MATMUL_Q8(q4_0, false)
MATMUL_Q8(q4_1, true)
MATMUL_Q8(q5_0, false)
MATMUL_Q8(q5_1, true)
MATMUL_Q8(iq4_nl, false)
