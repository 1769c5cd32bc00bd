/* Schemas that are refused: with the keyword and its place, and never with a crash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/text.h"
#include "grammar/grammar.h"

static void refuses(const char *schema, marco_status status, const char *message)
{
    marco_grammar *grammar;
    marco_error error = {0};
    marco_status got = marco_grammar_from_schema(schema, strlen(schema), &grammar, &error);
    if (got != status || grammar || !strstr(error.message, message))
        fail_msg("%.200s: status %d, '%s' lacks '%s'", schema, got, error.message, message);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *schema, *message;
    } unsupported[] = {
        {"{\"type\":\"object\",\"propertys\":{}}", "#: 'propertys'"},
        {"{\"properties\":{\"a\":{\"not\":{}}}}", "#/properties/a: the keyword 'not'"},
        {"{\"items\":{\"if\":true}}", "#/items: the keyword 'if'"},
        {"{\"uniqueItems\":true}", "'uniqueItems'"},
        {"{\"contains\":{}}", "'contains'"},
        {"{\"unevaluatedProperties\":false}", "'unevaluatedProperties'"},
        {"{\"dependentRequired\":{}}", "'dependentRequired'"},
        {"{\"properties\":{\"a/b\":{\"$dynamicRef\":\"#x\"}}}", "#/properties/a~1b"},
        {"{\"items\":{\"$id\":\"x\"}}", "'$id'"},
        {"{\"items\":[{}]}", "prefixItems"},
        {"{\"$ref\":\"https://example.com/a\"}", "within the document"},
        {"{\"$ref\":\"#name\"}", "within the document"},
        {"{\"type\":\"string\",\"format\":\"color\"}", "'color'"},
        {"{\"type\":\"string\",\"pattern\":\"a(?=b)\"}", "looking ahead"},
        {"{\"type\":\"string\",\"pattern\":\"(a)\\\\1\"}", "references to groups"},
        {"{\"type\":\"string\",\"pattern\":\"\\\\p{L}\"}", "\\p"},
        {"{\"type\":\"string\",\"pattern\":\"\\\\bx\"}", "\\b"},
        {"{\"type\":\"string\",\"pattern\":\"a{2000}\"}", "repetitions"},
        {"{\"type\":\"string\",\"pattern\":\"((a{1000}){1000}){1000}\"}", "too large"},
        {"{\"type\":\"string\",\"pattern\":\"^(a|b)*a(a|b){30}$\"}", "too large"},
        {"{\"properties\":{\"k\":{\"type\":\"string\",\"pattern\":\"^(a|b)*a(a|b){30}$\"}}}",
         "#/properties/k: too large"},
        {"{\"type\":\"number\",\"multipleOf\":0.1}", "'multipleOf'"},
        {"{\"items\":{\"allOf\":[{\"multipleOf\":7},{\"multipleOf\":999}]}}", "#/items/allOf/1: "},
        {"{\"type\":\"string\\u0000x\"}", "U+0000"},
        {"{\"type\":\"string\",\"format\":\"date\\u0000x\"}", "U+0000"},
        {"{\"const\":[\"a\\u0000\"]}", "#/const/0: a string with U+0000"},
        {"{\n\"maximum\":18446744073709551615}", "line 2, column 30: a number that 64 bits"},
        {"{\"const\":-9223372036854775809}", "a number that 64 bits"},
        {"{\"required\":[\"a\",\"\\u0000\"]}", "U+0000"},
        {"{\"type\":\"array\",\"minItems\":100000}", "items"},
        {"{\"type\":\"string\",\"minLength\":100000}", "'minLength'"},
        {"{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"string\",\"maxLength\":3}]}", "branches 0"},
        {"{\"oneOf\":[{\"properties\":{\"a\":{}}},{\"type\":\"string\"}]}", "'oneOf'"},
        {"{\"patternProperties\":{\"a\":{},\"b\":{}}}", "'patternProperties'"},
        {"{\"items\":{\"type\":\"number\",\"minimum\":1e-20,\"maximum\":1e-18}}",
         "#/items: bounds ('minimum'"},
        {"{\"items\":{\"minimum\":0.1234567890123456,\"maximum\":0.1234567890123458}}",
         "#/items: bounds ('minimum'"},
        {"{\"items\":{\"maximum\":1e60}}", "#/items: a bound ('minimum'"},
        {"{\"items\":{\"propertyNames\":{\"maxLength\":2}}}", "#/items: 'propertyNames'"},
        {"{\"patternProperties\":{\"^[a-z]+_id$\":{}},\"additionalProperties\":false}",
         "'patternProperties'"},
    };
    static const struct {
        const char *schema, *message;
    } wrong[] = {
        {"false", "false"},
        {"3", "an object or a boolean"},
        {"{\"enum\":[]}", "'enum'"},
        {"{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{},\"additionalProperties\":"
         "false}",
         "requires the property 'a'"},
        {"{\"type\":\"strin\"}", "'type' must be"},
        {"{\"type\":[\"null\",\"null\",\"null\",\"null\",\"null\",\"null\",\"null\",\"null\"]}",
         "'type' must be"},
        {"{\"type\":\"string\",\"minLength\":-1}", "'minLength' must be"},
        {"{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", "'maxLength'"},
        {"{\"type\":\"string\",\"pattern\":\"^a$\",\"minLength\":2}", "no string"},
        {"{\"type\":\"string\",\"pattern\":\"(a\"}", "'('"},
        {"{\"type\":\"string\",\"pattern\":\"[b-a]\"}", "range"},
        {"{\"type\":\"string\",\"pattern\":\"a**\"}", "nothing to repeat"},
        {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", "# has bounds ('minimum'"},
        {"{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "types"},
        {"{\"$ref\":\"#/$defs/x\"}", "no schema"},
        {"{\"$ref\":\"#\"}", "refers to itself"},
        {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", "refers to itself"},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
         "without end"},
        {"{\"type\":\"array\",\"minItems\":3,\"maxItems\":2}", "'maxItems'"},
        {"{\"type\":\"integer\",\"minimum\":0.5,\"maximum\":0.75}", "# has bounds ('minimum'"},
        {"{\"type\":\"integer\",\"minimum\":1.2,\"maximum\":1.8}", "# has bounds ('minimum'"},
        {"{\"multipleOf\":10,\"minimum\":1,\"maximum\":9}", "'multipleOf'"},
        {"{\"type\":\"object\",\"minProperties\":3,\"maxProperties\":2}",
         "# has a 'maxProperties'"},
        {"{\"maxProperties\":1,\"required\":[\"a\",\"b\"]}", "'required'"},
        {"{\"propertyNames\":{\"enum\":[\"a\",\"b\"]},\"minProperties\":3}", "'minProperties'"},
    };
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++)
        refuses(unsupported[i].schema, MARCO_ERROR_UNSUPPORTED, unsupported[i].message);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        refuses(wrong[i].schema, MARCO_ERROR_ARGUMENT, wrong[i].message);
    refuses("{\"type\":", MARCO_ERROR_FORMAT, "JSON");
    refuses("{\"type\":\"null\",\"type\":\"null\"}", MARCO_ERROR_FORMAT, "duplicate");
}

/* Schemas nested deep, wide, or with many alternatives are errors or small; never a crash. */
static void test_bounds(void **state)
{
    (void)state;
    static const struct {
        const char *before, *middle, *after;
        int times;
    } shapes[] = {
        {"{\"items\":", "{}", "}", 1000},
        {"{\"type\":\"array\",\"minItems\":1,\"items\":", "{}", "}", 400},
        {"{\"anyOf\":[{\"type\":\"null\"},", "{}", "]}", 600},
        {"{\"allOf\":[", "{}", "]}", 900},
        {"{\"enum\":[[", "0", "]]}", 1},
        {"{\"type\":\"string\",\"pattern\":\"(", "", ")\"}", 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        base_text text = {0};
        marco_grammar *grammar;
        marco_error error = {0};
        for (int k = 0; k < shapes[i].times; k++)
            base_text_add(&text, shapes[i].before);
        base_text_add(&text, shapes[i].middle);
        for (int k = 0; k < shapes[i].times; k++)
            base_text_add(&text, shapes[i].after);
        marco_status status = marco_grammar_from_schema(text.data, text.size, &grammar, &error);
        assert_true(status == MARCO_OK || error.message[0] != '\0');
        marco_grammar_free(grammar);
        base_text_free(&text);
    }
    base_text text = {0};
    base_text_add(&text, "{\"anyOf\":[");
    for (int i = 0; i < 300; i++)
        base_text_printf(&text, "%s{\"type\":\"null\"}", i ? "," : "");
    base_text_add(&text, "]}");
    refuses(text.data, MARCO_ERROR_UNSUPPORTED, "alternatives");
    base_text_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
