/* What compiling schemas takes, in steps instead of time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/text.h"
#include "grammar/internal.h"

/* Compiles `head`, `n` items of which `item` makes one of a number, and `tail`. Returns the steps
 * that took. */
static uint64_t work_of(const char *head, const char *item, int n, const char *tail, size_t *size)
{
    base_text text = {0};
    json_error_t problem;
    marco_grammar *grammar;
    marco_error error = {0};
    gr_build b;
    base_text_add(&text, head);
    for (int i = 0; i < n; i++) {
        const char *number = strchr(item, '@');
        base_text_add(&text, i ? "," : "");
        base_text_add_n(&text, item, (size_t)(number - item));
        base_text_printf(&text, "%d%s", i, number + 1);
    }
    base_text_add(&text, tail);
    assert_false(text.failed);
    json_t *root = json_loadb(text.data, text.size, 0, &problem);
    const json_t *schemas[1] = {root};
    assert_non_null(root);
    *size = text.size;
    gr_build_begin(&b, &error);
    marco_status status = gr_build_end(&b, gr_schema_rule(&b, root, schemas, 1, "#"), &grammar);
    if (status)
        fail_msg("%.60s...: %s", text.data, error.message);
    /* A finished grammar, with what is remembered about its nodes. */
    size_t table = grammar->table ? (size_t)grammar->n_nodes * (size_t)grammar->n_classes : 0;
    assert_true((size_t)grammar->n_nodes * (sizeof(gr_node) + 8) + 4 * table <= 24u << 20);
    marco_grammar_free(grammar);
    json_decref(root);
    base_text_free(&text);
    return b.work;
}

/* Twice as wide a document takes twice the time, whatever it is wide with. */
static void test_wide(void **state)
{
    static const struct {
        const char *head, *item, *tail;
        int n;
    } shapes[] = {
        {"{\"items\":{\"pattern\":\"a\",\"enum\":[", "\"a@\"", "]}}", 4000},
        {"{\"enum\":[", "\"value @\"", "]}", 10000},
        {"{\"enum\":[", "{\"a\":[@]}", "],\"required\":[\"a\"]}", 4000},
        {"{\"prefixItems\":[", "{\"const\":@}", "]}", 2000},
        {"{\"prefixItems\":[", "{\"pattern\":\"^a@$\",\"maxLength\":9}", "]}", 500},
        {"{\"prefixItems\":[", "{\"type\":\"string\",\"format\":\"uri\",\"title\":\"@\"}", "]}",
         500},
        {"{\"$defs\":{\"a\":{\"const\":1}},\"prefixItems\":[",
         "{\"$ref\":\"#/$defs/a\",\"title\":\"@\"}", "]}", 2000},
        {"{\"default\":[", "[@,0,0,0,0,0,0,0]", "],\"properties\":{\"a\":{\"pattern\":\"a\"}}}",
         20000},
        {"{\"additionalProperties\":false,\"properties\":{\"a\":{}},\"examples\":[", "\"@\"", "]}",
         20000},
    };
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        size_t size, twice;
        uint64_t once = work_of(shapes[i].head, shapes[i].item, shapes[i].n, shapes[i].tail, &size);
        uint64_t work =
            work_of(shapes[i].head, shapes[i].item, 2 * shapes[i].n, shapes[i].tail, &twice);
        if (2 * work > 5 * once + 100000)
            fail_msg("shape %zu: %zu bytes take %llu steps, %zu take %llu", i, size,
                     (unsigned long long)once, twice, (unsigned long long)work);
    }
}

static void gives_up(const base_text *text)
{
    marco_grammar *grammar;
    marco_error error = {0};
    assert_false(text->failed);
    marco_status status = marco_grammar_from_schema(text->data, text->size, &grammar, &error);
    assert_int_equal(status, MARCO_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "too large"));
}

/* What would not end soon is given up: many values, each held against much. */
static void test_given_up(void **state)
{
    base_text text = {0};
    (void)state;
    base_text_add(&text, "{\"allOf\":[{\"enum\":[");
    for (int i = 0; i < 3000; i++)
        base_text_printf(&text, "%s{\"a\":%d}", i ? "," : "", i);
    base_text_add(&text, "]},{\"required\":[\"a\"");
    for (int i = 0; i < 20000; i++)
        base_text_add(&text, ",\"a\"");
    base_text_add(&text, "]}]}");
    gives_up(&text);
    base_text_clear(&text);
    base_text_add(&text, "{\"allOf\":[");
    for (int k = 0; k < 2; k++) {
        base_text_add(&text, k ? "]},{\"enum\":[" : "{\"enum\":[");
        for (int i = 0; i < 300; i++) {
            base_text_add(&text, i ? ",[" : "[");
            for (int n = 0; n < 300; n++)
                base_text_add(&text, "0,");
            base_text_printf(&text, "%d]", i);
        }
    }
    base_text_add(&text, "]}]}");
    gives_up(&text);
    base_text_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wide),
        cmocka_unit_test(test_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
