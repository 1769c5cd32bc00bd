#ifndef INFER_INTERNAL_H
#define INFER_INTERNAL_H

#include <pthread.h>

#include "model/forward.h"

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
};

struct marco_session {
    marco_engine *engine;
    model_context *context;
    model_kv kv;
    int32_t n_ctx, chunk;
    marco_progress progress;
    int32_t *ids; /* [length] */
    size_t length, capacity;
    float *logits;   /* [n_vocab] */
    bool has_logits; /* they belong to the last token */
};

/* The cache's type that `type` means with this engine. */
tensor_type infer_kv_type(const marco_engine *engine, marco_kv_type type);

#endif
