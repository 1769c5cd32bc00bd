#include "gguf_bytes.h"

static void test_read(void **state)
{
    (void)state;
    base_text t = {0};
    gguf *g;
    marco_error error = {0};
    char data[34];
    small_file(&t);
    assert_int_equal(open_bytes(t.data, t.size, &g, &error), MARCO_OK);
    assert_int_equal(gguf_version(g), 3);
    check_values(g);
    const gguf_value *value;
    assert_string_equal(gguf_key(g, 0, NULL), "u8");
    assert_string_equal(gguf_key(g, 14, &value), "empty");
    assert_ptr_equal(value, gguf_get(g, "empty"));
    assert_null(gguf_key(g, 15, &value));
    assert_int_equal(gguf_tensor_count(g), 2);
    const gguf_tensor *first = gguf_tensor_find(g, "first"), *second = gguf_tensor_at(g, 1);
    assert_ptr_equal(first, gguf_tensor_at(g, 0));
    assert_int_equal(first->n_dims, 3);
    assert_int_equal(first->dims[0], 4);
    assert_int_equal(first->dims[2], 2);
    assert_int_equal(first->dims[3], 1);
    assert_int_equal(first->bytes, 64);
    assert_string_equal(second->name, "second");
    assert_int_equal(second->bytes, 34);
    assert_int_equal(base_file_read(gguf_file(g), second->offset, data, 34, &error), MARCO_OK);
    assert_memory_equal(data, t.data + t.size - 34, 34);
    assert_null(gguf_tensor_find(g, "third"));
    assert_null(gguf_tensor_at(g, 2));
    gguf_close(g);
    /* Version 2 differs in the number only. */
    t.data[4] = 2;
    assert_int_equal(open_bytes(t.data, t.size, &g, &error), MARCO_OK);
    assert_int_equal(gguf_version(g), 2);
    gguf_close(g);
    base_text_free(&t);
}

