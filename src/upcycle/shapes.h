/* The named shapes of `marco synth`. */
#ifndef UPCYCLE_SHAPES_H
#define UPCYCLE_SHAPES_H

#include "model/config.h"

typedef struct upcycle_shape {
    const char *name;
    const char *description;
    model_arch arch;
    int32_t n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_vocab;
    int32_t ffn_dim;                               /* dense shapes */
    int32_t n_experts, n_experts_used, expert_dim; /* mixtures: every layer */
    bool tied;
    double rope_theta, rms_eps;
    int32_t n_ctx_train;
} upcycle_shape;

/* The i-th shape, NULL past the last. */
const upcycle_shape *upcycle_shape_at(size_t i);

/* NULL where there is none of that name. */
const upcycle_shape *upcycle_shape_find(const char *name);

#endif
