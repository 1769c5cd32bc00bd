/* Shared by the readers and writers of this room only. */
#ifndef FORMAT_INTERNAL_H
#define FORMAT_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Longest tensor name that is read. */
#define FORMAT_NAME_LIMIT 255

/* Bytes of a number (or bool) of the metadata; 0 for strings, arrays and unknown types. */
size_t gguf_type_size(uint32_t type);

/* Little-endian numbers of 1 to 8 bytes. */
static inline uint64_t format_load(const void *bytes, size_t size)
{
    const unsigned char *p = bytes;
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++)
        value |= (uint64_t)p[i] << (8 * i);
    return value;
}

static inline void format_store(char *bytes, uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(unsigned char)(value >> (8 * i));
}

/* What is wrong with a name of a key or a tensor ("is empty", ...), NULL where nothing is. */
const char *format_name_problem(const char *name, size_t size, size_t limit);

/* Names sorted for look-up. Sorted rather than hashed: a hostile file cannot make it slow, and
 * duplicates end up side by side. */
typedef struct format_name {
    const char *name; /* not owned */
    size_t at;        /* the caller's number for it */
} format_name;

typedef struct format_names {
    format_name *items;
    size_t n;
} format_names;

/* Room for n items, which the caller fills before format_names_sort. False when out of memory. */
bool format_names_create(format_names *names, size_t n);
void format_names_free(format_names *names);

/* Returns the first of two items with the same name, NULL where all differ. */
const format_name *format_names_sort(format_names *names);

/* SIZE_MAX where there is no such name. */
size_t format_names_find(const format_names *names, const char *name);

#endif
