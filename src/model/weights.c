#include "model/weights.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "model/expert_cache.h"
#include "model/weights_internal.h"
#include "tensor/panel.h"

model_weights_slot model_weights_slot_of(model_weights *w, const model_tensor *tensor)
{
    model_layer *layer = tensor->layer >= 0 ? &w->layers[tensor->layer] : NULL;
    switch (tensor->role) {
    case MODEL_TOKEN_EMBD:
        return (model_weights_slot){.matrix = &w->token_embd};
    case MODEL_OUTPUT_NORM:
        return (model_weights_slot){.vector = &w->output_norm};
    case MODEL_OUTPUT:
        return (model_weights_slot){.matrix = &w->output};
    case MODEL_ATTN_NORM:
        return (model_weights_slot){.vector = &layer->attn_norm};
    case MODEL_ATTN_Q:
        return (model_weights_slot){.matrix = &layer->q};
    case MODEL_ATTN_K:
        return (model_weights_slot){.matrix = &layer->k};
    case MODEL_ATTN_V:
        return (model_weights_slot){.matrix = &layer->v};
    case MODEL_ATTN_Q_NORM:
        return (model_weights_slot){.vector = &layer->q_norm};
    case MODEL_ATTN_K_NORM:
        return (model_weights_slot){.vector = &layer->k_norm};
    case MODEL_ATTN_OUT:
        return (model_weights_slot){.matrix = &layer->out};
    case MODEL_FFN_NORM:
        return (model_weights_slot){.vector = &layer->ffn_norm};
    case MODEL_FFN_GATE:
        return (model_weights_slot){.matrix = &layer->gate};
    case MODEL_FFN_UP:
        return (model_weights_slot){.matrix = &layer->up};
    case MODEL_FFN_DOWN:
        return (model_weights_slot){.matrix = &layer->down};
    case MODEL_ROUTER:
        return (model_weights_slot){.matrix = &layer->router};
    case MODEL_EXPERT_GATE:
        return (model_weights_slot){.matrix = &layer->expert_gate};
    case MODEL_EXPERT_UP:
        return (model_weights_slot){.matrix = &layer->expert_up};
    case MODEL_EXPERT_DOWN:
        return (model_weights_slot){.matrix = &layer->expert_down};
    case MODEL_ROLE_END:
        break;
    }
    return (model_weights_slot){0};
}

const model_matrix *model_weights_matrix(const model_weights *weights, const model_tensor *tensor)
{
    return model_weights_slot_of((model_weights *)weights, tensor).matrix;
}

/* ---- letting go ------------------------------------------------------------------------------ */

static void free_matrix(model_matrix *m)
{
    if (m->held)
        base_region_free(m->data, (size_t)m->held);
    base_free(m->at);
}

static void free_layer(model_layer *layer)
{
    model_matrix *matrices[] = {&layer->q,         &layer->k,          &layer->v,
                                &layer->out,       &layer->gate,       &layer->up,
                                &layer->down,      &layer->router,     &layer->expert_gate,
                                &layer->expert_up, &layer->expert_down};
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
        free_matrix(matrices[i]);
    base_free(layer->attn_norm);
    base_free(layer->ffn_norm);
    base_free(layer->q_norm);
    base_free(layer->k_norm);
}

void model_weights_free(model_weights *w)
{
    if (!w)
        return;
    model_cache_free(w->cache);
    for (int32_t i = 0; w->layers && i < w->config.n_layers; i++)
        free_layer(&w->layers[i]);
    if (!w->config.tied)
        free_matrix(&w->output);
    free_matrix(&w->token_embd);
    base_free(w->output_norm);
    base_file_unmap(w->map, w->map_bytes);
    for (size_t i = 0; i < w->n_files; i++)
        base_file_close(w->files[i]);
    base_free(w->files);
    base_free(w->places);
    base_free(w->layers);
    base_free(w->path);
    base_free(w);
}

/* ---- rows and panels ------------------------------------------------------------------------ */

/* Above this, eight rows are more than is read at once. */
enum { LARGEST_PANEL = 1 << 20 };

bool model_matrix_wants_panels(const kern_table *kernels, model_role role, const model_matrix *m)
{
    return kernels && kernels->matmul[m->type].panels && tensor_has_panels(m->type) &&
           !model_role_is_float(role) && m->rows >= TENSOR_PANEL_ROWS &&
           m->row_bytes <= LARGEST_PANEL / TENSOR_PANEL_ROWS;
}

/* Rows of a matrix that are in panels. */
static int64_t panel_rows(const model_matrix *m)
{
    return m->panels ? m->rows - m->rows % TENSOR_PANEL_ROWS : 0;
}

void model_matrix_store(const model_matrix *m, uint8_t *to, int64_t row, int64_t n,
                        const uint8_t *rows)
{
    int64_t end = row + n, packed = panel_rows(m);
    to += (size_t)row * m->row_bytes;
    for (; row < packed && row < end; row += TENSOR_PANEL_ROWS) {
        tensor_panel_pack(m->type, rows, to, m->cols);
        rows += TENSOR_PANEL_ROWS * m->row_bytes;
        to += TENSOR_PANEL_ROWS * m->row_bytes;
    }
    if (row < end)
        memcpy(to, rows, (size_t)(end - row) * m->row_bytes);
}

void model_matrix_get_row(const model_matrix *m, int64_t mat, int64_t row, void *raw)
{
    int r = (int)(row % TENSOR_PANEL_ROWS);
    if (row < panel_rows(m))
        tensor_panel_row(m->type, model_matrix_row(m, mat, row - r), r, raw, m->cols);
    else
        memcpy(raw, model_matrix_row(m, mat, row), m->row_bytes);
}

/* ---- looking at them ----------------------------------------------------------------------- */

/* A row of any matrix as the checkpoint has it; false where its file does not give it. */
static bool any_row(const model_matrix *m, int64_t mat, int64_t row, void *raw)
{
    if (m->places)
        return base_file_read(m->places[mat].file,
                              m->places[mat].offset + (uint64_t)row * m->row_bytes, raw,
                              m->row_bytes, NULL) == MARCO_OK;
    model_matrix_get_row(m, mat, row, raw);
    return true;
}

static bool matrix_is_finite(const model_matrix *m, float *row, void *raw)
{
    for (int64_t r = 0; r < m->mats * m->rows; r++) {
        if (!any_row(m, r / m->rows, r % m->rows, raw))
            return true;
        tensor_traits_of(m->type)->decode(raw, row, m->cols);
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
        const model_matrix *m = model_weights_matrix(w, &tensors[i]);
        float *row = m ? base_alloc_array((size_t)m->cols, sizeof *row) : NULL;
        void *raw = m ? base_alloc(m->row_bytes) : NULL;
        if (row && raw && !matrix_is_finite(m, row, raw)) {
            model_tensor_gguf_name(&tensors[i], name);
            found = true;
        }
        base_free(raw);
        base_free(row);
    }
    base_free(tensors);
    return found;
}
