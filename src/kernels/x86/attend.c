/* One tile of streaming attention.
 *
 * A score is one chain of multiply-adds over the head's dimensions, an output one chain over the
 * tile's keys, whichever of the two ways computes it:
 *   - few queries (decoding) read the tile as the cache holds it and widen numbers in registers;
 *   - many queries (prompts) share a copy widened to F32, its values in panels of 16 columns. */
#include <math.h>
#include <string.h>

#include "kernels/x86/avx2.h"
#include "kernels/x86/lanes.h"
#include "tensor/blocks.h"

enum {
    GROUP = KERN_TILE_GROUP,                        /* keys side by side, a vector of them */
    MAX_VECTORS = 8,                                /* of keys or columns at once */
    BLOCK = 32,                                     /* dimensions that share a scale in Q8_0 */
    BLOCK_BYTES = GROUP * (int)sizeof(tensor_q8_0), /* of a group of keys: scales, numbers */
    FEW = 4,                                        /* queries that read the tile as it is */
    ROWS = 6,                                       /* queries at once of the widened tile */
    PANEL = 16,                                     /* columns of a panel of widened values */
    LINE = 64,                                      /* bytes of a cache line */
};

/* A tile, its keys in groups of 8: dimension after dimension, 8 keys side by side. */
typedef struct tile {
    const char *keys, *values;
    const char *next; /* what to ask the memory for while values are read */
    int64_t dim;
    size_t group_bytes; /* of 8 keys */
    size_t row_bytes;   /* of a value */
} tile;

LANES_INLINE int size_of(const tensor_type type)
{
    return type == TENSOR_F32 ? 4 : type == TENSOR_F16 ? 2 : 1;
}

LANES_INLINE __m256 load_half(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}

/* Eight numbers; those of Q8_0 without their scale. */
LANES_INLINE __m256 load(const tensor_type type, const char *p)
{
    return type == TENSOR_F32 ? _mm256_loadu_ps((const float *)(const void *)p)
           : type == TENSOR_F16
               ? load_half(p)
               : _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}

/* Asks for memory at the pace it is read at: `step` bytes from p + at. */
LANES_INLINE void ask(const char *p, size_t at, const int step)
{
    if (step < LINE) {
        if (at % LINE == 0) {
            _mm_prefetch(p + at, _MM_HINT_T0);
        }
        return;
    }
    for (int i = 0; i < step; i += LINE) {
        _mm_prefetch(p + at + i, _MM_HINT_T0);
    }
}

/* sum[r][i] += x[r] * v[i]: a few numbers, `stride` apart, times a few vectors. */
LANES_INLINE void multiply_add(__m256 sum[ROWS][MAX_VECTORS], const float *x, int64_t stride,
                               const __m256 *v, const int n_r, const int n_v)
{
    for (int r = 0; r < n_r; r++) {
        __m256 factor = _mm256_broadcast_ss(x + r * stride);
        for (int i = 0; i < n_v; i++) {
            sum[r][i] = _mm256_fmadd_ps(factor, v[i], sum[r][i]);
        }
    }
}

/* ---- scores --------------------------------------------------------------------------------- */

/* scores[r, key] = q[r] . key for n_r queries and groups of keys from g on, n_g at a time while
 * there are as many before `end`; returns the first group that is left. Meanwhile the values are
 * asked for, as many bytes as are read. (The outer loop is here so that compilers see the constant
 * counts within it in time to keep the sums in registers.) */
