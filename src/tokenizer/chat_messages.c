#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "format/json.h"
#include "tokenizer/chat.h"

/* Where a message is, for errors. */
typedef struct place {
    const tok_chat_template *form;
    size_t index;
    marco_error *error;
} place;

static tok_span span_of(const json_t *string)
{
    return (tok_span){json_string_value(string), json_string_length(string)};
}

static bool is_role(tok_span name, const char *role)
{
    return name.size == strlen(role) && memcmp(name.data, role, name.size) == 0;
}

static tok_chat_role role_of(tok_span name)
{
    if (is_role(name, "system"))
        return TOK_CHAT_SYSTEM;
    if (is_role(name, "user"))
        return TOK_CHAT_USER;
    if (is_role(name, "assistant"))
        return TOK_CHAT_ASSISTANT;
    if (is_role(name, "tool"))
        return TOK_CHAT_TOOL;
    return TOK_CHAT_OTHER;
}

/* A string field; absent and null leave *out empty. */
static marco_status get_string(const place *at, const json_t *message, const char *key,
                               tok_span *out)
{
    const json_t *value = json_object_get(message, key);
    if (!value || json_is_null(value))
        return MARCO_OK;
    if (!json_is_string(value))
        return base_fail(at->error, MARCO_ERROR_ARGUMENT,
                         "message %zu: \"%s\" must be a string for chat template %s%s", at->index,
                         key, at->form->name,
                         json_is_array(value) ? ": join the parts of a text first" : "");
    *out = span_of(value);
    return MARCO_OK;
}

/* A template is not asked to leave out a message: those of this family pass over roles they do
 * not know. */
static marco_status check_role(const place *at, const json_t *message, tok_chat_message *out)
{
    marco_status status = get_string(at, message, "role", &out->role_name);
    if (status)
        return status;
    if (!out->role_name.data)
        return base_fail(at->error, MARCO_ERROR_ARGUMENT, "message %zu has no \"role\"", at->index);
    out->role = role_of(out->role_name);
    if (out->role == TOK_CHAT_OTHER && at->form->tools)
        return base_fail(at->error, MARCO_ERROR_ARGUMENT,
                         "message %zu: chat template %s has no role \"%.60s\", only system, user, "
                         "assistant and tool",
                         at->index, at->form->name, out->role_name.data);
    return MARCO_OK;
}

/* A call that a template would print as nothing, or half, is an error. */
static marco_status check_call(const place *at, json_t *call, size_t i)
{
    const json_t *function = json_object_get(call, "function");
    if (!json_is_object(call) || (function && !json_is_object(function) &&
                                  !(json_is_null(function) && at->form->qwen3_calls)))
        return base_fail(at->error, MARCO_ERROR_ARGUMENT,
                         "message %zu: tool call %zu must be an object with a \"function\"",
                         at->index, i);
    if (!json_is_string(tok_chat_call_field(at->form, call, "name")))
        return base_fail(at->error, MARCO_ERROR_ARGUMENT,
                         "message %zu: tool call %zu has no function name", at->index, i);
    if (!tok_chat_call_field(at->form, call, "arguments"))
        return base_fail(at->error, MARCO_ERROR_ARGUMENT,
                         "message %zu: tool call %zu has no \"arguments\"", at->index, i);
    return MARCO_OK;
}

static marco_status check_calls(const place *at, const json_t *message, tok_chat_message *out)
{
    json_t *calls = json_object_get(message, "tool_calls");
    if (!calls || json_is_null(calls))
        return MARCO_OK;
    if (!json_is_array(calls))
        return base_fail(at->error, MARCO_ERROR_ARGUMENT,
                         "message %zu: \"tool_calls\" must be an array", at->index);
    if (json_array_size(calls) == 0)
        return MARCO_OK;
    if (!at->form->tools || out->role != TOK_CHAT_ASSISTANT)
        return base_fail(at->error, MARCO_ERROR_UNSUPPORTED,
                         "message %zu: chat template %s has no place for the tool calls of this "
                         "message",
                         at->index, at->form->name);
    for (size_t i = 0; i < json_array_size(calls); i++) {
        marco_status status = check_call(at, json_array_get(calls, i), i);
        if (status)
            return status;
    }
    out->calls = calls;
    return MARCO_OK;
}

