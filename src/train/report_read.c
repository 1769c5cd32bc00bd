#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "train/report.h"

enum {
    CHUNK = 1 << 18,
    MAX_LINE = 64 << 20,
    MAX_SIDE = 1 << 16, /* layers, experts */
};

/* ---- lines --------------------------------------------------------------------------------- */

/* Where the step is, or would be. */
static size_t step_place(const report_run *run, int64_t step)
{
    size_t low = 0, high = run->n_steps;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (run->steps[middle].step < step)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const report_step *report_find(const report_run *run, int64_t step)
{
    size_t at = step_place(run, step);
    if (at < run->n_steps && run->steps[at].step == step)
        return &run->steps[at];
    return at > 0 ? &run->steps[at - 1] : NULL;
}

static double number_of(const json_t *value)
{
    return json_is_number(value) ? json_number_value(value) : NAN;
}

double report_about(const report_run *run, const char *group, const char *key)
{
    const json_t *object = group ? json_object_get(run->about, group) : run->about;
    return number_of(json_object_get(object, key));
}

/* False where the line has no step from `least` on. */
static bool step_of(const json_t *line, int64_t least, int64_t *step)
{
    const json_t *value = json_object_get(line, "step");
    *step = json_integer_value(value);
    return json_is_integer(value) && *step >= least;
}

static bool is_kind(const json_t *line, const char *kind)
{
    const char *text = json_string_value(json_object_get(line, "kind"));
    return text && strcmp(text, kind) == 0;
}

static void drop_load(report_run *run)
{
    base_free(run->load);
    base_free(run->entropy);
    run->load = run->entropy = NULL;
    run->n_layers = run->n_experts = 0;
}

/* Where it goes on from step k, what was measured past k is another attempt's. */
static void take_run(report_run *run, json_t *line)
{
    json_decref(run->about);
    run->about = json_incref(line);
    run->begun++;
    const json_t *resumed = json_object_get(line, "resumed");
    if (!json_is_integer(resumed))
        return;
    int64_t from = json_integer_value(resumed);
    while (run->n_steps > 0 && run->steps[run->n_steps - 1].step > from)
        run->n_steps--;
    while (run->n_valids > 0 && run->valids[run->n_valids - 1].step > from)
        json_decref(run->valids[--run->n_valids].sources);
    if (run->load && run->load_step > from)
        drop_load(run);
}

/* The take_... return false where memory ran out; *good says whether the line made sense. */
static bool take_step(report_run *run, const json_t *line, bool *good)
{
    static const char *const keys[REPORT_FIELDS] = {
        [REPORT_LOSS] = "loss",       [REPORT_BALANCE] = "balance",
        [REPORT_Z_LOSS] = "z_loss",   [REPORT_LR] = "lr",
        [REPORT_NORM] = "norm",       [REPORT_TOTAL_TOKENS] = "total_tokens",
        [REPORT_SECONDS] = "seconds", [REPORT_SPEED] = "tokens_per_second",
        [REPORT_ROOF] = "roof_share", [REPORT_DEAD] = "dead_experts",
        [REPORT_ENTROPY] = "entropy",
    };
    report_step step = {.skipped = json_is_true(json_object_get(line, "skipped"))};
    *good = step_of(line, 1, &step.step);
    if (!*good)
        return true;
    for (int i = 0; i < REPORT_FIELDS; i++)
        step.value[i] = number_of(json_object_get(line, keys[i]));
    size_t at = step_place(run, step.step);
    if (at == run->n_steps || run->steps[at].step != step.step) {
        void *steps = run->steps;
        bool room = base_grow(&steps, &run->steps_capacity, run->n_steps + 1, sizeof *run->steps);
        run->steps = steps;
        if (!room)
            return false;
        memmove(run->steps + at + 1, run->steps + at, (run->n_steps - at) * sizeof *run->steps);
        run->n_steps++;
    }
    run->steps[at] = step;
    return true;
}

static bool take_valid(report_run *run, const json_t *line, bool *good)
{
    report_valid valid = {.loss = number_of(json_object_get(line, "loss"))};
    *good = step_of(line, 0, &valid.step);
    if (!*good)
        return true;
    size_t at = run->n_valids;
    while (at > 0 && run->valids[at - 1].step >= valid.step)
        at--;
    if (at == run->n_valids || run->valids[at].step != valid.step) {
        void *valids = run->valids;
        bool room =
            base_grow(&valids, &run->valids_capacity, run->n_valids + 1, sizeof *run->valids);
        run->valids = valids;
        if (!room)
            return false;
        memmove(run->valids + at + 1, run->valids + at, (run->n_valids - at) * sizeof *run->valids);
        run->n_valids++;
    } else {
        json_decref(run->valids[at].sources);
    }
    json_t *sources = json_object_get(line, "per_source");
    valid.sources = json_is_object(sources) ? json_incref(sources) : NULL;
    run->valids[at] = valid;
    return true;
}

/* Rows of one length, of shares. */
static bool is_load(const json_t *layers)
{
    size_t n = json_array_size(layers), n_experts = json_array_size(json_array_get(layers, 0));
    bool good = n > 0 && n <= MAX_SIDE && n_experts > 0 && n_experts <= MAX_SIDE;
    for (size_t l = 0; good && l < n; l++) {
        const json_t *row = json_array_get(layers, l);
        good = json_array_size(row) == n_experts;
        for (size_t e = 0; good && e < n_experts; e++) {
            double share = number_of(json_array_get(row, e));
            good = share >= 0 && share <= 1;
        }
    }
    return good;
}

static bool take_load(report_run *run, const json_t *line, bool *good)
{
    const json_t *layers = json_object_get(line, "layers");
    if (json_is_array(layers) && json_array_size(layers) == 0)
        return true; /* a dense model */
    int64_t step;
    *good = step_of(line, 0, &step) && is_load(layers);
    if (!*good)
        return true;
    drop_load(run);
    size_t n_layers = json_array_size(layers);
    size_t n_experts = json_array_size(json_array_get(layers, 0));
    run->load = base_alloc_array(n_layers * n_experts, sizeof *run->load);
    run->entropy = base_alloc_array(n_layers, sizeof *run->entropy);
    if (!run->load || !run->entropy) {
        drop_load(run);
        return false;
    }
    run->n_layers = n_layers;
    run->n_experts = n_experts;
    run->load_step = step;
    for (size_t i = 0; i < n_layers * n_experts; i++) {
        const json_t *row = json_array_get(layers, i / n_experts);
        run->load[i] = json_number_value(json_array_get(row, i % n_experts));
    }
    const json_t *entropy = json_object_get(line, "entropy");
    for (size_t l = 0; l < n_layers; l++)
        run->entropy[l] = number_of(json_array_get(entropy, l));
    return true;
}

/* ---- the file ------------------------------------------------------------------------------ */

/* `number` counts from 1. A line that makes no sense is counted; only memory can fail. */
static marco_status take_line(report_run *run, const char *path, const base_text *line,
                              size_t number, bool ended, marco_error *error)
{
    if (line->size == 0)
        return MARCO_OK;
    json_t *json = NULL;
    marco_error problem = {0};
    marco_status status = format_json_text(path, line->data, line->size, &json, &problem);
    if (status == MARCO_ERROR_MEMORY) {
        return base_fail_memory(error, line->size, path);
    }
    bool good = json_is_object(json), enough = true;
    if (good && is_kind(json, "run"))
        take_run(run, json);
    else if (good && is_kind(json, "step"))
        enough = take_step(run, json, &good);
    else if (good && is_kind(json, "valid"))
        enough = take_valid(run, json, &good);
    else if (good && is_kind(json, "load"))
        enough = take_load(run, json, &good);
    json_decref(json);
    if (!enough)
        return base_fail_memory(error, line->size, path);
    if (!good && !ended)
        run->unfinished = true;
    else if (!good && run->broken++ == 0)
        run->first_broken = number;
    return MARCO_OK;
}

/* What the file held when it was opened: a run that goes on may add to it. */
static marco_status read_lines(report_run *run, const base_file *file, base_text *line, char *chunk,
                               marco_error *error)
{
    size_t number = 1;
    for (uint64_t at = 0; at < file->size;) {
        ssize_t n = pread(file->fd, chunk, CHUNK, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return base_fail_errno(error, errno, "cannot read", file->path);
        if (n == 0)
            break;
        at += (uint64_t)n;
        for (const char *p = chunk, *end = chunk + n; p < end;) {
            const char *newline = memchr(p, '\n', (size_t)(end - p));
            base_text_add_n(line, p, (size_t)((newline ? newline : end) - p));
            p = newline ? newline + 1 : end;
            if (line->failed)
                return base_fail_memory(error, line->size, file->path);
            if (line->size > MAX_LINE)
                return base_fail(error, MARCO_ERROR_FORMAT,
                                 "%s: line %zu is longer than 64 MiB: these are not the metrics "
                                 "of a training run",
                                 file->path, number);
            if (!newline)
                continue;
            marco_status status = take_line(run, file->path, line, number++, true, error);
            if (status)
                return status;
            base_text_clear(line);
        }
    }
    return take_line(run, file->path, line, number, false, error);
}

/* The last part of the folder's path, '/' at its end aside. */
static char *name_of(const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && (path[start - 1] != '/' || start == end))
        start--;
    char *name = base_strndup(path + start, end - start);
    if (name)
        base_utf8_repair(name);
    return name;
}

marco_status report_read(const char *path, report_run *run, marco_error *error)
{
    *run = (report_run){.name = name_of(path)};
    char *metrics = base_path_join(path, "metrics.jsonl"), *chunk = base_alloc(CHUNK);
    base_text line = {0};
    base_file *file = NULL;
    marco_status status = MARCO_OK;
    if (!run->name || !metrics || !chunk)
        status = base_fail_memory(error, CHUNK, path);
    else if (!base_is_folder(path))
        status =
            base_fail(error, MARCO_ERROR_NOT_FOUND,
                      "%s: no such folder; give the folder that a training run writes to", path);
    else if (!base_exists(metrics))
        status = base_fail(error, MARCO_ERROR_NOT_FOUND,
                           "%s: no such file; a training run's folder has one from its first step",
                           metrics);
    else
        status = base_file_open(metrics, &file, error);
    if (!status)
        status = read_lines(run, file, &line, chunk, error);
    if (!status && run->broken > 0 && run->begun == 0 && run->n_steps == 0 && run->n_valids == 0)
        status = base_fail(error, MARCO_ERROR_FORMAT,
                           "%s: line %zu cannot be read, and no other tells of a training run",
                           metrics, run->first_broken);
    base_file_close(file);
    base_text_free(&line);
    base_free(chunk);
    base_free(metrics);
    return status;
}

void report_clear(report_run *run)
{
    for (size_t i = 0; i < run->n_valids; i++)
        json_decref(run->valids[i].sources);
    json_decref(run->about);
    base_free(run->name);
    base_free(run->steps);
    base_free(run->valids);
    drop_load(run);
    *run = (report_run){0};
}
