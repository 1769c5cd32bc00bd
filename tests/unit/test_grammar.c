/* Grammars: what texts they allow, that masks are exact, threads, and running out of memory on the
 * way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <pthread.h>

#include "base/memory.h"
#include "base/random.h"
#include "base/text.h"
#include "grammar/grammar.h"
#include "tokenizer/tokenizer.h"

/* ---- a small vocabulary -------------------------------------------------------------------- */

/* Ids 0 to 255 are the bytes; then these, an end, a special one that is never allowed, and one
 * without text. */
static const char *const longer[] = {
    "{\"",
    "\":",
    "\": ",
    "\",",
    "\", \"",
    "\"}",
    "}}",
    "]}",
    "]]",
    "[[",
    "{\"a\":",
    "true",
    "fal",
    "null",
    "12",
    "123",
    "-1",
    ".5",
    "0.",
    "e+",
    "ab",
    "abc",
    "abcd",
    "name",
    "\"name\"",
    "  ",
    "\\\"",
    "\\n",
    "\\u00",
    "\"\\",
    "\xC3\xA9",
    "\xD8\xA7\xD9",
    "\x84",
    "\xF0\x9F",
    "\x98\x80",
    "\xE2\x80\xA8",
    "a\"",
    "a\",\"",
    "\"\"",
    "\"\":",
    "[\"",
    "\"]",
    ",{",
    "},{",
    "\n",
    "<tool_call>",
    "</tool_call>",
    "\n{\"name\"",
    "}\n</",
    "2024-",
    "\xED\xA0",
    "\xC0\x80",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "{",
    "\x01",
};

enum { N_LONGER = sizeof longer / sizeof longer[0], END = 256 + N_LONGER, N_TOKENS = END + 3 };

typedef struct words {
    char bytes[1024];
    uint32_t offsets[N_TOKENS + 1];
    uint8_t kinds[N_TOKENS];
    marco_tokenizer tokenizer;
    grammar_vocab *vocab;
} words;

static void fill_words(words *w)
{
    size_t size = 0;
    for (int id = 0; id < N_TOKENS; id++) {
        char byte = (char)id;
        const char *text = id < 256 ? &byte : id < END ? longer[id - 256] : "<|x|>";
        size_t n = id < 256 ? 1 : id == END + 2 ? 0 : strlen(text);
        memcpy(w->bytes + size, text, n);
        w->offsets[id] = (uint32_t)size;
        w->kinds[id] = id == END + 2                    ? TOK_KIND_NONE
                       : id >= END                      ? TOK_KIND_SPECIAL
                       : id >= 256 && strchr(text, '<') ? TOK_KIND_ADDED
                                                        : TOK_KIND_ORDINARY;
        size += n;
    }
    w->offsets[N_TOKENS] = (uint32_t)size;
    w->tokenizer = (marco_tokenizer){
        .size = N_TOKENS, .bytes = w->bytes, .offsets = w->offsets, .kinds = w->kinds};
}

