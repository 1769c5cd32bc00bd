#include "train/model.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/rope.h"
#include "train/attention.h"
#include "train/ffn.h"

typedef struct train_layer {
    float *in, *mid; /* [T, E] of the attention half, of the other */
    train_attention_saved attention;
    train_experts_saved experts;
    train_ffn_saved ffn;
    train_experts_grown grown; /* the first layer's is all layers' with recomputation */
    train_routing_stats stats;
} train_layer;

struct train_model {
    train_context ctx;
    train_model_params params;
    void *region;
    size_t region_bytes;
    train_layer *layers; /* [n_layers] */
    float *out;          /* [T, E] of the last layer */
    float *d;            /* [T, E] */
    train_attention_work *attention;
    train_experts_work *experts;
    train_ffn_work ffn;
    train_head_work head;
    float *cosine, *sine; /* [seq_len, head_dim / 2] */
};

/* ---- layout -------------------------------------------------------------------------------- */

static bool any_layer(const model_config *config, bool sparse)
{
    for (int32_t i = 0; i < config->n_layers; i++)
        if (config->layer_sparse[i] == sparse)
            return true;
    return false;
}

static int64_t scratch_floats(const model_config *config, int64_t lora_scratch)
{
    const int64_t needs[] = {
        lora_scratch,
        train_linear_scratch(config),
        train_attention_scratch(config),
        any_layer(config, true) ? train_experts_scratch(config) : 0,
        train_head_scratch(config),
    };
    int64_t most = 0;
    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++)
        most = needs[i] > most ? needs[i] : most;
    return (most + 15) / 16 * 16;
}

static void save_half(const model_config *config, int64_t n, int32_t i, train_experts_grown *grown,
                      train_arena *arena, train_layer *l)
{
    if (config->layer_sparse[i])
        train_experts_save(config, n, grown, arena, &l->experts);
    else
        train_ffn_save(config, n, arena, &l->ffn);
}

/* With recomputation the layers share what one layer saves. */
static void layout_layers(train_model *m, const model_config *config, train_arena *arena)
{
    int64_t n = m->params.n_seqs * m->params.seq_len;
    train_arena shared = *arena;
    size_t most = arena->used;
    for (int32_t i = 0; i < config->n_layers; i++) {
        train_arena *at = arena, again = shared;
        if (m->params.recompute)
            at = &again;
        train_layer *l = &m->layers[i];
        train_attention_save(config, n, at, &l->attention);
        save_half(config, n, i, &m->layers[m->params.recompute ? 0 : i].grown, at, l);
        l->mid = train_arena_floats(at, n * config->n_embd);
        most = at->used > most ? at->used : most;
    }
    arena->used = most;
}

static void layout(train_model *m, const model_config *config, const train_comm *comm, int threads,
                   int64_t scratch, train_arena *arena)
{
    int64_t n = m->params.n_seqs * m->params.seq_len, embd = config->n_embd;
    int64_t half = config->head_dim / 2;
    m->cosine = train_arena_floats(arena, m->params.seq_len * half);
    m->sine = train_arena_floats(arena, m->params.seq_len * half);
    m->out = train_arena_floats(arena, n * embd);
    m->d = train_arena_floats(arena, n * embd);
    for (int32_t i = 0; i < config->n_layers; i++) {
        m->layers[i].in = train_arena_floats(arena, n * embd);
        train_routing_stats *stats = &m->layers[i].stats;
        if (config->layer_sparse[i]) {
            stats->load = train_arena_take(arena, config->n_experts, sizeof *stats->load);
            stats->seen = train_arena_take(arena, config->n_experts, sizeof *stats->seen);
            stats->bias = train_arena_floats(arena, config->n_experts);
        }
    }
    layout_layers(m, config, arena);
    m->attention = train_attention_plan(config, n, arena);
    if (any_layer(config, true))
        m->experts = train_experts_plan(config, comm, n, arena);
    if (any_layer(config, false))
        train_ffn_plan(config, n, arena, &m->ffn);
    train_head_plan(config, n, arena, &m->head);
    for (int i = 0; i < threads; i++) {
        float *at = train_arena_floats(arena, scratch);
        if (m->ctx.scratch)
            m->ctx.scratch[i] = at;
    }
}

