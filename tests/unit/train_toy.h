/* Parameters of no model, for tests of the optimiser: awkward sizes, decayed or not, frozen, and
 * experts, laid out as src/train/params.c does; gradients by formula; and AdamW in double, one
 * number after another. */
#ifndef TESTS_TRAIN_TOY_H
#define TESTS_TRAIN_TOY_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/optimizer.h"

enum { TOY_PARAMS = 6, TOY_MOST_RANKS = 4 };

/* Matrices of all experts; this process has some of them. */
static const struct toy_shape {
    int64_t rows, cols, mats;
    train_section section;
    train_state state;
    bool decayed;
} TOY_SHAPES[TOY_PARAMS] = {
    {37, 19, 1, TRAIN_SHARED, TRAIN_TRAINED, true},
    {1, 21, 1, TRAIN_SHARED, TRAIN_TRAINED, false},
    {10, 10, 1, TRAIN_SHARED, TRAIN_FROZEN, true},
    {300, 111, 1, TRAIN_SHARED, TRAIN_TRAINED, true},
    {13, 7, 4, TRAIN_OWN_EXPERTS, TRAIN_TRAINED, true},
    {90, 101, 4, TRAIN_OWN_EXPERTS, TRAIN_TRAINED, false},
};

typedef struct toy {
    train_params params;
    train_param items[TOY_PARAMS];
    train_context ctx;
} toy;

/* Elements over all processes. */
static inline int64_t toy_elements(int p)
{
    return TOY_SHAPES[p].rows * TOY_SHAPES[p].cols * TOY_SHAPES[p].mats;
}

/* A number in (-1, 1) for each seed, parameter and element. */
static inline double toy_number(uint64_t seed, int p, int64_t i)
{
    uint64_t x = seed * 0x9E3779B97F4A7C15u + (uint64_t)p * 0xD1B54A32D192ED03u + (uint64_t)i;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return (double)(x >> 11) / 0x1p52 - 1;
}

static inline int64_t toy_first(const toy *t, int p)
{
    return t->items[p].mat0 * TOY_SHAPES[p].rows * TOY_SHAPES[p].cols;
}

/* What an element is before the first step. */
static inline float toy_beginning(tensor_type type, int p, int64_t i)
{
    float x = (float)toy_number(0, p, i);
    return type == TENSOR_F32 ? x : tensor_bf16_to_f32(tensor_f32_to_bf16(x));
}

static inline float toy_value(const toy *t, int p, int64_t i)
{
    const train_param *param = &t->items[p];
    const void *value = t->params.sections[param->section].value;
    return t->params.type == TENSOR_F32
               ? ((const float *)value)[param->offset + i]
               : tensor_bf16_to_f32(((const uint16_t *)value)[param->offset + i]);
}

static inline void toy_set(toy *t, int p, int64_t i, float x)
{
    void *value = t->params.sections[t->items[p].section].value;
    if (t->params.type == TENSOR_F32)
        ((float *)value)[t->items[p].offset + i] = x;
    else
        ((uint16_t *)value)[t->items[p].offset + i] = tensor_f32_to_bf16(x);
}

static inline float *toy_grad(toy *t, int p)
{
    return t->params.sections[t->items[p].section].grad + t->items[p].offset;
}

static inline void toy_lay(toy *t, train_section s)
{
    train_values *values = &t->params.sections[s];
    for (train_state state = TRAIN_TRAINED; state <= TRAIN_FROZEN; state++) {
        for (int p = 0; p < TOY_PARAMS; p++)
            if (TOY_SHAPES[p].section == s && TOY_SHAPES[p].state == state) {
                t->items[p].offset = values->size;
                values->size += (train_param_size(&t->items[p]) + 15) / 16 * 16;
            }
        if (state == TRAIN_TRAINED) {
            int64_t grain = 64 * 12; /* for 1 to 4 processes */
            values->size = (values->size + grain - 1) / grain * grain;
            values->trained = values->graded = values->size;
        }
    }
    values->value = calloc((size_t)values->size, 4);
    values->grad = calloc((size_t)values->graded, sizeof(float));
}

