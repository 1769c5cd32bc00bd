/* What the kernel tests share: guarded memory, random numbers, failures, one line each. */
#ifndef TESTS_KERNELS_HARNESS_H
#define TESTS_KERNELS_HARNESS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/kernels.h"

#define EPS 0x1p-24 /* of F32, rounding to nearest */

/* Memory number `slot` (0 .. MEMORIES - 1), `bytes` long, ending at an unmapped page: reading or
 * writing past it is a SIGSEGV. The page before the memory holds the canary. */
enum { MEMORIES = 8 };
void *memory(int slot, size_t bytes);

/* The same, filled with the canary. */
float *output(int slot, size_t n);

/* True if the float is the canary's, bit by bit. */
bool is_canary(float f);

/* Reports it if bytes just before the memory are not the canary's. */
void check_before(int slot, const void *start);

/* Prints "FAIL level slot: ..." */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The next numbers of the seeded stream. */
uint64_t any_bits(void);
int64_t any_below(int64_t n);
double any_unit(void);  /* [0, 1) */
float any_normal(void); /* mean 0, deviation about 1 */
void fill_normal(float *x, int64_t n, float scale);

/* Weights: rows x cols, quants random, scales sane. */
void fill_weights(tensor_type type, void *w, int64_t rows, int64_t cols);

/* Sets every F16 scale (and minimum) of the weights. */
void set_scales(tensor_type type, void *w, int64_t rows, int64_t cols, float d, float m);

static inline bool same_bits(float a, float b)
{
    return memcmp(&a, &b, sizeof(a)) == 0;
}

/* check_matmul.c */
void check_matmul(const kern_matmul *slot, tensor_type type);

/* check_vector.c: every other slot, by its place in the table. */
typedef struct vector_check {
    const char *name;
    size_t offset;
    void (*check)(const kern_table *k);
} vector_check;
extern const vector_check vector_checks[];
extern const size_t n_vector_checks;

/* check_attend.c */
void check_attend_f32(const kern_table *k);
void check_attend_f16(const kern_table *k);
void check_attend_q8_0(const kern_table *k);

/* check_train.c */
void check_rmsnorm_back(const kern_table *k);
void check_swiglu_back(const kern_table *k);
void check_exp_scaled(const kern_table *k);
void check_max(const kern_table *k);
void check_logsumexp(const kern_table *k);
void check_sum(const kern_table *k);
void check_dot(const kern_table *k);
void check_adamw(const kern_table *k);

/* bench.c: times the slots whose name contains `filter`. */
void bench(const char *filter);

#endif
