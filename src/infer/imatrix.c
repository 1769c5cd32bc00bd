/* Importance matrices: what the weights are multiplied with while the model reads a text. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/output.h"
#include "format/imatrix.h"
#include "infer/chunks.h"
#include "infer/internal.h"

/* What went into one matrix, or the matrices of a layer's experts. */
typedef struct inputs {
    const model_matrix *w;
    model_tensor tensor;
    double *sums;    /* [mats, cols] of squares */
    int64_t *counts; /* [mats] rows */
} inputs;

typedef struct collector {
    inputs *matrices;
    size_t n;
    size_t last;    /* the one seen last */
    uint64_t taken; /* bytes of the engine's room */
} collector;

marco_imatrix_params marco_imatrix_params_default(void)
{
    return (marco_imatrix_params){0};
}

/* ---- collecting ----------------------------------------------------------------------------- */

/* An expert's rows follow each other, and so do the matrices of a layer: the search begins where
 * the last one ended. NULL for the output head, which is not collected, as in llama.cpp. */
static inputs *find(collector *c, const model_matrix *w)
{
    for (size_t i = 0; i < c->n; i++) {
        size_t at = (c->last + i) % c->n;
        if (c->matrices[at].w == w) {
            c->last = at;
            return &c->matrices[at];
        }
    }
    return NULL;
}

/* Row after row, whatever the passes and the threads: so the sums are always the same. */
static void observe(void *user, const model_matrix *w, int64_t mat, const float *rows, int64_t n)
{
    inputs *in = find(user, w);
    if (!in)
        return;
    double *sums = in->sums + mat * w->cols;
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < w->cols; c++) {
            double x = (double)rows[i * w->cols + c];
            sums[c] += x * x;
        }
    in->counts[mat] += n;
}

static void collector_free(collector *c)
{
    for (size_t i = 0; i < c->n; i++) {
        base_free(c->matrices[i].sums);
        base_free(c->matrices[i].counts);
    }
    base_free(c->matrices);
}

/* Room for all the sums, and twice the largest as floats: its entry, and what writing makes of it.
 */
static marco_status take_room(marco_engine *engine, collector *c, marco_error *error)
{
    uint64_t bytes = 0, largest = 0;
    for (size_t i = 0; i < c->n; i++) {
        const model_matrix *w = c->matrices[i].w;
        uint64_t n = (uint64_t)w->mats * (uint64_t)w->cols;
        bytes += n * sizeof(double) + (uint64_t)w->mats * sizeof(int64_t);
        largest = n > largest ? n : largest;
    }
    bytes += 2 * largest * sizeof(float);
    pthread_mutex_lock(&engine->turn);
    marco_status status = infer_take(engine, bytes, "the importance matrix", error);
    pthread_mutex_unlock(&engine->turn);
    c->taken = status ? 0 : bytes;
    return status;
}

static marco_status collector_reserve(collector *c, marco_error *error)
{
    for (size_t i = 0; i < c->n; i++) {
        inputs *in = &c->matrices[i];
        size_t n = (size_t)(in->w->mats * in->w->cols);
        in->sums = base_calloc(n, sizeof *in->sums);
        in->counts = base_calloc((size_t)in->w->mats, sizeof *in->counts);
        if (!in->sums || !in->counts)
            return base_fail_memory(error, n * sizeof *in->sums, "the importance matrix");
    }
    return MARCO_OK;
}

/* A place for every matrix in the layers. */
static marco_status collector_create(const model_weights *weights, collector *out,
                                     marco_error *error)
{
    size_t n = model_config_tensors(&weights->config, NULL, 0);
    model_tensor *tensors = base_alloc_array(n, sizeof *tensors);
    *out = (collector){.matrices = base_alloc_array(n, sizeof *out->matrices)};
    bool enough = tensors && out->matrices;
    if (enough)
        model_config_tensors(&weights->config, tensors, n);
    for (size_t i = 0; enough && i < n; i++) {
        const model_matrix *w = model_weights_matrix(weights, &tensors[i]);
        if (!w || tensors[i].layer < 0)
            continue;
        out->matrices[out->n++] = (inputs){.w = w, .tensor = tensors[i]};
    }
    base_free(tensors);
    return enough ? MARCO_OK : base_fail_memory(error, n * sizeof(inputs), "the importance matrix");
}

