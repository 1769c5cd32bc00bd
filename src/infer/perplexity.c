/* Perplexity of a model over a text, and how far its distributions are from another run's. The
 * logits of some positions are collected and then scored in parallel: over a large vocabulary the
 * exponentials take long enough to count. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "infer/internal.h"
#include "infer/kl_file.h"

/* Positions that are scored at once, fewer where a budget leaves no room for them. No result
 * depends on it. */
enum { PIECE = 64 };

/* A row of a base file sums to 1 but for the roundings: at most 2^-8 below exp(-16), where the
 * whole vocabulary is as unlikely. */
#define LARGEST_LOG_SUM 0.05

typedef struct position {
    double logprob; /* of the token that followed */
    double base_logprob, kl;
    bool same_top;
    bool damaged; /* the base file's row */
} position;

typedef struct run {
    marco_engine *engine;
    const marco_perplexity_params *params;
    infer_chunks chunks;
    size_t n_vocab, row_bytes;
    size_t first;     /* position of a chunk that is scored first */
    size_t per_chunk; /* positions scored */
    marco_session *session, *base_session;
    base_file *base;
    base_output *save;
    size_t piece;        /* positions scored at once */
    float *logits;       /* [piece, n_vocab] */
    float *base_logits;  /* [n_base, n_vocab] */
    size_t n_base;       /* per_chunk of base_session, `piece` of a base file, or 0 */
    uint8_t *rows;       /* [piece, row_bytes] of the base file, or of the one to save */
    uint64_t taken;      /* of the engine's room for all that */
    position *positions; /* [n_chunks, per_chunk] */
    size_t chunk;        /* the one being evaluated */
    /* The piece being collected, then scored: positions at .. at + n - 1 of those of the chunk. */
    size_t at, n;
    marco_status status; /* of scoring it */
    marco_error *error;
} run;

marco_perplexity_params marco_perplexity_params_default(void)
{
    return (marco_perplexity_params){0};
}

/* ---- a position ----------------------------------------------------------------------------- */

typedef struct log_sum {
    double value; /* log(sum(exp(logits))) */
    int32_t top;  /* the lowest id of the likeliest */
} log_sum;

static int32_t likeliest(const float *logits, size_t n)
{
    size_t top = 0;
    for (size_t i = 1; i < n; i++)
        top = logits[i] > logits[top] ? i : top;
    return (int32_t)top;
}

static log_sum sum_up(const float *logits, size_t n)
{
    int32_t top = likeliest(logits, n);
    double max = (double)logits[top], sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    return (log_sum){max + log(sum), top};
}

/* KL(base || this) = sum of p (b - l) - log_sum(b) + log_sum(l), p = exp(b - log_sum(b)). */
static double divergence(const float *base, log_sum base_sum, const float *logits, log_sum sum,
                         size_t n)
{
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        double logit = (double)base[i];
        total += exp(logit - base_sum.value) * (logit - (double)logits[i]);
    }
    return total - base_sum.value + sum.value;
}

static void score_position(void *user, int64_t part, int thread)
{
    (void)thread;
    run *r = user;
    size_t i = (size_t)part;
    position *p = &r->positions[r->chunk * r->per_chunk + r->at + i];
    int32_t follower = infer_chunk(&r->chunks, r->chunk)[r->first + r->at + i + 1];
    const float *logits = r->logits + i * r->n_vocab;
    float *base = r->base_logits;
    log_sum sum = sum_up(logits, r->n_vocab), base_sum;
    infer_kl_row row;
    *p = (position){.logprob = (double)logits[follower] - sum.value};
    if (r->save) {
        row = (infer_kl_row){p->logprob, sum.top};
        infer_kl_encode(&row, logits, sum.value, (uint32_t)r->n_vocab, r->rows + i * r->row_bytes);
    }
    if (!base)
        return;
    base += (r->base ? i : r->at + i) * r->n_vocab;
    if (r->base) {
        p->damaged = !infer_kl_decode(r->rows + i * r->row_bytes, (uint32_t)r->n_vocab, &row, base);
        if (p->damaged)
            return;
        base_sum = sum_up(base, r->n_vocab);
        p->damaged = fabs(base_sum.value) > LARGEST_LOG_SUM;
    } else {
        base_sum = sum_up(base, r->n_vocab);
        row = (infer_kl_row){(double)base[follower] - base_sum.value, base_sum.top};
    }
    p->base_logprob = row.logprob;
    p->same_top = row.top == sum.top;
    p->kl = divergence(base, base_sum, logits, sum, r->n_vocab);
}

/* ---- chunks --------------------------------------------------------------------------------- */

