/* safetensors (the format description in its repository): one file, or shards with an index.
 *
 * Reading checks the header's length, values and depth, dtypes, shapes against byte ranges, ranges
 * against the file's end, holes and overlap, and duplicate names, also between shards. */
#ifndef FORMAT_SAFETENSORS_H
#define FORMAT_SAFETENSORS_H

#include "base/file.h"
#include "base/output.h"
#include "tensor/tensor.h"

typedef struct safetensors_tensor {
    const char *name;
    tensor_type type; /* F32, F16 or BF16 */
    int n_dims;       /* 0 to 4 */
    int64_t dims[4];  /* slowest first, as in the file; 1 past n_dims */
    const base_file *file;
    uint64_t offset; /* in that file */
    uint64_t bytes;
} safetensors_tensor;

typedef struct safetensors safetensors;

/* A folder with model.safetensors, or with model.safetensors.index.json and its shards, whose names
 * must be plain file names. */
marco_status safetensors_open_folder(const char *folder, safetensors **out, marco_error *error);
/* The same with another word for "model" in the files' names. */
marco_status safetensors_open_named(const char *folder, const char *stem, safetensors **out,
                                    marco_error *error);
/* One file. */
marco_status safetensors_open(const char *path, safetensors **out, marco_error *error);
void safetensors_close(safetensors *s);

size_t safetensors_count(const safetensors *s);
const safetensors_tensor *safetensors_at(const safetensors *s, size_t i); /* by file, offset */
const safetensors_tensor *safetensors_find(const safetensors *s, const char *name);

/* ---- writing: model.safetensors, or shards of at most `shard_bytes` and their index ---------- */

/* A tensor larger than `shard_bytes` has a shard of its own. So that readers can map the data, a
 * tensor that would begin at no multiple of its element's size begins a shard as well. */

typedef struct safetensors_writer safetensors_writer;

/* `folder` exists (base_folder_path). As gguf_writer: describe all, begin, data in order, commit.
 * metadata {"format": "pt"} is written, as transformers asks for. */
marco_status safetensors_writer_create(const char *folder, uint64_t shard_bytes,
                                       safetensors_writer **out, marco_error *error);
/* The same with another word for "model" in the files' names, which must outlive the writer. */
marco_status safetensors_writer_create_named(const char *folder, const char *stem,
                                             uint64_t shard_bytes, safetensors_writer **out,
                                             marco_error *error);
/* dims slowest first. The name is copied. */
void safetensors_put_tensor(safetensors_writer *w, const char *name, tensor_type type, int n_dims,
                            const int64_t *dims);
marco_status safetensors_writer_begin(safetensors_writer *w, marco_error *error);
marco_status safetensors_writer_data(safetensors_writer *w, const void *data, size_t size,
                                     marco_error *error);
marco_status safetensors_writer_commit(safetensors_writer *w, marco_error *error);
void safetensors_writer_abort(safetensors_writer *w);

#endif
