/* config.json and generation_config.json, as transformers means them: an absent key has the value
 * that the architecture's configuration class gives it, and null is absent unless said otherwise.
 * Sizes that decide a tensor's shape have no such value here: they must be there. */
#include <fnmatch.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "model/config_internal.h"

/* Where transformers' classes differ. */
typedef struct arch_defaults {
    double theta, rms_eps;
    int32_t head_dim;   /* 0: hidden size / heads */
    int32_t n_kv_heads; /* 0: as many as heads */
    int32_t n_ctx, experts_used, bos, eos;
} arch_defaults;

static const arch_defaults defaults[] = {
    [MODEL_LLAMA] = {1e4, 1e-6, 0, 0, 2048, 0, 1, 2},
    [MODEL_MIXTRAL] = {1e6, 1e-5, 0, 8, 131072, 2, 1, 2},
    [MODEL_QWEN3] = {1e4, 1e-6, 128, 32, 32768, 0, -1, -1},
    [MODEL_QWEN3MOE] = {1e4, 1e-6, 0, 4, 32768, 8, -1, -1},
};

/* The first error is kept, so that a reader can ask for one key after another. */
typedef struct reader {
    const char *file;
    const json_t *object;
    marco_error *error;
    marco_status status;
} reader;

static int32_t get_int(reader *r, const char *key, int64_t low, int64_t high, int64_t absent)
{
    int64_t value = absent;
    if (!r->status)
        r->status = format_json_int(r->file, r->object, key, low, high, &value, r->error);
    return (int32_t)value;
}

static int32_t need_int(reader *r, const char *key, int64_t high)
{
    int32_t value = get_int(r, key, 1, high, 0);
    if (!r->status && value == 0)
        r->status = base_fail(r->error, MARCO_ERROR_FORMAT, "%s: \"%s\" is missing", r->file, key);
    return value;
}

static double get_real(reader *r, const char *key, double low, double high, double absent)
{
    double value = absent;
    if (!r->status)
        r->status = format_json_real(r->file, r->object, key, low, high, &value, r->error);
    return value;
}

static bool get_bool(reader *r, const char *key, bool absent)
{
    bool value = absent;
    if (!r->status)
        r->status = format_json_bool(r->file, r->object, key, &value, r->error);
    return value;
}

static void refuse(reader *r, const char *key, const char *why)
{
    if (r->status)
        return;
    char text[80];
    const json_t *value = json_object_get(r->object, key);
    size_t n = json_dumpb(value, text, sizeof text - 1, JSON_ENCODE_ANY | JSON_COMPACT);
    text[n < sizeof text ? n : 0] = '\0';
    r->status =
        base_fail(r->error, MARCO_ERROR_UNSUPPORTED, "%s: \"%.100s\"%s%s is not supported%s",
                  r->file, key, *text ? " " : "", text, why);
}

/* ---- the architecture ------------------------------------------------------------------------ */

static bool find_arch(const char *text, bool hf_class, model_arch *out)
{
    for (model_arch arch = MODEL_LLAMA; arch <= MODEL_QWEN3MOE; arch++) {
        const char *name = hf_class ? model_arch_hf_name(arch) : model_arch_hf_type(arch);
        if (strcmp(text, name) == 0) {
            *out = arch;
            return true;
        }
    }
    return false;
}

static void read_arch(reader *r, model_arch *out)
{
    static const char known[] = "; marco runs Qwen3MoeForCausalLM, Qwen3ForCausalLM, "
                                "LlamaForCausalLM and MixtralForCausalLM";
    const char *type = NULL, *hf_class = NULL;
    r->status = format_json_string(r->file, r->object, "model_type", &type, r->error);
    if (r->status)
        return;
    const json_t *list = json_object_get(r->object, "architectures");
    if (json_is_array(list) && json_array_size(list) == 1)
        hf_class = json_string_value(json_array_get(list, 0));
    if (list && !json_is_null(list) && !hf_class) {
        refuse(r, "architectures", known);
        return;
    }
    if (!hf_class && !type) {
        r->status = base_fail(r->error, MARCO_ERROR_FORMAT,
                              "%s: neither \"architectures\" nor \"model_type\" says what model "
                              "this is",
                              r->file);
        return;
    }
    model_arch by_class = MODEL_LLAMA, by_type = MODEL_LLAMA;
    if (hf_class && !find_arch(hf_class, true, &by_class))
        refuse(r, "architectures", known);
    if (type && !find_arch(type, false, &by_type))
        refuse(r, "model_type", known);
    if (!r->status && hf_class && type && by_class != by_type)
        r->status = base_fail(r->error, MARCO_ERROR_FORMAT,
                              "%s: \"architectures\" says %s but \"model_type\" says %s", r->file,
                              hf_class, type);
    *out = hf_class ? by_class : by_type;
}

