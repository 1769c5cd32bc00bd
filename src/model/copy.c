/* Streams a source into a file or folder, a window of rows at a time: while the threads read and
 * convert one, one of them first writes the window before. Memory does not depend on the
 * checkpoint's size. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/pool.h"
#include "format/safetensors.h"
#include "model/config_internal.h"
#include "model/copy_internal.h"
#include "model/recipe.h"
#include "model/rope.h"
#include "model/source_file.h"

enum {
    WINDOW_BYTES = 16 << 20, /* of output */
    CHUNK_BYTES = 256 << 10, /* read at once by one thread */
    PARTS_PER_THREAD = 4,
    MAX_THREADS = 1024,
};
#define SHARD_BYTES UINT64_C(5000000000)
/* Largest finite numbers. */
#define F16_MAX  65504.0f
#define BF16_MAX 0x1.FEp127f

typedef struct copier {
    model_source *source;
    const model_copy_params *params;
    tensor_type *types; /* [n_tensors] as written */
    tensor_type main_type;
    bool to_gguf, permute;
    base_pool *pool;
    char *buffers[2]; /* of window_bytes: the window being converted, the one being written */
    size_t window_bytes;
    char *scratch; /* [threads] of scratch_stride bytes: rows as read, then one row in F32 */
    size_t scratch_stride, row_offset;
    marco_error *errors; /* [threads] the first of each, MARCO_OK where there is none */
    uint64_t done, total;
    gguf_writer *gguf;
    safetensors_writer *safetensors;
} copier;

/* ---- types --------------------------------------------------------------------------------- */

static bool is_float_type(tensor_type type)
{
    return type == TENSOR_F32 || type == TENSOR_F16 || type == TENSOR_BF16;
}

static tensor_type matrix_type(const copier *c, size_t i)
{
    const model_tensor *t = &c->source->tensors[i];
    if (c->params->types)
        return c->params->types[i];
    if (c->params->type < 0)
        return c->to_gguf || is_float_type(t->type) ? t->type : TENSOR_BF16;
    return model_type_for_rows((tensor_type)c->params->type, t->cols);
}

static marco_status check_type(const copier *c, marco_error *error)
{
    if (c->params->type < 0)
        return MARCO_OK;
    tensor_type type = (tensor_type)c->params->type;
    if (!tensor_traits_of(type))
        return base_fail(error, MARCO_ERROR_ARGUMENT, "type number %d is not known",
                         c->params->type);
    if (!c->to_gguf && !is_float_type(type))
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "a Hugging Face folder cannot hold %s; choose F32, F16 or BF16, or a name "
                         "ending in .gguf",
                         tensor_type_name(type));
    for (size_t i = 0; i < c->source->n_tensors; i++) {
        const model_tensor *t = &c->source->tensors[i];
        if (!tensor_traits_of(type)->encode && t->type != type && !model_role_is_float(t->role))
            return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                             "%s can be read but not written; choose another type: marco quantize "
                             "--help lists them",
                             tensor_type_name(type));
    }
    return MARCO_OK;
}

static marco_status choose_types(copier *c, marco_error *error)
{
    uint64_t elements[TENSOR_TYPE_END] = {0};
    size_t n = c->source->n_tensors;
    marco_status status = check_type(c, error);
    if (status)
        return status;
    c->types = base_alloc_array(n, sizeof *c->types);
    if (!c->types)
        return base_fail_memory(error, n * sizeof *c->types, "the list of tensors");
    for (size_t i = 0; i < n; i++) {
        const model_tensor *t = &c->source->tensors[i];
        if (model_role_is_float(t->role))
            continue;
        c->types[i] = matrix_type(c, i);
        elements[c->types[i]] += (uint64_t)(t->mats * t->rows * t->cols);
    }
    for (int type = 0; type < TENSOR_TYPE_END; type++)
        if (elements[type] > elements[c->main_type])
            c->main_type = (tensor_type)type;
    if (c->params->types)
        c->main_type = (tensor_type)c->params->type;
    /* GGUF readers expect norms and routers in F32; transformers loads all of a folder as one
     * type. */
    for (size_t i = 0; i < n; i++)
        if (model_role_is_float(c->source->tensors[i].role))
            c->types[i] = c->to_gguf ? TENSOR_F32 : c->main_type;
    return MARCO_OK;
}

