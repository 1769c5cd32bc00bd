/* A sparse half of one layer with weights and rows that are a formula, for the tests of it.
 * Problems end the test. */
#ifndef EXPERTS_FIXTURE_H
#define EXPERTS_FIXTURE_H

#include "train/experts.h"

typedef struct experts_shape {
    int32_t embd, width, experts, used;
    int64_t n;           /* tokens */
    bool as_they_are;    /* weights are not renormalised */
    double router;       /* size of the router's weights; 0: 1 */
    tensor_type type;    /* of the weights; 0: F32 */
    const char *freeze;  /* pattern; NULL: nothing */
    int64_t first_token; /* number of the first token among all processes' */
    train_comm *comm;    /* NULL: alone */
    int threads;         /* 0: 1 */
    const char *level;   /* of the kernels; NULL: the best */
} experts_shape;

typedef struct experts_fixture {
    experts_shape shape;
    train_comm alone;
    train_blas *blas;
    base_pool *pool;
    train_params *params;
    train_context ctx;
    train_tokens tokens;
    void *memory;
    size_t memory_bytes;
    train_routing routing;
    train_routing_pass pass;
    train_experts_grown grown;
    train_experts_saved saved;
    train_experts_work *work;
    train_routing_stats stats;
    int32_t layer;      /* 0 or 1: of two that differ in their weights */
    float *x, *out, *d; /* [n, embd]; d is refilled before each backward pass */
} experts_fixture;

/* Layer 0, no balancing, no masks, training. */
void experts_open(experts_fixture *f, const experts_shape *shape);
void experts_close(experts_fixture *f);

void experts_forward(experts_fixture *f);
/* The same, saying how it went; for other threads than the test's. */
marco_status experts_try_forward(experts_fixture *f, bool again, marco_error *error);
marco_status experts_try_back(experts_fixture *f, marco_error *error);
/* With experts_gradient_of_out; gradients of parameters are zeros before. */
void experts_back(experts_fixture *f);
void experts_gradient_of_out(const experts_fixture *f, float *d);

/* Numbers of a parameter, all matrices held here. */
int64_t experts_size(const experts_fixture *f, model_role role);
void experts_values(const experts_fixture *f, model_role role, double *out);
const float *experts_gradient(const experts_fixture *f, model_role role); /* NULL: frozen */

/* A hash of the outputs, of d and of all gradients. */
uint64_t experts_hash(const experts_fixture *f);

#endif
