/* Configurations as GGUF metadata and as config.json with generation_config.json. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "model/config_internal.h"
#include "model/rope.h"

/* ---- GGUF ---------------------------------------------------------------------------------- */

/* GGUF says "llama" for Mixtral too. */
static const char *gguf_arch(const model_config *c)
{
    return c->arch == MODEL_MIXTRAL ? "llama" : model_arch_name(c->arch);
}

static marco_status refuse(const char *what, marco_error *error)
{
    return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                     "GGUF cannot express %s; convert to a Hugging Face folder instead", what);
}

static marco_status check_gguf(const model_config *c, marco_error *error)
{
    char what[160];
    if (c->arch == MODEL_QWEN3MOE) {
        int32_t dense = 0;
        while (dense < c->n_layers && c->layer_sparse[dense])
            dense++;
        if (dense < c->n_layers) {
            snprintf(
                what, sizeof what,
                "dense layers in a qwen3moe model (layer %d has no experts: mlp_only_layers or "
                "decoder_sparse_step)",
                (int)dense);
            return refuse(what, error);
        }
        if (!c->norm_topk_prob)
            return refuse("norm_topk_prob false in a qwen3moe model", error);
    }
    bool llama = c->arch == MODEL_LLAMA || c->arch == MODEL_MIXTRAL;
    if (c->rope.scaling == MODEL_ROPE_LLAMA3 && !llama) {
        snprintf(what, sizeof what, "llama3 RoPE scaling in a %s model", gguf_arch(c));
        return refuse(what, error);
    }
    if (c->rope.scaling == MODEL_ROPE_YARN && (c->rope.beta_fast != 32 || c->rope.beta_slow != 1)) {
        snprintf(what, sizeof what, "YaRN with beta_fast %g and beta_slow %g in a %s model",
                 c->rope.beta_fast, c->rope.beta_slow, gguf_arch(c));
        return refuse(what, error);
    }
    return MARCO_OK;
}

/* llama.cpp's file types, by the type of most matrices. */
static uint32_t file_type(tensor_type type)
{
    static const uint8_t numbers[TENSOR_TYPE_END] = {
        [TENSOR_F32] = 0,     [TENSOR_F16] = 1,     [TENSOR_Q4_0] = 2,  [TENSOR_Q4_1] = 3,
        [TENSOR_Q8_0] = 7,    [TENSOR_Q5_0] = 8,    [TENSOR_Q5_1] = 9,  [TENSOR_Q2_K] = 10,
        [TENSOR_Q3_K] = 12,   [TENSOR_Q4_K] = 15,   [TENSOR_Q5_K] = 17, [TENSOR_Q6_K] = 18,
        [TENSOR_IQ4_NL] = 25, [TENSOR_IQ4_XS] = 30, [TENSOR_BF16] = 32,
    };
    return numbers[type];
}

typedef struct keys {
    gguf_writer *w;
    const char *arch;
} keys;

static void put_int(const keys *k, const char *key, int32_t value)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", k->arch, key);
    gguf_put_u32(k->w, full, (uint32_t)value);
}

static void put_real(const keys *k, const char *key, double value)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", k->arch, key);
    gguf_put_f32(k->w, full, (float)value);
}

static void put_rope(const keys *k, const model_rope *rope)
{
    char full[128];
    put_real(k, "rope.freq_base", rope->theta);
    if (rope->scaling == MODEL_ROPE_LLAMA3) {
        const float values[] = {(float)rope->factor, (float)rope->original_context,
                                (float)rope->low_freq_factor, (float)rope->high_freq_factor};
        gguf_put_array_f32(k->w, "marco.rope.llama3", values, 4);
    }
    if (rope->scaling != MODEL_ROPE_LINEAR && rope->scaling != MODEL_ROPE_YARN)
        return;
    snprintf(full, sizeof full, "%s.rope.scaling.type", k->arch);
    gguf_put_string(k->w, full, model_rope_scaling_name(rope->scaling));
    put_real(k, "rope.scaling.factor", rope->factor);
    if (rope->scaling == MODEL_ROPE_YARN) {
        put_int(k, "rope.scaling.original_context_length", (int32_t)rope->original_context);
        /* llama.cpp multiplies this onto the factor that YaRN derives. */
        if (rope->attention_factor != 0)
            put_real(k, "rope.scaling.attn_factor",
                     rope->attention_factor / model_rope_yarn_attention(rope->factor));
    }
}

static void put_generation(const model_config *c, gguf_writer *w)
{
    if (c->n_eos > 0)
        gguf_put_array_i32(w, "marco.eos_token_ids", c->eos, (size_t)c->n_eos);
    if (c->do_sample) {
        gguf_put_f32(w, "general.sampling.temp", (float)c->temperature);
        gguf_put_u32(w, "general.sampling.top_k", (uint32_t)c->top_k);
        gguf_put_f32(w, "general.sampling.top_p", (float)c->top_p);
        gguf_put_f32(w, "general.sampling.min_p", (float)c->min_p);
    }
    if (c->repetition_penalty != 1)
        gguf_put_f32(w, "general.sampling.penalty_repeat", (float)c->repetition_penalty);
}