static marco_status plan_memory(copier *c, marco_error *error)
{
    size_t read = CHUNK_BYTES, cols = 1, threads = (size_t)base_pool_threads(c->pool);
    c->window_bytes = WINDOW_BYTES;
    for (size_t i = 0; i < c->source->n_tensors; i++) {
        const model_tensor *t = &c->source->tensors[i];
        size_t in = tensor_row_bytes(t->type, t->cols);
        size_t out = tensor_row_bytes(c->types[i], t->cols);
        read = in > read ? in : read;
        cols = (size_t)t->cols > cols ? (size_t)t->cols : cols;
        c->window_bytes = out > c->window_bytes ? out : c->window_bytes;
        c->total += (uint64_t)(t->mats * t->rows) * out;
    }
    c->row_offset = (read + 63) / 64 * 64;
    c->scratch_stride = (c->row_offset + cols * sizeof(float) + 63) / 64 * 64;
    c->buffers[0] = base_alloc_aligned(c->window_bytes);
    c->buffers[1] = base_alloc_aligned(c->window_bytes);
    c->scratch = base_alloc_aligned(threads * c->scratch_stride);
    c->errors = base_calloc(threads, sizeof *c->errors);
    if (!c->buffers[0] || !c->buffers[1] || !c->scratch || !c->errors)
        return base_fail_memory(error, 2 * c->window_bytes + threads * c->scratch_stride,
                                "converting");
    return MARCO_OK;
}

/* ---- rows ---------------------------------------------------------------------------------- */

/* Rows of a tensor with all its matrices' rows counted through. */
typedef struct window {
    copier *c;
    size_t index;
    int64_t first, n; /* n == 0: no window */
    char *data;
} window;

/* How many of rows first .. first + n - 1 one read can fetch, and where they are: as many as lie in
 * one matrix, or one where the file's order differs from the source's. */
static int64_t run_of_rows(const window *w, int64_t first, int64_t n, int64_t *mat, int64_t *row)
{
    const model_tensor *t = &w->c->source->tensors[w->index];
    *mat = first / t->rows;
    *row = first % t->rows;
    if (w->c->permute && (t->role == MODEL_ATTN_Q || t->role == MODEL_ATTN_K)) {
        *row = model_source_unpermuted_row(*row, w->c->source->config.head_dim);
        return 1;
    }
    return n < t->rows - *row ? n : t->rows - *row;
}

static marco_status read_rows(const window *w, int64_t first, int64_t n, char *dst,
                              marco_error *error)
{
    model_source *source = w->c->source;
    const model_tensor *t = &source->tensors[w->index];
    size_t row_bytes = tensor_row_bytes(t->type, t->cols);
    while (n > 0) {
        int64_t mat, row, run = run_of_rows(w, first, n, &mat, &row);
        marco_status status = source->read(source, w->index, mat, row, run, dst, error);
        if (status)
            return status;
        dst += (size_t)run * row_bytes;
        first += run;
        n -= run;
    }
    return MARCO_OK;
}

/* What a type cannot hold would become infinite, and a block with a NaN all NaN: found only in the
 * model's output, long after. The scales of block types are F16. */
static marco_status check_row(const window *w, tensor_type to, const float *row, marco_error *error)
{
    const model_tensor *t = &w->c->source->tensors[w->index];
    float most = to == t->type || to == TENSOR_F32 ? FLT_MAX
                 : to == TENSOR_BF16               ? BF16_MAX
                                                   : F16_MAX;
    for (int64_t i = 0; i < t->cols; i++) {
        if (fabsf(row[i]) <= most)
            continue;
        char name[128];
        model_tensor_gguf_name(t, name);
        if (!isfinite(row[i]))
            return base_fail(error, MARCO_ERROR_NUMERIC,
                             "%s: %s holds a number that is not finite; the file is damaged or the "
                             "model was not trained well",
                             w->c->source->path, name);
        return base_fail(error, MARCO_ERROR_NUMERIC,
                         "%s: %s holds %g, which %s cannot; choose BF16 or F32", w->c->source->path,
                         name, (double)row[i], tensor_type_name((uint32_t)to));
    }
    return MARCO_OK;
}

