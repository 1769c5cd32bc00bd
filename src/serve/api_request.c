#include "serve/api_request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

bool api_is_function_name(const char *name)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t size = strlen(name);
    return size >= 1 && size <= 64 && strspn(name, allowed) == size;
}

/* ---- stop strings and biases --------------------------------------------------------------- */

static bool add_stop(const api_object *body, const char *key, const json_t *value, api_request *out)
{
    if (!json_is_string(value))
        return api_refuse(body->refusal, key, "invalid_type", "\"%s\" must be strings", key);
    size_t size = json_string_length(value);
    if (size < 1 || size > API_MAX_STOP_BYTES)
        return api_refuse(body->refusal, key, "invalid_value",
                          "\"%s\": a string has %zu bytes: 1 to %d are allowed", key, size,
                          API_MAX_STOP_BYTES);
    if (strlen(json_string_value(value)) != size)
        return api_refuse(body->refusal, key, "invalid_value",
                          "\"%s\": a string holds a NUL character", key);
    out->stop[out->n_stop++] = json_string_value(value);
    return true;
}

bool api_parse_stop(const api_object *body, const char *key, api_request *out)
{
    const json_t *value = api_get(body, key);
    if (!value)
        return true;
    if (json_is_string(value))
        return add_stop(body, key, value, out);
    if (!json_is_array(value))
        return api_wrong_kind(body, key, "a string or an array of strings");
    size_t n = json_array_size(value);
    if (n > API_MAX_STOP)
        return api_refuse(body->refusal, key, "invalid_value",
                          "\"%s\" has %zu strings: at most %d are allowed", key, n, API_MAX_STOP);
    for (size_t i = 0; i < n; i++)
        if (!add_stop(body, key, json_array_get(value, i), out))
            return false;
    return true;
}

/* A key of logit_bias: an id in decimal. */
static bool read_id(const char *text, int32_t *id)
{
    size_t size = strlen(text);
    if (size < 1 || size > 9 || strspn(text, "0123456789") != size || (size > 1 && text[0] == '0'))
        return false;
    *id = (int32_t)strtol(text, NULL, 10);
    return true;
}

static bool parse_bias(const api_object *body, api_request *out)
{
    const json_t *map = api_get(body, "logit_bias");
    if (!map)
        return true;
    if (!json_is_object(map))
        return api_wrong_kind(body, "logit_bias", "an object");
    size_t n = json_object_size(map);
    if (n > API_MAX_BIAS)
        return api_refuse(body->refusal, "logit_bias", "invalid_value",
                          "\"logit_bias\" has %zu entries: at most %d are allowed", n,
                          API_MAX_BIAS);
    out->bias = base_calloc(n, sizeof *out->bias);
    if (!out->bias)
        return api_refuse_memory(body->refusal);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)map, key, value)
    {
        int32_t id;
        if (!read_id(key, &id))
            return api_refuse(body->refusal, "logit_bias", "invalid_value",
                              "\"logit_bias\": \"%.40s\" is no token id", key);
        if (!json_is_number(value) || !(fabs(json_number_value(value)) <= 100))
            return api_refuse(body->refusal, "logit_bias", "invalid_value",
                              "\"logit_bias\": the bias of %d must be a number from -100 to 100",
                              id);
        out->bias[out->n_bias++] = (marco_logit_bias){id, (float)json_number_value(value)};
    }
    return true;
}

/* ---- what chats and completions share ------------------------------------------------------ */

static bool parse_sampling(const api_object *body, api_request *out)
{
    int64_t top_k = out->top_k;
    if (!api_get_real(body, "temperature", 0, 2, &out->temperature) ||
        !api_get_real(body, "top_p", 0, 1, &out->top_p) ||
        !api_get_real(body, "min_p", 0, 1, &out->min_p) ||
        !api_get_real(body, "repetition_penalty", 0, 1000, &out->repetition_penalty) ||
        !api_get_real(body, "presence_penalty", -2, 2, &out->presence_penalty) ||
        !api_get_real(body, "frequency_penalty", -2, 2, &out->frequency_penalty) ||
        !api_get_int(body, "top_k", -1, INT32_MAX, &top_k))
        return false;
    /* The ends of their ranges that make no sense, also where a float rounds to them. */
    if ((float)out->top_p == 0)
        return api_refuse(body->refusal, "top_p", "invalid_value",
                          "\"top_p\" is 0: no token could be chosen (\"temperature\": 0 takes the "
                          "likeliest)");
    if ((float)out->min_p == 1)
        return api_refuse(body->refusal, "min_p", "invalid_value", "\"min_p\" must be below 1");
    if ((float)out->repetition_penalty == 0)
        return api_refuse(body->refusal, "repetition_penalty", "invalid_value",
                          "\"repetition_penalty\" must be above 0 (1: none)");
    if (api_get(body, "top_k")) /* -1 is another way to write "off" */
        out->top_k = top_k < 0 ? 0 : (int32_t)top_k;
    return true;
}

static bool parse_stream(const api_object *body, api_request *out)
{
    static const api_member members[] = {
        {"include_usage", API_READ, NULL},
        {"include_obfuscation", API_ONLY, "false"},
        {NULL, API_READ, NULL},
    };
    if (!api_get_bool(body, "stream", &out->stream))
        return false;
    const json_t *options = api_get(body, "stream_options");
    if (!options)
        return true;
    if (!json_is_object(options))
        return api_wrong_kind(body, "stream_options", "an object");
    if (!out->stream)
        return api_refuse(body->refusal, "stream_options", "invalid_value",
                          "\"stream_options\" belongs to a request with \"stream\": true");
    api_object object = {options, "stream_options.", body->refusal};
    return api_check_members(&object, members) &&
           api_get_bool(&object, "include_usage", &out->include_usage);
}

