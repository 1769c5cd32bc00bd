#include "hub/hash.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

struct hub_hash {
    gnutls_hash_hd_t state;
    size_t size; /* bytes of the result */
    bool open;
};

static bool is_short(const hub_file *file)
{
    return !file->sha256[0] && hub_is_sha1(file->oid);
}

const char *hub_hash_name(const hub_file *file)
{
    return is_short(file) ? "git's SHA-1" : file->sha256[0] ? "SHA-256" : "git's SHA-256";
}

static marco_status fail(int code, marco_error *error)
{
    if (code == GNUTLS_E_MEMORY_ERROR)
        return base_fail_memory(error, 256, "a hash");
    return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                     "the GnuTLS library does not compute a hash that files are checked by: %s",
                     gnutls_strerror(code));
}

marco_status hub_hash_create(const hub_file *file, hub_hash **out, marco_error *error)
{
    hub_hash *hash = base_calloc(1, sizeof *hash);
    if (!hash)
        return base_fail_memory(error, sizeof *hash, "a hash");
    gnutls_digest_algorithm_t kind = is_short(file) ? GNUTLS_DIG_SHA1 : GNUTLS_DIG_SHA256;
    int code = gnutls_hash_init(&hash->state, kind);
    hash->open = code == 0;
    hash->size = gnutls_hash_get_len(kind);
    marco_status status = code ? fail(code, error) : MARCO_OK;
    if (!status && !file->sha256[0]) {
        char head[40];
        int n = snprintf(head, sizeof head, "blob %llu", (unsigned long long)file->size);
        status = hub_hash_add(hash, head, (size_t)n + 1, error);
    }
    if (status)
        hub_hash_free(hash);
    else
        *out = hash;
    return status;
}

marco_status hub_hash_add(hub_hash *hash, const void *data, size_t size, marco_error *error)
{
    int code = gnutls_hash(hash->state, data, size);
    return code ? fail(code, error) : MARCO_OK;
}

void hub_hash_finish(hub_hash *hash, char *text)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char bytes[HUB_HASH_MAX / 2] = {0};
    gnutls_hash_deinit(hash->state, bytes);
    hash->open = false;
    for (size_t i = 0; i < hash->size; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    text[2 * hash->size] = '\0';
}

void hub_hash_free(hub_hash *hash)
{
    if (hash && hash->open)
        gnutls_hash_deinit(hash->state, NULL);
    base_free(hash);
}
