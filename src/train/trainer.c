/* A training run from its recipe to its last checkpoint. */
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/time.h"
#include "kernels/roof.h"
#include "train/json.h"
#include "train/source.h"

/* ---- beginning: what every process does for itself ----------------------------------------- */

static marco_status check_sizes(trainer *t, marco_error *error)
{
    const train_recipe *recipe = t->recipe;
    const model_config *config = &t->source->config;
    int64_t ranks = t->comm->size[TRAIN_WORLD];
    if (recipe->batch % ranks)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "batch: %lld sequences cannot be shared out equally to %lld processes",
                         (long long)recipe->batch, (long long)ranks);
    marco_status status = train_recipe_suits(recipe, config, error);
    if (status)
        return status;
    if (config->n_ctx_train > 0 && recipe->seq_len > config->n_ctx_train)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "seq_len: %d tokens are more than the %d that %s is made for",
                         recipe->seq_len, config->n_ctx_train, t->source->path);
    if (recipe->micro_batch > recipe->batch / ranks)
        t->recipe->micro_batch = recipe->batch / ranks;
    return MARCO_OK;
}

/* The digest of the tokenizer's ids and the id that ends a document; "" and -1 without a tokenizer.
 */
static marco_status read_tokenizer(trainer *t, char digest[65], int32_t *eos, marco_error *error)
{
    const char *path = t->recipe->model ? t->recipe->model : t->recipe->tokenizer;
    marco_tokenizer *tokenizer = NULL;
    if (t->from)
        path = t->from->folder;
    digest[0] = '\0';
    *eos = -1;
    if (!t->source->tokenizer) {
        if (t->notes.fn)
            t->notes.fn(t->notes.user, "the model has no tokenizer: the data's is not compared");
        return MARCO_OK;
    }
    marco_status status = marco_tokenizer_open(path, &tokenizer, error);
    if (!status)
        status = data_tokenizer_digest(tokenizer, digest, error);
    if (!status) {
        *eos = marco_tokenizer_find(tokenizer, "<|endoftext|>");
        if (*eos < 0)
            *eos = marco_tokenizer_eos(tokenizer);
    }
    marco_tokenizer_close(tokenizer);
    return status;
}

/* Long conversations lose their ends, which is no error, and nothing that a loss would show. */
static void note_cut(const trainer *t, int64_t cut, int64_t documents, int64_t lost)
{
    char line[200];
    snprintf(line, sizeof line,
             "%lld of %lld conversations are longer than seq_len and are cut: %.1f%% of the tokens "
             "are left out",
             (long long)cut, (long long)documents,
             100 * (double)lost / (double)t->plan.train_tokens);
    if (cut && t->notes.fn)
        t->notes.fn(t->notes.user, line);
}

static marco_status check_kind(const train_recipe *recipe, const char *path, const data_set *set,
                               marco_error *error)
{
    if (data_set_is_chat(set) == recipe->chat)
        return MARCO_OK;
    return base_fail(error, MARCO_ERROR_ARGUMENT,
                     recipe->chat
                         ? "%s: holds text, but data.kind is \"chat\"; set it to \"text\", or make "
                           "the data of conversations, marco data --chat"
                         : "%s: holds conversations, but data.kind is \"text\"; set it to \"chat\"",
                     path);
}

/* A step that meets the same text twice is a mistake in the data's path or in the recipe. */
static marco_status check_data(trainer *t, marco_error *error)
{
    const train_recipe *recipe = t->recipe;
    int64_t documents = 0, cut = 0, lost = 0, step = recipe->batch * (int64_t)recipe->seq_len;
    marco_status status = MARCO_OK;
    for (size_t i = 0; i < recipe->n_sources && !status; i++) {
        data_set *set = NULL;
        status = data_set_open(recipe->sources[i].path, DATA_TRAIN, &set, error);
        if (!status)
            status = check_kind(recipe, recipe->sources[i].path, set, error);
        if (!status) {
            t->plan.train_tokens += data_set_tokens(set);
            documents += data_set_documents(set);
        }
        for (int64_t k = 0; !status && recipe->chat && k < data_set_documents(set); k++) {
            int64_t over = data_set_document(set, k).n - recipe->seq_len - 1;
            cut += over > 0;
            lost += over > 0 ? over : 0;
        }
        data_set_close(set);
    }
    if (!status)
        note_cut(t, cut, documents, lost);
    if (!status && recipe->chat && documents < recipe->batch)
        status =
            base_fail(error, MARCO_ERROR_ARGUMENT,
                      "data.sources hold %lld conversations, fewer than the %lld sequences of a "
                      "step; lower batch, or give more data",
                      (long long)documents, (long long)recipe->batch);
    if (!status && !recipe->chat && t->plan.train_tokens < step)
        status = base_fail(error, MARCO_ERROR_ARGUMENT,
                           "data.sources hold %lld tokens, fewer than the %lld of a step (batch * "
                           "seq_len); lower batch or seq_len, or give more data",
                           (long long)t->plan.train_tokens, (long long)step);
    return status;
}

