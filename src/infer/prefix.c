#include "infer/prefix.h"

#include "base/memory.h"

enum { LEAST_TOKENS = 16 }; /* of a timeline worth keeping */

size_t infer_common_prefix(const int32_t *a, size_t n_a, const int32_t *b, size_t n_b)
{
    size_t n = n_a < n_b ? n_a : n_b, i = 0;
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

infer_prefix *infer_prefixes_match(const infer_prefixes *p, const int32_t *ids, size_t n_ids,
                                   size_t *n)
{
    infer_prefix *best = NULL;
    *n = 0;
    for (infer_prefix *at = p->first; at; at = at->next) {
        size_t common = infer_common_prefix(at->line.ids, at->line.length, ids, n_ids);
        if (common > *n) {
            *n = common;
            best = at;
        }
    }
    return best;
}

void infer_prefixes_touch(infer_prefixes *p, infer_prefix *prefix)
{
    infer_prefix **at = &p->first;
    while (*at != prefix)
        at = &(*at)->next;
    *at = prefix->next;
    prefix->next = p->first;
    p->first = prefix;
}

static void drop(infer_prefixes *p, infer_prefix **at)
{
    infer_prefix *prefix = *at;
    *at = prefix->next;
    infer_timeline_free(&prefix->line);
    base_free(prefix);
    p->n--;
}

/* Drops timelines that `line` begins with; false where one begins with `line`. */
static bool make_way(infer_prefixes *p, const infer_timeline *line)
{
    for (infer_prefix **at = &p->first; *at;) {
        const infer_timeline *other = &(*at)->line;
        size_t common = infer_common_prefix(line->ids, line->length, other->ids, other->length);
        if (common == line->length)
            return false;
        if (common == other->length)
            drop(p, at);
        else
            at = &(*at)->next;
    }
    return true;
}

uint32_t infer_prefixes_round(infer_prefixes *p)
{
    p->round = p->round == UINT32_MAX ? 1 : p->round + 1;
    return p->round;
}

static uint64_t count(infer_prefixes *p)
{
    uint64_t bytes = 0;
    uint32_t round = infer_prefixes_round(p);
    for (infer_prefix *at = p->first; at; at = at->next)
        bytes += model_kv_count(&at->line.kv, round);
    return bytes;
}

void infer_prefixes_put(infer_prefixes *p, infer_timeline *line)
{
    infer_prefix *prefix = NULL;
    if (p->limit > 0 && line->length >= LEAST_TOKENS && make_way(p, line))
        prefix = base_calloc(1, sizeof *prefix);
    if (!prefix) {
        infer_timeline_free(line);
        return;
    }
    infer_timeline_truncate(line, line->length); /* pages reserved for more */
    prefix->line = *line;
    *line = (infer_timeline){0};
    prefix->next = p->first;
    p->first = prefix;
    p->n++;
    while (p->first && count(p) > p->limit)
        infer_prefixes_drop(p);
}

bool infer_prefixes_drop(infer_prefixes *p)
{
    if (!p->first)
        return false;
    infer_prefix **last = &p->first;
    while ((*last)->next)
        last = &(*last)->next;
    drop(p, last);
    return true;
}

void infer_prefixes_free(infer_prefixes *p)
{
    while (infer_prefixes_drop(p))
        ;
}
