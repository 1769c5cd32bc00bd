#include "model/weights.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/numa.h"

/* Where a tensor goes: a matrix, or a vector of floats. */
typedef struct slot {
    model_matrix *matrix;
    float **vector;
} slot;

static slot slot_of(model_weights *w, const model_tensor *tensor)
{
    model_layer *layer = tensor->layer >= 0 ? &w->layers[tensor->layer] : NULL;
    switch (tensor->role) {
    case MODEL_TOKEN_EMBD:
        return (slot){.matrix = &w->token_embd};
    case MODEL_OUTPUT_NORM:
        return (slot){.vector = &w->output_norm};
    case MODEL_OUTPUT:
        return (slot){.matrix = &w->output};
    case MODEL_ATTN_NORM:
        return (slot){.vector = &layer->attn_norm};
    case MODEL_ATTN_Q:
        return (slot){.matrix = &layer->q};
    case MODEL_ATTN_K:
        return (slot){.matrix = &layer->k};
    case MODEL_ATTN_V:
        return (slot){.matrix = &layer->v};
    case MODEL_ATTN_Q_NORM:
        return (slot){.vector = &layer->q_norm};
    case MODEL_ATTN_K_NORM:
        return (slot){.vector = &layer->k_norm};
    case MODEL_ATTN_OUT:
        return (slot){.matrix = &layer->out};
    case MODEL_FFN_NORM:
        return (slot){.vector = &layer->ffn_norm};
    case MODEL_FFN_GATE:
        return (slot){.matrix = &layer->gate};
    case MODEL_FFN_UP:
        return (slot){.matrix = &layer->up};
    case MODEL_FFN_DOWN:
        return (slot){.matrix = &layer->down};
    case MODEL_ROUTER:
        return (slot){.matrix = &layer->router};
    case MODEL_EXPERT_GATE:
        return (slot){.matrix = &layer->expert_gate};
    case MODEL_EXPERT_UP:
        return (slot){.matrix = &layer->expert_up};
    case MODEL_EXPERT_DOWN:
        return (slot){.matrix = &layer->expert_down};
    case MODEL_ROLE_END:
        break;
    }
    return (slot){0};
}

/* ---- reading ------------------------------------------------------------------------------- */

/* A tensor is read in pieces of about this many bytes, several at a time. */
enum { PIECE_BYTES = 4 << 20, PIECES_AT_ONCE = 16 };

typedef struct reading {
    model_source *source;
    size_t index;
    model_matrix *matrix;
    int64_t piece_rows, pieces_per_mat, first_piece;
    _Atomic int failed;
    marco_error error; /* of the first piece that failed, written by whoever set `failed` */
} reading;

static void read_piece(void *user, int64_t part, int thread)
{
    (void)thread;
    reading *r = user;
    int64_t piece = r->first_piece + part;
    int64_t mat = piece / r->pieces_per_mat;
    int64_t row = piece % r->pieces_per_mat * r->piece_rows;
    int64_t rows = r->matrix->rows - row;
    rows = rows < r->piece_rows ? rows : r->piece_rows;
    void *to = r->matrix->data + (size_t)(mat * r->matrix->rows + row) * r->matrix->row_bytes;
    marco_error error;
    marco_status status = r->source->read(r->source, r->index, mat, row, rows, to, &error);
    if (status && atomic_exchange(&r->failed, 1) == 0)
        r->error = error;
}

typedef struct load {
    model_source *source;
    base_pool *pool;
    const marco_progress *progress;
    uint64_t done, total;
    model_weights *weights;
} load;

static marco_status report(load *l, marco_error *error)
{
    if (l->progress && l->progress->fn &&
        l->progress->fn(l->progress->user, "loading", l->done, l->total))
        return base_fail(error, MARCO_ERROR_CANCELLED, "%s: loading was cancelled",
                         l->source->path);
    return MARCO_OK;
}

static marco_status read_matrix(load *l, size_t index, model_matrix *m, marco_error *error)
{
    const model_tensor *t = &l->source->tensors[index];
    uint64_t bytes;
    *m = (model_matrix){.type = t->type, .mats = t->mats, .rows = t->rows, .cols = t->cols};
    if (!tensor_bytes(t->type, t->cols, (uint64_t)t->mats * (uint64_t)t->rows, &bytes))
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: tensor %zu is too large", l->source->path,
                         index);
    m->row_bytes = tensor_row_bytes(t->type, t->cols);
    m->data = base_alloc_aligned((size_t)bytes);
    if (!m->data)
        return base_fail_memory(error, (size_t)bytes, l->source->path);
    base_memory_interleave(m->data, (size_t)bytes);
    l->weights->bytes += bytes;

    reading r = {.source = l->source, .index = index, .matrix = m};
    r.piece_rows = PIECE_BYTES / (int64_t)m->row_bytes + 1;
    r.piece_rows = r.piece_rows < m->rows ? r.piece_rows : m->rows;
    r.pieces_per_mat = (m->rows + r.piece_rows - 1) / r.piece_rows;
    int64_t pieces = r.pieces_per_mat * m->mats;
    for (; r.first_piece < pieces; r.first_piece += PIECES_AT_ONCE) {
        int64_t n = pieces - r.first_piece;
        n = n < PIECES_AT_ONCE ? n : PIECES_AT_ONCE;
        base_pool_run(l->pool, read_piece, &r, n);
        if (atomic_load(&r.failed)) {
            if (error)
                *error = r.error;
            return r.error.status;
        }
        l->done += (uint64_t)n * bytes / (uint64_t)pieces;
        marco_status status = report(l, error);
        if (status)
            return status;
    }
    return MARCO_OK;
}

