/* Inside the data room: the order of an epoch, without a list of it. */
#ifndef DATA_ORDER_H
#define DATA_ORDER_H

#include <stdint.h>

/* Where position i of 0 .. n - 1 goes: a permutation drawn by key, every i found on its own. It is
 * a Feistel network over the next power of four, walked until it comes out below n (Black and
 * Rogaway, "Ciphers with arbitrary finite domains", 2002). 1 <= n < 2^62. */
uint64_t data_order(uint64_t key, uint64_t n, uint64_t i);

#endif
