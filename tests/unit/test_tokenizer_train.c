/* Learning tokenizers: merges worked by hand, HF's from tests/vectors/tokens/merges.json, and what
 * must not matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/text.h"
#include "token_files.h"
#include "tokenizer/chat.h"
#include "tokenizer/train.h"

/* ---- by hand ------------------------------------------------------------------------------- */

/* Learns from words, a space between them, and spells the merges: "a+b ab+c". */
static void learn(const char *text, int32_t n_merges, int64_t min_frequency, char out[256],
                  uint64_t *n_ids)
{
    tok_words words = {0};
    tok_learnt learnt;
    marco_progress progress = {0};
    uint8_t alphabet[256];
    char tokens[300][16] = {{0}};
    assert_int_equal(tok_seed_draw(&words.seed, NULL), MARCO_OK);
    for (size_t n; *text; text += n + (text[n] == ' ')) {
        n = strcspn(text, " ");
        assert_true(tok_words_add(&words, text, n, 1));
    }
    assert_int_equal(tok_learn(&words, n_merges, min_frequency, &progress, &learnt, NULL),
                     MARCO_OK);
    tok_alphabet(alphabet);
    for (int i = 0; i < 256; i++)
        tokens[i][0] = (char)alphabet[i];
    out[0] = '\0';
    for (int i = 0; i < learnt.n_merges; i++) {
        const char *left = tokens[learnt.merges[i].left], *right = tokens[learnt.merges[i].right];
        snprintf(tokens[256 + i], sizeof tokens[0], "%s%s", left, right);
        snprintf(out + strlen(out), 256 - strlen(out), "%s%s+%s", i ? " " : "", left, right);
    }
    *n_ids = learnt.n_ids;
    tok_words_free(&words);
    base_free(learnt.merges);
}

static void check_learn(const char *text, int32_t n_merges, int64_t min_frequency, const char *want,
                        uint64_t want_ids)
{
    char got[256];
    uint64_t n_ids;
    learn(text, n_merges, min_frequency, got, &n_ids);
    assert_string_equal(got, want);
    assert_int_equal(n_ids, want_ids);
}

static void test_by_hand(void **state)
{
    (void)state;
    /* The most frequent first; then what is left of it. */
    check_learn("low low lower newest newest newest", 4, 2, "w+e e+we l+o n+ewe", 16);
    /* Equals: the smallest ids, the left one first. "!" has the id 0. */
    check_learn("b~ b~ ~b ~b a~ a~ !~ !~", 9, 2, "!+~ a+~ b+~ ~+b", 8);
    check_learn("cd ab", 9, 1, "a+b c+d", 2);
    /* Occurrences overlap: 3 + 2 pairs in 4 + 3 letters, joined from the left. */
    check_learn("aaaa aaa", 1, 1, "a+a", 4);
    check_learn("aaaa aaa", 9, 1, "a+a aa+a aa+aa", 2);
    check_learn("aaaa aaa", 9, 2, "a+a", 4);
    /* A count that fell before its turn: "bc" three times, but once only after "ab". */
    check_learn("abc abc ab bc", 2, 1, "a+b ab+c", 5);
    check_learn("abc abc ab bc", 9, 2, "a+b ab+c", 5);
    /* Nothing to learn. */
    check_learn("a b c", 9, 1, "", 3);
    check_learn("ab cd", 0, 1, "", 4);
}

static void test_alphabet(void **state)
{
    (void)state;
    uint8_t alphabet[256];
    tok_alphabet(alphabet);
    assert_int_equal(alphabet[0], '!');
    assert_int_equal(alphabet[93], '~');
    assert_int_equal(alphabet[94], 0xA1);
    assert_int_equal(alphabet[187], 0xFF);
    assert_int_equal(alphabet[188], 0);
    assert_int_equal(alphabet[220], ' ');
    assert_int_equal(alphabet[221], 0x7F);
    assert_int_equal(alphabet[255], 0xAD);
}

/* ---- files --------------------------------------------------------------------------------- */