LANES_INLINE int64_t score(const tensor_type type, const tile *t, int64_t g, int64_t end,
                           const float *q, int64_t stride, float *scores, const int n_r,
                           const int n_g)
{
    const int size = size_of(type);
    const int64_t span = type == TENSOR_Q8_0 ? BLOCK : t->dim;
    for (; g + n_g <= end; g += n_g) {
        const char *p = t->keys + (size_t)g * t->group_bytes;
        const char *ahead = t->values + (size_t)g * t->group_bytes;
        __m256 sum[ROWS][MAX_VECTORS];
        __m256 scale[MAX_VECTORS];
        size_t at = 0;
        for (int r = 0; r < n_r; r++) {
            for (int i = 0; i < n_g; i++) {
                sum[r][i] = _mm256_setzero_ps();
            }
        }
        for (int64_t from = 0; from < t->dim; from += span) {
            if (type == TENSOR_Q8_0) {
                for (int i = 0; i < n_g; i++) {
                    scale[i] = load_half(p + (size_t)i * t->group_bytes + at);
                }
                ask(ahead, at * (size_t)n_g, LINE);
                at += GROUP * 2;
            }
            for (int64_t d = from; d < from + span; d++) {
                ask(ahead, at * (size_t)n_g, n_g * GROUP * size);
                __m256 k[MAX_VECTORS];
                for (int i = 0; i < n_g; i++) {
                    k[i] = load(type, p + (size_t)i * t->group_bytes + at);
                    k[i] = type == TENSOR_Q8_0 ? _mm256_mul_ps(k[i], scale[i]) : k[i];
                }
                multiply_add(sum, q + d, stride, k, n_r, n_g);
                at += (size_t)(GROUP * size);
            }
        }
        for (int r = 0; r < n_r; r++) {
            for (int i = 0; i < n_g; i++) {
                _mm256_storeu_ps(scores + r * KERN_TILE + (g + i) * GROUP, sum[r][i]);
            }
        }
    }
    return g;
}

/* ---- softmax -------------------------------------------------------------------------------- */

/* The first n scores become weights exp(score - reference), updating the row's maximum and sum.
 * Returns what its output so far fades by. The reference is explained with the portable kernel; a
 * NaN is passed by in the comparison and comes out in the weights. */
static float weigh(float *scores, int64_t n, float *row_max, float *row_sum)
{
    __m256 max = _mm256_set1_ps(*row_max);
    for (int64_t i = n; i % 8 != 0; i++) {
        scores[i] = -INFINITY;
    }
    for (int64_t i = 0; i < n; i += 8) {
        max = _mm256_max_ps(_mm256_loadu_ps(scores + i), max);
    }
    float top = lanes_max(max);
    float reference = top == -INFINITY ? 0 : top;
    __m256 shift = _mm256_set1_ps(reference);
    __m256 sum = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; i += 8) {
        __m256 e = lanes_exp(_mm256_sub_ps(_mm256_loadu_ps(scores + i), shift));
        _mm256_storeu_ps(scores + i, e);
        sum = _mm256_add_ps(sum, e);
    }
    float fade = _mm256_cvtss_f32(lanes_exp(_mm256_set1_ps(*row_max - reference)));
    *row_sum = *row_sum * fade + lanes_sum(sum);
    *row_max = top;
    return fade;
}

/* ---- values --------------------------------------------------------------------------------- */

/* Rows of queries that are handled at once: how many keys each sees, and the least and most. */
typedef struct row_view {
    int64_t seen[ROWS], least, most;
    float fade[ROWS];
} row_view;

/* Columns from `column` on: n_c vectors, or the first `left` < 8 numbers of one and zeros. Vectors
 * begin at blocks of Q8_0, or are no more than what is left of one. */
LANES_INLINE void load_values(const tensor_type type, const char *row, int64_t column,
                              const int left, __m256 *v, const int n_c)
{
    const char *p = row + column * size_of(type);
    if (type == TENSOR_Q8_0) {
        p += (column / BLOCK + 1) * (int64_t)(sizeof(tensor_q8_0) - BLOCK);
        __m256 scale = _mm256_setzero_ps();
        for (int c = 0; c < n_c; c++) {
            const char *number = p + c * 8 + c * 8 / BLOCK * (int)(sizeof(tensor_q8_0) - BLOCK);
            if (c * 8 % BLOCK == 0) {
                uint16_t d;
                memcpy(&d, number - column % BLOCK - sizeof(d), sizeof(d));
                scale = _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(d)));
            }
            v[c] = _mm256_mul_ps(load(type, number), scale);
        }
    } else if (left < 8) {
        char whole[32] = {0};
        memcpy(whole, p, (size_t)(left * size_of(type)));
        v[0] = load(type, whole);
    } else {
        for (int c = 0; c < n_c; c++) {
            v[c] = load(type, p + c * 8 * size_of(type));
        }
    }
}

