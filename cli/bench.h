/* What `marco bench` measures, and how it is shown. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "load.h"

enum { BENCH_MAX_ITEMS = 32, BENCH_MAX_REPS = 100 };

/* The middle of several measurements, and how far they lie apart. */
typedef struct bench_spread {
    double median, min, max;
} bench_spread;

typedef struct bench_item {
    bool decode;
    int32_t n; /* tokens of a prefill; context before the first token of a decode */
    double rate[BENCH_MAX_REPS];  /* tokens a second */
    double share[BENCH_MAX_REPS]; /* of what the roof measured before and after it allows */
    double expert_bytes;          /* read from the file, of all repetitions */
} bench_item;

typedef struct bench_report {
    const char *model; /* its path */
    const marco_model_info *info;
    uint64_t kv_bytes_per_token;
    int32_t tokens, reps; /* decoded by each repetition; repetitions */
    double load_seconds;
    double first_seconds, second_seconds; /* from a short prompt to its first token */
    int32_t first_tokens;                 /* of that prompt */
    marco_roof *roofs;                    /* [n_roofs] in order of time; free() */
    size_t n_roofs;
    bench_item items[BENCH_MAX_ITEMS];
    size_t n_items;
} bench_report;

bench_spread bench_spread_of(const double *values, size_t n);

/* Of the roof they show the middle of all measurements. */
int bench_print_json(const command *self, const bench_report *report);
void bench_print_text(const bench_report *report);

/* Bytes of weights and KV cache that a decoded token reads, on average over the repetition. */
double bench_bytes_per_token(const bench_report *report, const bench_item *item);

#endif
