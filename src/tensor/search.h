/* How the encoders look for scales: the numbers of a group are turned into levels with several
 * trial scales, each set of levels is answered by its own least-squares scale, and what leaves the
 * smallest squared error, weighted by importance, is kept.
 *
 * Everything is summed in four fixed lanes, so the bytes do not depend on compiler or processor. */
#ifndef TENSOR_SEARCH_H
#define TENSOR_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SEARCH_GROUP = 32 }; /* numbers in the largest group */

typedef float search_lanes __attribute__((vector_size(16)));

/* A group of 16 or 32 numbers and their weights. */
typedef struct search_group {
    search_lanes x[SEARCH_GROUP / 4], w[SEARCH_GROUP / 4];
    int n; /* vectors in use: 4 or 8 */
} search_group;

/* size: 16 or 32. importance: [size], finite and not negative. Where it is NULL or zero throughout,
 * a number's weight is its magnitude plus the group's root mean square: measured on whole models,
 * this disturbs their output less than equal weights do. */
void search_load(search_group *g, const float *x, const float *importance, int size);

/* False where a number is not finite, or so large (2^30) that no F16 scale reaches it. */
bool search_finite(const float *x, int64_t n);

/* x ~ scale * level + min for levels 0 .. top; min <= 0 where `lower`. A constant group has scale
 * 0. */
void search_affine(const search_group *g, int top, bool lower, float *scale, float *min);

/* x ~ scale * level for levels -bottom .. bottom - 1; the scale has either sign. */
float search_symmetric(const search_group *g, int bottom);

/* x ~ scale * tensor_iq4_values[...]; the scale has either sign. */
float search_iq4(const search_group *g);

/* The nearest levels for given scales, and the weighted squared error that they leave. levels may
 * be NULL. Symmetric levels are counted from 0, as they are stored; those of IQ4 are indices. A
 * scale of 0 gives the level that decodes to 0. */
float search_affine_levels(const search_group *g, int top, float scale, float min, uint8_t *levels);
float search_symmetric_levels(const search_group *g, int bottom, float scale, uint8_t *levels);
float search_iq4_levels(const search_group *g, float scale, uint8_t *levels);

/* The whole numbers below and above value / unit, within low .. high; where the unit is 0, or too
 * large for F16, those about 0. */
void search_neighbours(float value, float unit, int low, int high, int32_t out[2]);

/* Q4_K and Q5_K: eight groups of 32 whose scales and minima are 6-bit multiples of d and dmin. */
typedef struct search_k {
    float d, dmin; /* as F16 holds them */
    uint8_t scales[8], mins[8];
    uint8_t levels[256];
} search_k;

/* x, importance: [256]; see search_load. x as search_finite wants it. */
void search_k_block(const float *x, const float *importance, int top, search_k *out);

/* Puts all but the levels' fifth bits where the two formats have them; scales and q hold zeros. */
void search_k_store(const search_k *k, uint8_t d[2], uint8_t dmin[2], uint8_t scales[12],
                    uint8_t q[128]);

/* x: [256], finite; importance: [256] or NULL; block: zeros. */
typedef void (*search_encode_fn)(const float *x, const float *importance, void *block);

/* n numbers as blocks of 256, each of `size` bytes. A block that holds what is not finite, or is
 * far too large, gets ones in all bits, so that its scale and all that it decodes to is NaN. */
void search_blocks(const float *src, const float *importance, void *dst, int64_t n, size_t size,
                   search_encode_fn encode);

#endif
