/* Reading a model's weights: all matrices as one flat list of pieces, which a few threads read past
 * the page cache and put in their places, so that the disk always has several reads to do and
 * packing goes on beside them. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/numa.h"
#include "base/pool.h"
#include "model/weights_internal.h"
#include "tensor/panel.h"

/* Disks reach their rate with a few reads of this size under way, whatever the number of cores:
 * the threads mostly wait. */
enum { PIECE_BYTES = 2 << 20, READERS = 8 };

/* A matrix tensor on the list. */
typedef struct entry {
    size_t index; /* in the source */
    model_matrix *matrix;
    const model_source_place *places; /* [mats]; NULL: through the source's own read */
    int64_t piece_rows, pieces_per_mat;
    int64_t first; /* piece of the whole list */
} entry;

typedef struct load {
    model_source *source;
    const model_load_params *params;
    model_weights *weights;
    entry *entries; /* [n_entries] */
    size_t n_entries;
    int64_t n_pieces;
    uint8_t *buffers; /* [READERS, stride] */
    size_t stride;
    pthread_t caller; /* callbacks run on this thread only */
    uint64_t total;
    _Atomic uint64_t done; /* bytes */
    _Atomic bool stop, failed;
    marco_error error; /* of the first piece that failed, written by whoever set `failed` */
} load;

/* ---- pieces -------------------------------------------------------------------------------- */

static void fail_piece(load *l, const marco_error *error)
{
    if (!atomic_exchange(&l->failed, true))
        l->error = *error;
    atomic_store(&l->stop, true);
}

static void report(load *l, uint64_t done)
{
    const marco_progress *progress = l->params->progress;
    marco_error error;
    if (!progress || !progress->fn || !progress->fn(progress->user, "loading", done, l->total))
        return;
    base_fail(&error, MARCO_ERROR_CANCELLED, "%s: loading was cancelled", l->source->path);
    fail_piece(l, &error);
}

static const entry *find_entry(const load *l, int64_t piece)
{
    size_t low = 0, high = l->n_entries;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (l->entries[middle].first <= piece)
            low = middle;
        else
            high = middle;
    }
    return &l->entries[low];
}

static void read_piece(void *user, int64_t piece, int thread)
{
    load *l = user;
    if (atomic_load_explicit(&l->stop, memory_order_relaxed))
        return;
    const entry *e = find_entry(l, piece);
    model_matrix *m = e->matrix;
    int64_t mat = (piece - e->first) / e->pieces_per_mat;
    int64_t row = (piece - e->first) % e->pieces_per_mat * e->piece_rows;
    int64_t rows = m->rows - row < e->piece_rows ? m->rows - row : e->piece_rows;
    size_t bytes = (size_t)rows * m->row_bytes;
    uint8_t *to = m->data + (size_t)(mat * m->rows) * m->row_bytes;
    uint8_t *buffer = l->buffers + (size_t)thread * l->stride;
    const uint8_t *data = buffer;
    marco_error error = {0};
    marco_status status;
    if (bytes > PIECE_BYTES) /* a single row, larger than the buffers */
        status = l->source->read(l->source, e->index, mat, row, rows,
                                 to + (size_t)row * m->row_bytes, &error);
    else if (e->places)
        status = base_file_read_past(e->places[mat].file,
                                     e->places[mat].offset + (uint64_t)row * m->row_bytes, buffer,
                                     bytes, &data, &error);
    else
        status = l->source->read(l->source, e->index, mat, row, rows, buffer, &error);
    if (status) {
        fail_piece(l, &error);
        return;
    }
    if (bytes <= PIECE_BYTES)
        model_matrix_store(m, to, row, rows, data);
    uint64_t done = atomic_fetch_add(&l->done, bytes) + bytes;
    if (pthread_equal(pthread_self(), l->caller))
        report(l, done);
}

/* ---- where matrices go --------------------------------------------------------------------- */

/* Where a tensor's rows lie as they are; NULL where only the source can read them. */
static const model_source_place *places_of(const load *l, size_t index)
{
    const model_source_file *file = model_source_file_of(l->source);
    const model_tensor *t = &l->source->tensors[index];
    if (!file || (file->permuted && (t->role == MODEL_ATTN_Q || t->role == MODEL_ATTN_K)))
        return NULL;
    return &file->places[file->first[index]];
}

