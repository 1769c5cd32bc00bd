/* Folders of shards: what was written is read, and what is damaged is refused or harmless. */
#include "data_fixture.h"

#include <jansson.h>

#include "base/file.h"
#include "base/memory.h"
#include "data/shard.h"

static const char text[] = "one\nthree\nfour and more\nx\n";

/* ---- what was written ---------------------------------------------------------------------- */

static void test_shards(void **state)
{
    enum { N = 500 };
    char *lines = base_calloc(N, 8);
    for (int i = 0; i < N; i++)
        snprintf(lines + strlen(lines), 8, "%d\n", i);
    const char *file = data_put_text(*state, "a.txt", lines), *to = scratch_path(*state, "out");
    base_free(lines);
    marco_data_params p = data_params(*state, &file);
    p.shard_tokens = 100;
    assert_ok(marco_data_build(to, &p, NULL, error));
    assert_int_equal(scratch_count(to), 1 + 14); /* 1390 digits */
    data_set *set;
    assert_ok(data_set_open(to, DATA_TRAIN, &set, error));
    assert_int_equal(data_set_documents(set), N);
    assert_int_equal(data_set_tokens(set), 10 + 2 * 90 + 3 * 400);
    assert_int_equal(data_set_vocab(set), BYTES_VOCAB);
    assert_false(data_set_is_chat(set));
    for (int64_t k = 0; k < N; k++) {
        int64_t i = k * 77 % N, number;
        char want[8], got[8] = "";
        data_document d = data_set_document(set, i);
        snprintf(want, sizeof want, "%d", (int)i);
        for (int64_t at = 0; at < d.n; at++)
            got[at] = (char)d.ids[at];
        assert_string_equal(got, want);
        assert_null(d.target);
        if (i == 56 || i == 499) /* the first of the second shard, the last of the last */
            assert_non_null(strstr(data_set_place(set, i, &number),
                                   i == 56 ? "train-00001.ids" : "train-00013.ids"));
    }
    data_set_close(set);
    assert_ok(data_set_open(to, DATA_VALID, &set, error));
    assert_int_equal(data_set_documents(set), 0);
    data_set_close(set);
}

/* The digest of a tokenizer tells what its ids mean, however it is stored. */
static void test_digest(void **state)
{
    char one[65], same[65], other[65];
    tok_spec *spec;
    marco_tokenizer *tokenizer;
    assert_ok(marco_tokenizer_open(data_tokenizer(*state), &tokenizer, error));
    assert_ok(data_tokenizer_digest(tokenizer, one, error));
    marco_tokenizer_close(tokenizer);
    for (int changed = 0; changed < 2; changed++) {
        assert_ok(tok_spec_bytes(&spec, error));
        if (changed) {
            char *a = spec->tokens['a'];
            spec->tokens['a'] = spec->tokens['b'];
            spec->tokens['b'] = a;
        }
        assert_ok(tok_compile(spec, &tokenizer, error));
        assert_ok(data_tokenizer_digest(tokenizer, changed ? other : same, error));
        marco_tokenizer_close(tokenizer);
    }
    assert_string_equal(one, same);
    assert_string_not_equal(one, other);
}

/* ---- what is damaged ----------------------------------------------------------------------- */

typedef struct bytes {
    char *data;
    size_t size;
} bytes;

static bytes slurp(const char *folder, const char *name)
{
    char path[512];
    bytes b;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_ok(base_file_slurp(path, 1 << 20, &b.data, &b.size, error));
    return b;
}

static void put(const char *folder, const char *name, const void *data, size_t size)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path); /* some file systems wait for the disk where a file is emptied and filled */
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* Whatever opens can be read to its end, and taken into batches or refused. */
static bool survives(const char *folder)
{
    data_source source = {folder, 1};
    data_loader_params p = {.sources = &source,
                            .n_sources = 1,
                            .seq_len = 8,
                            .eos = BYTES_EOS,
                            .attend_across = true,
                            .n_vocab = BYTES_VOCAB};
    data_loader *loader;
    data_batch *batch;
    if (data_loader_create(&p, &loader, NULL))
        return false;
    assert_ok(data_batch_create(4, 8, &batch, error));
    marco_status status = MARCO_OK;
    for (int i = 0; i < 3 && !status; i++)
        status = data_loader_next(loader, 4, 0, batch, NULL);
    for (int64_t i = 0; i < 32 && !status; i++)
        assert_true(batch->ids[i] >= 0 && batch->ids[i] < BYTES_VOCAB && batch->targets[i] >= -1 &&
                    batch->targets[i] < BYTES_VOCAB);
    data_batch_free(batch);
    data_loader_close(loader);
    return status == MARCO_OK;
}

