#include "base/error.h"
#include "base/time.h"
#include "infer/internal.h"
#include "infer/reply.h"

marco_generation marco_generation_default(const marco_engine *engine)
{
    return (marco_generation){.max_tokens = -1, .sampling = marco_engine_sampling(engine)};
}

/* A generation under way. */
typedef struct run {
    const marco_generation *generation;
    marco_sampler *sampler;
    infer_reply reply;
    bool cancelled; /* by the caller */
} run;

/* Hands on what is certain. */
static void emit(run *r)
{
    const marco_generation *g = r->generation;
    base_text *ready = &r->reply.ready;
    if (ready->size && g->on_text && !r->cancelled && g->on_text(g->user, ready->data, ready->size))
        r->cancelled = true;
    base_text_clear(ready);
}

/* Samples until something ends the reply. */
static marco_status sample(marco_session *session, run *r, marco_generation_stats *stats,
                           marco_error *error)
{
    const marco_generation *g = r->generation;
    stats->finish = MARCO_FINISH_LENGTH;
    double start = base_now();
    while (g->max_tokens < 0 || stats->n_reply < (size_t)g->max_tokens) {
        int32_t id;
        marco_status status =
            marco_sampler_pick(r->sampler, marco_session_logits(session), &id, error);
        if (status)
            return status;
        marco_sampler_accept(r->sampler, id, true);
        stats->n_reply++;
        status = infer_reply_add(&r->reply, id, error);
        if (status)
            return status;
        emit(r);
        /* A token without text is an occasion to stop, too. */
        if (!r->cancelled && g->on_text && g->on_text(g->user, "", 0))
            r->cancelled = true;
        if (r->cancelled || r->reply.ended || session->line.length == (size_t)session->line.n_ctx ||
            (g->max_tokens >= 0 && stats->n_reply >= (size_t)g->max_tokens))
            break;
        status = marco_session_eval(session, &id, 1, error);
        if (status)
            return status;
        stats->n_decoded++;
        stats->decode_seconds = base_now() - start;
    }
    marco_status status = r->cancelled ? MARCO_OK : infer_reply_finish(&r->reply, error);
    emit(r);
    if (r->reply.ended)
        stats->finish = MARCO_FINISH_STOP;
    if (r->cancelled)
        stats->finish = MARCO_FINISH_CANCELLED;
    return status;
}

marco_status marco_session_generate(marco_session *session, const int32_t *ids, size_t n,
                                    const marco_generation *g, marco_generation_stats *stats,
                                    marco_error *error)
{
    if (!session || !g || (n && !ids))
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "marco_session_generate: an argument is NULL");
    const marco_engine *engine = session->engine;
    marco_generation_stats own;
    run r = {.generation = g};
    stats = stats ? stats : &own;
    *stats = (marco_generation_stats){0};

    if (n == 0 && !session->has_logits)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "the prompt is empty: nothing to continue");
    marco_status status = infer_reply_check(g->stop, g->n_stop, error);
    if (!status)
        status =
            marco_sampler_create(&g->sampling, engine->weights->config.n_vocab, &r.sampler, error);
    if (!status)
        status = infer_reply_init(&r.reply, engine, g->stop, g->n_stop, g->ignore_eos, g->special,
                                  error);
    if (!status && n) {
        double start = base_now();
        status = marco_session_eval(session, ids, n, error);
        stats->prefill_seconds = base_now() - start;
        stats->n_prompt = status ? 0 : n;
    }
    if (!status) {
        for (size_t i = 0; i < session->line.length; i++)
            marco_sampler_accept(r.sampler, session->line.ids[i], false);
        status = sample(session, &r, stats, error);
    }
    infer_reply_free(&r.reply);
    marco_sampler_close(r.sampler);
    return status;
}
