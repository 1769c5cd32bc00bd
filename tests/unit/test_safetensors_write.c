#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flat_folder.h"

#include "base/memory.h"
#include "base/text.h"
#include "format/json.h"
#include "format/safetensors.h"

#define INDEX "model.safetensors.index.json"

/* ---- writing -------------------------------------------------------------------------------- */

static const int64_t dims_1[] = {3, 2}, dims_2[] = {5}, dims_3[] = {1, 2, 1, 3};

static void describe(safetensors_writer *w)
{
    safetensors_put_tensor(w, "matrix", TENSOR_F32, 2, dims_1);
    safetensors_put_tensor(w, "scalar", TENSOR_F32, 0, NULL);
    safetensors_put_tensor(w, "odd \"name\"\\\n", TENSOR_BF16, 1, dims_2);
    safetensors_put_tensor(w, "four", TENSOR_F16, 4, dims_3);
}

static const size_t sizes[] = {24, 4, 10, 12};
static char data[50];

static marco_status write_folder(uint64_t shard_bytes, marco_error *error)
{
    safetensors_writer *w;
    marco_status status = safetensors_writer_create(folder, shard_bytes, &w, error);
    if (status)
        return status;
    describe(w);
    status = safetensors_writer_begin(w, error);
    /* In pieces of 3 bytes, and what is left of a tensor. */
    for (size_t i = 0, at = 0; i < 4; i++)
        for (size_t left = sizes[i], n; left && status == MARCO_OK; left -= n, at += n) {
            n = left < 3 ? left : 3;
            status = safetensors_writer_data(w, data + at, n, error);
        }
    if (status) {
        safetensors_writer_abort(w);
        return status;
    }
    return safetensors_writer_commit(w, error);
}

static void check_folder(void)
{
    static const char *const names[] = {"matrix", "scalar", "odd \"name\"\\\n", "four"};
    safetensors *s = NULL;
    marco_error error = {0};
    char found[24];
    if (safetensors_open_folder(folder, &s, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    assert_int_equal(safetensors_count(s), 4);
    for (size_t i = 0, at = 0; i < 4; at += sizes[i], i++) {
        const safetensors_tensor *t = safetensors_find(s, names[i]);
        assert_non_null(t);
        assert_int_equal(t->bytes, sizes[i]);
        assert_int_equal(base_file_read(t->file, t->offset, found, sizes[i], &error), MARCO_OK);
        assert_memory_equal(found, data + at, sizes[i]);
    }
    const safetensors_tensor *four = safetensors_find(s, "four");
    assert_int_equal(four->n_dims, 4);
    assert_memory_equal(four->dims, dims_3, sizeof dims_3);
    assert_int_equal(safetensors_find(s, "scalar")->n_dims, 0);
    /* Data aligned to 8 in the file. */
    assert_int_equal(safetensors_find(s, "matrix")->offset % 8, 0);
    safetensors_close(s);
}

static void test_round_trip(void **state)
{
    (void)state;
    static const struct {
        uint64_t shard_bytes;
        size_t n_files;
    } cases[] = {{UINT64_MAX, 1}, {50, 1}, {49, 3}, {28, 3}, {24, 4}, {1, 5}};
    marco_error error = {0};
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)(7 * i);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (write_folder(cases[i].shard_bytes, &error) != MARCO_OK)
            fail_msg("%s", error.message);
        assert_int_equal(count_files(), cases[i].n_files);
        check_folder();
        empty_folder(NULL);
    }
}

static void test_index_written(void **state)
{
    (void)state;
    json_t *index;
    marco_error error = {0};
    assert_int_equal(write_folder(28, &error), MARCO_OK);
    char *path = base_path_join(folder, INDEX);
    assert_int_equal(format_json_file(path, 10000, &index, &error), MARCO_OK);
    base_free(path);
    json_t *map = json_object_get(index, "weight_map");
    assert_int_equal(json_object_size(map), 4);
    assert_string_equal(json_string_value(json_object_get(map, "scalar")),
                        "model-00001-of-00002.safetensors");
    assert_string_equal(json_string_value(json_object_get(map, "four")),
                        "model-00002-of-00002.safetensors");
    json_t *total = json_object_get(json_object_get(index, "metadata"), "total_size");
    assert_int_equal(json_integer_value(total), 50);
    json_decref(index);
}