static void test_every_length(void **state)
{
    const char *to = data_folder(*state, "out", text);
    bytes shard = slurp(to, "train-00000.ids");
    assert_true(survives(to));
    for (size_t size = 0; size < shard.size; size++) {
        put(to, "train-00000.ids", shard.data, size);
        assert_false(survives(to));
    }
    bytes json = slurp(to, "data.json");
    put(to, "train-00000.ids", shard.data, shard.size);
    for (size_t size = 0; size < json.size - 1; size++) { /* the last is a line's end */
        put(to, "data.json", json.data, size);
        assert_false(survives(to));
    }
    base_free(json.data);
    base_free(shard.data);
}

static void test_every_byte(void **state)
{
    const char *to = data_folder(*state, "out", text);
    bytes shard = slurp(to, "train-00000.ids");
    int refused = 0;
    for (size_t i = 0; i < shard.size; i++) {
        static const char values[] = {0, 1, 0x7F, (char)0x80, (char)0xFF};
        for (size_t v = 0; v < sizeof values; v++) {
            char before = shard.data[i];
            shard.data[i] = values[v];
            put(to, "train-00000.ids", shard.data, shard.size);
            refused += !survives(to);
            shard.data[i] = before;
        }
    }
    assert_true(refused > (int)shard.size); /* most changes are seen */
    base_free(shard.data);
}