static marco_tokenizer_train_params params_of(const char *const *files, size_t n_files,
                                              int32_t vocab_size)
{
    marco_tokenizer_train_params params = marco_tokenizer_train_params_default();
    params.files = files;
    params.n_files = n_files;
    params.vocab_size = vocab_size;
    params.threads = 2;
    params.overwrite = true;
    return params;
}

static void train(const char *to, const marco_tokenizer_train_params *params,
                  marco_tokenizer_train_stats *stats)
{
    marco_error error;
    if (marco_tokenizer_train(to, params, stats, &error))
        fail_msg("%s", error.message);
}

static void write_bytes(const char *path, const char *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

/* The vectors' texts as lines of one file. */
static const char *lines_file(const scratch *s, base_text *text)
{
    FILE *f = fopen(token_vector("lines.jsonl"), "rb");
    char *line = NULL;
    size_t room = 0;
    assert_non_null(f);
    for (ssize_t got; (got = getline(&line, &room, f)) > 0;) {
        json_t *record = json_loadb(line, (size_t)got, JSON_ALLOW_NUL, NULL);
        const json_t *value = json_object_get(record, "text");
        base_text_add_n(text, "\n", text->size > 0);
        base_text_add_n(text, json_string_value(value), json_string_length(value));
        json_decref(record);
    }
    free(line);
    fclose(f);
    const char *path = scratch_path(s, "lines.txt");
    /* The first record is empty, and its newline was not added. */
    base_text whole = {0};
    base_text_add(&whole, "\n");
    base_text_add_n(&whole, text->data, text->size);
    assert_false(whole.failed);
    base_text_free(text);
    *text = whole;
    write_bytes(path, text->data, text->size);
    return path;
}

static json_t *learnt_merges(const char *folder)
{
    char path[600];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    json_t *merges = json_incref(json_object_get(json_object_get(root, "model"), "merges"));
    json_decref(root);
    return merges;
}

static void check_digest(const char *folder, const json_t *want)
{
    json_t *merges = learnt_merges(folder);
    uint64_t hash = 0xCBF29CE484222325u;
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const char *merge = json_string_value(json_array_get(merges, i));
        for (; *merge; merge++)
            hash = (hash ^ (unsigned char)*merge) * 0x100000001B3u;
        hash = (hash ^ '\n') * 0x100000001B3u;
    }
    char digest[64];
    snprintf(digest, sizeof digest, "%zu:%016llx", json_array_size(merges),
             (unsigned long long)hash);
    assert_string_equal(digest, json_string_value(want));
    json_decref(merges);
}

static void test_vectors(void **state)
{
    const scratch *s = *state;
    json_t *want = json_load_file(token_vector("merges.json"), 0, NULL);
    const json_t *merges = json_object_get(want, "merges");
    assert_int_equal(json_array_size(merges), 600);
    const char *json = token_vector("lines.jsonl"), *to = scratch_path(s, "made");
    marco_tokenizer_train_params params = params_of(&json, 1, 256 + 600 + 3);
    train(to, &params, NULL);
    json_t *got = learnt_merges(to);
    for (size_t i = 0; i < 600; i++)
        assert_string_equal(json_string_value(json_array_get(got, i)),
                            json_string_value(json_array_get(merges, i)));
    assert_int_equal(json_array_size(got), 600);
    json_decref(got);

    base_text text = {0};
    const char *path = lines_file(s, &text);
    base_text_free(&text);
    params = params_of(&path, 1, 256 + 6000 + 3);
    train(to, &params, NULL);
    check_digest(to, json_object_get(want, "lines"));
    params.vocab_size = 1 << 20;
    marco_tokenizer_train_stats stats;
    train(to, &params, &stats);
    check_digest(to, json_object_get(want, "all"));
    assert_int_equal(stats.vocab_size, 256 + stats.merges + 3);
    json_decref(want);
}

