/* The key/value cache of one timeline: pages of MODEL_KV_PAGE positions, made when they are
 * reached. Attention reads it page by page, at absolute positions, whatever the batch. */
#ifndef MODEL_KV_H
#define MODEL_KV_H

#include "model/config.h"

enum { MODEL_KV_PAGE = 64 };

typedef struct model_kv {
    int64_t n_layers, n_heads, dim; /* KV heads and their size */
    bool f32;                       /* else F16 */
    size_t head_bytes;              /* of K (or V) of one head and page: [MODEL_KV_PAGE, dim] */
    size_t page_bytes;              /* all layers, K and V */
    uint8_t **pages;                /* [n_pages] */
    size_t n_pages, capacity;
} model_kv;

void model_kv_init(model_kv *kv, const model_config *config, bool f32);
void model_kv_free(model_kv *kv);

/* Makes room for positions 0 .. n-1. */
marco_status model_kv_reserve(model_kv *kv, int64_t n, marco_error *error);

/* Releases the pages that positions 0 .. n-1 do not need. */
void model_kv_shrink(model_kv *kv, int64_t n);

uint64_t model_kv_bytes(const model_kv *kv);

/* [MODEL_KV_PAGE, dim] of float or uint16_t (F16): the keys, or the values. */
static inline void *model_kv_keys(const model_kv *kv, int64_t page, int64_t layer, int64_t head)
{
    return kv->pages[page] + (size_t)(layer * 2 * kv->n_heads + head) * kv->head_bytes;
}

static inline void *model_kv_values(const model_kv *kv, int64_t page, int64_t layer, int64_t head)
{
    return kv->pages[page] + (size_t)((layer * 2 + 1) * kv->n_heads + head) * kv->head_bytes;
}

#endif
