/* RoPE parameters of config.json, in transformers 5's spelling ("rope_parameters" holding all) and
 * the older one ("rope_theta" beside "rope_scaling"). */
#include <string.h>

#include "base/error.h"
#include "model/config_internal.h"
#include "model/rope.h"

static const char *const allowed_keys[] = {
    "rope_type",
    "type",
    "rope_theta",
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "low_freq_factor",
    "high_freq_factor",
    "partial_rotary_factor",
    "finetuned",
};

/* Anything else in there would change the frequencies in a way that is not implemented. */
static marco_status check_keys(const char *file, const json_t *scaling, marco_error *error)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)scaling, key, value)
    {
        bool allowed = json_is_null(value);
        for (size_t i = 0; !allowed && i < sizeof allowed_keys / sizeof *allowed_keys; i++)
            allowed = strcmp(key, allowed_keys[i]) == 0;
        if (!allowed)
            return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                             "%s: RoPE parameter \"%.100s\" is not supported", file, key);
    }
    double partial = 1;
    marco_status status =
        format_json_real(file, scaling, "partial_rotary_factor", 0, 1, &partial, error);
    if (!status && partial != 1)
        status =
            base_fail(error, MARCO_ERROR_UNSUPPORTED,
                      "%s: \"partial_rotary_factor\" %g is not supported, only 1", file, partial);
    bool truncate = true;
    if (!status)
        status = format_json_bool(file, scaling, "truncate", &truncate, error);
    if (!status && !truncate)
        status = base_fail(error, MARCO_ERROR_UNSUPPORTED,
                           "%s: RoPE parameter \"truncate\" false is not supported", file);
    return status;
}

static marco_status read_type(const char *file, const json_t *scaling, model_rope_scaling *out,
                              marco_error *error)
{
    const char *type = NULL, *old = NULL;
    marco_status status = format_json_string(file, scaling, "rope_type", &type, error);
    if (!status)
        status = format_json_string(file, scaling, "type", &old, error);
    if (status)
        return status;
    if (type && old && strcmp(type, old) != 0)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: RoPE parameter \"rope_type\" is \"%.60s\" but \"type\" is \"%.60s\"",
                         file, type, old);
    if (!type)
        type = old ? old : "default";
    for (model_rope_scaling s = MODEL_ROPE_NONE; s <= MODEL_ROPE_LLAMA3; s++) {
        if (strcmp(type, model_rope_scaling_name(s)) == 0) {
            *out = s;
            return MARCO_OK;
        }
    }
    return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                     "%s: RoPE type \"%.60s\" is not supported (default, linear, yarn and llama3 "
                     "are)",
                     file, type);
}

static marco_status need_real(const char *file, const json_t *scaling, const char *key, double high,
                              double *out, marco_error *error)
{
    double value = 0;
    marco_status status = format_json_real(file, scaling, key, 0, high, &value, error);
    if (!status && value == 0)
        status = base_fail(error, MARCO_ERROR_FORMAT,
                           "%s: RoPE parameter \"%s\" is missing or zero", file, key);
    *out = value;
    return status;
}

/* The attention factor, also where it is given by DeepSeek's pair of mscale numbers. */
static marco_status read_yarn(const char *file, const json_t *scaling, model_rope *rope,
                              marco_error *error)
{
    double fast = 0, slow = 0, scale = 0, scale_all = 0;
    marco_status status = format_json_real(file, scaling, "beta_fast", 0, 1e6, &fast, error);
    if (!status)
        status = format_json_real(file, scaling, "beta_slow", 0, 1e6, &slow, error);
    if (!status)
        status = format_json_real(file, scaling, "attention_factor", 1e-6, 1e6,
                                  &rope->attention_factor, error);
    if (!status)
        status = format_json_real(file, scaling, "mscale", 0, 1e6, &scale, error);
    if (!status)
        status = format_json_real(file, scaling, "mscale_all_dim", 0, 1e6, &scale_all, error);
    if (status)
        return status;
    if (fast != 0)
        rope->beta_fast = fast;
    if (slow != 0)
        rope->beta_slow = slow;
    if (rope->attention_factor == 0 && scale != 0 && scale_all != 0) {
        double unit = model_rope_yarn_attention(rope->factor) - 1;
        rope->attention_factor = (scale * unit + 1) / (scale_all * unit + 1);
    }
    return MARCO_OK;
}

