#include <string.h>

#include <gnutls/crypto.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "serve/server_internal.h"

enum { DIGEST = 32, MAX_FILE = 1 << 20, MAX_KEY = 512 };

typedef struct key {
    unsigned char digest[DIGEST];
    char name[64];
} key;

/* Keys are kept as digests: comparing these tells nothing of a key by its timing, and a dump of the
 * memory holds none. */
struct serve_keys {
    key *keys;
    size_t n, capacity;
};

static bool digest_of(const char *text, size_t size, unsigned char digest[DIGEST])
{
    return gnutls_hash_fast(GNUTLS_DIG_SHA256, text, size, digest) == 0;
}

void serve_keys_free(serve_keys *keys)
{
    if (!keys)
        return;
    base_free(keys->keys);
    base_free(keys);
}

size_t serve_keys_count(const serve_keys *keys)
{
    return keys->n;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* A line without its newline: "KEY", "KEY NAME", or nothing. */
static marco_status add_line(serve_keys *keys, const char *path, size_t number, const char *line,
                             size_t size, marco_error *error)
{
    size_t at = 0;
    while (at < size && is_space(line[at]))
        at++;
    size_t begin = at;
    while (at < size && !is_space(line[at])) {
        /* What HTTP headers carry without doubt. */
        if (line[begin] != '#' && (line[at] <= ' ' || line[at] > '~'))
            return base_fail(error, MARCO_ERROR_FORMAT,
                             "%s: line %zu: a key is made of printable ASCII characters", path,
                             number);
        at++;
    }
    size_t length = at - begin;
    if (length == 0 || line[begin] == '#')
        return MARCO_OK;
    if (length > MAX_KEY)
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: line %zu: a key has at most %d characters",
                         path, number, MAX_KEY);
    while (at < size && is_space(line[at]))
        at++;
    size_t end = size;
    while (end > at && is_space(line[end - 1]))
        end--;
    void *memory = keys->keys;
    if (!base_grow(&memory, &keys->capacity, keys->n + 1, sizeof *keys->keys))
        return base_fail_memory(error, sizeof *keys->keys, path);
    keys->keys = memory;
    key *k = &keys->keys[keys->n];
    memset(k, 0, sizeof *k);
    if (!digest_of(line + begin, length, k->digest))
        return base_fail(error, MARCO_ERROR_UNSUPPORTED, "%s: GnuTLS offers no SHA-256", path);
    if (end - at >= sizeof k->name || base_utf8_check(line + at, end - at) != end - at)
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "%s: line %zu: a name is UTF-8 of at most %zu bytes", path, number,
                         sizeof k->name - 1);
    memcpy(k->name, line + at, end - at);
    for (size_t i = 0; i < keys->n; i++) {
        if (memcmp(keys->keys[i].digest, k->digest, DIGEST) == 0)
            return base_fail(error, MARCO_ERROR_FORMAT, "%s: line %zu: the key stands there twice",
                             path, number);
    }
    keys->n++;
    return MARCO_OK;
}

marco_status serve_keys_load(const char *path, serve_keys **out, marco_error *error)
{
    char *text = NULL;
    size_t size = 0, number = 1;
    *out = NULL;
    marco_status status = base_file_slurp(path, MAX_FILE, &text, &size, error);
    if (status)
        return status;
    serve_keys *keys = base_calloc(1, sizeof *keys);
    if (!keys)
        status = base_fail_memory(error, sizeof *keys, path);
    for (size_t at = 0; !status && at < size; number++) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t length = end ? (size_t)(end - text) - at : size - at;
        status = add_line(keys, path, number, text + at, length, error);
        at += length + 1;
    }
    if (!status && keys->n == 0)
        status = base_fail(error, MARCO_ERROR_FORMAT,
                           "%s: there is no key in it; write one a line, KEY or KEY NAME", path);
    gnutls_memset(text, 0, size);
    base_free(text);
    if (status) {
        serve_keys_free(keys);
        return status;
    }
    *out = keys;
    return MARCO_OK;
}

bool serve_keys_find(const serve_keys *keys, const char *given, char name[64], uint64_t *client)
{
    unsigned char digest[DIGEST];
    size_t size = strlen(given), found = keys->n;
    while (size > 0 && is_space(given[size - 1]))
        size--;
    if (size > MAX_KEY || !digest_of(given, size, digest))
        return false;
    for (size_t i = 0; i < keys->n; i++) { /* all of them, whichever it is */
        if (gnutls_memcmp(keys->keys[i].digest, digest, DIGEST) == 0)
            found = i;
    }
    if (found == keys->n)
        return false;
    memcpy(name, keys->keys[found].name, sizeof keys->keys[found].name);
    memcpy(client, digest, sizeof *client);
    return true;
}