/* ---- what is refused ------------------------------------------------------------------------- */

/* Keys that change a model's arithmetic and that this program does not implement, with the one
 * value that leaves it unchanged (null always does). Whole families by pattern: most were seen in
 * the configurations of relatives of the four architectures. The first that matches counts. */
enum { AS_CLASS = -1 }; /* 1 in Qwen3's classes, which have QK-norm, 0 in the others */

static const struct {
    const char *pattern;
    double neutral; /* false is 0, true is 1 */
} unsupported[] = {
    /* attention */
    {"use_qk_norm", AS_CLASS},
    {"qk_norm", AS_CLASS},
    {"*qk_layernorm", AS_CLASS},
    {"*attn_output_gate", 0},
    {"*attention_output_gate", 0},
    {"gated_attention", 0},
    {"*attention_sink*", 0},
    {"attention_chunk_size", 0},
    {"query_pre_attn_scalar", 0},
    {"attn_temperature_tuning", 0},
    {"use_logn_attn", 0},
    {"clip_qkv", 0},
    {"*_lora_rank", 0},
    {"full_attention_interval", 1},
    {"add_cross_attention", 0},
    {"is_encoder_decoder", 0},
    /* positions */
    {"alibi", 0},
    {"partial_rotary_factor", 1},
    {"rotary_pct", 1},
    {"rope_interleave*", 0},
    {"rope_local_base_freq", 0},
    {"swa_rope_theta", 0},
    {"use_dynamic_ntk", 0},
    {"no_rope_layer_interval", 0},
    {"no_rope_layers", 1}, /* a list that holds 1 where a layer has RoPE */
    /* biases, norms and the order of things in a layer */
    {"no_bias", 1},
    {"*_bias", 0},
    {"add_bias*", 0},
    {"*sandwich_norm", 0},
    {"*post_norm", 0},
    {"norm_after*", 0},
    {"*layernorm_1p", 0},
    {"apply_residual_connection_post_layernorm", 0},
    {"*parallel_residual", 0},
    {"*parallel_block", 0},
    {"parallel_attn", 0},
    /* factors and caps */
    {"*_multiplier", 1},
    {"*_multipliers", 1},
    {"*residual_scale", 1},
    {"*logit_scale", 1},
    {"*logits_scal*", 1},
    {"scale_emb*", 1},
    {"embedding_scale", 1},
    {"scale_depth", 0},
    {"dim_model_base", 0},
    {"*softcap*", 0},
    {"*soft_cap*", 0},
    {"*logit_cap", 0},
    {"swiglu_limit", 0},
    {"mup*", 0},
    {"use_mup*", 0},
    /* mixtures */
    {"*shared_expert*", 0},
    {"*group_limited*", 0},
    {"n_group", 1},
    {"topk_group", 1},
    {"*routed_scaling_factor", 1},
    {"*router_*scaling_factor", 1},
    {"route_scale", 1},
    {"router_sigmoid", 0},
    {"apply_router_weight_on_input", 0},
    {"first_k_dense_replace", 0},
    {"moe_layer_freq", 1}, /* every how many layers, or a list of 1s */
    {"interleave_moe_layer_step", 1},
    {"zero_expert_num", 0},
    {"num_zero_experts", 0},
    /* further heads */
    {"num_nextn_predict_layers", 0},
    {"use_mtp", 0},
};

/* What a key of text must say, where it is there. */
static const struct {
    const char *key, *words[2], *why;
} wanted[] = {
    {"hidden_act", {"silu", "swish"}, "; the activation must be silu"},
    {"hidden_activation", {"silu", "swish"}, "; the activation must be silu"},
    {"scoring_func", {"softmax", "softmax"}, "; the router must be softmax"},
    {"score_func", {"softmax", "softmax"}, "; the router must be softmax"},
    {"score_function", {"softmax", "softmax"}, "; the router must be softmax"},
    {"moe_router_activation_func", {"softmax", "softmax"}, "; the router must be softmax"},
    {"topk_method", {"greedy", "greedy"}, "; the router must take the best of all experts"},
    {"position_embedding_type", {"rope", "rope"}, "; positions must be RoPE"},
};