static void test_typed(void **state)
{
    (void)state;
    base_text t = {0};
    gguf *g;
    marco_error error = {0};
    int64_t i = 5;
    double f = 5;
    bool b = false;
    gguf_string s = {NULL, 0};
    const gguf_value *array = NULL;
    small_file(&t);
    assert_int_equal(open_bytes(t.data, t.size, &g, &error), MARCO_OK);
    assert_int_equal(gguf_get_int(g, "absent", 0, 1, &i, &error), MARCO_OK);
    assert_int_equal(i, 5);
    assert_int_equal(gguf_get_int(g, "i32", -7, 1, &i, &error), MARCO_OK);
    assert_int_equal(i, -7);
    assert_int_equal(gguf_get_int(g, "u32", 0, INT64_MAX, &i, &error), MARCO_OK);
    assert_int_equal(i, UINT32_MAX);
    assert_int_equal(gguf_get_int(g, "i32", -6, 1, &i, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "i32 is -7"));
    assert_int_equal(gguf_get_int(g, "u64", 0, INT64_MAX, &i, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(gguf_get_int(g, "f32", 0, 9, &i, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(gguf_get_int(g, "yes", 0, 9, &i, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(i, UINT32_MAX);
    assert_int_equal(gguf_get_real(g, "f64", -1, 1, &f, &error), MARCO_OK);
    assert_true(f == -0.5);
    assert_int_equal(gguf_get_real(g, "f32", -1, 1, &f, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(gguf_get_real(g, "text", -1, 1, &f, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(gguf_get_bool(g, "yes", &b, &error), MARCO_OK);
    assert_true(b);
    assert_int_equal(gguf_get_bool(g, "u8", &b, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(gguf_get_string(g, "text", &s, &error), MARCO_OK);
    assert_int_equal(s.size, 3);
    assert_int_equal(gguf_get_string(g, "u8", &s, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(gguf_get_array(g, "strings", GGUF_STRING, &array, &error), MARCO_OK);
    assert_ptr_equal(array, gguf_get(g, "strings"));
    assert_int_equal(gguf_get_array(g, "strings", GGUF_I32, &array, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(gguf_get_array(g, "text", GGUF_STRING, &array, &error), MARCO_ERROR_FORMAT);
    gguf_close(g);
    base_text_free(&t);
}

static void test_not_finite(void **state)
{
    (void)state;
    base_text t = {0};
    gguf *g;
    marco_error error = {0};
    double f = 5;
    head(&t, 3, 0, 2);
    pair(&t, "nan", GGUF_F32, 0x7fc00000, 4);
    pair(&t, "inf", GGUF_F64, 0x7ff0000000000000, 8);
    assert_int_equal(open_bytes(t.data, t.size, &g, &error), MARCO_OK);
    assert_int_equal(gguf_get_real(g, "nan", -1e300, 1e300, &f, &error), MARCO_ERROR_FORMAT);
    assert_int_equal(gguf_get_real(g, "inf", 0, (double)INFINITY, &f, &error), MARCO_ERROR_FORMAT);
    assert_true(f == 5);
    gguf_close(g);
    base_text_free(&t);
}

static void test_alignment(void **state)
{
    (void)state;
    static const uint64_t dims[] = {1};
    base_text t = {0};
    gguf *g;
    marco_error error = {0};
    head(&t, 3, 2, 1);
    pair(&t, "general.alignment", GGUF_U32, 256, 4);
    /* In the file the other way round than described. */
    tensor(&t, "b", 1, dims, TENSOR_F32, 256);
    tensor(&t, "a", 1, dims, TENSOR_F32, 0);
    align(&t, 256);
    size_t start = t.size;
    number(&t, 1, 4);
    align(&t, 256);
    number(&t, 2, 4);
    assert_int_equal(open_bytes(t.data, t.size, &g, &error), MARCO_OK);
    assert_int_equal(gguf_tensor_find(g, "a")->offset, start);
    assert_int_equal(gguf_tensor_find(g, "b")->offset, start + 256);
    gguf_close(g);
    base_text_free(&t);
}

/* ---- hostile files -------------------------------------------------------------------------- */

static const uint64_t one[] = {1, 1, 1, 1};

/* One tensor of this shape and no data. */
static void shaped(base_text *t, uint32_t n_dims, const uint64_t *dims, uint32_t type)
{
    head(t, 3, 1, 0);
    tensor(t, "t", n_dims, dims, type, 0);
    align(t, 32);
}

static void bad_magic(base_text *t)
{
    base_text_add(t, "GGML");
    number(t, 3, 4);
    number(t, 0, 16 - 8);
}

static void version_1(base_text *t)
{
    head(t, 1, 0, 0);
}

static void version_4(base_text *t)
{
    head(t, 4, 0, 0);
}

static void big_endian(base_text *t)
{
    head(t, 0x03000000, 0, 0);
}

static void many_tensors(base_text *t)
{
    head(t, 3, UINT64_MAX, 0);
}

static void many_pairs(base_text *t)
{
    head(t, 3, 0, UINT64_MAX / 2);
}

static void one_pair_too_many(base_text *t)
{
    head(t, 3, 0, 2);
    pair(t, "a", GGUF_U8, 1, 1);
}

static void many_strings(base_text *t)
{
    head(t, 3, 0, 1);
    pair(t, "strings", GGUF_ARRAY, GGUF_STRING, 4);
    number(t, UINT64_MAX / 16 + 1, 8); /* 16 * n wraps to 0 */
}

static void many_numbers(base_text *t)
{
    head(t, 3, 0, 1);
    pair(t, "numbers", GGUF_ARRAY, GGUF_U64, 4);
    number(t, UINT64_MAX / 8 + 1, 8); /* 8 * n wraps to 0 */
}

static void long_string(base_text *t)
{
    head(t, 3, 0, 1);
    pair(t, "text", GGUF_STRING, UINT64_MAX - 8, 8);
}

static void nested_array(base_text *t)
{
    head(t, 3, 0, 1);
    pair(t, "nested", GGUF_ARRAY, GGUF_ARRAY, 4);
    number(t, 1, 8);
    number(t, GGUF_U8, 4);
    number(t, 1, 8);
    number(t, 7, 1);
}

static void unknown_value_type(base_text *t)
{
    head(t, 3, 0, 1);
    pair(t, "strange", 13, 0, 8);
}

static void unknown_element_type(base_text *t)
{
    head(t, 3, 0, 1);
    pair(t, "strange", GGUF_ARRAY, UINT32_MAX, 4);
    number(t, 0, 8);
}

static void bad_bool(base_text *t)
{
    head(t, 3, 0, 1);
    pair(t, "flag", GGUF_BOOL, 2, 1);
}

static void bad_bool_in_array(base_text *t)
{
    head(t, 3, 0, 1);
    pair(t, "flags", GGUF_ARRAY, GGUF_BOOL, 4);
    number(t, 3, 8);
    number(t, 0xff0100, 3);
}

static void twin_keys(base_text *t)
{
    head(t, 3, 0, 3);
    pair(t, "same", GGUF_U8, 1, 1);
    pair(t, "other", GGUF_U8, 1, 1);
    pair(t, "same", GGUF_U16, 1, 2);
}

static void empty_key(base_text *t)
{
    head(t, 3, 0, 1);
    pair(t, "", GGUF_U32, 1, 4);
}

static void nul_in_key(base_text *t)
{
    head(t, 3, 0, 1);
    bytes(t, "a\0b", 3);
    number(t, GGUF_U8, 4);
    number(t, 1, 1);
}

static void long_key(base_text *t)
{
    head(t, 3, 0, 1);
    number(t, 65536, 8);
    for (int i = 0; i < 65536; i++)
        base_text_add_char(t, 'k');
    number(t, GGUF_U8, 4);
    number(t, 1, 1);
}

static void bad_utf8_in_key(base_text *t)
{
    head(t, 3, 0, 1);
    pair(t, "\xc0\xaf", GGUF_U8, 1, 1);
}

static void alignment_of(base_text *t, uint32_t type, uint64_t value)
{
    head(t, 3, 0, 1);
    pair(t, "general.alignment", type, value, type == GGUF_U64 ? 8 : 4);
}

static void alignment_0(base_text *t)
{
    alignment_of(t, GGUF_U32, 0);
}

static void alignment_24(base_text *t)
{
    alignment_of(t, GGUF_U32, 24);
}

static void alignment_2_31(base_text *t)
{
    alignment_of(t, GGUF_U32, 1u << 31);
}

static void alignment_u64(base_text *t)
{
    alignment_of(t, GGUF_U64, 32);
}

static void no_dims(base_text *t)
{
    shaped(t, 0, one, TENSOR_F32);
}

static void five_dims(base_text *t)
{
    static const uint64_t dims[] = {1, 1, 1, 1, 1};
    shaped(t, 5, dims, TENSOR_F32);
}

static void zero_dim(base_text *t)
{
    static const uint64_t dims[] = {1, 0};
    shaped(t, 2, dims, TENSOR_F32);
}

static void negative_dim(base_text *t)
{
    static const uint64_t dims[] = {UINT64_MAX};
    shaped(t, 1, dims, TENSOR_F32);
}

static void product_overflow(base_text *t)
{
    static const uint64_t dims[] = {(uint64_t)1 << 32, (uint64_t)1 << 32, 1, 1};
    shaped(t, 4, dims, TENSOR_F32);
}

/* 2^63 elements in fewer bytes. */
static void element_overflow(base_text *t)
{
    static const uint64_t dims[] = {256, (uint64_t)1 << 40, (uint64_t)1 << 15, 1};
    shaped(t, 4, dims, TENSOR_Q4_K);
}

static void byte_overflow(base_text *t)
{
    static const uint64_t dims[] = {(uint64_t)1 << 62};
    shaped(t, 1, dims, TENSOR_F32);
}

static void ragged_row(base_text *t)
{
    static const uint64_t dims[] = {33};
    shaped(t, 1, dims, TENSOR_Q8_0);
}

static void known_unsupported(base_text *t)
{
    static const uint64_t dims[] = {256};
    shaped(t, 1, dims, 16);
}

static void unknown_tensor_type(base_text *t)
{
    shaped(t, 1, one, UINT32_MAX);
}

static void no_data(base_text *t)
{
    shaped(t, 1, one, TENSOR_F32);
}

static void offset_past_end(base_text *t)
{
    head(t, 3, 1, 0);
    tensor(t, "t", 1, one, TENSOR_F32, UINT64_MAX - 31);
    align(t, 32);
    number(t, 0, 4);
}

static void unaligned_offset(base_text *t)
{
    head(t, 3, 1, 0);
    tensor(t, "t", 1, one, TENSOR_F32, 4);
    align(t, 32);
    number(t, 0, 8);
}

static void overlap(base_text *t)
{
    static const uint64_t dims[] = {16};
    head(t, 3, 2, 0);
    tensor(t, "late", 1, one, TENSOR_F32, 32);
    tensor(t, "early", 1, dims, TENSOR_F32, 0);
    align(t, 32);
    for (int i = 0; i < 8; i++)
        number(t, 0, 8);
}

static void same_place(base_text *t)
{
    head(t, 3, 2, 0);
    tensor(t, "a", 1, one, TENSOR_F32, 0);
    tensor(t, "b", 1, one, TENSOR_F32, 0);
    align(t, 32);
    number(t, 0, 4);
}

static void twin_tensors(base_text *t)
{
    head(t, 3, 2, 0);
    tensor(t, "same", 1, one, TENSOR_F32, 0);
    tensor(t, "same", 1, one, TENSOR_F32, 32);
    align(t, 32);
    for (int i = 0; i < 8; i++)
        number(t, 0, 8);
}

static void long_name(base_text *t)
{
    char name[257];
    memset(name, 'n', 256);
    name[256] = 0;
    head(t, 3, 1, 0);
    tensor(t, name, 1, one, TENSOR_F32, 0);
    align(t, 32);
    number(t, 0, 4);
}

static void nul_in_name(base_text *t)
{
    head(t, 3, 1, 0);
    bytes(t, "t\0", 2);
    number(t, 1, 4);
    number(t, 1, 8);
    number(t, TENSOR_F32, 4);
    number(t, 0, 8);
    align(t, 32);
    number(t, 0, 4);
}

static void test_hostile(void **state)
{
    (void)state;
#define CASE(make, status, part)                                                                   \
    {                                                                                              \
#make, make, MARCO_ERROR_##status, part                                                    \
    }
    static const struct {
        const char *name;
        void (*make)(base_text *t);
        marco_status status;
        const char *part; /* of the message */
    } cases[] = {
        CASE(bad_magic, FORMAT, "not a GGUF file"),
        CASE(version_1, UNSUPPORTED, "version 1"),
        CASE(version_4, UNSUPPORTED, "version 4"),
        CASE(big_endian, UNSUPPORTED, "big-endian"),
        CASE(many_tensors, FORMAT, "claims 18446744073709551615 tensors"),
        CASE(many_pairs, FORMAT, "claims 9223372036854775807 metadata keys"),
        CASE(one_pair_too_many, FORMAT, "claims 2 metadata keys"),
        CASE(many_strings, FORMAT, "strings at byte"),
        CASE(many_numbers, FORMAT, "numbers at byte"),
        CASE(long_string, FORMAT, "text at byte"),
        CASE(nested_array, UNSUPPORTED, "nested is an array of arrays"),
        CASE(unknown_value_type, FORMAT, "strange has unknown type 13"),
        CASE(unknown_element_type, FORMAT, "strange is an array of unknown type 4294967295"),
        CASE(bad_bool, FORMAT, "flag holds 2"),
        CASE(bad_bool_in_array, FORMAT, "flags holds 255"),
        CASE(twin_keys, FORMAT, "same occurs twice"),
        CASE(empty_key, FORMAT, "is empty"),
        CASE(nul_in_key, FORMAT, "holds a NUL"),
        CASE(long_key, FORMAT, "65536 bytes long"),
        CASE(bad_utf8_in_key, FORMAT, "is not UTF-8"),
        CASE(alignment_0, FORMAT, "general.alignment is 0"),
        CASE(alignment_24, FORMAT, "general.alignment is 24"),
        CASE(alignment_2_31, FORMAT, "general.alignment is 2147483648"),
        CASE(alignment_u64, FORMAT, "type u64 where u32"),
        CASE(no_dims, FORMAT, "0 dimensions"),
        CASE(five_dims, FORMAT, "5 dimensions"),
        CASE(zero_dim, FORMAT, "dimension of 0"),
        CASE(negative_dim, FORMAT, "dimension of 18446744073709551615"),
        CASE(product_overflow, FORMAT, "too large"),
        CASE(element_overflow, FORMAT, "too large"),
        CASE(byte_overflow, FORMAT, "too large"),
        CASE(ragged_row, FORMAT, "rows of 33 elements"),
        CASE(known_unsupported, UNSUPPORTED, "type IQ2_XXS (16)"),
        CASE(unknown_tensor_type, UNSUPPORTED, "type unknown (4294967295)"),
        CASE(no_data, FORMAT, "past the end"),
        CASE(offset_past_end, FORMAT, "past the end"),
        CASE(unaligned_offset, FORMAT, "multiple of the alignment 32"),
        CASE(overlap, FORMAT, "early and late overlap"),
        CASE(same_place, FORMAT, "overlap"),
        CASE(twin_tensors, FORMAT, "tensor same occurs twice"),
        CASE(long_name, FORMAT, "256 bytes long"),
        CASE(nul_in_name, FORMAT, "holds a NUL"),
    };
#undef CASE
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        base_text t = {0};
        gguf *g = NULL;
        marco_error error = {0};
        cases[i].make(&t);
        marco_status status = open_bytes(t.data, t.size, &g, &error);
        if (status != cases[i].status || !strstr(error.message, cases[i].part))
            fail_msg("%s: %s \"%s\"", cases[i].name, marco_status_name(status), error.message);
        assert_null(g);
        base_text_free(&t);
    }
}

/* A file whose metadata has this key as an array of `n` empty strings, in a hole of the file; and
 * before it, one with `before` of them. */
static marco_status open_empty_strings(const char *key, uint64_t before, uint64_t n,
                                       marco_error *error)
{
    base_text t = {0};
    gguf *g = NULL;
    char path[64];
    int fd = memfd_create("gguf", MFD_CLOEXEC);
    assert_true(fd >= 0);
    head(&t, 3, 0, 2);
    pair(&t, "before", GGUF_ARRAY, GGUF_STRING, 4);
    number(&t, before, 8);
    assert_int_equal(pwrite(fd, t.data, t.size, 0), t.size);
    off_t at = (off_t)(t.size + 8 * before);
    base_text_clear(&t);
    pair(&t, key, GGUF_ARRAY, GGUF_STRING, 4);
    number(&t, n, 8);
    assert_int_equal(pwrite(fd, t.data, t.size, at), t.size);
    assert_int_equal(ftruncate(fd, at + (off_t)(t.size + 8 * n)), 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    marco_status status = gguf_open(path, &g, error);
    gguf_close(g);
    close(fd);
    base_text_free(&t);
    return status;
}

/* They take more memory than file, so their number is bounded over all arrays. */
static void test_too_many_strings(void **state)
{
    (void)state;
    enum { MOST = 1 << 22 };
    marco_error error = {0};
    assert_int_equal(open_empty_strings("last", MOST - 9, 9, &error), MARCO_OK);
    assert_int_equal(open_empty_strings("last", 9, MOST - 8, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "4194296 strings of last"));
    assert_non_null(strstr(error.message, "more than 4194304"));
}

/* A key may be 64 KiB long; what is wrong with it must still be told. */
static void test_long_key_in_message(void **state)
{
    (void)state;
    marco_error error = {0};
    char *key = base_calloc(1, 60001);
    memset(key, 'k', 60000);
    assert_int_equal(open_empty_strings(key, 9, (1 << 22) - 8, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "strings of kkk"));
    assert_non_null(strstr(error.message, "kkk there are more than"));
    assert_null(strstr(error.message, "[...]"));
    base_free(key);
}

/* Beyond 64 MiB, although the file goes on. */
static void test_too_much_metadata(void **state)
{
    (void)state;
    base_text t = {0};
    gguf *g = NULL;
    marco_error error = {0};
    char path[64];
    int fd = memfd_create("gguf", MFD_CLOEXEC);
    assert_true(fd >= 0);
    head(&t, 3, 0, 1);
    pair(&t, "text", GGUF_STRING, 64 << 20, 8);
    assert_int_equal(write(fd, t.data, t.size), t.size);
    assert_int_equal(ftruncate(fd, 80 << 20), 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    assert_int_equal(gguf_open(path, &g, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "text at byte 48 runs past the 67108864 bytes"));
    assert_null(g);
    close(fd);
    base_text_free(&t);
}

static void test_truncated(void **state)
{
    (void)state;
    base_text t = {0};
    marco_error error = {0};
    small_file(&t);
    for (size_t size = 0; size < t.size; size++) {
        gguf *g = NULL;
        assert_int_equal(open_bytes(t.data, size, &g, &error), MARCO_ERROR_FORMAT);
        assert_null(g);
    }
    base_text_free(&t);
}

/* Padding after the last tensor is part of the file; more than that is somebody else's. */
static void test_tail(void **state)
{
    (void)state;
    base_text t = {0};
    marco_error error = {0};
    gguf *g = NULL;
    small_file(&t);
    align(&t, 32);
    assert_int_equal(open_bytes(t.data, t.size, &g, &error), MARCO_OK);
    gguf_close(g);
    g = NULL;
    number(&t, 0, 8);
    align(&t, 32);
    assert_int_equal(open_bytes(t.data, t.size, &g, &error), MARCO_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "follow the last tensor"));
    assert_null(g);
    base_text_free(&t);
}

/* Whatever a damaged byte does, what is opened must be usable. */
static void test_damaged(void **state)
{
    (void)state;
    static const unsigned char masks[] = {0x01, 0x80, 0xff};
    base_text t = {0};
    marco_error error = {0};
    size_t opened = 0;
    small_file(&t);
    for (size_t i = 0; i < t.size * sizeof masks; i++) {
        char *byte = &t.data[i / sizeof masks], old = *byte, data[64];
        gguf *g = NULL;
        *byte = (char)(*byte ^ masks[i % sizeof masks]);
        if (open_bytes(t.data, t.size, &g, &error) == MARCO_OK) {
            opened++;
            for (size_t j = 0; j < gguf_tensor_count(g); j++) {
                const gguf_tensor *tensor = gguf_tensor_at(g, j);
                assert_true(tensor->bytes <= sizeof data);
                assert_int_equal(
                    base_file_read(gguf_file(g), tensor->offset, data, tensor->bytes, &error),
                    MARCO_OK);
            }
            gguf_close(g);
        }
        *byte = old;
    }
    /* At least the data's own bytes are free to be anything. */
    assert_true(opened >= (64 + 34) * sizeof masks);
    base_text_free(&t);
}

/* The size of a real vocabulary: no work or memory of its own for each string. */
static void test_many_strings(void **state)
{
    (void)state;
    enum { N = 151936 };
    base_text t = {0};
    gguf *g;
    marco_error error = {0};
    char token[24];
    head(&t, 3, 0, 1);
    pair(&t, "tokens", GGUF_ARRAY, GGUF_STRING, 4);
    number(&t, N, 8);
    for (int i = 0; i < N; i++) {
        snprintf(token, sizeof token, "token%d", i);
        string(&t, token);
    }
    base_alloc_fail_at(0);
    assert_int_equal(open_bytes(t.data, t.size, &g, &error), MARCO_OK);
    assert_true(base_alloc_fail_at(0) < 32);
    const gguf_value *value = gguf_get(g, "tokens");
    assert_int_equal(value->array.n, N);
    for (int i = 0; i < N; i++) {
        int size = snprintf(token, sizeof token, "token%d", i);
        assert_int_equal(value->array.strings[i].size, size);
        assert_memory_equal(value->array.strings[i].data, token, (size_t)size);
    }
    gguf_close(g);
    base_text_free(&t);
}

static void test_open_without_memory(void **state)
{
    (void)state;
    base_text t = {0};
    gguf *g = NULL;
    marco_error error = {0};
    small_file(&t);
    uint64_t n = 0;
    marco_status status;
    do {
        base_alloc_fail_at(++n);
        status = open_bytes(t.data, t.size, &g, &error);
        base_alloc_fail_at(0);
        assert_true(status == MARCO_OK || status == MARCO_ERROR_MEMORY);
    } while (status);
    assert_true(n > 8);
    gguf_close(g);
    base_text_free(&t);
}

static void test_open_missing(void **state)
{
    (void)state;
    gguf *g = NULL;
    marco_error error = {0};
    assert_int_equal(gguf_open("no-such-file.gguf", &g, &error), MARCO_ERROR_NOT_FOUND);
    assert_int_equal(gguf_open(".", &g, NULL), MARCO_ERROR_ARGUMENT);
    assert_null(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_typed),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_too_many_strings),
        cmocka_unit_test(test_long_key_in_message),
        cmocka_unit_test(test_too_much_metadata),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_tail),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_many_strings),
        cmocka_unit_test(test_open_without_memory),
        cmocka_unit_test(test_open_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
