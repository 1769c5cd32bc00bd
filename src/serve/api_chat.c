/* POST /v1/chat/completions: messages and tools, brought into the form that templates render. */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "serve/api_request.h"

static const api_member members[] = {
    {"model", API_READ, NULL},
    {"messages", API_READ, NULL},
    {"max_tokens", API_READ, NULL},
    {"max_completion_tokens", API_READ, NULL},
    {"temperature", API_READ, NULL},
    {"top_p", API_READ, NULL},
    {"top_k", API_READ, NULL},
    {"min_p", API_READ, NULL},
    {"repetition_penalty", API_READ, NULL},
    {"presence_penalty", API_READ, NULL},
    {"frequency_penalty", API_READ, NULL},
    {"n", API_READ, NULL},
    {"stop", API_READ, NULL},
    {"seed", API_READ, NULL},
    {"stream", API_READ, NULL},
    {"stream_options", API_READ, NULL},
    {"logprobs", API_READ, NULL},
    {"top_logprobs", API_READ, NULL},
    {"logit_bias", API_READ, NULL},
    {"response_format", API_READ, NULL},
    {"tools", API_READ, NULL},
    {"tool_choice", API_READ, NULL},
    {"parallel_tool_calls", API_READ, NULL},
    {"chat_template_kwargs", API_READ, NULL},
    {"ignore_eos", API_READ, NULL},
    {"user", API_ANY_STRING, NULL},
    {"safety_identifier", API_ANY_STRING, NULL},
    {"prompt_cache_key", API_ANY_STRING, NULL},
    {"prompt_cache_retention", API_ONLY, "\"in_memory\"|\"in-memory\"|\"24h\""},
    {"prompt_cache_options", API_ANY_OBJECT, NULL},
    {"metadata", API_ANY_STRINGS, NULL},
    {"store", API_ONLY, "false"},
    {"service_tier", API_ONLY, "\"auto\"|\"default\""},
    {"modalities", API_ONLY, "[\"text\"]"},
    {"verbosity", API_ONLY, "\"medium\""},
    {"audio", API_REFUSED, "replies are text"},
    {"moderation", API_REFUSED, "this server judges no texts"},
    {"prediction", API_REFUSED, "nothing would be gained from it here"},
    {"web_search_options", API_REFUSED, "this server asks no other"},
    {"reasoning_effort", API_REFUSED,
     "\"chat_template_kwargs\": {\"enable_thinking\": ...} switches reasoning where the model can"},
    {"functions", API_REFUSED, "use \"tools\""},
    {"function_call", API_REFUSED, "use \"tool_choice\""},
    {NULL, API_READ, NULL},
};

static const api_member text_members[] = {
    {"type", API_READ, NULL},
    {"text", API_READ, NULL},
    {NULL, API_READ, NULL},
};

/* ---- messages ------------------------------------------------------------------------------ */

static const api_member message_members[] = {
    {"role", API_READ, NULL},
    {"content", API_READ, NULL},
    {"name", API_READ, NULL},
    {"tool_calls", API_READ, NULL},
    {"tool_call_id", API_READ, NULL},
    {"reasoning_content", API_READ, NULL},
    {"annotations", API_ONLY, "[]"},
    {"refusal", API_REFUSED, "put the text into \"content\""},
    {"audio", API_REFUSED, "the model reads text"},
    {"function_call", API_REFUSED, "use \"tool_calls\""},
    {NULL, API_READ, NULL},
};

/* Arguments are put into the chat as they are: they must be JSON. */
static bool check_arguments(const api_object *function, const char *text, size_t size)
{
    char param[120];
    api_refusal why = {0};
    json_t *value;
    if (api_parse_body(text, size, &value, &why)) {
        json_decref(value);
        return true;
    }
    if (why.status != 400) {
        *function->refusal = why;
        return false;
    }
    snprintf(param, sizeof param, "%sarguments", function->path);
    return api_refuse(function->refusal, param, "invalid_value",
                      "\"%s\" is not the text of a JSON object", param);
}