/* The index in `unsupported`, -1 where the key is not one of them. */
static int find_unsupported(const char *key)
{
    static const char *const harmless[] = {
        "ffn_dim_multiplier", /* intermediate_size says what came of it */
    };
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (strcmp(key, harmless[i]) == 0)
            return -1;
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
        if (fnmatch(unsupported[i].pattern, key, 0) == 0)
            return (int)i;
    return -1;
}

/* Null, the harmless value, or a list of nothing else. Other kinds are not harmless. */
static bool is_neutral(const json_t *value, double neutral)
{
    if (!value || json_is_null(value))
        return true;
    if (json_is_boolean(value))
        return (json_is_true(value) ? 1.0 : 0.0) == neutral;
    if (json_is_number(value))
        return json_number_value(value) == neutral;
    bool all = json_is_array(value);
    for (size_t i = 0; all && i < json_array_size(value); i++) {
        const json_t *entry = json_array_get(value, i);
        all = !json_is_array(entry) && is_neutral(entry, neutral);
    }
    return all;
}

static void check_text(reader *r, const char *key, const char *const words[2], const char *why)
{
    const char *text = NULL;
    if (!r->status)
        r->status = format_json_string(r->file, r->object, key, &text, r->error);
    if (!r->status && text && strcmp(text, words[0]) != 0 && strcmp(text, words[1]) != 0)
        refuse(r, key, why);
}

static void check_unsupported(reader *r, model_arch arch)
{
    bool qwen = arch == MODEL_QWEN3 || arch == MODEL_QWEN3MOE;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)r->object, key, value)
    {
        int i = find_unsupported(key);
        double neutral = i < 0 ? 0 : unsupported[i].neutral;
        if (neutral == AS_CLASS)
            neutral = qwen ? 1 : 0;
        if (i >= 0 && !is_neutral(value, neutral))
            refuse(r, key, "");
    }
    const json_t *quantization = json_object_get(r->object, "quantization_config");
    if (quantization && !json_is_null(quantization))
        refuse(r, "quantization_config",
               "; convert from the unquantised checkpoint or a GGUF file");
    static const char *const objects[] = {"text_config", "per_layer_config", "layer_config"};
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++)
        if (!is_neutral(json_object_get(r->object, objects[i]), 0))
            refuse(r, objects[i], "");
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        check_text(r, wanted[i].key, wanted[i].words, wanted[i].why);
}

