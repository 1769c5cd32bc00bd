/* The AVX-512 VNNI level: AVX2's, but for products of bytes. */
#include "kernels/x86/avx512vnni.h"
#include "kernels/portable.h"

#define KERN_LEVEL "avx512vnni"
#define Q8(type)   kern_avx512vnni_matmul_##type##_q8

const kern_table kern_avx512vnni =
#include "kernels/x86/table.h"
    ;
