#include "gguf_bytes.h"

static char folder[] = "test_gguf_write_XXXXXX";
static char path[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    return 0;
}

/* Fails where a test left a file behind. */
static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static const char first_data[64] = "the first tensor's data", second_data[34] = "and the second's";

/* Everything that can be put, by hand and from `from`. */
static void describe(gguf_writer *w, const gguf *from)
{
    static const int32_t ints[] = {1, -2, INT32_MIN};
    static const float floats[] = {0.5f, -1e30f};
    static const gguf_string strings[] = {{"x", 1}, {"", 0}, {"y\0z", 3}};
    static const int64_t first[] = {4, 2, 2}, second[] = {32};
    const gguf_value *value;
    const char *key;
    gguf_put_u32(w, "put.u32", UINT32_MAX);
    gguf_put_f32(w, "put.f32", -0.25f);
    gguf_put_bool(w, "put.bool", true);
    gguf_put_string(w, "put.string", "text");
    gguf_put_string_n(w, "put.bytes", "a\0b", 3);
    gguf_put_array_i32(w, "put.ints", ints, 3);
    gguf_put_array_f32(w, "put.floats", floats, 2);
    gguf_put_array_string(w, "put.strings", strings, 3);
    for (size_t i = 0; (key = gguf_key(from, i, &value)); i++)
        gguf_put_value(w, key, value);
    gguf_put_tensor(w, "second", TENSOR_Q8_0, 1, second);
    gguf_put_tensor(w, "first", TENSOR_F32, 3, first);
}

static marco_status write_file(const gguf *from, bool overwrite, marco_error *error)
{
    gguf_writer *w;
    marco_status status = gguf_writer_create(path, overwrite, &w, error);
    if (status)
        return status;
    describe(w, from);
    status = gguf_writer_begin(w, error);
    if (status == MARCO_OK)
        status = gguf_writer_data(w, second_data, sizeof second_data, error);
    if (status == MARCO_OK)
        status = gguf_writer_data(w, first_data, 60, error);
    if (status == MARCO_OK)
        status = gguf_writer_data(w, first_data + 60, 4, error);
    if (status) {
        gguf_writer_abort(w);
        return status;
    }
    return gguf_writer_commit(w, error);
}

static gguf *open_small(void)
{
    base_text t = {0};
    gguf *g = NULL;
    marco_error error = {0};
    small_file(&t);
    assert_int_equal(open_bytes(t.data, t.size, &g, &error), MARCO_OK);
    base_text_free(&t);
    return g;
}

static void check_tensor(const gguf *g, const char *name, const char *data, size_t size)
{
    char found[64];
    marco_error error = {0};
    const gguf_tensor *t = gguf_tensor_find(g, name);
    assert_non_null(t);
    assert_int_equal(t->bytes, size);
    assert_int_equal(t->offset % 32, 0);
    assert_int_equal(base_file_read(gguf_file(g), t->offset, found, size, &error), MARCO_OK);
    assert_memory_equal(found, data, size);
}

static void test_round_trip(void **state)
{
    (void)state;
    gguf *from = open_small(), *g;
    marco_error error = {0};
    gguf_string s;
    const gguf_value *array;
    float f;
    assert_int_equal(write_file(from, false, &error), MARCO_OK);
    gguf_close(from);
    assert_int_equal(gguf_open(path, &g, &error), MARCO_OK);
    assert_int_equal(gguf_version(g), 3);
    check_values(g);
    assert_int_equal(gguf_get(g, "put.u32")->u, UINT32_MAX);
    assert_true(gguf_get(g, "put.f32")->f == -0.25);
    assert_int_equal(gguf_get(g, "put.bool")->type, GGUF_BOOL);
    assert_int_equal(gguf_get_string(g, "put.string", &s, &error), MARCO_OK);
    assert_int_equal(s.size, 4);
    assert_int_equal(gguf_get(g, "put.bytes")->string.size, 3);
    assert_int_equal(gguf_get_array(g, "put.ints", GGUF_I32, &array, &error), MARCO_OK);
    assert_int_equal(array->array.n, 3);
    assert_memory_equal((const char *)array->array.data + 4, "\xfe\xff\xff\xff\0\0\0\x80", 8);
    assert_int_equal(gguf_get_array(g, "put.floats", GGUF_F32, &array, &error), MARCO_OK);
    memcpy(&f, (const char *)array->array.data + 4, 4);
    assert_true(f == -1e30f);
    array = gguf_get(g, "put.strings");
    assert_memory_equal(array->array.strings[2].data, "y\0z", 3);
    assert_string_equal(gguf_tensor_at(g, 0)->name, "second");
    check_tensor(g, "first", first_data, 64);
    check_tensor(g, "second", second_data, 34);
    /* GGML's own reader wants the last tensor padded too. */
    assert_int_equal(gguf_file(g)->size % 32, 0);
    gguf_close(g);
    assert_int_equal(unlink(path), 0);
}

