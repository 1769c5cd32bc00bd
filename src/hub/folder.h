/* Folders of the cache. Nothing here follows a symbolic link out of the folder it was given. */
#ifndef HUB_FOLDER_H
#define HUB_FOLDER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "marco/marco.h"

/* A path of parts joined by '/', the last part NULL: hub_path("a", "b", NULL) is "a/b"; base_free.
 * NULL when out of memory. */
char *hub_path(const char *part, ...) __attribute__((sentinel));

/* The folder and those it is in, where they are missing. */
marco_status hub_folder_make(const char *path, marco_error *error);

/* The folder that holds the file `path`. */
marco_status hub_folder_make_for(const char *path, marco_error *error);

/* A small file, whole or not at all, in the place of what has that name. */
marco_status hub_file_put(const char *path, const char *data, size_t size, marco_error *error);

/* Called for everything in a folder that is no folder: its path from there, what lstat says of it,
 * and the open folder with the name that it has there. Returns false to stop. */
typedef struct hub_entry {
    const char *path;
    int folder;
    const char *name;
    struct stat st;
} hub_entry;
typedef bool (*hub_visit_fn)(void *user, const hub_entry *entry);

/* False where a folder could not be read, is nested too deep, or `visit` stopped. */
bool hub_folder_walk(const char *path, hub_visit_fn visit, void *user);

/* Removes a folder and what is in it; its files' bytes are added to *freed. Missing: nothing to do.
 * A symbolic link in its place is refused. */
marco_status hub_folder_remove(const char *path, uint64_t *freed, marco_error *error);

/* The bytes that removing a file with these properties sets free. */
uint64_t hub_bytes_of(const struct stat *st);

/* "18.4 GB", "512 B" into out [32]; returns it. */
const char *hub_amount(uint64_t bytes, char *out);

#endif
