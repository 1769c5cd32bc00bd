#include "train/blas.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/memory.h"
#include "marco/train.h"

/* OpenBLAS asks the environment when it is loaded. The versions in Debian 12 and Ubuntu 24.04 do
 * not know AMD's processors with AVX-512 and would use their kernels for AVX2, half as fast. */
void marco_train_prepare(void)
{
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    /* What a build of it with OpenMP asks, at its first use by each of our threads. */
    setenv("OMP_NUM_THREADS", "1", 0);
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_is("amd") && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd"))
        setenv("OPENBLAS_CORETYPE", "SKYLAKEX", 0);
#endif
}

/* ISO C has no cast from an object's address to a function's; POSIX has dlsym. */
static bool find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    *(void **)function = symbol;
    return symbol != NULL;
}

/* OpenBLAS takes a buffer for each thread that calls it, of at most this size, and does not give up
 * where there is none. */
enum { BUFFER_BYTES = 128 << 20 };

static bool has_room(int threads)
{
    size_t bytes = (size_t)threads * BUFFER_BYTES;
    void *probe = base_region_alloc(bytes);
    base_region_free(probe, bytes);
    return probe != NULL;
}

marco_status train_blas_open(int threads, train_blas **out, marco_error *error)
{
    static const char *const names[] = {"libopenblas.so.0", "libopenblas.so",
                                        "libopenblas.0.dylib"};
    *out = NULL;
    train_blas *blas = base_calloc(1, sizeof *blas);
    if (!blas)
        return base_fail_memory(error, sizeof *blas, "OpenBLAS");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && !blas->library; i++)
        blas->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    enum { WITH_OPENMP = 2 };
    void (*set_threads)(int) = NULL;
    int (*parallel)(void) = NULL, (*omp_threads)(void) = NULL;
    char *(*core_name)(void) = NULL, *(*config)(void) = NULL;
    if (!blas->library || !find(blas->library, "cblas_sgemm", &blas->sgemm) ||
        !find(blas->library, "openblas_set_num_threads", &set_threads) ||
        !find(blas->library, "openblas_get_parallel", &parallel) ||
        !find(blas->library, "openblas_get_corename", &core_name) ||
        !find(blas->library, "openblas_get_config", &config)) {
        train_blas_close(blas);
        return base_fail(
            error, MARCO_ERROR_NOT_FOUND,
            "training needs OpenBLAS, which was not found; install it (Debian, Ubuntu: "
            "apt install libopenblas0)");
    }
    /* Of the OpenMP library that it has brought along; what set_threads would change is what this
     * thread has, the others' stays. */
    int theirs =
        parallel() == WITH_OPENMP && find(blas->library, "omp_get_max_threads", &omp_threads)
            ? omp_threads()
            : 1;
    if (!has_room(threads)) {
        train_blas_close(blas);
        return base_fail(
            error, MARCO_ERROR_MEMORY,
            "no memory for OpenBLAS's buffers, %d MiB for each of %d threads; use fewer "
            "threads, or raise the limit (ulimit -v)",
            BUFFER_BYTES >> 20, threads);
    }
    set_threads(1);
    if (theirs != 1) {
        train_blas_close(blas);
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "this OpenBLAS was built with OpenMP and would multiply on %d threads in "
                         "each of training's; set OMP_NUM_THREADS=1, or install a build with "
                         "threads of its own (Debian, Ubuntu: apt install libopenblas0-pthread)",
                         theirs);
    }
    int version = 0; /* "OpenBLAS 0.3.21 NO_LAPACKE ..." */
    const char *text = config();
    sscanf(text, "%*s %*s%n", &version);
    snprintf(blas->name, sizeof blas->name, "%.*s, %s kernels", version, text, core_name());
    *out = blas;
    return MARCO_OK;
}

void train_blas_close(train_blas *blas)
{
    /* The library stays loaded: its threads may not have ended. */
    base_free(blas);
}