static marco_status read_text(marco_engine *engine, const infer_chunks *chunks, collector *c,
                              const marco_progress *progress, marco_error *error)
{
    size_t n_ctx = (size_t)chunks->n_ctx;
    marco_session *session;
    marco_session_params params = marco_session_params_default();
    params.n_ctx = chunks->n_ctx;
    marco_status status = marco_session_create(engine, &params, &session, error);
    if (status)
        return status;
    model_context_observe(session->context, observe, c);
    for (size_t i = 0; !status && i <= chunks->n_chunks; i++) {
        if (progress->fn &&
            progress->fn(progress->user, "reading tokens", i * n_ctx, chunks->n_chunks * n_ctx))
            status = base_fail(error, MARCO_ERROR_CANCELLED, "cancelled while reading the text");
        if (status || i == chunks->n_chunks)
            break;
        marco_session_truncate(session, 0);
        status = marco_session_eval(session, infer_chunk(chunks, i), n_ctx, error);
    }
    marco_session_close(session);
    return status;
}

/* ---- what was collected --------------------------------------------------------------------- */

/* Releases the sums: theirs are the entry's numbers now. */
static marco_status add_entry(inputs *in, imatrix *out, marco_error *error)
{
    char name[128];
    int64_t mats = in->w->mats, n = mats * in->w->cols;
    model_tensor_gguf_name(&in->tensor, name);
    imatrix_entry *entry = imatrix_add(out, name, n, mats);
    if (!entry)
        return base_fail_memory(error, (size_t)n * sizeof(float), "the importance matrix");
    for (int64_t i = 0; i < n; i++) {
        entry->sums[i] = (float)in->sums[i];
        if (!isfinite(entry->sums[i]))
            return base_fail(error, MARCO_ERROR_NUMERIC,
                             "what column %lld of %s is multiplied with is too large to be squared "
                             "and summed",
                             (long long)(i % in->w->cols), name);
    }
    for (int64_t i = 0; i < mats; i++)
        entry->counts[i] = (float)in->counts[i];
    base_free(in->sums);
    in->sums = NULL;
    return MARCO_OK;
}

static marco_status write_file(const char *to, collector *c, const infer_chunks *chunks,
                               const marco_imatrix_params *params, marco_error *error)
{
    imatrix m = {.n_chunks = (int64_t)chunks->n_chunks, .chunk_size = chunks->n_ctx};
    marco_status status = MARCO_OK;
    if (params->text_name) {
        m.dataset = base_strdup(params->text_name);
        if (!m.dataset)
            status = base_fail_memory(error, strlen(params->text_name), "the text's name");
    }
    for (size_t i = 0; !status && i < c->n; i++)
        status = add_entry(&c->matrices[i], &m, error);
    if (!status)
        status = imatrix_write(to, params->overwrite, &m, error);
    imatrix_clear(&m);
    return status;
}

static marco_imatrix_result conclude(const collector *c, const infer_chunks *chunks)
{
    marco_imatrix_result r = {.n_ctx = chunks->n_ctx, .n_chunks = (int32_t)chunks->n_chunks};
    for (size_t i = 0; i < c->n; i++) {
        const inputs *in = &c->matrices[i];
        int32_t unused = 0;
        if (in->tensor.role != MODEL_EXPERT_GATE)
            continue;
        for (int64_t e = 0; e < in->w->mats; e++)
            unused += in->counts[e] == 0;
        r.n_experts += in->w->mats;
        r.n_unused += unused;
        if (unused > r.worst_unused) {
            r.worst_unused = unused;
            r.worst_layer = in->tensor.layer;
        }
    }
    return r;
}

/* Whether the output could be written: better known before the work than after it. */
static marco_status try_output(const char *to, bool overwrite, marco_error *error)
{
    base_output *output;
    marco_status status = base_output_create(to, overwrite, &output, error);
    if (!status)
        base_output_abort(output);
    return status;
}

marco_status marco_imatrix(marco_engine *engine, const char *text, size_t size, const char *to,
                           const marco_imatrix_params *params, marco_imatrix_result *result,
                           marco_error *error)
{
    const marco_imatrix_params standard = marco_imatrix_params_default();
    collector c = {0};
    infer_chunks chunks = {0};
    params = params ? params : &standard;
    if (!engine || (!text && size) || !to || !to[0] || !result)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "marco_imatrix: an argument is missing");
    if (!engine->f32)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "an importance matrix is collected on the reference path: open the engine "
                         "with MARCO_COMPUTE_F32");
    marco_status status =
        infer_chunks_create(engine, text, size, params->n_ctx, params->max_chunks, &chunks, error);
    if (!status)
        status = try_output(to, params->overwrite, error);
    if (!status)
        status = collector_create(engine->weights, &c, error);
    if (!status)
        status = take_room(engine, &c, error);
    if (!status)
        status = collector_reserve(&c, error);
    if (!status)
        status = read_text(engine, &chunks, &c, &params->progress, error);
    if (!status)
        status = write_file(to, &c, &chunks, params, error);
    if (!status)
        *result = conclude(&c, &chunks);
    collector_free(&c);
    pthread_mutex_lock(&engine->turn);
    infer_give_back(engine, c.taken);
    pthread_mutex_unlock(&engine->turn);
    infer_chunks_free(&chunks);
    return status;
}