/* Every layer must see the whole context. */
static void check_window(reader *r, const model_config *config)
{
    const json_t *types = json_object_get(r->object, "layer_types");
    if (types && !json_is_null(types)) {
        if (!json_is_array(types) || json_array_size(types) != (size_t)config->n_layers) {
            r->status = base_fail(r->error, MARCO_ERROR_FORMAT,
                                  "%s: \"layer_types\" must name each of the %d layers", r->file,
                                  (int)config->n_layers);
            return;
        }
        for (size_t i = 0; i < json_array_size(types); i++) {
            const char *type = json_string_value(json_array_get(types, i));
            if (!type || strcmp(type, "full_attention") != 0) {
                refuse(r, "layer_types", "; every layer must be full_attention");
                return;
            }
        }
    }
    bool qwen = config->arch == MODEL_QWEN3 || config->arch == MODEL_QWEN3MOE;
    int32_t window = get_int(r, "sliding_window", 0, INT32_MAX, 0);
    const json_t *given = json_object_get(r->object, "sliding_window");
    if (qwen) {
        if (!get_bool(r, "use_sliding_window", false) || json_is_null(given))
            return;
        if (!given)
            window = 4096;
        /* Qwen3's class slides from this layer on; the mixture's class in all of them. */
        int32_t first = get_int(r, "max_window_layers", 0, INT32_MAX, 28);
        if (config->arch == MODEL_QWEN3 && (first >= config->n_layers || json_is_array(types)))
            return;
    } else if (!given || json_is_null(given)) {
        return;
    }
    if (!r->status && window < config->n_ctx_train)
        refuse(r, given ? "sliding_window" : "use_sliding_window",
               "; every layer must attend to the whole context");
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static void read_shape(reader *r, model_config *c)
{
    const arch_defaults *d = &defaults[c->arch];
    c->n_vocab = need_int(r, "vocab_size", 1 << 26);
    c->n_embd = need_int(r, "hidden_size", 1 << 20);
    c->n_layers = need_int(r, "num_hidden_layers", MODEL_MAX_LAYERS);
    c->n_heads = need_int(r, "num_attention_heads", 1 << 14);
    c->n_ctx_train = get_int(r, "max_position_embeddings", 1, 1 << 30, d->n_ctx);
    /* Here null is not absent: it means as many as heads. */
    bool as_heads =
        d->n_kv_heads == 0 || json_is_null(json_object_get(r->object, "num_key_value_heads"));
    c->n_kv_heads =
        get_int(r, "num_key_value_heads", 1, 1 << 14, as_heads ? c->n_heads : d->n_kv_heads);
    if (r->status)
        return;
    int32_t head_dim = d->head_dim ? d->head_dim : c->n_embd / c->n_heads;
    c->head_dim = get_int(r, "head_dim", 1, 1 << 14, head_dim);
    c->rms_eps = get_real(r, "rms_norm_eps", 0, 1, d->rms_eps);
    c->tied = get_bool(r, "tie_word_embeddings", false);
    c->qk_norm = c->arch == MODEL_QWEN3 || c->arch == MODEL_QWEN3MOE;
}

static int32_t read_expert_count(reader *r)
{
    int32_t count = get_int(r, "num_experts", 0, MODEL_MAX_EXPERTS, -1);
    int32_t local = get_int(r, "num_local_experts", 0, MODEL_MAX_EXPERTS, -1);
    if (r->status)
        return 0;
    if (count >= 0 && local >= 0 && count != local)
        r->status = base_fail(r->error, MARCO_ERROR_FORMAT,
                              "%s: \"num_experts\" is %d but \"num_local_experts\" is %d", r->file,
                              (int)count, (int)local);
    else if (count < 0 && local < 0)
        r->status =
            base_fail(r->error, MARCO_ERROR_FORMAT, "%s: \"num_experts\" is missing", r->file);
    return count >= 0 ? count : local;
}

/* Which layers of a Qwen3MoE have experts. */
static void read_sparse_layers(reader *r, model_config *c)
{
    int32_t step = get_int(r, "decoder_sparse_step", 1, INT32_MAX, 1);
    for (int32_t i = 0; i < c->n_layers; i++)
        c->layer_sparse[i] = c->n_experts > 0 && (i + 1) % step == 0;
    const json_t *dense = json_object_get(r->object, "mlp_only_layers");
    if (r->status || !dense || json_is_null(dense))
        return;
    size_t n = json_array_size(dense); /* 0 for what is no array */
    bool good = json_is_array(dense);
    for (size_t i = 0; good && i < n; i++) {
        const json_t *entry = json_array_get(dense, i);
        json_int_t layer = json_is_integer(entry) ? json_integer_value(entry) : -1;
        good = layer >= 0 && layer < c->n_layers;
        if (good)
            c->layer_sparse[layer] = false;
    }
    if (!good)
        r->status = base_fail(r->error, MARCO_ERROR_FORMAT,
                              "%s: \"mlp_only_layers\" must be a list of layers, 0 to %d", r->file,
                              (int)c->n_layers - 1);
}

static void read_mlp(reader *r, model_config *c)
{
    const arch_defaults *d = &defaults[c->arch];
    if (c->arch == MODEL_LLAMA || c->arch == MODEL_QWEN3) {
        c->ffn_dim = need_int(r, "intermediate_size", 1 << 24);
        return;
    }
    c->n_experts = read_expert_count(r);
    c->n_experts_used = get_int(r, "num_experts_per_tok", 1, MODEL_MAX_EXPERTS, d->experts_used);
    if (c->arch == MODEL_MIXTRAL) {
        c->expert_dim = need_int(r, "intermediate_size", 1 << 24);
        c->norm_topk_prob = get_bool(r, "norm_topk_prob", true);
        if (!c->norm_topk_prob)
            refuse(r, "norm_topk_prob", "; MixtralForCausalLM always renormalises");
        for (int32_t i = 0; i < c->n_layers; i++)
            c->layer_sparse[i] = true;
        return;
    }
    c->norm_topk_prob = get_bool(r, "norm_topk_prob", false);
    if (r->status)
        return;
    read_sparse_layers(r, c);
    int32_t sparse = 0;
    for (int32_t i = 0; i < c->n_layers; i++)
        sparse += c->layer_sparse[i];
    if (sparse > 0)
        c->expert_dim = need_int(r, "moe_intermediate_size", 1 << 24);
    else
        c->n_experts = c->n_experts_used = 0;
    if (sparse < c->n_layers)
        c->ffn_dim = need_int(r, "intermediate_size", 1 << 24);
}

/* ---- generation ------------------------------------------------------------------------------ */

/* An id, a list of ids, or null. False where the key is absent or null. */
static bool read_eos(reader *r, model_config *c)
{
    const json_t *value = r->object ? json_object_get(r->object, "eos_token_id") : NULL;
    if (r->status || !value || json_is_null(value))
        return false;
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    if (n > MODEL_MAX_EOS) {
        r->status = base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                              "%s: \"eos_token_id\" lists %zu ids; at most %d are supported",
                              r->file, n, (int)MODEL_MAX_EOS);
        return false;
    }
    c->n_eos = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(value) ? json_array_get(value, i) : value;
        json_int_t number = json_is_integer(id) ? json_integer_value(id) : -1;
        if (number < 0 || number >= c->n_vocab) {
            r->status = base_fail(r->error, MARCO_ERROR_FORMAT,
                                  "%s: \"eos_token_id\" must be ids from 0 to %d", r->file,
                                  (int)c->n_vocab - 1);
            return false;
        }
        c->eos[c->n_eos++] = (int32_t)number;
    }
    return true;
}