/* Holes are not allowed, so what would be unaligned goes to the next file. */
static void test_alignment(void **state)
{
    (void)state;
    static const char bytes[] = "123456789";
    safetensors_writer *w;
    safetensors *s;
    marco_error error = {0};
    assert_int_equal(safetensors_writer_create(folder, UINT64_MAX, &w, &error), MARCO_OK);
    safetensors_put_tensor(w, "a", TENSOR_BF16, 0, NULL);
    safetensors_put_tensor(w, "b", TENSOR_F32, 0, NULL);
    safetensors_put_tensor(w, "c", TENSOR_F16, 0, NULL);
    assert_int_equal(safetensors_writer_begin(w, &error), MARCO_OK);
    assert_int_equal(safetensors_writer_data(w, bytes, 2, &error), MARCO_OK);
    assert_int_equal(safetensors_writer_data(w, bytes, 4, &error), MARCO_OK);
    assert_int_equal(safetensors_writer_data(w, bytes, 2, &error), MARCO_OK);
    assert_int_equal(safetensors_writer_commit(w, &error), MARCO_OK);
    assert_int_equal(count_files(), 3);
    assert_int_equal(safetensors_open_folder(folder, &s, &error), MARCO_OK);
    assert_int_equal(safetensors_find(s, "b")->offset % 4, 0);
    assert_ptr_equal(safetensors_find(s, "b")->file, safetensors_find(s, "c")->file);
    safetensors_close(s);
}

/* 255 bytes, 250 of which JSON writes as six each. */
static const char *long_name(int i)
{
    static char name[264];
    memset(name, 1, 250);
    snprintf(name + 250, 14, "%05d", i);
    return name;
}

/* More tensors than one header may have, with the longest names there are in JSON: what is written
 * can be read. */
static void test_many_tensors(void **state)
{
    (void)state;
    enum { N = 16385 };
    safetensors_writer *w;
    safetensors *s;
    marco_error error = {0};
    assert_int_equal(safetensors_writer_create(folder, UINT64_MAX, &w, &error), MARCO_OK);
    for (int i = 0; i < N; i++) {
        safetensors_put_tensor(w, long_name(i), TENSOR_BF16, 4, (const int64_t[]){1, 1, 1, 1});
    }
    if (safetensors_writer_begin(w, &error))
        fail_msg("%s", error.message);
    for (int i = 0; i < N; i++)
        assert_int_equal(safetensors_writer_data(w, "xy", 2, &error), MARCO_OK);
    assert_int_equal(safetensors_writer_commit(w, &error), MARCO_OK);
    assert_int_equal(count_files(), 3);
    if (safetensors_open_folder(folder, &s, &error))
        fail_msg("%s", error.message);
    assert_int_equal(safetensors_count(s), N);
    const char *first = base_path_name(safetensors_at(s, N - 2)->file->path);
    const char *last = base_path_name(safetensors_at(s, N - 1)->file->path);
    assert_string_equal(first, "model-00001-of-00002.safetensors");
    assert_string_equal(last, "model-00002-of-00002.safetensors");
    safetensors_close(s);
}

/* Refused before the first file is made. */
static void put_too_long_index(safetensors_writer *w)
{
    for (int i = 0; i < 25000; i++)
        safetensors_put_tensor(w, long_name(i), TENSOR_F32, 0, NULL);
}

static void put_twins(safetensors_writer *w)
{
    safetensors_put_tensor(w, "t", TENSOR_F32, 0, NULL);
    safetensors_put_tensor(w, "t", TENSOR_F32, 0, NULL);
}

static void put_quantised(safetensors_writer *w)
{
    static const int64_t dims[] = {32};
    safetensors_put_tensor(w, "t", TENSOR_Q8_0, 1, dims);
}

