#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"
#include "format/json.h"
#include "train/trainer.h"

struct train_metrics {
    char *path;
    FILE *file;
};

static bool ends_whole(FILE *file)
{
    if (fseek(file, -1, SEEK_END) != 0)
        return true; /* empty */
    int last = fgetc(file);
    fseek(file, 0, SEEK_END); /* between reading and writing there must be one */
    return last == '\n' || last == EOF;
}

marco_status train_metrics_open(const char *folder, train_metrics **out, marco_error *error)
{
    *out = NULL;
    train_metrics *m = base_calloc(1, sizeof *m);
    if (!m || !(m->path = base_path_join(folder, "metrics.jsonl"))) {
        train_metrics_close(m);
        return base_fail_memory(error, sizeof *m, "metrics");
    }
    m->file = fopen(m->path, "a+");
    marco_status status = MARCO_OK;
    if (!m->file || (!ends_whole(m->file) && fputc('\n', m->file) == EOF))
        status = base_fail_errno(error, errno, "cannot write", m->path);
    if (status) {
        train_metrics_close(m);
        return status;
    }
    *out = m;
    return MARCO_OK;
}

void train_metrics_close(train_metrics *metrics)
{
    if (!metrics)
        return;
    if (metrics->file)
        fclose(metrics->file);
    base_free(metrics->path);
    base_free(metrics);
}

/* JSON has no NaN. */
static void add_number(base_text *line, const char *key, double value)
{
    char digits[32] = "null";
    if (isfinite(value))
        base_shortest(value, digits);
    base_text_printf(line, ",\"%s\":%s", key, digits);
}

/* A line reaches the file whole or, where the disk is full, is an error. */
static marco_status put_line(train_metrics *m, base_text *line, marco_error *error)
{
    base_text_add(line, "}\n");
    marco_status status = MARCO_OK;
    if (line->failed)
        status = base_fail_memory(error, line->size, "a line of metrics");
    else if (fwrite(line->data, 1, line->size, m->file) != line->size || fflush(m->file) != 0)
        status = base_fail_errno(error, errno, "cannot write", m->path);
    base_text_free(line);
    return status;
}

marco_status train_metrics_run(train_metrics *metrics, const trainer *t, marco_error *error)
{
    const marco_train_plan *plan = &t->plan;
    base_text line = {0};
    base_text_printf(&line, "{\"kind\":\"run\",\"time\":%lld,\"version\":\"%s\",\"resumed\":%lld",
                     (long long)time(NULL), marco_version(), (long long)t->resumed);
    base_text_printf(&line,
                     ",\"level\":\"%s\",\"blas\":\"%s\",\"threads\":%d,\"processes\":%d"
                     ",\"expert_processes\":%d,\"roof_gflops\":",
                     t->weights ? train_model_context(t->model)->kern->level : "", t->blas->name,
                     t->pool ? base_pool_threads(t->pool) : 1, plan->processes,
                     plan->expert_processes);
    base_text_printf(&line, "%.1f", t->roof * 1e-9);
    base_text_printf(
        &line,
        ",\"plan\":{\"total_params\":%lld,\"active_params\":%lld,\"trained_params\":%lld,"
        "\"total_bytes\":%llu,\"activation_bytes\":%llu,\"train_tokens\":%lld,"
        "\"valid_tokens\":%lld,\"tokens_per_step\":%lld}",
        (long long)plan->total_params, (long long)plan->active_params,
        (long long)plan->trained_params, (unsigned long long)plan->total_bytes,
        (unsigned long long)plan->activation_bytes, (long long)plan->train_tokens,
        (long long)plan->valid_tokens, (long long)plan->tokens_per_step);
    char *recipe = NULL;
    if (format_json_dump(t->recipe->json, JSON_COMPACT | JSON_REAL_PRECISION(17), &recipe, NULL))
        base_text_printf(&line, ",\"recipe\":%s", recipe);
    else
        line.failed = true;
    base_free(recipe);
    return put_line(metrics, &line, error);
}

