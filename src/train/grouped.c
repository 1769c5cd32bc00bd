/* Products of each expert with the rows that came to it, and their gradients:
 *   forward:  h = silu(Wg x) * (Wu x),  y = Wd h
 *   backward: dh = Wd^T dy;  from h's formula dg, du;  dx = Wg^T dg + Wu^T du
 *             dWd += dy^T h,  dWg += dg^T x,  dWu += du^T x
 *
 * Parts are rows of one expert, how many depends on the experts' numbers of rows alone. An expert
 * with few rows has its matrices' gradients done in the same part, while its rows are in the cache;
 * for one with many the rows are cut up, and then its gradients by columns, so that several threads
 * have work even where all tokens chose the same expert. */
#include <string.h>

#include "train/experts_internal.h"

enum {
    WHOLE_ROWS = 512, /* of an expert that is one part of the backward pass */
    GRAD_COLS = 64,   /* of a part of a large expert's gradients */
    BLOCK = TRAIN_ROW_BLOCK,
};

/* Rows of a product of the backward pass. OpenBLAS multiplies matrices of this size and less as
 * they lie; larger ones are copied first, which is worth it only for products that are larger by
 * far. */
static int64_t back_block(const train_grouped *g)
{
    enum { SMALL = 1000000, LEAST = 16 };
    int64_t rows = SMALL / (g->s->embd * g->s->width);
    return rows >= LEAST && rows < BLOCK ? rows : BLOCK;
}

int64_t train_grouped_scratch(const model_config *config)
{
    int64_t matrix = (int64_t)config->n_embd * config->expert_dim;
    return matrix + (int64_t)BLOCK * (3 * (int64_t)config->n_embd + config->expert_dim);
}

/* A thread's scratch, in the backward pass all of it. */
typedef struct places {
    float *x, *d, *y; /* [BLOCK, E] */
    float *dh;        /* [BLOCK, F] */
    float *matrix;    /* [E, F] */
} places;

static places places_of(const train_grouped *g, int thread)
{
    int64_t rows = BLOCK * g->s->embd;
    float *at = g->s->ctx->scratch[thread];
    return (places){.x = at,
                    .d = at + rows,
                    .y = at + 2 * rows,
                    .dh = at + 3 * rows,
                    .matrix = at + 3 * rows + BLOCK * g->s->width};
}

/* Part i of n of some rows. */
static train_row_part piece(train_row_part whole, int64_t i, int64_t n)
{
    int64_t begin = whole.n * i / n, end = whole.n * (i + 1) / n;
    return (train_row_part){whole.expert, whole.row0 + begin, end - begin};
}

/* Lists each expert that has at least `min` and at most `max` rows: whole, or in pieces. */
static void list_parts(train_grouped *g, int64_t min, int64_t max, bool whole)
{
    train_row_part *parts = g->s->work->room.parts;
    g->n_parts = 0;
    for (int64_t e = 0; e < g->n_experts; e++) {
        train_row_part all = {e, g->first[e], g->first[e + 1] - g->first[e]};
        if (all.n < min || all.n > max)
            continue;
        int64_t n = whole ? 1 : train_parts(all.n, BLOCK);
        for (int64_t i = 0; i < n; i++)
            parts[g->n_parts++] = piece(all, i, n);
    }
}

static const float *weight(const train_grouped *g, const train_param *param, int64_t expert,
                           float *scratch)
{
    return train_weight(g->s->ctx->params, param, expert, 0, param->tensor.rows, scratch);
}

/* ---- forward -------------------------------------------------------------------------------- */

static void scatter(const train_grouped *g, const train_row_part *p, const float *y)
{
    int64_t embd = g->s->embd;
    for (int64_t r = 0; r < p->n; r++)
        memcpy(g->out + g->from[p->row0 + r] * embd, y + r * embd, (size_t)embd * sizeof *y);
}