/* Leaves the matrix in the map where kernels can read it there: as it is, and aligned as GGUF
 * files are unless they say otherwise. */
static bool place_in_map(load *l, model_matrix *m, const model_source_place *places)
{
    enum { ALIGNMENT = 32 };
    if (!l->weights->map || !places || places->offset % ALIGNMENT != 0)
        return false;
    m->data = (uint8_t *)l->weights->map + places->offset; /* never written */
    return true;
}

static void add_entry(load *l, size_t index, model_matrix *m, const model_source_place *places)
{
    entry e = {.index = index, .matrix = m, .places = places, .first = l->n_pieces};
    e.piece_rows = PIECE_BYTES / (int64_t)m->row_bytes;
    if (m->panels)
        e.piece_rows -= e.piece_rows % TENSOR_PANEL_ROWS;
    e.piece_rows = e.piece_rows < m->rows ? e.piece_rows : m->rows;
    e.piece_rows = e.piece_rows > 0 ? e.piece_rows : 1;
    e.pieces_per_mat = (m->rows + e.piece_rows - 1) / e.piece_rows;
    l->n_pieces += e.pieces_per_mat * m->mats;
    size_t need = (size_t)e.piece_rows * m->row_bytes;
    if (need <= PIECE_BYTES && need > l->stride)
        l->stride = need;
    l->entries[l->n_entries++] = e;
}

static marco_status place_matrix(load *l, size_t index, model_matrix *m, marco_error *error)
{
    const model_tensor *t = &l->source->tensors[index];
    const model_source_place *places = places_of(l, index);
    uint64_t bytes;
    *m = (model_matrix){.type = t->type, .mats = t->mats, .rows = t->rows, .cols = t->cols};
    if (!tensor_bytes(t->type, t->cols, (uint64_t)t->mats * (uint64_t)t->rows, &bytes))
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: tensor %zu is too large", l->source->path,
                         index);
    m->row_bytes = tensor_row_bytes(t->type, t->cols);
    bool streamed = l->params->residency == MODEL_STREAMED && model_role_is_expert(t->role);
    if (!streamed)
        l->weights->bytes += bytes;
    if (place_in_map(l, m, places))
        return MARCO_OK;
    m->panels = model_matrix_wants_panels(l->params->kernels, t->role, m);
    if (streamed) {
        const model_source_file *file = model_source_file_of(l->source);
        m->places = l->weights->places + file->first[index];
        m->at = base_calloc((size_t)m->mats, sizeof *m->at);
        return m->at ? MARCO_OK
                     : base_fail_memory(error, (size_t)m->mats * sizeof *m->at, l->source->path);
    }
    m->data = base_region_alloc((size_t)bytes);
    if (!m->data)
        return base_fail_memory(error, (size_t)bytes, l->source->path);
    base_memory_interleave(m->data, (size_t)bytes);
    m->held = bytes;
    l->total += bytes;
    add_entry(l, index, m, places);
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

/* ---- the files behind ------------------------------------------------------------------------ */

/* Maps a GGUF file whole. */
static marco_status map_file(load *l, marco_error *error)
{
    const model_source_file *file = model_source_file_of(l->source);
    if (!file || !file->gguf)
        return base_fail(
            error, MARCO_ERROR_UNSUPPORTED,
            "%s: only GGUF files can be mapped; leave out --mmap, or convert it to one",
            l->source->path);
    const base_file *behind = gguf_file(file->gguf);
    l->weights->map_bytes = behind->size;
    return base_file_map(behind, &l->weights->map, error);
}

/* The weights' own handle on a file of the source. */
static marco_status share_file(model_weights *w, const base_file **file, size_t *capacity,
                               marco_error *error)
{
    for (size_t i = 0; i < w->n_files; i++)
        if (strcmp(w->files[i]->path, (*file)->path) == 0) {
            *file = w->files[i];
            return MARCO_OK;
        }
    void *grown = w->files;
    if (!base_grow(&grown, capacity, w->n_files + 1, sizeof *w->files))
        return base_fail_memory(error, sizeof *w->files, w->path);
    w->files = grown;
    marco_status status = base_file_share(*file, &w->files[w->n_files], error);
    if (!status)
        *file = w->files[w->n_files++];
    return status;
}

