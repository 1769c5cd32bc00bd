/* Kernels are slots: a table of function pointers, filled with the portable reference, then
 * overridden by what the processor has.
 *
 * Kernels return nothing, never allocate and never fail: the caller checks shapes. The order of
 * every summation is fixed by the shape of one output element alone, so a result does not depend
 * on how many rows or tokens a call handles: bit-identical within one instruction level.
 *
 * Shape letters are defined in docs/architecture.md. */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/tensor.h"

/* Activations quantised for products with quantised weights: blocks of 32 numbers. */
typedef struct kern_q8 {
    float d;        /* scale: x = d * q */
    float s;        /* d * sum of q, for weights with a minimum */
    int16_t sum[2]; /* of q[0 .. 15] and q[16 .. 31], for weights with an offset */
    int8_t q[32];   /* -127 .. 127 */
} kern_q8;

/* Floats of scratch that a product with rows of `cols` needs: a decoded row, or an unpacked panel.
 */
#define KERN_SCRATCH(cols) (3 * (cols))

typedef enum kern_input {
    KERN_INPUT_F32 = 0, /* rows of float */
    KERN_INPUT_Q8 = 1,  /* rows of kern_q8 [n / 32] */
} kern_input;

/* out[t * out_stride + r] = sum_k w[r, k] * x[t, k]
 *   w [rows, cols] in the slot's type, x [n_x, cols] rows one after another in the slot's input
 *   form, out float. scratch: KERN_SCRATCH(cols) floats, 64-byte aligned.
 *   Slots with `panels` take rows in panels (tensor/panel.h) and a multiple of eight of them. */
typedef void (*kern_matmul_fn)(const void *w, int64_t rows, int64_t cols, const void *x,
                               int64_t n_x, float *out, int64_t out_stride, float *scratch);

typedef struct kern_matmul {
    kern_matmul_fn fn;
    kern_input input;
    bool panels;
} kern_matmul;

/* The KV cache holds tiles: the keys, or the values, of KERN_TILE positions of one head.
 *   values [KERN_TILE, dim]: rows of the tensor type;
 *   keys [KERN_TILE / 8, dim, 8]: groups of 8 positions, each dimension's numbers side by side. In
 *   Q8_0 a group is a list of blocks of 32 dimensions: 8 scales (F16), then [32, 8] numbers. */
enum { KERN_TILE = 64, KERN_TILE_GROUP = 8 };

/* Queries of some tokens that follow each other, `group` heads for each, and their running state. A
 * fresh state is max = -INFINITY, sum = 0, acc = 0. The output is acc / sum. */
typedef struct kern_attend {
    int64_t dim;
    int64_t stride; /* between rows: kern_attend_stride(dim) */
    int64_t n_q;    /* tokens * group */
    int64_t group;
    const float *q;   /* [n_q, stride], scaled already */
    float *max, *sum; /* [n_q] */
    float *acc;       /* [n_q, stride] weighted sum of values; past dim anything */
    float *scratch;   /* kern_attend_scratch(dim, n_q) floats */
} kern_attend;

typedef void (*kern_attend_fn)(const kern_attend *a, const void *keys, const void *values,
                               const void *next, int64_t first);

/* Numbers of a long sum that are added up in F32. */
enum { KERN_SUM_BLOCK = 1024 };

typedef struct kern_adamw {
    float lr, beta1, beta2, eps, decay;
    float grad_scale;
    float rest1, rest2;       /* 1 - beta1, 1 - beta2, not of the betas in F32: these may be 1 */
    float correct1, correct2; /* 1 - beta1^step, 1 - beta2^step */
} kern_adamw;

