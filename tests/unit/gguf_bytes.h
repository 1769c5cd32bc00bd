/* GGUF files made byte by byte, and one that holds every type of value. */
#ifndef TESTS_GGUF_BYTES_H
#define TESTS_GGUF_BYTES_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/text.h"
#include "format/gguf.h"

static inline void number(base_text *t, uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        base_text_add_char(t, (char)(unsigned char)(value >> (8 * i)));
}

static inline void bytes(base_text *t, const char *s, size_t size)
{
    number(t, size, 8);
    base_text_add_n(t, s, size);
}

static inline void string(base_text *t, const char *s)
{
    bytes(t, s, strlen(s));
}

static inline void head(base_text *t, uint32_t version, uint64_t n_tensors, uint64_t n_pairs)
{
    base_text_add(t, "GGUF");
    number(t, version, 4);
    number(t, n_tensors, 8);
    number(t, n_pairs, 8);
}

static inline void pair(base_text *t, const char *key, uint32_t type, uint64_t value, size_t size)
{
    string(t, key);
    number(t, type, 4);
    number(t, value, size);
}

/* n_dims dimensions, all but the first of them 1 unless dims gives them. */
static inline void tensor(base_text *t, const char *name, uint32_t n_dims, const uint64_t *dims,
                          uint32_t type, uint64_t offset)
{
    string(t, name);
    number(t, n_dims, 4);
    for (uint32_t d = 0; d < n_dims; d++)
        number(t, dims[d], 8);
    number(t, type, 4);
    number(t, offset, 8);
}

static inline void align(base_text *t, size_t alignment)
{
    while (t->size % alignment)
        base_text_add_char(t, 0);
}

static inline marco_status open_bytes(const char *data, size_t size, gguf **g, marco_error *error)
{
    char path[64];
    int fd = memfd_create("gguf", MFD_CLOEXEC);
    assert_true(fd >= 0);
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, data + done, size - done);
        assert_true(n > 0);
        done += (size_t)n;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    marco_status status = gguf_open(path, g, error);
    close(fd);
    return status;
}

/* A small valid file: every type of value and two tensors, 64 bytes and 34 bytes of data. */
static inline void small_file(base_text *t)
{
    static const uint64_t f32_dims[] = {4, 2, 2}, q8_dims[] = {32};
    head(t, 3, 2, 15);
    pair(t, "u8", GGUF_U8, 200, 1);
    pair(t, "i8", GGUF_I8, 0xff, 1);
    pair(t, "u16", GGUF_U16, 65535, 2);
    pair(t, "i16", GGUF_I16, 0x8000, 2);
    pair(t, "u32", GGUF_U32, UINT32_MAX, 4);
    pair(t, "i32", GGUF_I32, (uint32_t)-7, 4);
    pair(t, "f32", GGUF_F32, 0x3fc00000, 4); /* 1.5 */
    pair(t, "yes", GGUF_BOOL, 1, 1);
    string(t, "text");
    number(t, GGUF_STRING, 4);
    bytes(t, "a\0b", 3);
    pair(t, "u64", GGUF_U64, UINT64_MAX, 8);
    pair(t, "i64", GGUF_I64, (uint64_t)INT64_MIN, 8);
    pair(t, "f64", GGUF_F64, 0xbfe0000000000000, 8); /* -0.5 */
    pair(t, "strings", GGUF_ARRAY, GGUF_STRING, 4);
    number(t, 2, 8);
    string(t, "");
    string(t, "two");
    pair(t, "numbers", GGUF_ARRAY, GGUF_I16, 4);
    number(t, 3, 8);
    number(t, 0xffff00020001, 6);
    pair(t, "empty", GGUF_ARRAY, GGUF_BOOL, 4);
    number(t, 0, 8);
    tensor(t, "first", 3, f32_dims, TENSOR_F32, 0);
    tensor(t, "second", 1, q8_dims, TENSOR_Q8_0, 64);
    align(t, 32);
    for (int i = 0; i < 64 + 34; i++)
        base_text_add_char(t, (char)i);
}

static inline void check_values(const gguf *g)
{
    static const char numbers[] = {1, 0, 2, 0, (char)-1, (char)-1};
    assert_int_equal(gguf_get(g, "u8")->u, 200);
    assert_int_equal(gguf_get(g, "i8")->i, -1);
    assert_int_equal(gguf_get(g, "u16")->u, 65535);
    assert_int_equal(gguf_get(g, "i16")->i, -32768);
    assert_int_equal(gguf_get(g, "u32")->u, UINT32_MAX);
    assert_int_equal(gguf_get(g, "i32")->i, -7);
    assert_true(gguf_get(g, "f32")->f == 1.5);
    assert_int_equal(gguf_get(g, "yes")->u, 1);
    assert_int_equal(gguf_get(g, "text")->string.size, 3);
    assert_memory_equal(gguf_get(g, "text")->string.data, "a\0b", 3);
    assert_true(gguf_get(g, "u64")->u == UINT64_MAX);
    assert_true(gguf_get(g, "i64")->i == INT64_MIN);
    assert_true(gguf_get(g, "f64")->f == -0.5);
    const gguf_value *strings = gguf_get(g, "strings");
    assert_int_equal(strings->array.n, 2);
    assert_int_equal(strings->array.strings[0].size, 0);
    assert_int_equal(strings->array.strings[1].size, 3);
    assert_memory_equal(strings->array.strings[1].data, "two", 3);
    const gguf_value *array = gguf_get(g, "numbers");
    assert_int_equal(array->array.type, GGUF_I16);
    assert_int_equal(array->array.n, 3);
    assert_memory_equal(array->array.data, numbers, sizeof numbers);
    assert_int_equal(gguf_get(g, "empty")->array.n, 0);
    assert_null(gguf_get(g, "absent"));
}

#endif
