/* A request: its parameters, its reply, its end. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/time.h"
#include "infer/scheduler.h"

enum { MAX_TOP = 64 };

/* ---- making one ---------------------------------------------------------------------------- */

static marco_status check(const marco_scheduler *s, const marco_request_params *p,
                          marco_error *error)
{
    int32_t n_ctx = s->params.n_ctx, n_vocab = s->engine->weights->config.n_vocab;
    size_t reply = p->max_tokens >= 0 ? (size_t)p->max_tokens : 1; /* at least */
    if (p->n_prompt == 0 || !p->prompt)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "the prompt is empty: nothing to continue");
    if (p->n_prompt > (size_t)n_ctx || reply > (size_t)n_ctx - p->n_prompt)
        return base_fail(error, MARCO_ERROR_CONTEXT,
                         "%zu tokens of prompt and %zu of reply do not fit: the context holds %d "
                         "tokens; shorten the prompt or ask for a shorter reply",
                         p->n_prompt, reply, n_ctx);
    for (size_t i = 0; i < p->n_prompt; i++)
        if (p->prompt[i] < 0 || p->prompt[i] >= n_vocab)
            return base_fail(error, MARCO_ERROR_ARGUMENT,
                             "id %d at position %zu of the prompt is outside the vocabulary of %d",
                             p->prompt[i], i, n_vocab);
    if (p->grammar && !s->vocab)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED, "%s", s->no_grammar.message);
    if (p->n_top < 0 || p->n_top > MAX_TOP)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "n_top: %d is not between 0 and %d", p->n_top,
                         MAX_TOP);
    marco_status status = infer_sampler_check(&p->sampling, n_vocab, error);
    return status ? status : infer_reply_check(p->stop, p->n_stop, error);
}

static void *copy(const void *from, size_t n, size_t size)
{
    void *to = base_alloc_array(n, size);
    if (to && n)
        memcpy(to, from, n * size);
    return to;
}

static bool copy_stops(marco_request *r, const marco_request_params *p)
{
    char **stop = base_calloc(p->n_stop, sizeof *stop);
    r->params.stop = (const char *const *)stop;
    r->params.n_stop = stop ? p->n_stop : 0;
    for (size_t i = 0; stop && i < p->n_stop; i++)
        if (!(stop[i] = base_strdup(p->stop[i])))
            return false;
    return stop != NULL;
}

static void request_free(marco_request *r)
{
    infer_reply_free(&r->reply);
    marco_sampler_close(r->sampler);
    grammar_state_free(r->grammar);
    for (size_t i = 0; i < r->params.n_stop; i++)
        base_free((void *)r->params.stop[i]);
    base_free((void *)r->params.stop);
    base_free((void *)r->params.sampling.logit_bias);
    base_free(r->ids);
    base_free(r->mask);
    base_free(r->top);
    base_free(r);
}

marco_status infer_request_create(marco_scheduler *s, const marco_request_params *p,
                                  marco_request **out, marco_error *error)
{
    marco_status status = check(s, p, error);
    if (status)
        return status;
    marco_request *r = base_calloc(1, sizeof *r);
    if (!r)
        return base_fail_memory(error, sizeof *r, "a request");
    r->scheduler = s;
    atomic_init(&r->holders, 1);
    r->params = *p;
    r->params.stop = NULL;
    r->params.n_stop = 0;
    r->params.prompt = NULL;
    r->params.ignore_eos = p->ignore_eos && !p->grammar; /* a grammar says where a text may end */
    r->ids = copy(p->prompt, p->n_prompt, sizeof *p->prompt);
    r->n_ids = r->ids_capacity = p->n_prompt;
    r->top = base_alloc_array((size_t)p->n_top, sizeof *r->top);
    const marco_sampling *sampling = &p->sampling;
    r->params.sampling.logit_bias =
        copy(sampling->logit_bias, sampling->n_logit_bias, sizeof *sampling->logit_bias);
    if (!copy_stops(r, p) || !r->ids || !r->top || !r->params.sampling.logit_bias) {
        request_free(r);
        return base_fail_memory(error, p->n_prompt * sizeof *p->prompt, "a request");
    }
    *out = r;
    return MARCO_OK;
}

void infer_request_drop(marco_request *r)
{
    if (atomic_fetch_sub(&r->holders, 1) == 1)
        request_free(r);
}