typedef struct kern_table {
    const char *level; /* "portable", "avx2", "avx512vnni" */

    /* By tensor_type. The default path, and the reference path (always KERN_INPUT_F32: the row is
     * decoded, then multiplied in F32). */
    kern_matmul matmul[TENSOR_TYPE_END];
    kern_matmul matmul_f32[TENSOR_TYPE_END];

    /* x [n], n a multiple of 32 -> q [n / 32]. d = max|x| / 127, q = nearest (ties to even). */
    void (*quantize_q8)(const float *x, kern_q8 *q, int64_t n);

    /* out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]   (RMSNorm, arXiv 1910.07467) */
    void (*rmsnorm)(const float *x, const float *weight, float *out, int64_t n, float eps);

    /* Rotates pairs (x[i], x[i + n/2]) by angle with cos[i], sin[i], i < n/2 (RoPE, arXiv
     * 2104.09864, rotate-half form). In place. */
    void (*rope)(float *x, const float *cos, const float *sin, int64_t n);

    /* x[i] = exp(x[i] - max) / sum. n >= 1. In place. */
    void (*softmax)(float *x, int64_t n);

    /* gate[i] = silu(gate[i]) * up[i],  silu(z) = z / (1 + exp(-z)). In place. */
    void (*swiglu)(float *gate, const float *up, int64_t n);

    /* out[i] += a * x[i] */
    void (*axpy)(float a, const float *x, float *out, int64_t n);

    /* Rows on their way into the KV cache. Round to nearest even. */
    void (*f32_to_f16)(const float *x, uint16_t *out, int64_t n);

    /* One tile of streaming attention (online softmax, arXiv 1805.02867) for queries that share a
     * KV head, by the tile's type: a->max, sum and acc take in the tile.
     *   keys, values: the tile; next: the keys of the one to come, or NULL (only a hint);
     *   first <= KERN_TILE: keys that the first token's queries see, each later token's one more,
     *   up to KERN_TILE. None where that is not above 0. What a tile holds past the keys seen does
     *   not matter. */
    kern_attend_fn attend_f32, attend_f16, attend_q8_0;

    /* ---- for training ---- */

    /* Of one row of rmsnorm, given dy = the gradient of out:
     *   r = 1 / sqrt(mean(x^2) + eps), s = sum_i dy[i] weight[i] x[i]
     *   dx[i] += r * (weight[i] dy[i] - x[i] r^2 s / n);  dweight[i] += dy[i] x[i] r
     * dweight may be NULL. */
    void (*rmsnorm_back)(const float *x, const float *weight, const float *dy, float *dx,
                         float *dweight, int64_t n, float eps);

    /* Of swiglu, given dh: h[i] = silu(gate[i]) up[i], and in place gate becomes dh up silu'(gate),
     * up becomes dh silu(gate). */
    void (*swiglu_back)(float *gate, float *up, const float *dh, float *h, int64_t n);

    /* x[i] = exp(scale * x[i] - shift). -INFINITY gives 0, and so does whatever would come out
     * subnormal. In place. */
    void (*exp_scaled)(float *x, int64_t n, float scale, float shift);

    /* The largest of x[n]; -INFINITY where n is 0; NaN if any is. */
    float (*max)(const float *x, int64_t n);

    /* log sum exp of x[n], n >= 1: max + log(sum exp(x - max)), the sum no
     * coarser than those below. -INFINITY where all are; NaN if any is. */
    float (*logsumexp)(const float *x, int64_t n);

    /* Sums in F32 of blocks of KERN_SUM_BLOCK, added up in F64 in order. */
    double (*sum)(const float *x, int64_t n);
    double (*dot)(const float *x, const float *y, int64_t n);

    /* AdamW (arXiv 1711.05101) with decoupled decay; g is multiplied by grad_scale first:
     *   m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2
     *   w -= lr * (m / correct1 / (sqrt(v / correct2) + eps) + decay w)
     * Moments that would be subnormal become 0. */
    void (*adamw)(float *w, float *m, float *v, const float *g, int64_t n, const kern_adamw *p);
} kern_table;

/* Sizes in floats that kern_attend asks for. */
static inline int64_t kern_attend_stride(int64_t dim)
{
    return (dim + 15) & ~(int64_t)15;
}

static inline int64_t kern_attend_scratch(int64_t dim, int64_t n_q)
{
    return KERN_TILE * (n_q + 2 * kern_attend_stride(dim));
}

/* The slot of a tile type; NULL for others. */
static inline kern_attend_fn kern_attend_of(const kern_table *kern, tensor_type type)
{
    return type == TENSOR_F32    ? kern->attend_f32
           : type == TENSOR_F16  ? kern->attend_f16
           : type == TENSOR_Q8_0 ? kern->attend_q8_0
                                 : NULL;
}

/* Encodes x [dim] as key, or value, number `slot` of a tile. type: F32, F16 or Q8_0. */
void kern_tile_put_key(const kern_table *kern, tensor_type type, const float *x, int64_t dim,
                       int64_t slot, void *tile);
void kern_tile_put_value(const kern_table *kern, tensor_type type, const float *x, int64_t dim,
                         int64_t slot, void *tile);

/* The best table for this processor, no higher than `level` ("portable", "avx2", "avx512vnni";
 * NULL: what MARCO_CPU in the environment says, else the best). NULL for a level that is unknown or
 * that this processor does not have. The table is constant and lives for ever. */
const kern_table *kern_table_get(const char *level);

/* For tests: the i-th level this processor has, lowest first; NULL past the last. */
const kern_table *kern_table_at(int i);

#endif