static marco_status open_data(trainer *t, marco_error *error)
{
    const train_recipe *recipe = t->recipe;
    char digest[65];
    int32_t eos;
    marco_status status = read_tokenizer(t, digest, &eos, error);
    const data_loader_params params = {.sources = recipe->sources,
                                       .n_sources = recipe->n_sources,
                                       .temperature = recipe->temperature,
                                       .split = DATA_TRAIN,
                                       .seq_len = recipe->seq_len,
                                       .whole_documents = recipe->chat,
                                       .attend_across = recipe->attend_across,
                                       .eos = eos,
                                       .pad = eos >= 0 ? eos : 0,
                                       .n_vocab = t->source->config.n_vocab,
                                       .tokenizer = digest[0] ? digest : NULL,
                                       .seed = (uint64_t)recipe->seed};
    if (!status)
        status = data_loader_create(&params, &t->loader, error);
    if (!status)
        status = train_valid_open(t, params.tokenizer, eos, params.pad, error);
    if (!status)
        status = check_data(t, error);
    t->plan.valid_tokens = t->valid.tokens;
    return status;
}

static marco_status begin_alone(trainer *t, marco_error *error)
{
    int threads = t->params->threads;
    if (threads == 0) {
        threads = base_cpu_count() / t->comm->sharers;
        threads = threads > 1 ? threads : 1;
    }
    marco_status status = t->from ? model_source_open(t->from->folder, &t->source, error)
                                  : train_recipe_source(t->recipe, &t->source, error);
    if (!status)
        status = check_sizes(t, error);
    if (!status)
        status = open_data(t, error);
    if (!status)
        status = train_blas_open(threads, &t->blas, error);
    if (!status)
        status = base_pool_create(threads, &t->pool, error);
    return status;
}

/* ---- the plan ------------------------------------------------------------------------------ */

static train_model_params model_params(const trainer *t)
{
    return (train_model_params){.n_seqs = t->recipe->micro_batch,
                                .seq_len = t->recipe->seq_len,
                                .recompute = t->recipe->recompute,
                                .routing = t->recipe->routing};
}

static int64_t trained_params(const train_params *weights)
{
    int64_t n = 0;
    for (size_t i = 0; i < weights->n; i++) {
        const train_param *p = &weights->items[i];
        if (p->state == TRAIN_TRAINED)
            n += p->tensor.mats * train_param_matrix(p);
    }
    return n;
}

static marco_status make_plan(trainer *t, marco_error *error)
{
    marco_train_plan *plan = &t->plan;
    train_params *weights = NULL;
    marco_status status =
        train_params_plan(&t->source->config, &t->recipe->choice, t->comm, &weights, error);
    if (status)
        return status;
    bool bf16 = weights->type == TENSOR_BF16;
    for (int s = 0; s < TRAIN_SECTION_END; s++) {
        const train_values *v = &weights->sections[s];
        plan->weight_bytes += (uint64_t)v->size * (bf16 ? 2 : 4);
        plan->weight_bytes += (uint64_t)(v->graded - v->trained) * 4;
        plan->gradient_bytes += (uint64_t)v->graded * 4;
    }
    plan->optimizer_bytes = train_optimizer_bytes(weights, t->comm);
    train_model_params params = model_params(t);
    plan->activation_bytes =
        train_model_bytes(&weights->config, t->comm, &params, base_pool_threads(t->pool),
                          train_lora_scratch(weights));
    plan->total_bytes =
        plan->weight_bytes + plan->gradient_bytes + plan->optimizer_bytes + plan->activation_bytes;
    plan->total_params = model_config_total_params(&weights->config);
    plan->active_params = model_config_active_params(&weights->config);
    plan->trained_params = trained_params(weights);
    plan->processes = t->comm->size[TRAIN_WORLD];
    plan->expert_processes = t->comm->size[TRAIN_EXPERTS];
    plan->tokens_per_step = t->recipe->batch * t->recipe->seq_len;
    double tokens = (double)plan->tokens_per_step;
    plan->flops_per_step =
        train_flops(&weights->config, tokens, tokens * ((double)t->recipe->seq_len + 1) / 2);
    train_params_free(weights);
    return MARCO_OK;
}