/* One row, with its matrix's importance where there is any. */
static void encode_row(const window *w, int64_t at, const float *row, char *out)
{
    const copier *c = w->c;
    const model_tensor *t = &c->source->tensors[w->index];
    const tensor_traits *to = tensor_traits_of(c->types[w->index]);
    const float *importance = c->params->importance ? c->params->importance[w->index] : NULL;
    if (importance && to->encode_weighted)
        to->encode_weighted(row, importance + at / t->rows * t->cols, out, t->cols);
    else
        to->encode(row, out, t->cols);
}

/* Rows that keep their type keep their bytes. */
static marco_status copy_rows(const window *w, int64_t first, int64_t n, char *out, float *row,
                              marco_error *error)
{
    const model_tensor *t = &w->c->source->tensors[w->index];
    marco_status status = read_rows(w, first, n, out, error);
    for (int64_t i = 0; !status && i < n; i++) {
        const char *kept = out + (size_t)i * tensor_row_bytes(t->type, t->cols);
        tensor_traits_of(t->type)->decode(kept, row, t->cols);
        status = check_row(w, t->type, row, error);
    }
    return status;
}

static marco_status convert_rows(const window *w, int64_t first, int64_t n, char *out, int thread,
                                 marco_error *error)
{
    const copier *c = w->c;
    const model_tensor *t = &c->source->tensors[w->index];
    tensor_type to = c->types[w->index];
    size_t in_bytes = tensor_row_bytes(t->type, t->cols), out_bytes = tensor_row_bytes(to, t->cols);
    char *in = c->scratch + (size_t)thread * c->scratch_stride;
    float *row = (float *)(void *)(in + c->row_offset);
    int64_t chunk = (int64_t)(c->row_offset / in_bytes);
    if (t->type == to)
        return copy_rows(w, first, n, out, row, error);
    for (int64_t done = 0; done < n;) {
        int64_t rows = n - done < chunk ? n - done : chunk;
        marco_status status = read_rows(w, first + done, rows, in, error);
        for (int64_t i = 0; !status && i < rows; i++) {
            tensor_traits_of(t->type)->decode(in + (size_t)i * in_bytes, row, t->cols);
            status = check_row(w, to, row, error);
            encode_row(w, first + done + i, row, out + (size_t)(done + i) * out_bytes);
        }
        if (status)
            return status;
        done += rows;
    }
    return MARCO_OK;
}

static size_t window_row_bytes(const window *w)
{
    return tensor_row_bytes(w->c->types[w->index], w->c->source->tensors[w->index].cols);
}

/* ---- writing --------------------------------------------------------------------------------- */

/* A folder has a tensor for each matrix, a GGUF file one for all. */
static marco_status write_window(const window *w, marco_error *error)
{
    copier *c = w->c;
    int64_t rows = c->source->tensors[w->index].rows;
    size_t row_bytes = window_row_bytes(w);
    if (c->to_gguf)
        return gguf_writer_data(c->gguf, w->data, (size_t)w->n * row_bytes, error);
    marco_status status = MARCO_OK;
    for (int64_t at = 0; !status && at < w->n;) {
        int64_t left = rows - (w->first + at) % rows;
        int64_t n = left < w->n - at ? left : w->n - at;
        status = safetensors_writer_data(c->safetensors, w->data + (size_t)at * row_bytes,
                                         (size_t)n * row_bytes, error);
        at += n;
    }
    return status;
}

/* One step of the stream: the window before is written, this one converted. */
typedef struct step {
    window before, now;
    int64_t n_parts; /* of the conversion */
} step;

/* Part 0 is the writing, so that it starts first. */
static void step_part(void *user, int64_t part, int thread)
{
    const step *s = user;
    const window *w = part ? &s->now : &s->before;
    marco_error *error = &w->c->errors[thread];
    if (error->status || w->n == 0)
        return;
    if (part == 0) {
        error->status = write_window(w, error);
    } else {
        int64_t begin = w->n * (part - 1) / s->n_parts, end = w->n * part / s->n_parts;
        error->status = convert_rows(w, w->first + begin, end - begin,
                                     w->data + (size_t)begin * window_row_bytes(w), thread, error);
    }
}

