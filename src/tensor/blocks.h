/* The block formats as they lie in memory. All members are bytes, so a block may start at any
 * address; F16 members are two bytes, little-endian. Only this room and kernels include this. */
#ifndef TENSOR_BLOCKS_H
#define TENSOR_BLOCKS_H

#include <stdint.h>

/* Blocks of 32. Of a byte of q in the 4- and 5-bit formats, the low half is element i, the high
 * half element i + 16. Bit i of h is the fifth bit of element i. */

typedef struct tensor_q8_0 {
    uint8_t d[2];
    int8_t q[32];
} tensor_q8_0; /* d * q */

typedef struct tensor_q4_0 {
    uint8_t d[2];
    uint8_t q[16];
} tensor_q4_0; /* d * (q - 8) */

typedef struct tensor_q4_1 {
    uint8_t d[2];
    uint8_t m[2];
    uint8_t q[16];
} tensor_q4_1; /* d * q + m */

typedef struct tensor_q5_0 {
    uint8_t d[2];
    uint8_t h[4];
    uint8_t q[16];
} tensor_q5_0; /* d * (q - 16) */

typedef struct tensor_q5_1 {
    uint8_t d[2];
    uint8_t m[2];
    uint8_t h[4];
    uint8_t q[16];
} tensor_q5_1; /* d * q + m */

typedef struct tensor_iq4_nl {
    uint8_t d[2];
    uint8_t q[16];
} tensor_iq4_nl; /* d * tensor_iq4_values[q] */

/* Blocks of 256. The order of bits is told where they are read, in each type's file. */

typedef struct tensor_q2_k {
    uint8_t scales[16];
    uint8_t q[64];
    uint8_t d[2];
    uint8_t dmin[2];
} tensor_q2_k;

typedef struct tensor_q3_k {
    uint8_t high[32];
    uint8_t q[64];
    uint8_t scales[12];
    uint8_t d[2];
} tensor_q3_k;

typedef struct tensor_q4_k {
    uint8_t d[2];
    uint8_t dmin[2];
    uint8_t scales[12];
    uint8_t q[128];
} tensor_q4_k;

typedef struct tensor_q5_k {
    uint8_t d[2];
    uint8_t dmin[2];
    uint8_t scales[12];
    uint8_t high[32];
    uint8_t q[128];
} tensor_q5_k;

typedef struct tensor_q6_k {
    uint8_t low[128];
    uint8_t high[64];
    int8_t scales[16];
    uint8_t d[2];
} tensor_q6_k;

typedef struct tensor_iq4_xs {
    uint8_t d[2];
    uint8_t scales_high[2];
    uint8_t scales_low[4];
    uint8_t q[128];
} tensor_iq4_xs;

/* The 16 levels of IQ4_NL and IQ4_XS. */
extern const int8_t tensor_iq4_values[16];

#endif
