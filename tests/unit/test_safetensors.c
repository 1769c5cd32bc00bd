#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "flat_folder.h"

#include "base/memory.h"
#include "base/text.h"
#include "format/json.h"
#include "format/safetensors.h"

/* ---- files made by hand --------------------------------------------------------------------- */

/* A file with this header and n_data bytes behind it. */
static void make_file(base_text *t, const char *header, size_t n_data)
{
    size_t size = strlen(header);
    for (size_t i = 0; i < 8; i++)
        base_text_add_char(t, (char)(unsigned char)((uint64_t)size >> (8 * i)));
    base_text_add(t, header);
    for (size_t i = 0; i < n_data; i++)
        base_text_add_char(t, (char)i);
}

static marco_status open_bytes(const char *data, size_t size, safetensors **s, marco_error *error)
{
    char path[64];
    int fd = memfd_create("safetensors", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    marco_status status = safetensors_open(path, s, error);
    close(fd);
    return status;
}

static void put_file(const char *name, const char *data, size_t size)
{
    char *path = base_path_join(folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    base_free(path);
}

static void put_shard(const char *name, const char *header, size_t n_data)
{
    base_text t = {0};
    make_file(&t, header, n_data);
    put_file(name, t.data, t.size);
    base_text_free(&t);
}

#define SMALL                                                                                      \
    "{\"__metadata__\":{\"format\":\"pt\"},"                                                       \
    "\"late\":{\"dtype\":\"BF16\",\"shape\":[3,2],\"data_offsets\":[8,20]},"                       \
    "\"scalar\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"                          \
    "\"half\":{\"dtype\":\"F16\",\"shape\":[1,2,1,1],\"data_offsets\":[4,8]}}  "

static void test_read(void **state)
{
    (void)state;
    base_text t = {0};
    safetensors *s;
    marco_error error = {0};
    char data[12];
    make_file(&t, SMALL, 20);
    assert_int_equal(open_bytes(t.data, t.size, &s, &error), MARCO_OK);
    assert_int_equal(safetensors_count(s), 3);
    /* By offset, not as in the header. */
    assert_string_equal(safetensors_at(s, 0)->name, "scalar");
    assert_string_equal(safetensors_at(s, 1)->name, "half");
    assert_string_equal(safetensors_at(s, 2)->name, "late");
    assert_null(safetensors_at(s, 3));
    assert_null(safetensors_find(s, "__metadata__"));
    const safetensors_tensor *late = safetensors_find(s, "late");
    assert_ptr_equal(late, safetensors_at(s, 2));
    assert_int_equal(late->type, TENSOR_BF16);
    assert_int_equal(late->n_dims, 2);
    assert_int_equal(late->dims[0], 3);
    assert_int_equal(late->dims[1], 2);
    assert_int_equal(late->dims[2], 1);
    assert_int_equal(late->bytes, 12);
    assert_int_equal(base_file_read(late->file, late->offset, data, 12, &error), MARCO_OK);
    assert_memory_equal(data, t.data + t.size - 12, 12);
    assert_int_equal(safetensors_find(s, "scalar")->n_dims, 0);
    assert_int_equal(safetensors_find(s, "half")->type, TENSOR_F16);
    safetensors_close(s);
    base_text_free(&t);
}

static void test_read_empty(void **state)
{
    (void)state;
    base_text t = {0};
    safetensors *s;
    marco_error error = {0};
    make_file(&t, "{}", 0);
    assert_int_equal(open_bytes(t.data, t.size, &s, &error), MARCO_OK);
    assert_int_equal(safetensors_count(s), 0);
    assert_null(safetensors_find(s, "any"));
    safetensors_close(s);
    base_text_free(&t);
}

/* ---- hostile files -------------------------------------------------------------------------- */

#define ENTRY(name, dtype, shape, offsets)                                                         \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define ONE(dtype, shape, offsets) "{" ENTRY("t", dtype, shape, offsets) "}"
#define NAME_64                    "0123456789012345678901234567890123456789012345678901234567890123"

static void test_hostile(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n_data;
        marco_status status;
        const char *part; /* of the message */
    } cases[] = {
        {"", 0, MARCO_ERROR_FORMAT, "does not begin with '{'"},
        {"[]", 0, MARCO_ERROR_FORMAT, "does not begin with '{'"},
        {" {}", 0, MARCO_ERROR_FORMAT, "does not begin with '{'"},
        {"{", 0, MARCO_ERROR_FORMAT, "not valid JSON"},
        {"{\"__metadata__\":[]}", 0, MARCO_ERROR_FORMAT, "__metadata__"},
        {"{\"__metadata__\":{\"a\":1}}", 0, MARCO_ERROR_FORMAT, "__metadata__"},
        {"{\"t\":[]}", 0, MARCO_ERROR_FORMAT, "tensor t must hold"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, MARCO_ERROR_FORMAT, "must hold"},
        {"{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"scale\":2}}", 4,
         MARCO_ERROR_FORMAT, "nothing else"},
        {ONE("I64", "[1]", "[0,8]"), 8, MARCO_ERROR_UNSUPPORTED, "tensor t has dtype I64"},
        {ONE("F8_E4M3", "[1]", "[0,1]"), 1, MARCO_ERROR_UNSUPPORTED, "dtype F8_E4M3"},
        {ONE("F32\\u0000", "[1]", "[0,4]"), 4, MARCO_ERROR_UNSUPPORTED, "dtype F32"},
        {ONE("F32", "4", "[0,4]"), 4, MARCO_ERROR_FORMAT, "shape"},
        {ONE("F32", "[1,1,1,1,1]", "[0,4]"), 4, MARCO_ERROR_FORMAT, "at most 4"},
        {ONE("F32", "[1.0]", "[0,4]"), 4, MARCO_ERROR_FORMAT, "no integer above 0"},
        {ONE("F32", "[\"1\"]", "[0,4]"), 4, MARCO_ERROR_FORMAT, "no integer above 0"},
        {ONE("F32", "[0]", "[0,0]"), 0, MARCO_ERROR_FORMAT, "no integer above 0"},
        {ONE("F32", "[-1]", "[0,4]"), 4, MARCO_ERROR_FORMAT, "no integer above 0"},
        {ONE("F32", "[4611686018427387904]", "[0,0]"), 0, MARCO_ERROR_FORMAT, "too large"},
        {ONE("F32", "[4294967296,4294967296]", "[0,0]"), 0, MARCO_ERROR_FORMAT, "too large"},
        {ONE("BF16", "[9223372036854775807,2,1]", "[0,0]"), 0, MARCO_ERROR_FORMAT, "too large"},
        {ONE("F32", "[99999999999999999999]", "[0,4]"), 4, MARCO_ERROR_FORMAT, "too big integer"},
        {ONE("F32", "[1]", "[0]"), 4, MARCO_ERROR_FORMAT, "no pair of integers"},
        {ONE("F32", "[1]", "[0,4,8]"), 4, MARCO_ERROR_FORMAT, "no pair of integers"},
        {ONE("F32", "[1]", "[0,4.0]"), 4, MARCO_ERROR_FORMAT, "no pair of integers"},
        {ONE("F32", "[1]", "{}"), 4, MARCO_ERROR_FORMAT, "no pair of integers"},
        {ONE("F32", "[1]", "[-4,0]"), 4, MARCO_ERROR_FORMAT, "impossible data_offsets -4"},
        {ONE("F32", "[1]", "[4,0]"), 4, MARCO_ERROR_FORMAT, "impossible data_offsets 4 to 0"},
        {ONE("F32", "[1]", "[0,4]"), 3, MARCO_ERROR_FORMAT, "has only 3"},
        {ONE("F32", "[1]", "[9223372036854775803,9223372036854775807]"), 4, MARCO_ERROR_FORMAT,
         "has only 4"},
        {ONE("F32", "[2]", "[0,4]"), 4, MARCO_ERROR_FORMAT, "4 bytes of data where its shape"},
        {ONE("F32", "[1]", "[4,8]"), 8, MARCO_ERROR_FORMAT, "4 bytes before tensor t"},
        {ONE("F32", "[1]", "[0,4]"), 5, MARCO_ERROR_FORMAT, "last 1 bytes"},
        {"{}", 1, MARCO_ERROR_FORMAT, "last 1 bytes"},
        {"{" ENTRY("a", "F32", "[2]", "[0,8]") "," ENTRY("b", "F32", "[1]", "[4,8]") "}", 8,
         MARCO_ERROR_FORMAT, "a and b overlap"},
        {"{" ENTRY("a", "F32", "[1]", "[0,4]") "," ENTRY("b", "F32", "[1]", "[0,4]") "}", 4,
         MARCO_ERROR_FORMAT, "overlap"},
        {"{" ENTRY("a", "F32", "[1]", "[0,4]") "," ENTRY("b", "F32", "[1]", "[8,12]") "}", 12,
         MARCO_ERROR_FORMAT, "4 bytes before tensor b"},
        {"{" ENTRY("a", "F32", "[1]", "[0,4]") "," ENTRY("a", "F32", "[1]", "[4,8]") "}", 8,
         MARCO_ERROR_FORMAT, "duplicate"},
        {"{" ENTRY("", "F32", "[1]", "[0,4]") "}", 4, MARCO_ERROR_FORMAT, "is empty"},
        {"{" ENTRY("a\\u0000", "F32", "[1]", "[0,4]") "}", 4, MARCO_ERROR_FORMAT, "NUL"},
        {"{" ENTRY(NAME_64 NAME_64 NAME_64 NAME_64, "F32", "[1]", "[0,4]") "}", 4,
         MARCO_ERROR_FORMAT, "is too long"},
        {ONE(NAME_64 NAME_64 NAME_64 NAME_64 NAME_64 NAME_64 NAME_64 NAME_64 NAME_64 NAME_64 NAME_64
                 NAME_64 NAME_64,
             "[1]", "[0,4]"),
         4, MARCO_ERROR_UNSUPPORTED, "01234567; only F32"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        base_text t = {0};
        safetensors *s = NULL;
        marco_error error = {0};
        make_file(&t, cases[i].header, cases[i].n_data);
        marco_status status = open_bytes(t.data, t.size, &s, &error);
        if (status != cases[i].status || !strstr(error.message, cases[i].part))
            fail_msg("%s: %s \"%s\"", cases[i].header, marco_status_name(status), error.message);
        assert_null(s);
        base_text_free(&t);
    }
}

static void test_header_length(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {3,          33554432,      33554433, (uint64_t)1 << 63,
                                       UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        char data[10] = "........{}";
        safetensors *s = NULL;
        marco_error error = {0};
        memcpy(data, &lengths[i], 8);
        assert_int_equal(open_bytes(data, sizeof data, &s, &error), MARCO_ERROR_FORMAT);
        assert_non_null(strstr(error.message, lengths[i] > 33554432 ? "more than the 33554432"
                                                                    : "but the file has only"));
        assert_null(s);
    }
}

/* A tree takes a hundred times the memory of its text, so it is bounded before it is made. */
static void test_many_values(void **state)
{
    (void)state;
    enum { MOST = 1 << 20 };
    static const struct {
        const char *begin, *end;
        int commas;
        const char *part;
    } cases[] = {
        /* Two objects with a key, a list. */
        {"{\"t\":{\"shape\":[0", "0]}}", MOST - 4, "lists 1048577 keys and values, more than"},
        {"{\"t\":{\"shape\":[0", "0]}}", MOST - 5, "tensor t must hold dtype"},
        /* What is in strings does not count. */
        {"{\"__metadata__\":{\"k\":\"\\\\\\\"", "\"}}", MOST, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        base_text header = {0}, t = {0};
        safetensors *s = NULL;
        marco_error error = {0};
        base_text_add(&header, cases[i].begin);
        for (int j = 0; j < cases[i].commas; j++)
            base_text_add(&header, cases[i].part ? ",0" : ",");
        base_text_printf(&header, "%s", cases[i].part ? cases[i].end + 1 : cases[i].end);
        make_file(&t, header.data, 0);
        marco_status status = open_bytes(t.data, t.size, &s, &error);
        if (cases[i].part) {
            assert_int_equal(status, MARCO_ERROR_FORMAT);
            if (!strstr(error.message, cases[i].part))
                fail_msg("case %zu: \"%s\"", i, error.message);
        } else if (status) {
            fail_msg("case %zu: \"%s\"", i, error.message);
        }
        safetensors_close(s);
        base_text_free(&header);
        base_text_free(&t);
    }
}

static void test_deep_header(void **state)
{
    (void)state;
    enum { DEPTH = 10000 };
    base_text header = {0}, t = {0};
    safetensors *s = NULL;
    marco_error error = {0};
    base_text_add(&header, "{\"t\":");
    for (int i = 0; i < DEPTH; i++)
        base_text_add_char(&header, '[');
    make_file(&t, header.data, 0);
    assert_int_equal(open_bytes(t.data, t.size, &s, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "depth"));
    base_text_free(&header);
    base_text_free(&t);
}

static void test_truncated(void **state)
{
    (void)state;
    base_text t = {0};
    marco_error error = {0};
    make_file(&t, SMALL, 20);
    for (size_t size = 0; size < t.size; size++) {
        safetensors *s = NULL;
        assert_int_equal(open_bytes(t.data, size, &s, &error), MARCO_ERROR_FORMAT);
        assert_null(s);
    }
    base_text_free(&t);
}

static void test_open_without_memory(void **state)
{
    (void)state;
    base_text t = {0};
    safetensors *s = NULL;
    marco_error error = {0};
    make_file(&t, SMALL, 20);
    uint64_t n = 0;
    marco_status status;
    do {
        base_alloc_fail_at(++n);
        status = open_bytes(t.data, t.size, &s, &error);
        base_alloc_fail_at(0);
        assert_true(status == MARCO_OK || status == MARCO_ERROR_MEMORY);
    } while (status);
    assert_true(n > 8);
    safetensors_close(s);
    base_text_free(&t);
}

/* ---- shards --------------------------------------------------------------------------------- */

#define INDEX   "model.safetensors.index.json"
#define SHARD_A "{" ENTRY("a", "F32", "[1]", "[0,4]") "}"
#define SHARD_B "{" ENTRY("b", "F32", "[2]", "[0,8]") "," ENTRY("c", "F32", "[1]", "[8,12]") "}"

static void put_index(const char *weight_map)
{
    base_text t = {0};
    base_text_printf(&t, "{\"metadata\":{\"total_size\":16},\"weight_map\":%s}", weight_map);
    put_file(INDEX, t.data, t.size);
    base_text_free(&t);
}

static void put_shards(void)
{
    put_shard("one.safetensors", SHARD_A, 4);
    put_shard("two.safetensors", SHARD_B, 12);
    put_index("{\"b\":\"two.safetensors\",\"a\":\"one.safetensors\",\"c\":\"two.safetensors\"}");
}

static void test_shards(void **state)
{
    (void)state;
    safetensors *s;
    marco_error error = {0};
    put_shards();
    assert_int_equal(safetensors_open_folder(folder, &s, &error), MARCO_OK);
    assert_int_equal(safetensors_count(s), 3);
    assert_string_equal(safetensors_at(s, 0)->name, "a");
    assert_string_equal(safetensors_at(s, 1)->name, "b");
    assert_string_equal(safetensors_at(s, 2)->name, "c");
    assert_ptr_equal(safetensors_at(s, 1)->file, safetensors_at(s, 2)->file);
    assert_string_equal(base_path_name(safetensors_find(s, "a")->file->path), "one.safetensors");
    safetensors_close(s);
    /* model.safetensors goes before an index, as in transformers. */
    put_shard("model.safetensors", SHARD_A, 4);
    assert_int_equal(safetensors_open_folder(folder, &s, &error), MARCO_OK);
    assert_int_equal(safetensors_count(s), 1);
    safetensors_close(s);
}

static void test_hostile_index(void **state)
{
    (void)state;
    static const struct {
        const char *map;
        marco_status status;
        const char *part;
    } cases[] = {
        {"[]", MARCO_ERROR_FORMAT, "no weight_map"},
        {"{\"a\":1}", MARCO_ERROR_FORMAT, "no string"},
        {"{\"a\":\"../one.safetensors\"}", MARCO_ERROR_FORMAT, "no plain file name"},
        {"{\"a\":\"x/one.safetensors\"}", MARCO_ERROR_FORMAT, "no plain file name"},
        {"{\"a\":\"/etc/passwd\"}", MARCO_ERROR_FORMAT, "no plain file name"},
        {"{\"a\":\"..\"}", MARCO_ERROR_FORMAT, "no plain file name"},
        {"{\"a\":\"\"}", MARCO_ERROR_FORMAT, "no plain file name"},
        {"{\"a\":\"one.safetensors\\u0000x\"}", MARCO_ERROR_FORMAT, "no plain file name"},
        {"{\"a\":\"three.safetensors\"}", MARCO_ERROR_NOT_FOUND, "three.safetensors"},
        {"{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\"}", MARCO_ERROR_FORMAT,
         "tensor b should be in one.safetensors"},
        {"{\"b\":\"two.safetensors\"}", MARCO_ERROR_FORMAT, "lacks tensor c"},
        {"{\"a\":\"two.safetensors\",\"b\":\"one.safetensors\",\"c\":\"two.safetensors\"}",
         MARCO_ERROR_FORMAT, "should be in"},
        {"{\"a\":\"one.safetensors\",\"a\":\"one.safetensors\"}", MARCO_ERROR_FORMAT, "duplicate"},
    };
    put_shards();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        safetensors *s = NULL;
        marco_error error = {0};
        put_index(cases[i].map);
        marco_status status = safetensors_open_folder(folder, &s, &error);
        if (status != cases[i].status || !strstr(error.message, cases[i].part))
            fail_msg("%s: %s \"%s\"", cases[i].map, marco_status_name(status), error.message);
        assert_null(s);
    }
}

static void test_twin_in_shards(void **state)
{
    (void)state;
    safetensors *s = NULL;
    marco_error error = {0};
    put_shard("one.safetensors", SHARD_A, 4);
    put_shard("two.safetensors",
              "{" ENTRY("a", "F32", "[1]", "[0,4]") "," ENTRY("b", "F32", "[1]", "[4,8]") "}", 8);
    put_index("{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}");
    assert_int_equal(safetensors_open_folder(folder, &s, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "tensor a is in"));
    assert_null(s);
}

/* No more shards are opened than it takes to see that the index is wrong. */
static void test_short_index(void **state)
{
    (void)state;
    safetensors *s = NULL;
    marco_error error = {0};
    put_shard("one.safetensors",
              "{" ENTRY("a", "F32", "[1]", "[0,4]") "," ENTRY("b", "F32", "[1]", "[4,8]") "," ENTRY(
                  "c", "F32", "[1]", "[8,12]") "}",
              12);
    put_index("{\"a\":\"one.safetensors\",\"z\":\"two.safetensors\"}");
    assert_int_equal(safetensors_open_folder(folder, &s, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "lacks tensor b"));
    assert_null(s);
}

/* An index may be as large as a header. */
static void test_long_index(void **state)
{
    (void)state;
    safetensors *s = NULL;
    marco_error error = {0};
    base_text t = {0};
    base_text_add(&t, "{\"a\":[0");
    for (int i = 0; i < 1 << 20; i++)
        base_text_add(&t, ",0");
    base_text_add(&t, "]}");
    put_index(t.data);
    assert_int_equal(safetensors_open_folder(folder, &s, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "index.json: lists 1048585 keys and values"));
    char *path = base_path_join(folder, INDEX);
    assert_int_equal(truncate(path, (32 << 20) + 1), 0);
    base_free(path);
    assert_int_equal(safetensors_open_folder(folder, &s, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "33554433 bytes, more than the 33554432 allowed"));
    assert_null(s);
    base_text_free(&t);
}

static void test_no_model(void **state)
{
    (void)state;
    safetensors *s = NULL;
    marco_error error = {0};
    assert_int_equal(safetensors_open_folder(folder, &s, &error), MARCO_ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, "holds neither model.safetensors"));
    assert_null(s);
}

static void test_shards_without_memory(void **state)
{
    (void)state;
    safetensors *s = NULL;
    marco_error error = {0};
    put_shards();
    uint64_t n = 0;
    marco_status status;
    do {
        base_alloc_fail_at(++n);
        status = safetensors_open_folder(folder, &s, &error);
        base_alloc_fail_at(0);
        assert_true(status == MARCO_OK || status == MARCO_ERROR_MEMORY);
    } while (status);
    assert_true(n > 16);
    safetensors_close(s);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, empty_folder)
    const struct CMUnitTest tests[] = {
        TEST(test_read),
        TEST(test_read_empty),
        TEST(test_hostile),
        TEST(test_header_length),
        TEST(test_many_values),
        TEST(test_deep_header),
        TEST(test_truncated),
        TEST(test_open_without_memory),
        TEST(test_shards),
        TEST(test_hostile_index),
        TEST(test_twin_in_shards),
        TEST(test_short_index),
        TEST(test_long_index),
        TEST(test_no_model),
        TEST(test_shards_without_memory),
    };
#undef TEST
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
