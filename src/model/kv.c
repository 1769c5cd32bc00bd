#include "model/kv.h"

#include <stdatomic.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"

bool model_kv_fits(const model_config *config, tensor_type type)
{
    return config->head_dim % tensor_traits_of(type)->block == 0;
}

void model_kv_init(model_kv *kv, const model_config *config, tensor_type type)
{
    *kv = (model_kv){.n_layers = config->n_layers,
                     .n_heads = config->n_kv_heads,
                     .dim = config->head_dim,
                     .type = type};
    kv->tile_bytes = MODEL_KV_PAGE * tensor_row_bytes(type, kv->dim);
    kv->page_bytes = (size_t)(2 * kv->n_layers * kv->n_heads) * kv->tile_bytes;
}

void model_kv_free(model_kv *kv)
{
    model_kv_shrink(kv, 0);
    base_free(kv->pages);
    *kv = (model_kv){0};
}

/* Behind a page's tiles, in the same region. */
typedef struct page_tail {
    uint32_t holders; /* caches */
    uint32_t round;   /* of the latest count */
    uint64_t number;  /* in that round, where it numbered them */
} page_tail;

static page_tail *tail_of(const model_kv *kv, uint8_t *page)
{
    return (page_tail *)(void *)(page + kv->page_bytes);
}

static uint8_t *make_page(model_kv *kv, marco_error *error)
{
    /* Not from the heap, which may keep what it is given back: its room is another's then. */
    uint8_t *page = base_region_alloc(kv->page_bytes + sizeof(page_tail));
    if (!page) {
        base_fail_memory(error, kv->page_bytes, "the KV cache");
        return NULL;
    }
    tail_of(kv, page)->holders = 1;
    if (kv->total)
        atomic_fetch_add_explicit(kv->total, kv->page_bytes, memory_order_relaxed);
    return page;
}

static void release_page(model_kv *kv, uint8_t *page)
{
    if (--tail_of(kv, page)->holders > 0)
        return;
    if (kv->total)
        atomic_fetch_sub_explicit(kv->total, kv->page_bytes, memory_order_relaxed);
    base_region_free(page, kv->page_bytes + sizeof(page_tail));
}

/* A page of its own with the same contents. */
static marco_status unshare(model_kv *kv, size_t i, marco_error *error)
{
    uint8_t *old = kv->pages[i];
    if (tail_of(kv, old)->holders == 1)
        return MARCO_OK;
    kv->pages[i] = make_page(kv, error);
    if (!kv->pages[i]) {
        kv->pages[i] = old;
        return MARCO_ERROR_MEMORY;
    }
    memcpy(kv->pages[i], old, kv->page_bytes);
    release_page(kv, old);
    return MARCO_OK;
}

static marco_status grow_list(model_kv *kv, size_t need, marco_error *error)
{
    void *pages = kv->pages;
    if (!base_grow(&pages, &kv->capacity, need, sizeof *kv->pages))
        return base_fail_memory(error, need * sizeof *kv->pages, "the KV cache");
    kv->pages = pages;
    return MARCO_OK;
}

marco_status model_kv_reserve(model_kv *kv, int64_t first, int64_t n, marco_error *error)
{
    size_t need = (size_t)((n + MODEL_KV_PAGE - 1) / MODEL_KV_PAGE);
    marco_status status = grow_list(kv, need, error);
    for (size_t i = (size_t)(first / MODEL_KV_PAGE); i < kv->n_pages && i < need && !status; i++)
        status = unshare(kv, i, error);
    for (; kv->n_pages < need && !status; kv->n_pages++) {
        kv->pages[kv->n_pages] = make_page(kv, error);
        if (!kv->pages[kv->n_pages])
            return MARCO_ERROR_MEMORY;
    }
    return status;
}

marco_status model_kv_share(model_kv *kv, const model_kv *from, int64_t n, marco_error *error)
{
    size_t whole = (size_t)(n / MODEL_KV_PAGE), rest = (size_t)(n % MODEL_KV_PAGE);
    marco_status status = grow_list(kv, whole + 1, error);
    if (status)
        return status;
    for (; kv->n_pages < whole; kv->n_pages++) {
        kv->pages[kv->n_pages] = from->pages[kv->n_pages];
        tail_of(kv, kv->pages[kv->n_pages])->holders++;
    }
    if (rest == 0)
        return MARCO_OK;
    uint8_t *page = make_page(kv, error);
    if (!page) {
        model_kv_shrink(kv, 0);
        return MARCO_ERROR_MEMORY;
    }
    memcpy(page, from->pages[whole], kv->page_bytes);
    kv->pages[kv->n_pages++] = page;
    return MARCO_OK;
}