/* A text of several chunks, cut into chunks and files elsewhere, by any number of threads. */
static void test_invariance(void **state)
{
    const scratch *s = *state;
    base_text text = {0}, large = {0};
    lines_file(s, &text);
    for (int i = 0; i < 6; i++) {
        base_text_add_n(&large, text.data, text.size);
        base_text_add(&large, i % 2 ? "\n" : "\r\n");
    }
    assert_true(!large.failed && large.size > 6 << 18);
    const char *whole = scratch_path(s, "whole.txt");
    write_bytes(whole, large.data, large.size);
    const char *parts[3] = {scratch_path(s, "a.txt"), scratch_path(s, "b"),
                            scratch_path(s, "c.txt")};
    size_t at = 0;
    for (int i = 0; i < 3; i++) {
        size_t end = i < 2 ? large.size * (size_t)(i + 1) / 3 : large.size;
        while (end < large.size && large.data[end - 1] != '\n')
            end++;
        write_bytes(parts[i], large.data + at, end - at);
        at = end;
    }
    const char *first = scratch_path(s, "first"), *second = scratch_path(s, "second");
    marco_tokenizer_train_params params = params_of(&whole, 1, 3000);
    marco_tokenizer_train_stats want, got;
    params.threads = 1;
    train(first, &params, &want);
    assert_int_equal(want.vocab_size, 3000);
    assert_true(want.tokens < want.bytes && want.tokens > want.bytes / 8);
    for (int32_t threads = 2; threads <= 5; threads++) {
        params.threads = threads;
        train(second, &params, &got);
        assert_true(scratch_same_folder(first, second));
        assert_memory_equal(&want, &got, sizeof want);
    }
    params.files = parts;
    params.n_files = 3;
    train(second, &params, &got);
    assert_true(scratch_same_folder(first, second));
    assert_memory_equal(&want, &got, sizeof want);
    base_text_free(&text);
    base_text_free(&large);
}

/* What was learnt encodes the text in as many tokens as were counted. */
static void test_counts(void **state)
{
    const scratch *s = *state;
    base_text text = {0};
    const char *path = lines_file(s, &text), *to = scratch_path(s, "made");
    marco_tokenizer_train_params params = params_of(&path, 1, 1000);
    marco_tokenizer_train_stats stats;
    train(to, &params, &stats);
    marco_tokenizer *t = open_tokenizer(to);
    uint64_t n_ids = 0;
    for (size_t at = 0; at < text.size;) {
        const char *newline = memchr(text.data + at, '\n', text.size - at);
        size_t end = newline ? (size_t)(newline - text.data) + 1 : text.size, n;
        int32_t *ids;
        assert_int_equal(marco_tokenizer_encode(t, text.data + at, end - at, 0, &ids, &n, NULL),
                         MARCO_OK);
        n_ids += n;
        marco_free(ids);
        at = end;
    }
    assert_int_equal(n_ids, stats.tokens);
    marco_tokenizer_close(t);
    base_text_free(&text);
}

static void test_json(void **state)
{
    const scratch *s = *state;
    const char *files[] = {scratch_path(s, "a.jsonl"), scratch_path(s, "a.txt")};
    const char *first = scratch_path(s, "first"), *second = scratch_path(s, "second");
    write_text(files[0], "{\"text\": \"ab\\nab\", \"id\": 7}\n\n  \r\n"
                         "{\"messages\": [{\"role\": \"user\", \"content\": \"xab xab\"},"
                         " {\"role\": \"assistant\", \"content\": null},"
                         " {\"role\": \"assistant\", \"tool_calls\": []}]}\n"
                         "{\"text\": \"\", \"messages\": 3}\n{\"text\": \"z\\u0000zz\"}");
    write_bytes(files[1], "ab\nab\nxab xab\nz\0zz", 18);
    marco_tokenizer_train_params params = params_of(files, 1, 300);
    marco_tokenizer_train_stats stats;
    train(first, &params, &stats);
    /* "ab" twice, "xab", " xab", "z", NUL with "zz", and a newline. */
    assert_int_equal(stats.words, 6);
    assert_int_equal(stats.bytes, 16);
    params.files = files + 1;
    train(second, &params, &stats);
    json_t *a = learnt_merges(first), *b = learnt_merges(second);
    assert_true(json_equal(a, b));
    assert_string_equal(json_string_value(json_array_get(a, 0)), "a b");
    json_decref(a);
    json_decref(b);
}