static marco_status report(copier *c, size_t bytes, marco_error *error)
{
    const marco_progress *progress = &c->params->progress;
    c->done += bytes;
    if (progress->fn && progress->fn(progress->user, c->params->what, c->done, c->total) != 0)
        return base_fail(error, MARCO_ERROR_CANCELLED, "%s was cancelled", c->params->what);
    return MARCO_OK;
}

/* Converts `now` (none at the end) while writing what came before it. */
static marco_status advance(copier *c, window *before, window now, marco_error *error)
{
    int threads = base_pool_threads(c->pool);
    step s = {*before, now, (int64_t)threads * PARTS_PER_THREAD};
    if (s.n_parts > now.n)
        s.n_parts = now.n;
    base_pool_run(c->pool, step_part, &s, 1 + s.n_parts);
    for (int i = 0; i < threads; i++) {
        if (c->errors[i].status) {
            if (error)
                *error = c->errors[i];
            return c->errors[i].status;
        }
    }
    size_t written = before->n ? (size_t)before->n * window_row_bytes(before) : 0;
    *before = now;
    return report(c, written, error);
}

static marco_status copy_tensors(copier *c, marco_error *error)
{
    marco_status status = MARCO_OK;
    window before = {.c = c};
    for (size_t i = 0; i < c->source->n_tensors; i++) {
        const model_tensor *t = &c->source->tensors[i];
        window now = {.c = c, .index = i};
        int64_t rows = t->mats * t->rows,
                most = (int64_t)(c->window_bytes / window_row_bytes(&now));
        for (; !status && now.first < rows; now.first += now.n) {
            now.n = rows - now.first < most ? rows - now.first : most;
            now.data = before.data == c->buffers[0] ? c->buffers[1] : c->buffers[0];
            status = advance(c, &before, now, error);
        }
    }
    return status ? status : advance(c, &before, (window){.c = c}, error);
}

/* ---- GGUF ---------------------------------------------------------------------------------- */

static void describe_gguf(copier *c)
{
    char name[128];
    for (size_t i = 0; i < c->source->n_tensors; i++) {
        const model_tensor *t = &c->source->tensors[i];
        int n_dims = model_role_is_vector(t->role) ? 1 : model_role_is_expert(t->role) ? 3 : 2;
        int64_t dims[3] = {t->cols, t->rows, t->mats};
        model_tensor_gguf_name(t, name);
        gguf_put_tensor(c->gguf, name, c->types[i], n_dims, dims);
    }
    int64_t half = c->source->config.head_dim / 2;
    if (c->source->config.rope.scaling == MODEL_ROPE_LLAMA3)
        gguf_put_tensor(c->gguf, "rope_freqs.weight", TENSOR_F32, 1, &half);
}

/* Llama 3.1's scaling has no keys in GGUF: it is a tensor of factors. */
static marco_status write_rope_factors(copier *c, marco_error *error)
{
    const model_config *config = &c->source->config;
    if (config->rope.scaling != MODEL_ROPE_LLAMA3)
        return MARCO_OK;
    size_t bytes = (size_t)config->head_dim / 2 * sizeof(float);
    float *factors = base_alloc(bytes);
    if (!factors)
        return base_fail_memory(error, bytes, "RoPE factors");
    model_rope_llama3_factors(&config->rope, config->head_dim, factors);
    marco_status status = gguf_writer_data(c->gguf, factors, bytes, error);
    base_free(factors);
    return status;
}

static marco_status copy_to_gguf(copier *c, const char *to, marco_error *error)
{
    const model_source *source = c->source;
    const model_source_file *file = model_source_file_of(c->source);
    marco_status status = gguf_writer_create(to, c->params->overwrite, &c->gguf, error);
    if (!status)
        status = model_config_write_gguf(&source->config, c->main_type, c->gguf, error);
    if (!status && source->tokenizer)
        status = tok_spec_write_gguf(source->tokenizer, source->config.n_vocab, c->gguf, error);
    if (!status && file && file->gguf)
        model_config_copy_unused_gguf(file->gguf, c->gguf);
    if (!status)
        describe_gguf(c);
    if (!status)
        status = gguf_writer_begin(c->gguf, error);
    if (!status)
        status = copy_tensors(c, error);
    if (!status)
        status = write_rope_factors(c, error);
    if (!status) {
        status = gguf_writer_commit(c->gguf, error);
        c->gguf = NULL;
    }
    return status;
}

