/* What the worker does: tokens for all, and between them the prompts, some layers at a time. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/time.h"
#include "infer/scheduler.h"

enum { LEAST_CHUNK = 32, SCORED_AT_ONCE = 16 };

/* Reading between two tokens of others: of the time that a token of theirs took, and seconds at
 * least. A layer more may be under way when it is over. */
#define SLICE       0.8
#define LEAST_SLICE 2e-3

static void lock_turn(marco_scheduler *s)
{
    pthread_mutex_lock(&s->engine->turn);
}

static void unlock_turn(marco_scheduler *s)
{
    pthread_mutex_unlock(&s->engine->turn);
}

/* ---- what a request lacks -------------------------------------------------------------------- */

static size_t left_of(const marco_request *r)
{
    return r->n_ids - r->line.length;
}

static bool wants_reading(const marco_request *r)
{
    return left_of(r) > 1 || (left_of(r) == 1 && r->n_reply == 0 && r->params.prompt_scores);
}

/* ---- ends ---------------------------------------------------------------------------------- */

void infer_scheduler_retire(marco_scheduler *s, marco_request *r, marco_status status,
                            const char *message, marco_finish finish)
{
    size_t i = 0;
    while (s->active[i] != r)
        i++;
    memmove(s->active + i, s->active + i + 1, (s->n_active - i - 1) * sizeof *s->active);
    s->n_active--;
    lock_turn(s);
    if (status)
        infer_timeline_free(&r->line);
    else
        infer_prefixes_put(&s->prefixes, &r->line);
    unlock_turn(s);
    infer_request_finish(r, status, message, finish);
}

static void fail_request(marco_scheduler *s, marco_request *r, marco_status status,
                         const marco_error *error)
{
    infer_scheduler_retire(s, r, status, error->message, MARCO_FINISH_CANCELLED);
}

static void drop_cancelled(marco_scheduler *s)
{
    for (size_t i = s->n_active; i-- > 0;)
        if (atomic_load(&s->active[i]->cancelled) && !s->active[i]->reading)
            infer_scheduler_retire(s, s->active[i], MARCO_OK, NULL, MARCO_FINISH_CANCELLED);
}

/* ---- picking ------------------------------------------------------------------------------- */

static void pick_part(void *user, int64_t i, int thread)
{
    (void)thread;
    marco_scheduler *s = user;
    marco_request *r = s->rows[i];
    int32_t n_vocab = s->engine->weights->config.n_vocab;
    const float *logits = s->logits + (size_t)i * (size_t)n_vocab;
    r->status = r->grammar ? grammar_state_mask(r->grammar, r->mask, &r->error) : MARCO_OK;
    if (!r->status)
        r->status = infer_sampler_pick(r->sampler, logits, r->grammar ? r->mask : NULL, &r->picked,
                                       &r->error);
    if (!r->status && r->params.scores)
        r->logprob = infer_score(logits, n_vocab, r->picked, r->top, r->params.n_top);
}

/* A token for each of the n rows, whose logits are there. */
static void pick(marco_scheduler *s, size_t n)
{
    lock_turn(s);
    base_pool_run(s->engine->pool, pick_part, s, (int64_t)n);
    unlock_turn(s);
    for (size_t i = 0; i < n; i++) {
        marco_request *r = s->rows[i];
        marco_finish finish = MARCO_FINISH_STOP;
        if (!infer_request_accept(r, &finish))
            continue;
        if (r->status)
            fail_request(s, r, r->status, &r->error);
        else
            infer_scheduler_retire(s, r, MARCO_OK, NULL, finish);
    }
}

static marco_status reserve_logits(marco_scheduler *s, size_t rows, marco_error *error)
{
    size_t row = (size_t)s->engine->weights->config.n_vocab * sizeof *s->logits;
    if (rows <= s->logits_rows)
        return MARCO_OK;
    base_region_free(s->logits, s->logits_rows * row);
    s->logits = base_region_alloc(rows * row);
    s->logits_rows = s->logits ? rows : 0;
    return s->logits ? MARCO_OK : base_fail_memory(error, rows * row, "logits");
}

/* ---- a token of every reply ---------------------------------------------------------------- */

static marco_status run_layers(model_context *context, marco_error *error)
{
    marco_status status = MARCO_OK;
    while (!status && model_pass_left(context) > 0)
        status = model_pass_layer(context, error);
    return status;
}

