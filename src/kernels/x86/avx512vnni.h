/* The AVX-512 VNNI level, with VL: everything of the AVX2 level, products of bytes in one
 * instruction, and wider vectors where training gains from them. */
#ifndef KERNELS_X86_AVX512VNNI_H
#define KERNELS_X86_AVX512VNNI_H

#include "kernels/x86/avx2.h"

extern const kern_table kern_avx512vnni;
extern const kern_roof kern_avx512vnni_roof;

bool kern_avx512vnni_present(void);

void kern_avx512vnni_swiglu_back(float *gate, float *up, const float *dh, float *h, int64_t n);
void kern_avx512vnni_exp_scaled(float *x, int64_t n, float scale, float shift);
float kern_avx512vnni_logsumexp(const float *x, int64_t n);
double kern_avx512vnni_dot(const float *x, const float *y, int64_t n);
void kern_avx512vnni_adamw(float *w, float *m, float *v, const float *g, int64_t n,
                           const kern_adamw *p);

/* Weights in panels, activations in kern_q8. */
KERN_X86_MATMUL(kern_avx512vnni_matmul_q8_0_q8);
KERN_X86_MATMUL(kern_avx512vnni_matmul_q4_0_q8);
KERN_X86_MATMUL(kern_avx512vnni_matmul_q4_1_q8);
KERN_X86_MATMUL(kern_avx512vnni_matmul_q5_0_q8);
KERN_X86_MATMUL(kern_avx512vnni_matmul_q5_1_q8);
KERN_X86_MATMUL(kern_avx512vnni_matmul_iq4_nl_q8);
KERN_X86_MATMUL(kern_avx512vnni_matmul_q4_k_q8);
KERN_X86_MATMUL(kern_avx512vnni_matmul_q5_k_q8);
KERN_X86_MATMUL(kern_avx512vnni_matmul_q6_k_q8);
KERN_X86_MATMUL(kern_avx512vnni_matmul_iq4_xs_q8);

#endif
