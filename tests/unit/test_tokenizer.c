/* Encoding and decoding against tests/vectors/tokens/: what HF's tokenizers gives for the same
 * tokenizer.json and texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/text.h"
#include "token_files.h"

/* ---- the vectors --------------------------------------------------------------------------- */

/* Checks the ids against a record's array or digest. */
static void check_ids(const char *text, const json_t *want, const int32_t *ids, size_t n)
{
    if (json_is_string(want)) {
        char digest[64];
        digest_ids(ids, n, digest);
        if (strcmp(digest, json_string_value(want)) != 0)
            fail_msg("'%s': %s, not %s", text, digest, json_string_value(want));
        return;
    }
    if (n != json_array_size(want))
        fail_msg("'%s': %zu ids, not %zu", text, n, json_array_size(want));
    for (size_t i = 0; i < n; i++)
        if (ids[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("'%s': id %zu is %d", text, i, ids[i]);
}

/* Whole characters come out, each as soon as it is whole, and all of them in the end. */
static void check_stream(const marco_tokenizer *t, const int32_t *ids, size_t n, const char *text,
                         size_t size)
{
    marco_detokenizer *d;
    base_text all = {0};
    const char *piece;
    size_t length;
    assert_int_equal(marco_detokenizer_create(t, true, &d, NULL), MARCO_OK);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(marco_detokenizer_add(d, ids[i], &piece, &length, NULL), MARCO_OK);
        assert_int_equal(base_utf8_check(piece, length), length);
        base_text_add_n(&all, piece, length);
    }
    assert_int_equal(marco_detokenizer_flush(d, &piece, &length, NULL), MARCO_OK);
    assert_int_equal(length, 0);
    assert_int_equal(all.size, size);
    if (size)
        assert_memory_equal(all.data, text, size);
    base_text_free(&all);
    marco_detokenizer_close(d);
}

/* All texts as one, long enough for pieces to be remembered. */
static void check_whole(const marco_tokenizer *t, const char *field, const base_text *whole)
{
    json_t *want = json_load_file(token_vector("whole.json"), 0, NULL);
    int32_t *ids;
    size_t n;
    assert_non_null(want);
    assert_int_equal(
        marco_tokenizer_encode(t, whole->data, whole->size, MARCO_ENCODE_SPECIAL, &ids, &n, NULL),
        MARCO_OK);
    check_ids("the whole", json_object_get(want, field), ids, n);
    marco_free(ids);
    json_decref(want);
}

/* Every record's text, encoded by t, against the record's `field`. With `exact`, decoding gives the
 * text back byte for byte. Returns the number of records. */
static int check_vectors(const marco_tokenizer *t, const char *field, bool exact)
{
    FILE *f = fopen(token_vector("lines.jsonl"), "rb");
    char *line = NULL;
    base_text whole = {0};
    size_t room = 0;
    int count = 0;
    assert_non_null(f);
    for (ssize_t got; (got = getline(&line, &room, f)) > 0; count++) {
        json_t *record = json_loadb(line, (size_t)got, JSON_ALLOW_NUL, NULL);
        const json_t *value = json_object_get(record, "text");
        const char *text = json_string_value(value);
        size_t size = json_string_length(value), n, decoded_size;
        int32_t *ids;
        char *decoded;
        assert_non_null(text);
        base_text_add_n(&whole, "\n", count > 0);
        base_text_add_n(&whole, text, size);
        assert_int_equal(
            marco_tokenizer_encode(t, text, size, MARCO_ENCODE_SPECIAL, &ids, &n, NULL), MARCO_OK);
        check_ids(text, json_object_get(record, field), ids, n);
        assert_int_equal(marco_tokenizer_decode(t, ids, n, true, &decoded, &decoded_size, NULL),
                         MARCO_OK);
        if (exact) {
            assert_int_equal(decoded_size, size);
            assert_memory_equal(decoded, text, size);
        }
        check_stream(t, ids, n, decoded, decoded_size);
        marco_free(decoded);
        marco_free(ids);
        json_decref(record);
    }
    check_whole(t, field, &whole);
    base_text_free(&whole);
    free(line);
    fclose(f);
    return count;
}

static void test_small_vectors(void **state)
{
    (void)state;
    marco_tokenizer *t = open_tokenizer(token_vector("small"));
    assert_true(check_vectors(t, "ids", false) >= 2000);
    marco_tokenizer_close(t);
}

static void test_plain_vectors(void **state)
{
    json_t *root = small_json();
    marco_tokenizer *t = NULL;
    make_plain(root);
    assert_int_equal(open_json(*state, root, &t, NULL), MARCO_OK);
    assert_true(check_vectors(t, "plain", true) >= 2000);
    marco_tokenizer_close(t);
}

static void test_qwen3_vectors(void **state)
{
    (void)state;
    const char *data = getenv("MARCO_TEST_DATA");
    if (!data) {
        print_message("MARCO_TEST_DATA is not set to a folder with qwen3-tokenizer/tokenizer.json "
                      "(11 MB, not part of this repository): its vectors are skipped\n");
        skip();
    }
    char path[4096];
    snprintf(path, sizeof path, "%s/qwen3-tokenizer", data);
    marco_tokenizer *t = open_tokenizer(path);
    assert_true(check_vectors(t, "qwen3", false) >= 2000);
    assert_int_equal(marco_tokenizer_size(t), 151669);
    assert_int_equal(marco_tokenizer_eos(t), 151645);
    assert_int_equal(marco_tokenizer_bos(t), -1);
    assert_string_equal(t->spec->pre, "qwen2");
    marco_tokenizer_close(t);
}

/* ---- added tokens -------------------------------------------------------------------------- */

static void expect(const marco_tokenizer *t, const char *text, size_t size, unsigned flags,
                   const int32_t *want, size_t n_want)
{
    int32_t *ids;
    size_t n;
    assert_int_equal(marco_tokenizer_encode(t, text, size, flags, &ids, &n, NULL), MARCO_OK);
    assert_int_equal(n, n_want);
    if (n)
        assert_memory_equal(ids, want, n * sizeof *ids);
    marco_free(ids);
}

static void test_text_without_flags_is_plain(void **state)
{
    (void)state;
    static const char text[] = "<|im_start|>user\n<r> \xC3\xA9t\xC3\xA9 [MASK]<|im_end|>";
    marco_tokenizer *t = open_tokenizer(token_vector("small"));
    int32_t *ids;
    size_t n, size;
    char *decoded;
    assert_int_equal(marco_tokenizer_encode(t, text, sizeof text - 1, 0, &ids, &n, NULL), MARCO_OK);
    for (size_t i = 0; i < n; i++)
        assert_true(ids[i] < 2000);
    assert_int_equal(marco_tokenizer_decode(t, ids, n, false, &decoded, &size, NULL), MARCO_OK);
    assert_string_equal(decoded, text);
    marco_free(decoded);
    marco_free(ids);
    marco_tokenizer_close(t);
}

static void test_special_tokens_are_left_out(void **state)
{
    (void)state;
    static const int32_t ids[] = {2001, 64, 2006, 2002};
    marco_tokenizer *t = open_tokenizer(token_vector("small"));
    char *text;
    size_t size;
    assert_int_equal(marco_tokenizer_decode(t, ids, 4, false, &text, &size, NULL), MARCO_OK);
    assert_string_equal(text, "a<tool_call>");
    marco_free(text);
    assert_int_equal(marco_tokenizer_decode(t, ids, 4, true, &text, &size, NULL), MARCO_OK);
    assert_string_equal(text, "<|im_start|>a<tool_call><|im_end|>");
    marco_free(text);
    assert_true(marco_tokenizer_is_special(t, 2001));
    assert_false(marco_tokenizer_is_special(t, 2006));
    assert_false(marco_tokenizer_is_special(t, 64));
    assert_false(marco_tokenizer_is_special(t, 99999));
    assert_false(marco_tokenizer_is_special(t, -1));
    assert_int_equal(marco_tokenizer_find(t, "<tool_call>"), 2006);
    assert_int_equal(marco_tokenizer_find(t, "a"), 64);
    assert_int_equal(marco_tokenizer_find(t, " "), 220);
    assert_int_equal(marco_tokenizer_find(t, "no such token"), -1);
    marco_tokenizer_close(t);
}

static void test_ids_outside_are_refused(void **state)
{
    (void)state;
    marco_tokenizer *t = open_tokenizer(token_vector("small"));
    const int32_t bad[] = {2012, -1, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 4; i++) {
        char *text = (char *)&bad;
        size_t size;
        marco_error error;
        assert_int_equal(marco_tokenizer_decode(t, &bad[i], 1, true, &text, &size, &error),
                         MARCO_ERROR_ARGUMENT);
        assert_null(text);
        assert_non_null(strstr(error.message, "2012"));
    }
    marco_tokenizer_close(t);
}

static void test_bos(void **state)
{
    json_t *root = small_json();
    marco_tokenizer *t = NULL;
    json_object_set_new(
        root, "post_processor",
        parse_json(
            "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, {\"type\": "
            "\"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": "
            "\"<|endoftext|>\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\"}}]}]}"));
    assert_int_equal(open_json(*state, root, &t, NULL), MARCO_OK);
    assert_int_equal(marco_tokenizer_bos(t), 2000);
    expect(t, "a", 1, MARCO_ENCODE_BOS, (int32_t[]){2000, 64}, 2);
    expect(t, "a", 1, 0, (int32_t[]){64}, 1);
    expect(t, NULL, 0, MARCO_ENCODE_BOS, (int32_t[]){2000}, 1);
    expect(t, NULL, 0, 0, NULL, 0);
    marco_tokenizer_close(t);
    t = open_tokenizer(token_vector("small"));
    expect(t, "a", 1, MARCO_ENCODE_BOS, (int32_t[]){64}, 1);
    marco_tokenizer_close(t);
}

/* ---- segments ------------------------------------------------------------------------------ */

static void expect_segments(const marco_tokenizer *t, const tok_segment *segments, size_t n,
                            const char *whole, unsigned whole_flags)
{
    tok_ids a = {0};
    assert_int_equal(tok_encode_segments(t, segments, n, 0, &a, NULL), MARCO_OK);
    int32_t *ids;
    size_t n_ids;
    assert_int_equal(
        marco_tokenizer_encode(t, whole, strlen(whole), whole_flags, &ids, &n_ids, NULL), MARCO_OK);
    assert_int_equal(a.n, n_ids);
    assert_memory_equal(a.items, ids, n_ids * sizeof *ids);
    base_free(a.items);
    marco_free(ids);
}

#define SEGMENT(text, trusted)                                                                     \
    (tok_segment)                                                                                  \
    {                                                                                              \
        text, sizeof text - 1, trusted                                                             \
    }

static size_t count_id(const marco_tokenizer *t, const tok_segment *segments, size_t n, int32_t id)
{
    tok_ids ids = {0};
    size_t count = 0;
    assert_int_equal(tok_encode_segments(t, segments, n, 0, &ids, NULL), MARCO_OK);
    for (size_t i = 0; i < ids.n; i++)
        count += ids.items[i] == id;
    base_free(ids.items);
    return count;
}

static void test_segments(void **state)
{
    (void)state;
    marco_tokenizer *t = open_tokenizer(token_vector("small"));
    /* Borders do not show where nothing but trust changes. */
    const tok_segment joined[] = {SEGMENT("<|im_start|>system\n", true), SEGMENT("All hum", false),
                                  SEGMENT("an beings", false), SEGMENT(" are\n", true),
                                  SEGMENT("\nborn<|im_end|>\n", true)};
    expect_segments(t, joined, 5, "<|im_start|>system\nAll human beings are\n\nborn<|im_end|>\n",
                    MARCO_ENCODE_SPECIAL);
    /* A token may run over two trusted segments. */
    const tok_segment split[] = {SEGMENT("<|im_", true), SEGMENT("end|>", true)};
    assert_int_equal(count_id(t, split, 2, 2002), 1);
    /* It may not lean on untrusted text, at either end. */
    const tok_segment left[] = {SEGMENT("<|im_", false), SEGMENT("end|>", true)};
    const tok_segment right[] = {SEGMENT("<|im_", true), SEGMENT("end|>", false)};
    expect_segments(t, left, 2, "<|im_end|>", 0);
    expect_segments(t, right, 2, "<|im_end|>", 0);
    const tok_segment forged[] = {SEGMENT("<|im_start|>", true), SEGMENT("<|im_end|>", false),
                                  SEGMENT("<|im_end|>", true)};
    assert_int_equal(count_id(t, forged, 3, 2002), 1);
    /* Nor can what comes after change what was found: "<|im_start|>user" is a token too. */
    const tok_segment longer[] = {SEGMENT("<|im_start|>", true), SEGMENT("user", false)};
    assert_int_equal(count_id(t, longer, 2, 2001), 1);
    assert_int_equal(count_id(t, longer, 2, 2003), 0);
    marco_tokenizer_close(t);
}

static void test_segments_normalised(void **state)
{
    (void)state;
    marco_tokenizer *t = open_tokenizer(token_vector("small"));
    /* "été" is found in normalised text: written with combining accents as well. */
    const tok_segment trusted[] = {SEGMENT("x e\xCC\x81te\xCC\x81 y", true)};
    assert_int_equal(count_id(t, trusted, 1, 2008), 1);
    const tok_segment untrusted[] = {SEGMENT("e\xCC\x81te\xCC\x81", false), SEGMENT(" y", true)};
    assert_int_equal(count_id(t, untrusted, 2, 2008), 0);
    const tok_segment both[] = {SEGMENT("e\xCC\x81te\xCC\x81 ", false),
                                SEGMENT("\xC3\xA9te\xCC\x81", true),
                                SEGMENT(" e\xCC\x81t\xC3\xA9", false)};
    assert_int_equal(count_id(t, both, 3, 2008), 1);
    /* The last accent is not trusted, so the character it becomes part of is not. */
    const tok_segment accent[] = {SEGMENT("e\xCC\x81te", true), SEGMENT("\xCC\x81", false)};
    assert_int_equal(count_id(t, accent, 2, 2008), 0);
    marco_tokenizer_close(t);
}

/* ---- bytes that are no text ---------------------------------------------------------------- */

static void test_invalid_bytes(void **state)
{
    (void)state;
    marco_tokenizer *t = open_tokenizer(token_vector("small"));
    char all[512];
    for (int i = 0; i < 512; i++)
        all[i] = (char)(i < 256 ? i : 511 - i);
    int32_t *ids;
    size_t n, size;
    char *text;
    assert_int_equal(
        marco_tokenizer_encode(t, all, sizeof all, MARCO_ENCODE_SPECIAL, &ids, &n, NULL), MARCO_OK);
    assert_int_equal(marco_tokenizer_decode(t, ids, n, true, &text, &size, NULL), MARCO_OK);
    assert_int_equal(size, sizeof all);
    assert_memory_equal(text, all, size);
    marco_free(text);
    marco_free(ids);
    /* A surrogate, an overlong slash, half a character before a token: byte by byte. */
    static const char broken[] = "a\xED\xA0\x80\xC0\xAF\xE2\x82<|im_end|>";
    assert_int_equal(
        marco_tokenizer_encode(t, broken, sizeof broken - 1, MARCO_ENCODE_SPECIAL, &ids, &n, NULL),
        MARCO_OK);
    assert_int_equal(n, 9);
    assert_int_equal(ids[0], 64);
    assert_int_equal(ids[8], 2002);
    for (size_t i = 1; i < 8; i++) {
        char one[2] = {broken[i], '\0'};
        assert_int_equal(ids[i], marco_tokenizer_find(t, one));
    }
    marco_free(ids);
    marco_tokenizer_close(t);
}

/* Adds the bytes one token each; what came out after each is in pieces, ended by the flush. */
static void stream_bytes(const char *bytes, const char *const *pieces)
{
    tok_spec *spec;
    marco_tokenizer *t;
    marco_detokenizer *d;
    const char *text;
    size_t size, n = strlen(bytes);
    assert_int_equal(tok_spec_bytes(&spec, NULL), MARCO_OK);
    assert_int_equal(tok_compile(spec, &t, NULL), MARCO_OK);
    assert_int_equal(marco_detokenizer_create(t, false, &d, NULL), MARCO_OK);
    for (int round = 0; round < 2; round++) { /* the flush leaves it as new */
        for (size_t i = 0; i <= n; i++) {
            marco_status status =
                i < n ? marco_detokenizer_add(d, (uint8_t)bytes[i], &text, &size, NULL)
                      : marco_detokenizer_flush(d, &text, &size, NULL);
            assert_int_equal(status, MARCO_OK);
            assert_int_equal(size, strlen(pieces[i]));
            assert_memory_equal(text, pieces[i], size);
        }
    }
    marco_detokenizer_close(d);
    marco_tokenizer_close(t);
}

#define FFFD "\xEF\xBF\xBD"

static void test_stream(void **state)
{
    (void)state;
    stream_bytes("a\xE2\x82\xACz", (const char *[]){"a", "", "", "\xE2\x82\xAC", "z", ""});
    stream_bytes("\xF0\x9F\x98\x80", (const char *[]){"", "", "", "\xF0\x9F\x98\x80", ""});
    /* Cut short by another character, by the end, and never possible. */
    stream_bytes("\xE2\x82q", (const char *[]){"", "", FFFD "q", ""});
    stream_bytes("\xE2\x82", (const char *[]){"", "", FFFD});
    stream_bytes("\xFFq\x80", (const char *[]){FFFD, "q", FFFD, ""});
    stream_bytes("\xED\xA0\x80", (const char *[]){"", FFFD FFFD, FFFD, ""});
    stream_bytes("\xF0\x9F\xE2\x82\xAC", (const char *[]){"", "", FFFD, "", "\xE2\x82\xAC", ""});
}

static void test_stream_padding(void **state)
{
    (void)state;
    marco_tokenizer *t = open_tokenizer(token_vector("small"));
    marco_detokenizer *d;
    const char *text;
    size_t size;
    assert_int_equal(marco_detokenizer_create(t, false, &d, NULL), MARCO_OK);
    assert_int_equal(marco_detokenizer_add(d, 5000, &text, &size, NULL), MARCO_OK);
    assert_int_equal(size, 0);
    assert_int_equal(marco_detokenizer_add(d, -1, &text, &size, NULL), MARCO_ERROR_ARGUMENT);
    marco_detokenizer_close(d);
    marco_tokenizer_close(t);
}

/* ---- size ---------------------------------------------------------------------------------- */

/* Merging takes the same steps for long pieces as for short ones, in time that does not grow with
 * the square: half a million letters without a break, of which every 12 are one piece's worth. */
static void test_long_piece(void **state)
{
    (void)state;
    enum { SIZE = 1 << 19 };
    marco_tokenizer *t = open_tokenizer(token_vector("small"));
    char *text = base_alloc(SIZE);
    assert_non_null(text);
    for (size_t i = 0; i < SIZE; i++)
        text[i] = "internationa"[i % 12];
    int32_t *ids;
    size_t n, size;
    char *decoded;
    assert_int_equal(marco_tokenizer_encode(t, text, SIZE, 0, &ids, &n, NULL), MARCO_OK);
    assert_true(n < SIZE / 2);
    assert_int_equal(marco_tokenizer_decode(t, ids, n, true, &decoded, &size, NULL), MARCO_OK);
    assert_int_equal(size, SIZE);
    assert_memory_equal(decoded, text, SIZE);
    marco_free(decoded);
    marco_free(ids);
    base_free(text);
    marco_tokenizer_close(t);
}

/* Many combining marks out of order: sorted, in time that does not grow with the square. */
static void test_many_marks(void **state)
{
    (void)state;
    enum { PAIRS = 1 << 17 };
    marco_tokenizer *t = open_tokenizer(token_vector("small"));
    base_text text = {0};
    base_text_add_char(&text, 'q');
    for (int i = 0; i < PAIRS; i++)
        base_text_add(&text, "\xCC\x81\xCC\xA3"); /* above (230), below (220) */
    int32_t *ids;
    size_t n, size;
    char *decoded;
    assert_int_equal(marco_tokenizer_encode(t, text.data, text.size, 0, &ids, &n, NULL), MARCO_OK);
    assert_int_equal(marco_tokenizer_decode(t, ids, n, true, &decoded, &size, NULL), MARCO_OK);
    assert_int_equal(size, text.size);
    for (size_t i = 0; i < 2 * (size_t)PAIRS; i++)
        assert_memory_equal(decoded + 1 + 2 * i, i < PAIRS ? "\xCC\xA3" : "\xCC\x81", 2);
    marco_free(decoded);
    marco_free(ids);
    base_text_free(&text);
    marco_tokenizer_close(t);
}

/* Tokens of white space that swallow the white space around them: what one has looked at is not
 * looked at again for the next, in time that does not grow with the square. */
static void test_many_spaces(void **state)
{
    enum { SIZE = 1 << 19 };
    static const char *const flags[] = {"lstrip", "rstrip"};
    char *text = base_alloc(SIZE);
    assert_non_null(text);
    for (size_t i = 0; i < SIZE; i++)
        text[i] = " \t"[i % 2];
    for (int f = 0; f < 2; f++) {
        json_t *root = small_json(), *added = json_object_get(root, "added_tokens");
        json_array_append_new(
            added, json_pack("{s:i, s:s, s:b}", "id", 3000, "content", " ", flags[f], 1));
        json_array_append_new(added, json_pack("{s:i, s:s}", "id", 3001, "content", "\t"));
        marco_tokenizer *t = NULL;
        assert_int_equal(open_json(*state, root, &t, NULL), MARCO_OK);
        int32_t *ids;
        size_t n;
        assert_int_equal(
            marco_tokenizer_encode(t, text, SIZE, MARCO_ENCODE_SPECIAL, &ids, &n, NULL), MARCO_OK);
        assert_int_equal(n, SIZE);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(ids[i], 3000 + (int)(i % 2));
        marco_free(ids);
        marco_tokenizer_close(t);
    }
    base_free(text);
}

/* Many turns, each with a token of its own: in time that does not grow with their square. */
static void test_many_segments(void **state)
{
    (void)state;
    enum { TURNS = 1 << 17 };
    marco_tokenizer *t = open_tokenizer(token_vector("small"));
    tok_segment *segments = base_alloc_array(2 * (size_t)TURNS, sizeof *segments);
    assert_non_null(segments);
    for (size_t i = 0; i < 2 * (size_t)TURNS; i += 2) {
        segments[i] = SEGMENT("<|im_end|>", true);
        segments[i + 1] = SEGMENT("<|im_end|>a", false);
    }
    assert_int_equal(count_id(t, segments, 2 * (size_t)TURNS, 2002), TURNS);
    base_free(segments);
    marco_tokenizer_close(t);
}

static int setup(void **state)
{
    static scratch s;
    *state = &s;
    return scratch_create(&s) ? 0 : -1;
}

static int teardown(void **state)
{
    scratch_remove(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_vectors),
        cmocka_unit_test(test_plain_vectors),
        cmocka_unit_test(test_qwen3_vectors),
        cmocka_unit_test(test_text_without_flags_is_plain),
        cmocka_unit_test(test_special_tokens_are_left_out),
        cmocka_unit_test(test_ids_outside_are_refused),
        cmocka_unit_test(test_bos),
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_segments_normalised),
        cmocka_unit_test(test_invalid_bytes),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_stream_padding),
        cmocka_unit_test(test_long_piece),
        cmocka_unit_test(test_many_marks),
        cmocka_unit_test(test_many_spaces),
        cmocka_unit_test(test_many_segments),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
