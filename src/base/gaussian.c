#include "base/gaussian.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"

/* 16 random bits make a deviate: a sign and one of 2^15 equally likely magnitudes. */
enum { MAGNITUDES = 1 << 15 };

struct base_gaussian {
    float magnitude[MAGNITUDES];
};

/* The x right of `from` beyond which a standard normal deviate lies with probability q. The tail's
 * probability is convex there, so Newton's steps approach x from the left and never pass it. */
static double tail_quantile(double q, double from)
{
    const double inverse_sqrt_2pi = 0.39894228040143267794;
    double x = from;
    for (int i = 0; i < 64; i++) {
        double excess = 0.5 * erfc(x * M_SQRT1_2) - q;
        double step = excess / (inverse_sqrt_2pi * exp(-0.5 * x * x));
        x += step;
        if (fabs(step) < 1e-14)
            break;
    }
    return x;
}

marco_status base_gaussian_create(base_gaussian **out, marco_error *error)
{
    double *exact = base_alloc_array(MAGNITUDES, sizeof(*exact));
    base_gaussian *gaussian = base_alloc_aligned(sizeof(*gaussian));
    if (!exact || !gaussian) {
        base_free(exact);
        base_free(gaussian);
        return base_fail_memory(error, sizeof(*gaussian), "normal quantiles");
    }
    double x = 0;
    double squares = 0;
    for (int i = 0; i < MAGNITUDES; i++) {
        /* The middle of bin i of the half-normal distribution. */
        x = tail_quantile((MAGNITUDES - i - 0.5) / (2 * MAGNITUDES), x);
        exact[i] = x;
        squares += x * x;
    }
    /* Midpoints lack a little of the bins' variance, most of it in the outermost. */
    double unit = sqrt(MAGNITUDES / squares);
    for (int i = 0; i < MAGNITUDES; i++)
        gaussian->magnitude[i] = (float)(exact[i] * unit);
    base_free(exact);
    *out = gaussian;
    return MARCO_OK;
}

void base_gaussian_free(base_gaussian *gaussian)
{
    base_free(gaussian);
}

/* The deviate that the lowest 16 bits stand for. */
static inline float deviate(const float *magnitude, uint64_t bits)
{
    float value = magnitude[bits & (MAGNITUDES - 1)];
    uint32_t word;
    memcpy(&word, &value, sizeof(word));
    word |= (uint32_t)(bits & MAGNITUDES) << 16;
    memcpy(&value, &word, sizeof(value));
    return value;
}

void base_gaussian_fill(const base_gaussian *gaussian, uint64_t seed, uint64_t stream,
                        uint64_t item, float mean, float deviation, float *dst, int64_t n)
{
    const float *magnitude = gaussian->magnitude;
    uint64_t state = base_random_u64(seed, stream, item);
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        state += BASE_RANDOM_STEP;
        uint64_t bits = base_random_mix(state);
        dst[i] = mean + deviation * deviate(magnitude, bits);
        dst[i + 1] = mean + deviation * deviate(magnitude, bits >> 16);
        dst[i + 2] = mean + deviation * deviate(magnitude, bits >> 32);
        dst[i + 3] = mean + deviation * deviate(magnitude, bits >> 48);
    }
    uint64_t bits = base_random_mix(state + BASE_RANDOM_STEP);
    for (; i < n; i++, bits >>= 16)
        dst[i] = mean + deviation * deviate(magnitude, bits);
}