static void forward_part(void *user, int64_t part, int thread)
{
    const train_grouped *g = user;
    const train_sparse *s = g->s;
    const train_blas *blas = s->ctx->blas;
    const train_row_part *p = &s->work->room.parts[part];
    int64_t embd = s->embd, width = s->width, n = p->n, e = p->expert;
    places at = places_of(g, thread);
    float *gate = s->saved->gate + p->row0 * width, *up = s->saved->up + p->row0 * width;
    float *y = g->scattered ? at.y : g->out + p->row0 * embd;

    train_gather(g->x, embd, g->from, NULL, p->row0, n, 0, embd, at.x);
    train_gemm(blas, false, true, n, width, embd, 1, at.x, embd, weight(g, g->gate, e, at.matrix),
               embd, 0, gate, width);
    train_gemm(blas, false, true, n, width, embd, 1, at.x, embd, weight(g, g->up, e, at.matrix),
               embd, 0, up, width);
    memcpy(at.dh, gate, (size_t)(n * width) * sizeof *gate);
    s->ctx->kern->swiglu(at.dh, up, n * width);
    train_gemm(blas, false, true, n, embd, width, 1, at.dh, width, weight(g, g->down, e, at.matrix),
               width, 0, y, embd);
    if (g->scattered)
        scatter(g, p, y);
}

void train_grouped_forward(train_grouped *g)
{
    list_parts(g, 1, INT64_MAX, false);
    base_pool_run(g->s->ctx->pool, forward_part, g, g->n_parts);
}

/* ---- backward ------------------------------------------------------------------------------- */

/* From d: the gradients of gate and up in their places, hidden, and u. */
static void back_hidden(const train_grouped *g, train_row_part p, const places *at)
{
    const train_sparse *s = g->s;
    int64_t width = s->width, first = p.row0 * width;
    float *hidden = s->work->room.hidden + first;
    train_gemm(s->ctx->blas, false, false, p.n, width, s->embd, 1, at->d, s->embd,
               weight(g, g->down, p.expert, at->matrix), width, 0, at->dh, width);
    s->ctx->kern->swiglu_back(s->saved->gate + first, s->saved->up + first, at->dh, hidden,
                              p.n * width);
    for (int64_t r = 0; r < p.n; r++)
        g->u[g->scattered ? g->from[p.row0 + r] : p.row0 + r] =
            (float)s->ctx->kern->dot(at->dh + r * width, hidden + r * width, width);
}

/* Columns c0 .. c0 + cols - 1 of the gradients of gate and up, rows of that of down; x and d are
 * these columns of the part's rows. */
static void back_matrices(const train_grouped *g, train_row_part p, int64_t c0, int64_t cols,
                          const float *x, const float *d)
{
    const train_sparse *s = g->s;
    const train_blas *blas = s->ctx->blas;
    int64_t embd = s->embd, width = s->width, first = p.row0 * width;
    float *gate = train_grad(s->ctx->params, g->gate, p.expert);
    float *up = train_grad(s->ctx->params, g->up, p.expert);
    float *down = train_grad(s->ctx->params, g->down, p.expert);
    if (gate)
        train_gemm(blas, true, false, width, cols, p.n, 1, s->saved->gate + first, width, x, cols,
                   1, gate + c0, embd);
    if (up)
        train_gemm(blas, true, false, width, cols, p.n, 1, s->saved->up + first, width, x, cols, 1,
                   up + c0, embd);
    if (down)
        train_gemm(blas, true, false, cols, width, p.n, 1, d, cols, s->work->room.hidden + first,
                   width, 1, down + c0 * width, width);
}

