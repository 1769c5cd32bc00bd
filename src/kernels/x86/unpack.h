/* One block of 32 columns of a panel (tensor/panel.h), made ready for products with bytes: eight
 * vectors of four columns each, a lane a row, and the rows' scales. */
#ifndef KERNELS_X86_UNPACK_H
#define KERNELS_X86_UNPACK_H

#include "kernels/x86/lanes.h"
#include "tensor/blocks.h"

/* What a type's block of 32 is: (d * (q - offset)) or (d * q + m), in halves of 16 with a scale
 * each or as a whole. */
typedef struct unpack_form {
    int bits;    /* q is unsigned and below 2^bits (4, 5, 6); 8: q is signed bytes */
    int offset;  /* taken from every q; 0 for signed ones */
    bool halves; /* d[0] is for columns 0 .. 15, d[1] for 16 .. 31; else d[0] for all */
    bool has_min;
} unpack_form;

typedef struct unpacked {
    __m256i q[8]; /* q[u]: columns 4u .. 4u + 3 of rows 0 .. 7 */
    __m256 d[2];
    __m256 m;
} unpacked;

/* Block b (of 32 columns) of the panel at p. */
typedef void (*unpack_fn)(const uint8_t *p, int64_t b, unpacked *u);

LANES_INLINE __m256i unpack_load(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

/* Eight F16 side by side. */
LANES_INLINE __m256 unpack_scales(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* Eight F16 in the low halves of the lanes. */
LANES_INLINE __m256 unpack_low_f16(__m256i v)
{
    v = _mm256_and_si256(v, _mm256_set1_epi32(0xffff));
    return _mm256_cvtph_ps(
        _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}

LANES_INLINE __m256 unpack_high_f16(__m256i v)
{
    return unpack_low_f16(_mm256_srli_epi32(v, 16));
}

LANES_INLINE __m256i unpack_low(__m256i v)
{
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

LANES_INLINE __m256i unpack_high(__m256i v)
{
    return unpack_low(_mm256_srli_epi16(v, 4));
}

/* Four vectors of nibbles: low halves are columns 0 .. 15, high halves 16 .. 31. */
LANES_INLINE void unpack_nibbles(const uint8_t *p, unpacked *u)
{
    for (int i = 0; i < 4; i++) {
        __m256i v = unpack_load(p + 32 * i);
        u->q[i] = unpack_low(v);
        u->q[4 + i] = unpack_high(v);
    }
}

/* Bit c of a lane is the fifth bit of column c. */
LANES_INLINE void unpack_fifth_bits(__m256i bits, unpacked *u)
{
    const __m256i first = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
    for (int i = 0; i < 8; i++) {
        /* To all four bytes of a lane goes that one of them which holds this vector's bits. */
        __m256i spread = _mm256_add_epi8(first, _mm256_set1_epi8((char)(i / 2)));
        const __m256i which = _mm256_set1_epi32(i % 2 ? (int)0x80402010u : 0x08040201);
        __m256i set = _mm256_and_si256(_mm256_shuffle_epi8(bits, spread), which);
        set = _mm256_cmpeq_epi8(set, which);
        u->q[i] = _mm256_or_si256(u->q[i], _mm256_and_si256(set, _mm256_set1_epi8(16)));
    }
}

LANES_INLINE void unpack_levels(unpacked *u)
{
    const __m256i levels = _mm256_broadcastsi128_si256(
        _mm_loadu_si128((const __m128i *)(const void *)tensor_iq4_values));
    for (int i = 0; i < 8; i++) {
        u->q[i] = _mm256_shuffle_epi8(levels, u->q[i]);
    }
}

/* Signed byte number `at` (0 .. 3) of every lane. */
LANES_INLINE __m256 unpack_signed_byte(__m256i v, int64_t at)
{
    v = _mm256_sll_epi32(v, _mm_cvtsi64_si128(24 - 8 * at));
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(v, 24));
}

/* ---- blocks of 32 -------------------------------------------------------------------------- */

LANES_INLINE void unpack_q8_0(const uint8_t *p, int64_t b, unpacked *u)
{
    p += b * 8 * (int64_t)sizeof(tensor_q8_0);
    for (int i = 0; i < 8; i++) {
        u->q[i] = unpack_load(p + 16 + 32 * i);
    }
    u->d[0] = unpack_scales(p);
}

LANES_INLINE void unpack_q4_0(const uint8_t *p, int64_t b, unpacked *u)
{
    p += b * 8 * (int64_t)sizeof(tensor_q4_0);
    unpack_nibbles(p + 16, u);
    u->d[0] = unpack_scales(p);
}

LANES_INLINE void unpack_q4_1(const uint8_t *p, int64_t b, unpacked *u)
{
    p += b * 8 * (int64_t)sizeof(tensor_q4_1);
    unpack_nibbles(p + 32, u);
    u->d[0] = unpack_low_f16(unpack_load(p));
    u->m = unpack_high_f16(unpack_load(p));
}

LANES_INLINE void unpack_q5_0(const uint8_t *p, int64_t b, unpacked *u)
{
    p += b * 8 * (int64_t)sizeof(tensor_q5_0);
    unpack_nibbles(p + 48, u);
    unpack_fifth_bits(unpack_load(p + 16), u);
    u->d[0] = unpack_scales(p);
}

LANES_INLINE void unpack_q5_1(const uint8_t *p, int64_t b, unpacked *u)
{
    p += b * 8 * (int64_t)sizeof(tensor_q5_1);
    unpack_nibbles(p + 64, u);
    unpack_fifth_bits(unpack_load(p + 32), u);
    u->d[0] = unpack_low_f16(unpack_load(p));
    u->m = unpack_high_f16(unpack_load(p));
}

LANES_INLINE void unpack_iq4_nl(const uint8_t *p, int64_t b, unpacked *u)
{
    p += b * 8 * (int64_t)sizeof(tensor_iq4_nl);
    unpack_nibbles(p + 16, u);
    unpack_levels(u);
    u->d[0] = unpack_scales(p);
}

/* ---- groups of 32 in blocks of 256 --------------------------------------------------------- */

/* The 6-bit scales and minima of Q4_K and Q5_K: `p` is at the vectors of d and dmin, then three of
 * scale bytes. Groups 0 .. 3 have theirs in the low six bits of the first and the second vector;
 * groups 4 .. 7 four bits each in the third, the upper two on top of the first and the second. */
LANES_INLINE void unpack_k_scales(const uint8_t *p, int64_t group, unpacked *u)
{
    __m256i scales = unpack_load(p + 32), mins = unpack_load(p + 64);
    if (group < 4) {
        scales = _mm256_and_si256(scales, _mm256_set1_epi8(63));
        mins = _mm256_and_si256(mins, _mm256_set1_epi8(63));
    } else {
        __m256i both = unpack_load(p + 96);
        const __m256i top = _mm256_set1_epi8(0x30);
        scales = _mm256_and_si256(_mm256_srli_epi16(scales, 2), top);
        scales = _mm256_or_si256(scales, unpack_low(both));
        mins = _mm256_and_si256(_mm256_srli_epi16(mins, 2), top);
        mins = _mm256_or_si256(mins, unpack_high(both));
    }
    __m128i shift = _mm_cvtsi64_si128(8 * (group & 3));
    const __m256i byte = _mm256_set1_epi32(255);
    scales = _mm256_and_si256(_mm256_srl_epi32(scales, shift), byte);
    mins = _mm256_and_si256(_mm256_srl_epi32(mins, shift), byte);
    __m256i d = unpack_load(p);
    u->d[0] = _mm256_mul_ps(unpack_low_f16(d), _mm256_cvtepi32_ps(scales));
    __m256 m = _mm256_mul_ps(unpack_high_f16(d), _mm256_cvtepi32_ps(mins));
    u->m = _mm256_xor_ps(m, _mm256_set1_ps(-0.0f)); /* it is taken away */
}

/* Groups 2j and 2j + 1 share eight vectors: low halves and high halves. */
LANES_INLINE void unpack_shared_nibbles(const uint8_t *p, int64_t group, unpacked *u)
{
    __m128i shift = _mm_cvtsi64_si128(4 * (group & 1));
    for (int i = 0; i < 8; i++) {
        u->q[i] = unpack_low(_mm256_srl_epi16(unpack_load(p + 32 * i), shift));
    }
}

LANES_INLINE void unpack_q4_k(const uint8_t *p, int64_t b, unpacked *u)
{
    int64_t group = b & 7;
    p += b / 8 * 8 * (int64_t)sizeof(tensor_q4_k);
    unpack_k_scales(p, group, u);
    unpack_shared_nibbles(p + 128 + group / 2 * 256, group, u);
}

LANES_INLINE void unpack_q5_k(const uint8_t *p, int64_t b, unpacked *u)
{
    int64_t group = b & 7;
    p += b / 8 * 8 * (int64_t)sizeof(tensor_q5_k);
    unpack_k_scales(p, group, u);
    unpack_shared_nibbles(p + 384 + group / 2 * 256, group, u);
    /* Bit `group` of byte c is the fifth bit of column c. */
    __m128i shift = _mm_cvtsi64_si128(group);
    for (int i = 0; i < 8; i++) {
        __m256i bit = _mm256_srl_epi16(unpack_load(p + 128 + 32 * i), shift);
        bit = _mm256_and_si256(bit, _mm256_set1_epi8(1));
        u->q[i] = _mm256_or_si256(u->q[i], _mm256_slli_epi16(bit, 4));
    }
}

/* A half of 128 columns is four groups. Their low bits: groups 0 and 1 in the low halves of eight
 * vectors each, 2 and 3 in the high ones; their upper two bits: in the same eight vectors, a pair
 * of bits each. */
LANES_INLINE void unpack_q6_k(const uint8_t *p, int64_t b, unpacked *u)
{
    int64_t group = b & 7, half = group / 4, run = group & 3;
    p += b / 8 * 8 * (int64_t)sizeof(tensor_q6_k);
    const uint8_t *low = p + (half * 16 + run % 2 * 8) * 32;
    const uint8_t *high = p + (32 + half * 8) * 32;
    __m128i low_shift = _mm_cvtsi64_si128(run / 2 * 4);
    __m128i high_shift = _mm_cvtsi64_si128(run * 2);
    for (int i = 0; i < 8; i++) {
        __m256i q = unpack_low(_mm256_srl_epi16(unpack_load(low + 32 * i), low_shift));
        __m256i top = _mm256_srl_epi16(unpack_load(high + 32 * i), high_shift);
        top = _mm256_and_si256(top, _mm256_set1_epi8(3));
        u->q[i] = _mm256_or_si256(q, _mm256_slli_epi16(top, 4));
    }
    __m256i scales = unpack_load(p + (48 + group / 2) * 32);
    __m256 d = unpack_scales(p + 52 * 32);
    u->d[0] = _mm256_mul_ps(d, unpack_signed_byte(scales, (group & 1) * 2));
    u->d[1] = _mm256_mul_ps(d, unpack_signed_byte(scales, (group & 1) * 2 + 1));
}

LANES_INLINE void unpack_iq4_xs(const uint8_t *p, int64_t b, unpacked *u)
{
    int64_t group = b & 7;
    p += b / 8 * 8 * (int64_t)sizeof(tensor_iq4_xs);
    unpack_nibbles(p + 64 + group * 128, u);
    unpack_levels(u);
    __m256i first = unpack_load(p); /* d, and above it two bits of each group's scale */
    __m256i low = _mm256_srl_epi32(unpack_load(p + 32), _mm_cvtsi64_si128(4 * group));
    low = _mm256_and_si256(low, _mm256_set1_epi32(15));
    __m256i high = _mm256_srl_epi32(first, _mm_cvtsi64_si128(16 + 2 * group));
    high = _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4);
    __m256i scale = _mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32));
    u->d[0] = _mm256_mul_ps(unpack_low_f16(first), _mm256_cvtepi32_ps(scale));
}

#endif
