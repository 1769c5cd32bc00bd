/* GGUF metadata, as llama.cpp writes and means it for "llama", "qwen3" and "qwen3moe". Every key
 * under the architecture's name is either understood or refused: they all change the arithmetic. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "model/config_internal.h"
#include "model/rope.h"

typedef struct reader {
    const gguf *g;
    const char *file, *arch;
    marco_error *error;
    marco_status status; /* the first error is kept */
} reader;

typedef struct full_key {
    char text[160];
} full_key;

static full_key key_of(const char *arch, const char *key)
{
    full_key full;
    snprintf(full.text, sizeof full.text, "%s.%s", arch, key);
    return full;
}

/* The i-th element of an array of 32-bit integers. */
static int64_t array_int(const gguf_value *value, uint64_t i)
{
    uint32_t bits;
    memcpy(&bits, (const char *)value->array.data + 4 * i, 4);
    return value->array.type == GGUF_U32 ? (int64_t)bits : (int64_t)(int32_t)bits;
}

/* A number, or one for each layer where all are the same. */
static int32_t get_int(reader *r, const char *key, int64_t low, int64_t high, int64_t absent)
{
    full_key full = key_of(r->arch, key);
    int64_t number = absent;
    if (r->status)
        return 0;
    const gguf_value *value = gguf_get(r->g, full.text);
    if (!value || value->type != GGUF_ARRAY) {
        r->status = gguf_get_int(r->g, full.text, low, high, &number, r->error);
        return (int32_t)number;
    }
    bool good =
        (value->array.type == GGUF_U32 || value->array.type == GGUF_I32) && value->array.n > 0;
    for (uint64_t i = 1; good && i < value->array.n; i++)
        good = array_int(value, i) == array_int(value, 0);
    if (!good) {
        r->status = base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                              "%s: %s differs from layer to layer, which is not supported", r->file,
                              full.text);
        return 0;
    }
    number = array_int(value, 0);
    if (number < low || number > high)
        r->status = base_fail(r->error, MARCO_ERROR_FORMAT,
                              "%s: %s is %lld, outside the allowed %lld to %lld", r->file,
                              full.text, (long long)number, (long long)low, (long long)high);
    return (int32_t)number;
}

static int32_t need_int(reader *r, const char *key, int64_t high)
{
    int32_t value = get_int(r, key, 1, high, 0);
    if (!r->status && value == 0)
        r->status =
            base_fail(r->error, MARCO_ERROR_FORMAT, "%s: %s.%s is missing", r->file, r->arch, key);
    return value;
}

static double get_real(reader *r, const char *key, double low, double high, double absent)
{
    full_key full = key_of(r->arch, key);
    double value = absent;
    if (!r->status)
        r->status = gguf_get_real(r->g, full.text, low, high, &value, r->error);
    return model_number_of_float(value);
}

/* ---- keys that are refused ----------------------------------------------------------------- */

/* What is read below, and what has no meaning for the forward pass. */
static const char *const known_keys[] = {
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "expert_feed_forward_length",
    "expert_count",
    "expert_used_count",
    "expert_gating_func",
    "expert_weights_norm",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.causal",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_attn_factor",
    "tensor_data_layout",
};

/* Zero, false and empty turn a key off. */
static bool is_off(const gguf_value *value)
{
    switch (value->type) {
    case GGUF_STRING:
        return value->string.size == 0;
    case GGUF_ARRAY:
        return value->array.n == 0;
    case GGUF_F32:
    case GGUF_F64:
        return value->f == 0;
    default:
        return value->u == 0;
    }
}

static void check_keys(reader *r)
{
    const gguf_value *value;
    const char *key;
    size_t prefix = strlen(r->arch);
    for (size_t i = 0; !r->status && (key = gguf_key(r->g, i, &value)); i++) {
        if (strncmp(key, r->arch, prefix) != 0 || key[prefix] != '.' || is_off(value))
            continue;
        bool known = false;
        for (size_t k = 0; !known && k < sizeof known_keys / sizeof *known_keys; k++)
            known = strcmp(key + prefix + 1, known_keys[k]) == 0;
        if (!known)
            r->status = base_fail(r->error, MARCO_ERROR_UNSUPPORTED, "%s: %.100s is not supported",
                                  r->file, key);
    }
}

/* ---- reading ------------------------------------------------------------------------------- */

static bool string_is(gguf_string s, const char *text)
{
    return s.size == strlen(text) && memcmp(s.data, text, s.size) == 0;
}

