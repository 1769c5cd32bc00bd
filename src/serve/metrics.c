#include <string.h>

#include "base/available.h"
#include "base/error.h"
#include "base/memory.h"
#include "serve/server_internal.h"

/* Bounds of the histogram's buckets, seconds. */
static const double bounds[] = {0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600};

/* 0: the client left before there was an answer; the last: any other. */
static const int statuses[] = {200, 204, 400, 401, 403, 404, 405, 408,
                               413, 415, 429, 500, 501, 503, 0,   -1};

enum {
    N_BOUNDS = sizeof bounds / sizeof *bounds,
    N_STATUSES = sizeof statuses / sizeof *statuses,
};

typedef struct route_metrics {
    const char *path;
    uint64_t by_status[N_STATUSES];
    uint64_t by_time[N_BOUNDS + 1];
    double seconds;
} route_metrics;

struct serve_metrics {
    pthread_mutex_t lock;
    size_t n;
    route_metrics routes[];
};

marco_status serve_metrics_create(const char *const *paths, size_t n, serve_metrics **out,
                                  marco_error *error)
{
    size_t size = sizeof(serve_metrics) + n * sizeof(route_metrics);
    serve_metrics *metrics = base_calloc(1, size);
    *out = metrics;
    if (!metrics)
        return base_fail_memory(error, size, "the metrics");
    pthread_mutex_init(&metrics->lock, NULL);
    metrics->n = n;
    for (size_t i = 0; i < n; i++)
        metrics->routes[i].path = paths[i];
    return MARCO_OK;
}

void serve_metrics_free(serve_metrics *metrics)
{
    if (!metrics)
        return;
    pthread_mutex_destroy(&metrics->lock);
    base_free(metrics);
}

void serve_metrics_add(serve_metrics *metrics, int route, int status, double seconds)
{
    size_t s = 0, b = 0;
    while (s < N_STATUSES - 1 && statuses[s] != status)
        s++;
    while (b < N_BOUNDS && seconds > bounds[b])
        b++;
    pthread_mutex_lock(&metrics->lock);
    route_metrics *r = &metrics->routes[route];
    r->by_status[s]++;
    r->by_time[b]++;
    r->seconds += seconds;
    pthread_mutex_unlock(&metrics->lock);
}

