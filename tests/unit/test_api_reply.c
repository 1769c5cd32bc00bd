#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/memory.h"
#include "serve/api_reply.h"
#include "tokenizer/tokenizer.h"

static marco_tokenizer *byte_tokenizer(void)
{
    tok_spec *spec;
    marco_tokenizer *tokenizer;
    assert_int_equal(tok_spec_bytes(&spec, NULL), MARCO_OK);
    assert_int_equal(tok_compile(spec, &tokenizer, NULL), MARCO_OK);
    return tokenizer;
}

static void add(base_text *text, const char *s)
{
    base_text_clear(text);
    base_text_add(text, s);
}

/* The id that decodes to a byte. */
static int32_t id_of(const marco_tokenizer *tokenizer, unsigned char byte)
{
    base_text bytes = {0};
    int32_t id = 0;
    for (;; id++) {
        assert_true(id < marco_tokenizer_size(tokenizer));
        api_token_bytes(tokenizer, id, &bytes);
        if (bytes.size == 1 && (unsigned char)bytes.data[0] == byte)
            break;
    }
    base_text_free(&bytes);
    return id;
}

/* The member of an answer that a path such as "choices.0.text" leads to. */
static json_t *at_path(json_t *value, const char *path)
{
    while (*path) {
        char name[64];
        size_t n = strcspn(path, ".");
        memcpy(name, path, n);
        name[n] = '\0';
        value = json_is_array(value) ? json_array_get(value, strtoul(name, NULL, 10))
                                     : json_object_get(value, name);
        path += n + (path[n] == '.');
    }
    return value;
}

static void assert_text(json_t *root, const char *path, const char *want)
{
    const char *got = json_string_value(at_path(root, path));
    if (!got || strcmp(got, want) != 0)
        fail_msg("%s is %s, not %s", path, got ? got : "no string", want);
}

static json_t *parse(const char *text, size_t size)
{
    json_error_t problem;
    json_t *value = json_loadb(text, size, JSON_REJECT_DUPLICATES, &problem);
    if (!value)
        fail_msg("%s: %.*s", problem.text, (int)size, text);
    return value;
}

static json_t *whole(const api_reply *reply)
{
    base_text out = {0};
    api_write_whole(reply, &out);
    assert_false(out.failed);
    json_t *value = parse(out.data, out.size);
    base_text_free(&out);
    return value;
}

static api_reply reply_of(api_form form, api_choice *choices, size_t n)
{
    return (api_reply){.form = form,
                       .id = "id-1",
                       .model = "a \"model\"",
                       .created = 7,
                       .choices = choices,
                       .n = n,
                       .n_prompt = 10,
                       .n_cached = 4,
                       .n_reply = 3};
}

static void test_chat(void **state)
{
    (void)state;
    api_choice choices[2] = {{.finish = API_FINISH_STOP}, {.finish = API_FINISH_CALLS}};
    api_reply reply = reply_of(API_CHAT, choices, 2);
    add(&choices[0].text, "a\n\"b\"\x01");
    add(&choices[0].reasoning, "why");
    assert_true(api_choice_add_call(&choices[1], API_CHAT, "f", "{\"x\": 1}", 8));
    assert_true(api_choice_add_call(&choices[1], API_CHAT, "g", "{}", 2));
    json_t *root = whole(&reply);
    assert_text(root, "object", "chat.completion");
    assert_text(root, "model", "a \"model\"");
    assert_text(root, "choices.0.message.content", "a\n\"b\"\x01");
    assert_text(root, "choices.0.message.reasoning_content", "why");
    assert_text(root, "choices.0.finish_reason", "stop");
    assert_null(at_path(root, "choices.0.message.tool_calls"));
    assert_true(json_is_null(at_path(root, "choices.1.message.content")));
    assert_text(root, "choices.1.message.tool_calls.0.function.arguments", "{\"x\": 1}");
    assert_text(root, "choices.1.message.tool_calls.1.function.name", "g");
    assert_text(root, "choices.1.finish_reason", "tool_calls");
    const char *id = json_string_value(at_path(root, "choices.1.message.tool_calls.0.id")),
               *other = json_string_value(at_path(root, "choices.1.message.tool_calls.1.id"));
    assert_int_equal(strlen(id), strlen("call_") + 24);
    assert_string_not_equal(id, other);
    assert_int_equal(json_integer_value(at_path(root, "usage.total_tokens")), 13);
    assert_int_equal(json_integer_value(at_path(root, "usage.prompt_tokens_details.cached_tokens")),
                     4);
    json_decref(root);
    for (int i = 0; i < 2; i++)
        api_choice_free(&choices[i]);
}