/* acc[r] = acc[r] * fade[r] + the sum of weights[r, i] * values[i] over the keys that r sees, for
 * columns from `column` on, n_c vectors at a time while there are as many before `end`, or for the
 * last `left` < 8 columns; returns the first column that is left. */
LANES_INLINE int64_t blend(const tensor_type type, const tile *t, int64_t column, int64_t end,
                           const int left, const row_view *view, const float *weights, float *acc,
                           int64_t stride, const int n_r, const int n_c)
{
    const int size = size_of(type);
    const int step = n_c * 8 * size;
    const int columns = left < 8 ? left : 8 * n_c;
    for (; column + columns <= end; column += columns) {
        const char *row = t->values;
        const char *ahead = t->next + (size_t)(column * KERN_TILE * size);
        __m256 sum[ROWS][MAX_VECTORS];
        int64_t i = 0;
        for (int r = 0; r < n_r; r++) {
            for (int c = 0; c < n_c; c++) {
                sum[r][c] = _mm256_mul_ps(_mm256_loadu_ps(acc + r * stride + column + 8 * c),
                                          _mm256_set1_ps(view->fade[r]));
            }
        }
        for (; i < view->least; i++, row += t->row_bytes) {
            ask(ahead, (size_t)(i * step), step);
            __m256 v[MAX_VECTORS];
            load_values(type, row, column, left, v, n_c);
            multiply_add(sum, weights + i, KERN_TILE, v, n_r, n_c);
        }
        for (; i < view->most; i++, row += t->row_bytes) {
            __m256 v[MAX_VECTORS];
            load_values(type, row, column, left, v, n_c);
            for (int r = 0; r < n_r; r++) {
                if (i < view->seen[r]) {
                    multiply_add(sum + r, weights + r * KERN_TILE + i, KERN_TILE, v, 1, n_c);
                }
            }
        }
        for (int r = 0; r < n_r; r++) {
            for (int c = 0; c < n_c; c++) {
                _mm256_storeu_ps(acc + r * stride + column + 8 * c, sum[r][c]);
            }
        }
    }
    return column;
}

/* ---- few queries ---------------------------------------------------------------------------- */

/* Keys that query j sees of a tile of which the first token's see `first`. */
static int64_t seen_by(const kern_attend *a, int64_t first, int64_t j)
{
    int64_t n = first + j / a->group;
    return n < 0 ? 0 : n > KERN_TILE ? KERN_TILE : n;
}

/* Queries j .. j + n - 1, whose scores are in place, which become weights. */
static row_view weigh_rows(const kern_attend *a, int64_t first, int64_t j, int64_t n, float *scores)
{
    row_view view = {.least = seen_by(a, first, j), .most = seen_by(a, first, j + n - 1)};
    for (int64_t r = 0; r < n; r++) {
        int64_t seen = seen_by(a, first, j + r);
        view.seen[r] = seen;
        view.fade[r] =
            seen ? weigh(scores + r * KERN_TILE, seen, &a->max[j + r], &a->sum[j + r]) : 1;
    }
    return view;
}

/* n_r queries; the registers hold the sums of n_g groups of keys, or n_c vectors of columns. */
LANES_INLINE void attend_few(const tensor_type type, const kern_attend *a, const tile *t,
                             int64_t first, const int n_r, const int n_g, const int n_c)
{
    int64_t groups = (seen_by(a, first, n_r - 1) + GROUP - 1) / GROUP;
    int64_t g = score(type, t, 0, groups, a->q, a->stride, a->scratch, n_r, n_g);
    score(type, t, g, groups, a->q, a->stride, a->scratch, n_r, 1);
    row_view view = weigh_rows(a, first, 0, n_r, a->scratch);
    int64_t column = blend(type, t, 0, t->dim, 8, &view, a->scratch, a->acc, a->stride, n_r, n_c);
    column = blend(type, t, column, t->dim, 8, &view, a->scratch, a->acc, a->stride, n_r, 1);
    if (column < t->dim) {
        blend(type, t, column, t->dim, (int)(t->dim - column), &view, a->scratch, a->acc, a->stride,
              n_r, 1);
    }
}

