#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/time.h"
#include "train/trainer.h"

enum {
    MOST_BROKEN = 10, /* steps in a row whose gradient is not finite */
    MOST_EMPTY = 10,  /* steps in a row without a target */
};

static int64_t sparse_layers(const model_config *config)
{
    int64_t n = 0;
    for (int32_t i = 0; i < config->n_layers; i++)
        n += config->layer_sparse[i];
    return n;
}

/* ---- passes -------------------------------------------------------------------------------- */

static marco_status run_passes(trainer *t, double weight, train_sums *sums, marco_error *error)
{
    const data_batch *batch = t->batch;
    const train_recipe *recipe = t->recipe;
    int64_t micro = recipe->micro_batch;
    int64_t passes = (batch->n_seqs + micro - 1) / micro;
    int64_t first = t->step * recipe->batch + t->comm->rank[TRAIN_WORLD] * batch->n_seqs;
    const train_objective objective = {.row = train_cross_entropy, .user = &weight};
    marco_status status = MARCO_OK;
    for (int64_t p = 0; p < passes && !status; p++) {
        int64_t at = p * micro * batch->seq_len;
        int64_t n_seqs = batch->n_seqs - p * micro < micro ? batch->n_seqs - p * micro : micro;
        const train_tokens tokens = {.n_seqs = n_seqs,
                                     .seq_len = batch->seq_len,
                                     .n = n_seqs * batch->seq_len,
                                     .ids = batch->ids + at,
                                     .targets = batch->targets + at,
                                     .starts = batch->starts + at,
                                     .lengths = batch->lengths + p * micro};
        const train_routing_pass pass = {.dropout_rate = train_recipe_drop(recipe, t->step),
                                         .seed = (uint64_t)recipe->seed,
                                         .pass = (uint64_t)(first + p * micro),
                                         .training = true,
                                         .aux_scale = (double)n_seqs / (double)recipe->batch};
        status = train_model_pass(t->model, &tokens, &pass, &objective, t->losses, error);
        for (int64_t i = 0; i < tokens.n && !status; i++)
            sums->loss += t->losses[i];
        sums->flops += train_model_flops(&t->weights->config, &tokens);
    }
    return status;
}

/* ---- routers ------------------------------------------------------------------------------- */

static void add_routing(trainer *t, train_sums *sums)
{
    const model_config *config = &t->weights->config;
    for (int32_t i = 0; i < config->n_layers; i++) {
        const train_routing_stats *stats = train_model_routing(t->model, i);
        if (!stats)
            continue;
        sums->balance += stats->balance;
        sums->z += stats->z;
        t->entropies[i] = stats->entropy;
        sums->routed += (double)stats->tokens;
        sums->passes += (double)stats->passes;
        memcpy(t->loads + (int64_t)i * config->n_experts, stats->load,
               (size_t)config->n_experts * sizeof *t->loads);
    }
}

/* The loads are sums over all processes by now: what the bias is moved by. */
static int32_t step_routing(trainer *t, bool taken)
{
    const model_config *config = &t->weights->config;
    const train_routing none = {.balance = TRAIN_BALANCE_NONE};
    int32_t dead = 0;
    for (int32_t i = 0; i < config->n_layers; i++) {
        train_routing_stats *stats = train_model_routing(t->model, i);
        if (!stats)
            continue;
        for (int32_t e = 0; e < config->n_experts; e++) {
            stats->seen[e] = t->loads[(int64_t)i * config->n_experts + e];
            dead += stats->seen[e] == 0;
        }
        train_experts_step(taken ? &t->recipe->routing : &none, config->n_experts, stats);
    }
    return dead;
}

/* ---- a step -------------------------------------------------------------------------------- */

static marco_status reduce_sums(trainer *t, train_sums *sums, marco_error *error)
{
    const model_config *config = &t->weights->config;
    const train_comm_ops *ops = t->comm->ops;
    double all[] = {sums->loss, sums->balance, sums->z, sums->passes, sums->routed, sums->flops};
    marco_status status =
        ops->all_reduce_f64(t->comm, TRAIN_WORLD, all, sizeof(all) / sizeof(all[0]), error);
    *sums = (train_sums){.loss = all[0],
                         .balance = all[1],
                         .z = all[2],
                         .passes = all[3],
                         .routed = all[4],
                         .flops = all[5]};
    if (!status && t->loads)
        status = ops->all_reduce_i64(t->comm, TRAIN_WORLD, t->loads,
                                     (int64_t)config->n_layers * config->n_experts, error);
    if (!status && t->loads)
        status = ops->all_reduce_f64(t->comm, TRAIN_WORLD, t->entropies, config->n_layers, error);
    return status;
}

