#include "model/expert_cache.h"

#include <pthread.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/time.h"
#include "tensor/panel.h"

/* Disks reach their rate with a few reads of this size under way, whatever the number of cores:
 * the threads mostly wait. */
enum { READERS = 8, PIECE_BYTES = 1 << 20, BUFFER_BYTES = PIECE_BYTES + BASE_FILE_SPARE };

enum { PARTS = 3 }; /* gate, up, down */

typedef struct slot {
    int64_t key; /* layer * X + expert; -1: empty */
    int32_t older, newer;
    bool busy;                                 /* of this step, not handed out and released yet */
    bool failed;                               /* a read of it */
    int32_t next_piece, n_pieces, pieces_left; /* to be begun, all, to be completed */
} slot;

struct model_cache {
    model_weights *weights;
    model_cache_read_fn read;
    void *user;
    int64_t n_slots, limit, n_experts;
    size_t slot_bytes;
    uint8_t *memory; /* [n_slots, slot_bytes] */
    slot *slots;     /* [n_slots + 1] the last: the ring's head, older is newest, newer is oldest */
    int32_t *where;  /* [layers * X] an expert's slot, or -1 */
    int32_t *parked; /* [n_slots] slots that may not be filled */
    int64_t n_parked;

    pthread_mutex_t lock; /* of all below, and of `slots` and `where` */
    pthread_cond_t work;  /* readers wait for the queue */
    pthread_cond_t ready; /* the step waits for a slot to be complete */
    int32_t *queue;       /* [n_slots] ring of slots whose pieces are to be read */
    int64_t queue_at, queue_n;
    int64_t in_flight; /* slots with pieces left */
    double flight_began;
    bool stop;
    marco_error error; /* of the step's first failed read */
    model_cache_stats stats;

    /* The step. */
    int64_t layer;
    int32_t *hits, *misses; /* [X] in the order asked for */
    int64_t n_hits, n_misses, issued;
    bool began;               /* the hits have been handed out */
    int32_t *pending, *group; /* [X] misses issued and not handed out; what is handed out */
    int64_t n_pending, n_group;

    uint8_t *buffers; /* [READERS, BUFFER_BYTES] */
    int n_readers;
    struct reader {
        pthread_t thread;
        model_cache *cache;
        uint8_t *buffer;
    } readers[READERS];
};

/* ---- where things are ---------------------------------------------------------------------- */

static uint64_t aligned(uint64_t n, uint64_t to)
{
    return (n + to - 1) & ~(to - 1);
}

uint64_t model_cache_slot_bytes(uint64_t gate, uint64_t up, uint64_t down)
{
    return aligned(aligned(gate, 64) + aligned(up, 64) + down, BASE_FILE_ALIGN);
}

uint64_t model_cache_fixed_bytes(int64_t n_layers, int64_t n_experts)
{
    enum { STACK = 32 << 10 }; /* touched by a reader */
    uint64_t each =
        PARTS * sizeof(uint8_t *) + sizeof(int32_t) + sizeof(slot) + 2 * sizeof(int32_t);
    return READERS * (uint64_t)(BUFFER_BYTES + STACK) + (uint64_t)(n_layers * n_experts) * each;
}

static void parts_of(const model_layer *layer, const model_matrix *parts[PARTS])
{
    parts[0] = &layer->expert_gate;
    parts[1] = &layer->expert_up;
    parts[2] = &layer->expert_down;
}

static uint64_t part_bytes(const model_matrix *m)
{
    return (uint64_t)m->rows * m->row_bytes;
}

static void point_at(model_cache *c, int64_t key, const uint8_t *base)
{
    const model_matrix *parts[PARTS];
    parts_of(&c->weights->layers[key / c->n_experts], parts);
    for (int i = 0; i < PARTS; i++) {
        parts[i]->at[key % c->n_experts] = base;
        if (base)
            base += aligned(part_bytes(parts[i]), 64);
    }
}

/* ---- the order of use ------------------------------------------------------------------------ */

static void unlink_slot(model_cache *c, int32_t i)
{
    slot *s = &c->slots[i];
    c->slots[s->older].newer = s->newer;
    c->slots[s->newer].older = s->older;
}

/* Between two neighbours. */
static void link_slot(model_cache *c, int32_t i, int32_t older, int32_t newer)
{
    c->slots[i].older = older;
    c->slots[i].newer = newer;
    c->slots[older].newer = c->slots[newer].older = i;
}

static void make_newest(model_cache *c, int32_t i)
{
    int32_t head = (int32_t)c->n_slots;
    unlink_slot(c, i);
    link_slot(c, i, c->slots[head].older, head);
}

