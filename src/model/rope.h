/* Rotary position embedding (arXiv 2104.09864): the angles of a configuration. */
#ifndef MODEL_ROPE_H
#define MODEL_ROPE_H

#include "model/config.h"

/* inv_freq [head_dim / 2] in radians per position, scaling included; *magnitude multiplies cosines
 * and sines (YaRN's attention factor; 1 otherwise). */
void model_rope_frequencies(const model_config *config, float *inv_freq, float *magnitude);

/* cos, sin [head_dim / 2] of one position. */
void model_rope_angles(const float *inv_freq, int64_t half, float magnitude, int64_t position,
                       float *cosine, float *sine);

#endif
