#include <float.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "infer/internal.h"

struct marco_sampler {
    marco_sampling params;
    const kern_table *kernels;
    int32_t n_vocab;
    uint64_t picks;       /* numbers the draws */
    int32_t *reply_count; /* [n_vocab] times in the reply */
    bool *seen;           /* [n_vocab] in the prompt or the reply */
    int32_t *seen_ids;    /* [n_seen] the same as a list */
    size_t n_seen;
    float *x;       /* [n_vocab] logits after bias and penalties, then probabilities */
    int32_t *order; /* [n_vocab] ids that may be picked, where not all may */
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
    s->kernels = kern_table_get(NULL);
    s->reply_count = base_calloc(n, sizeof *s->reply_count);
    s->seen = base_calloc(n, sizeof *s->seen);
    s->seen_ids = base_alloc_array(n, sizeof *s->seen_ids);
    s->x = base_alloc_array(n, sizeof *s->x);
    s->order = base_alloc_array(n, sizeof *s->order);
    if (!s->reply_count || !s->seen || !s->seen_ids || !s->x || !s->order) {
        marco_sampler_close(s);
        return base_fail_memory(error, n * sizeof *s->x, "a sampler");
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
    base_free(s->seen_ids);
    base_free(s->x);
    base_free(s->order);
    base_free(s);
}

marco_status marco_sampler_accept(marco_sampler *s, int32_t id, bool reply)
{
    if (id < 0 || id >= s->n_vocab)
        return MARCO_ERROR_ARGUMENT;
    if (!s->seen[id])
        s->seen_ids[s->n_seen++] = id;
    s->seen[id] = true;
    if (reply && s->reply_count[id] < INT32_MAX)
        s->reply_count[id]++;
    return MARCO_OK;
}

/* ---- loops over the vocabulary, in lanes that compilers make vectors of --------------------- */

enum { LANES = 16, BLOCK = 1024 /* numbers that stay in the nearest cache */ };

static bool any_nan(const float *x, size_t n)
{
    uint32_t bad[LANES] = {0}, bits[LANES];
    bool found = false;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        memcpy(bits, x + i, sizeof bits);
        for (int k = 0; k < LANES; k++)
            bad[k] |= (bits[k] & 0x7fffffff) > 0x7f800000;
    }
    for (int k = 0; k < LANES; k++)
        found |= bad[k] != 0;
    for (; i < n; i++)
        found |= isnan(x[i]) != 0;
    return found;
}

