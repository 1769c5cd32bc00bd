/* Reading: files checked against their real length, read by position from any thread. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "marco/marco.h"

typedef struct base_file {
    char *path;
    uint64_t size;           /* bytes, when opened */
    struct timespec written; /* the time of its last change, when opened */
    int fd;
    int direct; /* the same file past the page cache; -1 where it is small or cannot be read so */
} base_file;

/* Regular files only. */
marco_status base_file_open(const char *path, base_file **out, marco_error *error);
void base_file_close(base_file *file);

/* Exactly `size` bytes at `offset`. Fails where the file ends before (it shrank, or the caller
 * did not check) and where it was changed since it was opened. Thread-safe. */
marco_status base_file_read(const base_file *file, uint64_t offset, void *buffer, size_t size,
                            marco_error *error);

/* Where base_file_read_past's buffers begin, and how much larger than the data they are. */
enum { BASE_FILE_ALIGN = 4096, BASE_FILE_SPARE = 2 * BASE_FILE_ALIGN };

/* As base_file_read, for data that the process keeps: they are not left in the page cache too,
 * unless all were there before. (Where the system reads through the cache only, what was there in
 * part is dropped whole.) `buffer`: BASE_FILE_ALIGN-aligned, size + BASE_FILE_SPARE bytes;
 * *data points at the bytes asked for within it. */
marco_status base_file_read_past(const base_file *file, uint64_t offset, void *buffer, size_t size,
                                 const uint8_t **data, marco_error *error);

/* A second handle on an open file, for those who outlive the first. */
marco_status base_file_share(const base_file *file, base_file **out, marco_error *error);

/* The file's bytes as read-only memory, shared with other processes; until base_file_unmap with
 * its size. Touching what a file that shrank meanwhile no longer has is a SIGBUS. */
marco_status base_file_map(const base_file *file, const uint8_t **out, marco_error *error);
void base_file_unmap(const uint8_t *map, uint64_t size);

/* A whole file of at most `limit` bytes, NUL-terminated. */
marco_status base_file_slurp(const char *path, size_t limit, char **data, size_t *size,
                             marco_error *error);

bool base_is_folder(const char *path);
bool base_exists(const char *path);

/* "folder/name"; NULL when out of memory. */
char *base_path_join(const char *folder, const char *name);

/* The last part of a path, without copying. */
const char *base_path_name(const char *path);

/* True where `name` is a plain file name: not empty, no '/', no NUL, not "." or "..". */
bool base_path_is_plain(const char *name);

/* True where path ends in `suffix`. */
bool base_has_suffix(const char *path, const char *suffix);

#endif