static void test_overwrite(void **state)
{
    (void)state;
    gguf *from = open_small();
    marco_error error = {0};
    assert_int_equal(write_file(from, false, &error), MARCO_OK);
    assert_int_equal(write_file(from, false, &error), MARCO_ERROR_EXISTS);
    assert_int_equal(write_file(from, true, &error), MARCO_OK);
    gguf_close(from);
    assert_int_equal(unlink(path), 0);
}

/* A copied general.alignment would describe another file than the one written. */
static void test_alignment_not_copied(void **state)
{
    (void)state;
    gguf_writer *w;
    gguf *g;
    marco_error error = {0};
    gguf_value value = {.type = GGUF_U32, .u = 4096};
    assert_int_equal(gguf_writer_create(path, false, &w, &error), MARCO_OK);
    gguf_put_value(w, "general.alignment", &value);
    assert_int_equal(gguf_writer_begin(w, &error), MARCO_OK);
    assert_int_equal(gguf_writer_commit(w, &error), MARCO_OK);
    assert_int_equal(gguf_open(path, &g, &error), MARCO_OK);
    assert_null(gguf_get(g, "general.alignment"));
    gguf_close(g);
    assert_int_equal(unlink(path), 0);
}

static void put_twin_key(gguf_writer *w)
{
    gguf_put_u32(w, "key", 1);
    gguf_put_bool(w, "key", true);
}

static void put_twin_tensor(gguf_writer *w)
{
    static const int64_t dims[] = {1};
    gguf_put_tensor(w, "t", TENSOR_F32, 1, dims);
    gguf_put_tensor(w, "t", TENSOR_F32, 1, dims);
}

static void put_empty_key(gguf_writer *w)
{
    gguf_put_u32(w, "", 1);
}

static void put_long_name(gguf_writer *w)
{
    static const int64_t dims[] = {1};
    gguf_put_tensor(w, "0123456789012345678901234567890123456789012345678901234567890123",
                    TENSOR_F32, 1, dims);
}

static void put_ragged(gguf_writer *w)
{
    static const int64_t dims[] = {31};
    gguf_put_tensor(w, "t", TENSOR_Q8_0, 1, dims);
}

static void put_zero_dim(gguf_writer *w)
{
    static const int64_t dims[] = {1, 0};
    gguf_put_tensor(w, "t", TENSOR_F32, 2, dims);
}

static void put_huge(gguf_writer *w)
{
    static const int64_t dims[] = {INT64_MAX / 8, 1};
    gguf_put_tensor(w, "t", TENSOR_F32, 2, dims);
    gguf_put_tensor(w, "u", TENSOR_F32, 2, dims);
    gguf_put_tensor(w, "v", TENSOR_F32, 2, dims);
    gguf_put_tensor(w, "w", TENSOR_F32, 2, dims);
    gguf_put_tensor(w, "x", TENSOR_F32, 2, dims);
}

static void put_five_dims(gguf_writer *w)
{
    static const int64_t dims[] = {1, 1, 1, 1, 1};
    gguf_put_tensor(w, "t", TENSOR_F32, 5, dims);
}

static void put_long_key(gguf_writer *w)
{
    char *key = base_calloc(1, 60001);
    memset(key, 'k', 60000);
    gguf_put_u32(w, key, 1);
    gguf_put_u32(w, key, 2);
    base_free(key);
}

static void put_much(gguf_writer *w)
{
    size_t size = (size_t)64 << 20;
    char *text = base_calloc(1, size);
    gguf_put_string_n(w, "text", text, size);
    base_free(text);
}

static void put_many_strings(gguf_writer *w)
{
    enum { HALF = 1 << 21 };
    gguf_string *strings = base_calloc(HALF, sizeof *strings);
    gguf_put_array_string(w, "some", strings, HALF);
    gguf_put_array_string(w, "more", strings, HALF);
    gguf_put_array_string(w, "last", strings, 1);
    base_free(strings);
}

static void put_many_keys(gguf_writer *w)
{
    char key[16];
    for (int i = 0; i < (1 << 18) + 1; i++) {
        snprintf(key, sizeof key, "k%d", i);
        gguf_put_bool(w, key, true);
    }
}

