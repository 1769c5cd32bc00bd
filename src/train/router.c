/* The router: which experts a token goes to, with what weight, and what that costs.
 *
 *   p = softmax(logits), masked experts' logits being -inf
 *   choice: the K largest p_i (+ bias_i, TRAIN_BALANCE_BIAS), the lower index wins a tie
 *   w_k = p_k, or p_k / sum of the chosen p where the model renormalises
 *
 * Gradients, with u_k = w_k * dL/dw_k (which the experts give) and U = sum of u_k. The softmax
 * takes g_i = dL/dp_i to p_i (g_i - sum_j p_j g_j), so that only p_k g_k is needed, and nothing
 * is divided by a probability:
 *
 *   as they are:   p_k g_k = u_k,          sum_j p_j g_j = U
 *   renormalised:  p_k g_k = u_k - w_k U,  sum_j p_j g_j = 0
 *
 * Losses of a pass with T tokens, padding left out; f_i = count_i / sum of counts, P_i the mean of
 * p_i (balance: arXiv 2101.03961; z: arXiv 2202.08906):
 *
 *   balance = c X sum_i f_i P_i      gradient for p_ti: c X f_i / T
 *   z       = c mean(lse^2)          for logit_ti: 2 c lse_t p_ti / T */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "train/experts_internal.h"

/* Keys of experts that are chosen last of all, and of those chosen already. */
static const float LAST = -FLT_MAX, TAKEN = -INFINITY;

int64_t train_router_scratch(const model_config *config)
{
    return 3 * (int64_t)config->n_experts;
}

/* ---- masks ---------------------------------------------------------------------------------- */

static bool has_masks(const train_sparse *s)
{
    return s->pass->training && s->routing->dropout != TRAIN_DROP_NONE && s->pass->dropout_rate > 0;
}

/* One number in [0, 1) for each expert: those below the result are masked. It is the rate, or less
 * where fewer than K would stay. token -1: for the pass. */
static float draw(const train_sparse *s, int64_t token, float *draws)
{
    /* Paths are drawn alike on all layers. */
    uint64_t layer = s->routing->dropout == TRAIN_DROP_PATHS ? 0 : (uint64_t)s->layer + 1;
    uint64_t key =
        base_random_u64(s->pass->seed, base_random_stream(BASE_RANDOM_MASKS, 0), s->pass->pass);
    key = base_random_u64(key, layer, (uint64_t)(token + 1));
    for (int64_t i = 0; i < s->experts; i++)
        draws[i] =
            (float)(base_random_mix(key + (uint64_t)(i + 1) * BASE_RANDOM_STEP) >> 40) * 0x1p-24f;
    float limit = (float)s->pass->dropout_rate;
    for (;;) {
        int64_t stay = 0;
        float next = 0; /* the largest that is masked */
        for (int64_t i = 0; i < s->experts; i++) {
            if (draws[i] >= limit)
                stay++;
            else if (draws[i] > next)
                next = draws[i];
        }
        if (stay >= s->used)
            return limit;
        limit = next;
    }
}

/* ---- forward -------------------------------------------------------------------------------- */

/* The `used` largest keys, largest first; the lower index wins a tie. Keys of TAKEN are not left.
 */
static void choose(const kern_table *kern, float *keys, int64_t experts, int64_t used,
                   int32_t *chosen)
{
    for (int64_t k = 0; k < used; k++) {
        float best = kern->max(keys, experts);
        int32_t e = 0;
        while (keys[e] != best)
            e++;
        keys[e] = TAKEN;
        chosen[k] = e;
    }
}

/* weight = p of the chosen over their sum. Where a bias has chosen experts whose p have all come
 * out as 0, the same from their logits. */
static void renormalise(const train_sparse *s, const float *logits, const int32_t *chosen,
                        float *weight)
{
    float sum = 0;
    for (int64_t k = 0; k < s->used; k++)
        sum += weight[k];
    if (sum < FLT_MIN) {
        for (int64_t k = 0; k < s->used; k++)
            weight[k] = logits[chosen[k]];
        s->ctx->kern->softmax(weight, s->used);
        return;
    }
    for (int64_t k = 0; k < s->used; k++)
        weight[k] /= sum;
}

