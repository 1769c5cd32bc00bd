#include "model/kv.h"

#include "base/error.h"
#include "base/memory.h"

void model_kv_init(model_kv *kv, const model_config *config, bool f32)
{
    *kv = (model_kv){.n_layers = config->n_layers,
                     .n_heads = config->n_kv_heads,
                     .dim = config->head_dim,
                     .f32 = f32};
    kv->head_bytes = (size_t)(MODEL_KV_PAGE * kv->dim) * (f32 ? sizeof(float) : sizeof(uint16_t));
    kv->page_bytes = (size_t)(2 * kv->n_layers * kv->n_heads) * kv->head_bytes;
}

void model_kv_free(model_kv *kv)
{
    model_kv_shrink(kv, 0);
    base_free(kv->pages);
    *kv = (model_kv){0};
}

marco_status model_kv_reserve(model_kv *kv, int64_t n, marco_error *error)
{
    size_t need = (size_t)((n + MODEL_KV_PAGE - 1) / MODEL_KV_PAGE);
    void *pages = kv->pages;
    if (!base_grow(&pages, &kv->capacity, need, sizeof *kv->pages))
        return base_fail_memory(error, need * sizeof *kv->pages, "the KV cache");
    kv->pages = pages;
    for (; kv->n_pages < need; kv->n_pages++) {
        kv->pages[kv->n_pages] = base_alloc_aligned(kv->page_bytes);
        if (!kv->pages[kv->n_pages])
            return base_fail_memory(error, kv->page_bytes, "the KV cache");
    }
    return MARCO_OK;
}

void model_kv_shrink(model_kv *kv, int64_t n)
{
    size_t keep = (size_t)((n + MODEL_KV_PAGE - 1) / MODEL_KV_PAGE);
    while (kv->n_pages > keep)
        base_free(kv->pages[--kv->n_pages]);
}

uint64_t model_kv_bytes(const model_kv *kv)
{
    return (uint64_t)kv->n_pages * kv->page_bytes;
}
