#ifndef INFER_INTERNAL_H
#define INFER_INTERNAL_H

#include <pthread.h>

#include "infer/timeline.h"
#include "marco/scheduler.h"
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

/* Refuses what no session can have; 0 and AUTO are the defaults. */
marco_status infer_session_check(const marco_engine *engine, int32_t n_ctx, int32_t chunk,
                                 marco_kv_type kv_type, marco_error *error);

/* Tokens of a pass: those asked for (0: the default), or fewer where its buffers would be large
 * beside the model's own size. No result depends on it. */
int32_t infer_fit_chunk(const marco_engine *engine, const model_context *context, int32_t asked);

/* Where memory is bounded, what the buffers of passes may take of what is left, most of which is
 * the cache of experts': bytes; and the tokens of a pass that come to so much, the least granted
 * in any case. The engine's turn is the caller's. */
uint64_t infer_room_part(const marco_engine *engine, tensor_type kv_type);
int32_t infer_room_chunk(const model_context *context, uint64_t bytes, int32_t asked);

/* Of that, what a sampler sorts: free for the use of those who sample nothing. */
uint64_t infer_sampler_bytes(const model_config *config);

/* Refuses values out of range by name. */
marco_status infer_sampler_check(const marco_sampling *sampling, int32_t n_vocab,
                                 marco_error *error);

/* marco_sampler_pick among the ids whose bit of the mask is set (grammar.h); NULL: all. */
marco_status infer_sampler_pick(marco_sampler *sampler, const float *logits, const uint32_t *mask,
                                int32_t *id, marco_error *error);

/* The score of an id under logits [n_vocab], and the n_top likeliest into top. Equal logits: the
 * lower id first. */
float infer_score(const float *logits, int32_t n_vocab, int32_t id, marco_token_score *top,
                  int32_t n_top);

/* Takes bytes of the plan's room, from the cache of experts where there is one.
 * Refuses what would leave it less than a pass needs: `what` is "the session", "a context of 4096
 * tokens". The engine's turn is the caller's. */
marco_status infer_take(marco_engine *engine, uint64_t bytes, const char *what, marco_error *error);
void infer_give_back(marco_engine *engine, uint64_t bytes);

/* The cache's type that `type` means with this engine. */
tensor_type infer_kv_type(const marco_engine *engine, marco_kv_type type);

#endif