static float largest(const float *x, size_t n)
{
    float max[LANES], top = -INFINITY;
    size_t i = 0;
    for (int k = 0; k < LANES; k++)
        max[k] = -INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            max[k] = x[i + (size_t)k] > max[k] ? x[i + (size_t)k] : max[k];
    for (int k = 0; k < LANES; k++)
        top = max[k] > top ? max[k] : top;
    for (; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}

/* The largest number, -Inf where there is none, and where it is first found; NaN, and where, if
 * there is one. */
static float survey(const float *x, size_t n, size_t *at)
{
    float top = -INFINITY;
    size_t block = 0;
    for (size_t first = 0; first < n; first += BLOCK) {
        size_t count = n - first < BLOCK ? n - first : BLOCK;
        float max = largest(x + first, count);
        if (any_nan(x + first, count)) {
            for (*at = first; !isnan(x[*at]);)
                ++*at;
            return NAN;
        }
        if (max > top) {
            top = max;
            block = first;
        }
    }
    *at = block;
    while (*at + 1 < n && x[*at] < top)
        ++*at;
    return top;
}

static double sum_of(const float *x, size_t n)
{
    double sum[LANES] = {0}, all = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            sum[k] += (double)x[i + (size_t)k];
    for (; i < n; i++)
        all += (double)x[i];
    for (int k = 0; k < LANES; k++)
        all += sum[k];
    return all;
}

/* ---- logits --------------------------------------------------------------------------------- */

static void apply_mask(float *x, size_t n, const uint32_t *mask)
{
    for (size_t word = 0; word * 32 < n; word++) {
        uint32_t allowed = mask[word];
        size_t end = (word + 1) * 32 < n ? (word + 1) * 32 : n;
        if (allowed == UINT32_MAX)
            continue;
        for (size_t i = word * 32; i < end; i++)
            if (!(allowed >> i % 32 & 1))
                x[i] = -INFINITY;
    }
}

/* x: the logits after bias, penalties and mask. */
static void adjust(marco_sampler *s, const float *logits, const uint32_t *mask)
{
    const marco_sampling *p = &s->params;
    bool repetition = p->repetition_penalty != 1;
    memcpy(s->x, logits, (size_t)s->n_vocab * sizeof *s->x);
    for (size_t i = 0; i < p->n_logit_bias; i++)
        s->x[p->logit_bias[i].id] += p->logit_bias[i].bias;
    if (repetition || p->presence_penalty != 0 || p->frequency_penalty != 0)
        for (size_t i = 0; i < s->n_seen; i++) {
            int32_t id = s->seen_ids[i], count = s->reply_count[id];
            float *x = &s->x[id];
            if (repetition)
                *x = *x > 0 ? *x / p->repetition_penalty : *x * p->repetition_penalty;
            if (count)
                *x -= p->presence_penalty + p->frequency_penalty * (float)count;
        }
    if (mask)
        apply_mask(s->x, (size_t)s->n_vocab, mask);
}

/* ---- which may be picked -------------------------------------------------------------------- */

/* Order of rank: the likelier first, of equals the lower id. */
static bool before(const float *p, int32_t a, int32_t b)
{
    return p[a] > p[b] || (p[a] == p[b] && a < b);
}

static void swap(int32_t *a, int32_t *b)
{
    int32_t t = *a;
    *a = *b;
    *b = t;
}

/* Rearranges n >= 2 ids so that those before the returned place come before all others in rank, and
 * both parts have some. */
static size_t split(const float *p, int32_t *ids, size_t n)
{
    if (before(p, ids[n / 2], ids[0]))
        swap(&ids[0], &ids[n / 2]);
    if (before(p, ids[n - 1], ids[0]))
        swap(&ids[0], &ids[n - 1]);
    if (before(p, ids[n - 1], ids[n / 2]))
        swap(&ids[n / 2], &ids[n - 1]);
    int32_t pivot = ids[n / 2];
    size_t i = 0, j = n - 1; /* Hoare's partition (Algorithm 63, 1961) */
    for (;;) {
        while (before(p, ids[i], pivot))
            i++;
        while (before(p, pivot, ids[j]))
            j--;
        if (i >= j)
            return j + 1 < n ? j + 1 : n - 1;
        swap(&ids[i++], &ids[j--]);
    }
}

/* Brings the k first in rank to the front, in any order. */
static size_t keep_first(const float *p, int32_t *ids, size_t n, size_t k)
{
    size_t kept = n < k ? n : k, low = 0, high = n;
    while (kept < n && high - low > 1 && low < kept) {
        size_t middle = low + split(p, ids + low, high - low);
        if (middle <= kept)
            low = middle;
        else
            high = middle;
    }
    return kept;
}

/* Brings the fewest first in rank whose sum reaches `need` to the front, in any order. */
static size_t keep_sum(const float *p, int32_t *ids, size_t n, double need)
{
    size_t low = 0, high = n;
    while (high - low > 1) {
        size_t middle = low + split(p, ids + low, high - low);
        double sum = 0;
        for (size_t i = low; i < middle; i++)
            sum += (double)p[ids[i]];
        if (sum >= need) {
            high = middle;
        } else {
            need -= sum;
            low = middle;
        }
    }
    return high > 0 ? high : 1;
}

/* The k first in rank of all that have a probability, k small: in one look over them. */
static size_t find_first(marco_sampler *s, size_t k)
{
    size_t n = 0;
    float worst = 0; /* of those found, once there are k */
    for (int32_t i = 0; i < s->n_vocab; i++) {
        if (!(s->x[i] > worst))
            continue;
        size_t at = n < k ? n++ : n - 1;
        for (; at > 0 && before(s->x, i, s->order[at - 1]); at--)
            s->order[at] = s->order[at - 1];
        s->order[at] = i;
        worst = n == k ? s->x[s->order[k - 1]] : 0;
    }
    return n;
}

static size_t collect(marco_sampler *s, float least)
{
    size_t n = 0;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        s->order[n] = i;
        n += s->x[i] >= least && s->x[i] > 0;
    }
    return n;
}

/* The ids that top-k, top-p and min-p leave, the most probable among them; how many. x are
 * probabilities. */
static size_t truncate(marco_sampler *s, float best)
{
    const marco_sampling *p = &s->params;
    size_t vocab = (size_t)s->n_vocab;
    bool few = p->top_k > 0 && (size_t)p->top_k < vocab;
    double total = 1;
    float least = p->min_p * best;
    if (few) {
        enum { SMALL = 128 };
        size_t k = (size_t)p->top_k, kept = 0;
        size_t n = k <= SMALL ? find_first(s, k) : keep_first(s->x, s->order, collect(s, 0), k);
        total = 0;
        for (size_t i = 0; i < n; i++)
            total += (double)s->x[s->order[i]];
        for (size_t i = 0; i < n; i++) {
            s->order[kept] = s->order[i];
            kept += s->x[s->order[i]] >= least;
        }
        return p->top_p < 1 ? keep_sum(s->x, s->order, kept, (double)p->top_p * total) : kept;
    }
    if (p->top_p >= 1)
        return collect(s, least);
    /* All that lie below this sum to less than what top-p leaves out: no need to rank them. */
    total = sum_of(s->x, vocab);
    float floor = (float)((1 - (double)p->top_p) * total / (double)vocab) * 0.5f;
    size_t n = collect(s, least > floor ? least : floor);
    return keep_sum(s->x, s->order, n, (double)p->top_p * total);
}