uint8_t *model_kv_append(model_kv *kv, uint8_t *page, marco_error *error)
{
    if (grow_list(kv, kv->n_pages + 1, error))
        return NULL;
    if (page)
        tail_of(kv, page)->holders++;
    else
        page = make_page(kv, error);
    if (page)
        kv->pages[kv->n_pages++] = page;
    return page;
}

uint64_t model_kv_number(model_kv *kv, size_t i, uint32_t round, uint64_t *next)
{
    page_tail *tail = tail_of(kv, kv->pages[i]);
    if (tail->round != round)
        tail->number = (*next)++;
    tail->round = round;
    return tail->number;
}

uint64_t model_kv_count(model_kv *kv, uint32_t round)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < kv->n_pages; i++) {
        page_tail *tail = tail_of(kv, kv->pages[i]);
        bytes += tail->round == round ? 0 : kv->page_bytes;
        tail->round = round;
    }
    return bytes;
}

void model_kv_shrink(model_kv *kv, int64_t n)
{
    size_t keep = (size_t)((n + MODEL_KV_PAGE - 1) / MODEL_KV_PAGE);
    while (kv->n_pages > keep)
        release_page(kv, kv->pages[--kv->n_pages]);
}

uint64_t model_kv_bytes(const model_kv *kv)
{
    return (uint64_t)kv->n_pages * kv->page_bytes;
}

/* ---- random contents ----------------------------------------------------------------------- */

typedef struct fill_task {
    model_kv *kv;
    const kern_table *kernels;
    int64_t first, end;
    uint64_t seed;
    float *rows; /* [threads, dim] */
} fill_task;

/* x[i] = number i of the stream, uniform with mean 0 and deviation 1: mixed 32 bits wide, which
 * compilers make vectors of. (The multipliers are those of "lowbias32" in Wellons'
 * hash-prospector.)
 */
static void draw(float *restrict x, int64_t n, uint32_t key)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t z = key + (uint32_t)i * 0x9E3779B9u;
        z = (z ^ z >> 16) * 0x7FEB352Du;
        z = (z ^ z >> 15) * 0x846CA68Bu;
        z ^= z >> 16;
        x[i] = (float)(int32_t)z * 0x1.bb67aep-31f; /* the root of 3, over 2^31 */
    }
}

/* One layer of one page. */
static void fill_part(void *user, int64_t part, int thread)
{
    fill_task *t = user;
    model_kv *kv = t->kv;
    int64_t layer = part % kv->n_layers, page = t->first / MODEL_KV_PAGE + part / kv->n_layers;
    int64_t start = page * MODEL_KV_PAGE;
    int64_t from = t->first > start ? t->first : start;
    int64_t to = t->end < start + MODEL_KV_PAGE ? t->end : start + MODEL_KV_PAGE;
    float *x = t->rows + thread * kv->dim;
    for (int64_t head = 0; head < kv->n_heads; head++) {
        uint8_t *tile = model_kv_tile(kv, page, layer, head);
        for (int64_t p = from; p < to; p++) {
            uint64_t row = (uint64_t)((p * kv->n_layers + layer) * kv->n_heads + head);
            uint64_t key = base_random_u64(t->seed, 0, row);
            draw(x, kv->dim, (uint32_t)key);
            kern_tile_put_key(t->kernels, kv->type, x, kv->dim, p - start, tile);
            draw(x, kv->dim, (uint32_t)(key >> 32));
            kern_tile_put_value(t->kernels, kv->type, x, kv->dim, p - start, tile + kv->tile_bytes);
        }
    }
}

marco_status model_kv_fill(model_kv *kv, const kern_table *kernels, base_pool *pool, int64_t first,
                           int64_t end, uint64_t seed, marco_error *error)
{
    size_t n = (size_t)base_pool_threads(pool) * (size_t)kv->dim;
    float *rows = base_alloc_array(n, sizeof *rows);
    if (!rows)
        return base_fail_memory(error, n * sizeof *rows, "filling the KV cache");
    fill_task task = {kv, kernels, first, end, seed, rows};
    int64_t pages = (end - 1) / MODEL_KV_PAGE - first / MODEL_KV_PAGE + 1;
    base_pool_run(pool, fill_part, &task, pages * kv->n_layers);
    base_free(rows);
    return MARCO_OK;
}