static int set_up(void **state)
{
    static words w;
    int32_t end = END;
    marco_error error;
    fill_words(&w);
    if (grammar_vocab_create(&w.tokenizer, N_TOKENS + 5, &end, 1, &w.vocab, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    *state = &w;
    return 0;
}

static int tear_down(void **state)
{
    grammar_vocab_free(((words *)*state)->vocab);
    return 0;
}

static marco_grammar *compiled(const char *schema)
{
    marco_grammar *grammar;
    marco_error error = {0};
    if (marco_grammar_from_schema(schema, strlen(schema), &grammar, &error))
        fail_msg("%s: %s", schema, error.message);
    return grammar;
}

static grammar_state *begun(const words *w, const marco_grammar *grammar)
{
    grammar_state *state;
    marco_error error;
    if (grammar_state_create(grammar, w->vocab, &state, &error))
        fail_msg("%s", error.message);
    return state;
}

/* Is the text, byte by byte, a whole one? */
static bool allows(const words *w, const marco_grammar *grammar, const char *text)
{
    grammar_state *state = begun(w, grammar);
    bool good = true;
    for (size_t i = 0; good && text[i]; i++)
        good = grammar_state_accept(state, (uint8_t)text[i], NULL) == MARCO_OK;
    good = good && grammar_state_may_end(state);
    grammar_state_free(state);
    return good;
}

/* ---- languages ----------------------------------------------------------------------------- */

/* Of each schema, texts that it allows, then texts that it does not. */
static const struct {
    const char *schema, *good[8], *bad[10];
} languages[] = {
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":"
     "\"boolean\"}},\"required\":[\"a\"],\"additionalProperties\":false}",
     {"{\"a\":1}", "{\"a\": -20, \"b\": true}", "{\"a\":0,\"b\":false}"},
     {"{}", "{\"b\":true}", "{\"a\":1.5}", "{\"a\":01}", "{\"a\":-0}", "{\"a\":1,}",
      "{\"b\":true,\"a\":1}", "{\"a\":  1}", "{ \"a\":1}", "{\"a\":1,\"a\":2}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"}},\"additionalProperties\":{"
     "\"type\":\"integer\"}}",
     {"{}", "{\"a\":null}", "{\"b\":1}", "{\"a\":null,\"ab\":1,\"\":2}", "{\"A\":1}"},
     {"{\"a\":1}", "{\"b\":null}", "{\"b\":1,\"a\":null}", "{\"\\u0061\":1}", "{\"b\":1,\"b\":2}",
      "{\"a\":null,\"a\":null}", "{\"\":1,\"b\":1,\"\":1}"}},
    {"{\"type\":\"object\",\"additionalProperties\":{\"type\":[\"null\",\"object\"]},"
     "\"minProperties\":2}",
     {"{\"a\":null,\"b\":null}", "{\"\":{\"a\":1},\"a\":null,\"aa\":{}}",
      "{\"x\":{\"x\":{\"x\":1}},\"xx\":{\"x\":[]}}"},
     {"{}", "{\"a\":null}", "{\"a\":null,\"a\":null}", "{\"a\":null,\"b\":null,\"a\":null}",
      "{\"x\":{\"y\":1,\"y\":2},\"z\":null}"}},
    {"{\"type\":\"object\",\"patternProperties\":{\"^[ab]$\":{\"type\":\"null\"}},"
     "\"additionalProperties\":false}",
     {"{}", "{\"a\":null}", "{\"a\":null,\"b\":null}"},
     {"{\"c\":null}", "{\"ab\":null}", "{\"a\":null,\"a\":null}", "{\"a\":null,}"}},
    {"{\"propertyNames\":{\"enum\":[\"b\",\"a\",\"\xC3\xA9\"]},\"additionalProperties\":{\"type\":"
     "\"null\"},\"minProperties\":2,\"properties\":{\"b\":true}}",
     {"{\"a\":null,\"\xC3\xA9\":null}", "{\"b\":1,\"a\":null}"},
     {"{}", "{\"a\":null}", "{\"a\":null,\"a\":null}", "{\"b\":1,\"b\":1}",
      "{\"a\":null,\"b\":1}"}},
    {"{\"propertyNames\":{\"pattern\":\"^[a-z]{1,8}$\"},\"maxProperties\":1}",
     {"{}", "{\"abc\":{}}", "{\"z\":[1]}"},
     {"{\"A\":1}", "{\"a\":1,\"b\":1}", "{\"abcdefghi\":1}"}},
    {"{\"type\":\"object\",\"maxProperties\":2,\"minProperties\":1,\"properties\":{\"a\":true,"
     "\"b\":true,\"c\":true},\"additionalProperties\":false}",
     {"{\"a\":1}", "{\"a\":[],\"c\":{\"x\":[1]}}", "{\"b\":\"\"}"},
     {"{}", "{\"a\":1,\"b\":1,\"c\":1}"}},
    {"{\"patternProperties\":{\"^n\":{\"type\":\"integer\"}},\"propertyNames\":{\"pattern\":\"^[nx]"
     "\"},"
     "\"additionalProperties\":{\"type\":\"null\"}}",
     {"{\"n\":1}", "{\"n1\":1,\"x\":null}", "{}"},
     {"{\"n\":null}", "{\"x\":1}", "{\"a12\":1}", "1"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"minItems\":1,\"maxItems\":2}",
     {"[true]", "[true,false]", "[true, false]"},
     {"[]", "[true,true,true]", "[1]", "[true,]", "[true ,true]"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"null\"}}",
     {"[]", "[null]", "[null,null,null]"},
     {"[,]", "[null,]", "[null"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"const\":1},{\"const\":\"x\"}],\"items\":false}",
     {"[]", "[1]", "[1,\"x\"]"},
     {"[\"x\"]", "[1,1]", "[1,\"x\",1]"}},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     {"\"ab\"", "\"\xC3\xA9\xF0\x9F\x98\x80\"", "\"\\n\\\"\\\\\"", "\"\\u0001x\""},
     {"\"a\"", "\"abcd\"", "\"\xC3\"", "\"a\nb\"", "\"\\u0041b\"", "\"\\/b\"", "\"\xC0\x80z\"",
      "\"\xED\xA0\x80z\"", "\"\\u0000b\""}},
    {"{\"type\":\"string\",\"pattern\":\"^a+b?$|^c\"}",
     {"\"a\"", "\"aaab\"", "\"cxy\"", "\"c\""},
     {"\"\"", "\"b\"", "\"abb\"", "\"xc\"", "\"a\\n\""}},
    {"{\"type\":\"string\",\"pattern\":\"o{2}\",\"maxLength\":4}",
     {"\"foo\"", "\"oo\"", "\"oooo\"", "\"xoo\\\"\""},
     {"\"o\"", "\"oxo\"", "\"abcoo\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[^a-c\\\\d\\\"]\\\\$(?:x|yz){1,2}\\\\.\\\\u0041$\"}",
     {"\"q$x.A\"", "\"\xD8\xA7$yzx.A\""},
     {"\"a$x.A\"", "\"5$x.A\"", "\"\\\"$x.A\"", "\"q$xxx.A\"", "\"q$xA\""}},
    {"{\"type\":\"string\",\"pattern\":\"^$\"}", {"\"\""}, {"\"a\"", "\"\\n\"", ""}},
    {"{\"discriminator\":{\"mapping\":{\"a\":\"#/$defs/a\"},\"propertyName\":\"k\"},\"oneOf\":[{"
     "\"$ref\":\"#/$defs/a\"},{\"type\":\"null\"}],\"$defs\":{\"a\":{\"type\":\"object\","
     "\"properties\":{\"k\":{\"const\":\"a\"}},\"required\":[\"k\"],"
     "\"additionalProperties\":false}}}",
     {"null", "{\"k\":\"a\"}"},
     {"{\"k\":\"b\"}", "{}"}},
    {"{\"type\":\"string\",\"format\":\"date\"}",
     {"\"2024-02-28\"", "\"1999-12-31\""},
     {"\"2024-02-30\"", "\"0000-01-01\"", "\"2024-13-01\"", "\"2024-1-1\"", "\"2024-04-31\""}},
    {"{\"type\":\"string\",\"format\":\"ipv4\"}",
     {"\"0.0.0.0\"", "\"255.249.199.9\""},
     {"\"256.1.1.1\"", "\"01.1.1.1\"", "\"1.1.1\""}},
    {"{\"type\":\"string\",\"format\":\"ipv6\"}",
     {"\"::\"", "\"1:2:3:4:5:6:7:8\"", "\"fe80::1\"", "\"1::\"", "\"::1:2\""},
     {"\":\"", "\"1:2\"", "\"1::2::3\"", "\"12345::\""}},
    {"{\"type\":\"integer\",\"minimum\":-12,\"exclusiveMaximum\":105}",
     {"0", "-12", "-9", "104", "99", "100"},
     {"-13", "105", "110", "-0", "1000", "00", "1e1", "-"}},
    {"{\"type\":\"integer\",\"multipleOf\":7,\"minimum\":1,\"maximum\":100}",
     {"7", "14", "98", "70"},
     {"0", "1", "99", "105"}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":999999999999999}",
     {"1000000000000000", "9999999999999999"},
     {"999999999999999", "-1", "0"}},
    {"{\"type\":\"integer\",\"exclusiveMaximum\":-999999999999999}",
     {"-1000000000000000", "-9999999999999999"},
     {"-999999999999999", "1", "0"}},
    {"{\"type\":\"integer\",\"multipleOf\":1000}", {"0", "-7000", "123000"}, {"7", "1500", "100"}},
    {"{\"type\":\"number\",\"multipleOf\":1}",
     {"0", "-7", "123"},
     {"7.090", "39e-3", "1.5", "1.0", "1e2"}},
    {"{\"type\":\"number\",\"minimum\":0.25,\"maximum\":12.5}",
     {"0.25", "0.3", "1", "9.99", "12.5", "12.50", "10.0"},
     {"0.24", "0", "12.51", "13", "0.2", "-1", "1e0", ".5", "1."}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":-1,\"exclusiveMaximum\":0}",
     {"-0.5", "-0.001", "-0.999"},
     {"0", "-0", "-0.0", "-1", "-1.0", "0.1"}},
    {"{\"type\":\"number\"}",
     {"0", "-0.5", "12e3", "1.25E-7", "100000000000000"},
     {"1e", "1.e1", "+1", "0x1", "01", "1e1000", "1000000000000000000"}},
    {"{\"enum\":[1,\"a\",[true,{\"x\":null}],1.5]}",
     {"1", "\"a\"", "[true,{\"x\":null}]", "[true, {\"x\": null}]", "1.5"},
     {"2", "\"b\"", "[true]", "1.0", "15"}},
    {"{\"enum\":[1,2,\"x\",null],\"type\":[\"integer\",\"null\"],\"minimum\":2}",
     {"2", "null"},
     {"1", "\"x\""}},
    {"{\"anyOf\":[{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"a\"},\"v\":{\"type\":"
     "\"integer\"}},\"required\":[\"k\",\"v\"],\"additionalProperties\":false},{\"type\":"
     "\"object\","
     "\"properties\":{\"k\":{\"const\":\"ab\"},\"v\":{\"type\":\"null\"}},\"required\":[\"k\","
     "\"v\"],"
     "\"additionalProperties\":false}]}",
     {"{\"k\":\"a\",\"v\":1}", "{\"k\":\"ab\",\"v\":null}"},
     {"{\"k\":\"a\",\"v\":null}", "{\"k\":\"ab\",\"v\":1}", "{\"k\":\"abc\",\"v\":1}"}},
    {"{\"oneOf\":[{\"type\":\"integer\",\"maximum\":3},{\"type\":\"string\",\"maxLength\":1}]}",
     {"3", "\"\"", "\"x\""},
     {"4", "\"xy\"", "null"}},
    {"{\"allOf\":[{\"type\":\"integer\"},{\"minimum\":3},{\"maximum\":5}],\"multipleOf\":2}",
     {"4"},
     {"3", "5", "6", "2"}},
    {"{\"$ref\":\"#/$defs/"
     "n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"n\":{\"anyOf\":"
     "[{\"$ref\":\"#/$defs/"
     "n\"},{\"type\":\"null\"}]}},\"required\":[\"n\"],\"additionalProperties\":"
     "false}}}",
     {"{\"n\":null}", "{\"n\":{\"n\":{\"n\":null}}}"},
     {"{}", "{\"n\":{}}", "{\"n\":{\"n\":null}"}},
    {"{}",
     {"1", "\"a\"", "[1,[],{}]", "{\"a\":{\"b\":[null]}}", "true", "[{\"a\":1},{\"a\":{\"a\":1}}]"},
     {"", "tru", "[1,]", "{\"a\"}", "{1:2}", "nul", "'a'", "{\"a\":1,\"a\":1}",
      "[{\"a\":1,\"b\":2, \"a\":1}]"}},
};

static void test_languages(void **state)
{
    const words *w = *state;
    for (size_t i = 0; i < sizeof languages / sizeof languages[0]; i++) {
        marco_grammar *grammar = compiled(languages[i].schema);
        for (size_t k = 0; k < 8 && languages[i].good[k]; k++)
            if (!allows(w, grammar, languages[i].good[k]))
                fail_msg("%s refuses %s", languages[i].schema, languages[i].good[k]);
        for (size_t k = 0; k < 10 && languages[i].bad[k]; k++)
            if (allows(w, grammar, languages[i].bad[k]))
                fail_msg("%s allows %s", languages[i].schema, languages[i].bad[k]);
        marco_grammar_free(grammar);
    }
}

/* All integers of a small range, and around it. */
static void test_integers(void **state)
{
    static const int ranges[][3] = {{0, 0, 1},      {-3, 12, 1}, {95, 1203, 1}, {-240, -7, 1},
                                    {-999, 999, 1}, {10, 99, 5}, {-60, 60, 12}, {7, 8, 100}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        char schema[160], text[16];
        snprintf(
            schema, sizeof schema,
            "{\"anyOf\":[{\"type\":\"integer\",\"minimum\":%d,\"maximum\":%d,\"multipleOf\":%d},"
            "{\"type\":\"null\"}]}",
            ranges[i][0], ranges[i][1], ranges[i][2]);
        marco_grammar *grammar = compiled(schema);
        for (int v = -1300; v <= 1300; v++) {
            bool wanted = v >= ranges[i][0] && v <= ranges[i][1] && v % ranges[i][2] == 0;
            snprintf(text, sizeof text, "%d", v);
            if (allows(*state, grammar, text) != wanted)
                fail_msg("%s: %s", schema, text);
        }
        marco_grammar_free(grammar);
    }
}

/* ---- masks --------------------------------------------------------------------------------- */

static bool bit(const uint32_t *mask, int32_t id)
{
    return mask[id / 32] >> id % 32 & 1;
}

/* Could the token follow ids[0, n)? By its bytes one at a time, each in a state of its own. */
static bool could_follow(const words *w, const marco_grammar *grammar, const int32_t *ids, size_t n,
                         int32_t token)
{
    grammar_state *state = begun(w, grammar);
    bool good = true;
    for (size_t i = 0; i < n; i++)
        assert_int_equal(grammar_state_accept(state, ids[i], NULL), MARCO_OK);
    if (token == END)
        good = grammar_state_may_end(state);
    else if (token > END)
        good = false;
    else
        for (uint32_t i = w->offsets[token]; good && i < w->offsets[token + 1]; i++)
            good = grammar_state_accept(state, (uint8_t)w->bytes[i], NULL) == MARCO_OK;
    grammar_state_free(state);
    return good;
}

/* A random reply; `exact`: every mask compared with every token. Ends within 400 tokens or fails.
 */
static void walk(const words *w, const marco_grammar *grammar, const char *name, uint64_t seed,
                 bool exact, base_text *text)
{
    uint32_t mask[(N_TOKENS + 5 + 31) / 32];
    int32_t ids[400];
    size_t n = 0;
    marco_error error;
    grammar_state *state = begun(w, grammar);
    for (;;) {
        if (grammar_state_mask(state, mask, &error))
            fail_msg("%s", error.message);
        int32_t allowed[N_TOKENS];
        uint64_t n_allowed = 0;
        for (int32_t id = 0; id < N_TOKENS + 5; id++) {
            if (exact && bit(mask, id) != (id < N_TOKENS && could_follow(w, grammar, ids, n, id)))
                fail_msg("%s: token %d after '%s': the mask says %d", name, (int)id,
                         text->data ? text->data : "", bit(mask, id));
            if (bit(mask, id))
                allowed[n_allowed++] = id;
        }
        assert_true(n_allowed > 0);
        assert_int_equal(grammar_state_must_end(state), n_allowed == 1 && bit(mask, END));
        int32_t id = allowed[base_random_below(seed, 1, n, n_allowed)];
        static const char closing[] = "]}\""; /* of two in one place, the quote ends something */
        for (size_t i = 0; i < 3 && (n % 3 == 0 || n > 60); i++)
            if (bit(mask, (uint8_t)closing[i]))
                id = (uint8_t)closing[i];
        id = bit(mask, END) ? END : id;
        if (grammar_state_accept(state, id, &error))
            fail_msg("%s: token %d: %s", name, (int)id, error.message);
        if (id == END)
            break;
        if (n == 400)
            fail_msg("%s: no end to '%s'", name, text->data);
        ids[n++] = id;
        base_text_add_n(text, w->bytes + w->offsets[id], w->offsets[id + 1] - w->offsets[id]);
    }
    assert_true(grammar_state_must_end(state));
    grammar_state_free(state);
}

static void test_masks(void **state)
{
    for (size_t i = 0; i < sizeof languages / sizeof languages[0]; i++) {
        marco_grammar *grammar = compiled(languages[i].schema);
        for (uint64_t seed = 1; seed <= 6; seed++) {
            base_text text = {0};
            walk(*state, grammar, languages[i].schema, seed * 100 + i, seed <= 2, &text);
            json_t *value = json_loadb(text.data, text.size, JSON_DECODE_ANY, NULL);
            if (!value)
                fail_msg("%s: %s", languages[i].schema, text.data);
            json_decref(value);
            base_text_free(&text);
        }
        marco_grammar_free(grammar);
    }
}

/* Appends the text with a number for every @. */
static void add_numbered(base_text *out, const char *text, int number)
{
    for (; *text; text++)
        if (*text == '@')
            base_text_printf(out, "%d", number);
        else
            base_text_add_char(out, *text);
}

/* Every branch can be had, and what is of none cannot, however many begin alike. */
static void test_branches(void **state)
{
    static const struct {
        const char *head, *branch, *tail, *good, *bad;
    } shapes[] = {
        {"",
         "{\"type\":\"object\",\"properties\":{\"t\":{\"const\":\"t@\"},\"v@\":{\"type\":"
         "\"integer\"}},\"required\":[\"t\",\"v@\"],\"additionalProperties\":false}",
         "", "{\"t\":\"t@\",\"v@\":@}", "{\"t\":\"t@\",\"v0@\":@}"},
        {"{\"type\":\"array\",\"items\":",
         "{\"type\":\"object\",\"properties\":{\"d\":{\"type\":\"object\",\"properties\":{\"x@\":{"
         "\"type\":\"integer\"}},\"required\":[\"x@\"],\"additionalProperties\":false},\"e\":{"
         "\"const\":@}},\"required\":[\"d\",\"e\"],\"additionalProperties\":false}",
         "}", "[{\"d\":{\"x@\":7},\"e\":@}]", "[{\"d\":{\"x@\":7},\"e\":0@}]"},
        {"", "{\"type\":\"string\",\"pattern\":\"^p@-[a-z]+$\"}", "", "\"p@-a\"", "\"p@a\""},
    };
    enum { N = 200 };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        base_text schema = {0}, text = {0};
        base_text_printf(&schema, "%s{\"anyOf\":[", shapes[i].head);
        for (int k = 0; k < N; k++) {
            base_text_add(&schema, k ? "," : "");
            add_numbered(&schema, shapes[i].branch, k);
        }
        base_text_printf(&schema, "]}%s", shapes[i].tail);
        marco_grammar *grammar = compiled(schema.data);
        for (int k = 0; k < N; k++)
            for (int good = 0; good < 2; good++) {
                base_text_clear(&text);
                add_numbered(&text, good ? shapes[i].good : shapes[i].bad, k);
                if (allows(*state, grammar, text.data) != good)
                    fail_msg("branches %zu: %s", i, text.data);
            }
        for (uint64_t seed = 1; seed < 4; seed++) {
            base_text_clear(&text);
            walk(*state, grammar, "branches", seed, false, &text);
        }
        marco_grammar_free(grammar);
        base_text_free(&schema);
        base_text_free(&text);
    }
}

/* Ways that double with every level: more than are followed is an error, not a way lost. */
static void test_crowded(void **state)
{
    static const char schema[] =
        "{\"$ref\":\"#/$defs/t\",\"$defs\":{\"t\":{\"anyOf\":[{\"type\":\"array\",\"items\":{"
        "\"title\":\"a\",\"$ref\":\"#/$defs/t\"}},{\"type\":\"array\",\"items\":{\"title\":\"b\","
        "\"$ref\":\"#/$defs/t\"}}]}}}";
    marco_grammar *grammar = compiled(schema);
    grammar_state *s = begun(*state, grammar);
    marco_status status = MARCO_OK;
    marco_error error = {0};
    int n = 0;
    for (; n < 40 && !status; n++)
        status = grammar_state_accept(s, '[', &error);
    assert_true(n > 6 && n < 40);
    assert_int_equal(status, MARCO_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "'anyOf'"));
    grammar_state_free(s);
    marco_grammar_free(grammar);
}

/* What is remembered for one vocabulary must not be used for another. */
static void test_vocabularies(void **state)
{
    words *w = *state;
    static words other;
    int32_t end = END;
    uint32_t mask[2][(N_TOKENS + 5 + 31) / 32];
    marco_grammar *grammar = compiled("{\"type\":\"array\",\"items\":{\"enum\":[\"abc\"]}}");
    fill_words(&other);
    for (int id = 256; id < END; id++)
        if (strcmp(longer[id - 256], "[\"") == 0)
            other.kinds[id] = TOK_KIND_SPECIAL;
    assert_int_equal(
        grammar_vocab_create(&other.tokenizer, N_TOKENS + 5, &end, 1, &other.vocab, NULL),
        MARCO_OK);
    grammar_state *a = begun(w, grammar), *b = begun(&other, grammar);
    assert_int_equal(grammar_state_mask(a, mask[0], NULL), MARCO_OK);
    assert_int_equal(grammar_state_mask(b, mask[1], NULL), MARCO_OK);
    for (int32_t id = 0; id < END; id++) {
        assert_int_equal(bit(mask[0], id), could_follow(w, grammar, NULL, 0, id));
        assert_int_equal(bit(mask[1], id), other.kinds[id] != TOK_KIND_SPECIAL &&
                                               could_follow(&other, grammar, NULL, 0, id));
    }
    grammar_state_free(a);
    grammar_state_free(b);
    grammar_vocab_free(other.vocab);
    marco_grammar_free(grammar);
}

static void test_wrong_token(void **state)
{
    marco_grammar *grammar = compiled("{\"enum\":[\"ab\"]}");
    grammar_state *s = begun(*state, grammar);
    marco_error error;
    static const int32_t wrong[] = {-1, 'x', END, END + 1, END + 2, N_TOKENS + 4, N_TOKENS + 5};
    assert_int_equal(grammar_state_accept(s, '"', &error), MARCO_OK);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(grammar_state_accept(s, wrong[i], &error), MARCO_ERROR_ARGUMENT);
    assert_int_equal(grammar_state_accept(s, 256 + 20, &error), MARCO_OK); /* "ab" */
    assert_false(grammar_state_may_end(s));
    assert_int_equal(grammar_state_accept(s, '"', &error), MARCO_OK);
    assert_true(grammar_state_must_end(s));
    assert_int_equal(grammar_state_accept(s, END, &error), MARCO_OK);
    grammar_state_free(s);
    marco_grammar_free(grammar);
}

/* Bracket after bracket: the deepest is not too deep to be closed again. */
static void test_depth(void **state)
{
    words *w = *state;
    uint32_t mask[(N_TOKENS + 5 + 31) / 32];
    marco_grammar *grammar = compiled("{\"type\":\"array\"}");
    grammar_state *s = begun(w, grammar);
    int32_t ids[300];
    size_t n = 0;
    while (grammar_state_accept(s, '[', NULL) == MARCO_OK) {
        ids[n++] = '[';
        assert_true(n < 300);
        assert_int_equal(grammar_state_mask(s, mask, NULL), MARCO_OK);
        if (n % 16 == 0 || n > 110)
            for (int32_t id = 256; id < END; id++)
                assert_int_equal(bit(mask, id), could_follow(w, grammar, ids, n, id));
    }
    assert_true(n >= 60);
    for (; n > 0; n--)
        assert_int_equal(grammar_state_accept(s, ']', NULL), MARCO_OK);
    assert_true(grammar_state_must_end(s));
    grammar_state_free(s);
    marco_grammar_free(grammar);
}

static void test_vocabulary_refused(void **state)
{
    static words w;
    grammar_vocab *vocab;
    marco_error error;
    int32_t end = END, beyond = N_TOKENS + 5;
    (void)state;
    fill_words(&w);
    assert_int_equal(grammar_vocab_create(&w.tokenizer, N_TOKENS, &beyond, 1, &vocab, &error),
                     MARCO_ERROR_ARGUMENT);
    w.kinds['}'] = TOK_KIND_SPECIAL;
    assert_int_equal(grammar_vocab_create(&w.tokenizer, N_TOKENS, &end, 1, &vocab, &error),
                     MARCO_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "0x7D"));
    assert_null(vocab);
}