/* Reports what is done: of the chunk, the positions before `at`. */
static marco_status report(const run *r, size_t at, marco_error *error)
{
    const marco_progress *progress = &r->params->progress;
    size_t n_ctx = (size_t)r->chunks.n_ctx;
    if (progress->fn && progress->fn(progress->user, "scoring tokens", r->chunk * n_ctx + at,
                                     r->chunks.n_chunks * n_ctx))
        return base_fail(error, MARCO_ERROR_CANCELLED, "cancelled while scoring the text");
    return MARCO_OK;
}

/* Scores the piece that has been collected. */
static marco_status score_piece(run *r)
{
    size_t row = r->chunk * r->per_chunk + r->at;
    marco_status status = MARCO_OK;
    if (r->base)
        status = infer_kl_read(r->base, (uint32_t)r->n_vocab, row, r->n, r->rows, r->error);
    if (status)
        return status;
    pthread_mutex_lock(&r->engine->turn);
    base_pool_run(r->engine->pool, score_position, r, (int64_t)r->n);
    pthread_mutex_unlock(&r->engine->turn);
    for (size_t i = row; i < row + r->n; i++)
        if (r->positions[i].damaged)
            return base_fail(r->error, MARCO_ERROR_FORMAT,
                             "%s: row %zu holds no probabilities: the file is damaged",
                             r->base->path, i);
    if (r->save)
        status = base_output_write(r->save, r->rows, r->n * r->row_bytes, r->error);
    return status ? status : report(r, r->first + r->at + r->n, r->error);
}

/* Collects logits; a full piece, and the last of a chunk, is scored. */
static int on_logits(void *user, int64_t at, const float *logits)
{
    run *r = user;
    memcpy(r->logits + r->n * r->n_vocab, logits, r->n_vocab * sizeof *logits);
    r->n++;
    if (r->n < r->piece && (size_t)at + 1 < r->first + r->per_chunk)
        return 0;
    r->status = score_piece(r);
    r->at += r->n;
    r->n = 0;
    return r->status != MARCO_OK;
}

static int on_base_logits(void *user, int64_t at, const float *logits)
{
    run *r = user;
    memcpy(r->base_logits + ((size_t)at - r->first) * r->n_vocab, logits,
           r->n_vocab * sizeof *logits);
    return 0;
}

/* A chunk through one model: the first positions without their logits. */
static marco_status evaluate(run *r, marco_session *session, marco_logits_fn fn, marco_error *error)
{
    const int32_t *ids = infer_chunk(&r->chunks, r->chunk);
    marco_session_truncate(session, 0);
    marco_status status = marco_session_eval(session, ids, r->first, error);
    if (!status)
        status = marco_session_eval_each(session, ids + r->first, r->per_chunk, fn, r, error);
    return status;
}

static marco_status run_chunk(run *r, marco_error *error)
{
    r->at = r->n = 0;
    r->status = MARCO_OK;
    r->error = error;
    marco_status status = report(r, 0, error);
    if (!status && r->base_session)
        status = evaluate(r, r->base_session, on_base_logits, error);
    if (status)
        return status;
    /* Scoring's own error, where there is one, is told and not that it stopped the evaluation. */
    marco_error evaluation;
    status = evaluate(r, r->session, on_logits, &evaluation);
    if (r->status)
        return r->status;
    if (status && error)
        *error = evaluation;
    return status;
}

static marco_status run_chunks(run *r, marco_error *error)
{
    double sum = 0;
    for (size_t c = 0; c < r->chunks.n_chunks; c++) {
        r->chunk = c;
        marco_status status = run_chunk(r, error);
        if (status)
            return status;
        for (size_t i = 0; i < r->per_chunk; i++)
            sum += r->positions[c * r->per_chunk + i].logprob;
        if (r->params->on_chunk)
            r->params->on_chunk(r->params->user, (int32_t)(c + 1),
                                exp(-sum / (double)((c + 1) * r->per_chunk)));
    }
    r->chunk = r->chunks.n_chunks;
    return report(r, 0, error);
}

/* ---- what they amount to -------------------------------------------------------------------- */

typedef struct summary {
    double mean, error; /* of the mean; 0 for a single value */
} summary;

typedef double (*value_fn)(const position *p);

static double surprise(const position *p)
{
    return -p->logprob;
}

static double base_surprise(const position *p)
{
    return -p->base_logprob;
}

static double more_surprise(const position *p)
{
    return p->base_logprob - p->logprob;
}

static double kl(const position *p)
{
    return p->kl;
}

