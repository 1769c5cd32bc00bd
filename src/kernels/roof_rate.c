/* The peaks of all threads at once. */
#include "base/time.h"
#include "kernels/roof.h"

enum {
    TRIES = 3,  /* the median counts */
    PARTS = 64, /* for each thread */
    CALLS = 16, /* in a part */
    ROUNDS = 2048,
};

static void int8_part(void *user, int64_t part, int thread)
{
    (void)part;
    (void)thread;
    int16_t a[KERN_ROOF_LANES], b[KERN_ROOF_LANES];
    for (int i = 0; i < KERN_ROOF_LANES; i++) {
        a[i] = (int16_t)(i - 8);
        b[i] = (int16_t)(7 * i - 50);
    }
    for (int call = 0; call < CALLS; call++)
        (*(const kern_roof *const *)user)->int8(a, b, ROUNDS);
}

static void f32_part(void *user, int64_t part, int thread)
{
    (void)part;
    (void)thread;
    float a[KERN_ROOF_LANES], b[KERN_ROOF_LANES];
    for (int i = 0; i < KERN_ROOF_LANES; i++) {
        a[i] = (float)(i - 8);
        b[i] = (float)(7 * i - 50);
    }
    for (int call = 0; call < CALLS; call++)
        (*(const kern_roof *const *)user)->f32(a, b, ROUNDS);
}

static double median_of_three(const double x[TRIES])
{
    double low = x[0] < x[1] ? x[0] : x[1], high = x[0] < x[1] ? x[1] : x[0];
    return x[2] < low ? low : x[2] > high ? high : x[2];
}

static double measure(const kern_roof *roof, base_pool *pool, base_task_fn part)
{
    double rate[TRIES];
    int64_t parts = (int64_t)PARTS * (pool ? base_pool_threads(pool) : 1);
    double products = (double)parts * CALLS * ROUNDS * KERN_ROOF_PRODUCTS * KERN_ROOF_LANES;
    for (int i = 0; i < TRIES; i++) {
        double start = base_now();
        base_pool_run(pool, part, &roof, parts);
        rate[i] = 2 * products / (base_now() - start);
    }
    return median_of_three(rate);
}

double kern_roof_int8_rate(const kern_roof *roof, base_pool *pool)
{
    return measure(roof, pool, int8_part);
}

double kern_roof_f32_rate(const kern_roof *roof, base_pool *pool)
{
    return measure(roof, pool, f32_part);
}
