/* One timeline of tokens and its key/value cache: what a session, and a scheduler's request, add
 * passes to. Its pages count among those of the engine, its room among the plan's; whoever calls
 * here has the engine's turn, where nothing else is said. */
#ifndef INFER_TIMELINE_H
#define INFER_TIMELINE_H

#include "model/kv.h"

typedef struct infer_timeline {
    marco_engine *engine;
    model_kv kv;
    int32_t n_ctx;
    int32_t *ids;  /* [length], and behind them those accepted but not counted in yet */
    size_t length; /* tokens whose keys and values the cache holds */
    size_t capacity;
    uint64_t kv_taken; /* of the engine's room */
    uint64_t kv_least; /* of that what is kept until the end */
} infer_timeline;

/* An empty one; needs no turn. */
void infer_timeline_init(infer_timeline *t, marco_engine *engine, tensor_type type, int32_t n_ctx);
void infer_timeline_free(infer_timeline *t);

/* Everything that can be refused before any work is done: puts n >= 1 ids behind the others without
 * counting them in. Needs no turn. */
marco_status infer_timeline_accept(infer_timeline *t, const int32_t *ids, size_t n,
                                   marco_error *error);

/* Takes room, and makes pages, for n tokens in all. On failure it is as before. */
marco_status infer_timeline_reserve(infer_timeline *t, size_t n, marco_error *error);

/* Forgets all but the first n tokens, and gives back what those do not need. */
void infer_timeline_truncate(infer_timeline *t, size_t n);

/* Makes an empty timeline hold the first n tokens of `from`, sharing its pages. On failure it stays
 * empty. */
marco_status infer_timeline_share(infer_timeline *t, const infer_timeline *from, size_t n,
                                  marco_error *error);

/* Bytes of cache for n tokens. */
uint64_t infer_kv_bytes(const model_kv *kv, int64_t n);

#endif
