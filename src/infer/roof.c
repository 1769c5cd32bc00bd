/* What this machine can do at best, measured with an engine's threads and, where they are large
 * enough, on its weights as they lie in memory. */
#include <stdlib.h>
#include <string.h>

#include "base/available.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/time.h"
#include "infer/internal.h"
#include "kernels/roof.h"
#include "model/operations.h"
#include "tensor/panel.h"

/* Memory is read over `MOST` bytes of weights, or what there are; where they are fewer than `FEW`,
 * over a buffer of `BUFFER` bytes or of what there is room for, down to `LEAST`, all much more than
 * caches hold; or over the few where there is no room. */
#define MOST   ((uint64_t)1 << 30)
#define FEW    ((uint64_t)256 << 20)
#define BUFFER ((uint64_t)512 << 20)
#define LEAST  ((uint64_t)64 << 20)

enum {
    ROUNDS = 3,               /* of each measurement; the median counts */
    DOT = KERN_READ_PATTERNS, /* the pattern after the plain ones: decoding's own products */
    PATTERNS,
    PART_BYTES = 2 << 20,
    BUFFER_COLS = 1024,
};

static const char *const pattern_names[PATTERNS] = {
    [KERN_READ_STREAM] = "one stream",
    [KERN_READ_STREAM_AHEAD] = "one stream, prefetched",
    [KERN_READ_STREAMS] = "four streams",
    [KERN_READ_STREAMS_AHEAD] = "four streams, prefetched",
    [DOT] = "dot products",
};

typedef struct meter {
    marco_engine *engine;
    const kern_roof *roof;
    const model_matrix **matrices; /* [n] */
    int64_t *parts;                /* [n + 1] first part of each matrix */
    int64_t n;
    uint64_t bytes; /* in all */
    model_matrix buffer;
    uint64_t buffer_bytes; /* of the engine's room */
    int pattern;
    int64_t cols;   /* of the widest matrix */
    kern_q8 *q8;    /* [cols / 32] what weights are multiplied by, in both forms */
    float *x;       /* [cols] */
    float *scratch; /* [threads, scratch_stride]: the kernel's, and results */
    int64_t scratch_stride;
    int64_t part_rows;
} meter;

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* ---- memory -------------------------------------------------------------------------------- */

/* Whole panels. */
static int64_t rows_of_part(const model_matrix *m)
{
    int64_t panels = PART_BYTES / ((int64_t)m->row_bytes * TENSOR_PANEL_ROWS) + 1;
    return panels * TENSOR_PANEL_ROWS;
}

static void add_matrix(meter *t, const model_matrix *m)
{
    if (!m->data || t->bytes >= MOST)
        return;
    int64_t rows = m->mats * m->rows, part = rows_of_part(m);
    t->matrices[t->n] = m;
    t->parts[t->n + 1] = t->parts[t->n] + (rows + part - 1) / part;
    t->bytes += (uint64_t)rows * m->row_bytes;
    t->cols = m->cols > t->cols ? m->cols : t->cols;
    t->part_rows = part > t->part_rows ? part : t->part_rows;
    t->n++;
}

static void use_weights(meter *t)
{
    const model_weights *w = t->engine->weights;
    for (int32_t i = 0; i < w->config.n_layers; i++) {
        const model_layer *layer = &w->layers[i];
        add_matrix(t, &layer->expert_gate);
        add_matrix(t, &layer->expert_up);
        add_matrix(t, &layer->expert_down);
        add_matrix(t, &layer->gate);
        add_matrix(t, &layer->up);
        add_matrix(t, &layer->down);
        add_matrix(t, &layer->q);
        add_matrix(t, &layer->k);
        add_matrix(t, &layer->v);
        add_matrix(t, &layer->out);
    }
    add_matrix(t, &w->output);
}

/* The largest size that is left here, and in a budget: 0 where not even the smallest is. */
static uint64_t take_room(meter *t)
{
    uint64_t left = base_memory_available() / 2, bytes = BUFFER;
    pthread_mutex_lock(&t->engine->turn);
    while (bytes >= LEAST && (bytes > left || infer_take(t->engine, bytes, "a buffer", NULL)))
        bytes /= 2;
    pthread_mutex_unlock(&t->engine->turn);
    return bytes >= LEAST ? bytes : 0;
}

/* A buffer instead of the weights, where there is room for one. */
static marco_status use_buffer(meter *t, marco_error *error)
{
    size_t bytes = (size_t)(t->buffer_bytes = take_room(t));
    if (bytes <= t->bytes)
        return MARCO_OK;
    model_matrix *m = &t->buffer;
    *m = (model_matrix){.type = TENSOR_Q8_0, .mats = 1, .cols = BUFFER_COLS};
    m->panels = t->engine->kernels->matmul[m->type].panels && !t->engine->f32;
    m->row_bytes = tensor_row_bytes(m->type, m->cols);
    m->data = base_region_alloc(bytes);
    if (!m->data)
        return base_fail_memory(error, bytes, "measuring the memory's speed");
    memset(m->data, 0x11, bytes);
    m->rows = (int64_t)(bytes / m->row_bytes) / TENSOR_PANEL_ROWS * TENSOR_PANEL_ROWS;
    t->n = 0;
    t->bytes = 0;
    add_matrix(t, m);
    return MARCO_OK;
}

