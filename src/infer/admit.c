/* Who begins when, and what memory there is for them. */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "infer/scheduler.h"

/* ---- memory -------------------------------------------------------------------------------- */

/* The last of the requests that came after this one and hold memory that nothing is computed in. */
static marco_request *find_victim(const marco_scheduler *s, const marco_request *r)
{
    for (size_t i = s->n_active; i-- > 0 && s->active[i] != r;)
        if (!s->active[i]->reading && s->active[i]->line.length > 0)
            return s->active[i];
    return NULL;
}

/* Does the limit of all KV caches leave room for the request to have n tokens? */
static bool within_limit(const marco_scheduler *s, const marco_request *r, size_t n)
{
    uint64_t need = infer_kv_bytes(&r->line.kv, (int64_t)n), has = model_kv_bytes(&r->line.kv);
    return need <= has || atomic_load(&s->engine->kv_bytes) + (need - has) <= s->params.kv_bytes;
}

marco_status infer_scheduler_reserve(marco_scheduler *s, marco_request *r, size_t n,
                                     marco_error *error)
{
    marco_status status;
    pthread_mutex_lock(&s->engine->turn);
    for (;;) {
        if (within_limit(s, r, n))
            status = infer_timeline_reserve(&r->line, n, error);
        else
            status = base_fail(error, MARCO_ERROR_MEMORY,
                               "a context of %zu tokens does not fit into the %llu MiB for KV "
                               "caches; shorten it, or allow more memory",
                               n, (unsigned long long)(s->params.kv_bytes >> 20));
        if (status != MARCO_ERROR_MEMORY || infer_prefixes_drop(&s->prefixes)) {
            if (status != MARCO_ERROR_MEMORY)
                break;
            continue;
        }
        /* What it had computed is computed again, with the same result, when there is room. */
        marco_request *victim = find_victim(s, r);
        if (!victim) {
            if (r != s->active[0] || s->reading.under_way)
                status = MARCO_ERROR_BUSY;
            break;
        }
        infer_timeline_truncate(&victim->line, 0);
    }
    pthread_mutex_unlock(&s->engine->turn);
    return status;
}

/* ---- what it can begin with ---------------------------------------------------------------- */

/* The active timeline with the longest common beginning, and the longest that one that is still
 * being read will have. */
static const infer_timeline *find_active(const marco_scheduler *s, const marco_request *r,
                                         size_t *n, size_t *soon)
{
    const infer_timeline *best = NULL;
    *n = *soon = 0;
    for (size_t i = 0; i < s->n_active; i++) {
        const marco_request *other = s->active[i];
        size_t all = infer_common_prefix(other->ids, other->n_ids, r->ids, r->n_ids);
        size_t now = all < other->line.length ? all : other->line.length;
        if (now > *n) {
            *n = now;
            best = &other->line;
        }
        *soon = all > now && all > *soon ? all : *soon;
    }
    return best;
}

/* Somebody is reading what this one would have to read, too: better to wait and share it. */
static bool better_later(marco_scheduler *s, const marco_request *r)
{
    enum { WORTH = 16 };
    size_t now, soon, cached;
    if (r->params.prompt_scores)
        return false;
    find_active(s, r, &now, &soon);
    if (soon < WORTH || soon - WORTH < now)
        return false;
    infer_prefixes_match(&s->prefixes, r->ids, r->n_ids, &cached);
    return soon - WORTH >= cached;
}

/* Shares what has been computed of its ids, all but the last, whose logits are wanted. */
static void share_prefix(marco_scheduler *s, marco_request *r)
{
    size_t n, cached, soon;
    if (r->params.prompt_scores)
        return;
    const infer_timeline *from = find_active(s, r, &n, &soon);
    infer_prefix *prefix = infer_prefixes_match(&s->prefixes, r->ids, r->n_ids, &cached);
    if (cached > n) {
        infer_prefixes_touch(&s->prefixes, prefix);
        from = &prefix->line;
        n = cached;
    }
    n = n < r->n_ids - 1 ? n : r->n_ids - 1;
    if (n == 0)
        return;
    pthread_mutex_lock(&s->engine->turn);
    marco_status status = infer_timeline_share(&r->line, from, n, NULL);
    pthread_mutex_unlock(&s->engine->turn);
    r->n_cached = status ? 0 : n; /* without memory for it, it is read again */
}

