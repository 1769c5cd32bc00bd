/* Products of bytes with AVX2: in 16 bits, then widened. */
#include "kernels/x86/avx2.h"

#define MATMUL_Q8_NAME(type) kern_avx2_matmul_##type##_q8
#include "kernels/x86/matmul_q8.h"