/* The ids: those of generation_config.json where it has them, else those of config.json. */
static void read_ids(reader *config, reader *generation, model_config *c)
{
    const arch_defaults *d = &defaults[c->arch];
    int64_t last = (int64_t)c->n_vocab - 1;
    bool absent = !json_object_get(config->object, "bos_token_id");
    c->bos = get_int(config, "bos_token_id", -1, last, absent && d->bos <= last ? d->bos : -1);
    c->pad = get_int(config, "pad_token_id", -1, INT32_MAX, -1);
    if (!read_eos(config, c) && !json_object_get(config->object, "eos_token_id") && d->eos >= 0 &&
        d->eos <= last)
        c->eos[c->n_eos++] = d->eos;
    if (!generation->object || config->status)
        return;
    c->bos = get_int(generation, "bos_token_id", -1, last, c->bos);
    c->pad = get_int(generation, "pad_token_id", -1, INT32_MAX, c->pad);
    read_eos(generation, c);
}

static void read_sampling(reader *r, model_config *c)
{
    if (!r->object)
        return;
    c->do_sample = get_bool(r, "do_sample", false);
    c->temperature = get_real(r, "temperature", 0, 1e6, 1);
    c->top_k = get_int(r, "top_k", 0, INT32_MAX, 50); /* transformers' own when it samples */
    c->top_p = get_real(r, "top_p", 0, 1, 1);
    c->min_p = get_real(r, "min_p", 0, 1, 0);
    c->repetition_penalty = get_real(r, "repetition_penalty", 0, 1e6, 1);
    if (c->temperature == 0) {
        c->do_sample = false;
        c->temperature = 1;
    }
    /* What greedy decoding never looks at is not kept. */
    if (!c->do_sample) {
        c->temperature = c->top_p = 1;
        c->min_p = 0;
        c->top_k = 0;
    }
}

/* ---- all of it ------------------------------------------------------------------------------- */

