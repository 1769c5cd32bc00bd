/* SHA-256 (FIPS 180-4): names for contents. */
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { BASE_SHA256_BYTES = 32, BASE_SHA256_TEXT = 65 };

typedef struct base_sha256 {
    uint32_t state[8];
    uint64_t size;     /* bytes so far */
    uint8_t block[64]; /* those after the last whole block */
} base_sha256;

void base_sha256_begin(base_sha256 *hash);
void base_sha256_add(base_sha256 *hash, const void *data, size_t size);
void base_sha256_end(base_sha256 *hash, uint8_t out[BASE_SHA256_BYTES]);

/* 64 lower-case hexadecimal digits and a NUL. */
void base_sha256_text(const uint8_t digest[BASE_SHA256_BYTES], char out[BASE_SHA256_TEXT]);

#endif
