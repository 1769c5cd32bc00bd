#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "format/json.h"

static json_t *parse(const char *text)
{
    json_t *value = NULL;
    marco_error error = {0};
    if (format_json_text("doc", text, strlen(text), &value, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    return value;
}

static void test_text(void **state)
{
    (void)state;
    static const char *const fine[] = {"{}", " [1, 2.5e3, null, true] ", "\"text\"", "7", "null"};
    for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++)
        json_decref(parse(fine[i]));
    /* NUL in a string is kept. */
    json_t *value = parse("\"a\\u0000b\"");
    assert_int_equal(json_string_length(value), 3);
    json_decref(value);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"", "line 1"},
        {"{\"a\": 1,\n\"a\": 2}", "line 2"},
        {"{} {}", "end of file expected"},
        {"{\"a\": 1,}", "line 1, column 9"},
        {"[NaN]", "NaN"},
        {"[1e999]", "overflow"},
        {"[99999999999999999999]", "too big integer"},
        {"\"\xff\"", "byte 0xff"},
        {"\"\\ud800\"", "Unicode"},
        {"{\"a\\u0000b\": 1}", "NUL"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *value = NULL;
        marco_error error = {0};
        assert_int_equal(
            format_json_text("doc", cases[i].text, strlen(cases[i].text), &value, &error),
            MARCO_ERROR_FORMAT);
        if (strncmp(error.message, "doc: line ", 10) != 0 || !strstr(error.message, cases[i].part))
            fail_msg("%s: \"%s\"", cases[i].text, error.message);
        assert_null(value);
    }
}

static void test_deep(void **state)
{
    (void)state;
    enum { DEPTH = 10000 };
    char *text = test_malloc(2 * DEPTH);
    json_t *value = NULL;
    marco_error error = {0};
    memset(text, '[', DEPTH);
    memset(text + DEPTH, ']', DEPTH);
    assert_int_equal(format_json_text("doc", text, 2 * DEPTH, &value, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "depth"));
    test_free(text);
}

static void test_file(void **state)
{
    (void)state;
    char path[64];
    json_t *value = NULL;
    marco_error error = {0};
    int fd = memfd_create("json", MFD_CLOEXEC);
    assert_int_equal(write(fd, "[1, 2]", 6), 6);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    assert_int_equal(format_json_file(path, 6, &value, &error), MARCO_OK);
    assert_int_equal(json_array_size(value), 2);
    json_decref(value);
    value = NULL;
    assert_int_equal(format_json_file(path, 5, &value, &error), MARCO_ERROR_FORMAT);
    base_alloc_fail_at(1);
    marco_status status = format_json_file(path, 6, &value, &error);
    base_alloc_fail_at(0);
    assert_int_equal(status, MARCO_ERROR_MEMORY);
    assert_int_equal(format_json_file("no-such.json", 6, &value, NULL), MARCO_ERROR_NOT_FOUND);
    assert_null(value);
    close(fd);
}

static void test_file_with_big_integers(void **state)
{
    (void)state;
    static const char text[] =
        "{\"model_max_length\": 1000000000000000019884624838656,\n\"most\": 9223372036854775807, "
        "\"least\":-9223372036854775808, \"text 99999999999999999999\": "
        "\"\\\"99999999999999999999\\\\\",\"list\": [-9223372036854775809,18446744073709551616], "
        "\"real\": 99999999999999999999.5, \"power\": 99999999999999999999E1}";
    char path[64];
    json_t *value = NULL;
    marco_error error = {0};
    int64_t n = 0;
    double x = 0;
    const char *s = NULL;
    int fd = memfd_create("json", MFD_CLOEXEC);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (format_json_file(path, sizeof text, &value, &error))
        fail_msg("%s", error.message);
    assert_int_equal(format_json_real("c", value, "model_max_length", 0, 1e31, &x, NULL), MARCO_OK);
    assert_true(x == 1e30);
    /* Where an integer belongs it is refused, and those that fit are integers still. */
    assert_int_equal(format_json_int("c", value, "model_max_length", 0, INT64_MAX, &n, &error),
                     MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "64 bits"));
    assert_int_equal(format_json_int("c", value, "most", 0, INT64_MAX, &n, NULL), MARCO_OK);
    assert_true(n == INT64_MAX);
    assert_int_equal(format_json_int("c", value, "least", INT64_MIN, 0, &n, NULL), MARCO_OK);
    assert_true(n == INT64_MIN);
    assert_int_equal(format_json_string("c", value, "text 99999999999999999999", &s, NULL),
                     MARCO_OK);
    assert_string_equal(s, "\"99999999999999999999\\");
    json_t *list = json_object_get(value, "list");
    assert_true(json_real_value(json_array_get(list, 0)) == -9223372036854775808.0);
    assert_true(json_real_value(json_array_get(list, 1)) == 18446744073709551616.0);
    assert_true(json_real_value(json_object_get(value, "real")) == 1e20);
    assert_true(json_real_value(json_object_get(value, "power")) == 1e21);
    json_decref(value);
    for (uint64_t i = 1; i <= 2; i++) { /* the file, the changed copy */
        base_alloc_fail_at(i);
        marco_status status = format_json_file(path, sizeof text, &value, NULL);
        base_alloc_fail_at(0);
        assert_int_equal(status, MARCO_ERROR_MEMORY);
    }
    close(fd);
}

