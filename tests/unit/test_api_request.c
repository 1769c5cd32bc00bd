#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/memory.h"
#include "serve/api_request.h"

/* Reads a body, which must be fine. */
static api_request read_body(api_form form, const char *body)
{
    api_request request;
    api_refusal refusal;
    if (!api_request_parse(form, body, strlen(body), &request, &refusal))
        fail_msg("%s: %s", body, refusal.message);
    return request;
}

typedef struct bad {
    const char *body, *param, *part; /* of the message */
} bad;

static void check_refused(api_form form, const bad *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        api_request request;
        api_refusal refusal;
        if (api_request_parse(form, cases[i].body, strlen(cases[i].body), &request, &refusal))
            fail_msg("taken: %s", cases[i].body);
        assert_int_equal(refusal.status, 400);
        if (strcmp(refusal.param, cases[i].param) != 0 || !strstr(refusal.message, cases[i].part))
            fail_msg("%s: param \"%s\": %s", cases[i].body, refusal.param, refusal.message);
        api_request_free(&request);
    }
}

#define M                    "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define REFUSED(form, cases) check_refused(form, cases, sizeof cases / sizeof cases[0])

static void test_body(void **state)
{
    (void)state;
    static const bad cases[] = {
        {"", "", "no body"},
        {"[]", "", "not a JSON object"},
        {"{\"n\":1,\"n\":2}", "", "duplicate"},
        {"{\"model\":\"\xff\"}", "", "byte 0xff"},
        {"{\"model\":\"\\ud800\"}", "", "Unicode"},
        {"{\"n\": 1e999}", "", "overflow"},
        {"{\"temperature\": NaN}", "", "not valid JSON"},
        {"{\"tools\": [{\"maximum\": 18446744073709551615}]}", "",
         "line 1, column 43: a number out of the supported range: too big integer near "
         "'18446744073709551615'; whole numbers have 64 bits"},
        {"{\"temperature\": 1e999}", "", "out of the supported range"},
        {"{\"max_token\": 5, " M "}", "max_token", "did you mean \"max_tokens\""},
        {"{\"temprature\": 5, " M "}", "temprature", "did you mean \"temperature\""},
        {"{\"zebra\": 5, " M "}", "zebra", "no parameter \"zebra\" here"},
        {"{\"\xc3\xa9\": 5, " M "}", "\xc3\xa9", "no parameter"},
    };
    REFUSED(API_CHAT, cases);
}

static void test_depth(void **state)
{
    (void)state;
    char body[1000] = "{\"messages\":";
    for (int n = 62; n <= 63; n++) { /* and the object around, and the innermost */
        size_t at = strlen("{\"messages\":");
        for (int i = 0; i < n; i++)
            body[at++] = '[';
        at += (size_t)sprintf(body + at, "\"]]]]]]]]\\\"[[[[[[\",{}");
        for (int i = 0; i < n; i++)
            body[at++] = ']';
        body[at++] = '}';
        body[at] = '\0';
        api_request request;
        api_refusal refusal;
        assert_false(api_request_parse(API_CHAT, body, at, &request, &refusal));
        assert_int_equal(strstr(refusal.message, "64 deep") != NULL, n == 63);
        api_request_free(&request);
    }
}

/* Small values take far more memory than their text: {"prompt":[7,7,...]} and so on. */
static void test_many_values(void **state)
{
    (void)state;
    static const struct {
        const char *begin, *value, *end;
        size_t most; /* of them that are allowed */
        bool empty;  /* refused otherwise, for what they are */
    } cases[] = {
        {"{\"prompt\":[", "7", "]}", (1 << 20) - 9, false},
        {"{\"prompt\":[", "{}", "]}", ((1 << 20) - 9) / 9, true},
        {"{\"prompt\":[", "[]", "]}", ((1 << 20) - 9) / 2, true},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        for (size_t n = cases[c].most; n <= cases[c].most + 1; n++) {
            base_text body = {0};
            api_request request;
            api_refusal refusal;
            base_text_add(&body, cases[c].begin);
            for (size_t i = 0; i < n; i++) {
                base_text_add(&body, i ? "," : "");
                base_text_add(&body, cases[c].value);
            }
            base_text_add(&body, cases[c].end);
            assert_false(body.failed);
            bool fine = api_request_parse(API_COMPLETION, body.data, body.size, &request, &refusal);
            assert_true(fine == (!cases[c].empty && n == cases[c].most));
            assert_int_equal(strstr(refusal.message, "1048576 values") != NULL, n > cases[c].most);
            api_request_free(&request);
            base_text_free(&body);
        }
    }
}

