#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "model/config_internal.h"

static const struct {
    const char *name, *hf, *hf_type;
} archs[] = {
    [MODEL_LLAMA] = {"llama", "LlamaForCausalLM", "llama"},
    [MODEL_MIXTRAL] = {"mixtral", "MixtralForCausalLM", "mixtral"},
    [MODEL_QWEN3] = {"qwen3", "Qwen3ForCausalLM", "qwen3"},
    [MODEL_QWEN3MOE] = {"qwen3moe", "Qwen3MoeForCausalLM", "qwen3_moe"},
};

const char *model_arch_name(model_arch arch)
{
    return archs[arch].name;
}

const char *model_arch_hf_name(model_arch arch)
{
    return archs[arch].hf;
}

const char *model_arch_hf_type(model_arch arch)
{
    return archs[arch].hf_type;
}

const char *model_rope_scaling_name(model_rope_scaling scaling)
{
    static const char *const names[] = {
        [MODEL_ROPE_NONE] = "default",
        [MODEL_ROPE_LINEAR] = "linear",
        [MODEL_ROPE_YARN] = "yarn",
        [MODEL_ROPE_LLAMA3] = "llama3",
    };
    return names[scaling];
}

void model_config_init(model_config *config)
{
    memset(config, 0, sizeof *config);
    config->rms_eps = 1e-6;
    config->rope.theta = 10000;
    config->rope.factor = 1;
    config->rope.beta_fast = 32;
    config->rope.beta_slow = 1;
    config->rope.low_freq_factor = 1;
    config->rope.high_freq_factor = 4;
    config->bos = -1;
    config->pad = -1;
    config->temperature = 1;
    config->top_p = 1;
    config->repetition_penalty = 1;
}

/* ---- checks -------------------------------------------------------------------------------- */

typedef struct range {
    const char *name;
    int64_t value, low, high;
} range;

static marco_status check_ranges(const range *ranges, size_t n, const char *file,
                                 marco_error *error)
{
    for (size_t i = 0; i < n; i++) {
        const range *r = &ranges[i];
        if (r->value < r->low || r->value > r->high)
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: %s is %lld, outside the supported %lld to %lld", file, r->name,
                             (long long)r->value, (long long)r->low, (long long)r->high);
    }
    return MARCO_OK;
}

typedef struct positive {
    const char *name;
    double value, high;
} positive;

/* Written so that NaN fails. */
static marco_status check_positive(const positive *values, size_t n, const char *file,
                                   marco_error *error)
{
    for (size_t i = 0; i < n; i++) {
        const positive *p = &values[i];
        if (!(p->value > 0 && p->value <= p->high))
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: %s is %g, but must be above 0 and at most %g", file, p->name,
                             p->value, p->high);
    }
    return MARCO_OK;
}

static marco_status check_rope(const model_rope *rope, int32_t head_dim, const char *file,
                               marco_error *error)
{
    const positive values[] = {
        {"the RoPE base (theta)", rope->theta, 1e30},
        {"the RoPE scaling factor", rope->factor, 1e9},
    };
    marco_status status = check_positive(values, 2, file, error);
    if (status)
        return status;
    if (head_dim % 2 != 0)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "%s: RoPE needs an even head dimension, not %d", file, (int)head_dim);
    if (rope->scaling == MODEL_ROPE_YARN || rope->scaling == MODEL_ROPE_LLAMA3) {
        const positive context = {"the RoPE original context", rope->original_context, 1e9};
        status = check_positive(&context, 1, file, error);
        if (status)
            return status;
    }
    if (rope->scaling == MODEL_ROPE_YARN) {
        const positive yarn[] = {
            {"YaRN's beta_fast", rope->beta_fast, 1e6},
            {"YaRN's beta_slow", rope->beta_slow, 1e6},
        };
        status = check_positive(yarn, 2, file, error);
        if (!status &&
            !(rope->theta > 1 && rope->attention_factor >= 0 && rope->attention_factor <= 1e6))
            status = base_fail(error, MARCO_ERROR_FORMAT,
                               "%s: YaRN needs a theta above 1 (is %g) and an attention factor of "
                               "0 to 1e6 (is %g)",
                               file, rope->theta, rope->attention_factor);
        return status;
    }
    if (rope->scaling == MODEL_ROPE_LLAMA3 &&
        !(rope->low_freq_factor > 0 && rope->high_freq_factor > rope->low_freq_factor &&
          rope->high_freq_factor <= 1e6))
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: llama3 RoPE scaling needs 0 < low_freq_factor < high_freq_factor, "
                         "not %g and %g",
                         file, rope->low_freq_factor, rope->high_freq_factor);
    return MARCO_OK;
}

static marco_status check_layers(const model_config *config, const char *file, marco_error *error)
{
    int32_t sparse = 0;
    for (int32_t i = 0; i < config->n_layers; i++)
        sparse += config->layer_sparse[i];
    bool moe = config->arch == MODEL_QWEN3MOE || config->arch == MODEL_MIXTRAL;
    if ((!moe && config->n_experts > 0) || (!moe && sparse > 0))
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: %s has no experts, but %d are given", file,
                         model_arch_hf_name(config->arch), (int)config->n_experts);
    if (config->arch == MODEL_MIXTRAL && (sparse < config->n_layers || !config->norm_topk_prob))
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "%s: MixtralForCausalLM means experts in every layer and renormalised "
                         "weights",
                         file);
    const range ranges[] = {
        {"the number of experts", config->n_experts, sparse > 0 ? 1 : 0, MODEL_MAX_EXPERTS},
        {"the number of experts per token", config->n_experts_used, sparse > 0 ? 1 : 0,
         config->n_experts},
        {"the experts' intermediate size", config->expert_dim, sparse > 0 ? 1 : 0, 1 << 24},
        {"the intermediate size", config->ffn_dim, sparse < config->n_layers ? 1 : 0, 1 << 24},
    };
    return check_ranges(ranges, sizeof ranges / sizeof *ranges, file, error);
}