/* The next event's JSON, and its name in *event where that is asked for; *at moves on. */
static json_t *next_event(const char **at, char event[40])
{
    if (event) {
        assert_memory_equal(*at, "event: ", 7);
        size_t n = strcspn(*at + 7, "\n");
        memcpy(event, *at + 7, n);
        event[n] = '\0';
        *at += 7 + n + 1;
    }
    assert_memory_equal(*at, "data: ", 6);
    const char *end = strstr(*at, "\n\n");
    assert_non_null(end);
    json_t *value = parse(*at + 6, (size_t)(end - *at - 6));
    *at = end + 2;
    return value;
}

static void test_chat_stream(void **state)
{
    (void)state;
    api_choice choice = {0};
    api_reply reply = reply_of(API_CHAT, &choice, 1);
    reply.include_usage = true;
    base_text out = {0};
    api_write_start(&reply, &out);
    api_write_delta(&reply, 0, &out); /* there is nothing to say */
    add(&choice.text, "a");
    api_write_delta(&reply, 0, &out);
    assert_true(api_choice_add_call(&choice, API_CHAT, "f", "{}", 2));
    api_write_delta(&reply, 0, &out);
    assert_true(api_choice_add_call(&choice, API_CHAT, "g", "{}", 2));
    add(&choice.text, "b");
    api_write_delta(&reply, 0, &out);
    choice.finish = API_FINISH_CALLS;
    api_write_finish(&reply, 0, &out);
    api_write_end(&reply, &out);
    const char *at = out.data;
    json_t *chunk = next_event(&at, NULL);
    assert_text(chunk, "object", "chat.completion.chunk");
    assert_text(chunk, "choices.0.delta.role", "assistant");
    assert_true(json_is_null(at_path(chunk, "usage")));
    json_decref(chunk);
    chunk = next_event(&at, NULL);
    assert_text(chunk, "choices.0.delta.content", "a");
    assert_true(json_is_null(at_path(chunk, "choices.0.finish_reason")));
    json_decref(chunk);
    chunk = next_event(&at, NULL);
    assert_text(chunk, "choices.0.delta.tool_calls.0.function.name", "f");
    assert_int_equal(json_integer_value(at_path(chunk, "choices.0.delta.tool_calls.0.index")), 0);
    json_decref(chunk);
    chunk = next_event(&at, NULL);
    assert_text(chunk, "choices.0.delta.content", "b");
    assert_int_equal(json_integer_value(at_path(chunk, "choices.0.delta.tool_calls.0.index")), 1);
    json_decref(chunk);
    chunk = next_event(&at, NULL);
    assert_text(chunk, "choices.0.finish_reason", "tool_calls");
    json_decref(chunk);
    chunk = next_event(&at, NULL);
    assert_int_equal(json_array_size(at_path(chunk, "choices")), 0);
    assert_int_equal(json_integer_value(at_path(chunk, "usage.completion_tokens")), 3);
    json_decref(chunk);
    assert_string_equal(at, "data: [DONE]\n\n");
    base_text_free(&out);
    api_choice_free(&choice);
}

static void test_messages_stream(void **state)
{
    (void)state;
    static const char *const want[] = {
        "message_start",       "ping",
        "content_block_start", "content_block_delta",
        "content_block_delta", "content_block_stop",
        "content_block_start", "content_block_delta",
        "content_block_stop",  "content_block_start",
        "content_block_delta", "content_block_stop",
        "message_delta",       "message_stop",
    };
    api_choice choice = {0};
    api_reply reply = reply_of(API_MESSAGES, &choice, 1);
    base_text out = {0};
    api_write_start(&reply, &out);
    add(&choice.reasoning, "hm");
    api_write_delta(&reply, 0, &out);
    add(&choice.reasoning, "hm");
    api_write_delta(&reply, 0, &out);
    add(&choice.text, "a");
    assert_true(api_choice_add_call(&choice, API_MESSAGES, "f", "{\"x\": 1}", 8));
    api_write_delta(&reply, 0, &out);
    choice.finish = API_FINISH_STRING;
    choice.stop = base_strdup("END");
    api_write_finish(&reply, 0, &out);
    api_write_end(&reply, &out);
    const char *at = out.data;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        char name[40];
        json_t *event = next_event(&at, name);
        assert_string_equal(name, want[i]);
        assert_text(event, "type", want[i]);
        if (i == 0)
            assert_text(event, "message.role", "assistant");
        if (i == 7)
            assert_text(event, "delta.text", "a");
        if (i == 9)
            assert_text(event, "content_block.name", "f");
        if (i == 10)
            assert_text(event, "delta.partial_json", "{\"x\": 1}");
        if (i == 11)
            assert_int_equal(json_integer_value(at_path(event, "index")), 2);
        if (i == 12) {
            assert_text(event, "delta.stop_reason", "stop_sequence");
            assert_text(event, "delta.stop_sequence", "END");
            assert_int_equal(json_integer_value(at_path(event, "usage.input_tokens")), 6);
        }
        json_decref(event);
    }
    assert_string_equal(at, "");
    base_text_free(&out);
    api_choice_free(&choice);
}

