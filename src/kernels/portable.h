/* The portable reference: plain C, one file per operation. Where a sum may be taken in more than
 * one order, the order here is the definition that the other levels are tested against within the
 * rounding error of a sum. */
#ifndef KERNELS_PORTABLE_H
#define KERNELS_PORTABLE_H

#include "kernels/kernels.h"

extern const kern_table kern_portable;

void kern_portable_quantize_q8(const float *x, kern_q8 *q, int64_t n);
void kern_portable_rmsnorm(const float *x, const float *weight, float *out, int64_t n, float eps);
void kern_portable_rope(float *x, const float *cos, const float *sin, int64_t n);
void kern_portable_softmax(float *x, int64_t n);
void kern_portable_swiglu(float *gate, const float *up, int64_t n);
void kern_portable_axpy(float a, const float *x, float *out, int64_t n);
void kern_portable_f32_to_f16(const float *x, uint16_t *out, int64_t n);
void kern_portable_rmsnorm_back(const float *x, const float *weight, const float *dy, float *dx,
                                float *dweight, int64_t n, float eps);
void kern_portable_swiglu_back(float *gate, float *up, const float *dh, float *h, int64_t n);
void kern_portable_exp_scaled(float *x, int64_t n, float scale, float shift);
float kern_portable_max(const float *x, int64_t n);
float kern_portable_logsumexp(const float *x, int64_t n);
double kern_portable_sum(const float *x, int64_t n);
double kern_portable_dot_wide(const float *x, const float *y, int64_t n);
void kern_portable_adamw(float *w, float *m, float *v, const float *g, int64_t n,
                         const kern_adamw *p);
void kern_portable_attend_f32(const kern_attend *a, const void *keys, const void *values,
                              const void *next, int64_t first);
void kern_portable_attend_f16(const kern_attend *a, const void *keys, const void *values,
                              const void *next, int64_t first);
void kern_portable_attend_q8_0(const kern_attend *a, const void *keys, const void *values,
                               const void *next, int64_t first);

/* matmul.c: by tensor_type, as in kern_table. */
#define KERN_PORTABLE_MATMUL(type)                                                                 \
    void kern_portable_matmul_##type(const void *w, int64_t rows, int64_t cols, const void *x,     \
                                     int64_t n_x, float *out, int64_t out_stride, float *scratch)

/* Weights decoded, activations F32. */
KERN_PORTABLE_MATMUL(f32);
KERN_PORTABLE_MATMUL(f16);
KERN_PORTABLE_MATMUL(bf16);
KERN_PORTABLE_MATMUL(q8_0);
KERN_PORTABLE_MATMUL(q4_0);
KERN_PORTABLE_MATMUL(q4_1);
KERN_PORTABLE_MATMUL(q5_0);
KERN_PORTABLE_MATMUL(q5_1);
KERN_PORTABLE_MATMUL(q2_k);
KERN_PORTABLE_MATMUL(q3_k);
KERN_PORTABLE_MATMUL(q4_k);
KERN_PORTABLE_MATMUL(q5_k);
KERN_PORTABLE_MATMUL(q6_k);
KERN_PORTABLE_MATMUL(iq4_nl);
KERN_PORTABLE_MATMUL(iq4_xs);

/* Activations in kern_q8. */
KERN_PORTABLE_MATMUL(q8_0_q8);
KERN_PORTABLE_MATMUL(q4_0_q8);
KERN_PORTABLE_MATMUL(q4_1_q8);
KERN_PORTABLE_MATMUL(q5_0_q8);
KERN_PORTABLE_MATMUL(q5_1_q8);
KERN_PORTABLE_MATMUL(iq4_nl_q8);
KERN_PORTABLE_MATMUL(q4_k_q8);
KERN_PORTABLE_MATMUL(q5_k_q8);
KERN_PORTABLE_MATMUL(q6_k_q8);
KERN_PORTABLE_MATMUL(iq4_xs_q8);

/* sum of a[i] * b[i]: eight partial sums, element i in sum i % 8, added up pairwise. */
static inline float kern_portable_dot(const float *a, const float *b, int64_t n)
{
    float lane[8] = {0};
    int64_t whole = n - n % 8;
    for (int64_t i = 0; i < whole; i += 8) {
        for (int64_t j = 0; j < 8; j++) {
            lane[j] += a[i + j] * b[i + j];
        }
    }
    for (int64_t i = whole; i < n; i++) {
        lane[i - whole] += a[i] * b[i];
    }
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

#endif
