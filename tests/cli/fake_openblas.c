/* What an OpenBLAS built with OpenMP says of itself; it multiplies nothing. The number of its
 * threads is that of its OpenMP library, which a thread can change for itself alone. */
#include <stdlib.h>

#define PUBLIC __attribute__((visibility("default")))

PUBLIC void cblas_sgemm(void);
PUBLIC void openblas_set_num_threads(int n);
PUBLIC int openblas_get_parallel(void);
PUBLIC const char *openblas_get_corename(void);
PUBLIC const char *openblas_get_config(void);
PUBLIC int omp_get_max_threads(void);

void cblas_sgemm(void)
{
    abort();
}

void openblas_set_num_threads(int n)
{
    (void)n;
}

int openblas_get_parallel(void)
{
    return 2;
}

const char *openblas_get_corename(void)
{
    return "Fake";
}

const char *openblas_get_config(void)
{
    return "OpenBLAS 0.0.0 USE_OPENMP";
}

int omp_get_max_threads(void)
{
    const char *text = getenv("OMP_NUM_THREADS");
    return text ? atoi(text) : 8;
}
