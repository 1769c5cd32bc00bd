/* POST /v1/messages: Anthropic's form of a chat, brought into the one that templates render. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "serve/api_request.h"

static const api_member members[] = {
    {"model", API_READ, NULL},
    {"messages", API_READ, NULL},
    {"max_tokens", API_READ, NULL},
    {"system", API_READ, NULL},
    {"temperature", API_READ, NULL},
    {"top_p", API_READ, NULL},
    {"top_k", API_READ, NULL},
    {"stop_sequences", API_READ, NULL},
    {"stream", API_READ, NULL},
    {"tools", API_READ, NULL},
    {"tool_choice", API_READ, NULL},
    {"thinking", API_READ, NULL},
    {"metadata", API_ANY_STRINGS, NULL},
    {"service_tier", API_ONLY, "\"auto\"|\"standard_only\""},
    {"cache_control", API_ANY_OBJECT, NULL},
    {"speed", API_ONLY, "\"standard\""},
    {"user_profile_id", API_ANY_STRING, NULL},
    {"workspace_id", API_ANY_STRING, NULL},
    {"output_config", API_READ, NULL},
    {"container", API_REFUSED, "no code is run here"},
    {"mcp_servers", API_REFUSED, "this server asks no other"},
    {"context_management", API_REFUSED, "nothing of a chat is left out here"},
    {"diagnostics", API_REFUSED, "there are none"},
    {"inference_geo", API_REFUSED, "this machine is where it is"},
    {"output_format", API_REFUSED, "use \"output_config\": {\"format\": ...}"},
    {NULL, API_READ, NULL},
};

static const api_member text_members[] = {
    {"type", API_READ, NULL},
    {"text", API_READ, NULL},
    {"cache_control", API_ANY_OBJECT, NULL},
    {"citations", API_ONLY, "[]"},
    {NULL, API_READ, NULL},
};

/* What the blocks of a message come to. */
typedef struct turn {
    base_text text, reasoning;
    json_t *calls; /* of the assistant */
    bool has_text;
} turn;

static void turn_free(turn *t)
{
    base_text_free(&t->text);
    base_text_free(&t->reasoning);
    json_decref(t->calls);
}

/* ---- blocks -------------------------------------------------------------------------------- */

static bool add_text(const api_object *block, turn *t)
{
    const json_t *text = api_get(block, "text");
    if (!api_check_members(block, text_members))
        return false;
    if (!json_is_string(text))
        return api_wrong_kind(block, "text", "a string");
    if (t->has_text)
        base_text_add_char(&t->text, '\n');
    base_text_add_n(&t->text, json_string_value(text), json_string_length(text));
    t->has_text = true;
    return true;
}

static bool add_thinking(const api_object *block, turn *t)
{
    static const api_member thinking_members[] = {
        {"type", API_READ, NULL},
        {"thinking", API_READ, NULL},
        {"signature", API_ANY_STRING, NULL},
        {NULL, API_READ, NULL},
    };
    const json_t *text = api_get(block, "thinking");
    if (!api_check_members(block, thinking_members))
        return false;
    if (!json_is_string(text))
        return api_wrong_kind(block, "thinking", "a string");
    base_text_add_n(&t->reasoning, json_string_value(text), json_string_length(text));
    return true;
}

static bool add_call(const api_object *block, turn *t)
{
    static const api_member call_members[] = {
        {"type", API_READ, NULL},
        {"id", API_READ, NULL},
        {"name", API_READ, NULL},
        {"input", API_READ, NULL},
        {"cache_control", API_ANY_OBJECT, NULL},
        {"caller", API_ANY_OBJECT, NULL}, /* as replies have it */
        {NULL, API_READ, NULL},
    };
    const char *id = NULL, *name = NULL;
    const json_t *input = api_get(block, "input");
    if (!api_check_members(block, call_members) || !api_get_string(block, "id", 256, &id) ||
        !api_get_string(block, "name", 64, &name))
        return false;
    if (!id || !name)
        return api_wrong_kind(block, id ? "name" : "id", "a string");
    if (!json_is_object(input))
        return api_wrong_kind(block, "input", "an object");
    /* Arguments as a value, which templates write as models are used to. */
    json_t *call = json_pack("{s:s, s:s, s:{s:s, s:O}}", "id", id, "type", "function", "function",
                             "name", name, "arguments", input);
    if (!t->calls)
        t->calls = json_array();
    if (!call || !t->calls || json_array_append(t->calls, call) != 0) {
        json_decref(call);
        return api_refuse_memory(block->refusal);
    }
    json_decref(call);
    return true;
}

