#include "serve/api_reply.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/memory.h"
#include "format/json.h"

/* ---- choices ------------------------------------------------------------------------------- */

static void free_calls(api_choice *choice)
{
    for (size_t i = 0; i < choice->n_calls; i++) {
        base_free(choice->calls[i].name);
        base_free(choice->calls[i].arguments);
    }
    choice->n_calls = 0;
}

void api_choice_clear(api_choice *choice)
{
    base_text *const all[] = {&choice->text,   &choice->reasoning, &choice->tokens,
                              &choice->values, &choice->tops,      &choice->offsets};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        base_text_clear(all[i]);
    free_calls(choice);
}

size_t api_choice_bytes(const api_choice *choice)
{
    size_t bytes = choice->text.size + choice->reasoning.size + choice->tokens.size +
                   choice->values.size + choice->tops.size + choice->offsets.size;
    for (size_t i = 0; i < choice->n_calls; i++)
        bytes += sizeof *choice->calls + strlen(choice->calls[i].arguments);
    return bytes;
}

void api_choice_free(api_choice *choice)
{
    free_calls(choice);
    base_free(choice->calls);
    base_text *const all[] = {&choice->text,   &choice->reasoning, &choice->tokens,
                              &choice->values, &choice->tops,      &choice->offsets};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        base_text_free(all[i]);
    base_free(choice->stop);
    *choice = (api_choice){0};
}

void api_random_id(char *out, size_t size, const char *prefix)
{
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    unsigned char bytes[24] = {0};
    /* So few bytes come at once or, where the system has no such call, not at all. */
    ssize_t got = getrandom(bytes, sizeof bytes, 0);
    (void)got;
    char text[sizeof bytes + 1] = {0};
    for (size_t i = 0; i < sizeof bytes; i++)
        text[i] = letters[bytes[i] % (sizeof letters - 1)];
    snprintf(out, size, "%s%s", prefix, text);
}

bool api_choice_add_call(api_choice *choice, api_form form, const char *name, const char *arguments,
                         size_t size)
{
    void *calls = choice->calls;
    if (!base_grow(&calls, &choice->calls_capacity, choice->n_calls + 1, sizeof *choice->calls))
        return false;
    choice->calls = calls;
    api_call call = {.index = choice->calls_seen,
                     .name = base_strdup(name),
                     .arguments = base_strndup(arguments, size)};
    api_random_id(call.id, sizeof call.id, form == API_MESSAGES ? "toolu_" : "call_");
    if (!call.name || !call.arguments) {
        base_free(call.name);
        base_free(call.arguments);
        return false;
    }
    choice->calls[choice->n_calls++] = call;
    choice->calls_seen++;
    return true;
}

/* ---- scores -------------------------------------------------------------------------------- */

void api_token_bytes(const marco_tokenizer *tokenizer, int32_t id, base_text *bytes)
{
    char *text;
    size_t size;
    base_text_clear(bytes);
    if (id >= marco_tokenizer_size(tokenizer))
        return; /* a vocabulary may be padded */
    if (marco_tokenizer_decode(tokenizer, &id, 1, true, &text, &size, NULL)) {
        bytes->failed = true;
        return;
    }
    base_text_add_n(bytes, text, size);
    marco_free(text);
}

void api_token_name(const char *bytes, size_t size, int32_t id, base_text *name)
{
    base_text_clear(name);
    if (size == 0) {
        base_text_printf(name, "token_id:%d", id);
    } else if (base_utf8_check(bytes, size) == size) {
        base_text_add_n(name, bytes, size);
    } else {
        base_text_add(name, "bytes:");
        for (size_t i = 0; i < size; i++)
            base_text_printf(name, "\\x%02x", (unsigned char)bytes[i]);
    }
}

/* Nine digits say a float exactly, so that equal scores are equal for the client too. */
static void add_number(base_text *out, float number)
{
    if (isnan(number))
        base_text_add(out, "null");
    else
        base_text_printf(out, "%.9g", isinf(number) ? -9999.0 : (double)number);
}

static void add_chat_score(base_text *out, const char *bytes, size_t size, int32_t id,
                           float logprob)
{
    base_text name = {0};
    api_token_name(bytes, size, id, &name);
    base_text_add(out, "{\"token\":");
    format_json_escape(out, name.data ? name.data : "", name.size);
    base_text_add(out, ",\"logprob\":");
    add_number(out, logprob);
    base_text_add(out, ",\"bytes\":");
    for (size_t i = 0; i < size; i++)
        base_text_printf(out, "%c%d", i ? ',' : '[', (unsigned char)bytes[i]);
    base_text_add(out, size ? "]" : "null");
    out->failed = out->failed || name.failed;
    base_text_free(&name);
}

static void add_chat_scores(api_choice *choice, const marco_tokenizer *tokenizer,
                            const marco_token_event *event)
{
    base_text *out = &choice->tokens, bytes = {0};
    if (out->size)
        base_text_add_char(out, ',');
    api_token_bytes(tokenizer, event->id, &bytes);
    add_chat_score(out, bytes.data, bytes.size, event->id, event->logprob);
    base_text_add(out, ",\"top_logprobs\":[");
    for (size_t i = 0; i < event->n_top; i++) {
        if (i)
            base_text_add_char(out, ',');
        api_token_bytes(tokenizer, event->top[i].id, &bytes);
        add_chat_score(out, bytes.data, bytes.size, event->top[i].id, event->top[i].logprob);
        base_text_add_char(out, '}');
    }
    base_text_add(out, "]}");
    out->failed = out->failed || bytes.failed;
    base_text_free(&bytes);
}