/* ---- tools --------------------------------------------------------------------------------- */

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get\",\"description\":\"d\",\"strict\":true,"
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"x\":{\"$ref\":\"#/$defs/i\"}},"
    "\"required\":[\"x\"],\"additionalProperties\":false,\"$defs\":{\"i\":{\"type\":\"integer\"}}}}"
    "},"
    "{\"type\":\"function\",\"function\":{\"name\":\"now\"}}]";

#define CALL(name, arguments)                                                                      \
    "<tool_call>\n{\"name\": \"" name "\", \"arguments\": " arguments "}\n</tool_call>"

static marco_grammar *tools_grammar(const char *name, bool several)
{
    marco_grammar *grammar;
    marco_error error;
    if (marco_grammar_from_tools(tools, strlen(tools), name, several, &grammar, &error))
        fail_msg("%s", error.message);
    return grammar;
}

static void test_tools(void **state)
{
    const words *w = *state;
    marco_grammar *any = tools_grammar(NULL, false), *now = tools_grammar("now", false);
    marco_grammar *several = tools_grammar(NULL, true), *none;
    marco_error error;
    assert_true(allows(w, any, CALL("get", "{\"x\": 3}")));
    assert_true(allows(w, any, CALL("now", "{}")));
    assert_false(allows(w, any, CALL("get", "{}")));
    assert_false(allows(w, any, CALL("now", "{\"x\": 3}")));
    assert_false(allows(w, any, CALL("now", "{}") "\n" CALL("now", "{}")));
    assert_false(allows(w, any, "{}"));
    assert_true(allows(w, now, CALL("now", "{}")));
    assert_false(allows(w, now, CALL("get", "{\"x\":3}")));
    assert_true(allows(w, several, CALL("now", "{}") "\n" CALL("get", "{\"x\":3}")));
    assert_false(allows(w, several, CALL("now", "{}") CALL("now", "{}")));
    for (uint64_t seed = 1; seed < 5; seed++) {
        base_text text = {0};
        walk(w, several, "tools", seed, seed == 1, &text);
        base_text_free(&text);
    }
    assert_int_equal(marco_grammar_from_tools(tools, strlen(tools), "got", false, &none, &error),
                     MARCO_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "got"));
    static const char bad[] =
        "[{\"function\":{\"name\":\"f\",\"parameters\":{\"items\":{\"x\":1}}}}]";
    assert_int_equal(marco_grammar_from_tools(bad, strlen(bad), NULL, false, &none, &error),
                     MARCO_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "tools[0].parameters#/items: "));
    marco_grammar_free(any);
    marco_grammar_free(now);
    marco_grammar_free(several);
}

