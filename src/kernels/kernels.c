/* Which table for this processor. */
#include "kernels/kernels.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/portable.h"
#include "marco/marco.h"
#ifdef KERNELS_X86
#include "kernels/x86/avx512vnni.h"
#endif

const kern_table *kern_table_at(int i)
{
    if (i == 0) {
        return &kern_portable;
    }
#ifdef KERNELS_X86
    if (i == 1 && kern_avx2_present()) {
        return &kern_avx2;
    }
    if (i == 2 && kern_avx512vnni_present()) {
        return &kern_avx512vnni;
    }
#endif
    return NULL;
}

const kern_table *kern_table_get(const char *level)
{
    if (!level) {
        level = getenv("MARCO_CPU");
        level = level && *level ? level : NULL;
    }
    const kern_table *best = NULL;
    const kern_table *table;
    for (int i = 0; (table = kern_table_at(i)) != NULL; i++) {
        best = table;
        if (level && strcmp(level, table->level) == 0) {
            return table;
        }
    }
    return level ? NULL : best;
}

const char *marco_cpu_level(void)
{
    const kern_table *table = kern_table_get(NULL);
    return table ? table->level : "unsupported";
}