static void read_arch(reader *r, model_config *c)
{
    gguf_string name = {"", 0};
    r->status = gguf_get_string(r->g, "general.architecture", &name, r->error);
    if (r->status)
        return;
    if (string_is(name, "llama")) {
        r->arch = "llama";
        c->arch =
            get_int(r, "expert_count", 0, MODEL_MAX_EXPERTS, 0) > 0 ? MODEL_MIXTRAL : MODEL_LLAMA;
    } else if (string_is(name, "qwen3")) {
        r->arch = "qwen3";
        c->arch = MODEL_QWEN3;
    } else if (string_is(name, "qwen3moe")) {
        r->arch = "qwen3moe";
        c->arch = MODEL_QWEN3MOE;
    } else if (name.size == 0) {
        r->status =
            base_fail(r->error, MARCO_ERROR_FORMAT, "%s: general.architecture is missing", r->file);
    } else {
        r->status = base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                              "%s: architecture \"%.*s\" is not supported (qwen3moe, qwen3 and "
                              "llama are)",
                              r->file, (int)(name.size < 60 ? name.size : 60), name.data);
    }
}

/* Rows of the embedding; the key and the tokenizer may not contradict it. */
static void read_vocab(reader *r, model_config *c)
{
    const gguf_tensor *embedding = gguf_tensor_find(r->g, "token_embd.weight");
    if (!embedding || embedding->n_dims != 2 || embedding->dims[1] < 1 ||
        embedding->dims[1] > 1 << 26) {
        r->status =
            base_fail(r->error, MARCO_ERROR_FORMAT,
                      "%s: token_embd.weight is missing or no matrix of vocabulary rows", r->file);
        return;
    }
    c->n_vocab = (int32_t)embedding->dims[1];
    int32_t given = get_int(r, "vocab_size", 1, 1 << 26, c->n_vocab);
    const gguf_value *tokens = gguf_get(r->g, "tokenizer.ggml.tokens");
    bool array = tokens && tokens->type == GGUF_ARRAY;
    if (!r->status && given != c->n_vocab)
        r->status = base_fail(r->error, MARCO_ERROR_FORMAT,
                              "%s: %s.vocab_size is %d but token_embd.weight has %d rows", r->file,
                              r->arch, (int)given, (int)c->n_vocab);
    else if (!r->status && array && tokens->array.n != (uint64_t)c->n_vocab)
        r->status = base_fail(r->error, MARCO_ERROR_FORMAT,
                              "%s: tokenizer.ggml.tokens has %llu entries but token_embd.weight "
                              "has %d rows",
                              r->file, (unsigned long long)tokens->array.n, (int)c->n_vocab);
}

static void read_shape(reader *r, model_config *c)
{
    c->n_layers = need_int(r, "block_count", MODEL_MAX_LAYERS);
    c->n_embd = need_int(r, "embedding_length", 1 << 20);
    c->n_ctx_train = need_int(r, "context_length", 1 << 30);
    c->n_heads = need_int(r, "attention.head_count", 1 << 14);
    c->n_kv_heads = get_int(r, "attention.head_count_kv", 1, 1 << 14, c->n_heads);
    if (r->status)
        return;
    int32_t absent = c->n_embd / c->n_heads;
    c->head_dim = get_int(r, "attention.key_length", 1, 1 << 14, absent);
    int32_t value = get_int(r, "attention.value_length", 1, 1 << 14, absent);
    int32_t rotated = get_int(r, "rope.dimension_count", 1, 1 << 14, c->head_dim);
    if (!r->status && (value != c->head_dim || rotated != c->head_dim))
        r->status = base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                              "%s: heads whose keys (%d), values (%d) and rotated dimensions (%d) "
                              "differ are not supported",
                              r->file, (int)c->head_dim, (int)value, (int)rotated);
    c->rms_eps = get_real(r, "attention.layer_norm_rms_epsilon", 0, 1, 0);
    c->tied = !gguf_tensor_find(r->g, "output.weight");
    c->qk_norm = c->arch == MODEL_QWEN3 || c->arch == MODEL_QWEN3MOE;
    bool causal = true;
    if (!r->status)
        r->status =
            gguf_get_bool(r->g, key_of(r->arch, "attention.causal").text, &causal, r->error);
    if (!r->status && !causal)
        r->status = base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                              "%s: %s.attention.causal false is not supported", r->file, r->arch);
}