static bool check_call(const api_object *call)
{
    static const api_member call_members[] = {
        {"id", API_READ, NULL},
        {"type", API_ONLY, "\"function\""},
        {"function", API_READ, NULL},
        {"index", API_ANY_INTEGER, NULL}, /* as the deltas of a stream have it */
        {NULL, API_READ, NULL},
    };
    static const api_member function_members[] = {
        {"name", API_READ, NULL},
        {"arguments", API_READ, NULL},
        {NULL, API_READ, NULL},
    };
    const char *id = NULL, *name = NULL;
    char path[100];
    if (!json_is_object(call->json))
        return api_refuse(call->refusal, call->path, "invalid_type",
                          "\"%s\": a tool call must be an object", call->path);
    if (!api_check_members(call, call_members) || !api_get_string(call, "id", 256, &id))
        return false;
    if (!id)
        return api_wrong_kind(call, "id", "a string");
    snprintf(path, sizeof path, "%sfunction.", call->path);
    api_object function = {api_get(call, "function"), path, call->refusal};
    if (!json_is_object(function.json))
        return api_wrong_kind(call, "function", "an object");
    if (!api_check_members(&function, function_members) ||
        !api_get_string(&function, "name", 64, &name))
        return false;
    const json_t *arguments = api_get(&function, "arguments");
    if (!name)
        return api_wrong_kind(&function, "name", "a string");
    if (!json_is_string(arguments))
        return api_wrong_kind(&function, "arguments", "a string");
    return check_arguments(&function, json_string_value(arguments), json_string_length(arguments));
}

static bool check_calls(const api_object *message, const json_t *calls)
{
    if (!json_is_array(calls))
        return api_wrong_kind(message, "tool_calls", "an array");
    if (json_array_size(calls) > API_MAX_TOOLS)
        return api_refuse(message->refusal, message->path, "invalid_value",
                          "\"%stool_calls\" has %zu entries: at most %d are allowed", message->path,
                          json_array_size(calls), API_MAX_TOOLS);
    for (size_t i = 0; i < json_array_size(calls); i++) {
        char path[100];
        snprintf(path, sizeof path, "%stool_calls[%zu].", message->path, i);
        api_object call = {json_array_get(calls, i), path, message->refusal};
        if (!check_call(&call))
            return false;
    }
    return true;
}

/* The members that only some roles have. */
static bool check_places(const api_object *message, const char *role)
{
    bool assistant = strcmp(role, "assistant") == 0, tool = strcmp(role, "tool") == 0;
    const char *text = NULL;
    const json_t *calls = api_get(message, "tool_calls");
    if (!api_get_string(message, "name", 64, &text))
        return false;
    if (text && !tool)
        return api_refuse_member(
            message, "name",
            "is not supported: the model's chat template has no place for the name "
            "of a participant; put it into the content");
    if (calls && !assistant)
        return api_refuse_member(message, "tool_calls", "belongs to the assistant's messages");
    if (calls && !check_calls(message, calls))
        return false;
    text = NULL;
    if (!api_get_string(message, "tool_call_id", 256, &text))
        return false;
    if (tool && !text)
        return api_wrong_kind(message, "tool_call_id", "a string");
    if (text && !tool)
        return api_refuse_member(message, "tool_call_id", "belongs to messages with the role tool");
    const json_t *reasoning = api_get(message, "reasoning_content");
    if (reasoning && !assistant)
        return api_refuse_member(message, "reasoning_content",
                                 "belongs to the assistant's messages");
    if (reasoning && !json_is_string(reasoning))
        return api_wrong_kind(message, "reasoning_content", "a string");
    return true;
}

/* Puts a member that is there into the new message. */
static bool copy(const api_object *message, const char *key, json_t *to)
{
    const json_t *value = api_get(message, key);
    return !value || json_object_set(to, key, (json_t *)value) == 0;
}

static bool add_message(const api_object *message, json_t *messages)
{
    const char *role = NULL;
    if (!json_is_object(message->json))
        return api_refuse(message->refusal, "messages", "invalid_type",
                          "\"messages\" must be an array of objects");
    if (!api_check_members(message, message_members) || !api_get_string(message, "role", 32, &role))
        return false;
    if (!role)
        return api_wrong_kind(message, "role", "a string");
    if (strcmp(role, "developer") == 0)
        role = "system";
    if (strcmp(role, "system") != 0 && strcmp(role, "user") != 0 &&
        strcmp(role, "assistant") != 0 && strcmp(role, "tool") != 0)
        return api_refuse_member(message, "role",
                                 "must be system, developer, user, assistant or tool");
    json_t *content;
    if (!check_places(message, role) || !api_parse_text(message, "content", text_members, &content))
        return false;
    const json_t *calls = api_get(message, "tool_calls");
    if (!content && json_array_size(calls) == 0)
        return api_wrong_kind(message, "content", "a string");
    json_t *to = json_object();
    bool fine = to && json_object_set_new(to, "role", json_string(role)) == 0 &&
                (!content || json_object_set(to, "content", content) == 0) &&
                (json_array_size(calls) == 0 || copy(message, "tool_calls", to)) &&
                copy(message, "tool_call_id", to) && copy(message, "reasoning_content", to) &&
                json_array_append(messages, to) == 0;
    json_decref(content);
    json_decref(to);
    return fine || api_refuse_memory(message->refusal);
}

