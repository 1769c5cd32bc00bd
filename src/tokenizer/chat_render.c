#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "tokenizer/chat.h"

/* What was appended to the text since the last run has this trust. */
static void end_run(tok_chat_out *out, bool trusted)
{
    size_t end = out->text.size;
    if (end == (out->n_runs ? out->runs[out->n_runs - 1].end : 0))
        return;
    if (out->n_runs && out->runs[out->n_runs - 1].trusted == trusted) {
        out->runs[out->n_runs - 1].end = end;
        return;
    }
    void *runs = out->runs;
    if (!base_grow(&runs, &out->capacity, out->n_runs + 1, sizeof *out->runs)) {
        out->failed = true;
        return;
    }
    out->runs = runs;
    out->runs[out->n_runs++] = (tok_chat_run){.end = end, .trusted = trusted};
}

/* The template's own text. */
static void own(tok_chat_out *out, const char *text)
{
    base_text_add(&out->text, text);
    end_run(out, true);
}

/* What a message or a tool brings. */
static void foreign(tok_chat_out *out, tok_span span)
{
    base_text_add_n(&out->text, span.data, span.size);
    end_run(out, false);
}

static bool foreign_json(tok_chat_out *out, json_t *value)
{
    bool dumped = tok_chat_dump_json(value, &out->text);
    end_run(out, false);
    return dumped;
}

/* ---- Python's string methods --------------------------------------------------------------- */

static tok_span strip_left(tok_span s)
{
    while (s.size && s.data[0] == '\n') {
        s.data++;
        s.size--;
    }
    return s;
}

static tok_span strip_right(tok_span s)
{
    while (s.size && s.data[s.size - 1] == '\n')
        s.size--;
    return s;
}

static const char *find(tok_span s, const char *needle)
{
    return memmem(s.data, s.size, needle, strlen(needle));
}

/* s.split(separator)[0] */
static tok_span before_first(tok_span s, const char *separator)
{
    const char *at = find(s, separator);
    return at ? (tok_span){s.data, (size_t)(at - s.data)} : s;
}

/* s.split(separator)[-1] */
static tok_span after_last(tok_span s, const char *separator)
{
    for (const char *at = find(s, separator); at; at = find(s, separator)) {
        const char *rest = at + strlen(separator);
        s = (tok_span){rest, s.size - (size_t)(rest - s.data)};
    }
    return s;
}

static bool starts_with(tok_span s, const char *prefix)
{
    size_t n = strlen(prefix);
    return s.size >= n && memcmp(s.data, prefix, n) == 0;
}

static bool ends_with(tok_span s, const char *suffix)
{
    size_t n = strlen(suffix);
    return s.size >= n && memcmp(s.data + s.size - n, suffix, n) == 0;
}

/* ---- turns --------------------------------------------------------------------------------- */

/* The system turn, with the tools in it where there are any. */
static bool render_head(const tok_chat_template *form, const tok_chat *chat, tok_chat_out *out)
{
    bool given = chat->messages[0].role == TOK_CHAT_SYSTEM;
    if (!given && !form->system && !chat->tools)
        return true;
    own(out, "<|im_start|>system\n");
    if (given)
        foreign(out, chat->messages[0].content);
    else if (form->system)
        own(out, form->system);
    if (!chat->tools) {
        own(out, "<|im_end|>\n");
        return true;
    }
    if (given || form->system)
        own(out, "\n\n");
    own(out, "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
             "You are provided with function signatures within <tools></tools> XML tags:\n"
             "<tools>");
    for (size_t i = 0; i < json_array_size(chat->tools); i++) {
        own(out, "\n");
        if (!foreign_json(out, json_array_get(chat->tools, i)))
            return false;
    }
    own(out, "\n</tools>\n\nFor each function call, return a json object with function name and "
             "arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n");
    own(out, form->double_braces ? "{{" : "{");
    own(out, "\"name\": <function-name>, \"arguments\": <args-json-object>");
    own(out, form->double_braces ? "}}" : "}");
    own(out, "\n</tool_call><|im_end|>\n");
    return true;
}

/* <|im_start|>ROLE\nCONTENT<|im_end|>\n; plain ChatML lets a message make up its role. */
static void render_plain(const tok_chat_message *message, tok_chat_out *out)
{
    own(out, "<|im_start|>");
    foreign(out, message->role_name);
    own(out, "\n");
    foreign(out, message->content);
    own(out, "<|im_end|>\n");
}