static marco_status check_message(const place *at, const json_t *message, tok_chat_message *out)
{
    if (!json_is_object(message))
        return base_fail(at->error, MARCO_ERROR_ARGUMENT, "message %zu is not an object",
                         at->index);
    marco_status status = check_role(at, message, out);
    if (!status)
        status = get_string(at, message, "content", &out->content);
    if (!status && at->form->reasoning && out->role == TOK_CHAT_ASSISTANT)
        status = get_string(at, message, "reasoning_content", &out->reasoning);
    if (!status)
        status = check_calls(at, message, out);
    if (status || out->content.data)
        return status;
    /* OpenAI's clients send null beside tool calls. Where a template takes that, it is empty. */
    if (out->role != TOK_CHAT_ASSISTANT || !(at->form->qwen3_calls || out->calls))
        return base_fail(at->error, MARCO_ERROR_ARGUMENT, "message %zu has no \"content\"",
                         at->index);
    out->content = (tok_span){"", 0};
    return MARCO_OK;
}

static marco_status parse_tools(const tok_chat_template *form, const char *text, tok_chat *chat,
                                marco_error *error)
{
    marco_status status =
        format_json_text("the tools", text, strlen(text), &chat->tools_json, error);
    if (status)
        return status;
    json_t *tools = chat->tools_json;
    if (!json_is_array(tools))
        return base_fail(error, MARCO_ERROR_ARGUMENT, "the tools must be a JSON array");
    if (json_array_size(tools) == 0)
        return MARCO_OK;
    if (!form->tools)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED, "chat template %s has no place for tools",
                         form->name);
    for (size_t i = 0; i < json_array_size(tools); i++)
        if (!json_is_object(json_array_get(tools, i)))
            return base_fail(error, MARCO_ERROR_ARGUMENT, "tool %zu is not an object", i);
    chat->tools = tools;
    return MARCO_OK;
}

static marco_status parse_messages(const tok_chat_template *form, const char *text, tok_chat *chat,
                                   marco_error *error)
{
    marco_status status =
        format_json_text("the messages", text, strlen(text), &chat->messages_json, error);
    if (status)
        return status;
    if (!json_is_array(chat->messages_json) || json_array_size(chat->messages_json) == 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "the messages must be a JSON array with at least one message");
    chat->n = json_array_size(chat->messages_json);
    chat->messages = base_calloc(chat->n, sizeof *chat->messages);
    if (!chat->messages)
        return base_fail_memory(error, chat->n * sizeof *chat->messages, "messages");
    for (size_t i = 0; i < chat->n && !status; i++) {
        place at = {.form = form, .index = i, .error = error};
        status = check_message(&at, json_array_get(chat->messages_json, i), &chat->messages[i]);
    }
    return status;
}

marco_status tok_chat_parse(const tok_chat_template *form, const marco_chat_params *params,
                            tok_chat *chat, marco_error *error)
{
    *chat = (tok_chat){0};
    marco_status status = parse_messages(form, params->messages, chat, error);
    if (!status && params->tools)
        status = parse_tools(form, params->tools, chat, error);
    if (status == MARCO_ERROR_FORMAT) {
        /* No file is malformed here: the caller's text is. */
        status = MARCO_ERROR_ARGUMENT;
        if (error)
            error->status = status;
    }
    return status;
}

void tok_chat_free(tok_chat *chat)
{
    json_decref(chat->messages_json);
    json_decref(chat->tools_json);
    base_free(chat->messages);
    *chat = (tok_chat){0};
}

json_t *tok_chat_call_field(const tok_chat_template *form, const json_t *call, const char *key)
{
    const json_t *function = json_object_get(call, "function");
    /* Qwen3 asks whether there is anything in the function, Qwen2.5 whether it is there. */
    if (form->qwen3_calls ? json_object_size(function) > 0 : function != NULL)
        call = function;
    return json_object_get(call, key);
}