/* ---- results of tools ---------------------------------------------------------------------- */

/* The place, from `from` on and before `end`, of the result of a call; `end` where there is none.
 */
static size_t find_result(const json_t *messages, size_t from, size_t end, const char *id)
{
    for (size_t at = from; at < end; at++) {
        const json_t *message = json_array_get(messages, at);
        const char *result = json_string_value(json_object_get(message, "tool_call_id"));
        if (!result)
            return end;
        if (strcmp(result, id) == 0)
            return at;
    }
    return end;
}

/* Puts the results that begin at messages[start] into the order of the calls before them: as many
 * as there are calls, others are in nobody's way. */
static bool order_run(json_t *messages, size_t start, const json_t *calls, api_refusal *refusal)
{
    size_t end = start + json_array_size(calls);
    for (size_t to = start; to < end; to++) {
        const json_t *call = json_array_get(calls, to - start);
        const char *id = json_string_value(json_object_get(call, "id"));
        size_t at = find_result(messages, to, end, id);
        if (at == end)
            return api_refuse(refusal, "messages", "invalid_value",
                              "messages: the tool call \"%.100s\" has no result: a message for "
                              "each call must follow the assistant's",
                              id);
        json_t *message = json_incref(json_array_get(messages, at));
        for (; at > to; at--)
            json_array_set(messages, at, json_array_get(messages, at - 1));
        json_array_set_new(messages, to, message);
    }
    return true;
}

bool api_order_results(json_t *messages, api_refusal *refusal)
{
    size_t n = json_array_size(messages), allowed = 0; /* results may stand before this index */
    for (size_t i = 0; i < n; i++) {
        const json_t *message = json_array_get(messages, i);
        const json_t *calls = json_object_get(message, "tool_calls");
        const json_t *id = json_object_get(message, "tool_call_id");
        if (id && i >= allowed)
            return api_refuse(refusal, "messages", "invalid_value",
                              "messages: the result \"%.100s\" answers no tool call of the "
                              "assistant's message before it",
                              json_string_value(id));
        if (!calls || i + 1 == n)
            continue;
        if (!order_run(messages, i + 1, calls, refusal))
            return false;
        allowed = i + 1 + json_array_size(calls);
    }
    return true;
}

bool api_check_messages(const api_object *body)
{
    const json_t *list = api_get(body, "messages");
    size_t n = json_array_size(list);
    if (!json_is_array(list))
        return api_wrong_kind(body, "messages", "an array");
    if (n == 0)
        return api_refuse(body->refusal, "messages", "invalid_value", "\"messages\" is empty");
    return n <= API_MAX_MESSAGES ||
           api_refuse(body->refusal, "messages", "invalid_value",
                      "\"messages\" has %zu entries: at most %d are allowed", n, API_MAX_MESSAGES);
}

static bool parse_messages(const api_object *body, api_request *out)
{
    const json_t *list = api_get(body, "messages");
    if (!api_check_messages(body))
        return false;
    json_t *messages = json_array();
    bool fine = messages || api_refuse_memory(body->refusal);
    for (size_t i = 0; i < json_array_size(list) && fine; i++) {
        char path[40];
        snprintf(path, sizeof path, "messages[%zu].", i);
        api_object message = {json_array_get(list, i), path, body->refusal};
        fine = add_message(&message, messages);
    }
    if (fine)
        fine = api_order_results(messages, body->refusal);
    if (fine) {
        out->messages = api_dump(messages);
        fine = out->messages || api_refuse_memory(body->refusal);
    }
    json_decref(messages);
    return fine;
}

/* ---- tools --------------------------------------------------------------------------------- */

bool api_has_tool(const json_t *tools, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        if (strcmp(json_string_value(json_object_get(function, "name")), name) == 0)
            return true;
    }
    return false;
}