static void test_refused_descriptions(void **state)
{
    (void)state;
    static const struct {
        void (*put)(gguf_writer *w);
        const char *part;
    } cases[] = {
        {put_twin_key, "metadata key key was described twice"},
        {put_twin_tensor, "tensor t was described twice"},
        {put_empty_key, "is empty"},
        {put_long_name, "is too long"},
        {put_ragged, "block"},
        {put_zero_dim, "impossible shape"},
        {put_huge, "too large together"},
        {put_five_dims, "1 to 4 dimensions"},
        {put_long_key, "k was described twice"},
        {put_many_keys, "0 tensors and 262145 metadata keys"},
        {put_much, "67108912 bytes of metadata with 0 strings"},
        {put_many_strings, "with 4194305 strings"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        gguf_writer *w;
        marco_error error = {0};
        assert_int_equal(gguf_writer_create(path, false, &w, &error), MARCO_OK);
        cases[i].put(w);
        assert_int_equal(gguf_writer_begin(w, &error), MARCO_ERROR_ARGUMENT);
        if (!strstr(error.message, cases[i].part))
            fail_msg("case %zu: \"%s\"", i, error.message);
        /* Committing after a failure must not leave a file. */
        assert_int_equal(gguf_writer_commit(w, NULL), MARCO_ERROR_ARGUMENT);
        assert_false(base_exists(path));
    }
}

static void test_wrong_data(void **state)
{
    (void)state;
    static const int64_t dims[] = {2};
    for (int i = 0; i < 4; i++) {
        gguf_writer *w;
        marco_error error = {0};
        assert_int_equal(gguf_writer_create(path, false, &w, &error), MARCO_OK);
        gguf_put_tensor(w, "a", TENSOR_F32, 1, dims);
        gguf_put_tensor(w, "b", TENSOR_F32, 1, dims);
        if (i > 0)
            assert_int_equal(gguf_writer_begin(w, &error), MARCO_OK);
        if (i == 1)
            assert_int_equal(gguf_writer_data(w, first_data, 9, &error), MARCO_ERROR_ARGUMENT);
        if (i > 1)
            assert_int_equal(gguf_writer_data(w, first_data, 8, &error), MARCO_OK);
        if (i == 2)
            assert_int_equal(gguf_writer_data(w, first_data, 7, &error), MARCO_OK);
        if (i == 3) {
            assert_int_equal(gguf_writer_data(w, first_data, 8, &error), MARCO_OK);
            assert_int_equal(gguf_writer_data(w, first_data, 1, &error), MARCO_ERROR_ARGUMENT);
            assert_non_null(strstr(error.message, "past the last tensor"));
        }
        assert_int_equal(gguf_writer_commit(w, &error), MARCO_ERROR_ARGUMENT);
        assert_false(base_exists(path));
    }
}

static void test_describing_late(void **state)
{
    (void)state;
    static const int64_t dims[] = {1};
    static const char *const parts[] = {"metadata key late is", "tensor late is"};
    for (int i = 0; i < 2; i++) {
        gguf_writer *w;
        marco_error error = {0};
        assert_int_equal(gguf_writer_create(path, false, &w, &error), MARCO_OK);
        assert_int_equal(gguf_writer_begin(w, &error), MARCO_OK);
        if (i == 0)
            gguf_put_u32(w, "late", 1);
        else
            gguf_put_tensor(w, "late", TENSOR_F32, 1, dims);
        assert_int_equal(gguf_writer_commit(w, &error), MARCO_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, parts[i]));
        assert_non_null(strstr(error.message, "after the data has begun"));
        assert_false(base_exists(path));
    }
}

static void test_write_without_memory(void **state)
{
    (void)state;
    gguf *from = open_small(), *g;
    marco_error error = {0};
    uint64_t n = 0;
    marco_status status;
    do {
        base_alloc_fail_at(++n);
        status = write_file(from, false, &error);
        base_alloc_fail_at(0);
        assert_true(status == MARCO_OK || status == MARCO_ERROR_MEMORY);
        assert_true(status || base_exists(path));
        /* Whole or not at all. */
        if (base_exists(path)) {
            assert_int_equal(gguf_open(path, &g, &error), MARCO_OK);
            assert_int_equal(gguf_tensor_count(g), 2);
            gguf_close(g);
            assert_int_equal(unlink(path), 0);
        }
    } while (status);
    assert_true(n > 30);
    gguf_close(from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),           cmocka_unit_test(test_overwrite),
        cmocka_unit_test(test_alignment_not_copied), cmocka_unit_test(test_refused_descriptions),
        cmocka_unit_test(test_wrong_data),           cmocka_unit_test(test_describing_late),
        cmocka_unit_test(test_write_without_memory),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
