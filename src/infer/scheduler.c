/* The scheduler's public face and its worker. */
#include "infer/scheduler.h"

#include "base/available.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/time.h"

enum { MAX_PARALLEL = 256, DEFAULT_PARALLEL = 8, DEFAULT_QUEUE = 64 };

marco_scheduler_params marco_scheduler_params_default(void)
{
    const uint64_t most = (uint64_t)8 << 30;
    uint64_t cache = base_memory_available() / 8;
    return (marco_scheduler_params){.cache_bytes = cache < most ? cache : most};
}

/* ---- the worker ---------------------------------------------------------------------------- */

static void publish(marco_scheduler *s, bool busy)
{
    pthread_mutex_lock(&s->lock);
    int32_t waiting = s->stats.waiting;
    s->stats = s->now;
    s->stats.waiting = waiting;
    s->stats.active = (int32_t)s->n_active;
    s->stats.cache_entries = s->prefixes.n;
    s->busy = busy;
    if (!busy)
        pthread_cond_broadcast(&s->rested);
    pthread_mutex_unlock(&s->lock);
}

/* Ends everything that is active or waits. */
static void cancel_all(marco_scheduler *s)
{
    infer_reading_abandon(s);
    while (s->n_active > 0)
        infer_scheduler_retire(s, s->active[s->n_active - 1], MARCO_OK, NULL,
                               MARCO_FINISH_CANCELLED);
    pthread_mutex_lock(&s->lock);
    infer_group *group = s->queue;
    s->queue = NULL;
    s->stats.waiting = 0;
    pthread_mutex_unlock(&s->lock);
    while (group) {
        infer_group *next = group->next;
        for (; group->begun < group->n; group->begun++)
            infer_request_finish(group->requests[group->begun], MARCO_OK, NULL,
                                 MARCO_FINISH_CANCELLED);
        base_free(group->requests);
        base_free(group);
        group = next;
    }
}

static void *work(void *user)
{
    marco_scheduler *s = user;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        while (!s->closing && !s->queue && s->n_active == 0)
            pthread_cond_wait(&s->wake, &s->lock);
        bool closing = s->closing;
        s->busy = true;
        pthread_mutex_unlock(&s->lock);
        if (closing)
            break;
        infer_scheduler_step(s);
        publish(s, s->n_active > 0);
    }
    cancel_all(s);
    publish(s, false);
    return NULL;
}

/* ---- making one ---------------------------------------------------------------------------- */

static marco_status fill_in(marco_scheduler *s, const marco_scheduler_params *params,
                            marco_error *error)
{
    marco_scheduler_params *p = &s->params;
    *p = *params;
    p->parallel = p->parallel ? p->parallel : DEFAULT_PARALLEL;
    p->queue = p->queue ? p->queue : DEFAULT_QUEUE;
    p->kv_bytes = p->kv_bytes ? p->kv_bytes : base_memory_available() / 4 * 3;
    if (p->parallel < 1 || p->parallel > MAX_PARALLEL)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "parallel: %d is not between 1 and %d",
                         p->parallel, MAX_PARALLEL);
    if (p->queue < 1)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "queue: %d is less than 1", p->queue);
    marco_status status = infer_session_check(s->engine, p->n_ctx, p->chunk, p->kv_type, error);
    s->kv_type = status ? TENSOR_F32 : infer_kv_type(s->engine, p->kv_type);
    return status;
}

/* What it needs of the engine's room beside KV caches: two contexts, logits, samplers. */
static marco_status take_room(marco_scheduler *s, marco_error *error)
{
    marco_engine *engine = s->engine;
    const model_config *c = &engine->weights->config;
    int threads = base_pool_threads(engine->pool);
    uint64_t each = (uint64_t)c->n_vocab * sizeof *s->logits + infer_sampler_bytes(c);
    s->params.chunk = infer_fit_chunk(engine, s->reading.context, s->params.chunk);
    if (engine->plan.room == UINT64_MAX)
        return MARCO_OK;
    pthread_mutex_lock(&engine->turn);
    uint64_t part = infer_room_part(engine, s->kv_type);
    s->params.chunk = infer_room_chunk(s->reading.context, part, s->params.chunk);
    uint64_t bytes = model_context_bytes(c, threads, s->params.parallel) +
                     model_context_bytes(c, threads, s->params.chunk) +
                     (uint64_t)s->params.parallel * each;
    marco_status status = infer_take(engine, bytes, "a scheduler", error);
    s->taken = status ? 0 : bytes;
    pthread_mutex_unlock(&engine->turn);
    return status;
}

