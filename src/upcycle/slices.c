#include "upcycle/slices.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "upcycle/stream.h"

/* A copy goes through the tensors in order, so at most the end of one matrix and the beginning of
 * the next are wanted at the same time. */
enum { SLOTS = 2, PIECE_BYTES = 1 << 20 };

typedef struct slot {
    upcycle_matrix matrix;
    model_role role;
    int32_t layer;
    int users;
    bool ready;        /* holds (role, layer) */
    bool busy;         /* is being filled by one of its users */
    uint64_t last_use; /* to replace the one unused for longest */
} slot;

struct upcycle_slices {
    model_source *parent;
    upcycle_plan plan;
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* a slot became ready, or free */
    uint64_t clock;
    slot slots[SLOTS];
};

/* ---- what is dropped ----------------------------------------------------------------------- */

/* Marks n_drop of each expert's indices, all sets of that size being equally likely: the first
 * steps of Fisher and Yates's shuffle. `deck` has room for expert_dim numbers. */
static void draw_indices(const upcycle_plan *plan, model_role role, int32_t layer, int32_t *deck,
                         uint8_t *dropped)
{
    if (plan->drop_shared)
        role = MODEL_EXPERT_GATE;
    uint64_t stream = upcycle_stream(UPCYCLE_INDICES, role, layer);
    int32_t size = plan->expert_dim;
    memset(dropped, 0, (size_t)plan->n_experts * (size_t)size);
    for (int32_t expert = 0; expert < plan->n_experts; expert++, dropped += size) {
        for (int32_t i = 0; i < size; i++)
            deck[i] = i;
        for (int32_t i = 0; i < plan->n_drop; i++) {
            uint64_t left = (uint64_t)(size - i);
            uint64_t at =
                base_random_below(plan->seed, stream, upcycle_item(expert, i), left) + (uint64_t)i;
            int32_t taken = deck[at];
            deck[at] = deck[i];
            dropped[taken] = 1;
        }
    }
}

/* Mean and deviation of each expert's dropped elements, from the sums over each index of the
 * intermediate dimension: every expert's statistics without a pass over its slice. */
static void take_statistics(const upcycle_plan *plan, int64_t n_embd, const double *sums,
                            const double *squares, upcycle_matrix *matrix)
{
    double n = (double)(plan->n_drop * n_embd);
    for (int32_t expert = 0; expert < plan->n_experts; expert++) {
        const uint8_t *dropped = matrix->dropped + (size_t)expert * (size_t)plan->expert_dim;
        int64_t first = (int64_t)(expert % plan->n_slices) * plan->expert_dim;
        double sum = 0;
        double square = 0;
        for (int32_t i = 0; i < plan->expert_dim; i++) {
            sum += dropped[i] ? sums[first + i] : 0;
            square += dropped[i] ? squares[first + i] : 0;
        }
        double mean = sum / n;
        /* With n - 1, as torch.std has it in the method's own code. */
        double variance = n > 1 ? (square - sum * mean) / (n - 1) : 0;
        matrix->mean[expert] = (float)mean;
        matrix->deviation[expert] = (float)sqrt(variance > 0 ? variance : 0);
    }
}

/* ---- filling a slot ------------------------------------------------------------------------ */

/* Scales n_rows rows in place and adds what they hold to the sums of their intermediate index. */
static void scale_rows(float *rows, int64_t row0, int64_t n_rows, int64_t cols, bool down,
                       float scale, double *sums, double *squares)
{
    for (int64_t r = 0; r < n_rows; r++, rows += cols) {
        double sum = 0;
        double square = 0;
        for (int64_t c = 0; c < cols; c++) {
            rows[c] *= scale;
            double x = rows[c];
            if (down) {
                sums[c] += x;
                squares[c] += x * x;
            } else {
                sum += x;
                square += x * x;
            }
        }
        if (!down) {
            sums[row0 + r] = sum;
            squares[row0 + r] = square;
        }
    }
}