static bool add_result(const api_object *block, const turn *t, json_t *messages)
{
    static const api_member result_members[] = {
        {"type", API_READ, NULL},
        {"tool_use_id", API_READ, NULL},
        {"content", API_READ, NULL},
        {"is_error", API_READ, NULL},
        {"cache_control", API_ANY_OBJECT, NULL},
        {NULL, API_READ, NULL},
    };
    const char *id = NULL;
    bool is_error = false;
    json_t *content;
    if (t->has_text)
        return api_refuse_member(block, "type", "is \"tool_result\": results come before text");
    if (!api_check_members(block, result_members) ||
        !api_get_string(block, "tool_use_id", 256, &id) ||
        !api_get_bool(block, "is_error", &is_error))
        return false;
    if (!id)
        return api_wrong_kind(block, "tool_use_id", "a string");
    if (!api_parse_text(block, "content", text_members, &content))
        return false;
    base_text text = {0};
    if (is_error)
        base_text_add(&text, "Error: ");
    if (content)
        base_text_add_n(&text, json_string_value(content), json_string_length(content));
    json_t *message = text.failed ? NULL
                                  : json_pack("{s:s, s:s, s:s%}", "role", "tool", "tool_call_id",
                                              id, "content", text.data ? text.data : "", text.size);
    bool fine = message && json_array_append(messages, message) == 0;
    json_decref(message);
    json_decref(content);
    base_text_free(&text);
    return fine || api_refuse_memory(block->refusal);
}

static bool add_block(const api_object *block, bool assistant, turn *t, json_t *messages)
{
    const char *type = NULL;
    if (!json_is_object(block->json))
        return api_refuse(block->refusal, block->path, "invalid_type",
                          "\"%s\": a block of a content must be an object", block->path);
    if (!api_get_string(block, "type", 64, &type))
        return false;
    if (!type)
        return api_wrong_kind(block, "type", "a string");
    if (strcmp(type, "text") == 0)
        return add_text(block, t);
    if (strcmp(type, "tool_result") == 0 && !assistant)
        return add_result(block, t, messages);
    if (strcmp(type, "tool_use") == 0 && assistant)
        return add_call(block, t);
    if (strcmp(type, "thinking") == 0 && assistant)
        return add_thinking(block, t);
    return api_refuse_member(block, "type",
                             assistant
                                 ? "is not supported: blocks of the assistant are text, tool_use "
                                   "and thinking"
                                 : "is not supported: blocks of the user are text and "
                                   "tool_result; the model reads text");
}

/* ---- messages ------------------------------------------------------------------------------ */

static bool append_turn(const api_object *message, const char *role, const turn *t,
                        json_t *messages)
{
    if (t->text.failed || t->reasoning.failed)
        return api_refuse_memory(message->refusal);
    json_t *to = json_pack("{s:s, s:s%}", "role", role, "content", t->text.data ? t->text.data : "",
                           t->text.size);
    bool fine = to && (!t->calls || json_object_set(to, "tool_calls", t->calls) == 0);
    if (fine && t->reasoning.size > 0)
        fine = json_object_set_new(to, "reasoning_content",
                                   json_stringn(t->reasoning.data, t->reasoning.size)) == 0;
    fine = fine && json_array_append(messages, to) == 0;
    json_decref(to);
    return fine || api_refuse_memory(message->refusal);
}

