#include "train_job.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"

static double number(const json_t *description, const char *key)
{
    return json_number_value(json_object_get(description, key));
}

static int64_t whole(const json_t *description, const char *key)
{
    return json_integer_value(json_object_get(description, key));
}

static marco_status read_numbers(const json_t *description, const char *key, int64_t n,
                                 int32_t **out, marco_error *error)
{
    const json_t *list = json_object_get(description, key);
    if (n < 1 || json_array_size(list) != (size_t)n)
        return base_fail(error, MARCO_ERROR_FORMAT, "the job's %s are not %lld numbers", key,
                         (long long)n);
    *out = base_alloc_array((size_t)n, sizeof **out);
    if (!*out)
        return base_fail_memory(error, (size_t)n * sizeof **out, key);
    for (int64_t i = 0; i < n; i++)
        (*out)[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return MARCO_OK;
}

static marco_status read_routing(const json_t *description, train_routing *routing,
                                 marco_error *error)
{
    static const struct {
        const char *name;
        train_balance_kind kind;
    } kinds[] = {{"none", TRAIN_BALANCE_NONE},
                 {"switch", TRAIN_BALANCE_SWITCH},
                 {"global", TRAIN_BALANCE_GLOBAL},
                 {"bias", TRAIN_BALANCE_BIAS}};
    const char *name = json_string_value(json_object_get(description, "balance"));
    routing->coefficient = number(description, "coefficient");
    routing->bias_rate = number(description, "bias_rate");
    routing->z_loss = number(description, "z_loss");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        routing->balance = kinds[i].kind;
        if (name && strcmp(name, kinds[i].name) == 0)
            return MARCO_OK;
    }
    return base_fail(error, MARCO_ERROR_FORMAT, "the job's balance is unknown");
}

static marco_status read_job(train_job *job, const json_t *description, marco_error *error)
{
    job->sequences = whole(description, "sequences");
    job->seq_len = whole(description, "seq_len");
    job->passes = whole(description, "passes");
    job->batches = whole(description, "batches");
    job->lr = number(description, "lr");
    if (job->passes < 1 || job->sequences % job->passes)
        return base_fail(error, MARCO_ERROR_FORMAT, "the job's passes do not divide its sequences");
    int64_t n = job->batches * job->sequences * job->seq_len;
    marco_status status = read_numbers(description, "ids", n, &job->ids, error);
    if (!status)
        status = read_numbers(description, "targets", n, &job->targets, error);
    if (!status)
        status = read_numbers(description, "starts", n, &job->starts, error);
    if (!status)
        status = read_routing(description, &job->routing, error);
    return status;
}

static marco_status open_model(train_job *job, const json_t *description, const char *checkpoint,
                               int threads, bool recompute, marco_error *error)
{
    const train_params_choice choice = {.type = TENSOR_F32};
    const train_model_params params = {.n_seqs = job->sequences / job->passes,
                                       .seq_len = job->seq_len,
                                       .recompute = recompute,
                                       .routing = job->routing};
    const train_optimizer_params adamw = {.beta1 = number(description, "beta1"),
                                          .beta2 = number(description, "beta2"),
                                          .eps = number(description, "eps"),
                                          .weight_decay = number(description, "weight_decay"),
                                          .clip = number(description, "clip")};
    marco_status status = train_comm_open(1, &job->comm, error);
    if (!status)
        status = train_blas_open(4, &job->blas, error);
    if (!status)
        status = base_pool_create(threads, &job->pool, error);
    if (!status)
        status = model_source_open(checkpoint, &job->source, error);
    if (!status)
        status = train_params_load(job->source, &choice, job->comm, &job->params, error);
    if (!status)
        status = train_model_create(job->params, job->comm, job->pool, job->blas, &params,
                                    &job->model, error);
    if (!status)
        status =
            train_optimizer_create(train_model_context(job->model), &adamw, &job->optimizer, error);
    return status;
}

marco_status train_job_open(const json_t *description, const char *checkpoint, int threads,
                            bool recompute, train_job **out, marco_error *error)
{
    *out = NULL;
    train_job *job = base_calloc(1, sizeof *job);
    if (!job)
        return base_fail_memory(error, sizeof *job, "the job");
    marco_status status = read_job(job, description, error);
    if (!status)
        status = open_model(job, description, checkpoint, threads, recompute, error);
    size_t n = (size_t)(job->sequences * job->seq_len);
    if (!status && !(job->losses = base_alloc_array(n, sizeof *job->losses)))
        status = base_fail_memory(error, n * sizeof *job->losses, "losses");
    if (status) {
        train_job_close(job);
        return status;
    }
    *out = job;
    return MARCO_OK;
}

void train_job_close(train_job *job)
{
    if (!job)
        return;
    train_optimizer_free(job->optimizer);
    train_model_free(job->model);
    train_params_free(job->params);
    model_source_close(job->source);
    base_pool_destroy(job->pool);
    train_blas_close(job->blas);
    train_comm_close(job->comm);
    base_free(job->losses);
    base_free(job->ids);
    base_free(job->targets);
    base_free(job->starts);
    base_free(job);
}

marco_status train_job_back(train_job *job, int64_t step, train_job_losses *losses,
                            marco_error *error)
{
    int64_t tokens_of_step = job->sequences * job->seq_len, n = tokens_of_step / job->passes;
    int64_t first = step % job->batches * tokens_of_step, n_targets = 0;
    *losses = (train_job_losses){0};
    for (int64_t i = 0; i < tokens_of_step; i++)
        n_targets += job->targets[first + i] >= 0;
    double weight = 1 / (double)n_targets;
    const train_objective objective = {.row = train_cross_entropy, .user = &weight};
    marco_status status = MARCO_OK;
    for (int64_t p = 0; p < job->passes && !status; p++) {
        const train_tokens tokens = {.n_seqs = job->sequences / job->passes,
                                     .seq_len = job->seq_len,
                                     .n = n,
                                     .ids = job->ids + first + p * n,
                                     .targets = job->targets + first + p * n,
                                     .starts = job->starts + first + p * n};
        const train_routing_pass pass = {.pass = (uint64_t)(step * job->passes + p),
                                         .training = true,
                                         .aux_scale = 1 / (double)job->passes};
        status = train_model_pass(job->model, &tokens, &pass, &objective, job->losses, error);
        for (int64_t i = 0; i < n && !status; i++)
            losses->loss += job->losses[i] * weight;
    }
    for (int32_t i = 0; i < job->params->config.n_layers; i++) {
        const train_routing_stats *stats = train_model_routing(job->model, i);
        if (stats) {
            losses->balance += stats->balance / (double)job->passes;
            losses->z += stats->z / (double)job->passes;
        }
    }
    return status;
}

marco_status train_job_update(train_job *job, double *norm, marco_error *error)
{
    train_step_result result = {0};
    marco_status status = train_optimizer_step(job->optimizer, train_model_context(job->model),
                                               job->lr, &result, error);
    *norm = result.norm;
    for (int32_t i = 0; i < job->params->config.n_layers && !status; i++) {
        train_routing_stats *stats = train_model_routing(job->model, i);
        if (stats)
            train_experts_step(&job->routing, job->params->config.n_experts, stats);
    }
    return status;
}