/* The gradient of x. */
static void back_input(const train_grouped *g, train_row_part p, const places *at)
{
    const train_sparse *s = g->s;
    const train_blas *blas = s->ctx->blas;
    int64_t embd = s->embd, width = s->width, first = p.row0 * width;
    float *dx = g->scattered ? at->y : g->out + p.row0 * embd;
    train_gemm(blas, false, false, p.n, embd, width, 1, s->saved->gate + first, width,
               weight(g, g->gate, p.expert, at->matrix), embd, 0, dx, embd);
    train_gemm(blas, false, false, p.n, embd, width, 1, s->saved->up + first, width,
               weight(g, g->up, p.expert, at->matrix), embd, 1, dx, embd);
    if (g->scattered)
        scatter(g, &p, dx);
}

static void gather_d(const train_grouped *g, train_row_part p, int64_t c0, int64_t cols, float *d)
{
    train_gather(g->d, g->s->embd, g->from, g->scale, p.row0, p.n, c0, cols, d);
}

static void gather_x(const train_grouped *g, train_row_part p, int64_t c0, int64_t cols, float *x)
{
    train_gather(g->x, g->s->embd, g->from, NULL, p.row0, p.n, c0, cols, x);
}

static bool is_frozen(const train_grouped *g)
{
    return g->gate->state == TRAIN_FROZEN && g->up->state == TRAIN_FROZEN &&
           g->down->state == TRAIN_FROZEN;
}

/* All of an expert with few rows. */
static void back_whole(void *user, int64_t part, int thread)
{
    const train_grouped *g = user;
    train_row_part whole = g->s->work->room.parts[part];
    places at = places_of(g, thread);
    int64_t pieces = train_parts(whole.n, back_block(g));
    for (int64_t i = 0; i < pieces; i++) {
        train_row_part p = piece(whole, i, pieces);
        gather_d(g, p, 0, g->s->embd, at.d);
        back_hidden(g, p, &at);
        if (!is_frozen(g)) {
            gather_x(g, p, 0, g->s->embd, at.x);
            back_matrices(g, p, 0, g->s->embd, at.x, at.d);
        }
        back_input(g, p, &at);
    }
}

static void back_large_hidden(void *user, int64_t part, int thread)
{
    const train_grouped *g = user;
    train_row_part p = g->s->work->room.parts[part];
    places at = places_of(g, thread);
    gather_d(g, p, 0, g->s->embd, at.d);
    back_hidden(g, p, &at);
}

static void back_large_matrices(void *user, int64_t part, int thread)
{
    const train_grouped *g = user;
    int64_t slices = train_parts(g->s->embd, GRAD_COLS);
    train_row_part whole = g->s->work->room.parts[part / slices];
    int64_t c0 = part % slices * GRAD_COLS;
    int64_t cols = train_span(g->s->embd, c0, GRAD_COLS);
    places at = places_of(g, thread);
    int64_t pieces = train_parts(whole.n, back_block(g));
    for (int64_t i = 0; i < pieces; i++) {
        train_row_part p = piece(whole, i, pieces);
        gather_x(g, p, c0, cols, at.x);
        gather_d(g, p, c0, cols, at.d);
        back_matrices(g, p, c0, cols, at.x, at.d);
    }
}

static void back_large_input(void *user, int64_t part, int thread)
{
    const train_grouped *g = user;
    places at = places_of(g, thread);
    back_input(g, g->s->work->room.parts[part], &at);
}

void train_grouped_back(train_grouped *g)
{
    base_pool *pool = g->s->ctx->pool;
    list_parts(g, WHOLE_ROWS + 1, INT64_MAX, false);
    base_pool_run(pool, back_large_hidden, g, g->n_parts);
    if (!is_frozen(g)) {
        list_parts(g, WHOLE_ROWS + 1, INT64_MAX, true);
        base_pool_run(pool, back_large_matrices, g,
                      g->n_parts * train_parts(g->s->embd, GRAD_COLS));
        list_parts(g, WHOLE_ROWS + 1, INT64_MAX, false);
    }
    base_pool_run(pool, back_large_input, g, g->n_parts);
    list_parts(g, 1, WHOLE_ROWS, true);
    base_pool_run(pool, back_whole, g, g->n_parts);
}
