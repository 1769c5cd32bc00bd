#include <stdio.h>
#include <string.h>

#include "base/available.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "infer/internal.h"

enum { MAX_THREADS = 1024 };

marco_engine_params marco_engine_params_default(void)
{
    return (marco_engine_params){0};
}

/* The ids that end a reply: those the checkpoint names, and the ends of a turn and of a text in
 * ChatML, which checkpoints of this family do not always name both of. */
static void collect_ends(marco_engine *engine)
{
    const model_config *c = &engine->weights->config;
    static const char *const names[] = {"<|im_end|>", "<|endoftext|>"};
    int32_t candidates[INFER_MAX_END], n = 0;
    for (int32_t i = 0; i < c->n_eos; i++)
        candidates[n++] = c->eos[i];
    candidates[n++] = marco_tokenizer_eos(engine->tokenizer);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int32_t id = marco_tokenizer_find(engine->tokenizer, names[i]);
        if (id >= 0 && marco_tokenizer_is_special(engine->tokenizer, id))
            candidates[n++] = id;
    }
    for (int32_t i = 0; i < n; i++) {
        bool known = candidates[i] < 0;
        for (int32_t j = 0; j < engine->n_end; j++)
            known |= engine->end[j] == candidates[i];
        if (!known)
            engine->end[engine->n_end++] = candidates[i];
    }
}

/* "Q8_0, F32": matrix types by bytes. */
static void describe_types(const model_source *source, base_text *text)
{
    model_type_bytes types[TENSOR_TYPE_END];
    size_t n = model_source_types(source, types);
    for (size_t i = 0; i < n; i++)
        base_text_printf(text, "%s%s", i ? ", " : "", tensor_type_name(types[i].type));
}

static marco_status describe(marco_engine *engine, const model_source *source, marco_error *error)
{
    const model_config *c = &engine->weights->config;
    marco_model_info *info = &engine->info;
    base_text text = {0};
    size_t name_at, provenance_at, residency_at, size;

    describe_types(source, &text);
    base_text_add_char(&text, '\0');
    name_at = text.size;
    base_text_add(&text, c->name);
    base_text_add_char(&text, '\0');
    provenance_at = text.size;
    base_text_add(&text, c->provenance);
    base_text_add_char(&text, '\0');
    residency_at = text.size;
    model_plan_describe(&engine->plan, source->path, &text);
    engine->info_text = base_text_take(&text, &size);
    if (!engine->info_text)
        return base_fail_memory(error, 256, source->path);

    int32_t dense_layers = 0;
    for (int32_t i = 0; i < c->n_layers; i++)
        dense_layers += !c->layer_sparse[i];
    model_kv kv;
    model_kv_init(&kv, c, infer_kv_type(engine, MARCO_KV_AUTO));
    *info = (marco_model_info){
        .architecture = model_arch_name(c->arch),
        .name = engine->info_text + name_at,
        .provenance = c->provenance[0] ? engine->info_text + provenance_at : NULL,
        .weight_types = engine->info_text,
        .n_layers = c->n_layers,
        .n_embd = c->n_embd,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .n_experts = c->n_experts,
        .n_experts_used = c->n_experts_used,
        .expert_dim = c->n_experts ? c->expert_dim : 0,
        .ffn_dim = dense_layers ? c->ffn_dim : 0,
        .n_vocab = c->n_vocab,
        .n_ctx_train = c->n_ctx_train,
        .total_params = model_config_total_params(c),
        .active_params = model_config_active_params(c),
        .residency = engine->info_text + residency_at,
        .weight_bytes =
            engine->weights->bytes + (uint64_t)engine->plan.slots * engine->plan.slot_bytes,
        .bytes_per_token = model_source_token_bytes(source),
        .kv_bytes_per_token = kv.page_bytes / MODEL_KV_PAGE,
        .threads = base_pool_threads(engine->pool),
    };
    return MARCO_OK;
}

/* The tokenizer first: reading it takes memory for a moment, before the weights need it. */
static marco_status open_tokenizer(marco_engine *engine, model_source *source,
                                   const marco_engine_params *params, marco_error *error)
{
    if (!source->tokenizer)
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: the checkpoint has no tokenizer",
                         source->path);
    tok_spec *spec = source->tokenizer;
    source->tokenizer = NULL;
    marco_status status = tok_compile(spec, &engine->tokenizer, error);
    if (!status && marco_tokenizer_size(engine->tokenizer) > source->config.n_vocab)
        status =
            base_fail(error, MARCO_ERROR_FORMAT,
                      "%s: the tokenizer has %d ids, the model's vocabulary only %d", source->path,
                      marco_tokenizer_size(engine->tokenizer), source->config.n_vocab);
    if (!status && params->chat_template)
        status = marco_tokenizer_set_chat_template(engine->tokenizer, params->chat_template, error);
    return status;
}

/* Decides where the weights shall live, and brings them there. */
static marco_status load_weights(marco_engine *engine, model_source *source,
                                 const marco_engine_params *params, marco_error *error)
{
    int threads = base_pool_threads(engine->pool);
    tensor_type kv = infer_kv_type(engine, params->kv_type);
    if (!model_kv_fits(&source->config, kv)) /* a session will say so */
        kv = infer_kv_type(engine, MARCO_KV_AUTO);
    const model_plan_request request = {
        .ram = params->ram,
        .map = params->mmap,
        .held = base_memory_resident(),
        .available = base_memory_available(),
        .session = infer_session_least(&source->config, threads, kv),
    };
    marco_status status = model_plan_make(source, &request, &engine->plan, error);
    if (status)
        return status;
    const model_load_params load = {.residency = engine->plan.residency,
                                    .kernels = engine->f32 ? NULL : engine->kernels,
                                    .progress = &params->progress};
    status = model_weights_load(source, &load, &engine->weights, error);
    if (!status && engine->plan.residency == MODEL_STREAMED)
        status = model_cache_create(engine->weights, engine->plan.slots, NULL, NULL,
                                    &engine->weights->cache, error);
    return status;
}