uint64_t train_model_bytes(const model_config *config, const train_comm *comm,
                           const train_model_params *params, int threads, int64_t lora_scratch)
{
    train_model m = {.params = *params};
    m.layers = base_calloc((size_t)config->n_layers, sizeof *m.layers);
    if (!m.layers)
        return UINT64_MAX;
    train_arena arena = {0};
    layout(&m, config, comm, threads, scratch_floats(config, lora_scratch), &arena);
    base_free(m.layers);
    return arena.used;
}

static marco_status fill_rope(train_model *m, marco_error *error)
{
    const model_config *config = &m->ctx.params->config;
    int64_t half = config->head_dim / 2;
    float magnitude, *frequencies = base_alloc_array((size_t)half, sizeof *frequencies);
    if (!frequencies)
        return base_fail_memory(error, (size_t)half * sizeof *frequencies, "RoPE");
    model_rope_frequencies(config, frequencies, &magnitude);
    for (int64_t i = 0; i < m->params.seq_len; i++)
        model_rope_angles(frequencies, half, magnitude, i, m->cosine + i * half,
                          m->sine + i * half);
    base_free(frequencies);
    m->ctx.rope_cos = m->cosine;
    m->ctx.rope_sin = m->sine;
    return MARCO_OK;
}

marco_status train_model_create(train_params *weights, train_comm *comm, base_pool *pool,
                                const train_blas *blas, const train_model_params *params,
                                train_model **out, marco_error *error)
{
    *out = NULL;
    const model_config *config = &weights->config;
    int threads = pool ? base_pool_threads(pool) : 1;
    train_model *m = base_calloc(1, sizeof *m);
    if (!m)
        return base_fail_memory(error, sizeof *m, "training");
    m->params = *params;
    int64_t scratch = scratch_floats(config, train_lora_scratch(weights));
    m->ctx = (train_context){
        .params = weights, .comm = comm, .pool = pool, .kern = kern_table_get(NULL), .blas = blas};
    m->region_bytes = train_model_bytes(config, comm, params, threads, train_lora_scratch(weights));
    m->layers = base_calloc((size_t)config->n_layers, sizeof *m->layers);
    m->ctx.scratch = base_calloc((size_t)threads, sizeof *m->ctx.scratch);
    m->region = base_region_alloc(m->region_bytes);
    marco_status status = MARCO_OK;
    if (!m->ctx.kern)
        status = base_fail(error, MARCO_ERROR_UNSUPPORTED,
                           "MARCO_CPU asks for a level that this processor does not have");
    else if (!m->layers || !m->ctx.scratch || !m->region)
        status = base_fail_memory(error, m->region_bytes, "activations");
    if (!status) {
        train_arena arena = {.base = m->region};
        layout(m, config, comm, threads, scratch, &arena);
        status = fill_rope(m, error);
    }
    if (status) {
        train_model_free(m);
        return status;
    }
    *out = m;
    return MARCO_OK;
}

void train_model_free(train_model *model)
{
    if (!model)
        return;
    for (int32_t i = 0; model->layers && i < model->ctx.params->config.n_layers; i++)
        train_experts_grown_release(&model->layers[i].grown);
    train_experts_work_release(model->experts);
    base_region_free(model->region, model->region_bytes);
    base_free(model->ctx.scratch);
    base_free(model->layers);
    base_free(model);
}

const train_context *train_model_context(const train_model *model)
{
    return &model->ctx;
}

train_routing_stats *train_model_routing(train_model *model, int32_t layer)
{
    return model->ctx.params->config.layer_sparse[layer] ? &model->layers[layer].stats : NULL;
}

