/* The tensors of a configuration and what the two formats call them. */
#include <stdio.h>
#include <string.h>

#include "model/config.h"

typedef struct role_names {
    const char *gguf, *hf;
} role_names;

/* %d is the layer; the experts' names in Hugging Face files also take the expert. */
static const role_names names[MODEL_ROLE_END] = {
    [MODEL_TOKEN_EMBD] = {"token_embd.weight", "model.embed_tokens.weight"},
    [MODEL_OUTPUT_NORM] = {"output_norm.weight", "model.norm.weight"},
    [MODEL_OUTPUT] = {"output.weight", "lm_head.weight"},
    [MODEL_ATTN_NORM] = {"attn_norm", "input_layernorm"},
    [MODEL_ATTN_Q] = {"attn_q", "self_attn.q_proj"},
    [MODEL_ATTN_K] = {"attn_k", "self_attn.k_proj"},
    [MODEL_ATTN_V] = {"attn_v", "self_attn.v_proj"},
    [MODEL_ATTN_Q_NORM] = {"attn_q_norm", "self_attn.q_norm"},
    [MODEL_ATTN_K_NORM] = {"attn_k_norm", "self_attn.k_norm"},
    [MODEL_ATTN_OUT] = {"attn_output", "self_attn.o_proj"},
    [MODEL_FFN_NORM] = {"ffn_norm", "post_attention_layernorm"},
    [MODEL_FFN_GATE] = {"ffn_gate", "mlp.gate_proj"},
    [MODEL_FFN_UP] = {"ffn_up", "mlp.up_proj"},
    [MODEL_FFN_DOWN] = {"ffn_down", "mlp.down_proj"},
    [MODEL_ROUTER] = {"ffn_gate_inp", "mlp.gate"},
    [MODEL_EXPERT_GATE] = {"ffn_gate_exps", "gate_proj"},
    [MODEL_EXPERT_UP] = {"ffn_up_exps", "up_proj"},
    [MODEL_EXPERT_DOWN] = {"ffn_down_exps", "down_proj"},
};

static const char *mixtral_expert(model_role role)
{
    return role == MODEL_EXPERT_GATE ? "w1" : role == MODEL_EXPERT_UP ? "w3" : "w2";
}

void model_tensor_gguf_name(const model_tensor *tensor, char out[128])
{
    if (tensor->layer < 0)
        snprintf(out, 128, "%s", names[tensor->role].gguf);
    else
        snprintf(out, 128, "blk.%d.%s.weight", (int)tensor->layer, names[tensor->role].gguf);
}

void model_tensor_hf_name(const model_config *config, const model_tensor *tensor, int64_t mat,
                          char out[128])
{
    const char *name = names[tensor->role].hf;
    int layer = (int)tensor->layer;
    bool mixtral = config->arch == MODEL_MIXTRAL;
    if (layer < 0)
        snprintf(out, 128, "%s", name);
    else if (model_role_is_expert(tensor->role))
        snprintf(out, 128, "model.layers.%d.%s.experts.%lld.%s.weight", layer,
                 mixtral ? "block_sparse_moe" : "mlp", (long long)mat,
                 mixtral ? mixtral_expert(tensor->role) : name);
    else if (mixtral && tensor->role == MODEL_ROUTER)
        snprintf(out, 128, "model.layers.%d.block_sparse_moe.gate.weight", layer);
    else
        snprintf(out, 128, "model.layers.%d.%s.weight", layer, name);
}

uint64_t model_tensor_bytes(const model_tensor *tensor)
{
    return (uint64_t)(tensor->mats * tensor->rows) * tensor_row_bytes(tensor->type, tensor->cols);
}

bool model_role_is_expert(model_role role)
{
    return role == MODEL_EXPERT_GATE || role == MODEL_EXPERT_UP || role == MODEL_EXPERT_DOWN;
}

bool model_role_is_vector(model_role role)
{
    switch (role) {
    case MODEL_OUTPUT_NORM:
    case MODEL_ATTN_NORM:
    case MODEL_ATTN_Q_NORM:
    case MODEL_ATTN_K_NORM:
    case MODEL_FFN_NORM:
        return true;
    default:
        return false;
    }
}

bool model_role_is_float(model_role role)
{
    return role == MODEL_ROUTER || model_role_is_vector(role);
}

/* ---- the list ------------------------------------------------------------------------------- */

typedef struct list {
    model_tensor *out;
    size_t n, capacity;
    int32_t layer;
} list;

static void add(list *l, model_role role, int64_t mats, int64_t rows, int64_t cols)
{
    if (l->n < l->capacity)
        l->out[l->n] = (model_tensor){role, l->layer, TENSOR_F32, mats, rows, cols};
    l->n++;
}

static void add_layer(list *l, const model_config *c, int32_t layer)
{
    int64_t q = (int64_t)c->n_heads * c->head_dim, kv = (int64_t)c->n_kv_heads * c->head_dim;
    l->layer = layer;
    add(l, MODEL_ATTN_NORM, 1, 1, c->n_embd);
    add(l, MODEL_ATTN_Q, 1, q, c->n_embd);
    add(l, MODEL_ATTN_K, 1, kv, c->n_embd);
    add(l, MODEL_ATTN_V, 1, kv, c->n_embd);
    if (c->qk_norm) {
        add(l, MODEL_ATTN_Q_NORM, 1, 1, c->head_dim);
        add(l, MODEL_ATTN_K_NORM, 1, 1, c->head_dim);
    }
    add(l, MODEL_ATTN_OUT, 1, c->n_embd, q);
    add(l, MODEL_FFN_NORM, 1, 1, c->n_embd);
    if (c->layer_sparse[layer]) {
        add(l, MODEL_ROUTER, 1, c->n_experts, c->n_embd);
        add(l, MODEL_EXPERT_GATE, c->n_experts, c->expert_dim, c->n_embd);
        add(l, MODEL_EXPERT_UP, c->n_experts, c->expert_dim, c->n_embd);
        add(l, MODEL_EXPERT_DOWN, c->n_experts, c->n_embd, c->expert_dim);
    } else {
        add(l, MODEL_FFN_GATE, 1, c->ffn_dim, c->n_embd);
        add(l, MODEL_FFN_UP, 1, c->ffn_dim, c->n_embd);
        add(l, MODEL_FFN_DOWN, 1, c->n_embd, c->ffn_dim);
    }
}

size_t model_config_tensors(const model_config *config, model_tensor *out, size_t capacity)
{
    list l = {out, 0, capacity, -1};
    add(&l, MODEL_TOKEN_EMBD, 1, config->n_vocab, config->n_embd);
    for (int32_t i = 0; i < config->n_layers; i++)
        add_layer(&l, config, i);
    l.layer = -1;
    add(&l, MODEL_OUTPUT_NORM, 1, 1, config->n_embd);
    if (!config->tied)
        add(&l, MODEL_OUTPUT, 1, config->n_vocab, config->n_embd);
    return l.n;
}