/* ---- turns --------------------------------------------------------------------------------- */

static size_t active_of(const marco_scheduler *s, uint64_t client)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_active; i++)
        n += s->active[i]->client == client;
    return n;
}

static uint64_t *turn_of(marco_scheduler *s, uint64_t client)
{
    return &s->turns[base_random_mix(client) % INFER_TURNS];
}

/* The group whose next request may begin: of the clients with the fewest active ones, that whose
 * last turn is longest ago, and of its groups the first to come. NULL where none can now. */
static infer_group **choose_group(marco_scheduler *s)
{
    infer_group **best = NULL;
    size_t least = SIZE_MAX;
    uint64_t oldest = UINT64_MAX;
    for (infer_group **at = &s->queue; *at; at = &(*at)->next) {
        marco_request *r = (*at)->requests[(*at)->begun];
        size_t active = active_of(s, (*at)->client);
        uint64_t turn = *turn_of(s, (*at)->client);
        if (active > least || (active == least && turn >= oldest))
            continue;
        if (better_later(s, r))
            continue;
        least = active;
        oldest = turn;
        best = at;
    }
    return best;
}

/* Takes the next request of a group out of the queue, and the group with its last one. */
static marco_request *take(marco_scheduler *s, infer_group **at)
{
    infer_group *group = *at;
    marco_request *r = group->requests[group->begun++];
    if (group->begun == group->n) {
        *at = group->next;
        s->stats.waiting--;
        base_free(group->requests);
        base_free(group);
    }
    return r;
}

static marco_request *take_next(marco_scheduler *s)
{
    infer_group **at = choose_group(s);
    if (!at)
        return NULL;
    *turn_of(s, (*at)->client) = ++s->turn;
    return take(s, at);
}

static void begin(marco_scheduler *s, marco_request *r)
{
    marco_error error = {0};
    marco_status status = MARCO_OK;
    if (atomic_load(&r->cancelled)) {
        infer_request_finish(r, MARCO_OK, NULL, MARCO_FINISH_CANCELLED);
        return;
    }
    s->active[s->n_active++] = r;
    status = infer_request_begin(r, &error);
    if (!status)
        share_prefix(s, r);
    if (status)
        infer_scheduler_retire(s, r, status, error.message, MARCO_FINISH_CANCELLED);
    else if (r->params.max_tokens == 0 && !r->params.prompt_scores)
        infer_scheduler_retire(s, r, MARCO_OK, NULL, MARCO_FINISH_LENGTH);
}

/* Cancelled requests leave the queue whether or not there is room for them. The lock is the
 * caller's; returns one, or NULL. */
static marco_request *take_cancelled(marco_scheduler *s)
{
    for (infer_group **at = &s->queue; *at; at = &(*at)->next) {
        infer_group *group = *at;
        for (size_t i = group->begun; i < group->n; i++) {
            marco_request *r = group->requests[i];
            if (!atomic_load(&r->cancelled))
                continue;
            group->requests[i] = group->requests[group->begun];
            group->requests[group->begun] = r;
            return take(s, at);
        }
    }
    return NULL;
}

void infer_scheduler_admit(marco_scheduler *s)
{
    for (;;) {
        pthread_mutex_lock(&s->lock);
        marco_request *r = take_cancelled(s);
        if (!r && s->n_active < (size_t)s->params.parallel)
            r = take_next(s);
        pthread_mutex_unlock(&s->lock);
        if (!r)
            return;
        begin(s, r);
    }
}
