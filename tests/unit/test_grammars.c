/* The store of compiled grammars: one for equal requests, kept while held, bounded. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/memory.h"
#include "serve/grammars.h"

static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},"
                            "{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]";

static const marco_grammar *get(serve_grammars *g, serve_grammar_kind kind, const char *text,
                                const char *tool)
{
    marco_error error = {0};
    const marco_grammar *grammar;
    if (serve_grammars_get(g, kind, text, tool, &grammar, &error))
        fail_msg("%s", error.message);
    return grammar;
}

static const marco_grammar *get_number(serve_grammars *g, int number)
{
    char schema[64];
    snprintf(schema, sizeof schema, "{\"const\":%d}", number);
    return get(g, SERVE_GRAMMAR_SCHEMA, schema, NULL);
}

static void equal_requests_share_one(void **state)
{
    (void)state;
    serve_grammars *g;
    assert_int_equal(serve_grammars_create(&g, NULL), MARCO_OK);
    const marco_grammar *all[] = {
        get(g, SERVE_GRAMMAR_OBJECT, NULL, NULL),
        get_number(g, 1),
        get_number(g, 2),
        get(g, SERVE_GRAMMAR_TOOL, tools, NULL),
        get(g, SERVE_GRAMMAR_TOOLS, tools, NULL),
        get(g, SERVE_GRAMMAR_TOOL, tools, "f"),
        get(g, SERVE_GRAMMAR_TOOL, tools, "g"),
    };
    enum { N = sizeof all / sizeof *all };
    for (size_t i = 0; i < N; i++)
        for (size_t k = 0; k < i; k++)
            assert_ptr_not_equal(all[i], all[k]);
    assert_ptr_equal(get_number(g, 1), all[1]);
    assert_ptr_equal(get(g, SERVE_GRAMMAR_TOOL, tools, "g"), all[6]);
    serve_grammars_release(g, all[1]);
    serve_grammars_release(g, all[6]);
    for (size_t i = 0; i < N; i++)
        serve_grammars_release(g, all[i]);
    assert_ptr_equal(get_number(g, 2), all[2]); /* kept though nobody held it */
    serve_grammars_release(g, all[2]);
    serve_grammars_free(g);
}

/* What is held stays; what is not gives way to the later ones. Freed ones show under a sanitizer.
 */
static void the_latest_are_kept(void **state)
{
    (void)state;
    serve_grammars *g;
    assert_int_equal(serve_grammars_create(&g, NULL), MARCO_OK);
    const marco_grammar *held = get_number(g, 0);
    for (int i = 1; i < 40; i++)
        serve_grammars_release(g, get_number(g, i));
    assert_ptr_equal(get_number(g, 0), held);
    serve_grammars_release(g, held);
    serve_grammars_release(g, held);
    serve_grammars_free(g);
}

static void refusals_are_not_kept(void **state)
{
    (void)state;
    serve_grammars *g;
    const marco_grammar *grammar;
    assert_int_equal(serve_grammars_create(&g, NULL), MARCO_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            serve_grammars_get(g, SERVE_GRAMMAR_SCHEMA, "{\"not\":{}}", NULL, &grammar, NULL),
            MARCO_ERROR_UNSUPPORTED);
        assert_null(grammar);
    }
    for (uint64_t n = 1;; n++) {
        base_alloc_fail_at(n);
        marco_status status = serve_grammars_get(g, SERVE_GRAMMAR_SCHEMA, "{\"type\":\"null\"}",
                                                 NULL, &grammar, NULL);
        base_alloc_fail_at(0);
        if (!status)
            break;
        assert_int_equal(status, MARCO_ERROR_MEMORY);
    }
    serve_grammars_release(g, grammar);
    serve_grammars_free(g);
}

static void *use(void *user)
{
    serve_grammars *g = user;
    for (int i = 0; i < 60; i++) {
        const marco_grammar *grammar = get_number(g, i % 12);
        serve_grammars_release(g, grammar);
    }
    return NULL;
}

static void threads_share_them(void **state)
{
    enum { N = 3 };
    (void)state;
    pthread_t threads[N];
    serve_grammars *g;
    assert_int_equal(serve_grammars_create(&g, NULL), MARCO_OK);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use, g), 0);
    for (size_t i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    serve_grammars_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_requests_share_one),
        cmocka_unit_test(the_latest_are_kept),
        cmocka_unit_test(refusals_are_not_kept),
        cmocka_unit_test(threads_share_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