/* It may stand beside the parameters, among them, or in both places alike. */
static marco_status read_theta(const char *file, const json_t *config, const json_t *scaling,
                               double *theta, marco_error *error)
{
    double inside = 0, outside = *theta;
    marco_status status = format_json_real(file, scaling, "rope_theta", 1e-6, 1e30, &inside, error);
    if (status || inside == 0)
        return status;
    const json_t *given = json_object_get(config, "rope_theta");
    if (given && !json_is_null(given) && outside != inside)
        return base_fail(
            error, MARCO_ERROR_FORMAT,
            "%s: \"rope_theta\" is %g but \"%s\" has a rope_theta of %g; keep one", file, outside,
            scaling == json_object_get(config, "rope_scaling") ? "rope_scaling" : "rope_parameters",
            inside);
    *theta = inside;
    return MARCO_OK;
}

static marco_status read_scaling(const char *file, const json_t *config, const json_t *scaling,
                                 int32_t n_ctx, model_rope *rope, marco_error *error)
{
    marco_status status = check_keys(file, scaling, error);
    if (!status)
        status = read_type(file, scaling, &rope->scaling, error);
    if (!status)
        status = read_theta(file, config, scaling, &rope->theta, error);
    if (status || rope->scaling == MODEL_ROPE_NONE)
        return status;
    status = need_real(file, scaling, "factor", 1e9, &rope->factor, error);
    if (status || rope->scaling == MODEL_ROPE_LINEAR)
        return status;
    /* The key beside the parameters, where there is one, is the one that transformers takes. */
    rope->original_context = n_ctx;
    status = format_json_real(file, scaling, "original_max_position_embeddings", 1, 1e9,
                              &rope->original_context, error);
    if (!status)
        status = format_json_real(file, config, "original_max_position_embeddings", 1, 1e9,
                                  &rope->original_context, error);
    if (!status && rope->scaling == MODEL_ROPE_YARN)
        return read_yarn(file, scaling, rope, error);
    if (!status)
        status = need_real(file, scaling, "low_freq_factor", 1e6, &rope->low_freq_factor, error);
    if (!status)
        status = need_real(file, scaling, "high_freq_factor", 1e6, &rope->high_freq_factor, error);
    return status;
}

/* An object with something in it, or NULL. */
static marco_status find_object(const char *file, const json_t *config, const char *key,
                                const json_t **out, marco_error *error)
{
    const json_t *value = json_object_get(config, key);
    *out = NULL;
    if (value && !json_is_null(value) && !json_is_object(value))
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: \"%s\" must be an object or null", file,
                         key);
    if (json_object_size(value) > 0)
        *out = value;
    return MARCO_OK;
}

marco_status model_rope_parse_hf(const char *file, const json_t *config, int32_t n_ctx,
                                 double default_theta, model_rope *out, marco_error *error)
{
    const json_t *scaling, *parameters;
    out->theta = default_theta;
    marco_status status =
        format_json_real(file, config, "rope_theta", 1e-6, 1e30, &out->theta, error);
    if (!status)
        status = find_object(file, config, "rope_scaling", &scaling, error);
    if (!status)
        status = find_object(file, config, "rope_parameters", &parameters, error);
    if (status)
        return status;
    if (scaling && parameters && !json_equal(scaling, parameters))
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: \"rope_scaling\" and \"rope_parameters\" contradict each other; keep "
                         "one",
                         file);
    if (!scaling)
        scaling = parameters;
    return scaling ? read_scaling(file, config, scaling, n_ctx, out, error) : MARCO_OK;
}
