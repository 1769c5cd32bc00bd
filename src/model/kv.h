/* The key/value cache of one timeline: pages of MODEL_KV_PAGE positions, made when they are
 * reached. Attention reads it page by page, at absolute positions, whatever the batch. */
#ifndef MODEL_KV_H
#define MODEL_KV_H

#include "base/pool.h"
#include "kernels/kernels.h"
#include "model/config.h"

enum { MODEL_KV_PAGE = KERN_TILE };

typedef struct model_kv {
    int64_t n_layers, n_heads, dim; /* KV heads and their size */
    tensor_type type;               /* F32, F16 or Q8_0 */
    size_t tile_bytes;              /* of the keys, or the values, of one head and page */
    size_t page_bytes;              /* all layers, keys and values */
    uint8_t **pages;                /* [n_pages], possibly shared with other caches */
    size_t n_pages, capacity;
    _Atomic uint64_t
        *total; /* bytes of the pages of all caches that count there; NULL: nobody does */
} model_kv;

/* Can heads of this model be kept in `type`? Q8_0 has blocks of 32 along a head. */
bool model_kv_fits(const model_config *config, tensor_type type);

void model_kv_init(model_kv *kv, const model_config *config, tensor_type type);
void model_kv_free(model_kv *kv);

/* Makes room for positions 0 .. n-1, those from `first` on to be written: a page that others share
 * is replaced by a copy of its own. */
marco_status model_kv_reserve(model_kv *kv, int64_t first, int64_t n, marco_error *error);

/* Makes `kv`, which is empty and of the same model and type, hold positions 0 .. n-1 of `from`:
 * whole pages are shared from here on, the rest of the last one is copied. On failure it stays
 * empty. One thread at a time may use caches that share pages. */
marco_status model_kv_share(model_kv *kv, const model_kv *from, int64_t n, marco_error *error);

/* Counts bytes of pages once each, whichever caches hold them: those of this cache that no call
 * with the same `round` (not 0) has seen. */
uint64_t model_kv_count(model_kv *kv, uint32_t round);

/* Releases the pages that positions 0 .. n-1 do not need. */
void model_kv_shrink(model_kv *kv, int64_t n);

uint64_t model_kv_bytes(const model_kv *kv);

/* Fills positions first .. end - 1 (first < end), for which there is room, with random numbers of
 * mean 0 and deviation 1 that depend on the seed and on their place alone. */
marco_status model_kv_fill(model_kv *kv, const kern_table *kernels, base_pool *pool, int64_t first,
                           int64_t end, uint64_t seed, marco_error *error);

/* Adds a page: `page`, which another cache of the same model and type holds, shared from here on,
 * or a new one where that is NULL. Returns it, NULL where memory is short. */
uint8_t *model_kv_append(model_kv *kv, uint8_t *page, marco_error *error);

/* Numbers pages in the order they are met, whichever caches hold them: page i's number of this
 * `round` (as in model_kv_count), *next where it is new, which then grows. */
uint64_t model_kv_number(model_kv *kv, size_t i, uint32_t round, uint64_t *next);

/* The keys of one head and page; its values lie tile_bytes after them. Tiles: kernels.h. */
static inline uint8_t *model_kv_tile(const model_kv *kv, int64_t page, int64_t layer, int64_t head)
{
    return kv->pages[page] + (size_t)((layer * kv->n_heads + head) * 2) * kv->tile_bytes;
}

#endif
