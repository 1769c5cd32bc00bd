/* The AVX-512 VNNI level, with VL: everything of the AVX2 level, and products of bytes in one
 * instruction. */
#ifndef KERNELS_X86_AVX512VNNI_H
#define KERNELS_X86_AVX512VNNI_H

#include "kernels/x86/avx2.h"

extern const kern_table kern_avx512vnni;
extern const kern_roof kern_avx512vnni_roof;

bool kern_avx512vnni_present(void);

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
