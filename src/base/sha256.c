#include "base/sha256.h"

#include <string.h>

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static uint32_t load(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void store(uint8_t *p, uint32_t x)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(x >> (24 - 8 * i));
}

/* One round. Instead of moving the eight words along, the next round calls them by other names. */
static inline void turn(uint32_t s[8], int t, uint32_t word)
{
    uint32_t a = s[-t & 7], b = s[(1 - t) & 7], c = s[(2 - t) & 7];
    uint32_t e = s[(4 - t) & 7], f = s[(5 - t) & 7], g = s[(6 - t) & 7], h = s[(7 - t) & 7];
    uint32_t t1 =
        h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + K[t] + word;
    s[(3 - t) & 7] += t1;
    s[(7 - t) & 7] =
        t1 + (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
}

static void mix(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[64], s[8];
    for (int t = 0; t < 16; t++)
        w[t] = load(block + 4 * t);
    for (int t = 16; t < 64; t++) {
        uint32_t a = w[t - 15], b = w[t - 2];
        w[t] = w[t - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[t - 7] +
               (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    memcpy(s, state, sizeof s);
    for (int t = 0; t < 64; t += 8) {
        turn(s, t, w[t]);
        turn(s, t + 1, w[t + 1]);
        turn(s, t + 2, w[t + 2]);
        turn(s, t + 3, w[t + 3]);
        turn(s, t + 4, w[t + 4]);
        turn(s, t + 5, w[t + 5]);
        turn(s, t + 6, w[t + 6]);
        turn(s, t + 7, w[t + 7]);
    }
    for (int i = 0; i < 8; i++)
        state[i] += s[i];
}

void base_sha256_begin(base_sha256 *hash)
{
    *hash = (base_sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
                                    0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void base_sha256_add(base_sha256 *hash, const void *data, size_t size)
{
    const uint8_t *at = data;
    size_t held = hash->size % 64;
    hash->size += size;
    if (held && size >= 64 - held) {
        memcpy(hash->block + held, at, 64 - held);
        mix(hash->state, hash->block);
        at += 64 - held;
        size -= 64 - held;
        held = 0;
    }
    for (; held == 0 && size >= 64; at += 64, size -= 64)
        mix(hash->state, at);
    if (size)
        memcpy(hash->block + held, at, size);
}

void base_sha256_end(base_sha256 *hash, uint8_t out[BASE_SHA256_BYTES])
{
    uint64_t bits = hash->size * 8;
    uint8_t tail[72] = {0x80};
    size_t zeros = (119 - hash->size % 64) % 64; /* up to the length, which ends a block */
    store(tail + 1 + zeros, (uint32_t)(bits >> 32));
    store(tail + 5 + zeros, (uint32_t)bits);
    base_sha256_add(hash, tail, zeros + 9);
    for (int i = 0; i < 8; i++)
        store(out + 4 * i, hash->state[i]);
}

void base_sha256_text(const uint8_t digest[BASE_SHA256_BYTES], char out[BASE_SHA256_TEXT])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < BASE_SHA256_BYTES; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[2 * BASE_SHA256_BYTES] = '\0';
}
