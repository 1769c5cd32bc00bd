/* Names that come from the command line and from the hub, checked before they become paths. */
#ifndef HUB_NAME_H
#define HUB_NAME_H

#include <stdbool.h>
#include <stddef.h>

#include "marco/marco.h"

enum {
    HUB_MODEL_MAX = 96,     /* "OWNER/NAME" */
    HUB_REVISION_MAX = 200, /* a branch, a tag, a commit */
    HUB_FILE_MAX = 1024,    /* a file's path in a model; 255 a part */
    HUB_PARTS_MOST = 50,    /* of a file's path or a revision, between '/' */
    HUB_HASH_MAX = 64       /* hexadecimal digits */
};

/* "OWNER/NAME", or "NAME" as a few old models have it. */
typedef struct hub_name {
    char model[HUB_MODEL_MAX + 1];
    char revision[HUB_REVISION_MAX + 1]; /* "main" unless given */
    bool given;                          /* whether a revision was */
} hub_name;

/* "OWNER/NAME[@REVISION]". MARCO_ERROR_ARGUMENT says what is wrong with it. */
marco_status hub_name_parse(const char *text, hub_name *out, marco_error *error);

/* "models--OWNER--NAME" into folder [HUB_MODEL_MAX + 16], and back; false for other folders. */
void hub_name_folder(const char *model, char *folder);
bool hub_name_of_folder(const char *folder, char *model);

/* True for names a git reference may have and that stay within a folder of references. */
bool hub_revision_is_valid(const char *revision);

/* True where the path of a file in a model may be made below a folder: relative, no part empty or
 * "." or "..", no control character and no backslash, UTF-8, bounded in length and depth. `size`:
 * its bytes, which may hold a NUL. */
bool hub_file_is_valid(const char *path, size_t size);

/* Lower-case hexadecimal digits: a git object's name (40, or 64 in newer repositories); SHA-256. */
bool hub_is_commit(const char *text);
bool hub_is_sha1(const char *text);
bool hub_is_sha256(const char *text);

#endif
