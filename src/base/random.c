#include "base/random.h"

uint64_t base_random_u64(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t key =
        base_random_mix(seed + BASE_RANDOM_STEP) ^ base_random_mix(stream * BASE_RANDOM_STEP + 1);
    return base_random_mix(key + (index + 1) * BASE_RANDOM_STEP);
}

double base_random_unit(uint64_t seed, uint64_t stream, uint64_t index)
{
    return (double)(base_random_u64(seed, stream, index) >> 11) * 0x1p-53;
}

uint64_t base_random_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t n)
{
    return (uint64_t)((unsigned __int128)base_random_u64(seed, stream, index) * n >> 64);
}