/* Rows: the requests that lack one token only. Each gets room for it, or an end. */
static size_t collect_rows(marco_scheduler *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_active;) {
        marco_request *r = s->active[i];
        marco_error error = {0};
        marco_status status = MARCO_OK;
        bool ready = !r->reading && left_of(r) == 1 && !wants_reading(r);
        if (ready) {
            status = infer_timeline_accept(&r->line, r->ids + r->n_ids - 1, 1, &error);
            if (!status)
                status = infer_scheduler_reserve(s, r, r->n_ids, &error);
        }
        if (status && status != MARCO_ERROR_BUSY) {
            fail_request(s, r, status, &error);
            continue;
        }
        i++;
        if (ready && !status)
            s->rows[n++] = r;
    }
    /* Making room for one may have taken another's. */
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (left_of(s->rows[i]) == 1)
            s->rows[kept++] = s->rows[i];
    return kept;
}

static bool decode(marco_scheduler *s)
{
    marco_error error = {0};
    size_t n = collect_rows(s);
    if (n == 0)
        return false;
    double start = base_now();
    for (size_t i = 0; i < n; i++) {
        infer_timeline *line = &s->rows[i]->line;
        s->sequences[i] =
            (model_sequence){&line->kv, line->ids + line->length, 1, (int64_t)line->length};
    }
    marco_status status = reserve_logits(s, n, &error);
    lock_turn(s);
    if (!status)
        status = model_pass_begin(s->decoding, s->sequences, (int64_t)n, &error);
    if (!status)
        status = run_layers(s->decoding, &error);
    if (!status)
        model_logits(s->decoding, 0, (int64_t)n, s->logits);
    unlock_turn(s);
    s->now.busy_seconds += base_now() - start;
    for (size_t i = 0; i < n; i++) {
        if (status)
            fail_request(s, s->rows[i], status, &error);
        else
            s->rows[i]->line.length++;
    }
    if (!status)
        pick(s, n);
    s->now.passes++;
    s->decode_seconds = base_now() - start;
    return true;
}

/* ---- the pass that reads prompts ----------------------------------------------------------- */

/* Shares the chunk's tokens out: the same for each, and what those with less to read do not need
 * for the others. Requests are sorted by what is left. */
static void share_chunk(infer_reading *reading)
{
    size_t tokens = (size_t)reading->chunk;
    for (size_t i = 0; i < reading->n; i++) {
        size_t share = tokens / (reading->n - i), left = left_of(reading->requests[i]);
        share = share > 0 ? share : 1;
        reading->counts[i] = left < share ? left : share;
        tokens -= reading->counts[i] < tokens ? reading->counts[i] : tokens;
    }
}

static void sort_by_left(marco_request **requests, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        marco_request *r = requests[i];
        size_t at = i;
        for (; at > 0 && left_of(requests[at - 1]) > left_of(r); at--)
            requests[at] = requests[at - 1];
        requests[at] = r;
    }
}

/* Collects what is to be read next and makes room for it; false where there is nothing. */
static bool collect_prompts(marco_scheduler *s)
{
    infer_reading *reading = &s->reading;
    reading->n = 0;
    for (size_t i = 0; i < s->n_active && reading->n < (size_t)reading->chunk; i++)
        if (wants_reading(s->active[i]))
            reading->requests[reading->n++] = s->active[i];
    sort_by_left(reading->requests, reading->n);
    share_chunk(reading);
    for (size_t i = 0; i < reading->n;) {
        marco_request *r = reading->requests[i];
        size_t length = r->line.length, n = reading->counts[i];
        marco_error error = {0};
        marco_status status = infer_timeline_accept(&r->line, r->ids + length, n, &error);
        if (!status)
            status = infer_scheduler_reserve(s, r, length + n, &error);
        if (!status) {
            r->reading = true;
            i++;
            continue;
        }
        if (status != MARCO_ERROR_BUSY)
            fail_request(s, r, status, &error);
        reading->n--;
        memmove(reading->requests + i, reading->requests + i + 1,
                (reading->n - i) * sizeof *reading->requests);
        memmove(reading->counts + i, reading->counts + i + 1,
                (reading->n - i) * sizeof *reading->counts);
    }
    return reading->n > 0;
}