static void read_mlp(reader *r, model_config *c)
{
    if (c->arch == MODEL_LLAMA || c->arch == MODEL_QWEN3) {
        c->ffn_dim = need_int(r, "feed_forward_length", 1 << 24);
        int32_t experts = get_int(r, "expert_count", 0, MODEL_MAX_EXPERTS, 0);
        if (!r->status && experts > 0)
            r->status = base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                                  "%s: %s.expert_count %d is not supported", r->file, r->arch,
                                  (int)experts);
        return;
    }
    c->n_experts = need_int(r, "expert_count", MODEL_MAX_EXPERTS);
    c->n_experts_used = need_int(r, "expert_used_count", MODEL_MAX_EXPERTS);
    bool own = c->arch == MODEL_QWEN3MOE;
    c->expert_dim =
        need_int(r, own ? "expert_feed_forward_length" : "feed_forward_length", 1 << 24);
    c->norm_topk_prob = true; /* no key for it: both architectures renormalise */
    bool renormalise = true;
    if (!r->status)
        r->status = gguf_get_bool(r->g, key_of(r->arch, "expert_weights_norm").text, &renormalise,
                                  r->error);
    int32_t gating = get_int(r, "expert_gating_func", 0, 100, 1); /* 1: softmax */
    if (!r->status && (!renormalise || gating > 1))
        r->status =
            base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                      "%s: %s.%s is not supported: the router must be softmax with "
                      "renormalised weights",
                      r->file, r->arch, renormalise ? "expert_gating_func" : "expert_weights_norm");
    for (int32_t i = 0; !r->status && i < c->n_layers; i++)
        c->layer_sparse[i] = true;
}

/* llama.cpp takes the attention factor that YaRN derives and multiplies it by attn_factor; it has
 * no other betas than 32 and 1 for these architectures. */
static void read_yarn(reader *r, model_config *c)
{
    double base = model_rope_yarn_attention(c->rope.factor);
    c->rope.original_context =
        get_int(r, "rope.scaling.original_context_length", 1, 1 << 30, c->n_ctx_train);
    double extra = get_real(r, "rope.scaling.attn_factor", 1e-6, 1e6, 1);
    double whole = get_real(r, "rope.scaling.yarn_attn_factor", 1e-6, 1e6, base);
    double fast = get_real(r, "rope.scaling.yarn_beta_fast", 0, 1e6, 32);
    double slow = get_real(r, "rope.scaling.yarn_beta_slow", 0, 1e6, 1);
    if (!r->status && (fast != 32 || slow != 1 || fabs(whole - base) > 1e-5))
        r->status = base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                              "%s: %s.rope.scaling.yarn_* other than beta_fast 32, beta_slow 1 and "
                              "attn_factor %g are not supported",
                              r->file, r->arch, base);
    if (extra != 1)
        c->rope.attention_factor = model_number_of_float((float)(base * extra));
    double stretched = c->rope.original_context * c->rope.factor;
    if (stretched > c->n_ctx_train && stretched <= 1 << 30)
        c->n_ctx_train = (int32_t)stretched;
}

/* The parameters of Llama 3.1's scaling: those this program wrote, or else the ones that all models
 * of that family share, the factor being that of the lowest frequency. */
static void guess_llama3(reader *r, float last, model_rope *rope)
{
    const gguf_value *list = NULL;
    rope->scaling = MODEL_ROPE_LLAMA3;
    rope->factor = model_number_of_float(last);
    rope->original_context = 8192;
    if (!r->status)
        r->status = gguf_get_array(r->g, "marco.rope.llama3", GGUF_F32, &list, r->error);
    if (!list || list->array.n != 4)
        return;
    float values[4];
    memcpy(values, list->array.data, sizeof values);
    rope->factor = model_number_of_float(values[0]);
    rope->original_context = model_number_of_float(values[1]);
    rope->low_freq_factor = model_number_of_float(values[2]);
    rope->high_freq_factor = model_number_of_float(values[3]);
}

/* llama.cpp has Llama 3.1's scaling as a tensor of factors, not as parameters: those found are
 * right where they make the same tensor again. */