static marco_status allocate(marco_scheduler *s, marco_error *error)
{
    marco_engine *engine = s->engine;
    size_t n = (size_t)s->params.parallel;
    s->active = base_alloc_array(n, sizeof *s->active);
    s->rows = base_alloc_array(n, sizeof *s->rows);
    s->sequences = base_alloc_array(n, sizeof *s->sequences);
    s->reading.requests = base_alloc_array(n, sizeof *s->reading.requests);
    s->reading.counts = base_alloc_array(n, sizeof *s->reading.counts);
    s->prefixes.limit = s->params.cache_bytes;
    s->now.parallel = s->params.parallel;
    s->now.queue = s->params.queue;
    s->stats = s->now;
    if (!s->active || !s->rows || !s->sequences || !s->reading.requests || !s->reading.counts)
        return base_fail_memory(error, n * sizeof *s->sequences, "a scheduler");
    marco_status status = model_context_create(engine->weights, engine->kernels, engine->pool,
                                               engine->f32, &s->decoding, error);
    if (!status)
        status = model_context_create(engine->weights, engine->kernels, engine->pool, engine->f32,
                                      &s->reading.context, error);
    if (!status)
        status = grammar_vocab_create(engine->tokenizer, engine->weights->config.n_vocab,
                                      engine->end, engine->n_end, &s->vocab, &s->no_grammar);
    if (status == MARCO_ERROR_UNSUPPORTED)
        return MARCO_OK;
    if (status && error && s->no_grammar.status)
        *error = s->no_grammar;
    return status;
}

/* The context is no longer than one request alone has memory for: then each that is taken on can be
 * brought to its end. */
static marco_status fit_context(marco_scheduler *s, marco_error *error)
{
    const marco_engine *engine = s->engine;
    const model_plan *plan = &engine->plan;
    marco_scheduler_params *p = &s->params;
    uint64_t limit = p->kv_bytes;
    if (plan->room != UINT64_MAX) {
        uint64_t used = engine->taken;
        used +=
            plan->residency == MODEL_STREAMED ? (uint64_t)plan->least_slots * plan->slot_bytes : 0;
        uint64_t left = used < plan->room ? plan->room - used : 0;
        limit = left < limit ? left : limit;
    }
    model_kv kv;
    model_kv_init(&kv, &engine->weights->config, s->kv_type);
    uint64_t tokens = limit / kv.page_bytes * MODEL_KV_PAGE;
    int32_t asked = p->n_ctx ? p->n_ctx : engine->weights->config.n_ctx_train;
    if (tokens == 0 || (p->n_ctx && tokens < (uint64_t)asked))
        return base_fail(error, MARCO_ERROR_MEMORY,
                         "a context of %d tokens needs %llu MiB for its KV cache, and there are "
                         "%llu: ask for a context of %llu, or allow more memory",
                         asked, (unsigned long long)(infer_kv_bytes(&kv, asked) >> 20),
                         (unsigned long long)(limit >> 20), (unsigned long long)tokens);
    p->n_ctx = tokens < (uint64_t)asked ? (int32_t)tokens : asked;
    return MARCO_OK;
}

static void scheduler_free(marco_scheduler *s)
{
    pthread_mutex_lock(&s->engine->turn);
    infer_prefixes_free(&s->prefixes);
    infer_give_back(s->engine, s->taken);
    pthread_mutex_unlock(&s->engine->turn);
    model_context_free(s->decoding);
    model_context_free(s->reading.context);
    grammar_vocab_free(s->vocab);
    base_region_free(s->logits, s->logits_rows * (size_t)s->engine->weights->config.n_vocab *
                                    sizeof *s->logits);
    base_free(s->active);
    base_free(s->rows);
    base_free(s->sequences);
    base_free(s->reading.requests);
    base_free(s->reading.counts);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    pthread_cond_destroy(&s->rested);
    base_free(s);
}