/* ---- beginning: what needs memory ---------------------------------------------------------- */

static marco_status take_weights(trainer *t, marco_error *error)
{
    const train_recipe *recipe = t->recipe;
    train_model_params params = model_params(t);
    marco_status status =
        train_params_load(t->source, &recipe->choice, t->comm, &t->weights, error);
    if (!status)
        status =
            train_model_create(t->weights, t->comm, t->pool, t->blas, &params, &t->model, error);
    if (!status)
        status = train_optimizer_create(train_model_context(t->model), &recipe->optimizer,
                                        &t->optimizer, error);
    if (!status && !t->from)
        status = train_optimizer_begin(t->optimizer, train_model_context(t->model), t->source,
                                       recipe->choice.seed, error);
    if (status)
        return status;
    /* Its files are not needed any more; a checkpoint's may soon be removed. */
    t->weights->tokenizer = t->tokenizer = t->source->tokenizer;
    t->source->tokenizer = NULL;
    model_source_close(t->source);
    t->source = NULL;
    return MARCO_OK;
}

static marco_status take_memory(trainer *t, marco_error *error)
{
    const train_recipe *recipe = t->recipe;
    int64_t share = recipe->batch / t->comm->size[TRAIN_WORLD];
    int64_t micro = recipe->micro_batch;
    marco_status status = take_weights(t, error);
    if (!status)
        status = data_batch_create(share, recipe->seq_len, &t->batch, error);
    if (!status)
        status = data_batch_create(micro, recipe->seq_len, &t->valid.batch, error);
    if (status)
        return status;
    const model_config *config = &t->weights->config;
    t->losses = base_alloc_array((size_t)(micro * recipe->seq_len), sizeof *t->losses);
    if (config->n_experts) {
        size_t layers = (size_t)config->n_layers;
        t->loads = base_calloc(layers * (size_t)config->n_experts, sizeof *t->loads);
        t->entropies = base_calloc(layers, sizeof *t->entropies);
    }
    if (!t->losses || (config->n_experts && (!t->loads || !t->entropies)))
        return base_fail_memory(error, (size_t)(micro * recipe->seq_len) * sizeof *t->losses,
                                "training");
    t->roof = kern_roof_f32_rate(kern_roof_of(kern_table_get(NULL)), t->pool);
    return MARCO_OK;
}

/* ---- checkpoints --------------------------------------------------------------------------- */

static json_t *make_state(trainer *t)
{
    const model_config *config = &t->weights->config;
    json_t *bias = json_array();
    for (int32_t i = 0; i < config->n_layers; i++) {
        const train_routing_stats *stats = train_model_routing(t->model, i);
        json_t *layer = stats ? train_json_floats(stats->bias, config->n_experts) : json_array();
        if (json_array_append_new(bias, layer) != 0) {
            json_decref(bias);
            return NULL;
        }
    }
    return json_pack("{s:o, s:I, s:o}", "loader", data_loader_state(t->loader), "total_tokens",
                     (json_int_t)t->total_tokens, "router_bias", bias);
}