static void read_rope_freqs(reader *r, model_config *c)
{
    const gguf_tensor *tensor = gguf_tensor_find(r->g, "rope_freqs.weight");
    if (!tensor || r->status)
        return;
    int32_t n = c->head_dim / 2;
    bool good = tensor->type == TENSOR_F32 && tensor->n_dims == 1 && tensor->dims[0] == n &&
                c->rope.scaling == MODEL_ROPE_NONE && c->arch != MODEL_QWEN3 &&
                c->arch != MODEL_QWEN3MOE;
    float *factors = good ? base_alloc_array(2 * (size_t)n, sizeof *factors) : NULL;
    if (good && !factors)
        r->status = base_fail_memory(r->error, 2 * (size_t)n * sizeof *factors, "RoPE factors");
    if (factors)
        r->status = base_file_read(gguf_file(r->g), tensor->offset, factors,
                                   (size_t)n * sizeof *factors, r->error);
    if (factors && !r->status) {
        model_rope made = c->rope;
        guess_llama3(r, factors[n - 1], &made);
        model_rope_llama3_factors(&made, c->head_dim, factors + n);
        for (int32_t i = 0; i < n; i++)
            good = good && fabsf(factors[i] - factors[n + i]) <= 1e-4f * fabsf(factors[n + i]);
        if (good && !r->status)
            c->rope = made;
    }
    if (!r->status && !good)
        r->status = base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                              "%s: rope_freqs.weight holds other frequencies than those of "
                              "Llama 3.1, which is not supported",
                              r->file);
    base_free(factors);
}

static void read_rope(reader *r, model_config *c)
{
    gguf_string type = {"", 0};
    c->rope.theta = get_real(r, "rope.freq_base", 1e-6, 1e30, 10000);
    c->rope.factor = get_real(r, "rope.scaling.factor", 0, 1e9, 1);
    if (!r->status)
        r->status =
            gguf_get_string(r->g, key_of(r->arch, "rope.scaling.type").text, &type, r->error);
    if (r->status)
        return;
    bool linear = string_is(type, "linear") || type.size == 0;
    if (c->rope.factor == 0)
        c->rope.factor = 1;
    if (string_is(type, "none") || (linear && c->rope.factor == 1)) {
        c->rope.factor = 1;
    } else if (linear) {
        c->rope.scaling = MODEL_ROPE_LINEAR;
    } else if (string_is(type, "yarn")) {
        c->rope.scaling = MODEL_ROPE_YARN;
        read_yarn(r, c);
    } else {
        r->status = base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                              "%s: %s.rope.scaling.type \"%.*s\" is not supported", r->file,
                              r->arch, (int)(type.size < 60 ? type.size : 60), type.data);
    }
    double extra = get_real(r, "rope.scaling.attn_factor", 1e-6, 1e6, 1);
    if (!r->status && c->rope.scaling != MODEL_ROPE_YARN && extra != 1)
        r->status = base_fail(r->error, MARCO_ERROR_UNSUPPORTED,
                              "%s: %s.rope.scaling.attn_factor %g is only supported with YaRN",
                              r->file, r->arch, extra);
    read_rope_freqs(r, c);
}

/* ---- generation ---------------------------------------------------------------------------- */

static int64_t token_id(reader *r, const char *key, int64_t last)
{
    int64_t id = -1;
    if (!r->status)
        r->status = gguf_get_int(r->g, key, 0, last, &id, r->error);
    return id;
}

static void add_eos(model_config *c, int64_t id)
{
    for (int32_t i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id)
            return;
    if (id >= 0 && c->n_eos < MODEL_MAX_EOS)
        c->eos[c->n_eos++] = (int32_t)id;
}

/* marco.eos_token_ids, written by this program, keeps generation_config's whole list; other files
 * have up to three keys for it. */
static void read_ids(reader *r, model_config *c)
{
    int64_t last = (int64_t)c->n_vocab - 1;
    const gguf_value *list = NULL;
    c->bos = (int32_t)token_id(r, "tokenizer.ggml.bos_token_id", last);
    c->pad = (int32_t)token_id(r, "tokenizer.ggml.padding_token_id", INT32_MAX);
    if (!r->status)
        r->status = gguf_get_array(r->g, "marco.eos_token_ids", GGUF_I32, &list, r->error);
    if (!list) {
        add_eos(c, token_id(r, "tokenizer.ggml.eos_token_id", last));
        add_eos(c, token_id(r, "tokenizer.ggml.eot_token_id", last));
        add_eos(c, token_id(r, "tokenizer.ggml.eom_token_id", last));
        return;
    }
    bool good = list->array.n <= MODEL_MAX_EOS;
    for (uint64_t i = 0; good && i < list->array.n; i++) {
        good = array_int(list, i) >= 0 && array_int(list, i) <= last;
        if (good)
            add_eos(c, array_int(list, i));
    }
    if (!good && !r->status)
        r->status = base_fail(r->error, MARCO_ERROR_FORMAT,
                              "%s: marco.eos_token_ids must be at most %d ids from 0 to %lld",
                              r->file, (int)MODEL_MAX_EOS, (long long)last);
}

static double sampling_real(reader *r, const char *key, double high, double absent)
{
    double value = absent;
    if (!r->status && gguf_get(r->g, key))
        r->status = gguf_get_real(r->g, key, 0, high, &value, r->error);
    return model_number_of_float(value);
}

