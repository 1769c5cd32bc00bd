/* Streaming attention (FlashAttention-2, arXiv 2307.08691).
 *
 * Forward, for query i over tiles of keys j, with scores s_ij = q_i k_j / sqrt(D):
 *   m_i = max_j s_ij, p_ij = exp(s_ij - m_i), o_i = sum_j p_ij v_j / sum_j p_ij
 *   lse_i = m_i + log sum_j p_ij
 * where m_i, the sum and o_i are running: a tile with a larger maximum scales down what the earlier
 * ones left.
 *
 * Backward, with P_ij = exp(s_ij - lse_i) computed once more and D_i = dO_i o_i:
 *   dV_j = sum_i P_ij dO_i        dS_ij = P_ij (dO_i v_j - D_i) / sqrt(D)
 *   dQ_i = sum_j dS_ij k_j        dK_j = sum_i dS_ij q_i
 *
 * Tiles are wider in keys than in queries: causality wastes half a tile of QUERIES x QUERIES on the
 * diagonal whatever their width, and wide ones take fewer and larger products. */
#include "train/attention_tiles.h"

#include <math.h>
#include <string.h>

enum { QUERIES = 64, KEYS = 256 };

typedef struct workspace {
    float *p, *dp;            /* [QUERIES, KEYS] */
    float *dq;                /* [QUERIES, D] */
    float *max, *sum, *delta; /* [QUERIES] of the scores before their scale; D_i */
} workspace;

/* The floats of the workspace, whose pointers are set where there is scratch for them. */
static int64_t lay_out(float *scratch, int64_t dim, workspace *w)
{
    int64_t used = 0;
    struct {
        float **at;
        int64_t size;
    } parts[] = {{&w->p, QUERIES * KEYS}, {&w->dp, QUERIES * KEYS}, {&w->dq, QUERIES * dim},
                 {&w->max, QUERIES},      {&w->sum, QUERIES},       {&w->delta, QUERIES}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        *parts[i].at = scratch ? scratch + used : NULL;
        used += (parts[i].size + 15) / 16 * 16;
    }
    return used;
}

int64_t train_attend_scratch(int64_t dim)
{
    workspace w;
    return lay_out(NULL, dim, &w);
}

/* One head's queries of one tile, and the keys of one tile that they meet: places in the sequence,
 * whose first token is number `base` of the pass. */
typedef struct tile {
    const train_attend *a;
    int64_t base, head, kv_head;
    int64_t q0, q1, k0, k1;
} tile;

static int64_t query_tiles(const train_attend *a)
{
    return train_parts(a->tokens->seq_len, QUERIES);
}

static tile tile_of_queries(const train_attend *a, int64_t seq, int64_t head, int64_t number)
{
    int64_t q0 = number * QUERIES, q1 = q0 + QUERIES;
    return (tile){
        .a = a,
        .base = seq * a->tokens->seq_len,
        .head = head,
        .kv_head = head / (a->n_heads / a->n_kv_heads),
        .q0 = q0,
        .q1 = q1 < a->tokens->seq_len ? q1 : a->tokens->seq_len,
    };
}

/* Moves on to the next keys, the first time to the first: the tiles stand at multiples of KEYS, cut
 * off where the queries' first example begins and where the last query is. False past the end. */
static bool next_keys(tile *t)
{
    int64_t begin = t->k1 == 0 ? t->a->tokens->starts[t->base + t->q0] : t->k1;
    if (begin >= t->q1)
        return false;
    int64_t end = (begin / KEYS + 1) * KEYS;
    t->k0 = begin;
    t->k1 = end < t->q1 ? end : t->q1;
    return true;
}

/* The keys [*lo, *hi) of the tile, counted from its first, that a query sees; none: *lo >= *hi. */
static void keys_seen(const tile *t, int64_t query, int64_t *lo, int64_t *hi)
{
    int64_t start = t->a->tokens->starts[t->base + query];
    *lo = start > t->k0 ? start - t->k0 : 0;
    *hi = (query + 1 < t->k1 ? query + 1 : t->k1) - t->k0;
}

/* Rows of the tensors [T, heads * D]: of a query, or of a key, counted in the sequence. */
static int64_t at_query(const tile *t, int64_t query)
{
    return ((t->base + query) * t->a->n_heads + t->head) * t->a->dim;
}