marco_status infer_request_begin(marco_request *r, marco_error *error)
{
    marco_scheduler *s = r->scheduler;
    const marco_request_params *p = &r->params;
    int32_t n_vocab = s->engine->weights->config.n_vocab;
    marco_status status = marco_sampler_create(&p->sampling, n_vocab, &r->sampler, error);
    if (!status)
        status = infer_reply_init(&r->reply, s->engine, p->stop, p->n_stop, p->ignore_eos,
                                  p->special, error);
    if (!status && p->grammar) {
        size_t words = grammar_mask_words(n_vocab);
        r->mask = base_alloc_array(words, sizeof *r->mask);
        status = r->mask ? grammar_state_create(p->grammar, s->vocab, &r->grammar, error)
                         : base_fail_memory(error, words * sizeof *r->mask, "a grammar");
    }
    for (size_t i = 0; i < r->n_ids && !status; i++)
        marco_sampler_accept(r->sampler, r->ids[i], false);
    infer_timeline_init(&r->line, s->engine, s->kv_type, s->params.n_ctx);
    r->begun = base_now();
    return status;
}

/* ---- events -------------------------------------------------------------------------------- */

void infer_request_finish(marco_request *r, marco_status status, const char *message,
                          marco_finish finish)
{
    const marco_request_events *e = &r->params.events;
    double now = base_now();
    /* The grammar may go with the last event, and much memory need not wait for the handle's. */
    grammar_state_free(r->grammar);
    marco_sampler_close(r->sampler);
    r->grammar = NULL;
    r->sampler = NULL;
    double begun = r->begun > 0 ? r->begun : now, replied = r->replied > 0 ? r->replied : now;
    const marco_request_result result = {
        .status = status,
        .message = message ? message : "",
        .finish = finish,
        .stop = r->reply.stopper,
        .n_prompt = r->n_ids - r->n_reply,
        .n_cached = r->n_cached,
        .n_reply = r->n_reply,
        .wait_seconds = begun - r->submitted,
        .prefill_seconds = replied - begun,
        .decode_seconds = now - replied,
    };
    marco_scheduler_stats *counts = &r->scheduler->now;
    counts->requests++;
    counts->prompt_tokens += result.n_prompt;
    counts->cached_tokens += result.n_cached;
    counts->reply_tokens += result.n_reply;
    pthread_mutex_lock(&r->scheduler->lock);
    r->scheduler->live--;
    pthread_mutex_unlock(&r->scheduler->lock);
    if (e->on_finish)
        e->on_finish(e->user, &result);
    infer_request_drop(r);
}

static void tell(marco_request *r, int32_t id)
{
    const marco_request_events *e = &r->params.events;
    base_text *ready = &r->reply.ready;
    const marco_token_event event = {
        .id = id,
        .logprob = r->logprob,
        .top = r->top,
        .n_top = id >= 0 && r->params.scores ? (size_t)r->params.n_top : 0,
        .text = ready->size ? ready->data : "",
        .size = ready->size,
    };
    if (e->on_token)
        e->on_token(e->user, &event);
    base_text_clear(ready);
}

/* Has the reply said all it may? */
static bool is_last(const marco_request *r, marco_finish *finish)
{
    const marco_request_params *p = &r->params;
    if (r->reply.ended || (r->grammar && grammar_state_must_end(r->grammar))) {
        *finish = MARCO_FINISH_STOP;
        return true;
    }
    *finish = MARCO_FINISH_LENGTH;
    return (p->max_tokens >= 0 && r->n_reply >= (size_t)p->max_tokens) ||
           r->n_ids >= (size_t)r->scheduler->params.n_ctx;
}

bool infer_request_accept(marco_request *r, marco_finish *finish)
{
    marco_error *error = &r->error;
    int32_t id = r->picked;
    void *ids = r->ids;
    if (r->replied == 0)
        r->replied = base_now();
    if (!r->status && !base_grow(&ids, &r->ids_capacity, r->n_ids + 1, sizeof *r->ids))
        r->status = base_fail_memory(error, sizeof *r->ids, "the reply");
    if (r->status)
        return true;
    r->ids = ids;
    r->ids[r->n_ids++] = id;
    r->n_reply++;
    marco_sampler_accept(r->sampler, id, true);
    r->status = infer_reply_add(&r->reply, id, error);
    if (!r->status && r->grammar && !r->reply.ended)
        r->status = grammar_state_accept(r->grammar, id, error);
    if (r->status)
        return true;
    tell(r, id);
    if (!is_last(r, finish))
        return false;
    r->status = infer_reply_finish(&r->reply, error);
    if (!r->status && r->reply.stopper)
        *finish = MARCO_FINISH_STOP;
    if (!r->status && r->reply.ready.size)
        tell(r, -1);
    return true;
}

/* ---- the public face ----------------------------------------------------------------------- */

marco_request_params marco_request_params_default(const marco_engine *engine)
{
    return (marco_request_params){.max_tokens = -1, .sampling = marco_engine_sampling(engine)};
}

void marco_request_release(marco_request *request)
{
    if (request)
        infer_request_drop(request);
}
