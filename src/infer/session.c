#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "infer/internal.h"

enum { DEFAULT_CHUNK = 512, MAX_CHUNK = 1 << 16, LOGITS_AT_ONCE = 16 };

/* What a forward pass may take beside weights and KV cache: a twentieth of the weights, or this. */
#define PASS_BYTES ((uint64_t)32 << 20)

/* What every session is granted: passes of this many tokens, a context of so many. */
enum { LEAST_CHUNK = 16, LEAST_CONTEXT = 512 };

uint64_t infer_sampler_bytes(const model_config *config)
{
    enum { EACH = 8 }; /* numbers for each of the vocabulary */
    return (uint64_t)config->n_vocab * sizeof(float) * EACH;
}

/* Logits of a whole batch, and what a sampler sorts. */
static uint64_t logits_bytes(const model_config *config)
{
    return (uint64_t)config->n_vocab * sizeof(float) * LOGITS_AT_ONCE + infer_sampler_bytes(config);
}

uint64_t infer_session_least(const model_config *config, int threads, tensor_type kv_type)
{
    model_kv kv;
    model_kv_init(&kv, config, kv_type);
    return model_context_bytes(config, threads, LEAST_CHUNK) + infer_kv_bytes(&kv, LEAST_CONTEXT) +
           logits_bytes(config);
}

uint64_t infer_room_part(const marco_engine *engine, tensor_type kv_type)
{
    const model_plan *plan = &engine->plan;
    int threads = base_pool_threads(engine->pool);
    uint64_t used = engine->taken +
                    infer_session_least(&engine->weights->config, threads, kv_type) +
                    (uint64_t)plan->least_slots * plan->slot_bytes;
    return used < plan->room ? (plan->room - used) / 8 : 0;
}

int32_t infer_room_chunk(const model_context *context, uint64_t bytes, int32_t asked)
{
    int64_t chunk = model_context_tokens(context, bytes);
    chunk = chunk > LEAST_CHUNK ? chunk : LEAST_CHUNK;
    return asked < chunk ? asked : (int32_t)chunk;
}

/* Shares what there is beside the weights: for a chunk up to a part of it, for a context to begin
 * with a quarter of that, and neither more than asked for. */
static marco_status take_room(marco_session *s, marco_error *error)
{
    marco_engine *engine = s->engine;
    const model_config *c = &engine->weights->config;
    const model_plan *plan = &engine->plan;
    int threads = base_pool_threads(engine->pool);
    if (plan->room == UINT64_MAX)
        return MARCO_OK;
    pthread_mutex_lock(&engine->turn);
    uint64_t part = infer_room_part(engine, s->line.kv.type);
    s->chunk = infer_room_chunk(s->context, part, s->chunk);
    int64_t context = (int64_t)(part / 4 / s->line.kv.page_bytes) * MODEL_KV_PAGE;
    context = context > LEAST_CONTEXT ? context : LEAST_CONTEXT;
    context = s->line.n_ctx < context ? s->line.n_ctx : context;
    uint64_t kv = infer_kv_bytes(&s->line.kv, context);
    uint64_t bytes = model_context_bytes(c, threads, s->chunk) + logits_bytes(c);
    marco_status status = infer_take(engine, bytes + kv, "a session", error);
    s->line.kv_taken = s->line.kv_least = status ? 0 : kv;
    s->taken = status ? 0 : bytes;
    pthread_mutex_unlock(&engine->turn);
    return status;
}

int32_t infer_fit_chunk(const marco_engine *engine, const model_context *context, int32_t asked)
{
    uint64_t room = engine->weights->bytes / 20;
    int64_t fits = model_context_tokens(context, room > PASS_BYTES ? room : PASS_BYTES);
    asked = asked ? asked : DEFAULT_CHUNK;
    return asked < fits ? asked : (int32_t)fits;
}

marco_session_params marco_session_params_default(void)
{
    return (marco_session_params){0};
}

tensor_type infer_kv_type(const marco_engine *engine, marco_kv_type type)
{
    if (type == MARCO_KV_AUTO)
        return engine->f32 ? TENSOR_F32 : TENSOR_F16;
    return type == MARCO_KV_F32 ? TENSOR_F32 : type == MARCO_KV_F16 ? TENSOR_F16 : TENSOR_Q8_0;
}

marco_status infer_session_check(const marco_engine *engine, int32_t n_ctx, int32_t chunk,
                                 marco_kv_type kv_type, marco_error *error)
{
    const model_config *c = &engine->weights->config;
    if (n_ctx < 0 || n_ctx > c->n_ctx_train)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "context: %d is not between 1 and the %d tokens that the model was made "
                         "for",
                         n_ctx, c->n_ctx_train);
    if (chunk < 0 || chunk > MAX_CHUNK)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "chunk: %d is not between 1 and %d", chunk,
                         MAX_CHUNK);
    if ((int)kv_type < MARCO_KV_AUTO || (int)kv_type > MARCO_KV_Q8_0)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "kv_type: %d is none of marco_kv_type",
                         (int)kv_type);
    if (!model_kv_fits(c, infer_kv_type(engine, kv_type)))
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "%s: a Q8_0 KV cache needs a head dimension that is a multiple of 32, not "
                         "%d; use F16",
                         engine->weights->path, c->head_dim);
    return MARCO_OK;
}