static int64_t at_key(const tile *t, int64_t key)
{
    return ((t->base + key) * t->a->n_kv_heads + t->kv_head) * t->a->dim;
}

/* out [queries, keys] = x y^T, with x of the queries' rows, y of the keys'. */
static void multiply_rows(const tile *t, const float *x, const float *y, float *out)
{
    const train_attend *a = t->a;
    train_gemm(a->ctx->blas, false, true, t->q1 - t->q0, t->k1 - t->k0, a->dim, 1,
               x + at_query(t, t->q0), a->n_heads * a->dim, y + at_key(t, t->k0),
               a->n_kv_heads * a->dim, 0, out, KEYS);
}

/* out (rows of keys) += p^T x, with x of the queries' rows. */
static void add_to_keys(const tile *t, const float *p, const float *x, float *out)
{
    const train_attend *a = t->a;
    train_gemm(a->ctx->blas, true, false, t->k1 - t->k0, a->dim, t->q1 - t->q0, 1, p, KEYS,
               x + at_query(t, t->q0), a->n_heads * a->dim, 1, out + at_key(t, t->k0),
               a->n_kv_heads * a->dim);
}

/* out [queries, D], `stride` apart, = p x with x of the keys' rows, added to what out holds after
 * the first tile. */
static void add_to_queries(const tile *t, const float *p, const float *x, bool first, float *out,
                           int64_t stride)
{
    const train_attend *a = t->a;
    train_gemm(a->ctx->blas, false, false, t->q1 - t->q0, a->dim, t->k1 - t->k0, 1, p, KEYS,
               x + at_key(t, t->k0), a->n_kv_heads * a->dim, first ? 0 : 1, out, stride);
}

static void clear_unseen(float *row, int64_t n, int64_t lo, int64_t hi)
{
    memset(row, 0, (size_t)lo * sizeof *row);
    memset(row + hi, 0, (size_t)(n - hi) * sizeof *row);
}

static void multiply(float *x, int64_t n, float factor)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= factor;
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Takes one row of a tile's scores into a query's maximum and sum; the row becomes the weights of
 * the values. */
static void take_scores(const kern_table *kern, float scale, float *row, int64_t n, float *max,
                        float *sum, float *o, int64_t dim)
{
    float larger = kern->max(row, n);
    if (larger < *max)
        larger = *max;
    kern->exp_scaled(row, n, scale, scale * larger);
    float row_sum = (float)kern->sum(row, n);
    if (larger != *max && *max != -INFINITY) {
        float factor = expf(scale * (*max - larger));
        *sum *= factor;
        multiply(o, dim, factor);
    }
    *sum += row_sum;
    *max = larger;
}

static void forward_part(void *user, int64_t part, int thread)
{
    const train_attend *a = user;
    const kern_table *kern = a->ctx->kern;
    const float scale = (float)(1 / sqrt((double)a->dim));
    int64_t tiles = query_tiles(a);
    tile t = tile_of_queries(a, part / tiles / a->n_heads, part / tiles % a->n_heads, part % tiles);
    workspace w;
    lay_out(a->ctx->scratch[thread], a->dim, &w);

    int64_t stride = a->n_heads * a->dim, n = t.q1 - t.q0;
    float *o = a->o + at_query(&t, t.q0);
    for (int64_t i = 0; i < n; i++) {
        w.max[i] = -INFINITY;
        w.sum[i] = 0;
    }
    for (bool first = true; next_keys(&t); first = false) {
        multiply_rows(&t, a->q, a->k, w.p);
        for (int64_t i = 0; i < n; i++) {
            int64_t lo, hi;
            float *row = w.p + i * KEYS;
            keys_seen(&t, t.q0 + i, &lo, &hi);
            if (lo < hi) {
                clear_unseen(row, t.k1 - t.k0, lo, hi);
                take_scores(kern, scale, row + lo, hi - lo, &w.max[i], &w.sum[i], o + i * stride,
                            a->dim);
            } else {
                memset(row, 0, (size_t)(t.k1 - t.k0) * sizeof *row);
            }
        }
        add_to_queries(&t, w.p, a->v, first, o, stride);
    }
    for (int64_t i = 0; i < n; i++) {
        multiply(o + i * stride, a->dim, 1 / w.sum[i]);
        a->lse[(t.base + t.q0 + i) * a->n_heads + t.head] = scale * w.max[i] + logf(w.sum[i]);
    }
}

