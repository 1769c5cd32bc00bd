#include "hub/name.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"

static const char prefix[] = "models--";

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* As hubs name owners and models: letters, digits and -_. within. "--" separates them in the cache.
 */
static bool is_part(const char *text, size_t size)
{
    if (size == 0 || text[0] == '.' || text[0] == '-' || text[size - 1] == '.' ||
        text[size - 1] == '-')
        return false;
    for (size_t i = 0; i < size; i++) {
        bool twice = i > 0 && text[i] == text[i - 1] && (text[i] == '-' || text[i] == '.');
        if (twice || !(is_alnum(text[i]) || strchr("-_.", text[i])))
            return false;
    }
    return true;
}

static bool is_model(const char *text, size_t size)
{
    const char *slash = memchr(text, '/', size);
    if (size > HUB_MODEL_MAX)
        return false;
    if (!slash)
        return is_part(text, size);
    size_t owner = (size_t)(slash - text);
    return is_part(text, owner) && is_part(slash + 1, size - owner - 1);
}

marco_status hub_name_parse(const char *text, hub_name *out, marco_error *error)
{
    const char *at = strchr(text, '@');
    size_t size = at ? (size_t)(at - text) : strlen(text);
    *out = (hub_name){.revision = "main", .given = at != NULL};
    if (!is_model(text, size))
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "'%s' is no model's name: it has the form OWNER/NAME or "
                         "OWNER/NAME@REVISION, of letters, digits, '-', '_' and '.'",
                         text);
    if (at && !hub_revision_is_valid(at + 1))
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "'%s': what follows the '@' is no name of a branch, a tag or a commit",
                         text);
    memcpy(out->model, text, size);
    if (at)
        snprintf(out->revision, sizeof out->revision, "%s", at + 1);
    return MARCO_OK;
}

void hub_name_folder(const char *model, char *folder)
{
    const char *slash = strchr(model, '/');
    if (slash)
        snprintf(folder, HUB_MODEL_MAX + 16, "%s%.*s--%s", prefix, (int)(slash - model), model,
                 slash + 1);
    else
        snprintf(folder, HUB_MODEL_MAX + 16, "%s%s", prefix, model);
}

bool hub_name_of_folder(const char *folder, char *model)
{
    size_t skip = sizeof prefix - 1;
    if (strncmp(folder, prefix, skip) != 0 || strlen(folder + skip) > HUB_MODEL_MAX + 1)
        return false;
    const char *rest = folder + skip, *dashes = strstr(rest, "--");
    int n = dashes ? snprintf(model, HUB_MODEL_MAX + 1, "%.*s/%s", (int)(dashes - rest), rest,
                              dashes + 2)
                   : snprintf(model, HUB_MODEL_MAX + 1, "%s", rest);
    return n > 0 && n <= HUB_MODEL_MAX && is_model(model, (size_t)n);
}

bool hub_revision_is_valid(const char *revision)
{
    size_t size = strlen(revision);
    if (size == 0 || size > HUB_REVISION_MAX)
        return false;
    int parts = 0;
    for (size_t i = 0; i < size; i++) {
        bool first = i == 0 || revision[i - 1] == '/';
        parts += first;
        if (!is_alnum(revision[i]) && !strchr("-_.+/", revision[i]))
            return false;
        if (first && strchr("-./", revision[i]))
            return false;
        if (!first && revision[i] == '.' && revision[i - 1] == '.')
            return false;
    }
    return revision[size - 1] != '/' && parts <= HUB_PARTS_MOST;
}

bool hub_file_is_valid(const char *path, size_t size)
{
    if (size == 0 || size > HUB_FILE_MAX || base_utf8_check(path, size) != size)
        return false;
    size_t part = 0; /* where the part begins */
    int parts = 0;
    for (size_t i = 0; i <= size; i++) {
        unsigned char c = i < size ? (unsigned char)path[i] : '/';
        /* U+0080 to U+009F, the other controls, are C2 80 to C2 9F. */
        bool c1 = c == 0xC2 && i + 1 < size && (unsigned char)path[i + 1] < 0xA0;
        if (c < 0x20 || c == 0x7F || c == '\\' || c1)
            return false;
        if (c != '/')
            continue;
        size_t n = i - part;
        if (n == 0 || n > 255 || (n == 1 && path[part] == '.') ||
            (n == 2 && path[part] == '.' && path[part + 1] == '.'))
            return false;
        part = i + 1;
        parts++;
    }
    return parts <= HUB_PARTS_MOST;
}

static bool is_hex(const char *text, size_t size)
{
    return strlen(text) == size && strspn(text, "0123456789abcdef") == size;
}

bool hub_is_commit(const char *text)
{
    return is_hex(text, 40) || is_hex(text, 64);
}

bool hub_is_sha1(const char *text)
{
    return is_hex(text, 40);
}

bool hub_is_sha256(const char *text)
{
    return is_hex(text, 64);
}