/* A list of n messages, or a "metadata" of n members. */
static bool takes(const char *begin, const char *item, size_t n, const char *end,
                  api_refusal *refusal)
{
    base_text body = {0};
    api_request request;
    base_text_add(&body, begin);
    for (size_t i = 0; i < n; i++) {
        base_text_add(&body, i ? "," : "");
        base_text_printf(&body, item, i);
    }
    base_text_add(&body, end);
    bool fine = api_request_parse(API_CHAT, body.data, body.size, &request, refusal);
    api_request_free(&request);
    base_text_free(&body);
    return fine;
}

static void test_long_lists(void **state)
{
    (void)state;
    static const char message[] = "{\"role\":\"user\",\"content\":\"%zu\"}";
    api_refusal refusal;
    assert_true(takes("{\"messages\":[", message, API_MAX_MESSAGES, "]}", &refusal));
    assert_false(takes("{\"messages\":[", message, API_MAX_MESSAGES + 1, "]}", &refusal));
    assert_string_equal(refusal.param, "messages");
    assert_non_null(strstr(refusal.message, "at most 16384"));
    assert_true(takes("{" M ",\"metadata\":{", "\"%zu\":\"\"", 16, "}}", &refusal));
    assert_false(takes("{" M ",\"metadata\":{", "\"%zu\":\"\"", 17, "}}", &refusal));
    assert_string_equal(refusal.param, "metadata");
}

static void test_chat_refused(void **state)
{
    (void)state;
    static const bad cases[] = {
        {"{}", "messages", "missing"},
        {"{\"messages\":[]}", "messages", "empty"},
        {"{\"messages\":7}", "messages", "an integer where an array"},
        {"{\"messages\":[7]}", "messages", "objects"},
        {"{\"messages\":[{\"content\":\"x\"}]}", "messages[0].role", "missing"},
        {"{\"messages\":[{\"role\":\"bot\",\"content\":\"x\"}]}", "messages[0].role", "must be"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content", "missing"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"name\":\"Bo\"}]}",
         "messages[0].name", "participant"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"nmae\":\"Bo\"}]}",
         "messages[0].nmae", "did you mean \"name\""},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
         "messages[0].content[0].type", "only \"text\""},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[7]}]}", "messages[0].content[0].",
         "object"},
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "messages[0].tool_call_id",
         "missing"},
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"x\",\"tool_call_id\":\"a\"}]}",
         "messages", "answers no tool call"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\",\"type\":"
         "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}]}",
         "messages[0].tool_calls[0].function.arguments", "JSON object"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\",\"type\":"
         "\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},{\"role\":\"user\","
         "\"content\":\"\"}]}",
         "messages", "has no result"},
        {"{" M ",\"n\":0}", "n", "1 to 16"},
        {"{" M ",\"n\":17}", "n", "1 to 16"},
        {"{" M ",\"n\":1.0}", "n", "an integer"},
        {"{" M ",\"max_tokens\":-1}", "max_tokens", "outside"},
        {"{" M ",\"max_tokens\":4294967296}", "max_tokens", "outside"},
        {"{" M ",\"max_tokens\":4,\"max_completion_tokens\":5}", "max_tokens", "different"},
        {"{" M ",\"temperature\":\"1\"}", "temperature", "a number"},
        {"{" M ",\"temperature\":2.1}", "temperature", "0 to 2"},
        {"{" M ",\"top_p\":0}", "top_p", "likeliest"},
        {"{" M ",\"top_p\":1e-300}", "top_p", "likeliest"},
        {"{" M ",\"min_p\":1}", "min_p", "below 1"},
        {"{" M ",\"repetition_penalty\":0}", "repetition_penalty", "above 0"},
        {"{" M ",\"stop\":\"\"}", "stop", "1 to 256"},
        {"{" M ",\"stop\":[\"a\\u0000\"]}", "stop", "NUL"},
        {"{" M ",\"stop\":[1]}", "stop", "strings"},
        {"{" M ",\"logit_bias\":{\"x\":1}}", "logit_bias", "no token id"},
        {"{" M ",\"logit_bias\":{\"-1\":1}}", "logit_bias", "no token id"},
        {"{" M ",\"logit_bias\":{\"1\":101}}", "logit_bias", "-100 to 100"},
        {"{" M ",\"top_logprobs\":2}", "top_logprobs", "\"logprobs\": true"},
        {"{" M ",\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs", "0 to 20"},
        {"{" M ",\"stream_options\":{\"include_usage\":true}}", "stream_options", "\"stream\""},
        {"{" M ",\"stream\":true,\"stream_options\":{\"include_usages\":true}}",
         "stream_options.include_usages", "did you mean \"include_usage\""},
        {"{" M ",\"audio\":{}}", "audio", "text"},
        {"{" M ",\"modalities\":[\"text\",\"audio\"]}", "modalities", "[\"text\"]"},
        {"{" M ",\"store\":true}", "store", "no other value than false"},
        {"{" M ",\"service_tier\":\"flex\"}", "service_tier", "\"auto\"|\"default\""},
        {"{" M ",\"metadata\":{\"a\":1}}", "metadata", "strings"},
        {"{" M ",\"user\":1}", "user", "a string"},
        {"{" M ",\"functions\":[]}", "functions", "\"tools\""},
        {"{" M ",\"model\":\"\"}", "model", "1 to"},
        {"{" M ",\"response_format\":{\"type\":\"xml\"}}", "response_format.type", "json_schema"},
        {"{" M ",\"response_format\":{\"type\":\"json_schema\"}}", "response_format.json_schema",
         "missing"},
        {"{" M ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"a\"}}}",
         "response_format.json_schema.schema", "missing"},
        {"{" M ",\"tool_choice\":\"required\"}", "tool_choice", "no \"tools\""},
        {"{" M ",\"chat_template_kwargs\":{\"thinking\":true}}", "chat_template_kwargs.thinking",
         "no parameter"},
    };
    REFUSED(API_CHAT, cases);
}