static inline void toy_make(toy *t, train_comm *comm, base_pool *pool, tensor_type type)
{
    memset(t, 0, sizeof *t);
    t->params.type = type;
    t->params.items = t->items;
    t->params.n = TOY_PARAMS;
    for (int p = 0; p < TOY_PARAMS; p++) {
        const struct toy_shape *shape = &TOY_SHAPES[p];
        train_param *param = &t->items[p];
        *param = (train_param){.tensor = {.rows = shape->rows, .cols = shape->cols},
                               .mats = shape->mats,
                               .section = shape->section,
                               .state = shape->state,
                               .decayed = shape->decayed};
        if (shape->section == TRAIN_OWN_EXPERTS) {
            param->mats /= comm->size[TRAIN_EXPERTS];
            param->mat0 = param->mats * comm->rank[TRAIN_EXPERTS];
        }
    }
    toy_lay(t, TRAIN_SHARED);
    toy_lay(t, TRAIN_OWN_EXPERTS);
    for (int p = 0; p < TOY_PARAMS; p++)
        for (int64_t i = 0; i < train_param_size(&t->items[p]); i++)
            toy_set(t, p, i, toy_beginning(type, p, toy_first(t, p) + i));
    t->ctx = (train_context){
        .params = &t->params, .comm = comm, .pool = pool, .kern = kern_table_get(NULL)};
}

static inline void toy_free(toy *t)
{
    for (int s = 0; s < TRAIN_SECTION_END; s++) {
        free(t->params.sections[s].value);
        free(t->params.sections[s].grad);
    }
}

/* Adds a step's gradient of the elements that are held here, times its section's scale. */
static inline void toy_add_gradient(toy *t, uint64_t step, const double scale[TRAIN_SECTION_END])
{
    for (int p = 0; p < TOY_PARAMS; p++) {
        if (t->items[p].state != TRAIN_TRAINED)
            continue;
        float *grad = toy_grad(t, p);
        for (int64_t i = 0; i < train_param_size(&t->items[p]); i++)
            grad[i] +=
                (float)(scale[t->items[p].section] * toy_number(step, p, toy_first(t, p) + i));
    }
}

/* ---- in double ----------------------------------------------------------------------------- */

typedef struct plain {
    double *w[TOY_PARAMS], *m[TOY_PARAMS], *v[TOY_PARAMS];
    int64_t step;
} plain;

static inline void plain_make(plain *r, tensor_type type)
{
    r->step = 0;
    for (int p = 0; p < TOY_PARAMS; p++) {
        size_t n = (size_t)toy_elements(p);
        r->w[p] = calloc(n, sizeof(double));
        r->m[p] = calloc(n, sizeof(double));
        r->v[p] = calloc(n, sizeof(double));
        for (int64_t i = 0; i < toy_elements(p); i++)
            r->w[p][i] = toy_beginning(type, p, i);
    }
}

static inline void plain_free(plain *r)
{
    for (int p = 0; p < TOY_PARAMS; p++) {
        free(r->w[p]);
        free(r->m[p]);
        free(r->v[p]);
    }
}

/* Returns the norm before clipping. */
static inline double plain_step(plain *r, uint64_t step, double scale,
                                const train_optimizer_params *o, double lr)
{
    double sum = 0;
    for (int p = 0; p < TOY_PARAMS; p++)
        for (int64_t i = 0; TOY_SHAPES[p].state == TRAIN_TRAINED && i < toy_elements(p); i++)
            sum += pow(scale * toy_number(step, p, i), 2);
    double norm = sqrt(sum), clip = o->clip > 0 && norm > o->clip ? o->clip / norm : 1;
    r->step++;
    for (int p = 0; p < TOY_PARAMS; p++) {
        double decay = TOY_SHAPES[p].decayed ? o->weight_decay : 0;
        for (int64_t i = 0; TOY_SHAPES[p].state == TRAIN_TRAINED && i < toy_elements(p); i++) {
            double g = clip * scale * toy_number(step, p, i);
            double *w = &r->w[p][i], *m = &r->m[p][i], *v = &r->v[p][i];
            *m = o->beta1 * *m + (1 - o->beta1) * g;
            *v = o->beta2 * *v + (1 - o->beta2) * g * g;
            double mean = *m / (1 - pow(o->beta1, (double)r->step));
            double square = *v / (1 - pow(o->beta2, (double)r->step));
            *w -= lr * (mean / (sqrt(square) + o->eps) + decay * *w);
        }
    }
    return norm;
}

/* The largest difference of a value held here. */
static inline double toy_difference(const toy *t, const plain *r)
{
    double most = 0;
    for (int p = 0; p < TOY_PARAMS; p++)
        for (int64_t i = 0; i < train_param_size(&t->items[p]); i++) {
            double d = fabs(toy_value(t, p, i) - r->w[p][toy_first(t, p) + i]);
            most = d > most || isnan(d) ? d : most;
        }
    return most;
}

#endif