/* The means over a step's tokens and passes. */
static void report_routing(const trainer *t, const train_sums *sums, marco_train_step *out)
{
    const model_config *config = &t->weights->config;
    double layers = (double)sparse_layers(config);
    double tokens = sums->routed / layers; /* that each layer routed */
    for (int32_t i = 0; i < config->n_layers; i++) {
        t->entropies[i] /= tokens;
        out->entropy += t->entropies[i] / layers;
    }
    out->balance = sums->balance * layers / sums->passes;
    out->z_loss = sums->z * layers / sums->passes;
}

static void report(const trainer *t, const train_sums *sums, marco_train_step *out)
{
    out->loss = sums->loss / (double)out->targets;
    if (t->loads)
        report_routing(t, sums, out);
    out->tokens_per_second = (double)out->tokens / out->seconds;
    out->roof_share = t->roof > 0 ? sums->flops / out->seconds / t->roof : 0;
}

static marco_status check_finite(trainer *t, const train_step_result *result, marco_error *error)
{
    t->left_out = result->finite ? 0 : t->left_out + 1;
    if (t->left_out < MOST_BROKEN)
        return MARCO_OK;
    return base_fail(error, MARCO_ERROR_NUMERIC,
                     "the gradient was not a finite number in %d steps in a row, up to step %lld; "
                     "the same command with a lower optimizer.lr or optimizer.clip goes on from "
                     "the last checkpoint; where there is none, check the weights that training "
                     "began from",
                     MOST_BROKEN, (long long)t->step + 1);
}

/* Conversations whose answers were all cut off: nothing to learn from, and no harm now and then. */
static marco_status leave_out_empty(trainer *t, marco_train_step *out, double began,
                                    marco_error *error)
{
    if (++t->empty >= MOST_EMPTY)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "up to step %lld, %d steps in a row of %lld sequences had no token to "
                         "train on; use a larger seq_len or batch",
                         (long long)out->step, MOST_EMPTY, (long long)t->recipe->batch);
    t->step++;
    t->total_tokens += out->tokens;
    out->total_tokens = t->total_tokens;
    out->loss = NAN;
    out->skipped = true;
    out->seconds = base_now() - began;
    return MARCO_OK;
}

marco_status trainer_step(trainer *t, marco_train_step *out, marco_error *error)
{
    double began = base_now();
    train_comm *comm = t->comm;
    const train_recipe *recipe = t->recipe;
    train_sums sums = {0};
    train_step_result result = {0};
    *out = (marco_train_step){.step = t->step + 1,
                              .steps = recipe->steps,
                              .tokens = recipe->batch * recipe->seq_len,
                              .lr = train_schedule_at(&recipe->schedule, t->step),
                              .valid_loss = NAN};
    marco_status status = data_loader_next(
        t->loader, recipe->batch, comm->rank[TRAIN_WORLD] * t->batch->n_seqs, t->batch, error);
    out->targets = t->batch->n_targets;
    status = train_comm_settle(comm, status, error);
    if (!status)
        status = comm->ops->all_reduce_i64(comm, TRAIN_WORLD, &out->targets, 1, error);
    if (!status && out->targets == 0)
        return leave_out_empty(t, out, began, error);
    t->empty = 0;
    if (!status)
        status = run_passes(t, 1.0 / (double)out->targets, &sums, error);
    if (!status) {
        if (t->loads)
            add_routing(t, &sums);
        status = reduce_sums(t, &sums, error);
    }
    if (!status)
        status = train_optimizer_step(t->optimizer, train_model_context(t->model), out->lr, &result,
                                      error);
    if (status)
        return status;
    if (t->loads)
        out->dead_experts = step_routing(t, !result.skipped);
    t->total_tokens += out->tokens;
    out->total_tokens = t->total_tokens;
    out->norm = result.norm;
    out->skipped = result.skipped;
    out->seconds = base_now() - began;
    report(t, &sums, out);
    status = check_finite(t, &result, error);
    t->step++;
    return status;
}