#define F(name) "{\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"parameters\":{}}}"

static void test_tools(void **state)
{
    (void)state;
    static const bad cases[] = {
        {"{" M ",\"tools\":7}", "tools", "an array"},
        {"{" M ",\"tools\":[7]}", "tools", "objects"},
        {"{" M ",\"tools\":[{\"type\":\"web_search\"}]}", "tools[0].type", "\"function\""},
        {"{" M ",\"tools\":[{\"type\":\"function\"}]}", "tools[0].function", "missing"},
        {"{" M ",\"tools\":[" F("a b") "]}", "tools[0].function.name", "letters"},
        {"{" M ",\"tools\":[" F("a") "," F("a") "]}", "tools[1].function.name", "another"},
        {"{" M ",\"tools\":[" F("a") "],\"tool_choice\":\"any\"}", "tool_choice", "must be"},
        {"{" M ",\"tools\":[" F("a") "],\"tool_choice\":{\"type\":\"function\",\"function\":"
                                     "{\"name\":\"b\"}}}",
         "tool_choice", "no tool \"b\""},
        {"{" M ",\"tools\":[" F("a") "],\"response_format\":{\"type\":\"json_object\"}}",
         "response_format", "exclude"},
    };
    REFUSED(API_CHAT, cases);
    api_request r = read_body(API_CHAT, "{" M ",\"tools\":[" F("a") "]}");
    assert_int_equal(r.tool_choice, API_TOOL_AUTO);
    assert_string_equal(r.tools, "[" F("a") "]");
    assert_true(r.parallel);
    api_request_free(&r);
    r = read_body(API_CHAT,
                  "{" M ",\"tools\":[" F("a") "],\"tool_choice\":\"none\","
                                              "\"response_format\":{\"type\":\"json_object\"}}");
    assert_int_equal(r.tool_choice, API_TOOL_NONE);
    assert_null(r.tools);
    assert_int_equal(r.format, API_FORMAT_OBJECT);
    api_request_free(&r);
    r = read_body(API_CHAT,
                  "{" M
                  ",\"tools\":[" F("a") "," F("b") "],\"tool_choice\":{\"type\":"
                                                   "\"function\",\"function\":{\"name\":\"b\"}},"
                                                   "\"parallel_tool_calls\":false}");
    assert_int_equal(r.tool_choice, API_TOOL_NAMED);
    assert_string_equal(r.tool_name, "b");
    assert_false(r.parallel);
    api_request_free(&r);
}

