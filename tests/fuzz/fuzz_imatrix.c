/* Any bytes as an importance matrix: what is read can be written and read again, the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "format/imatrix.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const imatrix *m, const char *path)
{
    imatrix again;
    if (imatrix_write(path, true, m, NULL))
        return; /* names that are too long with their ending, or no disk */
    if (imatrix_read(path, &again, NULL) || again.n != m->n)
        abort();
    for (size_t i = 0; i < m->n; i++) {
        const imatrix_entry *entry = imatrix_find(&again, m->entries[i].name);
        if (!entry || entry->n_values != m->entries[i].n_values)
            abort();
        if (entry->n_mats == m->entries[i].n_mats &&
            memcmp(entry->counts, m->entries[i].counts, (size_t)entry->n_mats * sizeof(float)) != 0)
            abort();
    }
    imatrix_clear(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64], copy[64];
    imatrix m;
    int fd = memfd_create("imatrix", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    snprintf(copy, sizeof copy, "/dev/shm/fuzz-imatrix-%d.gguf", (int)getpid());
    if (imatrix_read(path, &m, NULL) == MARCO_OK) {
        float total = 0; /* keeps the reads from being left out */
        for (size_t i = 0; i < m.n; i++) {
            imatrix_entry *entry = &m.entries[i];
            float *means = base_alloc_array((size_t)entry->n_values, sizeof *means);
            imatrix_means(entry, means);
            for (int64_t k = 0; k < entry->n_values; k++)
                total += means[k];
            base_free(means);
        }
        check_again(&m, total >= 0 ? copy : path);
        unlink(copy);
        imatrix_clear(&m);
    }
    close(fd);
    return 0;
}
