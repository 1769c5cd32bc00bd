/* Rates of every slot of every level, on one core. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "harness.h"
#include "tensor/panel.h"

enum { COLS = 1024, DRAM_BYTES = 256 << 20, CACHE_BYTES = 256 << 10, BATCH = 64, N = 4096 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct work {
    const kern_table *k;
    const kern_matmul *matmul;
    int slot; /* of vector_checks; -1: the matmul */
    int64_t rows, n_x;
    char *w;
    float *x, *y, *out, *scratch;
} work;

static void do_vector(const work *a)
{
    const kern_table *k = a->k;
    float max = -INFINITY, sum = 0;
    switch (a->slot) {
    case 0:
        k->quantize_q8(a->x, (kern_q8 *)(void *)a->out, N);
        break;
    case 1:
        k->rmsnorm(a->x, a->y, a->out, N, 1e-6f);
        break;
    case 2:
        k->rope(a->out, a->x, a->y, N);
        break;
    case 3:
        k->softmax(a->out, N);
        break;
    case 4:
        k->swiglu(a->out, a->y, N);
        break;
    case 5:
        k->axpy(1e-6f, a->x, a->out, N);
        break;
    case 6:
        k->f32_to_f16(a->x, (uint16_t *)(void *)a->out, N);
        break;
    case 7:
        k->f16_to_f32((const uint16_t *)(void *)a->x, a->out, N);
        break;
    default:
        k->attend(a->x, a->x, a->y, N / 128, 128, 128, &max, &sum, a->out, a->scratch);
    }
}

/* Seconds per call: the best of a few runs of 10 ms or more. */
static double time_of(const work *a)
{
    double best = INFINITY;
    for (int run = 0; run < 3; run++) {
        double start = now(), passed = 0;
        int calls = 0;
        while (passed < 0.01) {
            if (a->slot >= 0) {
                do_vector(a);
            } else {
                a->matmul->fn(a->w, a->rows, COLS, a->x, a->n_x, a->out, a->rows, a->scratch);
            }
            calls++;
            passed = now() - start;
        }
        best = fmin(best, passed / calls);
    }
    return best;
}

static void bench_matmul(work *a, const kern_matmul *slot, tensor_type type, const char *name)
{
    double row_bytes = (double)tensor_row_bytes(type, COLS);
    a->matmul = slot;
    a->slot = -1;
    a->n_x = 1;
    a->rows = (int64_t)(CACHE_BYTES / row_bytes) / TENSOR_PANEL_ROWS * TENSOR_PANEL_ROWS;
    double cache = row_bytes * (double)a->rows / time_of(a);
    a->n_x = BATCH;
    double batch = (double)(a->rows * COLS * BATCH) / time_of(a);
    a->n_x = 1;
    a->rows = (int64_t)(DRAM_BYTES / row_bytes) / TENSOR_PANEL_ROWS * TENSOR_PANEL_ROWS;
    double dram = row_bytes * (double)a->rows / time_of(a);
    printf("%-28s n_x 1: %6.1f GB/s cached, %6.1f GB/s from memory; n_x %d: %6.1f G products/s\n",
           name, cache * 1e-9, dram * 1e-9, BATCH, batch * 1e-9);
}

static void bench_level(work *a, const char *filter)
{
    char name[64];
    for (int n = 0; n < 2 * TENSOR_TYPE_END; n++) {
        uint32_t type = (uint32_t)n / 2;
        if (!tensor_traits_of(type)) {
            continue;
        }
        const kern_matmul *slot = n % 2 ? &a->k->matmul_f32[type] : &a->k->matmul[type];
        snprintf(name, sizeof(name), "%s %s %s", a->k->level, n % 2 ? "matmul_f32" : "matmul",
                 tensor_type_name(type));
        if (strstr(name, filter)) {
            bench_matmul(a, slot, (tensor_type)type, name);
        }
    }
    for (size_t i = 0; i < n_vector_checks; i++) {
        snprintf(name, sizeof(name), "%s %s", a->k->level, vector_checks[i].name);
        if (strstr(name, filter)) {
            a->slot = (int)i;
            double seconds = time_of(a);
            printf("%-28s %d numbers: %8.0f ns, %6.1f GB/s of F32\n", name, N, seconds * 1e9,
                   N * sizeof(float) / seconds * 1e-9);
        }
    }
}

void bench(const char *filter)
{
    work a = {0};
    size_t x_bytes = BATCH * COLS * sizeof(kern_q8);
    size_t out_bytes = (size_t)DRAM_BYTES / 256 * BATCH;
    a.w = aligned_alloc(64, DRAM_BYTES);
    a.x = aligned_alloc(64, x_bytes);
    a.y = aligned_alloc(64, x_bytes);
    a.out = aligned_alloc(64, out_bytes);
    a.scratch = aligned_alloc(64, KERN_SCRATCH(COLS) * sizeof(float));
    if (a.w && a.x && a.y && a.out && a.scratch) {
        memset(a.w, 0x11, DRAM_BYTES); /* small finite numbers in every type */
        memset(a.x, 0x11, x_bytes);
        memset(a.y, 0x11, x_bytes);
        memset(a.out, 0, out_bytes);
        for (int i = 0; (a.k = kern_table_at(i)) != NULL; i++) {
            bench_level(&a, filter);
        }
    }
    free(a.w);
    free(a.x);
    free(a.y);
    free(a.out);
    free(a.scratch);
}