marco_status model_config_write_gguf(const model_config *config, tensor_type main_type,
                                     gguf_writer *w, marco_error *error)
{
    marco_status status = check_gguf(config, error);
    if (status)
        return status;
    const keys k = {w, gguf_arch(config)};
    gguf_put_string(w, "general.architecture", k.arch);
    gguf_put_string(w, "general.type", "model");
    if (config->name[0])
        gguf_put_string(w, "general.name", config->name);
    gguf_put_u32(w, "general.file_type", file_type(main_type));
    gguf_put_u32(w, "general.quantization_version", 2);
    if (config->provenance[0])
        gguf_put_string(w, "marco.provenance", config->provenance);
    put_int(&k, "block_count", config->n_layers);
    put_int(&k, "context_length", config->n_ctx_train);
    put_int(&k, "embedding_length", config->n_embd);
    put_int(&k, "vocab_size", config->n_vocab);
    if (config->arch != MODEL_QWEN3MOE)
        put_int(&k, "feed_forward_length",
                config->arch == MODEL_MIXTRAL ? config->expert_dim : config->ffn_dim);
    put_int(&k, "attention.head_count", config->n_heads);
    put_int(&k, "attention.head_count_kv", config->n_kv_heads);
    put_int(&k, "attention.key_length", config->head_dim);
    put_int(&k, "attention.value_length", config->head_dim);
    put_real(&k, "attention.layer_norm_rms_epsilon", config->rms_eps);
    put_int(&k, "rope.dimension_count", config->head_dim);
    put_rope(&k, &config->rope);
    if (config->n_experts > 0) {
        put_int(&k, "expert_count", config->n_experts);
        put_int(&k, "expert_used_count", config->n_experts_used);
        put_int(&k, "expert_feed_forward_length", config->expert_dim);
    }
    put_generation(config, w);
    return MARCO_OK;
}

/* ---- Hugging Face -------------------------------------------------------------------------- */

/* An object being written, a member a line. */
typedef struct object {
    base_text text;
    bool started;
    int indent; /* more, inside another */
} object;

static void member(object *o, const char *key)
{
    base_text_printf(&o->text, "%s%*s\"%s\": ", o->started ? ",\n" : "{\n", o->indent + 2, "", key);
    o->started = true;
}

static void add_int(object *o, const char *key, int64_t value)
{
    member(o, key);
    base_text_printf(&o->text, "%lld", (long long)value);
}

static void add_real(object *o, const char *key, double value)
{
    char number[32];
    model_number_text(value, number);
    member(o, key);
    base_text_add(&o->text, number);
}

static void add_bool(object *o, const char *key, bool value)
{
    member(o, key);
    base_text_add(&o->text, value ? "true" : "false");
}

static void add_string(object *o, const char *key, const char *value)
{
    member(o, key);
    format_json_escape(&o->text, value, strlen(value));
}

static void add_id(object *o, const char *key, int32_t id)
{
    member(o, key);
    if (id >= 0)
        base_text_printf(&o->text, "%d", (int)id);
    else
        base_text_add(&o->text, "null");
}

static void add_eos(object *o, const model_config *c)
{
    if (c->n_eos <= 1) {
        add_id(o, "eos_token_id", c->n_eos ? c->eos[0] : -1);
        return;
    }
    member(o, "eos_token_id");
    for (int32_t i = 0; i < c->n_eos; i++)
        base_text_printf(&o->text, "%s%d", i ? ", " : "[", (int)c->eos[i]);
    base_text_add_char(&o->text, ']');
}

static marco_status write_object(object *o, const char *folder, const char *name,
                                 marco_error *error)
{
    base_text_add(&o->text, "\n}\n");
    if (o->text.failed)
        return base_fail_memory(error, o->text.size, name);
    return base_output_put(folder, name, o->text.data, o->text.size, error);
}

/* Both spellings: "rope_theta" with "rope_scaling" for readers older than transformers 5. */
static void add_rope(object *o, const model_rope *rope, bool old)
{
    member(o, old ? "rope_scaling" : "rope_parameters");
    if (old && rope->scaling == MODEL_ROPE_NONE) {
        base_text_add(&o->text, "null");
        return;
    }
    o->started = false;
    o->indent = 2;
    add_string(o, "rope_type", model_rope_scaling_name(rope->scaling));
    add_real(o, "rope_theta", rope->theta);
    if (rope->scaling != MODEL_ROPE_NONE)
        add_real(o, "factor", rope->factor);
    if (rope->scaling == MODEL_ROPE_YARN || rope->scaling == MODEL_ROPE_LLAMA3)
        add_int(o, "original_max_position_embeddings", (int64_t)rope->original_context);
    if (rope->scaling == MODEL_ROPE_LLAMA3) {
        add_real(o, "low_freq_factor", rope->low_freq_factor);
        add_real(o, "high_freq_factor", rope->high_freq_factor);
    }
    if (rope->scaling == MODEL_ROPE_YARN) {
        add_real(o, "beta_fast", rope->beta_fast);
        add_real(o, "beta_slow", rope->beta_slow);
        if (rope->attention_factor != 0)
            add_real(o, "attention_factor", rope->attention_factor);
    }
    base_text_add(&o->text, "\n  }");
    o->indent = 0;
}