/* Everything that measuring needs. */
static marco_status prepare(meter *t, marco_error *error)
{
    int64_t most = (int64_t)t->engine->weights->config.n_layers * 10 + 2;
    t->matrices = base_alloc_array((size_t)most, sizeof *t->matrices);
    t->parts = base_calloc((size_t)most + 1, sizeof *t->parts);
    if (!t->matrices || !t->parts)
        return base_fail_memory(error, (size_t)most * 16, "measuring");
    use_weights(t);
    marco_status status = t->bytes < FEW ? use_buffer(t, error) : MARCO_OK;
    if (status)
        return status;
    size_t cols = ((size_t)t->cols + 31) / 32 * 32; /* of the buffer's, or a dense model's */
    size_t threads = (size_t)base_pool_threads(t->engine->pool);
    t->cols = (int64_t)cols;
    t->x = base_alloc_aligned(cols * sizeof *t->x);
    t->q8 = base_alloc_aligned(cols / 32 * sizeof *t->q8);
    t->scratch_stride = (KERN_SCRATCH(t->cols) + t->part_rows + 15) / 16 * 16;
    t->scratch = base_alloc_aligned(threads * (size_t)t->scratch_stride * sizeof *t->scratch);
    if (!t->x || !t->q8 || !t->scratch)
        return base_fail_memory(error, cols * sizeof *t->x, "measuring");
    for (size_t i = 0; i < cols; i++)
        t->x[i] = (float)((int)(i % 31) - 15);
    t->engine->kernels->quantize_q8(t->x, t->q8, (int64_t)cols);
    return MARCO_OK;
}

/* The kernel that decoding multiplies by; NULL where these weights would have to be packed first.
 */
static const kern_matmul *kernel_of(const meter *t, const model_matrix *m)
{
    const kern_table *kernels = t->engine->kernels;
    const kern_matmul *kernel =
        t->engine->f32 ? &kernels->matmul_f32[m->type] : &kernels->matmul[m->type];
    bool ready = !kernel->panels || (m->panels && m->rows % TENSOR_PANEL_ROWS == 0);
    return ready ? kernel : NULL;
}

static void read_part(void *user, int64_t part, int thread)
{
    meter *t = user;
    int64_t i = 0;
    while (t->parts[i + 1] <= part)
        i++;
    const model_matrix *m = t->matrices[i];
    int64_t row = (part - t->parts[i]) * rows_of_part(m);
    int64_t rows = m->mats * m->rows - row;
    rows = rows < rows_of_part(m) ? rows : rows_of_part(m);
    const uint8_t *data = model_matrix_row(m, 0, row);
    const kern_matmul *kernel = t->pattern == DOT ? kernel_of(t, m) : NULL;
    if (!kernel) {
        int pattern = t->pattern == DOT ? KERN_READ_STREAM_AHEAD : t->pattern;
        size_t bytes = (size_t)rows * m->row_bytes;
        t->roof->read[pattern](data, bytes / KERN_READ_UNIT * KERN_READ_UNIT);
        return;
    }
    float *scratch = t->scratch + thread * t->scratch_stride;
    float *out = scratch + KERN_SCRATCH(t->cols);
    const void *x = kernel->input == KERN_INPUT_Q8 ? (const void *)t->q8 : (const void *)t->x;
    kernel->fn(data, rows, m->cols, x, 1, out, rows, scratch);
}

/* The best pattern's median. The patterns take turns, so that a disturbance meets all of them. */
static void measure_memory(meter *t, marco_roof *out)
{
    double rate[PATTERNS][ROUNDS];
    for (int round = 0; round < ROUNDS; round++)
        for (t->pattern = 0; t->pattern < PATTERNS; t->pattern++) {
            double start = base_now();
            base_pool_run_lanes(t->engine->pool, read_part, t, t->parts[t->n]);
            rate[t->pattern][round] = (double)t->bytes / (base_now() - start) * 1e-9;
        }
    for (int pattern = 0; pattern < PATTERNS; pattern++) {
        double middle = median(rate[pattern], ROUNDS);
        if (middle > out->memory_gb_s) {
            out->memory_gb_s = middle;
            out->memory_pattern = pattern_names[pattern];
        }
    }
    out->memory_bytes = t->bytes;
}

/* ---- public -------------------------------------------------------------------------------- */

marco_status marco_engine_roof(marco_engine *engine, marco_roof *out, marco_error *error)
{
    if (!engine || !out)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "marco_engine_roof: no engine, or no out");
    *out = (marco_roof){.memory_pattern = ""};
    meter t = {.engine = engine, .roof = kern_roof_of(engine->kernels)};
    marco_status status = prepare(&t, error);
    if (!status) {
        pthread_mutex_lock(&engine->turn);
        measure_memory(&t, out);
        out->int8_gops = kern_roof_int8_rate(t.roof, engine->pool) * 1e-9;
        out->f32_gflops = kern_roof_f32_rate(t.roof, engine->pool) * 1e-9;
        pthread_mutex_unlock(&engine->turn);
    }
    base_free(t.matrices);
    base_free(t.parts);
    base_region_free(t.buffer.data, (size_t)t.buffer_bytes);
    pthread_mutex_lock(&engine->turn);
    infer_give_back(engine, t.buffer_bytes);
    pthread_mutex_unlock(&engine->turn);
    base_free(t.x);
    base_free(t.q8);
    base_free(t.scratch);
    return status;
}

marco_operations marco_engine_operations(const marco_engine *engine, int64_t position, int64_t n)
{
    return model_operations(engine->weights, engine->f32 ? NULL : engine->kernels, position, n);
}
