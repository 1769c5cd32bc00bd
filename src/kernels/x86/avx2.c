/* The AVX2 level. */
#include "kernels/x86/avx2.h"

#define KERN_LEVEL "avx2"
#define Q8(type)   kern_avx2_matmul_##type##_q8
#define WIDE(name) kern_avx2_##name

const kern_table kern_avx2 =
#include "kernels/x86/table.h"
    ;