static bool add_message(const api_object *message, json_t *messages)
{
    static const api_member message_members[] = {
        {"role", API_READ, NULL},
        {"content", API_READ, NULL},
        {NULL, API_READ, NULL},
    };
    const char *role = NULL;
    if (!json_is_object(message->json))
        return api_refuse(message->refusal, "messages", "invalid_type",
                          "\"messages\" must be an array of objects");
    if (!api_check_members(message, message_members) || !api_get_string(message, "role", 32, &role))
        return false;
    bool assistant = role && strcmp(role, "assistant") == 0;
    if (!assistant && (!role || strcmp(role, "user") != 0))
        return api_refuse_member(message, "role", "must be user or assistant");
    const json_t *content = api_get(message, "content");
    turn t = {0};
    bool fine = true;
    if (json_is_string(content)) {
        base_text_add_n(&t.text, json_string_value(content), json_string_length(content));
        t.has_text = true;
    } else if (!json_is_array(content) || json_array_size(content) == 0) {
        fine = api_wrong_kind(message, "content", "a string or an array of blocks");
    }
    for (size_t i = 0; json_is_array(content) && i < json_array_size(content) && fine; i++) {
        char path[100];
        snprintf(path, sizeof path, "%scontent[%zu].", message->path, i);
        api_object block = {json_array_get(content, i), path, message->refusal};
        fine = add_block(&block, assistant, &t, messages);
    }
    /* A user's results alone are no turn of the user. */
    if (fine && (assistant || t.has_text))
        fine = append_turn(message, role, &t, messages);
    turn_free(&t);
    return fine;
}

static bool parse_system(const api_object *body, json_t *messages)
{
    json_t *text;
    if (!api_parse_text(body, "system", text_members, &text))
        return false;
    if (!text)
        return true;
    json_t *message = json_pack("{s:s, s:o}", "role", "system", "content", text);
    bool fine = message && json_array_append(messages, message) == 0;
    json_decref(message);
    return fine || api_refuse_memory(body->refusal);
}

static bool fill_messages(const api_object *body, json_t *messages)
{
    const json_t *list = api_get(body, "messages");
    size_t n = json_array_size(list);
    if (!api_check_messages(body) || !parse_system(body, messages))
        return false;
    for (size_t i = 0; i < n; i++) {
        char path[40];
        snprintf(path, sizeof path, "messages[%zu].", i);
        api_object message = {json_array_get(list, i), path, body->refusal};
        if (!add_message(&message, messages))
            return false;
    }
    const char *last = json_string_value(json_object_get(json_array_get(list, n - 1), "role"));
    if (strcmp(last, "assistant") == 0)
        return api_refuse(body->refusal, "messages", "unsupported_value",
                          "the last of \"messages\" is the assistant's: continuing a reply is not "
                          "supported, a user's message must be the last");
    return api_order_results(messages, body->refusal);
}

static bool parse_messages(const api_object *body, api_request *out)
{
    json_t *messages = json_array();
    bool fine = messages || api_refuse_memory(body->refusal);
    fine = fine && fill_messages(body, messages);
    if (fine) {
        out->messages = api_dump(messages);
        fine = out->messages || api_refuse_memory(body->refusal);
    }
    json_decref(messages);
    return fine;
}

/* ---- tools --------------------------------------------------------------------------------- */