/* A name that stands in the object `map`, as JSON from its offset `start` on, is that of another
 * token with the same text: the id tells them apart. */
static void add_top(base_text *map, size_t start, const marco_tokenizer *tokenizer,
                    marco_token_score score)
{
    base_text bytes = {0}, name = {0}, key = {0};
    api_token_bytes(tokenizer, score.id, &bytes);
    api_token_name(bytes.data, bytes.size, score.id, &name);
    base_text_add_char(&key, map->size == start + 1 ? '{' : ',');
    format_json_escape(&key, name.data ? name.data : "", name.size);
    base_text_add_char(&key, ':');
    if (key.data && map->data &&
        memmem(map->data + start, map->size - start, key.data + 1, key.size - 1)) {
        base_text_clear(&key);
        base_text_printf(&key, ",\"token_id:%d\":", score.id);
    }
    if (key.data)
        base_text_add_n(map, key.data + (key.data[0] == '{'), key.size - (key.data[0] == '{'));
    add_number(map, score.logprob);
    map->failed = map->failed || bytes.failed || name.failed || key.failed;
    base_text_free(&bytes);
    base_text_free(&name);
    base_text_free(&key);
}

static void add_legacy_scores(api_choice *choice, const marco_tokenizer *tokenizer,
                              const marco_token_event *event, size_t offset)
{
    base_text bytes = {0}, name = {0}, *tops = &choice->tops;
    const char *comma = choice->tokens.size ? "," : "";
    api_token_bytes(tokenizer, event->id, &bytes);
    api_token_name(bytes.data, bytes.size, event->id, &name);
    base_text_add(&choice->tokens, comma);
    format_json_escape(&choice->tokens, name.data ? name.data : "", name.size);
    base_text_add(&choice->values, comma);
    add_number(&choice->values, event->logprob);
    base_text_printf(&choice->offsets, "%s%zu", comma, offset);
    base_text_add(tops, comma);
    if (isnan(event->logprob)) {
        base_text_add(tops, "null");
    } else {
        size_t start = tops->size;
        bool among = false;
        base_text_add_char(tops, '{');
        for (size_t i = 0; i < event->n_top; i++) {
            add_top(tops, start, tokenizer, event->top[i]);
            among = among || event->top[i].id == event->id;
        }
        if (!among)
            add_top(tops, start, tokenizer, (marco_token_score){event->id, event->logprob});
        base_text_add_char(tops, '}');
    }
    tops->failed = tops->failed || bytes.failed || name.failed;
    base_text_free(&bytes);
    base_text_free(&name);
}

void api_choice_add_scores(api_choice *choice, api_form form, const marco_tokenizer *tokenizer,
                           const marco_token_event *event, size_t offset)
{
    if (form == API_COMPLETION)
        add_legacy_scores(choice, tokenizer, event, offset);
    else
        add_chat_scores(choice, tokenizer, event);
}

void api_add_string(base_text *out, const char *text)
{
    format_json_escape(out, text, strlen(text));
}

void api_add_text(base_text *out, const base_text *text)
{
    format_json_escape(out, text->data ? text->data : "", text->size);
    out->failed = out->failed || text->failed;
}

/* ---- by API -------------------------------------------------------------------------------- */

void api_write_whole(const api_reply *reply, base_text *out)
{
    if (reply->form == API_MESSAGES)
        api_anthropic_whole(reply, out);
    else
        api_openai_whole(reply, out);
}

void api_write_start(api_reply *reply, base_text *out)
{
    if (reply->form == API_MESSAGES)
        api_anthropic_start(reply, out);
    else
        api_openai_start(reply, out);
}

void api_write_delta(api_reply *reply, size_t index, base_text *out)
{
    const api_choice *c = &reply->choices[index];
    if (c->text.size == 0 && c->reasoning.size == 0 && c->n_calls == 0 && c->tokens.size == 0)
        return;
    if (reply->form == API_MESSAGES)
        api_anthropic_delta(reply, index, out);
    else
        api_openai_delta(reply, index, out);
    api_choice_clear(&reply->choices[index]);
}

void api_write_finish(api_reply *reply, size_t index, base_text *out)
{
    if (reply->form == API_MESSAGES)
        api_anthropic_finish(reply, index, out);
    else
        api_openai_finish(reply, index, out);
}

void api_write_end(const api_reply *reply, base_text *out)
{
    if (reply->form == API_MESSAGES)
        api_anthropic_end(reply, out);
    else
        api_openai_end(reply, out);
}

void api_write_error(api_form form, int status, const char *message, base_text *out)
{
    bool anthropic = form == API_MESSAGES;
    const char *type = status == 400   ? "invalid_request_error"
                       : status == 429 ? "rate_limit_error"
                       : status == 503 ? (anthropic ? "overloaded_error" : "server_error")
                                       : (anthropic ? "api_error" : "server_error");
    if (anthropic)
        base_text_add(out, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":");
    else
        base_text_add(out, "data: {\"error\":{\"type\":");
    format_json_escape(out, type, strlen(type));
    base_text_add(out, ",\"message\":");
    format_json_escape(out, message, strlen(message));
    if (!anthropic)
        base_text_printf(out, ",\"param\":null,\"code\":%d", status);
    base_text_add(out, "}}\n\n");
}

void api_write_progress(api_form form, size_t done, size_t total, base_text *out)
{
    if (form == API_MESSAGES)
        base_text_add(out, "event: ping\ndata: {\"type\":\"ping\"}\n\n");
    base_text_printf(out, ": prompt %zu/%zu\n\n", done, total);
}