/* ---- many queries --------------------------------------------------------------------------- */

/* Keys in F32, in the order that they have in F16. */
static void widen_q8_0_keys(const tile *t, float *to, int64_t groups)
{
    const char *block = t->keys;
    for (int64_t b = 0; b < groups * (t->dim / BLOCK); b++, block += BLOCK_BYTES) {
        __m256 scale = load_half(block);
        for (int i = 0; i < BLOCK; i++, to += GROUP) {
            __m256 k = load(TENSOR_Q8_0, block + GROUP * 2 + i * GROUP);
            _mm256_storeu_ps(to, _mm256_mul_ps(k, scale));
        }
    }
}

/* Values of n positions as panels of [KERN_TILE, PANEL], zeros after the last column. */
LANES_INLINE void widen_values(const tensor_type type, const tile *t, float *to, int64_t n)
{
    const char *row = t->values;
    for (int64_t i = 0; i < n; i++, row += t->row_bytes) {
        float *at = to + i * PANEL;
        for (int64_t d = 0; d < t->dim; d += 8) {
            int64_t left = t->dim - d;
            __m256 v;
            load_values(type, row, d, left < 8 ? (int)left : 8, &v, 1);
            _mm256_storeu_ps(at + d / PANEL * (KERN_TILE * PANEL) + d % PANEL, v);
        }
        if ((t->dim + 7) / 8 % 2 != 0) {
            _mm256_storeu_ps(at + t->dim / PANEL * (KERN_TILE * PANEL) + 8, _mm256_setzero_ps());
        }
    }
}

