#include "base/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "marco/marco.h"

static _Atomic uint64_t requests;
static _Atomic uint64_t fail_at;

static bool refused(void)
{
    uint64_t n = atomic_fetch_add_explicit(&requests, 1, memory_order_relaxed) + 1;
    uint64_t at = atomic_load_explicit(&fail_at, memory_order_relaxed);
    return at != 0 && n >= at;
}

uint64_t base_alloc_fail_at(uint64_t n)
{
    atomic_store(&fail_at, n);
    return atomic_exchange(&requests, 0);
}

void *base_alloc(size_t size)
{
    return refused() ? NULL : malloc(size ? size : 1);
}

void *base_calloc(size_t count, size_t size)
{
    return refused() ? NULL : calloc(count ? count : 1, size ? size : 1);
}

void *base_realloc(void *memory, size_t size)
{
    return refused() ? NULL : realloc(memory, size ? size : 1);
}

void base_free(void *memory)
{
    free(memory);
}

void *base_alloc_array(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    return base_alloc(bytes);
}

void *base_alloc_aligned(size_t size)
{
    size_t rounded;
    if (refused() || __builtin_add_overflow(size, (size_t)64, &rounded))
        return NULL;
    return aligned_alloc(64, rounded & ~(size_t)63);
}

char *base_strdup(const char *s)
{
    return base_strndup(s, strlen(s));
}

char *base_strndup(const char *s, size_t size)
{
    char *copy = base_alloc(size + 1);
    if (copy) {
        if (size)
            memcpy(copy, s, size);
        copy[size] = '\0';
    }
    return copy;
}

bool base_grow(void **items, size_t *capacity, size_t need, size_t size)
{
    if (need <= *capacity)
        return true;
    size_t wanted = *capacity ? *capacity + *capacity / 2 + 1 : 16;
    if (wanted < need)
        wanted = need;
    size_t bytes;
    if (__builtin_mul_overflow(wanted, size, &bytes))
        return false;
    void *grown = base_realloc(*items, bytes);
    if (!grown)
        return false;
    *items = grown;
    *capacity = wanted;
    return true;
}

void marco_free(void *memory)
{
    base_free(memory);
}