static marco_status write_checkpoint(trainer *t, marco_error *error)
{
    json_t *state = make_state(t);
    marco_status status = MARCO_OK;
    if (!state)
        status = base_fail_memory(error, 0, "a checkpoint's state");
    status = train_comm_settle(t->comm, status, error);
    const train_checkpoint_params params = {.step = t->step,
                                            .state = state,
                                            .keep_last = t->recipe->keep_last,
                                            .keep_every = t->recipe->keep_every};
    if (!status)
        status = train_checkpoint_write(train_model_context(t->model), t->optimizer, t->run,
                                        &params, t->checkpoint, error);
    json_decref(state);
    return status;
}

/* That a run may have trained on, so that it can be counted on from there. */
#define MOST_TOKENS INT64_C(1000000000000000000)

static marco_status restore_state(trainer *t, const train_checkpoint *checkpoint,
                                  marco_error *error)
{
    const model_config *config = &t->weights->config;
    const json_t *bias = json_object_get(checkpoint->state, "router_bias");
    const json_t *tokens = json_object_get(checkpoint->state, "total_tokens");
    bool sound = json_is_integer(tokens) && json_integer_value(tokens) >= 0 &&
                 json_integer_value(tokens) <= MOST_TOKENS &&
                 json_array_size(bias) == (size_t)config->n_layers;
    for (int32_t i = 0; i < config->n_layers && sound; i++) {
        train_routing_stats *stats = train_model_routing(t->model, i);
        if (stats)
            sound = train_json_to_floats(json_array_get(bias, (size_t)i), stats->bias,
                                         config->n_experts);
    }
    if (!sound)
        return base_fail(
            error, MARCO_ERROR_FORMAT,
            "%s/trainer.json: total_tokens or router_bias are not this model's; remove "
            "the folder to go on from the checkpoint before",
            checkpoint->folder);
    t->total_tokens = json_integer_value(tokens);
    return data_loader_restore(t->loader, json_object_get(checkpoint->state, "loader"), error);
}

/* Opens a run that the folder holds, and its last checkpoint, before anything else: training goes
 * on from there, wherever the model is that it began from. */
static marco_status find_run(trainer *t, marco_error *error)
{
    char exists = 0;
    marco_status status = MARCO_OK;
    if (t->params->restart || t->params->dry_run)
        return MARCO_OK;
    if (t->comm->rank[TRAIN_WORLD] == 0)
        exists = train_run_exists(t->params->to);
    status = t->comm->ops->broadcast(t->comm, TRAIN_WORLD, 0, &exists, sizeof exists, error);
    if (status || !exists)
        return status;
    status = train_run_open(t->comm, t->params->to, t->recipe, false, &t->notes, &t->run, error);
    return status ? status : train_checkpoint_last(t->comm, t->run, &t->notes, &t->from, error);
}

static marco_status go_on(trainer *t, marco_error *error)
{
    const train_context *ctx = train_model_context(t->model);
    marco_status status = MARCO_OK;
    if (!t->from) /* none a moment ago */
        status = train_checkpoint_last(t->comm, t->run, &t->notes, &t->from, error);
    if (status || !t->from)
        return status;
    status = train_checkpoint_load(t->from, ctx, t->optimizer, error);
    if (!status)
        status = train_comm_settle(t->comm, restore_state(t, t->from, error), error);
    t->step = t->resumed = t->from->step;
    snprintf(t->checkpoint, sizeof t->checkpoint, "%s", t->from->folder);
    train_checkpoint_free(t->from);
    t->from = NULL;
    return status;
}

/* ---- the run ------------------------------------------------------------------------------- */

static bool due(int64_t step, int64_t every, int64_t steps)
{
    return step == steps || (every > 0 && step % every == 0);
}

static marco_status validate(trainer *t, double *loss, marco_error *error)
{
    double *per_source = base_calloc(t->valid.n + 1, sizeof *per_source);
    marco_status status = MARCO_OK;
    if (!per_source)
        status = base_fail_memory(error, t->valid.n * sizeof *per_source, "validation");
    status = train_comm_settle(t->comm, status, error);
    if (!status)
        status = train_valid_measure(t, loss, per_source, error);
    if (!status && t->metrics)
        status = train_metrics_valid(t->metrics, t->step, *loss, &t->valid, per_source, error);
    base_free(per_source);
    return train_comm_settle(t->comm, status, error);
}