static void choose_token(const train_sparse *s, int64_t t, float *scratch, double moments[2])
{
    const kern_table *kern = s->ctx->kern;
    float *p = s->saved->probs + t * s->experts, *weight = s->saved->weight + t * s->used;
    int32_t *chosen = s->saved->chosen + t * s->used;
    float *logits = scratch, *keys = logits + s->experts, *draws = keys + s->experts;
    float limit = 0;
    memcpy(logits, p, (size_t)s->experts * sizeof *p);
    if (has_masks(s)) {
        const bool shared = !s->routing->dropout_per_token;
        draws = shared ? s->work->draws : draws;
        limit = shared ? draws[s->experts] : draw(s, t, draws);
        for (int64_t e = 0; e < s->experts; e++)
            p[e] = draws[e] < limit ? -INFINITY : p[e];
    }
    float lse = s->saved->lse[t] = kern->logsumexp(p, s->experts);
    kern->softmax(p, s->experts);
    moments[0] += lse - kern->dot(p, logits, s->experts);
    moments[1] += (double)lse * lse;

    bool biased = s->pass->training && s->routing->balance == TRAIN_BALANCE_BIAS;
    /* NaN loses to everything, and what is masked to a probability that has come out as 0. */
    for (int64_t e = 0; e < s->experts; e++) {
        float key = p[e] + (biased ? s->stats->bias[e] : 0);
        keys[e] = key >= LAST ? key : LAST;
    }
    for (int64_t e = 0; limit > 0 && e < s->experts; e++)
        keys[e] = draws[e] < limit ? LAST : keys[e];
    choose(kern, keys, s->experts, s->used, chosen);
    for (int64_t k = 0; k < s->used; k++)
        weight[k] = p[chosen[k]];
    if (s->ctx->params->config.norm_topk_prob)
        renormalise(s, logits, chosen, weight);
}

static void choose_part(void *user, int64_t part, int thread)
{
    const train_sparse *s = user;
    int64_t begin = part * TRAIN_TOKEN_BLOCK;
    int64_t end = train_part_end(s->n, part, TRAIN_TOKEN_BLOCK);
    float *sums = s->work->sums + part * s->experts;
    double moments[2] = {0, 0};
    memset(sums, 0, (size_t)s->experts * sizeof *sums);
    for (int64_t t = begin; t < end; t++) {
        float *p = s->saved->probs + t * s->experts;
        if (train_is_padding(s->tokens, t)) {
            memset(p, 0, (size_t)s->experts * sizeof *p);
            continue;
        }
        choose_token(s, t, s->ctx->scratch[thread], moments);
        s->ctx->kern->axpy(1, p, sums, s->experts);
    }
    memcpy(s->work->moments + 2 * part, moments, sizeof moments);
}

void train_router_choose(const train_sparse *s)
{
    if (has_masks(s) && !s->routing->dropout_per_token)
        s->work->draws[s->experts] = draw(s, -1, s->work->draws);
    base_pool_run(s->ctx->pool, choose_part, (void *)s, train_parts(s->n, TRAIN_TOKEN_BLOCK));
}

/* ---- losses --------------------------------------------------------------------------------- */

/* What the means of a pass are over. */
static double tokens_of(const train_sparse *s)
{
    return s->real > 0 ? (double)s->real : 1;
}

static bool has_balance_loss(const train_sparse *s)
{
    return s->pass->training && (s->routing->balance == TRAIN_BALANCE_SWITCH ||
                                 s->routing->balance == TRAIN_BALANCE_GLOBAL);
}

/* The gradient of the balancing loss for each token's p_i, before aux_scale. */
static void balance_gradient(const train_sparse *s, float *out)
{
    bool global = s->routing->balance == TRAIN_BALANCE_GLOBAL;
    const int64_t *counts = global ? s->stats->seen : s->saved->counts;
    int64_t sum = 0;
    for (int64_t e = 0; e < s->experts; e++)
        sum += counts[e];
    double factor = has_balance_loss(s) && sum > 0
                        ? s->routing->coefficient * (double)s->experts / (double)sum / tokens_of(s)
                        : 0;
    for (int64_t e = 0; e < s->experts; e++)
        out[e] = (float)(factor * (double)counts[e]);
}

