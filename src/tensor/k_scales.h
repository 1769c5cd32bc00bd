/* The twelve bytes of scales that Q4_K and Q5_K share: eight 6-bit scales, eight 6-bit minima. */
#ifndef TENSOR_K_SCALES_H
#define TENSOR_K_SCALES_H

#include <stdint.h>

/* Groups 0 .. 3 lie whole in bytes 0 .. 3 (scale) and 4 .. 7 (minimum). Groups 4 .. 7 have their
 * low four bits in bytes 8 .. 11, and borrow the upper two from the top of bytes 0 .. 7. */
static inline void k_scales_get(const uint8_t s[12], int g, uint8_t *scale, uint8_t *min)
{
    if (g < 4) {
        *scale = s[g] & 63;
        *min = s[g + 4] & 63;
    } else {
        *scale = (uint8_t)((s[g + 4] & 15) | (s[g - 4] >> 6) << 4);
        *min = (uint8_t)(s[g + 4] >> 4 | (s[g] >> 6) << 4);
    }
}

/* The other way. All twelve bytes are zero before the first group is put. */
static inline void k_scales_put(uint8_t s[12], int g, uint8_t scale, uint8_t min)
{
    if (g < 4) {
        s[g] = (uint8_t)(s[g] | scale);
        s[g + 4] = (uint8_t)(s[g + 4] | min);
    } else {
        s[g + 4] = (uint8_t)((scale & 15) | (min & 15) << 4);
        s[g - 4] = (uint8_t)(s[g - 4] | (scale >> 4) << 6);
        s[g] = (uint8_t)(s[g] | (min >> 4) << 6);
    }
}

#endif
