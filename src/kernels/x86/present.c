/* What the processor and the operating system offer. Built for the base instruction set. */
#include <cpuid.h>

#include "kernels/x86/avx512vnni.h"

/* Vector registers are usable only as far as the system saves them, which XCR0 says. */
enum {
    YMM = 6,         /* bits 1 and 2 */
    ZMM = YMM | 0xe0 /* and 5 to 7: what AVX-512 adds */
};

static bool system_saves(uint32_t registers)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & registers) == registers;
}

bool kern_avx2_present(void)
{
    uint32_t a, b, c, d;
    uint32_t needed = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & needed) != needed || !system_saves(YMM)) {
        return false;
    }
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}

bool kern_avx512vnni_present(void)
{
    uint32_t a, b, c, d;
    if (!kern_avx2_present() || !system_saves(ZMM)) {
        return false;
    }
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX512F) && (b & bit_AVX512VL) &&
           (c & bit_AVX512VNNI);
}