/* On rank 0. */
static marco_status write_metrics(trainer *t, const marco_train_step *s, marco_error *error)
{
    if (!t->metrics)
        return MARCO_OK;
    marco_status status = train_metrics_step(t->metrics, s, data_loader_counts(t->loader), error);
    bool more = t->recipe->load_every && due(s->step, t->recipe->load_every, s->steps);
    if (!status && more && t->loads)
        status = train_metrics_load(t->metrics, t, error);
    if (!status && more && t->comm->size[TRAIN_WORLD] > 1)
        status = train_metrics_traffic(t->metrics, s->step, t->comm, error);
    return status;
}

/* Has anybody asked to stop? */
static marco_status ask(trainer *t, int64_t *stop, marco_error *error)
{
    *stop = t->params->cancelled && t->params->cancelled(t->params->user) != 0;
    return t->comm->ops->all_reduce_i64(t->comm, TRAIN_WORLD, stop, 1, error);
}

static marco_status after_step(trainer *t, marco_train_step *s, bool *saved, marco_error *error)
{
    const train_recipe *recipe = t->recipe;
    marco_status status = MARCO_OK;
    s->seconds_left = (base_now() - t->began) / (double)(t->step - t->resumed) *
                      (double)(recipe->steps - t->step);
    if (t->valid.n && due(t->step, recipe->valid_every, recipe->steps))
        status = validate(t, &s->valid_loss, error);
    if (!status)
        status = train_comm_settle(t->comm, write_metrics(t, s, error), error);
    if (!status && t->params->on_step && t->comm->rank[TRAIN_WORLD] == 0)
        t->params->on_step(t->params->user, s);
    *saved = !status && due(t->step, recipe->checkpoint_every, recipe->steps);
    if (*saved)
        status = write_checkpoint(t, error);
    return status;
}

static marco_status loop(trainer *t, marco_train_step *last, marco_error *error)
{
    marco_status status = MARCO_OK;
    bool saved = true;
    double untrained;
    t->began = base_now();
    if (t->step == 0 && t->valid.n)
        status = validate(t, &untrained, error);
    while (t->step < t->recipe->steps && !status) {
        int64_t stop = 0;
        status = ask(t, &stop, error);
        if (!status && stop) {
            if (!saved)
                status = write_checkpoint(t, error);
            return status ? status
                          : base_fail(error, MARCO_ERROR_CANCELLED,
                                      "stopped after step %lld of %lld; the same command goes on "
                                      "from there",
                                      (long long)t->step, (long long)t->recipe->steps);
        }
        status = trainer_step(t, last, error);
        if (!status)
            status = after_step(t, last, &saved, error);
    }
    return status;
}

/* ---- the interface ------------------------------------------------------------------------- */

static void trainer_end(trainer *t)
{
    train_metrics_close(t->metrics);
    train_optimizer_free(t->optimizer);
    train_model_free(t->model);
    train_params_free(t->weights);
    train_valid_close(&t->valid);
    data_batch_free(t->batch);
    data_loader_close(t->loader);
    base_free(t->losses);
    base_free(t->loads);
    base_free(t->entropies);
    train_run_close(t->run);
    base_pool_destroy(t->pool);
    train_blas_close(t->blas);
    model_source_close(t->source);
    tok_spec_free(t->tokenizer);
    train_checkpoint_free(t->from);
    train_comm_close(t->comm);
    train_recipe_free(t->recipe);
}

/* Processes that are not the same program, with the same recipe and data, would not notice
 * otherwise. */
static marco_status agree(trainer *t, marco_error *error)
{
    char *recipe = train_recipe_text(t->recipe);
    marco_status status = recipe ? MARCO_OK : base_fail_memory(error, 0, "the recipe");
    status = train_comm_settle(t->comm, status, error);
    const char *version = marco_version();
    if (!status)
        status = train_comm_agree(t->comm, version, strlen(version), "version of marco", error);
    if (!status)
        status = train_comm_agree(t->comm, recipe, strlen(recipe), "recipe", error);
    base_free(recipe);
    return status;
}

