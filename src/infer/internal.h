#ifndef INFER_INTERNAL_H
#define INFER_INTERNAL_H

#include <pthread.h>

#include "infer/timeline.h"
#include "model/expert_cache.h"
#include "model/forward.h"
#include "model/residency.h"

enum { INFER_MAX_END = MODEL_MAX_EOS + 4 };

struct marco_engine {
    model_weights *weights;
    marco_tokenizer *tokenizer;
    const kern_table *kernels;
    base_pool *pool;
    pthread_mutex_t turn; /* one forward pass at a time has the pool */
    bool f32;
    marco_model_info info;
    char *info_text;            /* memory of info's strings */
    int32_t end[INFER_MAX_END]; /* ids that end a reply */
    int32_t n_end;
    model_plan plan;
    uint64_t taken;            /* of the plan's room, by sessions; under `turn` */
    _Atomic uint64_t kv_bytes; /* of all KV caches, shared pages once */
};

struct marco_session {
    marco_engine *engine;
    model_context *context;
    infer_timeline line;
    int32_t chunk;
    marco_progress progress;
    uint64_t taken;  /* of the engine's room, beside the timeline's */
    float *logits;   /* [n_vocab] */
    bool has_logits; /* they belong to the last token */
};

/* The least that a session needs: bytes. */
uint64_t infer_session_least(const model_config *config, int threads, tensor_type kv_type);

/* Of that, what a sampler sorts: free for the use of those who sample nothing. */
uint64_t infer_sampler_bytes(const model_config *config);

/* Takes bytes of the plan's room, from the cache of experts where there is one.
 * Refuses what would leave it less than a pass needs: `what` is "the session", "a context of 4096
 * tokens". The engine's turn is the caller's. */
marco_status infer_take(marco_engine *engine, uint64_t bytes, const char *what, marco_error *error);
void infer_give_back(marco_engine *engine, uint64_t bytes);

/* The cache's type that `type` means with this engine. */
tensor_type infer_kv_type(const marco_engine *engine, marco_kv_type type);

#endif
