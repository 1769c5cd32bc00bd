#include "infer/timeline.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "infer/internal.h"

uint64_t infer_kv_bytes(const model_kv *kv, int64_t n)
{
    return (uint64_t)((n + MODEL_KV_PAGE - 1) / MODEL_KV_PAGE) * kv->page_bytes;
}

void infer_timeline_init(infer_timeline *t, marco_engine *engine, tensor_type type, int32_t n_ctx)
{
    *t = (infer_timeline){.engine = engine, .n_ctx = n_ctx};
    model_kv_init(&t->kv, &engine->weights->config, type);
    t->kv.total = &engine->kv_bytes;
}

void infer_timeline_free(infer_timeline *t)
{
    if (!t->engine)
        return;
    model_kv_free(&t->kv);
    base_free(t->ids);
    infer_give_back(t->engine, t->kv_taken);
    *t = (infer_timeline){0};
}

/* Is there room for n more tokens? */
static marco_status check_room(const infer_timeline *t, size_t n, marco_error *error)
{
    if (n <= (size_t)t->n_ctx - t->length)
        return MARCO_OK;
    return base_fail(error, MARCO_ERROR_CONTEXT,
                     "%zu tokens do not fit: the context holds %d and %zu are in use; shorten "
                     "the text or, up to %d, ask for a larger context",
                     n, t->n_ctx, t->length, t->engine->weights->config.n_ctx_train);
}

marco_status infer_timeline_accept(infer_timeline *t, const int32_t *ids, size_t n,
                                   marco_error *error)
{
    int32_t n_vocab = t->engine->weights->config.n_vocab;
    if (n == 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "the prompt is empty: nothing to evaluate");
    marco_status status = check_room(t, n, error);
    if (status)
        return status;
    for (size_t i = 0; ids && i < n; i++)
        if (ids[i] < 0 || ids[i] >= n_vocab)
            return base_fail(error, MARCO_ERROR_ARGUMENT,
                             "id %d at position %zu is outside the vocabulary of %d", ids[i],
                             t->length + i, n_vocab);
    /* The ids may be the timeline's own, which growing may move. */
    bool own = t->ids && ids >= t->ids && ids < t->ids + t->capacity;
    size_t offset = own ? (size_t)(ids - t->ids) : 0;
    void *grown = t->ids;
    if (!base_grow(&grown, &t->capacity, t->length + n, sizeof *t->ids))
        return base_fail_memory(error, n * sizeof *t->ids, "the session's tokens");
    t->ids = grown;
    if (ids)
        memmove(t->ids + t->length, own ? t->ids + offset : ids, n * sizeof *ids);
    else
        memset(t->ids + t->length, 0, n * sizeof *ids);
    return MARCO_OK;
}

/* The plan's room for a context of n tokens. */
static marco_status take_room(infer_timeline *t, size_t n, marco_error *error)
{
    uint64_t need = infer_kv_bytes(&t->kv, (int64_t)n);
    char what[64];
    if (need <= t->kv_taken || t->engine->plan.room == UINT64_MAX)
        return MARCO_OK;
    snprintf(what, sizeof what, "a context of %zu tokens", n);
    marco_status status = infer_take(t->engine, need - t->kv_taken, what, error);
    if (!status)
        t->kv_taken = need;
    return status;
}

marco_status infer_timeline_reserve(infer_timeline *t, size_t n, marco_error *error)
{
    marco_status status = take_room(t, n, error);
    if (!status)
        status = model_kv_reserve(&t->kv, (int64_t)t->length, (int64_t)n, error);
    if (status)
        infer_timeline_truncate(t, t->length);
    return status;
}

void infer_timeline_truncate(infer_timeline *t, size_t n)
{
    uint64_t need = infer_kv_bytes(&t->kv, (int64_t)n);
    need = need > t->kv_least ? need : t->kv_least;
    t->length = n;
    model_kv_shrink(&t->kv, (int64_t)n);
    if (need >= t->kv_taken)
        return;
    infer_give_back(t->engine, t->kv_taken - need);
    t->kv_taken = need;
}

marco_status infer_timeline_share(infer_timeline *t, const infer_timeline *from, size_t n,
                                  marco_error *error)
{
    marco_status status = infer_timeline_accept(t, from->ids, n, error);
    if (!status)
        status = take_room(t, n, error);
    if (!status)
        status = model_kv_share(&t->kv, &from->kv, (int64_t)n, error);
    if (status) {
        infer_timeline_truncate(t, 0);
        return status;
    }
    t->length = n;
    return MARCO_OK;
}
