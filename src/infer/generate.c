#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/text.h"
#include "infer/internal.h"

marco_generation marco_generation_default(const marco_engine *engine)
{
    return (marco_generation){.max_tokens = -1, .sampling = marco_engine_sampling(engine)};
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* A reply in the making. */
typedef struct reply {
    const marco_generation *generation;
    marco_detokenizer *detokenizer;
    marco_sampler *sampler;
    base_text held; /* text that could be the beginning of a stop string */
    bool stopped;   /* by a stop string */
    bool cancelled; /* by the caller */
} reply;

static void emit(reply *r, size_t size)
{
    const marco_generation *g = r->generation;
    if (size && g->on_text && !r->cancelled && g->on_text(g->user, r->held.data, size))
        r->cancelled = true;
}

/* Length of the longest end of `text` that is a proper beginning of a stop string. */
static size_t undecided(const marco_generation *g, const char *text, size_t size)
{
    size_t longest = 0;
    for (size_t i = 0; i < g->n_stop; i++) {
        size_t n = strlen(g->stop[i]);
        for (size_t k = n - 1 < size ? n - 1 : size; k > longest; k--)
            if (memcmp(text + size - k, g->stop[i], k) == 0) {
                longest = k;
                break;
            }
    }
    return longest;
}

/* Passes on what is certain to belong to the reply. */
static marco_status add_text(reply *r, const char *text, size_t size, bool last, marco_error *error)
{
    const marco_generation *g = r->generation;
    base_text_add_n(&r->held, text, size);
    if (r->held.failed)
        return base_fail_memory(error, size, "the reply");
    if (r->held.size == 0)
        return MARCO_OK;
    const char *first = NULL;
    for (size_t i = 0; i < g->n_stop; i++) {
        const char *at = memmem(r->held.data, r->held.size, g->stop[i], strlen(g->stop[i]));
        if (at && (!first || at < first))
            first = at;
    }
    if (first) {
        r->stopped = true;
        emit(r, (size_t)(first - r->held.data));
        base_text_clear(&r->held);
        return MARCO_OK;
    }
    size_t keep = last ? 0 : undecided(g, r->held.data, r->held.size);
    size_t ready = r->held.size - keep;
    emit(r, ready);
    memmove(r->held.data, r->held.data + ready, keep);
    r->held.size = keep;
    return MARCO_OK;
}

static marco_status finish_text(reply *r, marco_error *error)
{
    const char *text;
    size_t size;
    marco_status status = marco_detokenizer_flush(r->detokenizer, &text, &size, error);
    return status ? status : add_text(r, text, size, true, error);
}

static bool ends_reply(const marco_engine *engine, int32_t id)
{
    for (int32_t i = 0; i < engine->n_end; i++)
        if (engine->end[i] == id)
            return true;
    return false;
}

static marco_status check(const marco_session *session, size_t n, const marco_generation *g,
                          marco_error *error)
{
    if (n == 0 && !session->has_logits)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "the prompt is empty: nothing to continue");
    for (size_t i = 0; i < g->n_stop; i++)
        if (!g->stop[i] || !g->stop[i][0])
            return base_fail(error, MARCO_ERROR_ARGUMENT, "stop string %zu is empty", i + 1);
    return MARCO_OK;
}

/* Samples until something ends the reply. */
static marco_status run(marco_session *session, reply *r, marco_generation_stats *stats,
                        marco_error *error)
{
    const marco_generation *g = r->generation;
    stats->finish = MARCO_FINISH_LENGTH;
    double start = now();
    for (;;) {
        int32_t id;
        const char *text;
        size_t size;
        if (g->max_tokens >= 0 && stats->n_reply >= (size_t)g->max_tokens)
            break;
        marco_status status =
            marco_sampler_pick(r->sampler, marco_session_logits(session), &id, error);
        if (status)
            return status;
        marco_sampler_accept(r->sampler, id, true);
        stats->n_reply++;
        if (!g->ignore_eos && ends_reply(session->engine, id)) {
            stats->finish = MARCO_FINISH_STOP;
            break;
        }
        /* A model's vocabulary may be padded beyond the tokenizer's: such an id has no text. */
        if (id < marco_tokenizer_size(session->engine->tokenizer)) {
            status = marco_detokenizer_add(r->detokenizer, id, &text, &size, error);
            if (!status)
                status = add_text(r, text, size, false, error);
            if (status)
                return status;
        }
        /* A token without text is an occasion to stop, too. */
        if (!r->cancelled && g->on_text && g->on_text(g->user, "", 0))
            r->cancelled = true;
        if (r->cancelled || r->stopped) {
            stats->finish = r->cancelled ? MARCO_FINISH_CANCELLED : MARCO_FINISH_STOP;
            break;
        }
        if (session->length == (size_t)session->n_ctx ||
            (g->max_tokens >= 0 && stats->n_reply >= (size_t)g->max_tokens))
            break;
        status = marco_session_eval(session, &id, 1, error);
        if (status)
            return status;
        stats->n_decoded++;
        stats->decode_seconds = now() - start;
    }
    marco_status status = r->stopped || r->cancelled ? MARCO_OK : finish_text(r, error);
    if (r->stopped && stats->finish == MARCO_FINISH_LENGTH)
        stats->finish = MARCO_FINISH_STOP;
    if (r->cancelled)
        stats->finish = MARCO_FINISH_CANCELLED;
    return status;
}

marco_status marco_session_generate(marco_session *session, const int32_t *ids, size_t n,
                                    const marco_generation *generation,
                                    marco_generation_stats *stats, marco_error *error)
{
    if (!session || !generation || (n && !ids))
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "marco_session_generate: an argument is NULL");
    const marco_engine *engine = session->engine;
    marco_generation_stats own;
    reply r = {.generation = generation};
    stats = stats ? stats : &own;
    *stats = (marco_generation_stats){0};

    marco_status status = check(session, n, generation, error);
    if (!status)
        status = marco_sampler_create(&generation->sampling, engine->weights->config.n_vocab,
                                      &r.sampler, error);
    if (!status)
        status =
            marco_detokenizer_create(engine->tokenizer, generation->special, &r.detokenizer, error);
    if (!status && n) {
        double start = now();
        status = marco_session_eval(session, ids, n, error);
        stats->prefill_seconds = now() - start;
        stats->n_prompt = status ? 0 : n;
    }
    if (!status) {
        for (size_t i = 0; i < session->length; i++)
            marco_sampler_accept(r.sampler, session->ids[i], false);
        status = run(session, &r, stats, error);
    }
    base_text_free(&r.held);
    marco_detokenizer_close(r.detokenizer);
    marco_sampler_close(r.sampler);
    return status;
}