/* A shard with one number changed. */
static void test_numbers(void **state)
{
    const char *to = data_folder(*state, "out", text);
    bytes shard = slurp(to, "train-00000.ids");
    const size_t ids = 64, offsets = ids + 88, tail = shard.size - 24; /* 22 ids */
    const struct {
        size_t at, size;
        uint64_t value;
        const char *why;
    } cases[] = {
        {0, 1, 'X', "not a shard of token ids"},
        {8, 4, 2, "version 2"},
        {12, 4, 2, "flags 2"},
        {12, 4, 1, "does not go with its size"}, /* targets that are not there */
        {16, 4, 0, "vocabulary of 0"},
        {16, 4, 300, "mixes files of several runs"},
        {24, 1, 0x55, "mixes files of several runs"},
        {tail, 8, 0, "does not go with its size"},
        {tail, 8, 3, "does not go with its size"},
        {tail, 8, UINT64_MAX, "does not go with its size"},
        {tail, 8, UINT64_MAX / 8 + 1, "does not go with its size"},
        {tail + 8, 8, 24, "does not go with its size"},
        {tail + 8, 8, (uint64_t)1 << 62, "does not go with its size"},
        {tail + 8, 8, 21, "begins or ends where it cannot"}, /* of the same size when rounded */
        {tail + 16, 1, 'X', "the end of the file is missing"},
        {offsets, 8, 1, "document 0 begins or ends"},
        {offsets + 8, 8, 0, "document 0 begins or ends"},
        {offsets + 16, 8, 2, "document 1 begins or ends"},
        {offsets + 16, 8, UINT64_MAX, "document 2 begins or ends"},
        {offsets + 32, 8, 100, "document 0 begins or ends"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *copy = base_alloc(shard.size);
        data_set *set;
        marco_error error = {0};
        memcpy(copy, shard.data, shard.size);
        memcpy(copy + cases[i].at, &cases[i].value, cases[i].size);
        put(to, "train-00000.ids", copy, shard.size);
        base_free(copy);
        assert_int_not_equal(data_set_open(to, DATA_TRAIN, &set, &error), MARCO_OK);
        if (!strstr(error.message, cases[i].why) || !strstr(error.message, "train-00000.ids"))
            fail_msg("case %zu: %s", i, error.message);
    }
    base_free(shard.data);
}

/* Ids are looked at when they are taken; the loader stays where it was. */
static void test_ids(void **state)
{
    const char *to = data_folder(*state, "out", text);
    bytes shard = slurp(to, "train-00000.ids");
    const int32_t bad[] = {BYTES_VOCAB, -1, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memcpy(shard.data + 64 + 4 * 21, &bad[i], 4); /* "x", the fourth document */
        put(to, "train-00000.ids", shard.data, shard.size);
        data_source source = {to, 1};
        data_loader_params p = {.sources = &source,
                                .n_sources = 1,
                                .seq_len = 8,
                                .eos = BYTES_EOS,
                                .n_vocab = BYTES_VOCAB};
        data_loader *loader;
        data_batch *batch;
        char why[64];
        snprintf(why, sizeof why, "train-00000.ids: token 0 of document 3 is %d,", bad[i]);
        assert_ok(data_loader_create(&p, &loader, error));
        assert_ok(data_batch_create(4, 8, &batch, error));
        json_t *before = data_loader_state(loader);
        for (int again = 0; again < 2; again++)
            assert_refused(MARCO_ERROR_FORMAT, why, data_loader_next(loader, 4, 0, batch, error));
        json_t *after = data_loader_state(loader);
        assert_true(json_equal(before, after));
        json_decref(before);
        json_decref(after);
        data_batch_free(batch);
        data_loader_close(loader);
    }
    base_free(shard.data);
}

static void test_json(void **state)
{
    static const struct {
        const char *key, *json, *why;
    } cases[] = {
        {"version", "2", "version 2"},
        {"version", "\"1\"", "\"version\""},
        {"kind", "\"films\"", "neither text nor chat"},
        {"kind", "\"chat\"", "of another kind"},
        {"tokenizer", "\"abc\"", "64 hexadecimal digits"},
        {"n_vocab", "0", "\"n_vocab\" is 0"},
        {"n_vocab", "null", "no \"n_vocab\""},
        {"eos", "259", "\"eos\" is 259"},
        {"splits", "[]", "no \"train\""},
        {"splits",
         "{\"train\": {\"shards\": 1, \"documents\": 5, \"tokens\": 22, \"digest\": \"x\"}}",
         "\"digest\" is 'x'"},
        {"splits", "{\"train\": {\"shards\": -1}}", "\"shards\" is -1"},
        {"splits", "{\"train\": {\"shards\": 1}}", "no \"documents\""},
    };
    const char *to = data_folder(*state, "out", text);
    bytes original = slurp(to, "data.json");
    data_set *set;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        marco_error error = {0};
        json_t *json = json_loadb(original.data, original.size, 0, NULL);
        json_t *value = json_loads(cases[i].json, JSON_DECODE_ANY, NULL);
        assert_non_null(value);
        assert_int_equal(json_object_set_new(json, cases[i].key, value), 0);
        char *changed = json_dumps(json, 0);
        put(to, "data.json", changed, strlen(changed));
        free(changed);
        json_decref(json);
        assert_int_not_equal(data_set_open(to, DATA_TRAIN, &set, &error), MARCO_OK);
        if (!strstr(error.message, cases[i].why))
            fail_msg("case %zu: %s", i, error.message);
    }
    /* Counts and files that do not go together. */
    char *at = strstr(original.data, "\"documents\": 4");
    at[strlen("\"documents\": ")] = '5';
    put(to, "data.json", original.data, original.size);
    assert_refused(MARCO_ERROR_FORMAT, "hold 4 documents of 22 tokens, but data.json says 5",
                   data_set_open(to, DATA_TRAIN, &set, error));
    at[strlen("\"documents\": ")] = '4';
    at = strstr(original.data, "\"shards\": 1");
    at[strlen("\"shards\": ")] = '2';
    put(to, "data.json", original.data, original.size);
    assert_refused(MARCO_ERROR_NOT_FOUND, "train-00001.ids",
                   data_set_open(to, DATA_TRAIN, &set, error));
    base_free(original.data);
    char path[512];
    snprintf(path, sizeof path, "%s/data.json", to);
    assert_int_equal(unlink(path), 0);
    assert_refused(MARCO_ERROR_NOT_FOUND, "no data.json in it; training data are made by",
                   data_set_open(to, DATA_TRAIN, &set, error));
    assert_refused(MARCO_ERROR_NOT_FOUND, "nowhere",
                   data_set_open(scratch_path(*state, "nowhere"), DATA_TRAIN, &set, error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCRATCH_TEST(test_shards),     SCRATCH_TEST(test_digest),  SCRATCH_TEST(test_every_length),
        SCRATCH_TEST(test_every_byte), SCRATCH_TEST(test_numbers), SCRATCH_TEST(test_ids),
        SCRATCH_TEST(test_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
