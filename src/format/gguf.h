/* GGUF v2 and v3 (the GGUF specification in ggml's docs): little-endian metadata and tensors.
 *
 * Reading checks everything before it is used: counts and lengths against what is left of the
 * file and against limits far above what models need, types against the known ones, names for
 * duplicates, tensor data against the file's end and against overlap. */
#ifndef FORMAT_GGUF_H
#define FORMAT_GGUF_H

#include "base/file.h"
#include "base/output.h"
#include "tensor/tensor.h"

typedef enum gguf_type {
    GGUF_U8 = 0,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
} gguf_type;

typedef struct gguf_string {
    const char *data; /* not NUL-terminated */
    size_t size;
} gguf_string;

/* A value of the metadata. Numbers are widened: unsigned and bool to u, signed to i, floats to f.
 * Strings and arrays point into the reader. */
typedef struct gguf_value {
    gguf_type type;
    union {
        uint64_t u;
        int64_t i;
        double f;
        gguf_string string;
        struct {
            gguf_type type; /* of the elements: any but GGUF_ARRAY */
            uint64_t n;
            const void *data;           /* numbers, unaligned; NULL for strings */
            const gguf_string *strings; /* [n] */
        } array;
    };
} gguf_value;

typedef struct gguf_tensor {
    const char *name; /* NUL-terminated, at most 255 bytes */
    tensor_type type;
    int n_dims;      /* 1 to 4 */
    int64_t dims[4]; /* fastest first, as in the file; 1 past n_dims */
    uint64_t offset; /* in the file */
    uint64_t bytes;
} gguf_tensor;

typedef struct gguf gguf;

/* Whether a file begins as GGUF files do, whatever its name. */
marco_status gguf_probe(const char *path, bool *yes, marco_error *error);

marco_status gguf_open(const char *path, gguf **out, marco_error *error);
void gguf_close(gguf *g);
const base_file *gguf_file(const gguf *g);
uint32_t gguf_version(const gguf *g);

/* Metadata by key; NULL where absent. gguf_key walks them in file order, NULL past the last. */
const gguf_value *gguf_get(const gguf *g, const char *key);
const char *gguf_key(const gguf *g, size_t i, const gguf_value **value);

/* Typed look-ups: absent leaves *out as it is and returns MARCO_OK; the wrong type or a value
 * outside [low, high] is MARCO_ERROR_FORMAT naming file, key and value. */
marco_status gguf_get_int(const gguf *g, const char *key, int64_t low, int64_t high, int64_t *out,
                          marco_error *error);
marco_status gguf_get_real(const gguf *g, const char *key, double low, double high, double *out,
                           marco_error *error);
marco_status gguf_get_bool(const gguf *g, const char *key, bool *out, marco_error *error);
marco_status gguf_get_string(const gguf *g, const char *key, gguf_string *out, marco_error *error);
marco_status gguf_get_array(const gguf *g, const char *key, gguf_type type, const gguf_value **out,
                            marco_error *error);

size_t gguf_tensor_count(const gguf *g);
const gguf_tensor *gguf_tensor_at(const gguf *g, size_t i);
const gguf_tensor *gguf_tensor_find(const gguf *g, const char *name);

/* ---- writing (v3) ------------------------------------------------------------------------- */

/* First all metadata and all tensor descriptions are added, then begin, then the tensors' data in
 * the order they were described, then commit. */
typedef struct gguf_writer gguf_writer;

marco_status gguf_writer_create(const char *path, bool overwrite, gguf_writer **out,
                                marco_error *error);

/* Strings are copied. A failed allocation is remembered and reported by gguf_writer_begin. */
void gguf_put_u32(gguf_writer *w, const char *key, uint32_t value);
void gguf_put_f32(gguf_writer *w, const char *key, float value);
void gguf_put_bool(gguf_writer *w, const char *key, bool value);
void gguf_put_string(gguf_writer *w, const char *key, const char *value);
void gguf_put_string_n(gguf_writer *w, const char *key, const char *value, size_t size);
void gguf_put_array_i32(gguf_writer *w, const char *key, const int32_t *values, size_t n);
void gguf_put_array_f32(gguf_writer *w, const char *key, const float *values, size_t n);
void gguf_put_array_string(gguf_writer *w, const char *key, const gguf_string *values, size_t n);
/* Copies a value read from another file. */
void gguf_put_value(gguf_writer *w, const char *key, const gguf_value *value);
/* dims fastest first. */
void gguf_put_tensor(gguf_writer *w, const char *name, tensor_type type, int n_dims,
                     const int64_t *dims);

marco_status gguf_writer_begin(gguf_writer *w, marco_error *error);
/* The next `size` bytes of tensor data; padding between tensors is the writer's business. A write
 * may not cross from one tensor into the next. */
marco_status gguf_writer_data(gguf_writer *w, const void *data, size_t size, marco_error *error);
/* Fails where tensors are incomplete. Frees the writer either way. */
marco_status gguf_writer_commit(gguf_writer *w, marco_error *error);
void gguf_writer_abort(gguf_writer *w);

#endif