static void make_oldest(model_cache *c, int32_t i)
{
    int32_t head = (int32_t)c->n_slots;
    unlink_slot(c, i);
    link_slot(c, i, head, c->slots[head].newer);
}

static int32_t oldest(const model_cache *c)
{
    return c->slots[c->n_slots].newer;
}

static void empty_slot(model_cache *c, int32_t i)
{
    slot *s = &c->slots[i];
    if (s->key < 0)
        return;
    c->where[s->key] = -1;
    point_at(c, s->key, NULL);
    s->key = -1;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Bytes of a piece of a matrix: whole panels where it is packed. */
static uint64_t piece_bytes(const model_matrix *m)
{
    uint64_t unit = m->panels ? TENSOR_PANEL_ROWS * m->row_bytes : 1;
    return PIECE_BYTES - PIECE_BYTES % unit;
}

static int32_t pieces_of(const model_matrix *m)
{
    uint64_t each = piece_bytes(m);
    return (int32_t)((part_bytes(m) + each - 1) / each);
}

static marco_status read_from_file(void *user, const model_matrix *m, int64_t mat, uint64_t from,
                                   void *buffer, size_t size, const uint8_t **data,
                                   marco_error *error)
{
    (void)user;
    const model_source_place *place = &m->places[mat];
    return base_file_read_past(place->file, place->offset + from, buffer, size, data, error);
}

/* Reads piece `piece` of the expert `key` into its slot at `base`; *size is what it read. */
static marco_status read_piece(model_cache *c, int64_t key, int32_t piece, uint8_t *base,
                               uint8_t *buffer, size_t *size, marco_error *error)
{
    const model_matrix *parts[PARTS];
    parts_of(&c->weights->layers[key / c->n_experts], parts);
    int part = 0;
    for (; piece >= pieces_of(parts[part]); part++) {
        piece -= pieces_of(parts[part]);
        base += aligned(part_bytes(parts[part]), 64);
    }
    const model_matrix *m = parts[part];
    uint64_t each = piece_bytes(m), from = (uint64_t)piece * each, left = part_bytes(m) - from;
    const uint8_t *data = NULL;
    *size = (size_t)(left < each ? left : each);
    marco_status status =
        c->read(c->user, m, key % c->n_experts, from, buffer, *size, &data, error);
    if (status)
        return status;
    if (m->panels)
        model_matrix_store(m, base, (int64_t)(from / m->row_bytes), (int64_t)(*size / m->row_bytes),
                           data);
    else
        memcpy(base + from, data, *size);
    return MARCO_OK;
}

/* Counts a piece as done, the lock held. */
static void finish_piece(model_cache *c, slot *s, marco_status status, const marco_error *error,
                         size_t size)
{
    if (status && !c->error.status)
        c->error = *error;
    if (status)
        s->failed = true;
    else
        c->stats.bytes_read += size;
    if (--s->pieces_left > 0)
        return;
    if (--c->in_flight == 0)
        c->stats.read_seconds += base_now() - c->flight_began;
    pthread_cond_signal(&c->ready);
}

static void *reader_main(void *user)
{
    struct reader *r = user;
    model_cache *c = r->cache;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (!c->stop && c->queue_n == 0)
            pthread_cond_wait(&c->work, &c->lock);
        if (c->stop)
            break;
        int32_t i = c->queue[c->queue_at];
        slot *s = &c->slots[i];
        int32_t piece = s->next_piece++;
        if (s->next_piece == s->n_pieces) {
            c->queue_at = (c->queue_at + 1) % c->n_slots;
            c->queue_n--;
        }
        int64_t key = s->key;
        marco_status status = MARCO_OK;
        marco_error error = {0};
        size_t size = 0;
        if (!s->failed) { /* else the rest of it is not worth reading */
            pthread_mutex_unlock(&c->lock);
            status = read_piece(c, key, piece, c->memory + (size_t)i * c->slot_bytes, r->buffer,
                                &size, &error);
            pthread_mutex_lock(&c->lock);
        }
        finish_piece(c, s, status, &error, size);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* ---- a step ---------------------------------------------------------------------------------- */

/* Gives the slot used least recently to the expert and has its reads queued, the lock held. */
static void fill(model_cache *c, int32_t i, int64_t key)
{
    slot *s = &c->slots[i];
    empty_slot(c, i);
    s->key = key;
    s->busy = true;
    s->failed = false;
    s->next_piece = s->n_pieces = 0;
    const model_matrix *parts[PARTS];
    parts_of(&c->weights->layers[key / c->n_experts], parts);
    for (int p = 0; p < PARTS; p++)
        s->n_pieces += pieces_of(parts[p]);
    s->pieces_left = s->n_pieces;
    c->where[key] = i;
    point_at(c, key, c->memory + (size_t)i * c->slot_bytes);
    make_newest(c, i);
    c->queue[(c->queue_at + c->queue_n++) % c->n_slots] = i;
    if (c->in_flight++ == 0)
        c->flight_began = base_now();
}

/* Sets as many missing experts' reads going as there are slots for, the lock held. */
static void issue(model_cache *c)
{
    int64_t before = c->issued;
    while (c->issued < c->n_misses && !c->slots[oldest(c)].busy) {
        int32_t expert = c->misses[c->issued++];
        fill(c, oldest(c), c->layer * c->n_experts + expert);
        c->pending[c->n_pending++] = expert;
    }
    if (c->issued > before)
        pthread_cond_broadcast(&c->work);
}

void model_cache_begin(model_cache *c, int64_t layer, const int32_t *experts, int64_t n)
{
    pthread_mutex_lock(&c->lock);
    c->layer = layer;
    c->n_hits = c->n_misses = c->issued = c->n_pending = c->n_group = 0;
    c->began = false;
    c->error = (marco_error){0};
    for (int64_t j = 0; j < n; j++) {
        int32_t i = c->where[layer * c->n_experts + experts[j]];
        if (i < 0) {
            c->misses[c->n_misses++] = experts[j];
            continue;
        }
        c->hits[c->n_hits++] = experts[j];
        c->slots[i].busy = true;
        make_newest(c, i);
    }
    c->stats.hits += (uint64_t)c->n_hits;
    c->stats.misses += (uint64_t)c->n_misses;
    issue(c);
    pthread_mutex_unlock(&c->lock);
}

static slot *slot_of(model_cache *c, int32_t expert)
{
    return &c->slots[c->where[c->layer * c->n_experts + expert]];
}

/* Moves what is complete from `pending` to `group`, the lock held. True where a read failed. */
static bool collect(model_cache *c)
{
    int64_t kept = 0;
    bool failed = false;
    for (int64_t j = 0; j < c->n_pending; j++) {
        const slot *s = slot_of(c, c->pending[j]);
        failed |= s->failed;
        if (s->pieces_left == 0 && !s->failed)
            c->group[c->n_group++] = c->pending[j];
        else
            c->pending[kept++] = c->pending[j];
    }
    c->n_pending = kept;
    return failed;
}

/* Ends a step that cannot go on, the lock held: what was read whole stays, the rest is forgotten.
 */
static void abandon(model_cache *c)
{
    while (c->in_flight > 0)
        pthread_cond_wait(&c->ready, &c->lock);
    for (int64_t i = 0; i < c->n_slots; i++) {
        slot *s = &c->slots[i];
        s->busy = false;
        if (s->failed && s->key >= 0) {
            empty_slot(c, (int32_t)i);
            make_oldest(c, (int32_t)i);
        }
    }
    c->n_pending = c->n_group = 0;
    c->issued = c->n_misses;
}

/* The next group into c->group, the lock held. */
static marco_status find_group(model_cache *c, marco_error *error)
{
    for (int64_t j = 0; j < c->n_group; j++)
        slot_of(c, c->group[j])->busy = false;
    c->n_group = 0;
    issue(c);
    if (!c->began && c->n_hits > 0) {
        memcpy(c->group, c->hits, (size_t)c->n_hits * sizeof *c->group);
        c->n_group = c->n_hits;
        c->began = true;
        return MARCO_OK;
    }
    double from = base_now();
    for (;;) {
        bool failed = collect(c);
        if (failed) {
            abandon(c);
            if (error)
                *error = c->error;
            return c->error.status;
        }
        if (c->n_group > 0 || c->n_pending == 0)
            break;
        pthread_cond_wait(&c->ready, &c->lock);
    }
    c->stats.wait_seconds += base_now() - from;
    return MARCO_OK;
}

marco_status model_cache_next(model_cache *c, const int32_t **experts, int64_t *n,
                              marco_error *error)
{
    pthread_mutex_lock(&c->lock);
    marco_status status = find_group(c, error);
    pthread_mutex_unlock(&c->lock);
    *experts = c->group;
    *n = c->n_group;
    return status;
}

/* ---- the whole ------------------------------------------------------------------------------- */

void model_cache_limit(model_cache *c, int64_t n)
{
    n = n < 1 ? 1 : n > c->n_slots ? c->n_slots : n;
    pthread_mutex_lock(&c->lock);
    for (; c->limit > n; c->limit--) {
        int32_t i = oldest(c);
        empty_slot(c, i);
        unlink_slot(c, i);
        base_region_drop(c->memory + (size_t)i * c->slot_bytes, c->slot_bytes);
        c->parked[c->n_parked++] = i;
    }
    for (; c->limit < n; c->limit++) {
        int32_t i = c->parked[--c->n_parked], head = (int32_t)c->n_slots;
        link_slot(c, i, head, c->slots[head].newer);
        base_region_retake(c->memory + (size_t)i * c->slot_bytes, c->slot_bytes);
    }
    pthread_mutex_unlock(&c->lock);
}

void model_cache_stats_get(model_cache *c, model_cache_stats *stats)
{
    pthread_mutex_lock(&c->lock);
    *stats = c->stats;
    stats->slots = c->limit;
    pthread_mutex_unlock(&c->lock);
}

static size_t largest_slot(const model_weights *w)
{
    uint64_t largest = 0;
    for (int32_t i = 0; i < w->config.n_layers; i++) {
        const model_matrix *parts[PARTS];
        parts_of(&w->layers[i], parts);
        if (!parts[0]->at)
            continue; /* a dense layer */
        uint64_t bytes = model_cache_slot_bytes(part_bytes(parts[0]), part_bytes(parts[1]),
                                                part_bytes(parts[2]));
        largest = bytes > largest ? bytes : largest;
    }
    return (size_t)largest;
}

static marco_status start_readers(model_cache *c, marco_error *error)
{
    for (; c->n_readers < READERS; c->n_readers++) {
        struct reader *r = &c->readers[c->n_readers];
        *r = (struct reader){.cache = c, .buffer = c->buffers + c->n_readers * BUFFER_BYTES};
        if (pthread_create(&r->thread, NULL, reader_main, r) != 0)
            return base_fail(error, MARCO_ERROR_MEMORY,
                             "cannot start thread %d of %d that read experts: the system's limit "
                             "on threads or memory is reached",
                             c->n_readers + 1, READERS);
    }
    return MARCO_OK;
}

static marco_status take_memory(model_cache *c, marco_error *error)
{
    size_t n = (size_t)c->n_slots, x = (size_t)c->n_experts, bytes;
    size_t keys = (size_t)c->weights->config.n_layers * x;
    if (__builtin_mul_overflow(n, c->slot_bytes, &bytes))
        bytes = 0;
    c->slots = base_alloc_array(n + 1, sizeof *c->slots);
    for (size_t i = 0; c->slots && i <= n; i++) /* also where what follows fails */
        c->slots[i] = (slot){
            .key = -1, .older = (int32_t)(i ? i - 1 : n), .newer = (int32_t)(i < n ? i + 1 : 0)};
    c->where = base_alloc_array(keys, sizeof *c->where);
    c->queue = base_alloc_array(2 * n + 4 * x, sizeof *c->queue);
    c->memory = bytes ? base_region_alloc(bytes) : NULL;
    c->buffers = base_region_alloc((size_t)READERS * BUFFER_BYTES);
    if (!c->slots || !c->where || !c->queue || !c->memory || !c->buffers)
        return base_fail_memory(error, bytes, "the cache of experts");
    c->parked = c->queue + n;
    c->hits = c->parked + n;
    c->misses = c->hits + x;
    c->pending = c->misses + x;
    c->group = c->pending + x;
    for (size_t i = 0; i < keys; i++)
        c->where[i] = -1;
    return MARCO_OK;
}

marco_status model_cache_create(model_weights *weights, int64_t slots, model_cache_read_fn read,
                                void *user, model_cache **out, marco_error *error)
{
    model_cache *c = base_calloc(1, sizeof *c);
    if (!c)
        return base_fail_memory(error, sizeof *c, "the cache of experts");
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->work, NULL);
    pthread_cond_init(&c->ready, NULL);
    c->weights = weights;
    c->read = read ? read : read_from_file;
    c->user = user;
    c->n_experts = weights->config.n_experts;
    c->n_slots = c->limit = slots;
    c->slot_bytes = largest_slot(weights);
    marco_status status = take_memory(c, error);
    if (!status)
        status = start_readers(c, error);
    if (status)
        model_cache_free(c);
    else
        *out = c;
    return status;
}

void model_cache_free(model_cache *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->lock);
    for (int i = 0; i < c->n_readers; i++)
        pthread_join(c->readers[i].thread, NULL);
    for (int64_t i = 0; c->slots && i < c->n_slots; i++)
        empty_slot(c, (int32_t)i);
    pthread_cond_destroy(&c->ready);
    pthread_cond_destroy(&c->work);
    pthread_mutex_destroy(&c->lock);
    base_region_free(c->memory, (size_t)c->n_slots * c->slot_bytes);
    base_region_free(c->buffers, (size_t)READERS * BUFFER_BYTES);
    base_free(c->slots);
    base_free(c->where);
    base_free(c->queue);
    base_free(c);
}
