/* Counter-based random numbers: the i-th number of a stream needs none before it, so that results
 * depend on the seed alone and not on the order or the threads they are drawn by. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stdint.h>

/* SplitMix64's finaliser (Steele, Lea and Flood 2014) and increment, inline for loops that draw
 * many numbers from one key: number i of key k is base_random_mix(k + (i + 1) * BASE_RANDOM_STEP).
 */
#define BASE_RANDOM_STEP 0x9E3779B97F4A7C15u

static inline uint64_t base_random_mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* 64 random bits, number `index` of stream (seed, stream): that of a key mixed from both. */
uint64_t base_random_u64(uint64_t seed, uint64_t stream, uint64_t index);

/* Uniform in [0, 1), 53 bits. */
double base_random_unit(uint64_t seed, uint64_t stream, uint64_t index);

/* 0 .. n-1, n >= 1, without bias worth noticing (multiply-shift over 64 bits). */
uint64_t base_random_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n);

#endif