static void put_reserved(safetensors_writer *w)
{
    safetensors_put_tensor(w, "__metadata__", TENSOR_F32, 0, NULL);
}

static void put_zero_dim(safetensors_writer *w)
{
    static const int64_t dims[] = {4, 0};
    safetensors_put_tensor(w, "t", TENSOR_F32, 2, dims);
}

static void put_huge(safetensors_writer *w)
{
    static const int64_t dims[] = {INT64_MAX / 8};
    safetensors_put_tensor(w, "t", TENSOR_F32, 1, dims);
    safetensors_put_tensor(w, "u", TENSOR_F32, 1, dims);
    safetensors_put_tensor(w, "v", TENSOR_F32, 1, dims);
}

static void put_bad_utf8(safetensors_writer *w)
{
    safetensors_put_tensor(w, "\xff", TENSOR_F32, 0, NULL);
}

static void test_refused_descriptions(void **state)
{
    (void)state;
    static const struct {
        void (*put)(safetensors_writer *w);
        const char *part;
    } cases[] = {
        {put_twins, "described twice"},
        {put_quantised, "other than F32"},
        {put_reserved, "keeps for itself"},
        {put_zero_dim, "impossible shape"},
        {put_huge, "too large together"},
        {put_bad_utf8, "not UTF-8"},
        {put_too_long_index, "an index of 25000"},
    };
    safetensors_writer *w;
    marco_error error = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(safetensors_writer_create(folder, UINT64_MAX, &w, &error), MARCO_OK);
        cases[i].put(w);
        assert_int_equal(safetensors_writer_begin(w, &error), MARCO_ERROR_ARGUMENT);
        if (!strstr(error.message, cases[i].part))
            fail_msg("case %zu: \"%s\"", i, error.message);
        assert_int_equal(safetensors_writer_commit(w, NULL), MARCO_ERROR_ARGUMENT);
        assert_int_equal(count_files(), 0);
    }
    assert_int_equal(safetensors_writer_create(folder, 0, &w, &error), MARCO_ERROR_ARGUMENT);
}

static void test_wrong_data(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        safetensors_writer *w;
        marco_error error = {0};
        assert_int_equal(safetensors_writer_create(folder, UINT64_MAX, &w, &error), MARCO_OK);
        describe(w);
        if (i > 0)
            assert_int_equal(safetensors_writer_begin(w, &error), MARCO_OK);
        if (i == 1)
            assert_int_equal(safetensors_writer_data(w, data, 25, &error), MARCO_ERROR_ARGUMENT);
        if (i == 4) {
            safetensors_put_tensor(w, "late", TENSOR_F32, 0, NULL);
            assert_int_equal(safetensors_writer_data(w, data, 24, &error), MARCO_ERROR_ARGUMENT);
            assert_non_null(strstr(error.message, "tensor late is described after"));
        }
        if (i == 2)
            assert_int_equal(safetensors_writer_data(w, data, 24, &error), MARCO_OK);
        if (i == 3) {
            for (size_t j = 0; j < 4; j++)
                assert_int_equal(safetensors_writer_data(w, data, sizes[j], &error), MARCO_OK);
            assert_int_equal(safetensors_writer_data(w, data, 1, &error), MARCO_ERROR_ARGUMENT);
        }
        assert_int_equal(safetensors_writer_commit(w, &error), MARCO_ERROR_ARGUMENT);
        assert_int_equal(count_files(), 0);
    }
}

static void test_write_without_memory(void **state)
{
    (void)state;
    marco_error error = {0};
    uint64_t n = 0;
    marco_status status;
    do {
        empty_folder(NULL);
        base_alloc_fail_at(++n);
        status = write_folder(28, &error);
        base_alloc_fail_at(0);
        assert_true(status == MARCO_OK || status == MARCO_ERROR_MEMORY);
    } while (status);
    assert_true(n > 30);
    check_folder();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, empty_folder)
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip),           TEST(test_index_written),        TEST(test_alignment),
        TEST(test_many_tensors),         TEST(test_refused_descriptions), TEST(test_wrong_data),
        TEST(test_write_without_memory),
    };
#undef TEST
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