static void test_chat(void **state)
{
    (void)state;
    api_request r = read_body(
        API_CHAT,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"developer\",\"content\":[{\"type\":\"text\","
        "\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\\u0000\"}]},{\"role\":\"user\","
        "\"content\":\"c\"}],\"max_completion_tokens\":9,\"temperature\":0,\"top_k\":-1,\"n\":2,"
        "\"seed\":-5,\"stop\":[\"x\",\"y\"],\"logit_bias\":{\"7\":-1.5},\"stream\":true,"
        "\"stream_options\":{\"include_usage\":true},\"logprobs\":true,\"top_logprobs\":3,"
        "\"user\":\"u\",\"store\":false,\"modalities\":[\"text\"],\"service_tier\":\"auto\","
        "\"audio\":null}");
    assert_string_equal(r.model, "m");
    assert_string_equal(r.messages, "[{\"role\":\"system\",\"content\":\"a\\nb\\u0000\"},"
                                    "{\"role\":\"user\",\"content\":\"c\"}]");
    assert_int_equal(r.max_tokens, 9);
    assert_int_equal(r.n, 2);
    assert_true(r.seeded && r.stream && r.include_usage && r.logprobs);
    assert_true(r.seed == (uint64_t)-5);
    assert_int_equal(r.n_stop, 2);
    assert_string_equal(r.stop[1], "y");
    assert_int_equal(r.n_top, 3);
    assert_int_equal(r.bias[0].id, 7);
    /* What was asked for stands over the model's own, what was not stays. */
    marco_sampling s = api_request_sampling(
        &r, (marco_sampling){.temperature = 0.7f, .top_k = 20, .top_p = 0.8f, .min_p = 0.1f});
    assert_true(s.temperature == 0 && s.top_k == 0 && s.top_p == 0.8f && s.min_p == 0.1f);
    assert_int_equal(s.n_logit_bias, 1);
    api_request_free(&r);
    r = read_body(API_CHAT, "{" M "}");
    assert_null(r.model);
    assert_int_equal(r.max_tokens, -1);
    assert_true(!r.seeded && !r.stream && isnan(r.temperature));
    api_request_free(&r);
}

/* Results stand in the order of the calls, whatever order they come in. */
static void test_results(void **state)
{
    (void)state;
    api_request r = read_body(
        API_CHAT,
        "{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"refusal\":null,\"tool_calls\":["
        "{\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}},"
        "{\"id\":\"b\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"b\",\"content\":\"2\"},"
        "{\"role\":\"tool\",\"tool_call_id\":\"a\",\"content\":\"1\"}]}");
    const char *first = strstr(r.messages, "\"content\":\"1\""),
               *second = strstr(r.messages, "\"content\":\"2\"");
    assert_true(first && second && first < second);
    api_request_free(&r);
}

