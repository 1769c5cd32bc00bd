/* What the processor and the operating system offer. Built for the base instruction set. */
#include <cpuid.h>

#include "kernels/x86/avx2.h"

/* The upper halves of the vector registers are usable only if the system saves them: bits 1 and 2
 * of XCR0. */
static bool system_saves_ymm(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & 6) == 6;
}

bool kern_avx2_present(void)
{
    uint32_t a, b, c, d;
    uint32_t needed = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & needed) != needed || !system_saves_ymm()) {
        return false;
    }
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}
