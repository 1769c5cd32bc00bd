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

/* Steps of AdamW without a gradient to speak of. */
static const kern_adamw adamw = {.lr = 1e-6f,
                                 .beta1 = 0.9f,
                                 .beta2 = 0.95f,
                                 .rest1 = 0.1f,
                                 .rest2 = 0.05f,
                                 .eps = 1e-8f,
                                 .correct1 = 1,
                                 .correct2 = 1};

/* The slots past those of the KV cache and attention. */
static void do_training(const work *a)
{
    const kern_table *k = a->k;
    float *w = (float *)(void *)a->w;
    volatile double result;
    switch (a->slot) {
    case 10:
        k->rmsnorm_back(a->x, a->y, a->out, w, NULL, N, 1e-6f);
        break;
    case 11:
        k->swiglu_back(w, w + N, a->x, a->out, N);
        break;
    case 12:
        k->exp_scaled(a->out, N, -1, 1);
        break;
    case 13:
        result = (double)k->max(a->x, N);
        break;
    case 14:
        result = (double)k->logsumexp(a->x, N);
        break;
    case 15:
        result = k->sum(a->x, N);
        break;
    case 16:
        result = k->dot(a->x, a->y, N);
        break;
    case 17:
        k->adamw(w, w + N, w + 2 * N, a->x, N, &adamw);
        break;
    default:
        break;
    }
    (void)result;
}

static void do_vector(const work *a)
{
    const kern_table *k = a->k;
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
    default:
        do_training(a);
        break;
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

/* ---- attention ------------------------------------------------------------------------------ */

enum { DIM = 128, GROUP = 2 };

/* Goes over `tiles` tiles, `times` in all, with n_q queries. Returns seconds per tile. */
static double attend_time(const work *a, kern_attend_fn fn, size_t tile_bytes, int64_t tiles,
                          int64_t times, int64_t n_q)
{
    float max[64], sum[64];
    kern_attend state = {.dim = DIM,
                         .stride = kern_attend_stride(DIM),
                         .n_q = n_q,
                         .group = GROUP,
                         .q = a->x,
                         .max = max,
                         .sum = sum,
                         .acc = a->out,
                         .scratch = a->y};
    for (int64_t j = 0; j < n_q; j++) {
        max[j] = sum[j] = 0;
    }
    double start = now();
    for (int64_t i = 0; i < times; i++) {
        const char *keys = a->w + (size_t)(i % tiles) * 2 * tile_bytes;
        fn(&state, keys, keys + tile_bytes, keys + 2 * tile_bytes, KERN_TILE);
    }
    return (now() - start) / (double)times;
}

static void bench_attend(const work *a, tensor_type type, const char *name)
{
    kern_attend_fn fn = kern_attend_of(a->k, type);
    size_t tile_bytes = KERN_TILE * tensor_row_bytes(type, DIM);
    int64_t tiles = (int64_t)(DRAM_BYTES / (2 * tile_bytes)) - 1;
    double decode = INFINITY, cached = INFINITY, prompt = INFINITY;
    for (int run = 0; run < 5; run++) {
        decode = fmin(decode, attend_time(a, fn, tile_bytes, tiles, tiles, GROUP));
        cached = fmin(cached, attend_time(a, fn, tile_bytes, 4, 1000, GROUP));
        prompt = fmin(prompt, attend_time(a, fn, tile_bytes, 8, 64, 64));
    }
    printf("%-28s %d queries: %6.1f GB/s cached, %6.1f GB/s from memory; 64: %6.1f GFLOPS\n", name,
           GROUP, (double)(2 * tile_bytes) / cached * 1e-9,
           (double)(2 * tile_bytes) / decode * 1e-9, 4.0 * 64 * KERN_TILE * DIM / prompt * 1e-9);
}

static void bench_attends(const work *a, const char *filter)
{
    static const tensor_type types[] = {TENSOR_F32, TENSOR_F16, TENSOR_Q8_0};
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof(name), "%s attend %s", a->k->level, tensor_type_name(types[i]));
        if (strstr(name, filter)) {
            bench_attend(a, types[i], name);
        }
    }
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
        if (strstr(name, filter) && !strstr(name, " attend")) {
            a->slot = (int)i;
            double seconds = time_of(a);
            printf("%-28s %d numbers: %8.0f ns, %6.1f GB/s of F32\n", name, N, seconds * 1e9,
                   N * sizeof(float) / seconds * 1e-9);
        }
    }
    bench_attends(a, filter);
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