static marco_status read_vector(load *l, size_t index, float **out, marco_error *error)
{
    const model_tensor *t = &l->source->tensors[index];
    size_t n = (size_t)t->cols;
    uint8_t *raw = base_alloc(tensor_row_bytes(t->type, t->cols));
    float *vector = base_alloc_aligned(n * sizeof *vector);
    marco_status status = MARCO_OK;
    *out = vector; /* owned by the weights from here on */
    if (!raw || !vector)
        status = base_fail_memory(error, n * sizeof *vector, l->source->path);
    if (!status)
        status = l->source->read(l->source, index, 0, 0, 1, raw, error);
    if (!status)
        tensor_traits_of(t->type)->decode(raw, vector, t->cols);
    for (size_t i = 0; !status && i < n; i++)
        if (!isfinite(vector[i])) {
            char name[128];
            model_tensor_gguf_name(t, name);
            status =
                base_fail(error, MARCO_ERROR_NUMERIC,
                          "%s: element %zu of %s is not a finite number", l->source->path, i, name);
        }
    base_free(raw);
    l->weights->bytes += n * sizeof *vector;
    return status;
}

marco_status model_weights_load(model_source *source, base_pool *pool,
                                const marco_progress *progress, model_weights **out,
                                marco_error *error)
{
    marco_status status = MARCO_OK;
    model_weights *w = base_calloc(1, sizeof *w);
    if (!w)
        return base_fail_memory(error, sizeof *w, source->path);
    w->config = source->config;
    w->path = base_strdup(source->path);
    w->layers = base_calloc((size_t)w->config.n_layers, sizeof *w->layers);
    if (!w->path || !w->layers) {
        status = base_fail_memory(error, sizeof *w->layers, source->path);
        goto fail;
    }
    load l = {source, pool, progress, 0, model_source_bytes(source), w};
    for (size_t i = 0; !status && i < source->n_tensors; i++) {
        slot s = slot_of(w, &source->tensors[i]);
        if (s.matrix)
            status = read_matrix(&l, i, s.matrix, error);
        else
            status = read_vector(&l, i, s.vector, error);
    }
    if (status)
        goto fail;
    if (w->config.tied)
        w->output = w->token_embd;
    l.done = l.total;
    status = report(&l, error);
    if (status)
        goto fail;
    *out = w;
    return MARCO_OK;
fail:
    model_weights_free(w);
    return status;
}

static void free_layer(model_layer *layer)
{
    model_matrix *matrices[] = {&layer->q,         &layer->k,          &layer->v,
                                &layer->out,       &layer->gate,       &layer->up,
                                &layer->down,      &layer->router,     &layer->expert_gate,
                                &layer->expert_up, &layer->expert_down};
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
        base_free(matrices[i]->data);
    base_free(layer->attn_norm);
    base_free(layer->ffn_norm);
    base_free(layer->q_norm);
    base_free(layer->k_norm);
}

void model_weights_free(model_weights *w)
{
    if (!w)
        return;
    for (int32_t i = 0; w->layers && i < w->config.n_layers; i++)
        free_layer(&w->layers[i]);
    if (w->output.data != w->token_embd.data)
        base_free(w->output.data);
    base_free(w->token_embd.data);
    base_free(w->output_norm);
    base_free(w->layers);
    base_free(w->path);
    base_free(w);
}

/* ---- looking at them ----------------------------------------------------------------------- */

static bool matrix_is_finite(const model_matrix *m, float *row)
{
    for (int64_t r = 0; r < m->mats * m->rows; r++) {
        tensor_traits_of(m->type)->decode(m->data + (size_t)r * m->row_bytes, row, m->cols);
        for (int64_t i = 0; i < m->cols; i++)
            if (!isfinite(row[i]))
                return false;
    }
    return true;
}

bool model_weights_find_nonfinite(const model_weights *w, char name[128])
{
    bool found = false;
    size_t n = model_config_tensors(&w->config, NULL, 0);
    model_tensor *tensors = base_alloc_array(n, sizeof *tensors);
    if (!tensors)
        return false;
    model_config_tensors(&w->config, tensors, n);
    for (size_t i = 0; i < n && !found; i++) {
        const model_matrix *m = slot_of((model_weights *)w, &tensors[i]).matrix;
        float *row = m ? base_alloc_array((size_t)m->cols, sizeof *row) : NULL;
        if (row && !matrix_is_finite(m, row)) {
            model_tensor_gguf_name(&tensors[i], name);
            found = true;
        }
        base_free(row);
    }
    base_free(tensors);
    return found;
}
