/* Replies as Anthropic's API has them. */
#include <string.h>

#include "serve/api_reply.h"

static const char *finish_name(api_finish finish)
{
    switch (finish) {
    case API_UNFINISHED:
        break;
    case API_FINISH_STOP:
        return "\"end_turn\"";
    case API_FINISH_STRING:
        return "\"stop_sequence\"";
    case API_FINISH_LENGTH:
        return "\"max_tokens\"";
    case API_FINISH_CALLS:
        return "\"tool_use\"";
    }
    return "null";
}

/* input_tokens are those that were not in the cache. */
static void add_usage(const api_reply *reply, base_text *out)
{
    base_text_printf(out,
                     "\"usage\":{\"input_tokens\":%zu,\"cache_creation_input_tokens\":0,"
                     "\"cache_read_input_tokens\":%zu,\"output_tokens\":%zu}",
                     reply->n_prompt - reply->n_cached, reply->n_cached, reply->n_reply);
}

static void add_stop(const api_choice *choice, base_text *out)
{
    base_text_printf(out, "\"stop_reason\":%s,\"stop_sequence\":", finish_name(choice->finish));
    if (choice->stop)
        api_add_string(out, choice->stop);
    else
        base_text_add(out, "null");
}

static void add_head(const api_reply *reply, base_text *out)
{
    base_text_add(out, "{\"id\":");
    api_add_string(out, reply->id);
    base_text_add(out, ",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
    api_add_string(out, reply->model);
    base_text_add(out, ",\"content\":[");
}

void api_anthropic_whole(const api_reply *reply, base_text *out)
{
    const api_choice *choice = &reply->choices[0];
    const char *comma = "";
    add_head(reply, out);
    if (choice->reasoning.size) {
        base_text_add(out, "{\"type\":\"thinking\",\"thinking\":");
        api_add_text(out, &choice->reasoning);
        base_text_add(out, ",\"signature\":\"\"}");
        comma = ",";
    }
    if (choice->text.size || (!*comma && !choice->n_calls)) {
        base_text_printf(out, "%s{\"type\":\"text\",\"text\":", comma);
        api_add_text(out, &choice->text);
        base_text_add_char(out, '}');
        comma = ",";
    }
    for (size_t i = 0; i < choice->n_calls; i++) {
        const api_call *call = &choice->calls[i];
        base_text_printf(out, "%s{\"type\":\"tool_use\",\"id\":", comma);
        api_add_string(out, call->id);
        base_text_add(out, ",\"name\":");
        api_add_string(out, call->name);
        base_text_printf(out, ",\"input\":%s}", call->arguments);
        comma = ",";
    }
    base_text_add(out, "],");
    add_stop(choice, out);
    base_text_add_char(out, ',');
    add_usage(reply, out);
    base_text_add_char(out, '}');
}

/* ---- a stream ------------------------------------------------------------------------------ */

void api_anthropic_start(const api_reply *reply, base_text *out)
{
    base_text_add(out, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":");
    add_head(reply, out);
    base_text_add(out, "],\"stop_reason\":null,\"stop_sequence\":null,");
    add_usage(reply, out);
    base_text_add(out, "}}\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n");
}

static void close_block(api_reply *reply, base_text *out)
{
    if (reply->block)
        base_text_printf(out,
                         "event: content_block_stop\n"
                         "data: {\"type\":\"content_block_stop\",\"index\":%zu}\n\n",
                         reply->blocks - 1);
    reply->block = NULL;
}

/* A piece of a block of `type`, "text" or "thinking", which is begun where it is not open. */
static void add_piece(api_reply *reply, const char *type, const base_text *text, base_text *out)
{
    bool thinking = strcmp(type, "thinking") == 0;
    if (!reply->block || strcmp(reply->block, type) != 0) {
        close_block(reply, out);
        base_text_printf(out,
                         "event: content_block_start\n"
                         "data: {\"type\":\"content_block_start\",\"index\":%zu,"
                         "\"content_block\":{\"type\":\"%s\",\"%s\":\"\"%s}}\n\n",
                         reply->blocks++, type, type, thinking ? ",\"signature\":\"\"" : "");
        reply->block = type;
    }
    base_text_printf(out,
                     "event: content_block_delta\n"
                     "data: {\"type\":\"content_block_delta\",\"index\":%zu,"
                     "\"delta\":{\"type\":\"%s_delta\",\"%s\":",
                     reply->blocks - 1, type, type);
    api_add_text(out, text);
    base_text_add(out, "}}\n\n");
}

static void add_call(api_reply *reply, const api_call *call, base_text *out)
{
    close_block(reply, out);
    base_text_printf(out,
                     "event: content_block_start\n"
                     "data: {\"type\":\"content_block_start\",\"index\":%zu,"
                     "\"content_block\":{\"type\":\"tool_use\",\"id\":",
                     reply->blocks++);
    api_add_string(out, call->id);
    base_text_add(out, ",\"name\":");
    api_add_string(out, call->name);
    base_text_printf(out,
                     ",\"input\":{}}}\n\n"
                     "event: content_block_delta\n"
                     "data: {\"type\":\"content_block_delta\",\"index\":%zu,"
                     "\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":",
                     reply->blocks - 1);
    api_add_string(out, call->arguments);
    base_text_add(out, "}}\n\n");
    reply->block = "tool_use";
    close_block(reply, out);
}

void api_anthropic_delta(api_reply *reply, size_t index, base_text *out)
{
    const api_choice *choice = &reply->choices[index];
    if (choice->reasoning.size)
        add_piece(reply, "thinking", &choice->reasoning, out);
    if (choice->text.size)
        add_piece(reply, "text", &choice->text, out);
    for (size_t i = 0; i < choice->n_calls; i++)
        add_call(reply, &choice->calls[i], out);
}

void api_anthropic_finish(api_reply *reply, size_t index, base_text *out)
{
    (void)index; /* there is one only, which api_anthropic_end tells of */
    static const base_text nothing = {0};
    if (reply->blocks == 0) /* as in a whole reply: an empty text is one */
        add_piece(reply, "text", &nothing, out);
    close_block(reply, out);
}

void api_anthropic_end(const api_reply *reply, base_text *out)
{
    base_text_add(out, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{");
    add_stop(&reply->choices[0], out);
    base_text_add(out, "},");
    add_usage(reply, out);
    base_text_add(out, "}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}