/* ---- Hugging Face -------------------------------------------------------------------------- */

static void describe_hf(copier *c)
{
    char name[128];
    for (size_t i = 0; i < c->source->n_tensors; i++) {
        const model_tensor *t = &c->source->tensors[i];
        bool vector = model_role_is_vector(t->role);
        int64_t dims[2] = {vector ? t->cols : t->rows, t->cols};
        for (int64_t mat = 0; mat < t->mats; mat++) {
            model_tensor_hf_name(&c->source->config, t, mat, name);
            safetensors_put_tensor(c->safetensors, name, c->types[i], vector ? 1 : 2, dims);
        }
    }
}

static marco_status write_weights(copier *c, const char *folder, marco_error *error)
{
    marco_status status = safetensors_writer_create(folder, SHARD_BYTES, &c->safetensors, error);
    if (!status)
        describe_hf(c);
    if (!status)
        status = safetensors_writer_begin(c->safetensors, error);
    if (!status)
        status = copy_tensors(c, error);
    if (!status) {
        status = safetensors_writer_commit(c->safetensors, error);
        c->safetensors = NULL;
    }
    return status;
}

marco_status model_write_hf(const model_config *config, const tok_spec *tokenizer,
                            const char *folder, tensor_type type, marco_error *error)
{
    marco_status status = model_config_write_hf(config, folder, type, error);
    if (!status && tokenizer)
        status = model_copy_tokenizer(tokenizer, folder, error);
    return status;
}

static marco_status copy_to_hf(copier *c, const char *to, marco_error *error)
{
    base_folder *folder = NULL;
    marco_status status = base_folder_create(to, c->params->overwrite, &folder, error);
    if (status)
        return status;
    const char *path = base_folder_path(folder);
    status = model_write_hf(&c->source->config, c->source->tokenizer, path, c->main_type, error);
    if (!status)
        status = write_weights(c, path, error);
    if (status) {
        safetensors_writer_abort(c->safetensors);
        c->safetensors = NULL;
        base_folder_abort(folder);
        return status;
    }
    return base_folder_commit(folder, error);
}

bool model_copy_to_gguf(const char *to)
{
    size_t size = strlen(to);
    return size >= 5 && strcasecmp(to + size - 5, ".gguf") == 0;
}

/* "model.gguf/" is neither the file nor, surely, the folder that was meant. */
static marco_status check_name(const char *to, marco_error *error)
{
    size_t size = strlen(to);
    while (size && to[size - 1] == '/')
        size--;
    if (to[size] && size >= 5 && strncasecmp(to + size - 5, ".gguf", 5) == 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: the name of a GGUF file, with a slash that makes it a folder; leave "
                         "the slash out, or choose another name",
                         to);
    return MARCO_OK;
}

marco_status model_copy(model_source *source, const char *to, const model_copy_params *params,
                        marco_error *error)
{
    copier c = {.source = source, .params = params, .to_gguf = model_copy_to_gguf(to)};
    if (params->threads < 0 || params->threads > MAX_THREADS)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "threads: %d is not between 1 and %d (0: all cores)", params->threads,
                         MAX_THREADS);
    marco_status status = check_name(to, error);
    if (status)
        return status;
    c.permute =
        c.to_gguf && (source->config.arch == MODEL_LLAMA || source->config.arch == MODEL_MIXTRAL);
    status = choose_types(&c, error);
    if (!status)
        status =
            base_pool_create(params->threads ? params->threads : base_cpu_count(), &c.pool, error);
    if (!status)
        status = plan_memory(&c, error);
    if (!status)
        status = c.to_gguf ? copy_to_gguf(&c, to, error) : copy_to_hf(&c, to, error);
    gguf_writer_abort(c.gguf);
    base_pool_destroy(c.pool);
    base_free(c.errors);
    base_free(c.scratch);
    base_free(c.buffers[0]);
    base_free(c.buffers[1]);
    base_free(c.types);
    return status;
}

marco_status model_copy_and_close(model_source *source, const char *to,
                                  const model_copy_params *params, marco_error *error)
{
    marco_status status = model_copy(source, to, params, error);
    model_source_close(source);
    return status;
}
