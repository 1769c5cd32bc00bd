#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/text.h"
#include "serve/api_parser.h"

/* What a reply was taken apart into: T(text) R(reasoning) C(name|arguments), neighbours of a kind
 * as one. */
typedef struct seen {
    base_text all;
    char kind;
} seen;

static void note(seen *s, char kind, const char *text, size_t size)
{
    if (s->kind != kind || kind == 'C') {
        if (s->kind)
            base_text_add_char(&s->all, ')');
        base_text_printf(&s->all, "%c(", kind);
    }
    s->kind = kind;
    base_text_add_n(&s->all, text, size);
}

static void on_text(void *user, const char *text, size_t size)
{
    assert_true(size > 0);
    note(user, 'T', text, size);
}

static void on_reasoning(void *user, const char *text, size_t size)
{
    assert_true(size > 0);
    note(user, 'R', text, size);
}

static void on_call(void *user, const char *name, const char *arguments, size_t size)
{
    seen *s = user;
    note(s, 'C', name, strlen(name));
    base_text_add_char(&s->all, '|');
    base_text_add_n(&s->all, arguments, size);
}

/* Takes a reply apart that comes in pieces of `step` bytes. */
static char *take_apart(api_reasoning reasoning, bool tools, const char *reply, size_t step)
{
    seen s = {0};
    const api_parser_events events = {&s, on_text, on_reasoning, on_call};
    api_parser *p = api_parser_create(reasoning, tools, &events);
    assert_non_null(p);
    size_t size = strlen(reply);
    for (size_t at = 0; at < size; at += step)
        assert_true(api_parser_add(p, reply + at, size - at < step ? size - at : step));
    assert_true(api_parser_end(p));
    api_parser_free(p);
    if (s.kind)
        base_text_add_char(&s.all, ')');
    return base_text_take(&s.all, &size);
}

static void check(api_reasoning reasoning, bool tools, const char *reply, const char *want)
{
    for (size_t step = 1; step <= strlen(reply) + 1; step++) {
        char *got = take_apart(reasoning, tools, reply, step);
        if (strcmp(got, want) != 0)
            fail_msg("%s in pieces of %zu: %s, not %s", reply, step, got, want);
        base_free(got);
    }
}

#define CALL(name, arguments)                                                                      \
    "<tool_call>\n{\"name\": \"" name "\", \"arguments\": " arguments "}\n</tool_call>"

