/* marco bench: what came out, for people and as JSON. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "text.h"

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bench_spread bench_spread_of(const double *values, size_t n)
{
    double *sorted = malloc(n * sizeof(*sorted));
    if (!sorted || n == 0) {
        free(sorted);
        return (bench_spread){0};
    }
    memcpy(sorted, values, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), compare);
    bench_spread s = {.median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2,
                      .min = sorted[0],
                      .max = sorted[n - 1]};
    free(sorted);
    return s;
}

/* The roof's measurements, one spread for each of its numbers. */
typedef struct roof_spread {
    bench_spread memory, int8, f32;
} roof_spread;

static roof_spread spread_roofs(const bench_report *r)
{
    roof_spread s = {0};
    double *values = malloc(r->n_roofs * sizeof(*values));
    if (!values)
        return s;
    for (size_t i = 0; i < r->n_roofs; i++)
        values[i] = r->roofs[i].memory_gb_s;
    s.memory = bench_spread_of(values, r->n_roofs);
    for (size_t i = 0; i < r->n_roofs; i++)
        values[i] = r->roofs[i].int8_gops;
    s.int8 = bench_spread_of(values, r->n_roofs);
    for (size_t i = 0; i < r->n_roofs; i++)
        values[i] = r->roofs[i].f32_gflops;
    s.f32 = bench_spread_of(values, r->n_roofs);
    free(values);
    return s;
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static json_t *spread_json(bench_spread s)
{
    return json_pack("{s:f, s:f, s:f}", "median", s.median, "min", s.min, "max", s.max);
}

static json_t *roof_json(const bench_report *r)
{
    roof_spread s = spread_roofs(r);
    const marco_roof *last = &r->roofs[r->n_roofs - 1];
    return json_pack("{s:f, s:f, s:f, s:s, s:I, s:i, s:o, s:o, s:o}", "memory_gb_s",
                     s.memory.median, "int8_gops", s.int8.median, "f32_gflops", s.f32.median,
                     "memory_pattern", last->memory_pattern, "memory_bytes",
                     (json_int_t)last->memory_bytes, "measurements", (int)r->n_roofs,
                     "memory_spread", spread_json(s.memory), "int8_spread", spread_json(s.int8),
                     "f32_spread", spread_json(s.f32));
}

static json_t *item_json(const bench_report *r, const bench_item *item)
{
    size_t n = (size_t)r->reps;
    json_t *object =
        json_pack("{s:s, s:i, s:o, s:f, s:o}", "name", item->decode ? "decode" : "prefill",
                  item->decode ? "context" : "tokens", (int)item->n, "tok_s",
                  spread_json(bench_spread_of(item->rate, n)), "roof_share",
                  bench_spread_of(item->share, n).median, "roof_share_spread",
                  spread_json(bench_spread_of(item->share, n)));
    double tokens = (double)r->reps * (item->decode ? r->tokens : item->n);
    if (object)
        json_object_set_new(object, "expert_bytes_read_per_token",
                            json_real(item->expert_bytes / tokens));
    if (object && item->decode) {
        json_object_set_new(object, "decoded", json_integer(r->tokens));
        json_object_set_new(object, "bytes_per_token", json_real(bench_bytes_per_token(r, item)));
    }
    return object;
}

int bench_print_json(const command *self, const bench_report *r)
{
    json_t *results = json_array();
    for (size_t i = 0; i < r->n_items; i++)
        json_array_append_new(results, item_json(r, &r->items[i]));
    json_t *first = json_pack("{s:i, s:f, s:f}", "prompt_tokens", (int)r->first_tokens, "first_ms",
                              r->first_seconds * 1e3, "second_ms", r->second_seconds * 1e3);
    return json_line(
        self,
        json_pack("{s:i, s:o, s:o, s:o, s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:f, s:o, s:I, s:i}",
                  "threads", (int)r->info->threads,                                         //
                  "roof", roof_json(r),                                                     //
                  "results", results,                                                       //
                  "model", json_text(r->info->name, strlen(r->info->name)),                 //
                  "version", marco_version(),                                               //
                  "level", marco_cpu_level(),                                               //
                  "file", json_text(r->model, strlen(r->model)),                            //
                  "types", json_text(r->info->weight_types, strlen(r->info->weight_types)), //
                  "weight_bytes", (json_int_t)r->info->weight_bytes,                        //
                  "bytes_per_token", (json_int_t)r->info->bytes_per_token,                  //
                  "kv_bytes_per_token", (json_int_t)r->kv_bytes_per_token,                  //
                  "load_seconds", r->load_seconds,                                          //
                  "first_token", first,                                                     //
                  "peak_memory_bytes", (json_int_t)memory_peak(),                           //
                  "reps", (int)r->reps));
}

/* ---- text ----------------------------------------------------------------------------------- */

static void print_item(const bench_report *r, const bench_item *item)
{
    size_t n = (size_t)r->reps;
    bench_spread rate = bench_spread_of(item->rate, n), share = bench_spread_of(item->share, n);
    char name[48];
    snprintf(name, sizeof(name), item->decode ? "decode at %d" : "prefill %d", (int)item->n);
    printf("%-16s %8.2f  %8.2f %8.2f  %6.1f %%\n", name, rate.median, rate.min, rate.max,
           share.median * 100);
}

void bench_print_text(const bench_report *r)
{
    roof_spread s = spread_roofs(r);
    const marco_roof *last = &r->roofs[r->n_roofs - 1];
    char weights[32], each[32], kv[32], peak[32], over[32];
    fputs("model       ", stdout);
    print_safely(stdout, r->info->name, strlen(r->info->name));
    printf(" (%s, %s; %s and %s of KV cache for each token of context read a token)\n",
           r->info->weight_types, format_bytes(r->info->weight_bytes, weights),
           format_bytes(r->info->bytes_per_token, each), format_bytes(r->kv_bytes_per_token, kv));
    printf("program     marco %s, %s, %d threads\n", marco_version(), marco_cpu_level(),
           (int)r->info->threads);
    printf(
        "load        %.2f s; first token %.1f ms after a prompt of %d, second request's %.1f ms\n",
        r->load_seconds, r->first_seconds * 1e3, (int)r->first_tokens, r->second_seconds * 1e3);
    printf("memory      %s at most\n\n", format_bytes(memory_peak(), peak));
    printf("roof        memory %.1f GB/s (%.1f to %.1f; %s, over %s)\n", s.memory.median,
           s.memory.min, s.memory.max, last->memory_pattern,
           format_bytes(last->memory_bytes, over));
    printf("            int8 %.1f GOPS (%.1f to %.1f), F32 %.1f GFLOPS (%.1f to %.1f)\n\n",
           s.int8.median, s.int8.min, s.int8.max, s.f32.median, s.f32.min, s.f32.max);
    printf("%-16s %8s  %8s %8s  %8s\n", "tokens/s", "median", "min", "max", "of roof");
    for (size_t i = 0; i < r->n_items; i++)
        print_item(r, &r->items[i]);
}