static marco_status check_generation(const model_config *config, const char *file,
                                     marco_error *error)
{
    int64_t last = (int64_t)config->n_vocab - 1;
    const range ranges[] = {
        {"the number of end-of-sequence ids", config->n_eos, 0, MODEL_MAX_EOS},
        {"the beginning-of-sequence id", config->bos, -1, last},
        {"top_k", config->top_k, 0, INT32_MAX},
    };
    marco_status status = check_ranges(ranges, sizeof ranges / sizeof *ranges, file, error);
    for (int32_t i = 0; !status && i < config->n_eos; i++) {
        const range eos = {"an end-of-sequence id", config->eos[i], 0, last};
        status = check_ranges(&eos, 1, file, error);
    }
    if (status)
        return status;
    const positive values[] = {
        {"temperature", config->temperature, 100},
        {"top_p", config->top_p, 1},
        {"repetition_penalty", config->repetition_penalty, 1e3},
    };
    status = check_positive(values, sizeof values / sizeof *values, file, error);
    if (!status && !(config->min_p >= 0 && config->min_p < 1))
        status = base_fail(error, MARCO_ERROR_FORMAT, "%s: min_p is %g, outside [0, 1)", file,
                           config->min_p);
    return status;
}

marco_status model_config_check(const model_config *config, const char *file, marco_error *error)
{
    const range ranges[] = {
        {"the number of layers", config->n_layers, 1, MODEL_MAX_LAYERS},
        {"the hidden size", config->n_embd, 1, 1 << 20},
        {"the number of attention heads", config->n_heads, 1, 1 << 14},
        {"the number of key/value heads", config->n_kv_heads, 1, config->n_heads},
        {"the head dimension", config->head_dim, 2, 1 << 14},
        {"the vocabulary's size", config->n_vocab, 1, 1 << 26},
        {"the context length", config->n_ctx_train, 1, 1 << 30},
    };
    marco_status status = check_ranges(ranges, sizeof ranges / sizeof *ranges, file, error);
    if (status)
        return status;
    if (config->n_heads % config->n_kv_heads != 0)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: %d attention heads cannot share %d key/value heads evenly", file,
                         (int)config->n_heads, (int)config->n_kv_heads);
    bool qwen = config->arch == MODEL_QWEN3 || config->arch == MODEL_QWEN3MOE;
    if (config->qk_norm != qwen)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED, "%s: %s always comes with%s QK-norm", file,
                         model_arch_hf_name(config->arch), qwen ? "" : "out");
    const positive eps = {"the RMSNorm epsilon", config->rms_eps, 1};
    status = check_positive(&eps, 1, file, error);
    if (!status)
        status = check_rope(&config->rope, config->head_dim, file, error);
    if (!status)
        status = check_layers(config, file, error);
    if (!status && model_config_total_params(config) > MODEL_MAX_PARAMS)
        status = base_fail(error, MARCO_ERROR_FORMAT,
                           "%s: %d layers of these sizes have more than 2^50 parameters", file,
                           (int)config->n_layers);
    return status ? status : check_generation(config, file, error);
}

/* ---- parameters ---------------------------------------------------------------------------- */

/* Counts on to the end of the layer that passes MODEL_MAX_PARAMS: what model_config_check allows of
 * one layer is below 2^59. */
static int64_t count_params(const model_config *config, int64_t experts)
{
    int64_t d = config->n_embd, q = (int64_t)config->n_heads * config->head_dim;
    int64_t kv = (int64_t)config->n_kv_heads * config->head_dim;
    int64_t total = (int64_t)config->n_vocab * d * (config->tied ? 1 : 2) + d;
    for (int32_t i = 0; i < config->n_layers && total <= MODEL_MAX_PARAMS; i++) {
        total += 2 * d + 2 * d * q + 2 * d * kv;
        if (config->qk_norm)
            total += 2 * (int64_t)config->head_dim;
        if (config->layer_sparse[i])
            total += d * config->n_experts + experts * 3 * d * config->expert_dim;
        else
            total += 3 * d * config->ffn_dim;
    }
    return total;
}

int64_t model_config_total_params(const model_config *config)
{
    return count_params(config, config->n_experts);
}

int64_t model_config_active_params(const model_config *config)
{
    return count_params(config, config->n_experts_used);
}

/* ---- text ------------------------------------------------------------------------ */

void model_config_text(const char *text, size_t n, char *out, size_t size)
{
    size_t at = 0;
    while (n > 0) {
        uint32_t cp = '?';
        size_t used = base_utf8_decode(text, n, &cp);
        size_t step = used > 0 ? used : 1;
        if (at + step >= size)
            break;
        if (used > 1)
            memcpy(out + at, text, used);
        else
            out[at] = cp < 0x20 || cp == 0x7f ? ' ' : used ? (char)cp : '?';
        at += step;
        text += step;
        n -= step;
    }
    out[at] = '\0';
}

void model_number_text(double value, char out[32])
{
    base_shortest(value, out);
    /* Readers tell 10000 from 10000.0 and expect the latter, not 1e+04. */
    if (fabs(value) < 1e15 && value == floor(value))
        snprintf(out, 32, "%lld.0", (long long)value);
}

double model_number_of_float(double value)
{
    float narrow = (float)value;
    char text[32];
    if (!isfinite(value) || (double)narrow != value)
        return value;
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        double read = strtod(text, NULL);
        if ((float)read == narrow)
            return read;
    }
    return value;
}
