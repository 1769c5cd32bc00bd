#include <float.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "infer/internal.h"

/* A token that may be picked. */
typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

struct marco_sampler {
    marco_sampling params;
    int32_t n_vocab;
    uint64_t picks;        /* numbers the draws */
    int32_t *reply_count;  /* [n_vocab] times in the reply */
    bool *seen;            /* [n_vocab] in the prompt or the reply */
    candidate *candidates; /* [n_vocab] */
    double *probability;   /* [n_vocab] of the candidates kept */
};

static bool in_range(double x, double low, double high)
{
    return x >= low && x <= high; /* false for NaN */
}

/* The bounds are those that model_config_check holds a checkpoint's own settings to. */
marco_status infer_sampler_check(const marco_sampling *p, int32_t n_vocab, marco_error *error)
{
    const struct {
        const char *name;
        double value, low, high;
    } ranges[] = {
        {"temperature", (double)p->temperature, 0, 100},
        {"top-k", p->top_k, 0, INT32_MAX},
        {"top-p", (double)p->top_p, FLT_MIN, 1},
        {"min-p", (double)p->min_p, 0, 1 - FLT_EPSILON},
        {"repetition penalty", (double)p->repetition_penalty, FLT_MIN, 1e3},
        {"presence penalty", (double)p->presence_penalty, -2, 2},
        {"frequency penalty", (double)p->frequency_penalty, -2, 2},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (!in_range(ranges[i].value, ranges[i].low, ranges[i].high))
            return base_fail(error, MARCO_ERROR_ARGUMENT, "%s: %g is not between %g and %g",
                             ranges[i].name, ranges[i].value, ranges[i].low, ranges[i].high);
    for (size_t i = 0; i < p->n_logit_bias; i++) {
        int32_t id = p->logit_bias[i].id;
        if (id < 0 || id >= n_vocab)
            return base_fail(error, MARCO_ERROR_ARGUMENT,
                             "logit bias: id %d is outside the vocabulary of %d", id, n_vocab);
        if (!in_range((double)p->logit_bias[i].bias, -1e4, 1e4))
            return base_fail(error, MARCO_ERROR_ARGUMENT,
                             "logit bias: %g for id %d is not between -10000 and 10000",
                             (double)p->logit_bias[i].bias, id);
    }
    return MARCO_OK;
}

marco_status marco_sampler_create(const marco_sampling *sampling, int32_t n_vocab,
                                  marco_sampler **out, marco_error *error)
{
    if (!sampling || !out)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "marco_sampler_create: an argument is NULL");
    *out = NULL;
    if (n_vocab < 1)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "a vocabulary of %d tokens", n_vocab);
    marco_status status = infer_sampler_check(sampling, n_vocab, error);
    if (status)
        return status;
    size_t n = (size_t)n_vocab;
    marco_sampler *s = base_calloc(1, sizeof *s);
    if (!s)
        return base_fail_memory(error, sizeof *s, "a sampler");
    s->params = *sampling;
    s->n_vocab = n_vocab;
    s->reply_count = base_calloc(n, sizeof *s->reply_count);
    s->seen = base_calloc(n, sizeof *s->seen);
    s->candidates = base_alloc_array(n, sizeof *s->candidates);
    s->probability = base_alloc_array(n, sizeof *s->probability);
    if (!s->reply_count || !s->seen || !s->candidates || !s->probability) {
        marco_sampler_close(s);
        return base_fail_memory(error, n * sizeof *s->candidates, "a sampler");
    }
    *out = s;
    return MARCO_OK;
}

void marco_sampler_close(marco_sampler *s)
{
    if (!s)
        return;
    base_free(s->reply_count);
    base_free(s->seen);
    base_free(s->candidates);
    base_free(s->probability);
    base_free(s);
}

marco_status marco_sampler_accept(marco_sampler *s, int32_t id, bool reply)
{
    if (id < 0 || id >= s->n_vocab)
        return MARCO_ERROR_ARGUMENT;
    s->seen[id] = true;
    if (reply && s->reply_count[id] < INT32_MAX)
        s->reply_count[id]++;
    return MARCO_OK;
}

/* The logits after bias and penalties, as candidates in order of id. */
static void adjust(marco_sampler *s, const float *logits, const uint32_t *mask)
{
    const marco_sampling *p = &s->params;
    candidate *c = s->candidates;
    for (int32_t i = 0; i < s->n_vocab; i++)
        c[i] = (candidate){!mask || mask[i / 32] >> i % 32 & 1 ? logits[i] : -INFINITY, i};
    for (size_t i = 0; i < p->n_logit_bias; i++)
        c[p->logit_bias[i].id].logit += p->logit_bias[i].bias;
    bool repetition = p->repetition_penalty != 1;
    if (!repetition && p->presence_penalty == 0 && p->frequency_penalty == 0)
        return;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        if (!s->seen[i])
            continue;
        float *x = &c[i].logit;
        if (repetition)
            *x = *x > 0 ? *x / p->repetition_penalty : *x * p->repetition_penalty;
        if (s->reply_count[i])
            *x -= p->presence_penalty + p->frequency_penalty * (float)s->reply_count[i];
    }
}