marco_status train_router_count(const train_sparse *s, marco_error *error)
{
    train_routing_stats *stats = s->stats;
    train_experts_work *work = s->work;
    const int64_t *counts = s->saved->counts;
    int64_t blocks = train_parts(s->n, TRAIN_TOKEN_BLOCK);
    train_comm *comm = s->ctx->comm;
    memcpy(work->all, counts, (size_t)s->experts * sizeof *counts);
    if (s->routing->balance == TRAIN_BALANCE_GLOBAL && comm->size[TRAIN_WORLD] > 1) {
        marco_status status =
            comm->ops->all_reduce_i64(comm, TRAIN_WORLD, work->all, s->experts, error);
        if (status)
            return status;
    }
    for (int64_t e = 0; e < s->experts; e++) {
        stats->load[e] += counts[e];
        stats->seen[e] += work->all[e];
    }
    balance_gradient(s, work->aux);
    double balance = 0, entropy = 0, squares = 0;
    for (int64_t b = 0; b < blocks; b++) {
        balance += s->ctx->kern->dot(work->sums + b * s->experts, work->aux, s->experts);
        entropy += work->moments[2 * b];
        squares += work->moments[2 * b + 1];
    }
    stats->tokens += s->real;
    stats->passes++;
    stats->entropy += entropy;
    stats->balance += balance;
    stats->z += s->routing->z_loss * squares / tokens_of(s);
    return MARCO_OK;
}

/* ---- backward ------------------------------------------------------------------------------- */

static void back_token(const train_sparse *s, int64_t t)
{
    const train_experts_work *work = s->work;
    float *p = s->saved->probs + t * s->experts;
    const float *weight = s->saved->weight + t * s->used;
    const int32_t *chosen = s->saved->chosen + t * s->used;
    const int64_t *row_of = work->row_of + t * s->used;
    bool renormalised = s->ctx->params->config.norm_topk_prob;
    float sum = 0;
    for (int64_t k = 0; k < s->used; k++)
        sum += work->u[row_of[k]];
    float base = renormalised ? 0 : -sum;
    if (s->pass->training) {
        double z = 2 * s->routing->z_loss * s->pass->aux_scale / tokens_of(s);
        base += (float)(z * s->saved->lse[t] - s->ctx->kern->dot(p, work->aux, s->experts));
    }
    for (int64_t e = 0; e < s->experts; e++)
        p[e] *= work->aux[e] + base;
    for (int64_t k = 0; k < s->used; k++)
        p[chosen[k]] += work->u[row_of[k]] - (renormalised ? weight[k] * sum : 0);
}

static void back_part(void *user, int64_t part, int thread)
{
    (void)thread;
    const train_sparse *s = user;
    int64_t begin = part * TRAIN_TOKEN_BLOCK;
    int64_t end = train_part_end(s->n, part, TRAIN_TOKEN_BLOCK);
    for (int64_t t = begin; t < end; t++)
        if (!train_is_padding(s->tokens, t))
            back_token(s, t);
}

void train_router_back(const train_sparse *s)
{
    balance_gradient(s, s->work->aux);
    for (int64_t e = 0; e < s->experts; e++)
        s->work->aux[e] *= (float)s->pass->aux_scale;
    base_pool_run(s->ctx->pool, back_part, (void *)s, train_parts(s->n, TRAIN_TOKEN_BLOCK));
}

/* ---- after a step --------------------------------------------------------------------------- */

void train_experts_step(const train_routing *routing, int64_t n_experts, train_routing_stats *stats)
{
    int64_t sum = 0;
    for (int64_t e = 0; e < n_experts; e++)
        sum += stats->seen[e];
    for (int64_t e = 0; routing->balance == TRAIN_BALANCE_BIAS && e < n_experts; e++) {
        /* In whole numbers: an expert that has just the mean stays where it is. */
        int64_t missing = sum - n_experts * stats->seen[e];
        stats->bias[e] += (float)(routing->bias_rate * ((missing > 0) - (missing < 0)));
    }
    memset(stats->load, 0, (size_t)n_experts * sizeof *stats->load);
    memset(stats->seen, 0, (size_t)n_experts * sizeof *stats->seen);
    stats->tokens = stats->passes = 0;
    stats->entropy = stats->balance = stats->z = 0;
}
