/* The AVX2 + FMA + F16C level. */
#ifndef KERNELS_X86_AVX2_H
#define KERNELS_X86_AVX2_H

#include <stdbool.h>

#include "kernels/kernels.h"
#include "kernels/roof.h"

extern const kern_table kern_avx2;
extern const kern_roof kern_avx2_roof;

/* Its loops, for the levels above. */
uint64_t kern_avx2_read_stream(const void *p, size_t bytes);
uint64_t kern_avx2_read_stream_ahead(const void *p, size_t bytes);
uint64_t kern_avx2_read_four(const void *p, size_t bytes);
uint64_t kern_avx2_read_four_ahead(const void *p, size_t bytes);
#define KERN_AVX2_READS                                                                            \
    {                                                                                              \
        kern_avx2_read_stream, kern_avx2_read_stream_ahead, kern_avx2_read_four,                   \
            kern_avx2_read_four_ahead                                                              \
    }

bool kern_avx2_present(void);

void kern_avx2_quantize_q8(const float *x, kern_q8 *q, int64_t n);
void kern_avx2_rmsnorm(const float *x, const float *weight, float *out, int64_t n, float eps);
void kern_avx2_rope(float *x, const float *cos, const float *sin, int64_t n);
void kern_avx2_softmax(float *x, int64_t n);
void kern_avx2_swiglu(float *gate, const float *up, int64_t n);
void kern_avx2_axpy(float a, const float *x, float *out, int64_t n);
void kern_avx2_f32_to_f16(const float *x, uint16_t *out, int64_t n);
void kern_avx2_rmsnorm_back(const float *x, const float *weight, const float *dy, float *dx,
                            float *dweight, int64_t n, float eps);
float kern_avx2_max(const float *x, int64_t n);
double kern_avx2_sum(const float *x, int64_t n);
void kern_avx2_swiglu_back(float *gate, float *up, const float *dh, float *h, int64_t n);
void kern_avx2_exp_scaled(float *x, int64_t n, float scale, float shift);
float kern_avx2_logsumexp(const float *x, int64_t n);
double kern_avx2_dot(const float *x, const float *y, int64_t n);
void kern_avx2_adamw(float *w, float *m, float *v, const float *g, int64_t n, const kern_adamw *p);
void kern_avx2_attend_f32(const kern_attend *a, const void *keys, const void *values,
                          const void *next, int64_t first);
void kern_avx2_attend_f16(const kern_attend *a, const void *keys, const void *values,
                          const void *next, int64_t first);
void kern_avx2_attend_q8_0(const kern_attend *a, const void *keys, const void *values,
                           const void *next, int64_t first);

#define KERN_X86_MATMUL(name)                                                                      \
    void name(const void *w, int64_t rows, int64_t cols, const void *x, int64_t n_x, float *out,   \
              int64_t out_stride, float *scratch)
#define KERN_AVX2_MATMUL(type) KERN_X86_MATMUL(kern_avx2_matmul_##type)

/* Weights decoded, activations F32. */
KERN_AVX2_MATMUL(f32);
KERN_AVX2_MATMUL(f16);
KERN_AVX2_MATMUL(bf16);
KERN_AVX2_MATMUL(q8_0);
KERN_AVX2_MATMUL(q4_0);
KERN_AVX2_MATMUL(q4_1);
KERN_AVX2_MATMUL(q5_0);
KERN_AVX2_MATMUL(q5_1);
KERN_AVX2_MATMUL(q2_k);
KERN_AVX2_MATMUL(q3_k);
KERN_AVX2_MATMUL(q4_k);
KERN_AVX2_MATMUL(q5_k);
KERN_AVX2_MATMUL(q6_k);
KERN_AVX2_MATMUL(iq4_nl);
KERN_AVX2_MATMUL(iq4_xs);

/* Weights in panels, activations in kern_q8. */
KERN_AVX2_MATMUL(q8_0_q8);
KERN_AVX2_MATMUL(q4_0_q8);
KERN_AVX2_MATMUL(q4_1_q8);
KERN_AVX2_MATMUL(q5_0_q8);
KERN_AVX2_MATMUL(q5_1_q8);
KERN_AVX2_MATMUL(iq4_nl_q8);
KERN_AVX2_MATMUL(q4_k_q8);
KERN_AVX2_MATMUL(q5_k_q8);
KERN_AVX2_MATMUL(q6_k_q8);
KERN_AVX2_MATMUL(iq4_xs_q8);

#endif
