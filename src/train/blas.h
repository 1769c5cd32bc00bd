/* Dense products in F32, by OpenBLAS on one thread at a time: the threads are our own.
 *
 * OpenBLAS is loaded when training begins, so that nothing else needs it or waits for it. */
#ifndef TRAIN_BLAS_H
#define TRAIN_BLAS_H

#include <stdint.h>

#include "marco/marco.h"

typedef struct train_blas train_blas;

struct train_blas {
    void *library;
    char name[128]; /* for people: "OpenBLAS 0.3.21, SkylakeX kernels" */
    void (*sgemm)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                  const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);
};

/* For so many threads of ours. MARCO_ERROR_NOT_FOUND, saying how to get it, where there is no
 * OpenBLAS; MARCO_ERROR_MEMORY where there is no address space for the buffers that it takes for
 * each thread: it would ask for them again and again. One built with OpenMP
 * heeds openblas_set_num_threads in the calling thread alone; in others OMP_NUM_THREADS counts,
 * which marco_train_prepare sets to 1 unless it is set. MARCO_ERROR_UNSUPPORTED where it multiplies
 * on several threads all the same. */
marco_status train_blas_open(int threads, train_blas **out, marco_error *error);
void train_blas_close(train_blas *blas); /* NULL is allowed */

/* C [m, n] = alpha * op(A) [m, k] op(B) [k, n] + beta * C, all row-major with the given distances
 * between rows; op transposes where asked: A is then stored [k, m], B [n, k]. beta 0 does not read
 * C. Sizes below 2^31. The same shapes and numbers give the same bits. Thread-safe. */
static inline void train_gemm(const train_blas *blas, bool transpose_a, bool transpose_b, int64_t m,
                              int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                              const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    enum { ROW_MAJOR = 101, AS_IT_IS = 111, TRANSPOSED = 112 };
    if (m == 0 || n == 0)
        return;
    blas->sgemm(ROW_MAJOR, transpose_a ? TRANSPOSED : AS_IT_IS, transpose_b ? TRANSPOSED : AS_IT_IS,
                (int)m, (int)n, (int)k, alpha, a, (int)lda, b, (int)ldb, beta, c, (int)ldc);
}

#endif