/* ---- the pick ------------------------------------------------------------------------------- */

static int32_t draw_from(marco_sampler *s, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)s->x[s->order[i]];
    double at = base_random_unit(s->params.seed, 0, s->picks++) * sum;
    for (size_t i = 0; i + 1 < n; i++) {
        at -= (double)s->x[s->order[i]];
        if (at < 0)
            return s->order[i];
    }
    return s->order[n - 1];
}

/* From the whole vocabulary, a block at a time. Never an id of probability 0. */
static int32_t draw_any(marco_sampler *s)
{
    size_t n = (size_t)s->n_vocab, last = n;
    double at = base_random_unit(s->params.seed, 0, s->picks++) * sum_of(s->x, n);
    for (size_t first = 0; first < n; first += BLOCK) {
        size_t count = n - first < BLOCK ? n - first : BLOCK;
        double sum = sum_of(s->x + first, count);
        if (sum > 0)
            last = first;
        if (at >= sum) {
            at -= sum;
            continue;
        }
        for (size_t i = first; i < first + count; i++) {
            at -= (double)s->x[i];
            if (at < 0 && s->x[i] > 0)
                return (int32_t)i;
        }
    }
    size_t best = last; /* rounding left a little over: the last block's likeliest */
    for (size_t i = last; i < n && i < last + BLOCK; i++)
        best = s->x[i] > s->x[best] ? i : best;
    return (int32_t)best;
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
    size_t n = (size_t)s->n_vocab;
    size_t best;
    adjust(s, logits, mask);
    float top = survey(s->x, n, &best);
    if (isnan(top))
        return base_fail(error, MARCO_ERROR_NUMERIC,
                         "the logit of id %zu is not a number; the weights are damaged", best);
    if (top == -INFINITY && mask)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "no token of the vocabulary goes on in the form that is asked for");
    if (!isfinite(top))
        return base_fail(error, MARCO_ERROR_NUMERIC,
                         "the largest logit is %g: nothing can be sampled", (double)top);
    *id = (int32_t)best;
    if (p->temperature == 0)
        return MARCO_OK;
    /* From the largest, so that no temperature makes a number too large. */
    for (size_t i = 0; i < n; i++)
        s->x[i] = (s->x[i] - top) / p->temperature;
    s->kernels->softmax(s->x, s->n_vocab);
    if (p->top_k == 0 && p->top_p >= 1 && p->min_p == 0)
        *id = draw_any(s);
    else
        *id = draw_from(s, truncate(s, s->x[best]));
    return MARCO_OK;
}

/* ---- scores --------------------------------------------------------------------------------- */

static bool better(marco_token_score a, marco_token_score b)
{
    return a.logprob > b.logprob || (a.logprob == b.logprob && a.id < b.id);
}

/* ln of the sum of exp(x): a block at a time by the kernel, whose largest number is one over the
 * block's own sum, and the blocks in double precision. */
static double log_sum_exp(const float *x, size_t n)
{
    const kern_table *kernels = kern_table_get(NULL);
    float part[BLOCK];
    double max = -INFINITY, sum = 0;
    for (size_t first = 0; first < n; first += BLOCK) {
        size_t count = n - first < BLOCK ? n - first : BLOCK;
        double top = (double)largest(x + first, count);
        memcpy(part, x + first, count * sizeof *part);
        kernels->softmax(part, (int64_t)count);
        if (top > max) {
            sum *= exp(max - top);
            max = top;
        }
        sum += exp(top - max) / (double)largest(part, count);
    }
    return max + log(sum);
}

float infer_score(const float *logits, int32_t n_vocab, int32_t id, marco_token_score *top,
                  int32_t n_top)
{
    double total = log_sum_exp(logits, (size_t)n_vocab);
    int32_t n = 0;
    for (int32_t i = 0; i < n_vocab && n_top > 0; i++) {
        marco_token_score mine = {i, logits[i]};
        if (n == n_top && !better(mine, top[n - 1]))
            continue;
        int32_t at = n < n_top ? n++ : n - 1;
        for (; at > 0 && better(mine, top[at - 1]); at--)
            top[at] = top[at - 1];
        top[at] = mine;
    }
    for (int32_t i = 0; i < n; i++)
        top[i].logprob = (float)((double)top[i].logprob - total);
    return (float)((double)logits[id] - total);
}
