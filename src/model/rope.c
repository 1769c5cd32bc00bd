#include "model/rope.h"

#include <math.h>

/* The pair at which `rotations` whole turns fit the original context (YaRN, arXiv 2309.00071,
 * section 3.2). */
static double correction_dim(double rotations, double dim, const model_rope *rope)
{
    const double pi = 3.14159265358979323846;
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

/* Llama 3.1: by wavelength, in units of the original context. */
static double llama3(double freq, const model_rope *rope)
{
    const double pi = 3.14159265358979323846;
    double wavelength = 2 * pi / freq;
    if (wavelength < rope->original_context / rope->high_freq_factor)
        return freq;
    if (wavelength > rope->original_context / rope->low_freq_factor)
        return freq / rope->factor;
    double smooth = (rope->original_context / wavelength - rope->low_freq_factor) /
                    (rope->high_freq_factor - rope->low_freq_factor);
    return (1 - smooth) * freq / rope->factor + smooth * freq;
}

void model_rope_frequencies(const model_config *config, float *inv_freq, float *magnitude)
{
    const model_rope *rope = &config->rope;
    int64_t half = config->head_dim / 2;
    *magnitude = 1;
    if (rope->scaling == MODEL_ROPE_YARN)
        *magnitude = (float)(rope->attention_factor > 0 ? rope->attention_factor
                             : rope->factor > 1         ? 0.1 * log(rope->factor) + 1
                                                        : 1);
    for (int64_t i = 0; i < half; i++) {
        double freq = 1 / pow(rope->theta, (double)i / (double)half);
        if (rope->scaling == MODEL_ROPE_LINEAR)
            freq /= rope->factor;
        else if (rope->scaling == MODEL_ROPE_YARN)
            freq = yarn(freq, i, half, rope);
        else if (rope->scaling == MODEL_ROPE_LLAMA3)
            freq = llama3(freq, rope);
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