/* What marco data takes: a byte order mark, and numbers in fields that nobody reads. */
static void test_as_data(void **state)
{
    const scratch *s = *state;
    static const char *const texts[][2] = {
        {"a.txt", "\xEF\xBB\xBF"
                  "ab\nab\n"},
        {"a.txt", "\xEF\xBB\xBF"
                  "ab\nab"},
        {"a.jsonl", "\xEF\xBB\xBF{\"text\": \"ab\"}\n\v\f\n{\"text\": \"ab\"}\n"},
        {"a.jsonl", "{\"text\": \"ab\", \"id\": 123456789012345678901234567890}\n"
                    "{\"text\": \"ab\", \"ids\": [-98765432109876543210]}"},
    };
    static const uint64_t bytes[] = {6, 5, 4, 4};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *file = scratch_path(s, texts[i][0]);
        write_text(file, texts[i][1]);
        marco_tokenizer_train_params params = params_of(&file, 1, 300);
        marco_tokenizer_train_stats stats;
        train(scratch_path(s, "made"), &params, &stats);
        assert_int_equal(stats.bytes, bytes[i]);
    }
    /* Elsewhere it is text. */
    const char *file = scratch_path(s, "a.txt");
    write_text(file, "ab\n\xEF\xBB\xBF"
                     "ab\n");
    marco_tokenizer_train_params params = params_of(&file, 1, 300);
    marco_tokenizer_train_stats stats;
    train(scratch_path(s, "made"), &params, &stats);
    assert_int_equal(stats.bytes, 9);
}

static void test_max_bytes(void **state)
{
    const scratch *s = *state;
    const char *files[] = {scratch_path(s, "a.txt"), scratch_path(s, "a.jsonl")};
    const char *to = scratch_path(s, "made");
    marco_tokenizer_train_stats stats;
    write_text(files[0], "abc\nd\xC3\xA9"
                         "f\n");
    marco_tokenizer_train_params params = params_of(files, 1, 300);
    const struct {
        uint64_t max_bytes, bytes;
    } cuts[] = {{0, 9}, {9, 9}, {99, 9}, {8, 8}, {7, 7}, {6, 5}, {5, 5}, {4, 4}, {1, 1}};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        params.max_bytes = cuts[i].max_bytes;
        train(to, &params, &stats);
        assert_int_equal(stats.bytes, cuts[i].bytes);
    }
    write_text(files[1], "{\"text\": \"ab\"}\n{\"text\": \"cde\"}");
    params.files = files + 1;
    params.max_bytes = 29; /* the second line lacks its end */
    train(to, &params, &stats);
    assert_int_equal(stats.bytes, 2);
    params.max_bytes = 30;
    train(to, &params, &stats);
    assert_int_equal(stats.bytes, 5);
    params.max_bytes = 13;
    assert_int_equal(marco_tokenizer_train(to, &params, &stats, NULL), MARCO_ERROR_FORMAT);
}

/* A word without end is not merged from end to end every time. */
static void test_long_word(void **state)
{
    const scratch *s = *state;
    const char *file = scratch_path(s, "a.txt");
    base_text text = {0};
    uint32_t x = 1;
    for (int i = 0; i < 150000; i++) {
        char utf8[4];
        x = x * 1664525 + 1013904223;
        base_text_add_n(&text, utf8, base_utf8_encode(0x430 + (x >> 27), utf8));
    }
    write_bytes(file, text.data, text.size);
    marco_tokenizer_train_params params = params_of(&file, 1, 800);
    marco_tokenizer_train_stats stats;
    train(scratch_path(s, "made"), &params, &stats);
    assert_int_equal(stats.bytes, 300000);
    assert_int_equal(stats.words, 5);
    assert_int_equal(stats.vocab_size, 800);
    base_text_free(&text);
}

/* ---- special tokens ------------------------------------------------------------------------ */

