/* 16-bit floats, one number each way, inline for the loops of this room. No branches, so that the
 * compiler can make vectors of them. */
#ifndef TENSOR_HALF_H
#define TENSOR_HALF_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the block formats are read as little-endian memory"
#endif

static inline float half_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

static inline uint32_t half_to_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

/* The exponent field moves from bias 15 to 127 by one exact multiplication, which also normalises
 * subnormals; an all-ones exponent is restored afterwards. */
static inline float half_f16_decode(uint16_t h)
{
    uint32_t magnitude = h & 0x7fffu;
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t bits = half_to_bits(half_from_bits(magnitude << 13) * 0x1p112f);
    uint32_t special = magnitude >= 0x7c00u ? 0x7f800000u : 0;
    return half_from_bits(bits | special | sign);
}

/* Round to nearest even. Below 2^-14 the sum with 0.5 lines the result's unit, 2^-24, up with the
 * last bit of the sum, so the addition rounds. */
static inline uint16_t half_f16_encode(float f)
{
    uint32_t bits = half_to_bits(f);
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t small = half_to_bits(half_from_bits(magnitude) + 0.5f) - 0x3f000000u;
    uint32_t normal = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
    uint32_t nan = 0x7e00u | (magnitude >> 13 & 0x3ffu);
    uint32_t out = magnitude < 0x38800000u ? small : normal;
    out = magnitude >= 0x47800000u ? 0x7c00u : out;
    out = magnitude > 0x7f800000u ? nan : out;
    return (uint16_t)(out | sign);
}

static inline float half_bf16_decode(uint16_t h)
{
    return half_from_bits((uint32_t)h << 16);
}

static inline uint16_t half_bf16_encode(float f)
{
    uint32_t bits = half_to_bits(f);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    uint32_t nan = bits >> 16 | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

/* Scales within blocks: little-endian F16 at any address. */
static inline float half_load(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof(h));
    return half_f16_decode(h);
}

static inline void half_store(uint8_t *p, float f)
{
    uint16_t h = half_f16_encode(f);
    memcpy(p, &h, sizeof(h));
}

#endif
