/* The parent's dense FFN, a matrix at a time: decoded, scaled, and marked with what each expert
 * loses of it. The matrices in use stay in memory; the rest is read when it is needed. */
#ifndef UPCYCLE_SLICES_H
#define UPCYCLE_SLICES_H

#include "model/source.h"

/* What the surgery does, in numbers. Expert e is slice e % n_slices of the intermediate dimension;
 * expert_dim * n_slices is the parent's ffn_dim. */
typedef struct upcycle_plan {
    int32_t n_slices, n_experts, expert_dim;
    int64_t n_drop;     /* of each expert's expert_dim */
    bool drop_shared;   /* the same indices for gate, up and down */
    float scale_in;     /* factor of gate and up */
    float scale_down;   /* factor of down */
    int32_t router_run; /* neighbouring experts that share a router row */
    uint64_t seed;
} upcycle_plan;

/* One matrix of one layer. */
typedef struct upcycle_matrix {
    float *data;             /* gate, up: [ffn_dim, n_embd]; down: [n_embd, ffn_dim] */
    uint8_t *dropped;        /* [n_experts, expert_dim], 1: re-initialised; NULL: nothing is */
    float *mean, *deviation; /* [n_experts] of the dropped elements; NULL: nothing is dropped */
} upcycle_matrix;

/* The role of the dense matrix that an expert's is cut from. */
static inline model_role upcycle_dense_role(model_role role)
{
    return role == MODEL_EXPERT_GATE ? MODEL_FFN_GATE
           : role == MODEL_EXPERT_UP ? MODEL_FFN_UP
                                     : MODEL_FFN_DOWN;
}

typedef struct upcycle_slices upcycle_slices;

/* The parent must outlive the object. */
marco_status upcycle_slices_create(model_source *parent, const upcycle_plan *plan,
                                   upcycle_slices **out, marco_error *error);
void upcycle_slices_free(upcycle_slices *slices); /* NULL is allowed */

/* The dense matrix that experts of this role (MODEL_EXPERT_GATE, _UP, _DOWN) are cut from, until
 * upcycle_slices_release. Thread-safe: the first to ask prepares it, the others wait. A thread may
 * hold one at a time. */
marco_status upcycle_slices_acquire(upcycle_slices *slices, model_role role, int32_t layer,
                                    const upcycle_matrix **out, marco_error *error);
void upcycle_slices_release(upcycle_slices *slices, const upcycle_matrix *matrix);

#endif