static void check_specials(const char *folder, int32_t first, const char *const *texts, int32_t n,
                           int32_t eos, bool chat)
{
    tok_spec *spec;
    assert_int_equal(tok_spec_read_hf(folder, &spec, NULL), MARCO_OK);
    assert_int_equal(spec->n_added, n);
    for (int32_t i = 0; i < n; i++) {
        assert_string_equal(spec->added[i].text, texts[i]);
        assert_int_equal(spec->added[i].id, first + i);
        assert_true(spec->added[i].special && !spec->added[i].normalized);
    }
    assert_int_equal(spec->eos, eos);
    assert_int_equal(spec->pad, eos);
    assert_string_equal(spec->pre, "qwen2");
    assert_int_equal(tok_chat_recognise(spec->chat_template), chat ? tok_chat_find("chatml") : 0);
    tok_spec_free(spec);
}

static void test_specials(void **state)
{
    const scratch *s = *state;
    const char *file = scratch_path(s, "a.txt"), *to = scratch_path(s, "made");
    write_text(file, "to be or not to be");
    marco_tokenizer_train_params params = params_of(&file, 1, 262);
    train(to, &params, NULL);
    const char *const usual[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    check_specials(to, 259, usual, 3, 259, true);

    const char *const some[] = {"[CLS]", "<s>", "<|endoftext|>", "\xE2\x96\x81x\xE2\x96\x81"};
    params.special = some;
    params.n_special = 4;
    train(to, &params, NULL);
    check_specials(to, 258, some, 4, 260, false);
    params.n_special = 2;
    params.vocab_size = 258; /* no merges */
    train(to, &params, NULL);
    check_specials(to, 256, some, 2, 256, false);
    params.n_special = 0;
    train(to, &params, NULL);
    check_specials(to, 258, some, 0, -1, false);

    const char *const bad[] = {"word", "<| x|>", "###", "", "<\xFF>", "'s", "<|\n", "7"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        marco_error error;
        params.special = bad + i;
        params.n_special = 1;
        assert_int_equal(marco_tokenizer_train(to, &params, NULL, &error), MARCO_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "special token '"));
    }
    const char *const twice[] = {"<a>", "<a>"};
    params.special = twice;
    params.n_special = 2;
    assert_int_equal(marco_tokenizer_train(to, &params, NULL, NULL), MARCO_ERROR_ARGUMENT);
}

/* ---- what cannot be ------------------------------------------------------------------------ */

static void check_refused(const scratch *s, const char *name, const char *data, size_t size,
                          const char *what)
{
    const char *file = scratch_path(s, name), *to = scratch_path(s, "none");
    marco_tokenizer_train_params params = params_of(&file, 1, 300);
    marco_error error;
    write_bytes(file, data, size);
    assert_int_equal(marco_tokenizer_train(to, &params, NULL, &error), MARCO_ERROR_FORMAT);
    if (!strstr(error.message, what) || !strstr(error.message, name))
        fail_msg("'%s' lacks '%s'", error.message, what);
    assert_false(access(to, F_OK) == 0);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(scratch_count(s->folder), 0); /* nor anything under another name */
}

static void test_refused_text(void **state)
{
    const scratch *s = *state;
    check_refused(s, "a.txt", "one\ntwo\nth\xFFree\n", 15, "line 3 is not valid UTF-8 (byte 0xFF)");
    check_refused(s, "a.txt", "\xED\xA0\x80", 3, "line 1 is not valid UTF-8");
    check_refused(s, "a.txt", "caf\xC3", 4, "line 1 is not valid UTF-8 (byte 0xC3)");
    check_refused(s, "a.txt", "", 0, "no text");
    check_refused(s, "a.jsonl", "\n\n", 2, "no text");
    check_refused(s, "a.jsonl", "{\"text\": \"a\"}\n{\"text\": }\n", 25, ".jsonl:2: ");
    check_refused(s, "a.jsonl", "{\"text\": \"a\xFF\"}", 14, ".jsonl:1: ");
    check_refused(s, "a.jsonl", "\n{\"body\": \"a\"}\n", 15, ".jsonl:2: must be an object");
    check_refused(s, "a.jsonl", "{\"text\": 1}", 11, "must be an object");
    check_refused(s, "a.jsonl", "[\"text\"]", 8, "must be an object");
    check_refused(s, "a.jsonl", "{\"messages\": [3]}", 17, "message 0");
    check_refused(s, "a.jsonl", "{\"messages\": [{}, {\"content\": [1]}]}", 36, "message 1");
}