static bool check_tool(const api_object *tool, const json_t *all, size_t index)
{
    static const api_member tool_members[] = {
        {"type", API_ONLY, "\"function\""},
        {"function", API_READ, NULL},
        {NULL, API_READ, NULL},
    };
    static const api_member function_members[] = {
        {"name", API_READ, NULL},   {"description", API_READ, NULL}, {"parameters", API_READ, NULL},
        {"strict", API_READ, NULL}, {NULL, API_READ, NULL},
    };
    char path[60];
    const char *name = NULL;
    bool strict;
    if (!json_is_object(tool->json))
        return api_refuse(tool->refusal, "tools", "invalid_type",
                          "\"tools\" must be an array of objects");
    if (!api_check_members(tool, tool_members))
        return false;
    if (!api_get(tool, "type"))
        return api_wrong_kind(tool, "type", "\"function\"");
    snprintf(path, sizeof path, "%sfunction.", tool->path);
    api_object function = {api_get(tool, "function"), path, tool->refusal};
    if (!json_is_object(function.json))
        return api_wrong_kind(tool, "function", "an object");
    if (!api_check_members(&function, function_members) ||
        !api_get_string(&function, "name", 64, &name) ||
        !api_get_bool(&function, "strict", &strict))
        return false;
    if (!name)
        return api_wrong_kind(&function, "name", "a string");
    if (!api_is_function_name(name))
        return api_refuse_member(&function, "name",
                                 "may have letters, digits, _ and - only, at most 64");
    const json_t *description = api_get(&function, "description");
    if (description && !json_is_string(description))
        return api_wrong_kind(&function, "description", "a string");
    const json_t *parameters = api_get(&function, "parameters");
    if (parameters && !json_is_object(parameters))
        return api_wrong_kind(&function, "parameters", "an object");
    return !api_has_tool(all, index, name) ||
           api_refuse_member(&function, "name", "is the name of another tool too");
}

static bool parse_named(const api_object *body, const json_t *tools, api_request *out)
{
    static const api_member choice_members[] = {
        {"type", API_ONLY, "\"function\""},
        {"function", API_READ, NULL},
        {NULL, API_READ, NULL},
    };
    static const api_member function_members[] = {
        {"name", API_READ, NULL},
        {NULL, API_READ, NULL},
    };
    api_object choice = {api_get(body, "tool_choice"), "tool_choice.", body->refusal};
    api_object function = {json_object_get(choice.json, "function"), "tool_choice.function.",
                           body->refusal};
    if (!api_check_members(&choice, choice_members))
        return false;
    if (!json_is_object(function.json))
        return api_wrong_kind(&choice, "function", "an object");
    if (!api_check_members(&function, function_members) ||
        !api_get_string(&function, "name", 64, &out->tool_name))
        return false;
    if (!out->tool_name)
        return api_wrong_kind(&function, "name", "a string");
    if (!api_has_tool(tools, json_array_size(tools), out->tool_name))
        return api_refuse(body->refusal, "tool_choice", "invalid_value",
                          "\"tool_choice\": there is no tool \"%s\"", out->tool_name);
    out->tool_choice = API_TOOL_NAMED;
    return true;
}

static bool parse_choice(const api_object *body, const json_t *tools, api_request *out)
{
    const json_t *choice = api_get(body, "tool_choice");
    bool any = json_array_size(tools) > 0;
    const char *word = json_string_value(choice);
    out->tool_choice = any ? API_TOOL_AUTO : API_TOOL_NONE;
    if (!choice || (word && strcmp(word, "auto") == 0))
        return true;
    if (word && strcmp(word, "none") == 0) {
        out->tool_choice = API_TOOL_NONE;
        return true;
    }
    if (!(word && strcmp(word, "required") == 0) && !json_is_object(choice))
        return api_refuse(body->refusal, "tool_choice", "invalid_value",
                          "\"tool_choice\" must be \"none\", \"auto\", \"required\" or an object "
                          "that names a function");
    if (!any)
        return api_refuse(body->refusal, "tool_choice", "invalid_value",
                          "\"tool_choice\" asks for a call and there are no \"tools\"");
    if (!word)
        return parse_named(body, tools, out);
    out->tool_choice = API_TOOL_REQUIRED;
    return true;
}

static bool parse_tools(const api_object *body, api_request *out)
{
    const json_t *tools = api_get(body, "tools");
    if (tools && !json_is_array(tools))
        return api_wrong_kind(body, "tools", "an array");
    size_t n = json_array_size(tools);
    if (n > API_MAX_TOOLS)
        return api_refuse(body->refusal, "tools", "invalid_value",
                          "\"tools\" has %zu entries: at most %d are allowed", n, API_MAX_TOOLS);
    for (size_t i = 0; i < n; i++) {
        char path[40];
        snprintf(path, sizeof path, "tools[%zu].", i);
        api_object tool = {json_array_get(tools, i), path, body->refusal};
        if (!check_tool(&tool, tools, i))
            return false;
    }
    if (!parse_choice(body, tools, out) ||
        !api_get_bool(body, "parallel_tool_calls", &out->parallel))
        return false;
    if (out->tool_choice != API_TOOL_NONE && !(out->tools = api_dump(tools)))
        return api_refuse_memory(body->refusal);
    return true;
}

/* ---- the rest ------------------------------------------------------------------------------ */

