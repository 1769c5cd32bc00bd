/* Writing: an output appears whole, under its final name, or not at all. */
#ifndef BASE_OUTPUT_H
#define BASE_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "marco/marco.h"

/* A file being written under a temporary name beside its final one. */
typedef struct base_output base_output;

/* Refuses an existing path unless `overwrite`. */
marco_status base_output_create(const char *path, bool overwrite, base_output **out,
                                marco_error *error);

/* Only the file's owner may read it. */
void base_output_keep_private(base_output *output);

/* Appends. Large writes go straight to the file, small ones are collected. */
marco_status base_output_write(base_output *output, const void *data, size_t size,
                               marco_error *error);

/* Zero bytes up to the next multiple of `alignment` (a power of two). */
marco_status base_output_align(base_output *output, size_t alignment, marco_error *error);

/* Bytes appended so far. */
uint64_t base_output_tell(const base_output *output);

/* Flush, fsync, rename to the final name, fsync the folder; closes the output either way, leaving
 * no file on failure. */
marco_status base_output_commit(base_output *output, marco_error *error);

/* Closes and removes the temporary file. NULL is allowed. */
void base_output_abort(base_output *output);

/* A whole file at once: `name` in `folder`, which must not have it yet. */
marco_status base_output_put(const char *folder, const char *name, const char *data, size_t size,
                             marco_error *error);

/* A folder being filled under a temporary name. Files in it are made with base_output_create and
 * committed one by one; the folder appears under its name when committed. An existing folder is
 * replaced (overwrite) only if it is no symbolic link and holds nothing but files that a checkpoint
 * or training data are made of, both when the work begins and when it ends. What killed processes
 * left of a folder of this name is removed first; that of living ones, here or on other machines,
 * is not. */
typedef struct base_folder base_folder;

marco_status base_folder_create(const char *path, bool overwrite, base_folder **out,
                                marco_error *error);
const char *base_folder_path(const base_folder *folder); /* the temporary one, to put files in */
marco_status base_folder_commit(base_folder *folder, marco_error *error);
void base_folder_abort(base_folder *folder);

/* Removes a folder that holds nothing but files that a checkpoint, of a training run too, is made
 * of; others are refused. A process that is killed meanwhile leaves it under a temporary name. */
marco_status base_folder_remove(const char *path, marco_error *error);

/* Removes what killed processes left in `parent` under temporary names: files and checkpoints'
 * folders whose final names begin with `prefix`. Nobody else may be writing there. */
void base_folder_sweep(const char *parent, const char *prefix);

#endif
