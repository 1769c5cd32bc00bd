/* POST /v1/completions: a prompt as it stands, text or ids. */
#include <string.h>

#include "base/memory.h"
#include "serve/api_request.h"

static const api_member members[] = {
    {"model", API_READ, NULL},
    {"prompt", API_READ, NULL},
    {"max_tokens", API_READ, NULL},
    {"temperature", API_READ, NULL},
    {"top_p", API_READ, NULL},
    {"top_k", API_READ, NULL},
    {"min_p", API_READ, NULL},
    {"repetition_penalty", API_READ, NULL},
    {"presence_penalty", API_READ, NULL},
    {"frequency_penalty", API_READ, NULL},
    {"n", API_READ, NULL},
    {"best_of", API_READ, NULL},
    {"echo", API_READ, NULL},
    {"logprobs", API_READ, NULL},
    {"logit_bias", API_READ, NULL},
    {"stop", API_READ, NULL},
    {"seed", API_READ, NULL},
    {"stream", API_READ, NULL},
    {"stream_options", API_READ, NULL},
    {"ignore_eos", API_READ, NULL},
    {"user", API_ANY_STRING, NULL},
    {"suffix", API_REFUSED, "the model continues a prompt and fills no gaps"},
    {NULL, API_READ, NULL},
};

static bool add_text(const json_t *value, api_request *out)
{
    out->prompts[out->n_prompts++] =
        (api_prompt){.text = json_string_value(value), .size = json_string_length(value)};
    return true;
}

static bool add_ids(const api_object *body, const json_t *list, api_request *out)
{
    size_t n = json_array_size(list);
    int32_t *ids = base_alloc_array(n, sizeof *ids);
    if (!ids)
        return api_refuse_memory(body->refusal);
    out->prompts[out->n_prompts++] = (api_prompt){.ids = ids, .n = n};
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id))
            return api_refuse(body->refusal, "prompt", "invalid_type",
                              "\"prompt\": a list of token ids holds something other than an "
                              "integer at place %zu",
                              i);
        json_int_t value = json_integer_value(id);
        if (value < 0 || value > INT32_MAX)
            return api_refuse(body->refusal, "prompt", "invalid_value",
                              "\"prompt\": %lld is no token id", (long long)value);
        ids[i] = (int32_t)value;
    }
    return true;
}

static bool parse_prompt(const api_object *body, api_request *out)
{
    static const char wanted[] = "a string, a list of token ids, or a list of either";
    const json_t *prompt = api_get(body, "prompt");
    if (!prompt || !(json_is_string(prompt) || json_is_array(prompt)))
        return api_wrong_kind(body, "prompt", wanted);
    const json_t *first = json_array_get(prompt, 0);
    bool one = json_is_string(prompt) || json_is_integer(first);
    size_t n = one ? 1 : json_array_size(prompt);
    if (n < 1 || n > API_MAX_PROMPTS)
        return api_refuse(body->refusal, "prompt", "invalid_value",
                          "\"prompt\" has %zu entries: 1 to %d are allowed", n, API_MAX_PROMPTS);
    out->prompts = base_calloc(n, sizeof *out->prompts);
    if (!out->prompts)
        return api_refuse_memory(body->refusal);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = one ? prompt : json_array_get(prompt, i);
        if (json_is_string(item) ? !add_text(item, out)
            : json_is_array(item)
                ? !add_ids(body, item, out)
                : !api_refuse(body->refusal, "prompt", "invalid_type",
                              "\"prompt\" holds something other than %s at place %zu", wanted, i))
            return false;
    }
    return true;
}

/* Empty lists have nothing to continue; an empty text may get a token to begin with. */
static bool check_prompts(const api_object *body, const api_request *out)
{
    for (size_t i = 0; i < out->n_prompts; i++)
        if (!out->prompts[i].text && out->prompts[i].n == 0)
            return api_refuse(body->refusal, "prompt", "invalid_value",
                              "\"prompt\": the list of token ids at place %zu is empty", i);
    if (out->n_prompts * (size_t)out->n > API_MAX_CHOICES)
        return api_refuse(body->refusal, "n", "invalid_value",
                          "%zu prompts with %d replies each are more than %d replies",
                          out->n_prompts, out->n, API_MAX_CHOICES);
    return true;
}

bool api_parse_completion(const api_object *body, api_request *out)
{
    int64_t max_tokens = 16, top = 0, best_of = 0;
    if (!api_check_members(body, members) || !api_parse_common(body, out) ||
        !parse_prompt(body, out) || !check_prompts(body, out) ||
        !api_get_int(body, "max_tokens", 0, INT32_MAX, &max_tokens) ||
        !api_get_int(body, "logprobs", 0, API_MAX_TOP, &top) ||
        !api_get_int(body, "best_of", 1, API_MAX_N, &best_of) ||
        !api_get_bool(body, "echo", &out->echo))
        return false;
    if (best_of && best_of != out->n)
        return api_refuse(body->refusal, "best_of", "unsupported_value",
                          "\"best_of\" is %lld with \"n\" %d: only the same number is supported",
                          (long long)best_of, out->n);
    out->max_tokens = (int32_t)max_tokens;
    out->logprobs = api_get(body, "logprobs") != NULL;
    out->n_top = (int32_t)top;
    return true;
}
