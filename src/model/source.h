/* A stream of weights: a checkpoint on disk, random numbers, or a surgery on another source. What
 * loads, converts or cuts models sees only this. */
#ifndef MODEL_SOURCE_H
#define MODEL_SOURCE_H

#include "model/config.h"
#include "tokenizer/spec.h"

typedef struct model_source model_source;

struct model_source {
    char *path; /* for messages */
    model_config config;
    tok_spec *tokenizer;         /* NULL where the checkpoint has none */
    const model_tensor *tensors; /* [n_tensors], in model_config_tensors order */
    size_t n_tensors;

    /* Rows row0 .. row0 + n_rows - 1 of matrix `mat` of tensor `index`, in the tensor's type, to
     * dst (n_rows * tensor_row_bytes). Thread-safe. */
    marco_status (*read)(model_source *source, size_t index, int64_t mat, int64_t row0,
                         int64_t n_rows, void *dst, marco_error *error);
    void (*close)(model_source *source); /* releases everything, the source itself too */
};

/* A GGUF file or a Hugging Face folder, every tensor checked against the configuration: present
 * once, right shape, known type, nothing left over. */
marco_status model_source_open(const char *path, model_source **out, marco_error *error);
void model_source_close(model_source *source); /* NULL is allowed */

/* Gives a model's configuration its tokenizer's special ids: text ends at the tokenizer's own end
 * token and at ChatML's two, where it has them. */
void model_config_take_ids(model_config *config, const tok_spec *spec);

/* Index of a tensor, or -1. */
int64_t model_source_find(const model_source *source, model_role role, int32_t layer);

/* Bytes of all tensors, in their types. */
uint64_t model_source_bytes(const model_source *source);

/* Bytes of weights that decoding one token reads once they are loaded: of the experts the chosen
 * ones, of the embedding one row unless it is the head too, and norms as F32 whatever their type.
 */
uint64_t model_source_token_bytes(const model_source *source);

typedef struct model_type_bytes {
    tensor_type type;
    uint64_t bytes; /* of all tensors of the type */
} model_type_bytes;

/* The types in use, most bytes first; returns how many. */
size_t model_source_types(const model_source *source, model_type_bytes out[TENSOR_TYPE_END]);

/* A Hugging Face folder but for its weights, into an existing folder: config.json,
 * generation_config.json and, where it is not NULL, the tokenizer's files (the originals where it
 * came from a folder). `type` is that of the weights. */
marco_status model_write_hf(const model_config *config, const tok_spec *tokenizer,
                            const char *folder, tensor_type type, marco_error *error);

typedef struct model_copy_params {
    int type; /* a tensor_type for the matrices that are not model_role_is_float; -1: keep */
    /* [n_tensors] instead: their types one by one, for a GGUF file; `type` is then what the file is
     * called. Rows divide into the types' blocks. NULL: by `type`. */
    const tensor_type *types;
    /* [n_tensors] of [mats, cols]: the weights of the error in each column, or NULL. NULL: none. */
    const float *const *importance;
    bool overwrite;
    int32_t threads;         /* 1 to 1024; 0: the cores this process may use; others are refused */
    marco_progress progress; /* bytes written */
    const char *what;        /* "converting" */
} model_copy_params;

/* Is this the name of a GGUF file to be written: does it end in ".gguf", in small letters or
 * large? */
bool model_copy_to_gguf(const char *to);

/* Writes a source to a GGUF file (path ends in ".gguf") or a Hugging Face folder, streaming: a
 * bounded window of rows at a time, converted in parallel, written in order. Types that a format
 * cannot hold are refused (quantised types in a folder) or, where `type` is -1, decoded to the
 * nearest that it can (BF16). Rows that do not divide into the asked type's blocks fall back as
 * llama.cpp's do (docs/formats.md). Nothing is left behind on failure. */
marco_status model_copy(model_source *source, const char *to, const model_copy_params *params,
                        marco_error *error);
/* The same, closing the source either way. */
marco_status model_copy_and_close(model_source *source, const char *to,
                                  const model_copy_params *params, marco_error *error);

#endif