marco_status train_metrics_step(train_metrics *metrics, const marco_train_step *s,
                                data_loader_stats data, marco_error *error)
{
    base_text line = {0};
    base_text_printf(&line, "{\"kind\":\"step\",\"step\":%lld", (long long)s->step);
    add_number(&line, "loss", s->loss);
    add_number(&line, "balance", s->balance);
    add_number(&line, "z_loss", s->z_loss);
    add_number(&line, "lr", s->lr);
    add_number(&line, "norm", s->norm);
    base_text_printf(&line,
                     ",\"skipped\":%s,\"targets\":%lld,\"tokens\":%lld,\"total_tokens\":%lld",
                     s->skipped ? "true" : "false", (long long)s->targets, (long long)s->tokens,
                     (long long)s->total_tokens);
    add_number(&line, "seconds", s->seconds);
    add_number(&line, "tokens_per_second", s->tokens_per_second);
    add_number(&line, "roof_share", s->roof_share);
    base_text_printf(&line, ",\"dead_experts\":%d", s->dead_experts);
    add_number(&line, "entropy", s->entropy);
    base_text_printf(&line, ",\"repeated\":%lld,\"cut\":%lld", (long long)data.repeated,
                     (long long)data.cut);
    return put_line(metrics, &line, error);
}

marco_status train_metrics_valid(train_metrics *metrics, int64_t step, double loss,
                                 const train_valid *valid, const double *per_source,
                                 marco_error *error)
{
    base_text line = {0};
    base_text_printf(&line, "{\"kind\":\"valid\",\"step\":%lld", (long long)step);
    add_number(&line, "loss", loss);
    base_text_add(&line, ",\"per_source\":{");
    for (size_t i = 0; i < valid->n; i++) {
        char digits[32] = "null";
        if (isfinite(per_source[i]))
            base_shortest(per_source[i], digits);
        base_text_add(&line, i ? "," : "");
        format_json_escape(&line, valid->sources[i].name, strlen(valid->sources[i].name));
        base_text_printf(&line, ":%s", digits);
    }
    base_text_add(&line, "}");
    return put_line(metrics, &line, error);
}

marco_status train_metrics_load(train_metrics *metrics, const trainer *t, marco_error *error)
{
    const model_config *config = &t->weights->config;
    base_text line = {0};
    bool first = true;
    base_text_printf(&line, "{\"kind\":\"load\",\"step\":%lld,\"layers\":[", (long long)t->step);
    for (int32_t i = 0; i < config->n_layers; i++) {
        if (!config->layer_sparse[i])
            continue;
        const int64_t *load = t->loads + (int64_t)i * config->n_experts;
        int64_t sum = 0;
        for (int32_t e = 0; e < config->n_experts; e++)
            sum += load[e];
        base_text_add(&line, first ? "[" : ",[");
        first = false;
        for (int32_t e = 0; e < config->n_experts; e++)
            base_text_printf(&line, "%s%.5f", e ? "," : "",
                             sum ? (double)load[e] / (double)sum : 0.0);
        base_text_add(&line, "]");
    }
    base_text_add(&line, "],\"entropy\":[");
    first = true;
    for (int32_t i = 0; i < config->n_layers; i++) {
        if (!config->layer_sparse[i])
            continue;
        base_text_printf(&line, "%s%.5f", first ? "" : ",", t->entropies[i]);
        first = false;
    }
    base_text_add(&line, "]");
    return put_line(metrics, &line, error);
}

marco_status train_metrics_traffic(train_metrics *metrics, int64_t step, const train_comm *comm,
                                   marco_error *error)
{
    base_text line = {0};
    base_text_printf(&line,
                     "{\"kind\":\"traffic\",\"step\":%lld,\"reduce\":%llu,\"scatter\":%llu,"
                     "\"gather\":%llu,\"experts\":%llu",
                     (long long)step, (unsigned long long)comm->sent[TRAIN_TRAFFIC_REDUCE],
                     (unsigned long long)comm->sent[TRAIN_TRAFFIC_SCATTER],
                     (unsigned long long)comm->sent[TRAIN_TRAFFIC_GATHER],
                     (unsigned long long)comm->sent[TRAIN_TRAFFIC_EXPERTS]);
    return put_line(metrics, &line, error);
}
