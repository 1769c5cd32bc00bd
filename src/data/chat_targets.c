#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "data/document.h"
#include "format/json.h"

/* A turn is found by encoding all that comes before it, which for very many turns takes very long.
 */
enum { MAX_TURNS = 256 };

typedef struct ids {
    int32_t *items;
    size_t n;
} ids;

/* One conversation under way. */
typedef struct chat {
    const data_form *form;
    const char *tools; /* as JSON, or NULL */
    ids whole;
    uint8_t *targets; /* [whole.n] */
    marco_error *error;
} chat;

static marco_status encode(const chat *c, const json_t *messages, bool prompt, ids *out)
{
    char *text;
    size_t size;
    *out = (ids){0};
    if (!format_json_dump(messages, JSON_COMPACT, &text, &size))
        return base_fail_memory(c->error, 0, "a conversation");
    marco_chat_params params = marco_chat_params_default();
    params.messages = text;
    params.tools = c->tools;
    params.add_generation_prompt = prompt;
    marco_status status =
        marco_chat_encode(c->form->tokenizer, &params, &out->items, &out->n, c->error);
    base_free(text);
    return status;
}

static bool begins_with(const ids *whole, const ids *part)
{
    return part->n <= whole->n &&
           memcmp(whole->items, part->items, part->n * sizeof *part->items) == 0;
}

static bool is_assistant(const json_t *message)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    return role && strcmp(role, "assistant") == 0;
}

static bool has_reasoning(const json_t *message)
{
    const json_t *apart = json_object_get(message, "reasoning_content");
    const json_t *content = json_object_get(message, "content");
    return json_string_length(apart) > 0 ||
           (json_is_string(content) &&
            memmem(json_string_value(content), json_string_length(content), "</think>", 8));
}

/* Marks the turn that follows `before`, message i. */
static marco_status mark_turn(chat *c, const json_t *before, size_t i)
{
    ids prompt;
    if (i == 0)
        return base_fail(c->error, MARCO_ERROR_ARGUMENT,
                         "message 0: a conversation cannot begin with the assistant's turn");
    marco_status status = encode(c, before, true, &prompt);
    if (!status && !begins_with(&c->whole, &prompt))
        status = base_fail(c->error, MARCO_ERROR_UNSUPPORTED,
                           "message %zu: the prompt for this turn is not how the conversation "
                           "begins: chat template %s writes earlier turns differently once others "
                           "follow, or the turn begins with a line break that runs into the "
                           "header's",
                           i, marco_tokenizer_chat_template(c->form->tokenizer));
    size_t end = prompt.n;
    while (!status && end < c->whole.n && c->whole.items[end] != c->form->turn_end)
        end++;
    if (!status && end == c->whole.n)
        status = base_fail(c->error, MARCO_ERROR_UNSUPPORTED,
                           "message %zu: chat template %s does not end this turn", i,
                           marco_tokenizer_chat_template(c->form->tokenizer));
    if (!status)
        memset(c->targets + prompt.n, 1, end + 1 - prompt.n);
    base_free(prompt.items);
    return status;
}

/* A template may leave the reasoning of earlier turns out, as Qwen3's does: to train on what is
 * left would teach to answer without. */
static marco_status check_reasoning(const chat *c, const json_t *until, size_t i)
{
    ids part;
    marco_status status = encode(c, until, false, &part);
    if (!status && !begins_with(&c->whole, &part))
        status = base_fail(c->error, MARCO_ERROR_UNSUPPORTED,
                           "message %zu: chat template %s leaves the reasoning of this turn out, "
                           "since others follow; make a conversation that ends here of it, or "
                           "leave the reasoning out",
                           i, marco_tokenizer_chat_template(c->form->tokenizer));
    base_free(part.items);
    return status;
}

static marco_status mark_turns(chat *c, const json_t *messages)
{
    json_t *before = json_array();
    size_t n = json_array_size(messages), turns = 0;
    marco_status status = MARCO_OK;
    for (size_t i = 0; !status && i < n; i++) {
        json_t *message = json_array_get(messages, i);
        bool assistant = is_assistant(message);
        if (assistant && ++turns > MAX_TURNS)
            status =
                base_fail(c->error, MARCO_ERROR_UNSUPPORTED,
                          "more than %d turns of the assistant; split the conversation", MAX_TURNS);
        if (!status && assistant)
            status = mark_turn(c, before, i);
        if (!status && json_array_append(before, message) != 0)
            status = base_fail_memory(c->error, n, "a conversation");
        if (!status && assistant && i + 1 < n && has_reasoning(message))
            status = check_reasoning(c, before, i);
    }
    json_decref(before);
    if (!status && turns == 0)
        status = base_fail(c->error, MARCO_ERROR_ARGUMENT,
                           "the conversation has no turn of the assistant to train on");
    return status;
}

/* Checks what the template would not see as JSON. */
static marco_status check_kinds(const json_t *messages, const json_t *tools, marco_error *error)
{
    if (!messages)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "no \"messages\"");
    if (!json_is_array(messages))
        return base_fail(error, MARCO_ERROR_ARGUMENT, "\"messages\" is %s where an array belongs",
                         format_json_kind(messages));
    if (tools && !json_is_array(tools))
        return base_fail(error, MARCO_ERROR_ARGUMENT, "\"tools\" is %s where an array belongs",
                         format_json_kind(tools));
    return MARCO_OK;
}

marco_status data_chat_encode(const data_form *form, const json_t *messages, const json_t *tools,
                              int32_t **out, uint8_t **targets, size_t *n, marco_error *error)
{
    chat c = {.form = form, .error = error};
    char *tools_text = NULL;
    size_t size;
    if (json_is_null(tools))
        tools = NULL;
    marco_status status = check_kinds(messages, tools, error);
    if (!status && tools && !format_json_dump(tools, JSON_COMPACT, &tools_text, &size))
        status = base_fail_memory(error, 0, "tools");
    c.tools = tools_text;
    if (!status)
        status = encode(&c, messages, false, &c.whole);
    if (!status && !(c.targets = base_calloc(c.whole.n, 1)))
        status = base_fail_memory(error, c.whole.n, "targets");
    if (!status)
        status = mark_turns(&c, messages);
    base_free(tools_text);
    if (status) {
        base_free(c.whole.items);
        base_free(c.targets);
        return status;
    }
    *out = c.whole.items;
    *targets = c.targets;
    *n = c.whole.n;
    return MARCO_OK;
}