/* A file that names any of these asks for sampling; temperature 0 asks for none. */
static void read_sampling(reader *r, model_config *c)
{
    int64_t top_k = 0;
    c->repetition_penalty = sampling_real(r, "general.sampling.penalty_repeat", 1e6, 1);
    c->do_sample =
        gguf_get(r->g, "general.sampling.temp") || gguf_get(r->g, "general.sampling.top_k") ||
        gguf_get(r->g, "general.sampling.top_p") || gguf_get(r->g, "general.sampling.min_p");
    double temperature = sampling_real(r, "general.sampling.temp", 1e6, 1);
    double top_p = sampling_real(r, "general.sampling.top_p", 1, 1);
    double min_p = sampling_real(r, "general.sampling.min_p", 1, 0);
    if (!r->status)
        r->status =
            gguf_get_int(r->g, "general.sampling.top_k", INT32_MIN, INT32_MAX, &top_k, r->error);
    if (r->status || temperature == 0)
        c->do_sample = false;
    if (!c->do_sample)
        return;
    c->temperature = temperature;
    c->top_p = top_p;
    c->min_p = min_p;
    c->top_k = top_k > 0 ? (int32_t)top_k : 0;
}

static void copy_string(reader *r, const char *key, char *out, size_t size)
{
    gguf_string s = {"", 0};
    if (!r->status)
        r->status = gguf_get_string(r->g, key, &s, r->error);
    model_config_text(s.data, s.size, out, size);
}

marco_status model_config_read_gguf(const gguf *g, model_config *config, marco_error *error)
{
    reader r = {g, gguf_file(g)->path, "", error, MARCO_OK};
    model_config_init(config);
    read_arch(&r, config);
    if (!r.status)
        check_keys(&r);
    if (!r.status)
        read_vocab(&r, config);
    if (!r.status)
        read_shape(&r, config);
    if (!r.status)
        read_mlp(&r, config);
    if (!r.status)
        read_rope(&r, config);
    if (!r.status)
        read_ids(&r, config);
    if (!r.status)
        read_sampling(&r, config);
    copy_string(&r, "general.name", config->name, sizeof config->name);
    copy_string(&r, "marco.provenance", config->provenance, sizeof config->provenance);
    if (!r.status && !config->name[0])
        model_config_text(base_path_name(r.file), strlen(base_path_name(r.file)), config->name,
                          sizeof config->name);
    return r.status ? r.status : model_config_check(config, r.file, error);
}

/* Read above, or about the bytes of the file alone. */
static bool is_used(const char *key, gguf_string arch)
{
    static const char *const used[] = {
        "general.architecture",
        "general.name",
        "general.type",
        "general.file_type",
        "general.quantization_version",
        "general.alignment",
        "general.sampling.temp",
        "general.sampling.top_k",
        "general.sampling.top_p",
        "general.sampling.min_p",
        "general.sampling.penalty_repeat",
        "marco.provenance",
        "marco.eos_token_ids",
        "marco.rope.llama3",
    };
    bool known = strncmp(key, "tokenizer.", 10) == 0 ||
                 (strncmp(key, arch.data, arch.size) == 0 && key[arch.size] == '.');
    for (size_t i = 0; !known && i < sizeof used / sizeof *used; i++)
        known = strcmp(key, used[i]) == 0;
    return known;
}

static gguf_string arch_of(const gguf *g)
{
    gguf_string arch = {"", 0};
    gguf_get_string(g, "general.architecture", &arch, NULL);
    return arch;
}

bool model_config_unused_gguf(const gguf *g, json_t *names)
{
    const gguf_string arch = arch_of(g);
    const gguf_value *value;
    const char *key;
    for (size_t i = 0; (key = gguf_key(g, i, &value)); i++) {
        char clean[160]; /* a key need not be UTF-8 */
        model_config_text(key, strlen(key), clean, sizeof clean);
        if (!is_used(key, arch) && json_array_append_new(names, json_string(clean)) != 0)
            return false;
    }
    return true;
}

void model_config_copy_unused_gguf(const gguf *g, gguf_writer *w)
{
    const gguf_string arch = arch_of(g);
    const gguf_value *value;
    const char *key;
    for (size_t i = 0; (key = gguf_key(g, i, &value)); i++) {
        bool own = strncmp(key, "split.", 6) == 0 || strncmp(key, "quantize.", 9) == 0;
        if (!own && !is_used(key, arch))
            gguf_put_value(w, key, value);
    }
}