static bool add_tool(const api_object *tool, json_t *tools)
{
    static const api_member tool_members[] = {
        {"name", API_READ, NULL},
        {"description", API_READ, NULL},
        {"input_schema", API_READ, NULL},
        {"type", API_ONLY, "\"custom\""},
        {"strict", API_READ, NULL},
        {"eager_input_streaming", API_ONLY, "false|true"}, /* pieces come when they come */
        {"defer_loading", API_ONLY, "false"},
        {"allowed_callers", API_ONLY, "[\"direct\"]"},
        {"input_examples", API_REFUSED, "put examples into the description"},
        {"cache_control", API_ANY_OBJECT, NULL},
        {NULL, API_READ, NULL},
    };
    const char *name = NULL;
    if (!json_is_object(tool->json))
        return api_refuse(tool->refusal, "tools", "invalid_type",
                          "\"tools\" must be an array of objects");
    bool strict;
    if (!api_check_members(tool, tool_members) || !api_get_string(tool, "name", 64, &name) ||
        !api_get_bool(tool, "strict", &strict))
        return false;
    if (!name)
        return api_wrong_kind(tool, "name", "a string");
    if (!api_is_function_name(name))
        return api_refuse_member(tool, "name",
                                 "may have letters, digits, _ and - only, at most 64");
    const json_t *description = api_get(tool, "description");
    const json_t *schema = api_get(tool, "input_schema");
    if (description && !json_is_string(description))
        return api_wrong_kind(tool, "description", "a string");
    if (!json_is_object(schema))
        return api_wrong_kind(tool, "input_schema", "an object");
    if (api_has_tool(tools, json_array_size(tools), name))
        return api_refuse_member(tool, "name", "is the name of another tool too");
    json_t *to = json_pack("{s:s, s:{s:s, s:O*, s:O}}", "type", "function", "function", "name",
                           name, "description", description, "parameters", schema);
    bool fine = to && json_array_append(tools, to) == 0;
    json_decref(to);
    return fine || api_refuse_memory(tool->refusal);
}

static bool parse_choice(const api_object *body, const json_t *tools, api_request *out)
{
    static const api_member choice_members[] = {
        {"type", API_READ, NULL},
        {"name", API_READ, NULL},
        {"disable_parallel_tool_use", API_READ, NULL},
        {NULL, API_READ, NULL},
    };
    const char *type = NULL;
    bool single = false;
    api_object choice = {api_get(body, "tool_choice"), "tool_choice.", body->refusal};
    out->tool_choice = json_array_size(tools) > 0 ? API_TOOL_AUTO : API_TOOL_NONE;
    if (!choice.json)
        return true;
    if (!json_is_object(choice.json))
        return api_wrong_kind(body, "tool_choice", "an object");
    if (!api_check_members(&choice, choice_members) ||
        !api_get_string(&choice, "type", 32, &type) ||
        !api_get_string(&choice, "name", 64, &out->tool_name) ||
        !api_get_bool(&choice, "disable_parallel_tool_use", &single))
        return false;
    out->parallel = !single;
    bool any = type && strcmp(type, "any") == 0, named = type && strcmp(type, "tool") == 0;
    if (named != (out->tool_name != NULL))
        return api_refuse_member(&choice, "name",
                                 "belongs to the type \"tool\", which must have it");
    if ((any || named) && out->tool_choice == API_TOOL_NONE)
        return api_refuse(body->refusal, "tool_choice", "invalid_value",
                          "\"tool_choice\" asks for a call and there are no \"tools\"");
    if (any)
        out->tool_choice = API_TOOL_REQUIRED;
    else if (named)
        out->tool_choice = API_TOOL_NAMED;
    else if (type && strcmp(type, "none") == 0)
        out->tool_choice = API_TOOL_NONE;
    else if (!type || strcmp(type, "auto") != 0)
        return api_refuse_member(&choice, "type", "must be auto, any, tool or none");
    return !named || api_has_tool(tools, json_array_size(tools), out->tool_name) ||
           api_refuse_member(&choice, "name", "is the name of no tool");
}

static bool parse_tools(const api_object *body, api_request *out)
{
    const json_t *list = api_get(body, "tools");
    if (list && !json_is_array(list))
        return api_wrong_kind(body, "tools", "an array");
    if (json_array_size(list) > API_MAX_TOOLS)
        return api_refuse(body->refusal, "tools", "invalid_value",
                          "\"tools\" has %zu entries: at most %d are allowed",
                          json_array_size(list), API_MAX_TOOLS);
    json_t *tools = json_array();
    bool fine = tools || api_refuse_memory(body->refusal);
    for (size_t i = 0; i < json_array_size(list) && fine; i++) {
        char path[40];
        snprintf(path, sizeof path, "tools[%zu].", i);
        api_object tool = {json_array_get(list, i), path, body->refusal};
        fine = add_tool(&tool, tools);
    }
    fine = fine && parse_choice(body, tools, out);
    if (fine && out->tool_choice != API_TOOL_NONE) {
        out->tools = api_dump(tools);
        fine = out->tools || api_refuse_memory(body->refusal);
    }
    json_decref(tools);
    return fine;
}