static void test_endless_line(void **state)
{
    const scratch *s = *state;
    const char *file = scratch_path(s, "a.txt"), *to = scratch_path(s, "made");
    marco_tokenizer_train_params params = params_of(&file, 1, 300);
    marco_error error;
    write_text(file, "one\n");
    assert_int_equal(truncate(file, 70 << 20), 0);
    assert_int_equal(marco_tokenizer_train(to, &params, NULL, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "line 2 is longer than 64 MiB"));
}

static int cancel(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)done, (void)total;
    return strstr(what, user) != NULL;
}

static void test_refused_params(void **state)
{
    const scratch *s = *state;
    const char *files[] = {scratch_path(s, "a.txt"), scratch_path(s, "absent.txt")};
    const char *to = scratch_path(s, "made");
    marco_tokenizer_train_params good = params_of(files, 1, 300), bad;
    base_text text = {0};
    for (int i = 0; i < 400; i++)
        base_text_printf(&text, "%c%c%c ", 'a' + i % 17, 'a' + i % 13, 'a' + i % 7);
    write_bytes(files[0], text.data, text.size);
    base_text_free(&text);
#define REFUSED(status, ...)                                                                       \
    bad = good;                                                                                    \
    bad.__VA_ARGS__;                                                                               \
    assert_int_equal(marco_tokenizer_train(to, &bad, NULL, NULL), MARCO_ERROR_##status);           \
    assert_false(access(to, F_OK) == 0)
    REFUSED(ARGUMENT, vocab_size = 258);
    REFUSED(ARGUMENT, vocab_size = 1 << 25);
    REFUSED(ARGUMENT, n_files = 0);
    REFUSED(ARGUMENT, threads = 1025);
    REFUSED(ARGUMENT, min_frequency = -1);
    REFUSED(NOT_FOUND, n_files = 2);
    REFUSED(CANCELLED, progress = ((marco_progress){cancel, "reading"}));
    REFUSED(CANCELLED, progress = ((marco_progress){cancel, "learning"}));
    good.overwrite = false;
    train(to, &good, NULL);
    assert_int_equal(marco_tokenizer_train(to, &good, NULL, NULL), MARCO_ERROR_EXISTS);
}

static void test_memory(void **state)
{
    const scratch *s = *state;
    const char *files[] = {scratch_path(s, "a.txt"), scratch_path(s, "a.jsonl")};
    const char *to = scratch_path(s, "made");
    marco_tokenizer_train_params params = params_of(files, 2, 290);
    marco_status status = MARCO_ERROR_MEMORY;
    write_text(files[0], "e\xCC\x81t\xC3\xA9 the cat sat on the mat\nthe hat\n");
    write_text(files[1], "{\"text\": \"that cat\"}\n");
    for (uint64_t n = 1; status; n++) {
        base_alloc_fail_at(n);
        status = marco_tokenizer_train(to, &params, NULL, NULL);
        base_alloc_fail_at(0);
        if (status) {
            assert_int_equal(status, MARCO_ERROR_MEMORY);
            assert_int_equal(scratch_count(s->folder), 2);
        }
        assert_true(n < 5000);
    }
    marco_tokenizer_close(open_tokenizer(to));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),    cmocka_unit_test(test_alphabet),
        SCRATCH_TEST(test_vectors),        SCRATCH_TEST(test_invariance),
        SCRATCH_TEST(test_counts),         SCRATCH_TEST(test_json),
        SCRATCH_TEST(test_as_data),        SCRATCH_TEST(test_max_bytes),
        SCRATCH_TEST(test_long_word),      SCRATCH_TEST(test_specials),
        SCRATCH_TEST(test_refused_text),   SCRATCH_TEST(test_endless_line),
        SCRATCH_TEST(test_refused_params), SCRATCH_TEST(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