static void test_completion(void **state)
{
    (void)state;
    static const bad cases[] = {
        {"{}", "prompt", "missing"},
        {"{\"prompt\":[]}", "prompt", "1 to 2048"},
        {"{\"prompt\":[[]]}", "prompt", "empty"},
        {"{\"prompt\":[1,\"a\"]}", "prompt", "other than an integer at place 1"},
        {"{\"prompt\":[\"a\",1]}", "prompt", "at place 1"},
        {"{\"prompt\":[-1]}", "prompt", "-1 is no token id"},
        {"{\"prompt\":[2147483648]}", "prompt", "no token id"},
        {"{\"prompt\":{}}", "prompt", "an object where"},
        {"{\"prompt\":\"a\",\"best_of\":2}", "best_of", "\"n\" 1"},
        {"{\"prompt\":\"a\",\"suffix\":\"b\"}", "suffix", "no gaps"},
        {"{\"prompt\":\"a\",\"logprobs\":true}", "logprobs", "an integer"},
        {"{\"prompt\":\"a\",\"logprobs\":21}", "logprobs", "0 to 20"},
        {"{\"prompt\":\"a\",\"messages\":[]}", "messages", "no parameter"},
    };
    REFUSED(API_COMPLETION, cases);
    api_request r =
        read_body(API_COMPLETION, "{\"prompt\":[[1,2],[3]],\"echo\":true,\"logprobs\":1,"
                                  "\"max_tokens\":0,\"best_of\":1,\"suffix\":null}");
    assert_int_equal(r.n_prompts, 2);
    assert_int_equal(r.prompts[0].n, 2);
    assert_int_equal(r.prompts[1].ids[0], 3);
    assert_int_equal(r.max_tokens, 0);
    assert_true(r.echo && r.logprobs);
    api_request_free(&r);
    r = read_body(API_COMPLETION, "{\"prompt\":[5]}");
    assert_int_equal(r.n_prompts, 1);
    assert_int_equal(r.prompts[0].ids[0], 5);
    assert_int_equal(r.max_tokens, 16);
    api_request_free(&r);
    r = read_body(API_COMPLETION, "{\"prompt\":[\"a\",\"\"],\"logprobs\":0}");
    assert_int_equal(r.n_prompts, 2);
    assert_int_equal(r.prompts[1].size, 0);
    assert_true(r.logprobs);
    api_request_free(&r);
}

#define T "\"max_tokens\":5,"

static void test_messages(void **state)
{
    (void)state;
    static const bad cases[] = {
        {"{" M "}", "max_tokens", "missing"},
        {"{" T M ",\"stop\":\"a\"}", "stop", "no parameter"},
        {"{" T "\"messages\":[{\"role\":\"system\",\"content\":\"a\"}]}", "messages[0].role",
         "user or assistant"},
        {"{" T "\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}", "messages",
         "continuing"},
        {"{" T "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
         "messages[0].content[0].type", "reads text"},
        {"{" T "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
         "{\"type\":\"tool_result\",\"tool_use_id\":\"a\"}]}]}",
         "messages[0].content[1].type", "before text"},
        {"{" T "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\","
         "\"tool_use_id\":\"a\"}]}]}",
         "messages", "answers no tool call"},
        {"{" T M ",\"temperature\":1.5}", "temperature", "0 to 1"},
        {"{" T M ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024}}",
         "thinking.budget_tokens", "how long"},
        {"{" T M ",\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}]}",
         "tools[0].type", "custom"},
        {"{" T M ",\"tool_choice\":{\"type\":\"any\"}}", "tool_choice", "no \"tools\""},
        {"{" T M ",\"tools\":[{\"name\":\"f\",\"input_schema\":{}}],\"tool_choice\":{\"type\":"
         "\"tool\",\"name\":\"g\"}}",
         "tool_choice.name", "no tool"},
    };
    REFUSED(API_MESSAGES, cases);
    api_request r = read_body(
        API_MESSAGES,
        "{" T "\"system\":[{\"type\":\"text\",\"text\":\"s\",\"cache_control\":{\"type\":"
        "\"ephemeral\"}}],\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":"
        "\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"t\"},{\"type\":\"tool_use\","
        "\"id\":\"i\",\"name\":\"f\",\"input\":{\"a\":1}}]},{\"role\":\"user\",\"content\":[{"
        "\"type\":\"tool_result\",\"tool_use_id\":\"i\",\"content\":\"r\",\"is_error\":true},{"
        "\"type\":\"text\",\"text\":\"go on\"}]}],\"tools\":[{\"name\":\"f\",\"description\":\"d\","
        "\"input_schema\":{\"type\":\"object\"}}],\"tool_choice\":{\"type\":\"any\","
        "\"disable_parallel_tool_use\":true},\"stop_sequences\":[\"z\"],\"metadata\":{\"user_id\":"
        "\"u\"}}");
    assert_string_equal(
        r.messages,
        "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"q\"},"
        "{\"role\":\"assistant\",\"content\":\"t\",\"tool_calls\":[{\"id\":\"i\",\"type\":"
        "\"function\",\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1}}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"i\",\"content\":\"Error: r\"},"
        "{\"role\":\"user\",\"content\":\"go on\"}]");
    assert_string_equal(r.tools, "[{\"type\":\"function\",\"function\":{\"name\":\"f\","
                                 "\"description\":\"d\",\"parameters\":{\"type\":\"object\"}}}]");
    assert_int_equal(r.tool_choice, API_TOOL_REQUIRED);
    assert_false(r.parallel);
    assert_int_equal(r.n_stop, 1);
    assert_int_equal(r.enable_thinking, 0);
    api_request_free(&r);
    r = read_body(API_COUNT, "{" M "}");
    assert_string_equal(r.messages, "[{\"role\":\"user\",\"content\":\"hi\"}]");
    api_request_free(&r);
}

