/* The AVX-512 VNNI level: AVX2's, but for products of bytes and what training does
 * most of. */
#include "kernels/x86/avx512vnni.h"

#define KERN_LEVEL "avx512vnni"
#define Q8(type)   kern_avx512vnni_matmul_##type##_q8
#define WIDE(name) kern_avx512vnni_##name

const kern_table kern_avx512vnni =
#include "kernels/x86/table.h"
    ;
