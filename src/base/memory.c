#include "base/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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

/* ---- regions --------------------------------------------------------------------------------- */

/* From this size on a region begins at a huge page's boundary and asks for huge pages. Where the
 * system gives them on request, reading weights at random misses the TLB less and faults 512 times
 * less often while loading (docs/residency.md has the measurement). */
#define HUGE_PAGE ((size_t)2 << 20)

static size_t mapped_size(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), rounded;
    if (__builtin_add_overflow(size ? size : 1, page - 1, &rounded))
        return 0;
    return rounded & ~(page - 1);
}

void *base_region_alloc(size_t size)
{
    size_t bytes = mapped_size(size), room = bytes;
    bool huge = bytes >= HUGE_PAGE;
    if (refused() || bytes == 0 || (huge && __builtin_add_overflow(bytes, HUGE_PAGE, &room)))
        return NULL;
    uint8_t *base = mmap(NULL, room, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    if (!huge)
        return base;
    size_t before = -(uintptr_t)base & (HUGE_PAGE - 1), after = room - bytes - before;
    if (before)
        munmap(base, before);
    if (after)
        munmap(base + before + bytes, after);
    madvise(base + before, bytes, MADV_HUGEPAGE);
    return base + before;
}

void base_region_free(void *memory, size_t size)
{
    if (memory)
        munmap(memory, mapped_size(size));
}

/* The whole pages of memory[0, size): where they begin, and their bytes. */
static size_t whole_pages(void *memory, size_t size, void **first)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)memory + page - 1) & ~(page - 1);
    uintptr_t end = ((uintptr_t)memory + size) & ~(page - 1);
    *first = (void *)begin;
    return end > begin ? end - begin : 0;
}

void base_region_drop(void *memory, size_t size)
{
    void *first;
    size_t bytes = whole_pages(memory, size, &first);
    if (bytes == 0)
        return;
    /* Or the system might put a huge page over the hole, for the sake of its neighbours. */
    madvise(first, bytes, MADV_NOHUGEPAGE);
    madvise(first, bytes, MADV_DONTNEED);
}

void base_region_retake(void *memory, size_t size)
{
    void *first;
    size_t bytes = whole_pages(memory, size, &first);
    if (bytes > 0)
        madvise(first, bytes, MADV_HUGEPAGE);
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