/* ---- the rest ------------------------------------------------------------------------------ */

static bool parse_thinking(const api_object *body, api_request *out)
{
    static const api_member thinking_members[] = {
        {"type", API_READ, NULL},
        {"budget_tokens", API_REFUSED, "a model cannot be told how long to reason"},
        {"display", API_ONLY, "\"summarized\""},
        {NULL, API_READ, NULL},
    };
    const char *type = NULL;
    api_object thinking = {api_get(body, "thinking"), "thinking.", body->refusal};
    out->enable_thinking = 0;
    if (!thinking.json)
        return true;
    if (!json_is_object(thinking.json))
        return api_wrong_kind(body, "thinking", "an object");
    if (!api_check_members(&thinking, thinking_members) ||
        !api_get_string(&thinking, "type", 32, &type))
        return false;
    if (type && strcmp(type, "adaptive") == 0)
        out->enable_thinking = 1;
    else if (!type || strcmp(type, "disabled") != 0)
        return api_refuse_member(&thinking, "type",
                                 "must be disabled or adaptive: a model cannot be told how long to "
                                 "reason");
    return true;
}

static bool parse_output(const api_object *body, api_request *out)
{
    static const api_member output_members[] = {
        {"format", API_READ, NULL},
        {"effort", API_REFUSED, "a model cannot be told how hard to try"},
        {NULL, API_READ, NULL},
    };
    static const api_member format_members[] = {
        {"type", API_ONLY, "\"json_schema\""},
        {"schema", API_READ, NULL},
        {NULL, API_READ, NULL},
    };
    api_object output = {api_get(body, "output_config"), "output_config.", body->refusal};
    if (!output.json)
        return true;
    if (!json_is_object(output.json))
        return api_wrong_kind(body, "output_config", "an object");
    if (!api_check_members(&output, output_members))
        return false;
    api_object format = {api_get(&output, "format"), "output_config.format.", body->refusal};
    if (!format.json)
        return true;
    if (!json_is_object(format.json))
        return api_wrong_kind(&output, "format", "an object");
    if (!api_check_members(&format, format_members))
        return false;
    const json_t *schema = api_get(&format, "schema");
    if (!schema || !api_get(&format, "type"))
        return api_wrong_kind(&format, schema ? "type" : "schema",
                              schema ? "\"json_schema\"" : "a JSON Schema");
    if (out->tool_choice != API_TOOL_NONE)
        return api_refuse(body->refusal, "output_config.format", "unsupported_value",
                          "\"output_config.format\" and tools that may be called exclude each "
                          "other: a call would not be what the format asks for");
    out->format = API_FORMAT_SCHEMA;
    out->schema = api_dump(schema);
    return out->schema || api_refuse_memory(body->refusal);
}

bool api_parse_messages(const api_object *body, api_request *out)
{
    int64_t max_tokens = 0, top_k = 0;
    if (!api_check_members(body, members) || !api_get_string(body, "model", 512, &out->model) ||
        !api_get_int(body, "max_tokens", 1, INT32_MAX, &max_tokens) ||
        !api_get_real(body, "temperature", 0, 1, &out->temperature) ||
        !api_get_real(body, "top_p", 0, 1, &out->top_p) ||
        !api_get_int(body, "top_k", 0, INT32_MAX, &top_k) ||
        !api_parse_stop(body, "stop_sequences", out) || !api_get_bool(body, "stream", &out->stream))
        return false;
    if (!max_tokens && out->form == API_MESSAGES)
        return api_wrong_kind(body, "max_tokens", "an integer");
    if ((float)out->top_p == 0)
        return api_refuse(body->refusal, "top_p", "invalid_value", "\"top_p\" must be above 0");
    if (api_get(body, "top_k"))
        out->top_k = (int32_t)top_k;
    out->max_tokens = max_tokens ? (int32_t)max_tokens : -1;
    return parse_messages(body, out) && parse_tools(body, out) && parse_thinking(body, out) &&
           parse_output(body, out);
}