static void add_mlp(object *o, const model_config *c)
{
    if (c->arch == MODEL_LLAMA || c->arch == MODEL_QWEN3) {
        add_int(o, "intermediate_size", c->ffn_dim);
        return;
    }
    if (c->n_experts_used > 0)
        add_int(o, "num_experts_per_tok", c->n_experts_used);
    if (c->arch == MODEL_MIXTRAL) {
        add_int(o, "num_local_experts", c->n_experts);
        add_int(o, "intermediate_size", c->expert_dim);
        return;
    }
    add_int(o, "num_experts", c->n_experts);
    add_bool(o, "norm_topk_prob", c->norm_topk_prob);
    add_int(o, "decoder_sparse_step", 1);
    if (c->expert_dim > 0)
        add_int(o, "moe_intermediate_size", c->expert_dim);
    if (c->ffn_dim > 0)
        add_int(o, "intermediate_size", c->ffn_dim);
    member(o, "mlp_only_layers");
    const char *before = "[";
    for (int32_t i = 0; i < c->n_layers; i++) {
        if (!c->layer_sparse[i]) {
            base_text_printf(&o->text, "%s%d", before, (int)i);
            before = ", ";
        }
    }
    base_text_add(&o->text, *before == '[' ? "[]" : "]");
}

static marco_status write_config(const model_config *c, const char *folder, tensor_type type,
                                 marco_error *error)
{
    object o = {0};
    const char *dtype = type == TENSOR_F32   ? "float32"
                        : type == TENSOR_F16 ? "float16"
                                             : "bfloat16";
    bool qwen = c->arch == MODEL_QWEN3 || c->arch == MODEL_QWEN3MOE;
    member(&o, "architectures");
    base_text_printf(&o.text, "[\"%s\"]", model_arch_hf_name(c->arch));
    add_string(&o, "model_type", model_arch_hf_type(c->arch));
    add_string(&o, "dtype", dtype);
    add_string(&o, "torch_dtype", dtype);
    if (c->provenance[0])
        add_string(&o, "marco_provenance", c->provenance);
    add_int(&o, "vocab_size", c->n_vocab);
    add_int(&o, "hidden_size", c->n_embd);
    add_int(&o, "num_hidden_layers", c->n_layers);
    add_int(&o, "num_attention_heads", c->n_heads);
    add_int(&o, "num_key_value_heads", c->n_kv_heads);
    add_int(&o, "head_dim", c->head_dim);
    add_int(&o, "max_position_embeddings", c->n_ctx_train);
    add_string(&o, "hidden_act", "silu");
    add_real(&o, "rms_norm_eps", c->rms_eps);
    add_mlp(&o, c);
    add_bool(&o, "attention_bias", false);
    if (c->arch == MODEL_LLAMA)
        add_bool(&o, "mlp_bias", false);
    if (qwen)
        add_bool(&o, "use_sliding_window", false);
    if (c->arch != MODEL_LLAMA) {
        member(&o, "sliding_window");
        base_text_add(&o.text, "null");
    }
    add_bool(&o, "tie_word_embeddings", c->tied);
    add_real(&o, "rope_theta", c->rope.theta);
    add_rope(&o, &c->rope, true);
    add_rope(&o, &c->rope, false);
    add_id(&o, "bos_token_id", c->bos);
    add_eos(&o, c);
    add_id(&o, "pad_token_id", c->pad);
    marco_status status = write_object(&o, folder, "config.json", error);
    base_text_free(&o.text);
    return status;
}

static marco_status write_generation(const model_config *c, const char *folder, marco_error *error)
{
    object o = {0};
    add_id(&o, "bos_token_id", c->bos);
    add_eos(&o, c);
    add_id(&o, "pad_token_id", c->pad);
    add_bool(&o, "do_sample", c->do_sample);
    if (c->do_sample) {
        add_real(&o, "temperature", c->temperature);
        add_int(&o, "top_k", c->top_k);
        add_real(&o, "top_p", c->top_p);
        if (c->min_p > 0)
            add_real(&o, "min_p", c->min_p);
    }
    if (c->repetition_penalty != 1)
        add_real(&o, "repetition_penalty", c->repetition_penalty);
    marco_status status = write_object(&o, folder, "generation_config.json", error);
    base_text_free(&o.text);
    return status;
}

marco_status model_config_write_hf(const model_config *config, const char *folder, tensor_type type,
                                   marco_error *error)
{
    marco_status status = write_config(config, folder, type, error);
    return status ? status : write_generation(config, folder, error);
}
