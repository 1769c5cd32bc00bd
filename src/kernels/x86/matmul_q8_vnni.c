/* Products of bytes with AVX-512 VNNI, in registers of 256 bits: the panels are eight rows wide. */
#include "kernels/x86/avx512vnni.h"

#define MATMUL_Q8_NAME(type) kern_avx512vnni_matmul_##type##_q8
#include "kernels/x86/matmul_q8.h"
