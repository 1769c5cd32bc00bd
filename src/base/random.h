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

/* Streams of one seed that is used for several things, a training run's: the use is the topmost
 * byte, so that none of them meets another's numbers. `number`: below 2^56. */
typedef enum base_random_use {
    BASE_RANDOM_DATA,     /* which source a sequence is of, the order of documents */
    BASE_RANDOM_ADAPTERS, /* what LoRA begins with */
    BASE_RANDOM_MASKS,    /* experts that are dropped */
    BASE_RANDOM_WEIGHTS,  /* what a new model begins with */
} base_random_use;

static inline uint64_t base_random_stream(base_random_use use, uint64_t number)
{
    return (uint64_t)use << 56 | number;
}

/* 64 random bits, number `index` of stream (seed, stream): that of a key mixed from both. */
uint64_t base_random_u64(uint64_t seed, uint64_t stream, uint64_t index);

/* Uniform in [0, 1), 53 bits. */
double base_random_unit(uint64_t seed, uint64_t stream, uint64_t index);

/* 0 .. n-1, n >= 1, without bias worth noticing (multiply-shift over 64 bits). */
uint64_t base_random_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n);

#endif
