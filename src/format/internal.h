/* Shared by the readers and writers of this room only. */
#ifndef FORMAT_INTERNAL_H
#define FORMAT_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What is read at most; the writers refuse to write more. */
#define FORMAT_NAME_LIMIT        255                 /* bytes of a tensor's name */
#define GGUF_KEY_LIMIT           65535               /* bytes of a key, as the specification says */
#define GGUF_COUNT_LIMIT         ((uint64_t)1 << 18) /* of keys, and of tensors */
#define GGUF_METADATA_LIMIT      ((uint64_t)64 << 20) /* real metadata is some 10 MB */
#define GGUF_STRINGS_LIMIT       ((uint64_t)1 << 22)  /* in all arrays together */
#define SAFETENSORS_HEADER_LIMIT ((size_t)32 << 20)   /* of the index as well */
#define SAFETENSORS_VALUE_LIMIT  ((size_t)1 << 20)    /* see safetensors_count_values */

/* Bytes of a number (or bool) of the metadata; 0 for strings, arrays and unknown types. */
size_t gguf_type_size(uint32_t type);

/* How much of a tree a JSON text makes, known before it is parsed: its objects, arrays, keys and
 * commas. A tree can take a hundred times the bytes of its text. */
size_t safetensors_count_values(const char *text, size_t size);

/* Little-endian numbers of 1 to 8 bytes, as they are in memory (base/memory.h sees to it). */
static inline uint64_t format_load(const void *bytes, size_t size)
{
    uint64_t value = 0;
    memcpy(&value, bytes, size);
    return value;
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
