/* Rotary position embedding (arXiv 2104.09864): the angles of a configuration. */
#ifndef MODEL_ROPE_H
#define MODEL_ROPE_H

#include "model/config.h"

/* Attention factor that YaRN takes from the scaling factor (arXiv 2309.00071, equation 22). */
double model_rope_yarn_attention(double factor);

/* What multiplies cosines and sines: YaRN's attention factor, given or derived; 1 otherwise. */
double model_rope_magnitude(const model_rope *rope);

/* The factors of llama.cpp's rope_freqs.weight for MODEL_ROPE_LLAMA3, [head_dim / 2]: what each
 * frequency is divided by. */
void model_rope_llama3_factors(const model_rope *rope, int32_t head_dim, float *out);

/* inv_freq [head_dim / 2] in radians per position, scaling included; *magnitude as above. */
void model_rope_frequencies(const model_config *config, float *inv_freq, float *magnitude);

/* cos, sin [head_dim / 2] of one position. */
void model_rope_angles(const float *inv_freq, int64_t half, float magnitude, int64_t position,
                       float *cosine, float *sine);

#endif