static void test_json_object(void **state)
{
    marco_grammar *grammar;
    assert_int_equal(marco_grammar_json_object(&grammar, NULL), MARCO_OK);
    assert_true(allows(*state, grammar, "{\"a\": [1, {\"b\": null}], \"c\": \"\\u001f\"}"));
    assert_true(allows(*state, grammar, "{}"));
    assert_false(allows(*state, grammar, "[]"));
    assert_false(allows(*state, grammar, "{}x"));
    marco_grammar_free(grammar);
}

/* ---- threads and memory -------------------------------------------------------------------- */

typedef struct runner {
    const words *w;
    const marco_grammar *grammar;
    base_text texts[4];
} runner;

static void *run(void *argument)
{
    runner *r = argument;
    for (uint64_t seed = 0; seed < 4; seed++)
        walk(r->w, r->grammar, "threads", seed, false, &r->texts[seed]);
    return NULL;
}

/* States of one grammar on several threads: the same replies as on one. */
static void test_threads(void **state)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    runner runners[THREADS];
    marco_grammar *grammar = compiled(languages[1].schema);
    for (int i = 0; i < THREADS; i++) {
        runners[i] = (runner){.w = *state, .grammar = grammar};
        assert_int_equal(pthread_create(&threads[i], NULL, run, &runners[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < THREADS; i++)
        for (int k = 0; k < 4; k++) {
            assert_int_equal(runners[i].texts[k].size, runners[0].texts[k].size);
            assert_memory_equal(runners[i].texts[k].data, runners[0].texts[k].data,
                                runners[0].texts[k].size);
        }
    for (int i = 0; i < THREADS; i++)
        for (int k = 0; k < 4; k++)
            base_text_free(&runners[i].texts[k]);
    marco_grammar_free(grammar);
}

/* One reply from a schema; the status of what failed. */
static marco_status whole(const words *w, const char *schema)
{
    marco_grammar *grammar = NULL;
    grammar_vocab *vocab = NULL;
    grammar_state *state = NULL;
    marco_error error = {0};
    uint32_t mask[(N_TOKENS + 31) / 32];
    int32_t end = END;
    marco_status status = grammar_vocab_create(&w->tokenizer, N_TOKENS, &end, 1, &vocab, &error);
    if (!status)
        status = marco_grammar_from_schema(schema, strlen(schema), &grammar, &error);
    if (!status)
        status = grammar_state_create(grammar, vocab, &state, &error);
    for (int n = 0; n < 60 && !status && !grammar_state_must_end(state); n++) {
        status = grammar_state_mask(state, mask, &error);
        int32_t id = END - 1;
        while (!status && id > 0 && !bit(mask, id))
            id--;
        if (!status)
            status = grammar_state_accept(state, id, &error);
    }
    grammar_state_free(state);
    marco_grammar_free(grammar);
    grammar_vocab_free(vocab);
    /* jansson's parser cannot always tell that it is memory that it lacks. */
    if (status == MARCO_ERROR_FORMAT)
        return MARCO_ERROR_MEMORY;
    if (status && !strstr(error.message, "memory"))
        fail_msg("status %d: %s", status, error.message);
    return status;
}

static void test_out_of_memory(void **state)
{
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"enum\":[\"x\",1.5,[2]]},\"b\":{\"type\":"
        "\"string\",\"pattern\":\"^\\\\d+$\"},\"c\":{\"$ref\":\"#\"}},\"propertyNames\":{\"enum\":"
        "[\"a\",\"b\",\"c\"]},\"required\":[\"a\",\"b\"]}";
    json_set_alloc_funcs(base_alloc, base_free);
    base_alloc_fail_at(0);
    assert_int_equal(whole(*state, schema), MARCO_OK);
    uint64_t requests = base_alloc_fail_at(0);
    assert_true(requests > 50);
    for (uint64_t n = 1; n <= requests; n++) {
        base_alloc_fail_at(n);
        marco_status status = whole(*state, schema);
        base_alloc_fail_at(0);
        if (status != MARCO_ERROR_MEMORY)
            fail_msg("request %d of %d: status %d", (int)n, (int)requests, status);
    }
    json_set_alloc_funcs(malloc, free);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_languages),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_masks),
        cmocka_unit_test(test_branches),
        cmocka_unit_test(test_crowded),
        cmocka_unit_test(test_vocabularies),
        cmocka_unit_test(test_wrong_token),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_vocabulary_refused),
        cmocka_unit_test(test_tools),
        cmocka_unit_test(test_json_object),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