static summary summarise(const position *positions, size_t n, value_fn value)
{
    summary s = {0};
    double squares = 0;
    for (size_t i = 0; i < n; i++)
        s.mean += value(&positions[i]) / (double)n;
    for (size_t i = 0; i < n; i++) {
        double d = value(&positions[i]) - s.mean;
        squares += d * d;
    }
    if (n > 1)
        s.error = sqrt(squares / (double)(n - 1) / (double)n);
    return s;
}

static int compare_kl(const void *a, const void *b)
{
    const position *x = a, *y = b;
    return x->kl < y->kl ? -1 : x->kl > y->kl;
}

/* Of positions in ascending order of their divergence. */
static double percentile(const position *positions, size_t n, double share)
{
    double at = share * (double)(n - 1);
    size_t below = (size_t)at, above = below + 1 < n ? below + 1 : below;
    double part = at - (double)below;
    return positions[below].kl * (1 - part) + positions[above].kl * part;
}

/* Sorts the positions. */
static marco_divergence summarise_divergence(position *positions, size_t n)
{
    summary mean = summarise(positions, n, kl), ratio = summarise(positions, n, more_surprise);
    marco_divergence d = {.mean = mean.mean,
                          .error = mean.error,
                          .base_perplexity = exp(summarise(positions, n, base_surprise).mean),
                          .log_ratio = ratio.mean,
                          .log_ratio_error = ratio.error};
    size_t same = 0;
    for (size_t i = 0; i < n; i++)
        same += positions[i].same_top;
    d.same_top = (double)same / (double)n;
    qsort(positions, n, sizeof *positions, compare_kl);
    d.median = percentile(positions, n, 0.5);
    d.p99 = percentile(positions, n, 0.99);
    d.p999 = percentile(positions, n, 0.999);
    d.max = positions[n - 1].kl;
    return d;
}

static void conclude(run *r, marco_perplexity_result *result)
{
    size_t n = r->chunks.n_chunks * r->per_chunk;
    summary s = summarise(r->positions, n, surprise);
    *result = (marco_perplexity_result){
        .n_ctx = r->chunks.n_ctx,
        .n_chunks = (int32_t)r->chunks.n_chunks,
        .n_scored = (int64_t)n,
        .perplexity = exp(s.mean),
        .error = exp(s.mean) * s.error,
        .compared = r->base_logits != NULL,
    };
    if (result->compared)
        result->divergence = summarise_divergence(r->positions, n);
}

/* ---- setting up ----------------------------------------------------------------------------- */

/* Probabilities can only be compared of the same tokens in the same places. */
static marco_status check_base_engine(const run *r, const char *text, size_t size,
                                      marco_error *error)
{
    const marco_engine *base = r->params->base_engine;
    const char *path = base->weights->path;
    infer_chunks chunks;
    if (r->engine->plan.budget || base->plan.budget)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: cannot share a budget of memory with another model; save its "
                         "probabilities to a file first (--save-kl-base) and compare with that",
                         path);
    if ((size_t)base->weights->config.n_vocab != r->n_vocab)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "%s: has a vocabulary of %d, this model's is %zu", path,
                         base->weights->config.n_vocab, r->n_vocab);
    marco_status status = infer_chunks_create(base, text, size, r->chunks.n_ctx,
                                              r->params->max_chunks, &chunks, error);
    if (status)
        return status;
    size_t bytes = r->chunks.n_chunks * (size_t)r->chunks.n_ctx * sizeof *chunks.ids;
    if (chunks.n_chunks != r->chunks.n_chunks || memcmp(chunks.ids, r->chunks.ids, bytes) != 0)
        status =
            base_fail(error, MARCO_ERROR_ARGUMENT,
                      "%s: its tokenizer cuts the text into other tokens than this model's", path);
    infer_chunks_free(&chunks);
    return status;
}

static marco_status open_files(run *r, marco_error *error)
{
    const marco_perplexity_params *params = r->params;
    infer_kl_key key = infer_kl_key_of(&r->chunks, (int32_t)r->n_vocab);
    marco_status status = MARCO_OK;
    if (params->base)
        status =
            infer_kl_open(params->base, &key, r->chunks.n_chunks * r->per_chunk, &r->base, error);
    if (!status && params->save)
        status = base_output_create(params->save, params->overwrite, &r->save, error);
    if (!status && r->save)
        status = infer_kl_begin(r->save, &key, error);
    return status;
}

/* Bytes of everything but the sessions, scoring `piece` positions at once. */
static uint64_t scoring_bytes(const run *r, size_t piece)
{
    const marco_perplexity_params *params = r->params;
    uint64_t row = r->n_vocab * sizeof(float), n_base = params->base ? piece : 0;
    n_base = params->base_engine ? r->per_chunk : n_base;
    uint64_t rows = params->base || params->save ? piece * r->row_bytes : 0;
    uint64_t ids = r->chunks.n_chunks * (uint64_t)r->chunks.n_ctx * sizeof *r->chunks.ids;
    return ids + r->chunks.n_chunks * r->per_chunk * sizeof *r->positions + rows +
           (piece + n_base) * row;
}

