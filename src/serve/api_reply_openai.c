/* Replies as the OpenAI API has them. */
#include "serve/api_reply.h"

static void add_raw(base_text *out, const base_text *text)
{
    if (text->size)
        base_text_add_n(out, text->data, text->size);
    out->failed = out->failed || text->failed;
}

/* Up to the choices. */
static void add_head(const api_reply *reply, bool chunk, base_text *out)
{
    base_text_add(out, "{\"id\":");
    api_add_string(out, reply->id);
    base_text_printf(out, ",\"object\":\"%s\",\"created\":%lld,\"model\":",
                     reply->form == API_COMPLETION ? "text_completion"
                     : chunk                       ? "chat.completion.chunk"
                                                   : "chat.completion",
                     (long long)reply->created);
    api_add_string(out, reply->model);
    base_text_printf(out, ",\"system_fingerprint\":\"marco_%s_%s\",\"choices\":[", marco_version(),
                     marco_cpu_level());
}

static void add_usage(const api_reply *reply, base_text *out)
{
    base_text_printf(out,
                     "{\"prompt_tokens\":%zu,\"completion_tokens\":%zu,\"total_tokens\":%zu,"
                     "\"prompt_tokens_details\":{\"cached_tokens\":%zu}}",
                     reply->n_prompt, reply->n_reply, reply->n_prompt + reply->n_reply,
                     reply->n_cached);
}

static const char *finish_name(api_finish finish)
{
    switch (finish) {
    case API_UNFINISHED:
        break;
    case API_FINISH_STOP:
    case API_FINISH_STRING:
        return "\"stop\"";
    case API_FINISH_LENGTH:
        return "\"length\"";
    case API_FINISH_CALLS:
        return "\"tool_calls\"";
    }
    return "null";
}

static void add_calls(const api_choice *choice, bool chunk, base_text *out)
{
    base_text_add(out, ",\"tool_calls\":[");
    for (size_t i = 0; i < choice->n_calls; i++) {
        const api_call *call = &choice->calls[i];
        base_text_add(out, i ? ",{" : "{");
        if (chunk)
            base_text_printf(out, "\"index\":%zu,", call->index);
        base_text_add(out, "\"id\":");
        api_add_string(out, call->id);
        base_text_add(out, ",\"type\":\"function\",\"function\":{\"name\":");
        api_add_string(out, call->name);
        base_text_add(out, ",\"arguments\":");
        api_add_string(out, call->arguments);
        base_text_add(out, "}}");
    }
    base_text_add_char(out, ']');
}

/* "logprobs" and what follows in a choice. */
static void add_tail(const api_reply *reply, const api_choice *choice, base_text *out)
{
    base_text_add(out, ",\"logprobs\":");
    if (!reply->logprobs) {
        base_text_add(out, "null");
    } else if (reply->form == API_CHAT) {
        base_text_add(out, "{\"content\":[");
        add_raw(out, &choice->tokens);
        base_text_add(out, "],\"refusal\":null}");
    } else {
        base_text_add(out, "{\"tokens\":[");
        add_raw(out, &choice->tokens);
        base_text_add(out, "],\"token_logprobs\":[");
        add_raw(out, &choice->values);
        base_text_add(out, "],\"top_logprobs\":[");
        add_raw(out, &choice->tops);
        base_text_add(out, "],\"text_offset\":[");
        add_raw(out, &choice->offsets);
        base_text_add(out, "]}");
    }
}

static void add_message(const api_choice *choice, base_text *out)
{
    base_text_add(out, "\"message\":{\"role\":\"assistant\",\"content\":");
    if (choice->text.size || !choice->n_calls)
        api_add_text(out, &choice->text);
    else
        base_text_add(out, "null");
    base_text_add(out, ",\"refusal\":null");
    if (choice->reasoning.size) {
        base_text_add(out, ",\"reasoning_content\":");
        api_add_text(out, &choice->reasoning);
    }
    if (choice->n_calls)
        add_calls(choice, false, out);
    base_text_add_char(out, '}');
}

void api_openai_whole(const api_reply *reply, base_text *out)
{
    add_head(reply, false, out);
    for (size_t i = 0; i < reply->n; i++) {
        const api_choice *choice = &reply->choices[i];
        base_text_printf(out, "%s{\"index\":%zu,", i ? "," : "", i);
        if (reply->form == API_CHAT) {
            add_message(choice, out);
        } else {
            base_text_add(out, "\"text\":");
            api_add_text(out, &choice->text);
        }
        add_tail(reply, choice, out);
        base_text_printf(out, ",\"finish_reason\":%s}", finish_name(choice->finish));
    }
    base_text_add(out, "],\"usage\":");
    add_usage(reply, out);
    base_text_add_char(out, '}');
}

/* ---- a stream ------------------------------------------------------------------------------ */

static void begin_chunk(const api_reply *reply, size_t index, base_text *out)
{
    base_text_add(out, "data: ");
    add_head(reply, true, out);
    base_text_printf(out, "{\"index\":%zu,", index);
}

static void end_chunk(const api_reply *reply, api_finish finish, base_text *out)
{
    base_text_printf(out, ",\"finish_reason\":%s}]%s}\n\n", finish_name(finish),
                     reply->include_usage ? ",\"usage\":null" : "");
}

void api_openai_start(const api_reply *reply, base_text *out)
{
    for (size_t i = 0; i < reply->n && reply->form == API_CHAT; i++) {
        begin_chunk(reply, i, out);
        base_text_add(out, "\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"
                           "\"logprobs\":null");
        end_chunk(reply, API_UNFINISHED, out);
    }
}

void api_openai_delta(const api_reply *reply, size_t index, base_text *out)
{
    const api_choice *choice = &reply->choices[index];
    begin_chunk(reply, index, out);
    if (reply->form == API_CHAT) {
        const char *comma = "";
        base_text_add(out, "\"delta\":{");
        if (choice->reasoning.size) {
            base_text_add(out, "\"reasoning_content\":");
            api_add_text(out, &choice->reasoning);
            comma = ",";
        }
        if (choice->text.size || (!choice->n_calls && !choice->reasoning.size)) {
            base_text_printf(out, "%s\"content\":", comma);
            api_add_text(out, &choice->text);
            comma = ",";
        }
        if (choice->n_calls) {
            if (!*comma) /* the list begins with a comma */
                base_text_add(out, "\"content\":null");
            add_calls(choice, true, out);
        }
        base_text_add_char(out, '}');
    } else {
        base_text_add(out, "\"text\":");
        api_add_text(out, &choice->text);
    }
    add_tail(reply, choice, out);
    end_chunk(reply, API_UNFINISHED, out);
}

void api_openai_finish(const api_reply *reply, size_t index, base_text *out)
{
    begin_chunk(reply, index, out);
    base_text_add(out, reply->form == API_CHAT ? "\"delta\":{}" : "\"text\":\"\"");
    base_text_add(out, ",\"logprobs\":null");
    end_chunk(reply, reply->choices[index].finish, out);
}

void api_openai_end(const api_reply *reply, base_text *out)
{
    if (reply->include_usage) {
        base_text_add(out, "data: ");
        add_head(reply, true, out);
        base_text_add(out, "],\"usage\":");
        add_usage(reply, out);
        base_text_add(out, "}\n\n");
    }
    base_text_add(out, "data: [DONE]\n\n");
}