/* Ends the pass: its requests are free again, or fail. */
static void end_reading(marco_scheduler *s, marco_status status, const marco_error *error)
{
    infer_reading *reading = &s->reading;
    reading->under_way = false;
    for (size_t i = 0; i < reading->n; i++) {
        reading->requests[i]->reading = false;
        if (status)
            fail_request(s, reading->requests[i], status, error);
    }
}

void infer_reading_abandon(marco_scheduler *s)
{
    if (s->reading.under_way)
        end_reading(s, MARCO_OK, NULL);
}

static bool all_cancelled(const infer_reading *reading)
{
    for (size_t i = 0; i < reading->n; i++)
        if (!atomic_load(&reading->requests[i]->cancelled))
            return false;
    return true;
}

static bool begin_reading(marco_scheduler *s)
{
    infer_reading *reading = &s->reading;
    marco_error error = {0};
    if (!collect_prompts(s))
        return false;
    for (size_t i = 0; i < reading->n; i++) {
        infer_timeline *line = &reading->requests[i]->line;
        s->sequences[i] = (model_sequence){&line->kv, line->ids + line->length,
                                           (int64_t)reading->counts[i], (int64_t)line->length};
    }
    reading->under_way = true;
    reading->run = reading->row = 0;
    lock_turn(s);
    marco_status status =
        model_pass_begin(reading->context, s->sequences, (int64_t)reading->n, &error);
    unlock_turn(s);
    if (status)
        end_reading(s, status, &error);
    return true;
}

/* ---- scores of prompts --------------------------------------------------------------------- */

typedef struct score_task {
    const float *logits;
    const int32_t *ids; /* [n] what came next */
    int32_t n_vocab, n_top;
    float *logprobs;        /* [n] */
    marco_token_score *top; /* [n, n_top] */
} score_task;

static void score_part(void *user, int64_t i, int thread)
{
    (void)thread;
    score_task *t = user;
    t->logprobs[i] = infer_score(t->logits + i * t->n_vocab, t->n_vocab, t->ids[i],
                                 t->top + i * t->n_top, t->n_top);
}

/* Once for each, however often its prompt had to be read. */
static void tell_prompt(marco_request *r, size_t index, float logprob, const marco_token_score *top)
{
    const marco_request_events *e = &r->params.events;
    if (index < r->n_scored)
        return;
    r->n_scored = index + 1;
    const marco_token_event event = {.id = r->ids[index],
                                     .logprob = logprob,
                                     .top = top,
                                     .n_top = top ? (size_t)r->params.n_top : 0,
                                     .text = ""};
    if (e->on_prompt_token)
        e->on_prompt_token(e->user, index, &event);
}

/* Some of the next rows of a run; the rest another time. */
static marco_status score_rows(marco_scheduler *s, marco_request *r, size_t first_row,
                               marco_error *error)
{
    infer_reading *reading = &s->reading;
    size_t position = r->line.length + reading->row, n = reading->counts[reading->run];
    n = n - reading->row < SCORED_AT_ONCE ? n - reading->row : SCORED_AT_ONCE;
    reading->row += n;
    if (position == 0)
        tell_prompt(r, 0, NAN, NULL);
    /* What follows the last token of the prompt is not in it. */
    size_t told = position + n < r->n_ids ? n : r->n_ids - 1 - position;
    float logprobs[SCORED_AT_ONCE];
    size_t n_top = (size_t)r->params.n_top;
    marco_token_score *top = base_alloc_array(SCORED_AT_ONCE * n_top, sizeof *top);
    marco_status status = reserve_logits(s, SCORED_AT_ONCE, error);
    if (!top)
        status = base_fail_memory(error, SCORED_AT_ONCE * n_top * sizeof *top, "scores");
    if (!status && told > 0) {
        score_task task = {s->logits,
                           r->ids + position + 1,
                           s->engine->weights->config.n_vocab,
                           r->params.n_top,
                           logprobs,
                           top};
        lock_turn(s);
        model_logits(reading->context, (int64_t)(first_row), (int64_t)told, s->logits);
        base_pool_run(s->engine->pool, score_part, &task, (int64_t)told);
        unlock_turn(s);
        for (size_t i = 0; i < told; i++)
            tell_prompt(r, position + 1 + i, logprobs[i], top + i * n_top);
    }
    base_free(top);
    return status;
}