/* ---- a pass -------------------------------------------------------------------------------- */

typedef struct run {
    train_model *model;
    const train_tokens *tokens;
    const train_routing_pass *pass;
} run;

static float *layer_out(const train_model *m, int32_t i)
{
    return i + 1 < m->ctx.params->config.n_layers ? m->layers[i + 1].in : m->out;
}

static marco_status layer_forward(const run *r, int32_t i, bool again, marco_error *error)
{
    train_model *m = r->model;
    train_layer *l = &m->layers[i];
    train_attention(&m->ctx, i, r->tokens, l->in, &l->attention, m->attention, l->mid);
    if (m->ctx.params->config.layer_sparse[i])
        return train_experts(&m->ctx, i, r->tokens, &m->params.routing, r->pass, again, l->mid,
                             &l->experts, m->experts, &l->stats, layer_out(m, i), error);
    train_ffn(&m->ctx, i, r->tokens->n, l->mid, &l->ffn, &m->ffn, layer_out(m, i));
    return MARCO_OK;
}

static marco_status layer_back(const run *r, int32_t i, marco_error *error)
{
    train_model *m = r->model;
    train_layer *l = &m->layers[i];
    /* Running forward again would write the next layer's input, which is not needed any more. */
    marco_status status = m->params.recompute ? layer_forward(r, i, true, error) : MARCO_OK;
    if (!status && m->ctx.params->config.layer_sparse[i])
        status = train_experts_back(&m->ctx, i, r->tokens, &m->params.routing, r->pass, l->mid,
                                    &l->experts, m->experts, &l->stats, m->d, error);
    else if (!status)
        train_ffn_back(&m->ctx, i, r->tokens->n, l->mid, &l->ffn, &m->ffn, m->d);
    if (!status)
        train_attention_back(&m->ctx, i, r->tokens, l->in, &l->attention, m->attention, m->d);
    return status;
}

static marco_status forward(const run *r, marco_error *error)
{
    train_model *m = r->model;
    marco_status status = MARCO_OK;
    train_embedding(&m->ctx, r->tokens, m->layers[0].in);
    for (int32_t i = 0; i < m->ctx.params->config.n_layers && !status; i++)
        status = layer_forward(r, i, false, error);
    return status;
}

marco_status train_model_pass(train_model *model, const train_tokens *tokens,
                              const train_routing_pass *pass, const train_objective *objective,
                              double *losses, marco_error *error)
{
    run r = {.model = model, .tokens = tokens, .pass = pass};
    marco_status status = forward(&r, error);
    if (status)
        return status;
    train_head(&model->ctx, tokens, objective, model->out, &model->head, losses, model->d);
    for (int32_t i = model->ctx.params->config.n_layers - 1; i >= 0 && !status; i--)
        status = layer_back(&r, i, error);
    if (!status)
        train_embedding_back(&model->ctx, tokens, model->d);
    return status;
}

marco_status train_model_losses(train_model *model, const train_tokens *tokens,
                                const train_objective *objective, double *losses,
                                marco_error *error)
{
    const train_routing_pass pass = {.training = false};
    run r = {.model = model, .tokens = tokens, .pass = &pass};
    marco_status status = forward(&r, error);
    if (!status)
        train_head(&model->ctx, tokens, objective, model->out, &model->head, losses, NULL);
    return status;
}

double train_flops(const model_config *config, double tokens, double keys)
{
    /* Of attention forward two products of heads * keys, backward four; each a multiplication and
     * an addition. */
    double heads = (double)config->n_heads * config->head_dim;
    return 6 * (double)model_config_active_params(config) * tokens +
           12 * heads * keys * config->n_layers;
}

double train_model_flops(const model_config *config, const train_tokens *tokens)
{
    double keys = 0; /* that all tokens see */
    for (int64_t t = 0; t < tokens->n; t++)
        keys += (double)(t % tokens->seq_len - tokens->starts[t] + 1);
    return train_flops(config, (double)tokens->n, keys);
}
