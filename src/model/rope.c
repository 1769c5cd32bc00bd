#include "model/rope.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

double model_rope_yarn_attention(double factor)
{
    return factor <= 1 ? 1 : 0.1 * log(factor) + 1;
}

double model_rope_magnitude(const model_rope *rope)
{
    if (rope->scaling != MODEL_ROPE_YARN)
        return 1;
    return rope->attention_factor > 0 ? rope->attention_factor
                                      : model_rope_yarn_attention(rope->factor);
}

/* Of pair i, in radians per position, before scaling. */
static double frequency(double theta, int64_t i, int64_t half)
{
    return 1 / pow(theta, (double)i / (double)half);
}

/* The pair at which `rotations` whole turns fit the original context (YaRN, arXiv 2309.00071,
 * section 3.2). */
static double correction_dim(double rotations, double dim, const model_rope *rope)
{
    return dim * log(rope->original_context / (rotations * 2 * pi)) / (2 * log(rope->theta));
}

/* Pairs that turn often keep their frequency, slow ones are interpolated, a ramp lies between. */
static double yarn(double freq, int64_t i, int64_t half, const model_rope *rope)
{
    double dim = 2 * (double)half;
    double low = floor(correction_dim(rope->beta_fast, dim, rope));
    double high = ceil(correction_dim(rope->beta_slow, dim, rope));
    low = low > 0 ? low : 0;
    high = high < dim - 1 ? high : dim - 1;
    if (low == high)
        high += 0.001;
    double ramp = ((double)i - low) / (high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    return freq / rope->factor * ramp + freq * (1 - ramp);
}

/* What Llama 3.1 divides a frequency by, from its wavelength in units of the original context. */
static double llama3_factor(double freq, const model_rope *rope)
{
    double wavelength = 2 * pi / freq;
    if (wavelength < rope->original_context / rope->high_freq_factor)
        return 1;
    if (wavelength > rope->original_context / rope->low_freq_factor)
        return rope->factor;
    double smooth = (rope->original_context / wavelength - rope->low_freq_factor) /
                    (rope->high_freq_factor - rope->low_freq_factor);
    return 1 / ((1 - smooth) / rope->factor + smooth);
}

void model_rope_llama3_factors(const model_rope *rope, int32_t head_dim, float *out)
{
    int64_t half = head_dim / 2;
    for (int64_t i = 0; i < half; i++)
        out[i] = (float)llama3_factor(frequency(rope->theta, i, half), rope);
}

void model_rope_frequencies(const model_config *config, float *inv_freq, float *magnitude)
{
    const model_rope *rope = &config->rope;
    int64_t half = config->head_dim / 2;
    *magnitude = (float)model_rope_magnitude(rope);
    for (int64_t i = 0; i < half; i++) {
        double freq = frequency(rope->theta, i, half);
        if (rope->scaling == MODEL_ROPE_LINEAR)
            freq /= rope->factor;
        else if (rope->scaling == MODEL_ROPE_YARN)
            freq = yarn(freq, i, half, rope);
        else if (rope->scaling == MODEL_ROPE_LLAMA3)
            freq /= llama3_factor(freq, rope);
        inv_freq[i] = (float)freq;
    }
}

void model_rope_angles(const float *inv_freq, int64_t half, float magnitude, int64_t position,
                       float *cosine, float *sine)
{
    for (int64_t i = 0; i < half; i++) {
        /* The product is rounded to F32 first, as the models were trained with. */
        float angle = (float)position * inv_freq[i];
        cosine[i] = (float)cos((double)angle) * magnitude;
        sine[i] = (float)sin((double)angle) * magnitude;
    }
}