static void test_escape(void **state)
{
    (void)state;
    static const char text[] = "a\"\\/\b\f\n\r\t\x01\x1f\x7f\0\xC3\xA9\xE2\x80\xA8";
    base_text out = {0};
    format_json_escape(&out, text, sizeof text - 1);
    assert_string_equal(out.data, "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\\u0000"
                                  "\xC3\xA9\xE2\x80\xA8\"");
    json_t *value = parse(out.data);
    assert_int_equal(json_string_length(value), sizeof text - 1);
    assert_memory_equal(json_string_value(value), text, sizeof text - 1);
    json_decref(value);
    base_text_clear(&out);
    format_json_escape(&out, "", 0);
    assert_string_equal(out.data, "\"\"");
    base_text_free(&out);
}

static void test_int(void **state)
{
    (void)state;
    json_t *object =
        parse("{\"n\": -3, \"max\": 9223372036854775807, \"real\": 1.0, \"none\": null,"
              " \"text\": \"1\"}");
    marco_error error = {0};
    int64_t n = 11;
    assert_int_equal(format_json_int("doc", object, "absent", 0, 1, &n, &error), MARCO_OK);
    assert_int_equal(format_json_int("doc", object, "none", 0, 1, &n, &error), MARCO_OK);
    assert_int_equal(n, 11);
    assert_int_equal(format_json_int("doc", object, "n", -2, 9, &n, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "doc: \"n\" is -3"));
    assert_int_equal(format_json_int("doc", object, "n", -9, -4, &n, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(format_json_int("doc", object, "real", 0, 9, &n, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(format_json_int("doc", object, "text", 0, 9, &n, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "a string where an integer"));
    assert_int_equal(n, 11);
    assert_int_equal(format_json_int("doc", object, "n", -3, -3, &n, &error), MARCO_OK);
    assert_int_equal(n, -3);
    assert_int_equal(format_json_int("doc", object, "max", 0, INT64_MAX, &n, &error), MARCO_OK);
    assert_true(n == INT64_MAX);
    json_decref(object);
}

static void test_real(void **state)
{
    (void)state;
    json_t *object = parse("{\"eps\": 1e-6, \"theta\": 1000000, \"flag\": true}");
    marco_error error = {0};
    double x = 11;
    assert_int_equal(format_json_real("doc", object, "absent", 0, 1, &x, &error), MARCO_OK);
    assert_true(x == 11);
    assert_int_equal(format_json_real("doc", object, "theta", 1, 1e6, &x, &error), MARCO_OK);
    assert_true(x == 1e6);
    assert_int_equal(format_json_real("doc", object, "eps", 1e-6, 1, &x, &error), MARCO_OK);
    assert_true(x == 1e-6);
    assert_int_equal(format_json_real("doc", object, "eps", 1e-5, 1, &x, &error),
                     MARCO_ERROR_FORMAT);
    assert_int_equal(format_json_real("doc", object, "flag", 0, 1, &x, &error), MARCO_ERROR_FORMAT);
    assert_true(x == 1e-6);
    json_decref(object);
}

static void test_bool_and_string(void **state)
{
    (void)state;
    json_t *object = parse("{\"yes\": true, \"no\": false, \"one\": 1, \"s\": \"text\", "
                           "\"nul\": \"a\\u0000\"}");
    json_t *array = parse("[]");
    marco_error error = {0};
    bool b = true;
    const char *s = "before";
    assert_int_equal(format_json_bool("doc", object, "absent", &b, &error), MARCO_OK);
    assert_true(b);
    assert_int_equal(format_json_bool("doc", object, "no", &b, &error), MARCO_OK);
    assert_false(b);
    assert_int_equal(format_json_bool("doc", object, "yes", &b, &error), MARCO_OK);
    assert_true(b);
    assert_int_equal(format_json_bool("doc", object, "one", &b, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(format_json_string("doc", object, "absent", &s, &error), MARCO_OK);
    assert_string_equal(s, "before");
    assert_int_equal(format_json_string("doc", object, "nul", &s, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(format_json_string("doc", object, "yes", &s, &error), MARCO_ERROR_FORMAT);
    assert_string_equal(s, "before");
    assert_int_equal(format_json_string("doc", object, "s", &s, &error), MARCO_OK);
    assert_string_equal(s, "text");
    /* Not an object at all. */
    assert_int_equal(format_json_string("doc", array, "s", &s, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "an array where an object"));
    assert_int_equal(format_json_bool("doc", NULL, "s", &b, &error), MARCO_ERROR_FORMAT);
    json_decref(object);
    json_decref(array);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_deep),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_file_with_big_integers),
        cmocka_unit_test(test_escape),
        cmocka_unit_test(test_int),
        cmocka_unit_test(test_real),
        cmocka_unit_test(test_bool_and_string),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