/* ---- a heap with the likeliest candidate on top; the lower id wins a tie ------------------- */

static bool before(candidate a, candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void sift_down(candidate *heap, size_t n, size_t i)
{
    candidate moving = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(heap[child + 1], heap[child]))
            child++;
        if (!before(heap[child], moving))
            break;
        heap[i] = heap[child];
    }
    heap[i] = moving;
}

/* Takes the top off; it is put behind the heap's new end. */
static candidate pop(candidate *heap, size_t *n)
{
    candidate top = heap[0];
    heap[0] = heap[--*n];
    heap[*n] = top;
    if (*n)
        sift_down(heap, *n, 0);
    return top;
}

/* ---- the pick ------------------------------------------------------------------------------ */

/* Sum of exp((logit - best) / temperature) over all candidates. */
static double total_weight(const marco_sampler *s, float best)
{
    double sum = 0;
    for (int32_t i = 0; i < s->n_vocab; i++)
        sum += exp((double)(s->candidates[i].logit - best) / (double)s->params.temperature);
    return sum;
}

/* One of n candidates whose unnormalised weights are given, in that order; never one of weight 0
 * (one that is masked) unless all are. */
static size_t draw(marco_sampler *s, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += s->probability[i];
    double at = base_random_unit(s->params.seed, 0, s->picks++) * sum;
    while (n > 1 && s->probability[n - 1] == 0)
        n--;
    for (size_t i = 0; i + 1 < n; i++) {
        at -= s->probability[i];
        if (at < 0)
            return i;
    }
    return n - 1;
}

/* Candidates leave the heap from the likeliest down: they lie in s->candidates from the end. */
static int32_t pick_truncated(marco_sampler *s, float best)
{
    const marco_sampling *p = &s->params;
    size_t heap = (size_t)s->n_vocab, kept = 0;
    size_t limit = p->top_k > 0 && (size_t)p->top_k < heap ? (size_t)p->top_k : heap;
    double enough = INFINITY; /* weight that top-p asks for */
    for (size_t i = heap / 2; i-- > 0;)
        sift_down(s->candidates, heap, i);
    if (p->top_p < 1 && limit == heap)
        enough = (double)p->top_p * total_weight(s, best);

    double sum = 0;
    while (kept < limit && sum < enough) {
        candidate c = pop(s->candidates, &heap);
        double weight = exp((double)(c.logit - best) / (double)p->temperature);
        if (kept && weight < (double)p->min_p)
            break; /* the best has weight 1, so min-p is a bound on the weight itself */
        s->probability[kept++] = weight;
        sum += weight;
    }
    if (p->top_p < 1 && limit < (size_t)s->n_vocab) {
        /* top-p is of what top-k left over. */
        double need = (double)p->top_p * sum, reached = 0;
        size_t n = 0;
        while (n < kept && reached < need)
            reached += s->probability[n++];
        kept = n;
    }
    size_t chosen = draw(s, kept);
    return s->candidates[(size_t)s->n_vocab - 1 - chosen].id;
}

marco_status marco_sampler_pick(marco_sampler *s, const float *logits, int32_t *id,
                                marco_error *error)
{
    return infer_sampler_pick(s, logits, NULL, id, error);
}

marco_status infer_sampler_pick(marco_sampler *s, const float *logits, const uint32_t *mask,
                                int32_t *id, marco_error *error)
{
    const marco_sampling *p = &s->params;
    adjust(s, logits, mask);
    int32_t best = 0;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        if (isnan(s->candidates[i].logit))
            return base_fail(error, MARCO_ERROR_NUMERIC,
                             "the logit of id %d is not a number; the weights are damaged", i);
        if (s->candidates[i].logit > s->candidates[best].logit)
            best = i;
    }
    float top = s->candidates[best].logit;
    if (!isfinite(top))
        return base_fail(error, MARCO_ERROR_NUMERIC,
                         "the largest logit is %g: nothing can be sampled", (double)top);
    if (p->temperature == 0) {
        *id = best;
    } else if (p->top_k == 0 && p->top_p >= 1 && p->min_p == 0) {
        for (int32_t i = 0; i < s->n_vocab; i++)
            s->probability[i] =
                exp((double)(s->candidates[i].logit - top) / (double)p->temperature);
        *id = (int32_t)draw(s, (size_t)s->n_vocab);
    } else {
        *id = pick_truncated(s, top);
    }
    return MARCO_OK;
}