static void test_messages(void **state)
{
    (void)state;
    api_choice choice = {.finish = API_FINISH_CALLS};
    api_reply reply = reply_of(API_MESSAGES, &choice, 1);
    assert_true(api_choice_add_call(&choice, API_MESSAGES, "f", "{\"x\": 1}", 8));
    json_t *root = whole(&reply);
    assert_text(root, "content.0.type", "tool_use");
    assert_int_equal(json_integer_value(at_path(root, "content.0.input.x")), 1);
    assert_text(root, "stop_reason", "tool_use");
    json_decref(root);
    api_choice_clear(&choice);
    choice.finish = API_FINISH_LENGTH;
    root = whole(&reply);
    assert_text(root, "content.0.text", "");
    assert_text(root, "stop_reason", "max_tokens");
    json_decref(root);
    api_choice_free(&choice);
}

/* Every token has a name of its own, and equal scores are equal numbers. */
static void test_scores(void **state)
{
    (void)state;
    marco_tokenizer *tokenizer = byte_tokenizer();
    int32_t a = id_of(tokenizer, 'a'), half = id_of(tokenizer, 0xC3);
    int32_t padding = marco_tokenizer_size(tokenizer) + 5;
    const marco_token_score top[] = {{half, -0.1f}, {padding, -1.1f}};
    marco_token_event event = {.id = a, .logprob = NAN};
    api_choice choice = {.finish = API_FINISH_LENGTH};
    api_reply reply = reply_of(API_COMPLETION, &choice, 1);
    reply.logprobs = true;
    api_choice_add_scores(&choice, API_COMPLETION, tokenizer, &event, 0);
    event.logprob = -2.3f;
    event.top = top;
    event.n_top = 2;
    api_choice_add_scores(&choice, API_COMPLETION, tokenizer, &event, 1);
    event.id = half;
    event.logprob = -0.1f;
    api_choice_add_scores(&choice, API_COMPLETION, tokenizer, &event, 2);
    json_t *root = whole(&reply);
    assert_text(root, "object", "text_completion");
    assert_text(root, "choices.0.logprobs.tokens.0", "a");
    assert_text(root, "choices.0.logprobs.tokens.2", "bytes:\\xc3");
    assert_true(json_is_null(at_path(root, "choices.0.logprobs.token_logprobs.0")));
    assert_true(json_is_null(at_path(root, "choices.0.logprobs.top_logprobs.0")));
    json_t *tops = at_path(root, "choices.0.logprobs.top_logprobs.1");
    assert_int_equal(json_object_size(tops), 3); /* the chosen one too */
    assert_true((float)json_real_value(json_object_get(tops, "a")) == -2.3f);
    char name[40];
    snprintf(name, sizeof name, "token_id:%d", padding);
    assert_non_null(json_object_get(tops, name));
    tops = at_path(root, "choices.0.logprobs.top_logprobs.2");
    assert_int_equal(json_object_size(tops), 2);
    assert_true(json_real_value(json_object_get(tops, "bytes:\\xc3")) ==
                json_real_value(at_path(root, "choices.0.logprobs.token_logprobs.2")));
    assert_int_equal(json_integer_value(at_path(root, "choices.0.logprobs.text_offset.2")), 2);
    json_decref(root);
    api_choice_clear(&choice);
    reply.form = API_CHAT;
    api_choice_add_scores(&choice, API_CHAT, tokenizer, &event, 0);
    root = whole(&reply);
    assert_text(root, "choices.0.logprobs.content.0.token", "bytes:\\xc3");
    assert_int_equal(json_integer_value(at_path(root, "choices.0.logprobs.content.0.bytes.0")),
                     0xC3);
    assert_true(json_is_null(at_path(root, "choices.0.logprobs.content.0.top_logprobs.1.bytes")));
    json_decref(root);
    api_choice_free(&choice);
    marco_tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat),     cmocka_unit_test(test_chat_stream),
        cmocka_unit_test(test_messages), cmocka_unit_test(test_messages_stream),
        cmocka_unit_test(test_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