/* Copies where matrices are in their files, which the weights then keep open. */
static marco_status keep_files(load *l, marco_error *error)
{
    model_weights *w = l->weights;
    const model_source_file *file = model_source_file_of(l->source);
    size_t capacity = 0;
    if (!file)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "%s: only checkpoints in files can be read while they run",
                         l->source->path);
    w->places = base_alloc_array(file->n_places, sizeof *w->places);
    if (!w->places)
        return base_fail_memory(error, file->n_places * sizeof *w->places, w->path);
    memcpy(w->places, file->places, file->n_places * sizeof *w->places);
    marco_status status = MARCO_OK;
    for (size_t i = 0; !status && i < file->n_places; i++)
        status = share_file(w, &w->places[i].file, &capacity, error);
    return status;
}

/* ---- all together ---------------------------------------------------------------------------- */

static marco_status place_tensors(load *l, marco_error *error)
{
    model_source *source = l->source;
    marco_status status = MARCO_OK;
    l->entries = base_alloc_array(source->n_tensors, sizeof *l->entries);
    if (!l->entries)
        return base_fail_memory(error, source->n_tensors * sizeof *l->entries, source->path);
    for (size_t i = 0; !status && i < source->n_tensors; i++) {
        model_weights_slot s = model_weights_slot_of(l->weights, &source->tensors[i]);
        status =
            s.matrix ? place_matrix(l, i, s.matrix, error) : read_vector(l, i, s.vector, error);
    }
    return status;
}

static marco_status read_matrices(load *l, marco_error *error)
{
    base_pool *pool = NULL;
    l->stride =
        (l->stride + BASE_FILE_SPARE + BASE_FILE_ALIGN - 1) & ~(size_t)(BASE_FILE_ALIGN - 1);
    l->buffers = base_region_alloc(READERS * l->stride);
    if (!l->buffers)
        return base_fail_memory(error, READERS * l->stride, l->source->path);
    marco_status status = MARCO_OK;
    if (l->n_pieces > 0) /* not all is mapped */
        status = base_pool_create(READERS, &pool, error);
    if (!status) {
        report(l, 0);
        if (pool)
            base_pool_run(pool, read_piece, l, l->n_pieces);
        if (!atomic_load(&l->failed))
            report(l, l->total);
        if (atomic_load(&l->failed)) {
            status = l->error.status;
            if (error)
                *error = l->error;
        }
    }
    base_pool_destroy(pool);
    base_region_free(l->buffers, READERS * l->stride);
    return status;
}

uint64_t model_weights_load_bytes(void)
{
    return READERS * (uint64_t)(PIECE_BYTES + BASE_FILE_SPARE);
}

marco_status model_weights_load(model_source *source, const model_load_params *params,
                                model_weights **out, marco_error *error)
{
    marco_status status = MARCO_OK;
    model_weights *w = base_calloc(1, sizeof *w);
    if (!w)
        return base_fail_memory(error, sizeof *w, source->path);
    load l = {.source = source, .params = params, .weights = w, .caller = pthread_self()};
    w->config = source->config;
    w->path = base_strdup(source->path);
    w->layers = base_calloc((size_t)w->config.n_layers, sizeof *w->layers);
    if (!w->path || !w->layers)
        status = base_fail_memory(error, sizeof *w->layers, source->path);
    if (!status && params->residency == MODEL_MAPPED)
        status = map_file(&l, error);
    if (!status && params->residency == MODEL_STREAMED)
        status = keep_files(&l, error);
    if (!status)
        status = place_tensors(&l, error);
    if (!status)
        status = read_matrices(&l, error);
    base_free(l.entries);
    if (status) {
        model_weights_free(w);
        return status;
    }
    if (w->config.tied)
        w->output = w->token_embd;
    *out = w;
    return MARCO_OK;
}