marco_status marco_session_create(marco_engine *engine, const marco_session_params *params,
                                  marco_session **out, marco_error *error)
{
    marco_session_params defaults = marco_session_params_default();
    if (!out || !engine)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "marco_session_create: no engine, or no out");
    *out = NULL;
    params = params ? params : &defaults;
    const model_config *c = &engine->weights->config;
    marco_status status =
        infer_session_check(engine, params->n_ctx, params->chunk, params->kv_type, error);
    if (status)
        return status;
    marco_session *session = base_calloc(1, sizeof *session);
    if (!session)
        return base_fail_memory(error, sizeof *session, "a session");
    session->engine = engine;
    session->progress = params->progress;
    infer_timeline_init(&session->line, engine, infer_kv_type(engine, params->kv_type),
                        params->n_ctx ? params->n_ctx : c->n_ctx_train);
    session->logits = base_alloc_array((size_t)c->n_vocab, sizeof(float));
    if (!session->logits)
        status = base_fail_memory(error, (size_t)c->n_vocab * sizeof(float), "logits");
    if (!status)
        status = model_context_create(engine->weights, engine->kernels, engine->pool, engine->f32,
                                      &session->context, error);
    if (!status) {
        session->chunk = infer_fit_chunk(engine, session->context, params->chunk);
        model_context_trace(session->context, params->trace, params->trace_user);
        status = take_room(session, error);
    }
    if (status) {
        marco_session_close(session);
        return status;
    }
    *out = session;
    return MARCO_OK;
}

void marco_session_close(marco_session *session)
{
    if (!session)
        return;
    model_context_free(session->context);
    base_free(session->logits);
    pthread_mutex_lock(&session->engine->turn);
    infer_timeline_free(&session->line);
    infer_give_back(session->engine, session->taken);
    pthread_mutex_unlock(&session->engine->turn);
    base_free(session);
}

/* Sixteen at a time: this is done for every token with one thread while the others wait. */
static bool all_finite(const float *x, size_t n)
{
    enum { LANES = 16 };
    const uint32_t exponent = 0x7f800000; /* all ones in Inf and NaN */
    uint32_t bad[LANES] = {0}, bits[LANES];
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        memcpy(bits, x + i, sizeof bits);
        for (int k = 0; k < LANES; k++)
            bad[k] |= (bits[k] & exponent) == exponent;
    }
    bool finite = true;
    for (int k = 0; k < LANES; k++)
        finite &= !bad[k];
    for (; i < n; i++)
        finite &= isfinite(x[i]) != 0;
    return finite;
}

/* A weight that is NaN or infinite reaches every logit: one look at them finds it. */
static marco_status check_logits(const marco_session *s, const float *logits, size_t position,
                                 marco_error *error)
{
    const model_weights *w = s->engine->weights;
    if (all_finite(logits, (size_t)w->config.n_vocab))
        return MARCO_OK;
    char name[128];
    if (model_weights_find_nonfinite(w, name))
        return base_fail(error, MARCO_ERROR_NUMERIC,
                         "%s: %s holds numbers that are not finite; the file is damaged or the "
                         "model was not trained well",
                         w->path, name);
    return base_fail(error, MARCO_ERROR_NUMERIC,
                     "%s: the logits at position %zu are not finite numbers: the weights are "
                     "finite but too large to compute with",
                     w->path, position);
}

typedef struct each {
    marco_logits_fn fn;
    void *user;
    float *logits; /* [LOGITS_AT_ONCE, n_vocab] */
} each;

/* Hands out the logits of the n tokens of the last pass, which began at `position`. */
static marco_status give_each(marco_session *s, each *e, size_t n, size_t position,
                              marco_error *error)
{
    size_t n_vocab = (size_t)s->engine->weights->config.n_vocab;
    for (size_t first = 0; first < n; first += LOGITS_AT_ONCE) {
        size_t count = n - first < LOGITS_AT_ONCE ? n - first : LOGITS_AT_ONCE;
        pthread_mutex_lock(&s->engine->turn);
        model_logits(s->context, (int64_t)first, (int64_t)count, e->logits);
        pthread_mutex_unlock(&s->engine->turn);
        for (size_t i = 0; i < count; i++) {
            const float *logits = e->logits + i * n_vocab;
            marco_status status = check_logits(s, logits, position + first + i, error);
            if (status)
                return status;
            if (e->fn(e->user, (int64_t)(position + first + i), logits))
                return base_fail(error, MARCO_ERROR_CANCELLED, "cancelled by the caller");
        }
        if (first + count == n)
            memcpy(s->logits, e->logits + (count - 1) * n_vocab, n_vocab * sizeof *s->logits);
    }
    return MARCO_OK;
}