/* One piece of what is to be done after the layers; false when there is no more. */
static bool score_piece(marco_scheduler *s, marco_status *status, marco_error *error)
{
    infer_reading *reading = &s->reading;
    size_t first = 0;
    for (size_t i = 0; i < reading->run; i++)
        first += reading->counts[i];
    for (; reading->run < reading->n; reading->run++, reading->row = 0) {
        marco_request *r = reading->requests[reading->run];
        if (r->params.prompt_scores && r->n_reply == 0 &&
            reading->row < reading->counts[reading->run]) {
            *status = score_rows(s, r, first + reading->row, error);
            return true;
        }
        first += reading->counts[reading->run];
    }
    return false;
}

/* ---- its end ------------------------------------------------------------------------------- */

/* Its prompt's scores are all that it asks for. */
static bool wants_scores_alone(const marco_request *r)
{
    return r->params.max_tokens == 0;
}

/* What was read counts; those that have read everything get their first token. */
static void finish_reading(marco_scheduler *s)
{
    infer_reading *reading = &s->reading;
    marco_error error = {0};
    int64_t row = 0;
    size_t n = 0;
    int64_t *rows = base_alloc_array(reading->n, sizeof *rows);
    marco_status status = rows ? reserve_logits(s, reading->n, &error)
                               : base_fail_memory(&error, reading->n * sizeof *rows, "logits");
    for (size_t i = 0; i < reading->n && !status; i++) {
        marco_request *r = reading->requests[i];
        const marco_request_events *e = &r->params.events;
        row += (int64_t)reading->counts[i];
        r->line.length += reading->counts[i];
        if (left_of(r) > 0 && e->on_prompt && r->n_reply == 0)
            e->on_prompt(e->user, r->line.length, r->n_ids);
        if (left_of(r) > 0 || atomic_load(&r->cancelled) || wants_scores_alone(r))
            continue;
        rows[n] = row - 1;
        s->rows[n++] = r;
    }
    end_reading(s, status, &error);
    for (size_t i = 0; i < reading->n && !status; i++) {
        marco_request *r = reading->requests[i];
        if (left_of(r) == 0 && !atomic_load(&r->cancelled) && wants_scores_alone(r))
            infer_scheduler_retire(s, r, MARCO_OK, NULL, MARCO_FINISH_LENGTH);
    }
    if (n > 0 && !status) {
        lock_turn(s);
        model_logits_of(reading->context, rows, (int64_t)n, s->logits);
        unlock_turn(s);
        pick(s, n);
    }
    base_free(rows);
}

/* Passes get shorter where one layer alone keeps the others waiting too long, and longer again
 * where many fit. */
static void adapt_chunk(marco_scheduler *s, double slice, bool others)
{
    infer_reading *reading = &s->reading;
    if (!others) {
        reading->chunk = s->params.chunk;
        return;
    }
    if (reading->seconds > 1.25 * slice && reading->chunk / 2 >= LEAST_CHUNK)
        reading->chunk /= 2;
    else if (reading->seconds < 0.4 * slice && reading->chunk * 2 <= s->params.chunk)
        reading->chunk *= 2;
}

/* Reads on, for a slice of time where others wait for tokens, else until the pass is over. */
static void read_prompts(marco_scheduler *s, bool others)
{
    infer_reading *reading = &s->reading;
    double slice = fmax(SLICE * s->decode_seconds, LEAST_SLICE);
    if (!reading->under_way) {
        adapt_chunk(s, slice, others);
        if (!begin_reading(s))
            return;
    }
    double start = base_now();
    while (reading->under_way) {
        marco_error error = {0};
        marco_status status = MARCO_OK;
        double before = base_now();
        if (all_cancelled(reading)) {
            infer_reading_abandon(s);
            return;
        }
        if (model_pass_left(reading->context) > 0) {
            lock_turn(s);
            status = model_pass_layer(reading->context, &error);
            unlock_turn(s);
            reading->seconds = base_now() - before;
            s->now.busy_seconds += reading->seconds;
        } else if (!score_piece(s, &status, &error)) {
            finish_reading(s);
            return;
        }
        if (status)
            end_reading(s, status, &error);
        if (others && base_now() - start + reading->seconds / 2 > slice)
            return;
    }
}

/* ---- the step ------------------------------------------------------------------------------ */

void infer_scheduler_step(marco_scheduler *s)
{
    drop_cancelled(s);
    infer_scheduler_admit(s);
    bool decoded = decode(s);
    read_prompts(s, decoded);
}