static bool render_call(const tok_chat_template *form, json_t *call, tok_chat_out *out)
{
    json_t *name = tok_chat_call_field(form, call, "name");
    json_t *arguments = tok_chat_call_field(form, call, "arguments");
    own(out, "<tool_call>\n{\"name\": \"");
    foreign(out, (tok_span){json_string_value(name), json_string_length(name)});
    own(out, "\", \"arguments\": ");
    if (form->qwen3_calls && json_is_string(arguments))
        foreign(out, (tok_span){json_string_value(arguments), json_string_length(arguments)});
    else if (!foreign_json(out, arguments))
        return false;
    own(out, "}\n</tool_call>");
    return true;
}

/* Qwen3: `after_query` where the turn follows the last question, whose reasoning is kept. */
static bool render_qwen3(const tok_chat_template *form, const tok_chat_message *message,
                         bool after_query, bool last, tok_chat_out *out)
{
    tok_span content = message->content, reasoning = message->reasoning;
    if (form->reasoning && !reasoning.data && find(content, "</think>")) {
        reasoning = before_first(content, "</think>");
        reasoning = strip_left(after_last(strip_right(reasoning), "<think>"));
        content = strip_left(after_last(content, "</think>"));
    }
    own(out, "<|im_start|>assistant\n");
    if (form->reasoning && after_query && (last || reasoning.size)) {
        own(out, "<think>\n");
        if (reasoning.size)
            foreign(out, strip_left(strip_right(reasoning)));
        own(out, "\n</think>\n\n");
        foreign(out, strip_left(content));
    } else {
        foreign(out, content);
    }
    for (size_t i = 0; i < json_array_size(message->calls); i++) {
        if (i || content.size)
            own(out, "\n");
        if (!render_call(form, json_array_get(message->calls, i), out))
            return false;
    }
    own(out, "<|im_end|>\n");
    return true;
}

static bool render_qwen25(const tok_chat_template *form, const tok_chat_message *message,
                          tok_chat_out *out)
{
    own(out, "<|im_start|>assistant");
    if (!message->calls || message->content.size) {
        own(out, "\n");
        foreign(out, message->content);
    }
    for (size_t i = 0; i < json_array_size(message->calls); i++) {
        own(out, "\n");
        if (!render_call(form, json_array_get(message->calls, i), out))
            return false;
    }
    own(out, "<|im_end|>\n");
    return true;
}

/* Results that follow one another share a turn of the user's. */
static void render_result(const tok_chat *chat, size_t i, tok_chat_out *out)
{
    if (i == 0 || chat->messages[i - 1].role != TOK_CHAT_TOOL)
        own(out, "<|im_start|>user");
    own(out, "\n<tool_response>\n");
    foreign(out, chat->messages[i].content);
    own(out, "\n</tool_response>");
    if (i + 1 == chat->n || chat->messages[i + 1].role != TOK_CHAT_TOOL)
        own(out, "<|im_end|>\n");
}

/* The last thing the user said that is no tool's result; the last message where there is none. */
static size_t last_query(const tok_chat *chat)
{
    for (size_t i = chat->n; i-- > 0;) {
        const tok_chat_message *m = &chat->messages[i];
        if (m->role == TOK_CHAT_USER && !(starts_with(m->content, "<tool_response>") &&
                                          ends_with(m->content, "</tool_response>")))
            return i;
    }
    return chat->n - 1;
}

static bool render_turns(const tok_chat_template *form, const tok_chat *chat, tok_chat_out *out)
{
    size_t query = last_query(chat);
    bool rendered = true;
    for (size_t i = 0; i < chat->n && rendered; i++) {
        const tok_chat_message *message = &chat->messages[i];
        if (i == 0 && message->role == TOK_CHAT_SYSTEM)
            continue; /* in the head */
        if (form->tools && message->role == TOK_CHAT_TOOL)
            render_result(chat, i, out);
        else if (!form->tools || message->role != TOK_CHAT_ASSISTANT)
            render_plain(message, out);
        else if (form->qwen3_calls)
            rendered = render_qwen3(form, message, i > query, i + 1 == chat->n, out);
        else
            rendered = render_qwen25(form, message, out);
    }
    return rendered;
}

marco_status tok_chat_render(const tok_chat_template *form, const tok_chat *chat,
                             const marco_chat_params *params, tok_chat_out *out, marco_error *error)
{
    if (!render_head(form, chat, out) || !render_turns(form, chat, out))
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "the JSON of a tool or a tool call is nested too deep (512 at most)");
    if (params->add_generation_prompt) {
        own(out, "<|im_start|>assistant\n");
        own(out, form->reply);
        if (form->switchable && params->enable_thinking == 0)
            own(out, "<think>\n\n</think>\n\n");
    }
    if (out->failed || out->text.failed)
        return base_fail_memory(error, out->text.size, "the text of a chat");
    return MARCO_OK;
}

void tok_chat_out_free(tok_chat_out *out)
{
    base_text_free(&out->text);
    base_free(out->runs);
    *out = (tok_chat_out){0};
}
