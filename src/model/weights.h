/* The weights of a model in memory. */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "base/pool.h"
#include "model/source.h"

/* `mats` matrices [rows, cols] one after another, in the checkpoint's type. */
typedef struct model_matrix {
    tensor_type type;
    int64_t mats, rows, cols;
    size_t row_bytes;
    bool panels;   /* of each matrix, all rows but the last rows % 8 are in panels (tensor/panel.h) */
    uint8_t *data; /* 64-byte aligned; NULL: the model has no such tensor */
} model_matrix;

typedef struct model_layer {
    float *attn_norm, *ffn_norm; /* [n_embd] */
    float *q_norm, *k_norm;      /* [head_dim], or NULL */
    model_matrix q, k, v, out;
    model_matrix gate, up, down; /* dense layers */
    model_matrix router;         /* sparse layers */
    model_matrix expert_gate, expert_up, expert_down;
} model_layer;

typedef struct model_weights {
    char *path;
    model_config config;
    model_matrix token_embd;
    model_matrix output; /* shares token_embd's data when tied */
    float *output_norm;  /* [n_embd] */
    model_layer *layers; /* [n_layers] */
    uint64_t bytes;      /* held */
} model_weights;

/* Reads every tensor of the source, in parallel. Norms become F32 and must be finite. */
marco_status model_weights_load(model_source *source, base_pool *pool,
                                const marco_progress *progress, model_weights **out,
                                marco_error *error);
void model_weights_free(model_weights *weights);

/* The matrix that a tensor of the configuration became; NULL for a vector. */
const model_matrix *model_weights_matrix(const model_weights *weights, const model_tensor *tensor);

/* Row `row` of matrix `mat`. */
static inline const uint8_t *model_matrix_row(const model_matrix *m, int64_t mat, int64_t row)
{
    return m->data + (size_t)(mat * m->rows + row) * m->row_bytes;
}

/* Looks for a tensor holding NaN or infinity: its GGUF name to `name`, false where there is none.
 * Slow: for explaining a failure. */
bool model_weights_find_nonfinite(const model_weights *weights, char name[128]);

#endif
