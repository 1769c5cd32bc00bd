/* Text to shards: what is kept, what is refused, and that threads change nothing. */
#include "data_fixture.h"

#include "base/memory.h"
#include "base/sha256.h"
#include "base/text.h"

/* ---- SHA-256: the examples of FIPS 180-4 and its neighbours of a block's length ------------- */

static void check_hash(const char *text, size_t size, size_t step, const char *want)
{
    uint8_t digest[BASE_SHA256_BYTES];
    char got[BASE_SHA256_TEXT];
    base_sha256 hash;
    base_sha256_begin(&hash);
    for (size_t at = 0; at < size; at += step)
        base_sha256_add(&hash, text + at, at + step < size ? step : size - at);
    base_sha256_end(&hash, digest);
    base_sha256_text(digest, got);
    assert_string_equal(got, want);
}

static void test_sha256(void **state)
{
    static const struct {
        size_t size; /* of as many 'a' */
        const char *want;
    } cases[] = {
        {0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {55, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"},
        {56, "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"},
        {64, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"},
        {1000, "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3"},
    };
    char text[1000];
    (void)state;
    memset(text, 'a', sizeof text);
    check_hash("abc", 3, 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t step = 1; step < 130; step += 21)
            check_hash(text, cases[i].size, step, cases[i].want);
}

/* ---- what is kept -------------------------------------------------------------------------- */

/* The documents of a split as text, one a line; base_free. */
static char *text_of(const char *folder, data_split split)
{
    data_set *set;
    base_text out = {0};
    assert_ok(data_set_open(folder, split, &set, error));
    for (int64_t i = 0; i < data_set_documents(set); i++) {
        data_document d = data_set_document(set, i);
        for (int64_t k = 0; k < d.n; k++)
            base_text_add_char(&out, (char)d.ids[k]);
        base_text_add_char(&out, '\n');
    }
    data_set_close(set);
    return base_text_take(&out, NULL);
}

static void check_text(const char *folder, const char *want)
{
    char *text = text_of(folder, DATA_TRAIN);
    assert_string_equal(text, want);
    base_free(text);
}

static void test_lines(void **state)
{
    const char *to = scratch_path(*state, "out");
    const char *file =
        data_put_text(*state, "a.txt", "\xEF\xBB\xBFone\n\n two \r\n \t\n<|im_end|>\nlast");
    marco_data_params p = data_params(*state, &file);
    marco_data_stats stats = {0};
    assert_ok(marco_data_build(to, &p, &stats, error));
    check_text(to, "one\n two \n<|im_end|>\nlast\n");
    assert_int_equal(stats.documents, 4);
    assert_int_equal(stats.empty, 2);
    assert_int_equal(stats.tokens, 3 + 5 + 10 + 4);
    assert_int_equal(stats.bytes, stats.tokens);
    /* The same in one document. */
    p.lines = false;
    p.overwrite = true;
    assert_ok(marco_data_build(to, &p, &stats, error));
    assert_int_equal(stats.documents, 1);
    check_text(to, "one\n\n two \r\n \t\n<|im_end|>\nlast\n");
    p.overwrite = false;
    assert_refused(MARCO_ERROR_EXISTS, "out", marco_data_build(to, &p, &stats, error));
}

static void test_jsonl(void **state)
{
    const char *to = scratch_path(*state, "out");
    const char *file =
        data_put_text(*state, "a.jsonl",
                      "{\"text\": \"one\\ntwo\", \"id\": 123456789012345678901234567890}\n"
                      "\n{\"text\": \"\"}\n  {\"text\":\"\\u00e9\", \"other\": [1, null]}  \r\n");
    marco_data_params p = data_params(*state, &file);
    marco_data_stats stats;
    assert_ok(marco_data_build(to, &p, &stats, error));
    check_text(to, "one\ntwo\n\xC3\xA9\n");
    assert_int_equal(stats.empty, 2);
    p.field = "other";
    p.overwrite = true;
    assert_refused(MARCO_ERROR_FORMAT, "line 1: no \"other\"",
                   marco_data_build(to, &p, &stats, error));
    check_text(to, "one\ntwo\n\xC3\xA9\n"); /* as it was */
}

/* ---- what cannot be used ------------------------------------------------------------------- */

static void test_bad_lines(void **state)
{
    static const struct {
        const char *line, *why;
    } bad[] = {
        {"{\"text\": \"\xFF\"}", "byte 11 (0xFF) is not valid UTF-8"},
        {"{\"text\": \"a}", "column 12: not valid JSON"},
        {"{\"text\": \"\\ud800\"}", "not valid JSON"},
        {"[1]", "an array where an object belongs"},
        {"{\"txt\": \"a\"}", "no \"text\""},
        {"{\"text\": 5}", "\"text\" is a number"},
        {"{\"text\": null}", "\"text\" is null"},
        {"{\"text\": \"a\", \"text\": \"b\"}", "duplicate"},
        {"{\"text\": \"0123456789012345678901234567890123456789\"}", "longer than the 40 bytes"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *to = scratch_path(*state, "out");
        char text[512];
        snprintf(text, sizeof text, "{\"text\": \"good\"}\n%s\n{\"text\": \"more\"}\n",
                 bad[i].line);
        const char *file = data_put_text(*state, "bad.jsonl", text);
        marco_data_params p = data_params(*state, &file);
        marco_data_stats stats;
        p.max_line = 40;
        assert_refused(MARCO_ERROR_FORMAT, bad[i].why, marco_data_build(to, &p, &stats, error));
        assert_refused(MARCO_ERROR_FORMAT,
                       "bad.jsonl, line 2: ", marco_data_build(to, &p, &stats, error));
        p.skip_bad = true;
        p.overwrite = true;
        assert_ok(marco_data_build(to, &p, &stats, error));
        check_text(to, "good\nmore\n");
        assert_int_equal(stats.bad, 1);
        assert_non_null(strstr(stats.first_bad, bad[i].why));
        scratch_remove_folder(to);
    }
}

static void test_bad_file(void **state)
{
    const char *to = scratch_path(*state, "out");
    const char *file = data_put_text(*state, "a.txt", "one\ntwo\nth\xC3ree\n");
    marco_data_params p = data_params(*state, &file);
    p.lines = false;
    assert_refused(MARCO_ERROR_FORMAT, "a.txt, line 3: byte 3 (0xC3)",
                   marco_data_build(to, &p, NULL, error));
    p.max_line = 5;
    assert_refused(MARCO_ERROR_FORMAT, "a.txt: longer than the 5",
                   marco_data_build(to, &p, NULL, error));
    p.skip_bad = true;
    assert_refused(MARCO_ERROR_ARGUMENT, "no document is left to train on: 0 were empty, 1 could",
                   marco_data_build(to, &p, NULL, error));
    p.lines = true;
    p.skip_bad = false;
    assert_refused(MARCO_ERROR_FORMAT, "line 3: longer than", /* than five bytes */
                   marco_data_build(to, &p, NULL, error));
    file = scratch_path(*state, "nowhere.txt");
    assert_refused(MARCO_ERROR_NOT_FOUND, "nowhere.txt", marco_data_build(to, &p, NULL, error));
    file = data_put_text(*state, "a.json", "{}");
    assert_refused(MARCO_ERROR_ARGUMENT, ".jsonl", marco_data_build(to, &p, NULL, error));
    file = data_put_text(*state, "a.txt", "");
    assert_refused(MARCO_ERROR_ARGUMENT, "no document", marco_data_build(to, &p, NULL, error));
    p.valid = 1;
    assert_refused(MARCO_ERROR_ARGUMENT, "held out", marco_data_build(to, &p, NULL, error));
    /* Nothing but the files, the tokenizer's folder and what was put. */
    assert_int_equal(scratch_count(((scratch *)*state)->folder), 3);
}

/* An endless line among others, in blocks larger than what is read at once. */
static void test_endless_line(void **state)
{
    size_t size = (5 << 20) + 12;
    char *text = base_alloc(size + 1);
    memset(text, 'x', size);
    memcpy(text, "first\n", 6);
    memcpy(text + size - 6, "\nlast\n", 6);
    const char *file = data_put(*state, "a.txt", text, size), *to = scratch_path(*state, "out");
    base_free(text);
    marco_data_params p = data_params(*state, &file);
    marco_data_stats stats;
    p.max_line = 1000;
    assert_refused(MARCO_ERROR_FORMAT, "a.txt, line 2: longer than the 1000 bytes",
                   marco_data_build(to, &p, &stats, error));
    p.skip_bad = true;
    assert_ok(marco_data_build(to, &p, &stats, error));
    check_text(to, "first\nlast\n");
    p.max_line = 0;
    p.overwrite = true;
    assert_ok(marco_data_build(to, &p, &stats, error));
    assert_int_equal(stats.tokens, size - 3);
}

/* ---- the split ----------------------------------------------------------------------------- */

/* Lines "document 0" and so on, from `first` on and in steps. */
static char *numbered(int first, int step, int n)
{
    base_text out = {0};
    for (int i = 0; i < n; i++)
        base_text_printf(&out, "document %d\n", first + i * step);
    return base_text_take(&out, NULL);
}

static void test_split(void **state)
{
    enum { N = 3000 };
    marco_data_stats stats;
    char *forward = numbered(0, 1, N), *backward = numbered(N - 1, -1, N);
    const char *file = data_put_text(*state, "a.txt", forward);
    const char *to = scratch_path(*state, "out"), *other = scratch_path(*state, "other");
    marco_data_params p = data_params(*state, &file);
    p.valid = 0.1;
    p.shard_tokens = 1000;
    assert_ok(marco_data_build(to, &p, &stats, error));
    assert_int_equal(stats.documents + stats.valid_documents, N);
    assert_in_range(stats.valid_documents, 250, 350); /* three deviations of sqrt(270) */
    char *kept = text_of(to, DATA_TRAIN), *held_out = text_of(to, DATA_VALID);
    file = data_put_text(*state, "b.txt", backward);
    assert_ok(marco_data_build(other, &p, &stats, error));
    char *again = text_of(other, DATA_VALID);
    assert_int_equal(strlen(again), strlen(held_out));
    for (char *line = strtok(held_out, "\n"); line; line = strtok(NULL, "\n")) {
        char whole[64];
        snprintf(whole, sizeof whole, "%s\n", line);
        assert_non_null(strstr(again, whole));
        assert_null(strstr(kept, whole));
    }
    base_free(kept);
    base_free(held_out);
    base_free(again);
    base_free(forward);
    base_free(backward);
    file = data_put_text(*state, "c.txt", "some text\n");
    p.valid = 0.999999;
    p.overwrite = true;
    assert_refused(MARCO_ERROR_ARGUMENT, "1 held out", marco_data_build(to, &p, &stats, error));
}

/* ---- threads, memory ----------------------------------------------------------------------- */

static void test_threads(void **state)
{
    enum { N = 20000 }; /* more than a window holds */
    char *text = numbered(0, 7, N);
    const char *files[] = {data_put_text(*state, "a.txt", text),
                           data_put_text(*state, "b.jsonl", "{\"text\": \"b\"}\n")};
    const char *one = scratch_path(*state, "one"), *three = scratch_path(*state, "three");
    base_free(text);
    marco_data_params p = data_params(*state, files);
    p.n_files = 2;
    p.valid = 0.02;
    p.shard_tokens = 100000;
    marco_data_stats a, b;
    assert_ok(marco_data_build(one, &p, &a, error));
    p.threads = 3;
    assert_ok(marco_data_build(three, &p, &b, error));
    assert_true(scratch_same_folder(one, three));
    assert_int_equal(scratch_count(one), 1 + 3 + 1); /* data.json, 300,000 tokens in three, one */
    assert_int_equal(a.tokens, b.tokens);
}

static int cancel(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)what;
    assert_int_equal(done, total);
    return ++*(int *)user;
}

static void test_cancel(void **state)
{
    int calls = 0;
    const char *file = data_put_text(*state, "a.txt", "one\ntwo\n");
    marco_data_params p = data_params(*state, &file);
    p.progress = (marco_progress){cancel, &calls};
    assert_refused(MARCO_ERROR_CANCELLED, "cancelled",
                   marco_data_build(scratch_path(*state, "out"), &p, NULL, error));
    assert_int_equal(calls, 1);
    assert_int_equal(scratch_count(((scratch *)*state)->folder), 2);
}

/* Fails the n-th request for every n, until none is left to fail. */
static void check_memory(const scratch *s, const char *file, bool chat)
{
    const char *to = scratch_path(s, "out");
    marco_data_params p = data_params(s, &file);
    p.chat = chat;
    for (uint64_t n = 1;; n++) {
        marco_error error = {0};
        base_alloc_fail_at(n);
        marco_status status = marco_data_build(to, &p, NULL, &error);
        base_alloc_fail_at(0);
        if (status == MARCO_OK)
            break;
        if (status != MARCO_ERROR_MEMORY)
            fail_msg("request %llu: %s", (unsigned long long)n, error.message);
        assert_int_equal(scratch_count(s->folder), 2);
        assert_true(n < 100000);
    }
}

static void test_memory_text(void **state)
{
    check_memory(*state, data_put_text(*state, "a.txt", "one\ntwo\n"), false);
}

static void test_memory_chat(void **state)
{
    check_memory(*state,
                 data_put_text(*state, "a.jsonl",
                               "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, "
                               "{\"role\": \"assistant\", \"content\": \"b\"}]}\n"),
                 true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256),  SCRATCH_TEST(test_lines),
        SCRATCH_TEST(test_jsonl),       SCRATCH_TEST(test_bad_lines),
        SCRATCH_TEST(test_bad_file),    SCRATCH_TEST(test_endless_line),
        SCRATCH_TEST(test_split),       SCRATCH_TEST(test_threads),
        SCRATCH_TEST(test_cancel),      SCRATCH_TEST(test_memory_text),
        SCRATCH_TEST(test_memory_chat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