static marco_status check_finite(const upcycle_slices *slices, const model_tensor *tensor,
                                 const double *squares, int64_t n, marco_error *error)
{
    double total = 0;
    for (int64_t i = 0; i < n; i++)
        total += squares[i];
    if (isfinite(total))
        return MARCO_OK;
    char name[128];
    model_tensor_hf_name(&slices->parent->config, tensor, 0, name);
    return base_fail(error, MARCO_ERROR_NUMERIC,
                     "%s: tensor %s holds a number that is not finite; get the checkpoint again",
                     slices->parent->path, name);
}

/* Reads, decodes and scales the parent's matrix. sums and squares: [ffn_dim], zero. */
static marco_status read_matrix(upcycle_slices *slices, size_t index, float *data, double *sums,
                                double *squares, marco_error *error)
{
    const model_tensor *tensor = &slices->parent->tensors[index];
    const tensor_traits *traits = tensor_traits_of(tensor->type);
    bool down = tensor->role == MODEL_FFN_DOWN;
    float scale = down ? slices->plan.scale_down : slices->plan.scale_in;
    size_t row_bytes = tensor_row_bytes(tensor->type, tensor->cols);
    int64_t window = row_bytes < PIECE_BYTES ? (int64_t)(PIECE_BYTES / row_bytes) : 1;
    if (window > tensor->rows)
        window = tensor->rows;
    void *raw = base_alloc_array((size_t)window, row_bytes);
    if (!raw)
        return base_fail_memory(error, (size_t)window * row_bytes, "rows of the parent");
    marco_status status = MARCO_OK;
    for (int64_t row = 0; row < tensor->rows && status == MARCO_OK; row += window) {
        int64_t n = tensor->rows - row < window ? tensor->rows - row : window;
        status = slices->parent->read(slices->parent, index, 0, row, n, raw, error);
        if (status == MARCO_OK) {
            float *rows = data + row * tensor->cols;
            traits->decode(raw, rows, n * tensor->cols);
            scale_rows(rows, row, n, tensor->cols, down, scale, sums, squares);
        }
    }
    base_free(raw);
    if (status == MARCO_OK)
        status = check_finite(slices, tensor, squares, slices->parent->config.ffn_dim, error);
    return status;
}

static void free_matrix(upcycle_matrix *matrix)
{
    base_free(matrix->data);
    base_free(matrix->dropped);
    base_free(matrix->mean);
    base_free(matrix->deviation);
    *matrix = (upcycle_matrix){0};
}

/* All matrices have the same size, so a slot keeps its memory. */
static marco_status make_room(const upcycle_slices *slices, upcycle_matrix *matrix,
                              marco_error *error)
{
    const upcycle_plan *plan = &slices->plan;
    const model_config *parent = &slices->parent->config;
    if (matrix->data)
        return MARCO_OK;
    size_t experts = (size_t)plan->n_experts;
    matrix->data =
        base_alloc_array((size_t)parent->ffn_dim * (size_t)parent->n_embd, sizeof(*matrix->data));
    if (plan->n_drop) {
        matrix->dropped = base_alloc_array(experts, (size_t)plan->expert_dim);
        matrix->mean = base_alloc_array(experts, sizeof(*matrix->mean));
        matrix->deviation = base_alloc_array(experts, sizeof(*matrix->deviation));
    }
    if (matrix->data && (!plan->n_drop || (matrix->dropped && matrix->mean && matrix->deviation)))
        return MARCO_OK;
    free_matrix(matrix);
    return base_fail_memory(error, (size_t)parent->ffn_dim * (size_t)parent->n_embd * 4,
                            "a matrix of the parent");
}