static void test_calls(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},
        {"Hello\n", "T(Hello\n)"},
        {CALL("f", "{}"), "C(f|{})"},
        {"Let me see.\n" CALL("f", "{\"a\": [1, \"}\"]}"),
         "T(Let me see.)C(f|{\"a\": [1, \"}\"]})"},
        {"See.\n\n" CALL("f", "{}") "\n", "T(See.\n)C(f|{})"},
        {CALL("f", "{}") "\n" CALL("g", "{\"x\": {}}") "\n" CALL("f", "{}"),
         "C(f|{})C(g|{\"x\": {}})C(f|{})"},
        {CALL("f", "{}") CALL("g", "{}"), "C(f|{})C(g|{})"},
        {CALL("f", "{}") "\nDone.", "C(f|{})T(\nDone.)"},
        {CALL("f", "{\"n\": 123456789012345678901234567890}"),
         "C(f|{\"n\": 123456789012345678901234567890})"},
        {CALL("f", "{}") "\n<tool", "C(f|{})T(\n<tool)"},
        {CALL("f", "{}") "\n<tool> " CALL("g", "{}"), "C(f|{})T(\n<tool> )C(g|{})"},
        /* The tags within strings are text. */
        {CALL("f", "{\"a\": \"or </tool_call>\"}"), "C(f|{\"a\": \"or </tool_call>\"})"},
        {CALL("f", "{\"a\": \"</tool_call>\"}"), "C(f|{\"a\": \"</tool_call>\"})"},
        {CALL("f", "{\"a\": \"\\\"<tool_call>\\\\\"}"), "C(f|{\"a\": \"\\\"<tool_call>\\\\\"})"},
        /* As the model wrote it, spaces and all; also where the last tag is missing. */
        {"<tool_call>{\"arguments\" :\t{ \"n\":1.50 } ,\"name\":\"f\"}", "C(f|{ \"n\":1.50 })"},
        {"<tool_call>{\"x\": {\"arguments\": 1}}</tool_call>",
         "T(<tool_call>{\"x\": {\"arguments\": 1}}</tool_call>)"},
        {"<tool_call>{\"name\": \"arguments\", \"arguments\": {\"arguments\": {}}}</tool_call>",
         "C(arguments|{\"arguments\": {}})"},
        {"<tool_call>{\"name\": \"f\", \"\\u0061rguments\": {\"b\": 1}}</tool_call>",
         "C(f|{\"b\": 1})"},
        /* What is no call stays in the text, all of it. */
        {"a < b <tool_cal", "T(a < b <tool_cal)"},
        {"<tool_call>", "T(<tool_call>)"},
        {"<tool_call>\nnot JSON\n</tool_call> after",
         "T(<tool_call>\nnot JSON\n</tool_call> after)"},
        {"<tool_call>{\"name\": \"f\"}</tool_call>", "T(<tool_call>{\"name\": \"f\"}</tool_call>)"},
        {"<tool_call>{\"name\": 7, \"arguments\": {}}</tool_call>",
         "T(<tool_call>{\"name\": 7, \"arguments\": {}}</tool_call>)"},
        {"<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>",
         "T(<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>)"},
        {"<tool_call>{\"name\": \"f\", \"arguments\": []}</tool_call>",
         "T(<tool_call>{\"name\": \"f\", \"arguments\": []}</tool_call>)"},
        {"<tool_call>{\"name\": \"f\", \"arguments\": {}, \"arguments\": {}}</tool_call>",
         "T(<tool_call>{\"name\": \"f\", \"arguments\": {}, \"arguments\": {}}</tool_call>)"},
        {"<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"</tool_call>",
         "T(<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"</tool_call>)"},
        {"<tool_call>no</tool_call>\n" CALL("f", "{}"), "T(<tool_call>no</tool_call>)C(f|{})"},
        {"a\n<tool_call>no</tool_call>", "T(a\n<tool_call>no</tool_call>)"},
        {CALL("f", "{}") " \n<tool_call>no</tool_call>", "C(f|{})T( \n<tool_call>no</tool_call>)"},
        {"<tool_call>{</tool", "T(<tool_call>{</tool)"},
        {"<tool_call>{\"\\", "T(<tool_call>{\"\\)"},
        {"</tool_call><think>", "T(</tool_call><think>)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check(API_REASONING_NONE, true, cases[i][0], cases[i][1]);
    check(API_REASONING_NONE, false, CALL("f", "{}"), "T(" CALL("f", "{}") ")");
}

static void test_reasoning(void **state)
{
    (void)state;
    static const char *const may[][2] = {
        {"<think>\nWell\n\n.\n</think>\n\nYes\n", "R(Well\n\n.)T(Yes\n)"},
        {"\n<think></think>Yes", "T(Yes)"},
        {"<think>\n\n</think>\n\n" CALL("f", "{}"), "C(f|{})"},
        {"<think>never ends\n", "R(never ends)"},
        {"<thin", "T(<thin)"},
        {"<b>", "T(<b>)"},
        {"Hm <think>a</think>", "T(Hm <think>a</think>)"},
        {"<think>" CALL("f", "{}") "</think>", "R(" CALL("f", "{}") ")"},
    };
    for (size_t i = 0; i < sizeof may / sizeof may[0]; i++)
        check(API_REASONING_MAY, true, may[i][0], may[i][1]);
    check(API_REASONING_BEGUN, true, "Well\n</think>\n\nYes", "R(Well)T(Yes)");
    check(API_REASONING_BEGUN, false, "\n\nWell", "R(Well)");
}

/* Text is handed on as soon as it is certain. */
static void test_prompt(void **state)
{
    (void)state;
    seen s = {0};
    const api_parser_events events = {&s, on_text, on_reasoning, on_call};
    api_parser *p = api_parser_create(API_REASONING_NONE, true, &events);
    assert_true(api_parser_add(p, "a <tool_", 8));
    assert_string_equal(s.all.data, "T(a ");
    assert_true(api_parser_add(p, "box>", 4));
    assert_string_equal(s.all.data, "T(a <tool_box>");
    api_parser_free(p);
    base_text_free(&s.all);
}

static void test_memory(void **state)
{
    (void)state;
    static const char reply[] = "x " CALL("f", "{}") "y";
    for (uint64_t n = 1, fine = 0; !fine; n++) {
        seen s = {0};
        const api_parser_events events = {&s, on_text, on_reasoning, on_call};
        base_alloc_fail_at(n);
        api_parser *p = api_parser_create(API_REASONING_NONE, true, &events);
        fine = p && api_parser_add(p, reply, sizeof reply - 1) && api_parser_end(p);
        base_alloc_fail_at(0);
        api_parser_free(p);
        base_text_free(&s.all);
        assert_true(n < 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_reasoning),
        cmocka_unit_test(test_prompt),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