static marco_status parse(reader *r, reader *generation, model_config *c)
{
    model_config_init(c);
    if (!json_is_object(r->object))
        return base_fail(r->error, MARCO_ERROR_FORMAT, "%s: not a JSON object", r->file);
    if (generation->object && !json_is_object(generation->object))
        return base_fail(r->error, MARCO_ERROR_FORMAT, "%s: not a JSON object", generation->file);
    read_arch(r, &c->arch);
    if (!r->status)
        check_unsupported(r, c->arch);
    if (!r->status)
        read_shape(r, c);
    if (!r->status)
        read_mlp(r, c);
    if (!r->status)
        check_window(r, c);
    if (!r->status)
        r->status = model_rope_parse_hf(r->file, r->object, c->n_ctx_train, defaults[c->arch].theta,
                                        &c->rope, r->error);
    const char *provenance = NULL;
    if (!r->status)
        r->status =
            format_json_string(r->file, r->object, "marco_provenance", &provenance, r->error);
    if (!r->status)
        read_ids(r, generation, c);
    if (r->status)
        return r->status;
    if (provenance)
        model_config_text(provenance, strlen(provenance), c->provenance, sizeof c->provenance);
    /* YaRN stretches the context it was trained for, whatever max_position_embeddings says. */
    double stretched = c->rope.original_context * c->rope.factor;
    if (c->rope.scaling == MODEL_ROPE_YARN && stretched > c->n_ctx_train && stretched <= 1 << 30)
        c->n_ctx_train = (int32_t)stretched;
    read_sampling(generation, c);
    return generation->status ? generation->status : model_config_check(c, r->file, r->error);
}

marco_status model_config_parse_hf(const char *file, const json_t *config,
                                   const char *generation_file, const json_t *generation,
                                   model_config *out, marco_error *error)
{
    reader r = {file, config, error, MARCO_OK};
    reader g = {generation_file, generation, error, MARCO_OK};
    return parse(&r, &g, out);
}

/* The folder's own name, for people. */
static void name_after_folder(const char *folder, char *out, size_t size)
{
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/')
        n--;
    size_t start = n;
    while (start > 0 && folder[start - 1] != '/')
        start--;
    model_config_text(folder + start, n - start, out, size);
}

marco_status model_config_read_hf(const char *folder, model_config *config, marco_error *error)
{
    json_t *main = NULL, *generation = NULL;
    char *main_path = base_path_join(folder, "config.json");
    char *generation_path = base_path_join(folder, "generation_config.json");
    marco_status status = MARCO_OK;
    if (!main_path || !generation_path)
        status = base_fail_memory(error, strlen(folder), "a path");
    if (!status)
        status = format_json_file(main_path, MODEL_CONFIG_LIMIT, &main, error);
    if (!status && base_exists(generation_path))
        status = format_json_file(generation_path, MODEL_CONFIG_LIMIT, &generation, error);
    if (!status)
        status = model_config_parse_hf(main_path, main, generation_path, generation, config, error);
    if (!status)
        name_after_folder(folder, config->name, sizeof config->name);
    json_decref(generation);
    json_decref(main);
    base_free(generation_path);
    base_free(main_path);
    return status;
}

/* ---- keys that are not used ---------------------------------------------------------------- */

/* Read above, or without meaning for a running model. */
static const char *const known_keys[] = {
    "architectures",
    "model_type",
    "layer_types",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "head_dim",
    "rms_norm_eps",
    "tie_word_embeddings",
    "num_experts",
    "num_local_experts",
    "num_experts_per_tok",
    "decoder_sparse_step",
    "mlp_only_layers",
    "intermediate_size",
    "moe_intermediate_size",
    "norm_topk_prob",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "original_max_position_embeddings",
    "marco_provenance",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "transformers_version",
    "_name_or_path",
    "_from_model_config",
    "use_cache",
    "dtype",
    "torch_dtype",
    "initializer_range",
    "attention_dropout",
    "output_router_logits",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "pretraining_tp",
    "output_attentions",
    "output_hidden_states",
    "quantization_config",
    "text_config",
    "per_layer_config",
    "layer_config",
};

static bool is_known(const char *key)
{
    for (size_t i = 0; i < sizeof known_keys / sizeof *known_keys; i++)
        if (strcmp(key, known_keys[i]) == 0)
            return true;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (strcmp(key, wanted[i].key) == 0)
            return true;
    return find_unsupported(key) >= 0;
}

bool model_config_unused_hf(const json_t *config, const json_t *generation, json_t *names)
{
    const json_t *files[] = {config, generation};
    for (size_t i = 0; i < 2; i++) {
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)files[i], key, value)
        {
            if (!is_known(key) && !json_is_null(value) &&
                json_array_append_new(names, json_string(key)) != 0)
                return false;
        }
    }
    return true;
}