/* Of several results with one id the first is the first call's. Those beyond the calls are
 * nobody's.
 */
static void test_result_order(void **state)
{
    (void)state;
#define CALL(id)                                                                                   \
    "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}"
#define RESULT(id, text) "{\"role\":\"tool\",\"tool_call_id\":\"" id "\",\"content\":\"" text "\"}"
#define CALLS                                                                                      \
    "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[" CALL("c") "," CALL("a") "," CALL(    \
        "a") "," CALL("b") "]},"
    api_request r = read_body(API_CHAT, CALLS RESULT("a", "1") "," RESULT("b", "2") "," RESULT(
                                            "a", "3") "," RESULT("c", "4") "]}");
    const char *at = r.messages;
    for (size_t i = 0; i < 4; i++) {
        static const char *const wanted[] = {"\"4\"", "\"1\"", "\"3\"", "\"2\""};
        at = strstr(at, "\"content\":");
        assert_non_null(at);
        at += strlen("\"content\":");
        assert_memory_equal(at, wanted[i], 3);
    }
    api_request_free(&r);
    static const bad cases[] = {
        {CALLS RESULT("a", "1") "," RESULT("b", "2") "," RESULT("a", "3") "]}", "messages",
         "\"c\" has no result"},
        {CALLS RESULT("a", "1") "," RESULT("b", "2") "," RESULT("a", "3") "," RESULT(
             "x", "4") "," RESULT("c", "5") "]}",
         "messages", "\"c\" has no result"},
        {CALLS RESULT("c", "1") "," RESULT("b", "2") "," RESULT("a", "3") "," RESULT(
             "a", "4") "," RESULT("b", "5") "]}",
         "messages", "answers no tool call"},
    };
    REFUSED(API_CHAT, cases);
}

/* Whatever request for memory fails: a refusal, and nothing lost. */
static void test_memory(void **state)
{
    (void)state;
    static const struct {
        api_form form;
        const char *body;
    } cases[] = {
        {API_CHAT, "{" M ",\"tools\":[" F("a") "],\"logit_bias\":{\"1\":2}}"},
        {API_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"
                   "\"a\"}]}],\"store\":false,\"response_format\":{\"type\":\"json_schema\","
                   "\"json_schema\":{\"name\":\"a\",\"schema\":{}}}}"},
        {API_COMPLETION, "{\"prompt\":[[1,2],[3]]}"},
        {API_MESSAGES, "{" T "\"system\":\"s\",\"messages\":[{\"role\":\"user\",\"content\":[{"
                       "\"type\":\"text\",\"text\":\"a\"}]}],\"tools\":[{\"name\":\"f\","
                       "\"input_schema\":{}}]}"},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        bool fine = false;
        for (uint64_t n = 1; !fine; n++) {
            api_request request;
            api_refusal refusal;
            base_alloc_fail_at(n);
            fine = api_request_parse(cases[c].form, cases[c].body, strlen(cases[c].body), &request,
                                     &refusal);
            base_alloc_fail_at(0);
            if (!fine)
                assert_int_equal(refusal.status, 503);
            api_request_free(&request);
            assert_true(n < 1000);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_body),         cmocka_unit_test(test_depth),
        cmocka_unit_test(test_chat_refused), cmocka_unit_test(test_tools),
        cmocka_unit_test(test_chat),         cmocka_unit_test(test_results),
        cmocka_unit_test(test_completion),   cmocka_unit_test(test_messages),
        cmocka_unit_test(test_memory),       cmocka_unit_test(test_many_values),
        cmocka_unit_test(test_long_lists),   cmocka_unit_test(test_result_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