bool api_parse_common(const api_object *body, api_request *out)
{
    int64_t n = 1, seed = 0;
    if (!api_get_string(body, "model", 512, &out->model) || !parse_sampling(body, out) ||
        !api_get_int(body, "n", 1, API_MAX_N, &n) || !api_parse_stop(body, "stop", out) ||
        !parse_bias(body, out) || !parse_stream(body, out) ||
        !api_get_int(body, "seed", INT64_MIN, INT64_MAX, &seed) ||
        !api_get_bool(body, "ignore_eos", &out->ignore_eos))
        return false;
    out->n = (int32_t)n;
    out->seeded = api_get(body, "seed") != NULL;
    out->seed = (uint64_t)seed;
    return true;
}

marco_sampling api_request_sampling(const api_request *request, marco_sampling model)
{
    marco_sampling s = model;
    const struct {
        double asked;
        float *value;
    } all[] = {
        {request->temperature, &s.temperature},
        {request->top_p, &s.top_p},
        {request->min_p, &s.min_p},
        {request->repetition_penalty, &s.repetition_penalty},
        {request->presence_penalty, &s.presence_penalty},
        {request->frequency_penalty, &s.frequency_penalty},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (!isnan(all[i].asked))
            *all[i].value = (float)all[i].asked;
    if (request->top_k >= 0)
        s.top_k = request->top_k;
    s.logit_bias = request->bias;
    s.n_logit_bias = request->n_bias;
    return s;
}

/* ---- text ---------------------------------------------------------------------------------- */

static bool add_part(const api_object *part, const api_member *members, base_text *text)
{
    char param[120];
    const char *type = NULL;
    if (!json_is_object(part->json))
        return api_refuse(part->refusal, part->path, "invalid_type",
                          "\"%s\": a part of a content must be an object", part->path);
    if (!api_get_string(part, "type", 64, &type))
        return false;
    snprintf(param, sizeof param, "%stype", part->path);
    if (!type)
        return api_wrong_kind(part, "type", "a string");
    if (strcmp(type, "text") != 0)
        return api_refuse(part->refusal, param, "unsupported_value",
                          "\"%s\" is \"%s\": only \"text\" is supported here, the model reads text",
                          param, type);
    if (!api_check_members(part, members))
        return false;
    const json_t *value = api_get(part, "text");
    if (!json_is_string(value))
        return api_wrong_kind(part, "text", "a string");
    base_text_add_n(text, json_string_value(value), json_string_length(value));
    return true;
}

bool api_parse_text(const api_object *object, const char *key, const api_member *members,
                    json_t **out)
{
    const json_t *value = api_get(object, key);
    *out = NULL;
    if (!value)
        return true;
    if (json_is_string(value)) {
        *out = json_incref((json_t *)value);
        return true;
    }
    if (!json_is_array(value))
        return api_wrong_kind(object, key, "a string or an array of parts");
    base_text text = {0};
    bool fine = true;
    for (size_t i = 0; i < json_array_size(value) && fine; i++) {
        char path[100];
        snprintf(path, sizeof path, "%s%s[%zu].", object->path, key, i);
        api_object part = {json_array_get(value, i), path, object->refusal};
        if (i > 0)
            base_text_add_char(&text, '\n');
        fine = add_part(&part, members, &text);
    }
    if (fine) {
        *out = text.failed ? NULL : json_stringn(text.data ? text.data : "", text.size);
        fine = *out || api_refuse_memory(object->refusal);
    }
    base_text_free(&text);
    return fine;
}

/* ---- the whole ----------------------------------------------------------------------------- */

bool api_request_parse(api_form form, const char *body, size_t size, api_request *out,
                       api_refusal *refusal)
{
    *out = (api_request){
        .form = form,
        .enable_thinking = -1,
        .parallel = true,
        .n = 1,
        .max_tokens = -1,
        .temperature = NAN,
        .top_p = NAN,
        .min_p = NAN,
        .repetition_penalty = NAN,
        .presence_penalty = NAN,
        .frequency_penalty = NAN,
        .top_k = -1,
    };
    *refusal = (api_refusal){0};
    if (!api_parse_body(body, size, &out->body, refusal))
        return false;
    api_object object = {out->body, "", refusal};
    switch (form) {
    case API_CHAT:
        return api_parse_chat(&object, out);
    case API_COMPLETION:
        return api_parse_completion(&object, out);
    case API_MESSAGES:
    case API_COUNT:
        break;
    }
    return api_parse_messages(&object, out);
}

void api_request_slim(api_request *request)
{
    for (size_t i = 0; i < request->n_prompts; i++)
        base_free(request->prompts[i].ids);
    base_free(request->prompts);
    base_free(request->messages);
    base_free(request->tools);
    base_free(request->schema);
    base_free(request->bias);
    json_decref(request->body);
    request->prompts = NULL;
    request->messages = request->tools = request->schema = NULL;
    request->bias = NULL;
    request->body = NULL;
    request->model = request->tool_name = NULL;
    request->n_prompts = request->n_stop = request->n_bias = 0;
}

void api_request_free(api_request *request)
{
    api_request_slim(request);
    *request = (api_request){0};
}