/* How many of the `left` queries are handled at once. */
static int64_t rows_at_once(int64_t left)
{
    return left >= ROWS ? ROWS : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

/* Scores of n queries and one group of keys, or two. */
static void score_rows(const tile *t, int64_t g, int64_t end, const float *q, int64_t stride,
                       float *scores, int64_t n)
{
    switch (end - g == 2 ? n : n + ROWS) {
    case 1:
        score(TENSOR_F32, t, g, end, q, stride, scores, 1, 2);
        break;
    case 2:
        score(TENSOR_F32, t, g, end, q, stride, scores, 2, 2);
        break;
    case 4:
        score(TENSOR_F32, t, g, end, q, stride, scores, 4, 2);
        break;
    case ROWS:
        score(TENSOR_F32, t, g, end, q, stride, scores, ROWS, 2);
        break;
    case ROWS + 1:
        score(TENSOR_F32, t, g, end, q, stride, scores, 1, 1);
        break;
    case ROWS + 2:
        score(TENSOR_F32, t, g, end, q, stride, scores, 2, 1);
        break;
    case ROWS + 4:
        score(TENSOR_F32, t, g, end, q, stride, scores, 4, 1);
        break;
    default:
        score(TENSOR_F32, t, g, end, q, stride, scores, ROWS, 1);
    }
}

/* Outputs of n queries in one panel. */
static void blend_rows(const tile *panel, const row_view *view, const float *weights, float *acc,
                       int64_t stride, int64_t n)
{
    switch (n) {
    case 1:
        blend(TENSOR_F32, panel, 0, PANEL, 8, view, weights, acc, stride, 1, 2);
        break;
    case 2:
        blend(TENSOR_F32, panel, 0, PANEL, 8, view, weights, acc, stride, 2, 2);
        break;
    case 4:
        blend(TENSOR_F32, panel, 0, PANEL, 8, view, weights, acc, stride, 4, 2);
        break;
    default:
        blend(TENSOR_F32, panel, 0, PANEL, 8, view, weights, acc, stride, ROWS, 2);
    }
}

/* The tile's keys and values have been widened. */
static void attend_widened(const kern_attend *a, const tile *t, int64_t first)
{
    float *scores = a->scratch;
    int64_t start = first > 0 ? 0 : (1 - first) * a->group;
    int64_t groups = (seen_by(a, first, a->n_q - 1) + GROUP - 1) / GROUP;
    for (int64_t g = 0; g < groups; g += 2) {
        for (int64_t j = start, n; j < a->n_q; j += n) {
            n = rows_at_once(a->n_q - j);
            if (seen_by(a, first, j + n - 1) > g * GROUP) {
                score_rows(t, g, g + 2 < groups ? g + 2 : groups, a->q + j * a->stride, a->stride,
                           scores + j * KERN_TILE, n);
            }
        }
    }
    for (int64_t j = start, n; j < a->n_q; j += n) {
        n = rows_at_once(a->n_q - j);
        row_view view = weigh_rows(a, first, j, n, scores + j * KERN_TILE);
        tile panel = {.values = t->values, .next = t->values, .row_bytes = PANEL * sizeof(float)};
        for (int64_t column = 0; column < t->dim; column += PANEL) {
            blend_rows(&panel, &view, scores + j * KERN_TILE, a->acc + j * a->stride + column,
                       a->stride, n);
            panel.values += KERN_TILE * PANEL * sizeof(float);
        }
    }
}

LANES_INLINE void attend_many(const tensor_type type, const kern_attend *a, const tile *t,
                              int64_t first)
{
    float *keys = a->scratch + a->n_q * KERN_TILE;
    float *values = keys + KERN_TILE * t->dim;
    int64_t n = seen_by(a, first, a->n_q - 1);
    int64_t groups = (n + GROUP - 1) / GROUP;
    tile wide = *t;
    if (type == TENSOR_F16) {
        for (int64_t i = 0; i < groups * t->dim; i++) {
            _mm256_storeu_ps(keys + i * GROUP, load_half(t->keys + i * GROUP * 2));
        }
    } else if (type == TENSOR_Q8_0) {
        widen_q8_0_keys(t, keys, groups);
    }
    widen_values(type, t, values, n);
    wide.keys = type == TENSOR_F32 ? t->keys : (const char *)keys;
    wide.values = (const char *)values;
    wide.group_bytes = (size_t)(GROUP * t->dim) * sizeof(float);
    attend_widened(a, &wide, first);
}

LANES_INLINE void attend(const tensor_type type, const kern_attend *a, const void *keys,
                         const void *values, const void *next, int64_t first)
{
    const tile t = {
        .keys = keys,
        .values = values,
        .next = next ? next : keys,
        .dim = a->dim,
        .group_bytes = GROUP * tensor_row_bytes(type, a->dim),
        .row_bytes = tensor_row_bytes(type, a->dim),
    };
    switch (a->n_q) {
    case 1:
        attend_few(type, a, &t, first, 1, 8, 8);
        break;
    case 2:
        attend_few(type, a, &t, first, 2, 4, 4);
        break;
    case 3:
        attend_few(type, a, &t, first, 3, 2, 2);
        break;
    case FEW:
        attend_few(type, a, &t, first, FEW, 2, 2);
        break;
    default:
        attend_many(type, a, &t, first);
    }
}

void kern_avx2_attend_f32(const kern_attend *a, const void *keys, const void *values,
                          const void *next, int64_t first)
{
    attend(TENSOR_F32, a, keys, values, next, first);
}

void kern_avx2_attend_f16(const kern_attend *a, const void *keys, const void *values,
                          const void *next, int64_t first)
{
    attend(TENSOR_F16, a, keys, values, next, first);
}

void kern_avx2_attend_q8_0(const kern_attend *a, const void *keys, const void *values,
                           const void *next, int64_t first)
{
    attend(TENSOR_Q8_0, a, keys, values, next, first);
}