static marco_status agree_on_data(trainer *t, marco_error *error)
{
    json_t *state = json_pack("{s:o, s:o}", "train", data_loader_state(t->loader), "valid",
                              train_valid_state(&t->valid));
    char *text = NULL;
    size_t size = 0;
    marco_status status = MARCO_OK;
    if (!state || !format_json_dump(state, JSON_COMPACT | JSON_SORT_KEYS, &text, &size))
        status = base_fail_memory(error, 0, "the data's state");
    status = train_comm_settle(t->comm, status, error);
    if (!status)
        status = train_comm_agree(t->comm, text, size, "data", error);
    base_free(text);
    json_decref(state);
    return status;
}

/* The same file name may be another file on another machine. (Experts are not compared.) */
static marco_status agree_on_weights(trainer *t, marco_error *error)
{
    const train_values *shared = &t->weights->sections[TRAIN_SHARED];
    if (t->comm->size[TRAIN_WORLD] == 1)
        return MARCO_OK;
    marco_status status = train_comm_agree(t->comm, &t->step, sizeof t->step, "checkpoint", error);
    if (!status)
        status = train_comm_agree(t->comm, shared->value,
                                  tensor_row_bytes(t->weights->type, shared->size), "model", error);
    return status;
}

static marco_status train(trainer *t, marco_train_step *last, marco_error *error)
{
    marco_status status = agree(t, error);
    if (!status)
        status = find_run(t, error);
    if (!status)
        status = train_comm_settle(t->comm, begin_alone(t, error), error);
    if (!status)
        status = agree_on_data(t, error);
    if (!status)
        status = train_comm_settle(t->comm, make_plan(t, error), error);
    if (status || t->params->dry_run)
        return status;
    if (!t->run)
        status = train_run_open(t->comm, t->params->to, t->recipe, t->params->restart, &t->notes,
                                &t->run, error);
    if (!status)
        status = train_comm_settle(t->comm, take_memory(t, error), error);
    if (!status)
        status = t->comm->ops->all_reduce_f64(t->comm, TRAIN_WORLD, &t->roof, 1, error);
    if (!status)
        status = go_on(t, error);
    if (!status)
        status = agree_on_weights(t, error);
    if (!status && t->comm->rank[TRAIN_WORLD] == 0)
        status = train_metrics_open(t->run->folder, &t->metrics, error);
    if (!status && t->metrics)
        status = train_metrics_run(t->metrics, t, error);
    if (t->run)
        status = train_comm_settle(t->comm, status, error);
    return status ? status : loop(t, last, error);
}

marco_train_params marco_train_params_default(void)
{
    return (marco_train_params){0};
}

marco_status marco_train(const marco_train_params *params, marco_train_result *result,
                         marco_error *error)
{
    marco_train_step last = {0};
    if (result)
        *result = (marco_train_result){0};
    if (!params->to && !params->dry_run)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "training needs a folder for its run");
    if (params->threads < 0 || params->threads > 1024)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "threads must be 0 to 1024, not %d",
                         params->threads);
    trainer t = {.params = params};
    /* First of all, so that what one process cannot read, all know. */
    marco_status status = train_comm_open(1, &t.comm, error);
    if (!status)
        status = train_comm_settle(
            t.comm, train_recipe_read(params->recipe, params->set, params->n_set, &t.recipe, error),
            error);
    if (!status)
        status = train_comm_spread(t.comm, (int)t.recipe->expert_processes, error);
    if (!status) {
        if (t.comm->rank[TRAIN_WORLD] == 0)
            t.notes = (train_notes){.fn = params->on_note, .user = params->user};
        status = train(&t, &last, error);
    }
    if (result) {
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        result->plan = t.plan;
        result->last = last;
        result->resumed = t.resumed;
        result->peak_bytes = (uint64_t)usage.ru_maxrss * 1024;
        snprintf(result->checkpoint, sizeof result->checkpoint, "%s", t.checkpoint);
    }
    trainer_end(&t);
    return status;
}

marco_status marco_train_recipe(const marco_train_params *params, char **json, marco_error *error)
{
    train_recipe *recipe = NULL;
    *json = NULL;
    marco_status status =
        train_recipe_read(params->recipe, params->set, params->n_set, &recipe, error);
    if (!status && !(*json = train_recipe_text(recipe)))
        status = base_fail_memory(error, 0, "the recipe");
    train_recipe_free(recipe);
    return status;
}