static void head(base_text *out, const char *name, const char *type, const char *help)
{
    base_text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void requests_text(serve_metrics *metrics, base_text *out)
{
    static const char requests[] = "marco_http_requests_total",
                      duration[] = "marco_http_request_duration_seconds";
    pthread_mutex_lock(&metrics->lock);
    head(out, requests, "counter",
         "Requests by path and status; status 0: the client left before its answer.");
    for (size_t i = 0; i < metrics->n; i++) {
        const route_metrics *r = &metrics->routes[i];
        for (size_t s = 0; s < N_STATUSES; s++) {
            if (r->by_status[s] == 0)
                continue;
            base_text_printf(out, "%s{path=\"%s\",status=\"", requests, r->path);
            if (statuses[s] < 0)
                base_text_add(out, "other");
            else
                base_text_printf(out, "%d", statuses[s]);
            base_text_printf(out, "\"} %llu\n", (unsigned long long)r->by_status[s]);
        }
    }
    head(out, duration, "histogram", "From a request's first byte to its answer's last.");
    for (size_t i = 0; i < metrics->n; i++) {
        const route_metrics *r = &metrics->routes[i];
        uint64_t sum = 0;
        for (size_t b = 0; b <= N_BOUNDS; b++)
            sum += r->by_time[b];
        if (sum == 0)
            continue;
        sum = 0;
        for (size_t b = 0; b < N_BOUNDS; b++) {
            sum += r->by_time[b];
            base_text_printf(out, "%s_bucket{path=\"%s\",le=\"%g\"} %llu\n", duration, r->path,
                             bounds[b], (unsigned long long)sum);
        }
        sum += r->by_time[N_BOUNDS];
        base_text_printf(out, "%s_bucket{path=\"%s\",le=\"+Inf\"} %llu\n", duration, r->path,
                         (unsigned long long)sum);
        base_text_printf(out, "%s_sum{path=\"%s\"} %.6f\n%s_count{path=\"%s\"} %llu\n", duration,
                         r->path, r->seconds, duration, r->path, (unsigned long long)sum);
    }
    pthread_mutex_unlock(&metrics->lock);
}

/* A model's number by its place in this table. */
typedef struct model_metric {
    const char *name, *type, *help;
    double (*get)(const serve_model_stats *stats);
} model_metric;

#define GETTER(name, expression)                                                                   \
    static double name(const serve_model_stats *s)                                                 \
    {                                                                                              \
        return (double)(expression);                                                               \
    }
GETTER(get_loaded, s->loaded)
GETTER(get_requests, s->requests)
GETTER(get_prompt, s->prompt_tokens)
GETTER(get_cached, s->cached_tokens)
GETTER(get_reply, s->reply_tokens)
GETTER(get_busy, s->busy_seconds)
GETTER(get_active, s->scheduler.active)
GETTER(get_parallel, s->scheduler.parallel)
GETTER(get_waiting, s->scheduler.waiting)
GETTER(get_queue, s->scheduler.queue)
GETTER(get_kv, s->scheduler.kv_bytes)
GETTER(get_entries, s->scheduler.cache_entries)
#undef GETTER

static const model_metric model_metrics[] = {
    {"marco_model_loaded", "gauge", "1 while the model is in memory.", get_loaded},
    {"marco_requests_total", "counter", "Replies that have ended.", get_requests},
    {"marco_prompt_tokens_total", "counter", "Tokens of prompts.", get_prompt},
    {"marco_cached_tokens_total", "counter", "Of those, tokens not computed again.", get_cached},
    {"marco_reply_tokens_total", "counter", "Tokens generated.", get_reply},
    {"marco_busy_seconds_total", "counter", "Time in which the model ran.", get_busy},
    {"marco_active_requests", "gauge", "Replies under way.", get_active},
    {"marco_parallel_limit", "gauge", "Replies that may be under way at once.", get_parallel},
    {"marco_queued_requests", "gauge", "Submissions waiting for their turn.", get_waiting},
    {"marco_queue_limit", "gauge", "Submissions that may wait.", get_queue},
    {"marco_kv_bytes", "gauge", "Keys and values in memory, cached ones included.", get_kv},
    {"marco_cache_entries", "gauge", "Earlier requests kept for later ones.", get_entries},
};

/* Names come from the command line and from checkpoints. */
static void label(base_text *out, const char *value)
{
    for (; *value; value++) {
        if (*value == '\\' || *value == '"')
            base_text_add_char(out, '\\');
        base_text_add_char(out, *value == '\n' ? ' ' : *value);
    }
}

char *serve_metrics_text(marco_server *server, size_t *size)
{
    base_text out = {0};
    serve_model_stats stats;
    requests_text(server->metrics, &out);
    for (size_t m = 0; m < sizeof model_metrics / sizeof *model_metrics; m++) {
        const model_metric *metric = &model_metrics[m];
        head(&out, metric->name, metric->type, metric->help);
        for (size_t i = 0; serve_models_stats(server->models, i, &stats); i++) {
            base_text_printf(&out, "%s{model=\"", metric->name);
            label(&out, stats.name);
            base_text_printf(&out, "\"} %.15g\n", metric->get(&stats));
        }
    }
    head(&out, "process_resident_memory_bytes", "gauge", "Memory that the process holds.");
    base_text_printf(&out, "process_resident_memory_bytes %llu\n",
                     (unsigned long long)base_memory_resident());
    head(&out, "marco_info", "gauge", "The program.");
    base_text_printf(&out, "marco_info{version=\"%s\",cpu=\"%s\"} 1\n", marco_version(),
                     marco_cpu_level());
    return base_text_take(&out, size);
}