static bool parse_schema(const api_object *format, api_request *out)
{
    static const api_member schema_members[] = {
        {"name", API_READ, NULL},   {"description", API_ANY_STRING, NULL},
        {"schema", API_READ, NULL}, {"strict", API_READ, NULL},
        {NULL, API_READ, NULL},
    };
    const char *name = NULL;
    bool strict;
    api_object object = {api_get(format, "json_schema"), "response_format.json_schema.",
                         format->refusal};
    if (!json_is_object(object.json))
        return api_wrong_kind(format, "json_schema", "an object");
    if (!api_check_members(&object, schema_members) ||
        !api_get_string(&object, "name", 64, &name) || !api_get_bool(&object, "strict", &strict))
        return false;
    if (!name)
        return api_wrong_kind(&object, "name", "a string");
    const json_t *schema = api_get(&object, "schema");
    if (!schema)
        return api_wrong_kind(&object, "schema", "a JSON Schema");
    out->schema = api_dump(schema);
    return out->schema || api_refuse_memory(format->refusal);
}

static bool parse_format(const api_object *body, api_request *out)
{
    static const api_member format_members[] = {
        {"type", API_READ, NULL},
        {"json_schema", API_READ, NULL},
        {NULL, API_READ, NULL},
    };
    const char *type = NULL;
    api_object format = {api_get(body, "response_format"), "response_format.", body->refusal};
    if (!format.json)
        return true;
    if (!json_is_object(format.json))
        return api_wrong_kind(body, "response_format", "an object");
    if (!api_check_members(&format, format_members) || !api_get_string(&format, "type", 32, &type))
        return false;
    if (!type)
        return api_wrong_kind(&format, "type", "a string");
    if (strcmp(type, "json_schema") == 0)
        out->format = API_FORMAT_SCHEMA;
    else if (strcmp(type, "json_object") == 0)
        out->format = API_FORMAT_OBJECT;
    else if (strcmp(type, "text") != 0)
        return api_refuse_member(&format, "type", "must be text, json_object or json_schema");
    if (out->format != API_FORMAT_SCHEMA && api_get(&format, "json_schema"))
        return api_refuse_member(&format, "json_schema", "belongs to the type json_schema");
    if (out->format != API_FORMAT_TEXT && out->tool_choice != API_TOOL_NONE)
        return api_refuse(body->refusal, "response_format", "unsupported_value",
                          "\"response_format\" and tools that may be called exclude each other: a "
                          "call would not be what the format asks for");
    return out->format != API_FORMAT_SCHEMA || parse_schema(&format, out);
}

static bool parse_kwargs(const api_object *body, api_request *out)
{
    static const api_member kwargs_members[] = {
        {"enable_thinking", API_READ, NULL},
        {NULL, API_READ, NULL},
    };
    api_object kwargs = {api_get(body, "chat_template_kwargs"), "chat_template_kwargs.",
                         body->refusal};
    bool thinking;
    if (!kwargs.json)
        return true;
    if (!json_is_object(kwargs.json))
        return api_wrong_kind(body, "chat_template_kwargs", "an object");
    if (!api_check_members(&kwargs, kwargs_members) ||
        !api_get_bool(&kwargs, "enable_thinking", &thinking))
        return false;
    if (api_get(&kwargs, "enable_thinking"))
        out->enable_thinking = thinking;
    return true;
}

static bool parse_limits(const api_object *body, api_request *out)
{
    int64_t old = 0, now = 0, top = 0;
    if (!api_get_int(body, "max_tokens", 1, INT32_MAX, &old) ||
        !api_get_int(body, "max_completion_tokens", 1, INT32_MAX, &now) ||
        !api_get_bool(body, "logprobs", &out->logprobs) ||
        !api_get_int(body, "top_logprobs", 0, API_MAX_TOP, &top))
        return false;
    if (old && now && old != now)
        return api_refuse(body->refusal, "max_tokens", "invalid_value",
                          "\"max_tokens\" and \"max_completion_tokens\" say different things");
    if (api_get(body, "top_logprobs") && !out->logprobs)
        return api_refuse(body->refusal, "top_logprobs", "invalid_value",
                          "\"top_logprobs\" belongs to a request with \"logprobs\": true");
    if (old || now)
        out->max_tokens = (int32_t)(now ? now : old);
    out->n_top = (int32_t)top;
    return true;
}

bool api_parse_chat(const api_object *body, api_request *out)
{
    return api_check_members(body, members) && api_parse_common(body, out) &&
           parse_limits(body, out) && parse_messages(body, out) && parse_tools(body, out) &&
           parse_format(body, out) && parse_kwargs(body, out);
}