void train_attend_forward(const train_attend *a)
{
    base_pool_run(a->ctx->pool, forward_part, (void *)a,
                  a->tokens->n_seqs * a->n_heads * query_tiles(a));
}

/* ---- backward -------------------------------------------------------------------------------- */

/* Scores become probabilities. */
static void find_probabilities(const tile *t, float scale, float *p)
{
    const train_attend *a = t->a;
    for (int64_t i = 0; i < t->q1 - t->q0; i++) {
        int64_t lo, hi;
        float *row = p + i * KEYS;
        keys_seen(t, t->q0 + i, &lo, &hi);
        if (lo < hi) {
            clear_unseen(row, t->k1 - t->k0, lo, hi);
            a->ctx->kern->exp_scaled(row + lo, hi - lo, scale,
                                     a->lse[(t->base + t->q0 + i) * a->n_heads + t->head]);
        } else {
            memset(row, 0, (size_t)(t->k1 - t->k0) * sizeof *row);
        }
    }
}

/* p becomes the gradient of the products q k, given that of the probabilities. */
static void find_score_gradients(const tile *t, float scale, const float *delta,
                                 const float *restrict dp, float *restrict p)
{
    for (int64_t i = 0; i < t->q1 - t->q0; i++) {
        for (int64_t j = 0; j < t->k1 - t->k0; j++)
            p[i * KEYS + j] *= scale * (dp[i * KEYS + j] - delta[i]);
    }
}

/* What one tile of one head's queries adds to the gradients. */
static void back_tile(tile *t, const workspace *w)
{
    const train_attend *a = t->a;
    const float scale = (float)(1 / sqrt((double)a->dim));
    int64_t stride = a->n_heads * a->dim, n = t->q1 - t->q0;
    int64_t at = at_query(t, t->q0);
    for (int64_t i = 0; i < n; i++) {
        w->delta[i] =
            (float)a->ctx->kern->dot(a->d_o + at + i * stride, a->o + at + i * stride, a->dim);
    }
    for (bool first = true; next_keys(t); first = false) {
        multiply_rows(t, a->q, a->k, w->p);
        find_probabilities(t, scale, w->p);
        add_to_keys(t, w->p, a->d_o, a->dv);
        multiply_rows(t, a->d_o, a->v, w->dp);
        find_score_gradients(t, scale, w->delta, w->dp, w->p);
        add_to_keys(t, w->p, a->q, a->dk);
        add_to_queries(t, w->p, a->k, first, w->dq, a->dim);
    }
    for (int64_t i = 0; i < n; i++)
        memcpy(a->q + at + i * stride, w->dq + i * a->dim, (size_t)a->dim * sizeof *w->dq);
}

/* A key/value head of a sequence with all its queries, in order, so that its sums have one. */
static void back_part(void *user, int64_t part, int thread)
{
    const train_attend *a = user;
    int64_t seq = part / a->n_kv_heads, kv_head = part % a->n_kv_heads;
    int64_t group = a->n_heads / a->n_kv_heads, seq_len = a->tokens->seq_len;
    workspace w;
    lay_out(a->ctx->scratch[thread], a->dim, &w);
    for (int64_t i = seq * seq_len; i < (seq + 1) * seq_len; i++) {
        int64_t row = (i * a->n_kv_heads + kv_head) * a->dim;
        memset(a->dk + row, 0, (size_t)a->dim * sizeof *a->dk);
        memset(a->dv + row, 0, (size_t)a->dim * sizeof *a->dv);
    }
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
        for (int64_t i = 0; i < query_tiles(a); i++) {
            tile t = tile_of_queries(a, seq, head, i);
            back_tile(&t, &w);
        }
    }
}

void train_attend_back(const train_attend *a)
{
    base_pool_run(a->ctx->pool, back_part, (void *)a, a->tokens->n_seqs * a->n_kv_heads);
}