marco_status marco_scheduler_create(marco_engine *engine, const marco_scheduler_params *params,
                                    marco_scheduler **out, marco_error *error)
{
    marco_scheduler_params defaults = marco_scheduler_params_default();
    if (!engine || !out)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "marco_scheduler_create: no engine, or no "
                         "out");
    *out = NULL;
    marco_scheduler *s = base_calloc(1, sizeof *s);
    if (!s)
        return base_fail_memory(error, sizeof *s, "a scheduler");
    s->engine = engine;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    pthread_cond_init(&s->rested, NULL);
    marco_status status = fill_in(s, params ? params : &defaults, error);
    if (!status)
        status = allocate(s, error);
    if (!status)
        status = take_room(s, error);
    if (!status)
        status = fit_context(s, error);
    s->reading.chunk = s->params.chunk;
    if (!status && pthread_create(&s->worker, NULL, work, s))
        status = base_fail(error, MARCO_ERROR_MEMORY, "the scheduler's thread cannot be started");
    if (status) {
        scheduler_free(s);
        return status;
    }
    *out = s;
    return MARCO_OK;
}

void marco_scheduler_close(marco_scheduler *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->worker, NULL);
    scheduler_free(s);
}

int32_t marco_scheduler_context(const marco_scheduler *s)
{
    return s->params.n_ctx;
}

/* ---- requests ------------------------------------------------------------------------------ */

static void free_group(infer_group *group)
{
    for (size_t i = 0; group && group->requests && i < group->n; i++)
        if (group->requests[i])
            infer_request_drop(group->requests[i]);
    if (group)
        base_free(group->requests);
    base_free(group);
}

static marco_status make_group(marco_scheduler *s, uint64_t client,
                               const marco_request_params *params, size_t n, infer_group **out,
                               marco_error *error)
{
    infer_group *group = base_calloc(1, sizeof *group);
    marco_status status = MARCO_OK;
    *out = group;
    if (group)
        group->requests = base_calloc(n, sizeof(marco_request *));
    if (!group || !group->requests)
        return base_fail_memory(error, n * sizeof(marco_request *), "requests");
    group->client = client;
    group->n = n;
    for (size_t i = 0; i < n && !status; i++)
        status = infer_request_create(s, &params[i], &group->requests[i], error);
    return status;
}

static marco_status enqueue(marco_scheduler *s, infer_group *group, marco_error *error)
{
    marco_status status = MARCO_OK;
    infer_group **last = &s->queue;
    pthread_mutex_lock(&s->lock);
    if (s->closing)
        status = base_fail(error, MARCO_ERROR_BUSY, "the scheduler is being closed");
    else if (s->stats.waiting >= s->params.queue)
        status = base_fail(error, MARCO_ERROR_BUSY,
                           "%d requests are waiting already, as many as may; try again later",
                           s->stats.waiting);
    if (!status) {
        while (*last)
            last = &(*last)->next;
        *last = group;
        s->live += group->n;
        s->stats.waiting++;
        pthread_cond_signal(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

marco_status marco_scheduler_submit(marco_scheduler *s, uint64_t client,
                                    const marco_request_params *params, size_t n,
                                    marco_request **requests, marco_error *error)
{
    if (!s || !params || !requests || n == 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "marco_scheduler_submit: an argument is NULL, or no request");
    infer_group *group;
    for (size_t i = 0; i < n; i++)
        requests[i] = NULL;
    marco_status status = make_group(s, client, params, n, &group, error);
    double now = base_now();
    for (size_t i = 0; i < n && !status; i++) {
        requests[i] = group->requests[i];
        requests[i]->client = client;
        requests[i]->submitted = now;
        atomic_store(&requests[i]->holders, 2);
    }
    if (!status) {
        status = enqueue(s, group, error);
        for (size_t i = 0; i < n && status; i++) {
            atomic_store(&requests[i]->holders, 1);
            requests[i] = NULL;
        }
    }
    if (status)
        free_group(group);
    return status;
}

void marco_request_cancel(marco_request *request)
{
    /* The worker looks between tokens, and is awake while any request is active or waits. */
    atomic_store(&request->cancelled, true);
}

void marco_scheduler_stats_get(marco_scheduler *s, marco_scheduler_stats *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    pthread_mutex_unlock(&s->lock);
    out->kv_bytes = atomic_load(&s->engine->kv_bytes);
}
