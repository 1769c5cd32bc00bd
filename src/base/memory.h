/* The one allocator: everything the library asks for itself comes from here, so that a test can
 * make the n-th request fail. (jansson has hooks that tests point here too.) */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As malloc, calloc, realloc and free. Sizes of 0 are taken as 1, so NULL always means failure. */
void *base_alloc(size_t size);
void *base_calloc(size_t count, size_t size);
void *base_realloc(void *memory, size_t size);
void base_free(void *memory);

/* count * size bytes; NULL also when the product overflows. */
void *base_alloc_array(size_t count, size_t size);

/* 64-byte aligned, for tensors; released with base_free. */
void *base_alloc_aligned(size_t size);

/* Large memory straight from the system: zeros, page-aligned, taken page by page as it is touched.
 * NULL when out of memory. Given back whole by base_region_free with the same size (NULL is
 * allowed); base_region_drop gives back the pages within memory[0, size), which then read as zeros;
 * base_region_retake tells that the same part is to be filled again, so that it may have huge pages
 * as before. */
void *base_region_alloc(size_t size);
void base_region_free(void *memory, size_t size);
void base_region_drop(void *memory, size_t size);
void base_region_retake(void *memory, size_t size);

/* NUL-terminated copies; base_strndup copies exactly `size` bytes and adds the NUL. */
char *base_strdup(const char *s);
char *base_strndup(const char *s, size_t size);

/* For doubling arrays: makes room for `need` elements of `size` bytes. On success *items and
 * *capacity are updated; on failure both are as before. */
bool base_grow(void **items, size_t *capacity, size_t need, size_t size);

/* Overflow-checked arithmetic for sizes that come out of files. False on overflow. */
static inline bool base_add_u64(uint64_t a, uint64_t b, uint64_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}

static inline bool base_mul_u64(uint64_t a, uint64_t b, uint64_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "marco reads and writes its files' little-endian numbers as they are in memory"
#endif

/* Test hook, for the process: the n-th request from now (1 is the next) and all after it fail; 0
 * turns it off. Returns the requests seen since the last call. */
uint64_t base_alloc_fail_at(uint64_t n);

#endif