static marco_status run_chunks(marco_session *s, size_t n, each *e, marco_error *error)
{
    for (size_t done = 0; done < n;) {
        size_t count = n - done < (size_t)s->chunk ? n - done : (size_t)s->chunk;
        size_t position = s->line.length + done;
        if (n > count && s->progress.fn && s->progress.fn(s->progress.user, "prompt", done, n))
            return base_fail(error, MARCO_ERROR_CANCELLED, "cancelled while reading the prompt");
        done += count;
        /* Turns are taken pass by pass: callbacks run outside of them, and may use other sessions
         * of the engine. */
        pthread_mutex_lock(&s->engine->turn);
        const model_sequence piece = {&s->line.kv, s->line.ids + position, (int64_t)count,
                                      (int64_t)position};
        marco_status status = model_forward(s->context, &piece, error);
        if (!status && !e && done == n)
            model_logits(s->context, (int64_t)count - 1, 1, s->logits);
        pthread_mutex_unlock(&s->engine->turn);
        if (!status && e)
            status = give_each(s, e, count, position, error);
        else if (!status && done == n)
            status = check_logits(s, s->logits, s->line.length + n - 1, error);
        if (status)
            return status;
    }
    if (n > (size_t)s->chunk && s->progress.fn)
        s->progress.fn(s->progress.user, "prompt", n, n);
    return MARCO_OK;
}

static marco_status evaluate(marco_session *s, const int32_t *ids, size_t n, each *e,
                             marco_error *error)
{
    if (!s || (n && !ids) || (e && !e->fn))
        return base_fail(error, MARCO_ERROR_ARGUMENT, "marco_session_eval: an argument is NULL");
    marco_status status = infer_timeline_accept(&s->line, ids, n, error);
    if (!status) {
        pthread_mutex_lock(&s->engine->turn);
        status = infer_timeline_reserve(&s->line, s->line.length + n, error);
        pthread_mutex_unlock(&s->engine->turn);
    }
    if (status)
        return status;
    status = run_chunks(s, n, e, error);
    if (status) {
        pthread_mutex_lock(&s->engine->turn);
        infer_timeline_truncate(&s->line, s->line.length);
        pthread_mutex_unlock(&s->engine->turn);
    } else {
        s->line.length += n;
    }
    s->has_logits = !status;
    return status;
}

marco_status marco_session_eval(marco_session *session, const int32_t *ids, size_t n,
                                marco_error *error)
{
    return evaluate(session, ids, n, NULL, error);
}

marco_status marco_session_eval_each(marco_session *session, const int32_t *ids, size_t n,
                                     marco_logits_fn fn, void *user, marco_error *error)
{
    if (!session)
        return evaluate(NULL, ids, n, NULL, error);
    size_t n_vocab = (size_t)session->engine->weights->config.n_vocab;
    size_t bytes = LOGITS_AT_ONCE * n_vocab * sizeof(float);
    each e = {fn, user, base_region_alloc(bytes)};
    if (!e.logits)
        return base_fail_memory(error, bytes, "logits");
    marco_status status = evaluate(session, ids, n, &e, error);
    base_region_free(e.logits, bytes);
    return status;
}

const float *marco_session_logits(const marco_session *session)
{
    return session->has_logits ? session->logits : NULL;
}

const int32_t *marco_session_tokens(const marco_session *session, size_t *n)
{
    *n = session->line.length;
    return session->line.ids;
}

marco_status marco_session_truncate(marco_session *session, size_t n)
{
    if (n > session->line.length)
        return MARCO_ERROR_ARGUMENT;
    if (n < session->line.length)
        session->has_logits = false;
    pthread_mutex_lock(&session->engine->turn);
    infer_timeline_truncate(&session->line, n);
    pthread_mutex_unlock(&session->engine->turn);
    return MARCO_OK;
}

int32_t marco_session_context(const marco_session *session)
{
    return session->line.n_ctx;
}

uint64_t marco_session_kv_bytes(const marco_session *session)
{
    return model_kv_bytes(&session->line.kv);
}

uint64_t marco_session_kv_bytes_per_token(const marco_session *session)
{
    return session->line.kv.page_bytes / MODEL_KV_PAGE;
}

marco_status marco_session_fill(marco_session *s, size_t n, uint64_t seed, marco_error *error)
{
    if (!s || n == 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "marco_session_fill: no session, or no tokens");
    infer_timeline *line = &s->line;
    marco_status status = infer_timeline_accept(line, NULL, n, error);
    if (status)
        return status;
    int64_t first = (int64_t)line->length, end = first + (int64_t)n;
    pthread_mutex_lock(&s->engine->turn);
    status = infer_timeline_reserve(line, (size_t)end, error);
    if (!status)
        status =
            model_kv_fill(&line->kv, s->engine->kernels, s->engine->pool, first, end, seed, error);
    if (status)
        infer_timeline_truncate(line, (size_t)first);
    pthread_mutex_unlock(&s->engine->turn);
    if (status)
        return status;
    line->length += n;
    s->has_logits = false;
    return MARCO_OK;
}