marco_status marco_engine_open(const char *path, const marco_engine_params *params,
                               marco_engine **out, marco_error *error)
{
    marco_engine_params defaults = marco_engine_params_default();
    marco_status status;
    model_source *source = NULL;
    if (!path || !out)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "marco_engine_open: path and out are needed");
    *out = NULL;
    params = params ? params : &defaults;
    if (params->threads < 0 || params->threads > MAX_THREADS)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "threads: %d is not between 1 and %d",
                         params->threads, MAX_THREADS);
    if ((int)params->kv_type < MARCO_KV_AUTO || (int)params->kv_type > MARCO_KV_Q8_0)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "kv_type: %d is none of marco_kv_type",
                         (int)params->kv_type);
    const kern_table *kernels = kern_table_get(NULL);
    if (!kernels)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "MARCO_CPU names an instruction level that is unknown or that this "
                         "processor lacks; unset it");
    marco_engine *engine = base_calloc(1, sizeof *engine);
    if (!engine)
        return base_fail_memory(error, sizeof *engine, path);
    pthread_mutex_init(&engine->turn, NULL);
    engine->kernels = kernels;
    engine->f32 = params->compute == MARCO_COMPUTE_F32;

    status = model_source_open(path, &source, error);
    if (!status)
        status = open_tokenizer(engine, source, params, error);
    if (!status)
        status = base_pool_create(params->threads ? params->threads : base_cpu_count(),
                                  &engine->pool, error);
    if (!status)
        status = load_weights(engine, source, params, error);
    if (!status)
        status = describe(engine, source, error);
    model_source_close(source);
    if (status) {
        marco_engine_close(engine);
        return status;
    }
    collect_ends(engine);
    *out = engine;
    return MARCO_OK;
}

void marco_engine_close(marco_engine *engine)
{
    if (!engine)
        return;
    base_pool_destroy(engine->pool);
    model_weights_free(engine->weights);
    marco_tokenizer_close(engine->tokenizer);
    pthread_mutex_destroy(&engine->turn);
    base_free(engine->info_text);
    base_free(engine);
}

const marco_model_info *marco_engine_info(const marco_engine *engine)
{
    return &engine->info;
}

void marco_engine_residency(const marco_engine *engine, marco_residency_stats *stats)
{
    const model_plan *plan = &engine->plan;
    *stats = (marco_residency_stats){
        .budget = plan->budget, .pinned_bytes = plan->pinned_bytes, .experts = plan->experts};
    if (!engine->weights->cache)
        return;
    model_cache_stats cache;
    model_cache_stats_get(engine->weights->cache, &cache);
    stats->slots = cache.slots;
    stats->cache_bytes = (uint64_t)cache.slots * plan->slot_bytes;
    stats->hits = cache.hits;
    stats->misses = cache.misses;
    stats->bytes_read = cache.bytes_read;
    stats->wait_seconds = cache.wait_seconds;
    stats->read_seconds = cache.read_seconds;
}

/* ---- the room that sessions share with the cache of experts ---------------------------------- */

static void share_room(marco_engine *engine)
{
    const model_plan *plan = &engine->plan;
    if (engine->weights->cache)
        model_cache_limit(engine->weights->cache,
                          (int64_t)((plan->room - engine->taken) / plan->slot_bytes));
}

marco_status infer_take(marco_engine *engine, uint64_t bytes, const char *what, marco_error *error)
{
    const model_plan *plan = &engine->plan;
    uint64_t least = (uint64_t)plan->least_slots * plan->slot_bytes, need;
    if (plan->residency != MODEL_STREAMED)
        least = 0;
    if (!base_add_u64(bytes, engine->taken + least, &need) || need > plan->room)
        return base_fail(error, MARCO_ERROR_MEMORY,
                         "%s: %s does not fit into the %llu MiB of memory: it would take %llu MiB "
                         "more; shorten it, or %s",
                         engine->weights->path, what, (unsigned long long)(plan->budget >> 20),
                         (unsigned long long)((need - plan->room + (1 << 20) - 1) >> 20),
                         plan->automatic ? "free some memory and load again" : "raise --ram");
    engine->taken += bytes;
    share_room(engine);
    return MARCO_OK;
}

void infer_give_back(marco_engine *engine, uint64_t bytes)
{
    engine->taken -= bytes;
    share_room(engine);
}

const marco_tokenizer *marco_engine_tokenizer(const marco_engine *engine)
{
    return engine->tokenizer;
}

marco_sampling marco_engine_sampling(const marco_engine *engine)
{
    const model_config *c = &engine->weights->config;
    if (!c->do_sample)
        return (marco_sampling){.top_p = 1, .repetition_penalty = (float)c->repetition_penalty};
    return (marco_sampling){
        .temperature = (float)c->temperature,
        .top_k = c->top_k,
        .top_p = (float)c->top_p,
        .min_p = (float)c->min_p,
        .repetition_penalty = (float)c->repetition_penalty,
    };
}