/* Room for the largest piece there is room for. The session samples nothing. */
static marco_status take_room(run *r, marco_error *error)
{
    uint64_t spare = infer_sampler_bytes(&r->engine->weights->config);
    marco_status status;
    pthread_mutex_lock(&r->engine->turn);
    for (r->piece = PIECE;; r->piece /= 2) {
        uint64_t bytes = scoring_bytes(r, r->piece);
        bytes = bytes > spare ? bytes - spare : 0;
        status = infer_take(r->engine, bytes, "scoring this text", error);
        r->taken = status ? 0 : bytes;
        if (!status || r->piece == 1)
            break;
    }
    pthread_mutex_unlock(&r->engine->turn);
    return status;
}

static marco_status reserve(run *r, marco_error *error)
{
    const marco_perplexity_params *params = r->params;
    size_t row = r->n_vocab * sizeof(float);
    bool rows = params->base || params->save;
    r->n_base = params->base_engine ? r->per_chunk : params->base ? r->piece : 0;
    r->positions = base_alloc_array(r->chunks.n_chunks * r->per_chunk, sizeof *r->positions);
    r->logits = base_region_alloc(r->piece * row);
    if (r->n_base)
        r->base_logits = base_region_alloc(r->n_base * row);
    if (rows)
        r->rows = base_region_alloc(r->piece * r->row_bytes);
    if (!r->positions || !r->logits || (r->n_base && !r->base_logits) || (rows && !r->rows))
        return base_fail_memory(error, (r->piece + r->n_base) * row, "logits");
    return MARCO_OK;
}

static marco_status set_up(run *r, const char *text, size_t size, marco_error *error)
{
    const marco_perplexity_params *params = r->params;
    r->n_vocab = (size_t)r->engine->weights->config.n_vocab;
    r->row_bytes = infer_kl_row_bytes((uint32_t)r->n_vocab);
    marco_status status = infer_chunks_create(r->engine, text, size, params->n_ctx,
                                              params->max_chunks, &r->chunks, error);
    if (status)
        return status;
    r->first = (size_t)r->chunks.n_ctx / 2;
    r->per_chunk = (size_t)r->chunks.n_ctx - 1 - r->first;

    marco_session_params session = marco_session_params_default();
    session.n_ctx = r->chunks.n_ctx;
    session.kv_type = params->kv_type;
    if (params->base_engine)
        status = check_base_engine(r, text, size, error);
    if (!status)
        status = open_files(r, error);
    if (!status)
        status = marco_session_create(r->engine, &session, &r->session, error);
    session.kv_type = MARCO_KV_AUTO;
    if (!status && params->base_engine)
        status = marco_session_create(params->base_engine, &session, &r->base_session, error);
    if (!status)
        status = take_room(r, error);
    return status ? status : reserve(r, error);
}

static void tear_down(run *r)
{
    marco_session_close(r->session);
    marco_session_close(r->base_session);
    base_file_close(r->base);
    base_output_abort(r->save);
    base_region_free(r->logits, r->piece * r->n_vocab * sizeof *r->logits);
    base_region_free(r->base_logits, r->n_base * r->n_vocab * sizeof *r->base_logits);
    base_region_free(r->rows, r->piece * r->row_bytes);
    base_free(r->positions);
    pthread_mutex_lock(&r->engine->turn);
    infer_give_back(r->engine, r->taken);
    pthread_mutex_unlock(&r->engine->turn);
    infer_chunks_free(&r->chunks);
}

marco_status marco_perplexity(marco_engine *engine, const char *text, size_t size,
                              const marco_perplexity_params *params,
                              marco_perplexity_result *result, marco_error *error)
{
    const marco_perplexity_params standard = marco_perplexity_params_default();
    if (!engine || (!text && size) || !result)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "marco_perplexity: an argument is NULL");
    run r = {.engine = engine, .params = params ? params : &standard};
    if (!!r.params->base + !!r.params->base_engine + !!r.params->save > 1)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "a run can be compared with one other, or saved for others: not both");
    marco_status status = set_up(&r, text, size, error);
    if (!status)
        status = run_chunks(&r, error);
    if (!status && r.save) {
        status = base_output_commit(r.save, error);
        r.save = NULL;
    }
    if (!status)
        conclude(&r, result);
    tear_down(&r);
    return status;
}
