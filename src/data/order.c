#include "data/order.h"

#include "base/random.h"

enum { ROUNDS = 6 };

uint64_t data_order(uint64_t key, uint64_t n, uint64_t i)
{
    unsigned half = 1; /* bits of each side */
    while (half < 31 && (n - 1) >> (2 * half))
        half++;
    const uint64_t mask = ((uint64_t)1 << half) - 1;
    /* A step of the cycle that i is on; cycles come back to i, so one below n is met. Less than
     * four steps on average. */
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 1; round <= ROUNDS; round++) {
            uint64_t mixed =
                base_random_mix(base_random_mix(key + round * BASE_RANDOM_STEP) ^ right);
            uint64_t next = left ^ (mixed & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
