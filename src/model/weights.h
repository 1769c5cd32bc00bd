/* The weights of a model: in memory, mapped, or (experts) in their file until they are wanted. */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "kernels/kernels.h"
#include "model/source_file.h"

/* `mats` matrices [rows, cols] one after another, in the checkpoint's type. */
typedef struct model_matrix {
    tensor_type type;
    int64_t mats, rows, cols;
    size_t row_bytes;
    bool panels; /* of each matrix, all rows but the last rows % 8 are in panels (tensor/panel.h) */
    uint8_t *data; /* 64-byte aligned, in a mapped file as the file has it; NULL: the model has no
                      such tensor, or it is streamed */
    uint64_t held; /* bytes of its own region at data; 0: the data are another's */
    const uint8_t **at; /* [mats] streamed: where each matrix is while the cache holds it */
    const model_source_place *places; /* [mats] streamed: where each matrix is in its file */
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
    uint64_t bytes;      /* in memory, in the map, or pinned where experts are streamed */
    const uint8_t *map;  /* the file, where it is mapped */
    uint64_t map_bytes;
    base_file **files; /* [n_files] of streamed experts, and their places */
    size_t n_files;
    model_source_place *places;
    struct model_cache *cache; /* of streamed experts, which makes them readable; else NULL */
} model_weights;

typedef enum model_residency {
    MODEL_RESIDENT = 0, /* everything in memory */
    MODEL_MAPPED,       /* a GGUF file's pages, shared with other processes */
    MODEL_STREAMED,     /* experts stay in their file; the rest is in memory */
} model_residency;

typedef struct model_load_params {
    model_residency residency; /* others than MODEL_RESIDENT need a source from files */
    const kern_table *kernels; /* matrices come in the panels its kernels take; NULL: none do */
    const marco_progress *progress;
} model_load_params;

/* Reads every tensor of the source, several pieces at once, past the page cache. Norms become F32
 * and must be finite. The source may be closed after. */
marco_status model_weights_load(model_source *source, const model_load_params *params,
                                model_weights **out, marco_error *error);
void model_weights_free(model_weights *weights);

/* What loading takes for a while beside the weights. */
uint64_t model_weights_load_bytes(void);

/* The matrix that a tensor of the configuration became; NULL for a vector. */
const model_matrix *model_weights_matrix(const model_weights *weights, const model_tensor *tensor);

/* Where matrix `mat` begins. Streamed ones must be held by the cache. */
static inline const uint8_t *model_matrix_at(const model_matrix *m, int64_t mat)
{
    return m->at ? m->at[mat] : m->data + (size_t)(mat * m->rows) * m->row_bytes;
}

/* Row `row` of matrix `mat`; in panels, `row` is a multiple of 8 or lies behind them. */
static inline const uint8_t *model_matrix_row(const model_matrix *m, int64_t mat, int64_t row)
{
    return model_matrix_at(m, mat) + (size_t)row * m->row_bytes;
}

/* Does `m`, or would it if it were loaded, come in panels? */
bool model_matrix_wants_panels(const kern_table *kernels, model_role role, const model_matrix *m);

/* `rows` [n, cols] as the checkpoint has them -> their place in the matrix at `to`, as the matrix
 * is laid out. In panels, `row` is a multiple of 8 and n is too unless the rows are the last. */
void model_matrix_store(const model_matrix *m, uint8_t *to, int64_t row, int64_t n,
                        const uint8_t *rows);

/* Copies a row as the checkpoint has it. Not for streamed matrices. */
void model_matrix_get_row(const model_matrix *m, int64_t mat, int64_t row, void *raw);

/* Looks for a tensor holding NaN or infinity: its GGUF name to `name`, false where there is none.
 * Slow: for explaining a failure. */
bool model_weights_find_nonfinite(const model_weights *weights, char name[128]);

#endif