static marco_status fill_slot(upcycle_slices *slices, slot *target, marco_error *error)
{
    const upcycle_plan *plan = &slices->plan;
    const model_config *parent = &slices->parent->config;
    marco_status status = make_room(slices, &target->matrix, error);
    if (status != MARCO_OK)
        return status;
    size_t ffn_dim = (size_t)parent->ffn_dim;
    double *sums = base_calloc(2 * ffn_dim, sizeof(*sums));
    int32_t *deck = base_alloc_array((size_t)plan->expert_dim, sizeof(*deck));
    if (!sums || !deck) {
        status = base_fail_memory(error, 2 * ffn_dim * sizeof(*sums), "statistics");
        goto done;
    }
    double *squares = sums + ffn_dim;
    int64_t index =
        model_source_find(slices->parent, upcycle_dense_role(target->role), target->layer);
    status = read_matrix(slices, (size_t)index, target->matrix.data, sums, squares, error);
    if (status == MARCO_OK && plan->n_drop) {
        draw_indices(plan, target->role, target->layer, deck, target->matrix.dropped);
        take_statistics(plan, parent->n_embd, sums, squares, &target->matrix);
    }
done:
    base_free(sums);
    base_free(deck);
    return status;
}

/* ---- the cache ----------------------------------------------------------------------------- */

marco_status upcycle_slices_create(model_source *parent, const upcycle_plan *plan,
                                   upcycle_slices **out, marco_error *error)
{
    upcycle_slices *slices = base_calloc(1, sizeof(*slices));
    if (!slices)
        return base_fail_memory(error, sizeof(*slices), "the slices of a model");
    int code = pthread_mutex_init(&slices->mutex, NULL);
    if (code) {
        base_free(slices);
        return base_fail_errno(error, code, "cannot create", "a lock");
    }
    code = pthread_cond_init(&slices->changed, NULL);
    if (code) {
        pthread_mutex_destroy(&slices->mutex);
        base_free(slices);
        return base_fail_errno(error, code, "cannot create", "a lock");
    }
    slices->parent = parent;
    slices->plan = *plan;
    *out = slices;
    return MARCO_OK;
}

void upcycle_slices_free(upcycle_slices *slices)
{
    if (!slices)
        return;
    for (int i = 0; i < SLOTS; i++)
        free_matrix(&slices->slots[i].matrix);
    pthread_cond_destroy(&slices->changed);
    pthread_mutex_destroy(&slices->mutex);
    base_free(slices);
}

/* The slot that holds or is being filled with this matrix; else the unused one to fill with it;
 * NULL where all are in use. */
static slot *pick_slot(upcycle_slices *slices, model_role role, int32_t layer)
{
    slot *unused = NULL;
    for (int i = 0; i < SLOTS; i++) {
        slot *s = &slices->slots[i];
        if ((s->ready || s->busy) && s->role == role && s->layer == layer)
            return s;
        if (s->users == 0 && (!unused || s->last_use < unused->last_use))
            unused = s;
    }
    return unused;
}

marco_status upcycle_slices_acquire(upcycle_slices *slices, model_role role, int32_t layer,
                                    const upcycle_matrix **out, marco_error *error)
{
    marco_status status = MARCO_OK;
    pthread_mutex_lock(&slices->mutex);
    slot *s;
    /* Whoever waits for a matrix that could not be read tries for itself: the error is its own. */
    while (!(s = pick_slot(slices, role, layer)) || s->busy)
        pthread_cond_wait(&slices->changed, &slices->mutex);
    s->users++;
    if (!s->ready || s->role != role || s->layer != layer) {
        s->role = role;
        s->layer = layer;
        s->ready = false;
        s->busy = true;
        pthread_mutex_unlock(&slices->mutex);
        status = fill_slot(slices, s, error);
        pthread_mutex_lock(&slices->mutex);
        s->busy = false;
        s->ready = status == MARCO_OK;
        if (status != MARCO_OK)
            s->users--;
        pthread_cond_broadcast(&slices->changed);
    }
    s->last_use = ++slices->clock;
    *out = status == MARCO_OK ? &s->matrix : NULL;
    pthread_mutex_unlock(&slices->mutex);
    return status;
}

void upcycle_slices_release(upcycle_slices *slices, const upcycle_matrix *matrix)
{
    pthread_mutex_lock(&slices->mutex);
    for (int i = 0; i < SLOTS; i++) {
        slot *s = &slices->slots[i];
        if (&s->matrix == matrix && --s->users == 0)
            pthread_cond_broadcast(&slices->changed);
    }
    pthread_mutex_unlock(&slices->mutex);
}
