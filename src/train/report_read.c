#include <errno.h>
#include <math.h>
#include <stdlib.h>
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

const report_step *report_find(const report_run *run, int64_t step)
{
    size_t low = 0, high = run->n_steps; /* those before low are not past the step */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (run->steps[middle].step <= step)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &run->steps[low - 1] : NULL;
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

/* Where the run was gone on with. */
typedef struct restart {
    int64_t from;
    size_t line;
} restart;

typedef struct reader {
    report_run *run;
    restart *restarts; /* [n_restarts] by line */
    size_t n_restarts, capacity;
} reader;

/* The take_... return false where memory ran out; *good says whether the line made sense. What
 * counts of the steps is found when all are known: they may come in any order. */
static bool take_run(reader *r, json_t *line, size_t number)
{
    report_run *run = r->run;
    json_decref(run->about);
    run->about = json_incref(line);
    run->begun++;
    const json_t *resumed = json_object_get(line, "resumed");
    if (!json_is_integer(resumed))
        return true;
    int64_t from = json_integer_value(resumed);
    if (run->load && run->load_step > from)
        drop_load(run);
    void *restarts = r->restarts;
    bool room = base_grow(&restarts, &r->capacity, r->n_restarts + 1, sizeof *r->restarts);
    r->restarts = restarts;
    if (room)
        r->restarts[r->n_restarts++] = (restart){.from = from, .line = number};
    return room;
}

static bool take_step(report_run *run, const json_t *line, size_t number, bool *good)
{
    static const char *const keys[REPORT_FIELDS] = {
        [REPORT_LOSS] = "loss",       [REPORT_BALANCE] = "balance",
        [REPORT_Z_LOSS] = "z_loss",   [REPORT_LR] = "lr",
        [REPORT_NORM] = "norm",       [REPORT_TOTAL_TOKENS] = "total_tokens",
        [REPORT_SECONDS] = "seconds", [REPORT_SPEED] = "tokens_per_second",
        [REPORT_ROOF] = "roof_share", [REPORT_DEAD] = "dead_experts",
        [REPORT_ENTROPY] = "entropy",
    };
    report_step step = {.line = number, .skipped = json_is_true(json_object_get(line, "skipped"))};
    *good = step_of(line, 1, &step.step);
    if (!*good)
        return true;
    for (int i = 0; i < REPORT_FIELDS; i++)
        step.value[i] = number_of(json_object_get(line, keys[i]));
    void *steps = run->steps;
    bool room = base_grow(&steps, &run->steps_capacity, run->n_steps + 1, sizeof *run->steps);
    run->steps = steps;
    if (room)
        run->steps[run->n_steps++] = step;
    return room;
}

static bool take_valid(report_run *run, const json_t *line, size_t number, bool *good)
{
    report_valid valid = {.line = number, .loss = number_of(json_object_get(line, "loss"))};
    *good = step_of(line, 0, &valid.step);
    if (!*good)
        return true;
    void *valids = run->valids;
    bool room = base_grow(&valids, &run->valids_capacity, run->n_valids + 1, sizeof *run->valids);
    run->valids = valids;
    if (!room)
        return false;
    json_t *sources = json_object_get(line, "per_source");
    valid.sources = json_is_object(sources) ? json_incref(sources) : NULL;
    run->valids[run->n_valids++] = valid;
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

/* ---- what counts
 * ---------------------------------------------------------------------------------- */

/* Whether a line about a step was dropped by one after it, where the run was gone on with from
 * before the step. Lines are asked about from the last to the first: *next are the restarts before
 * the line, *least what those after it went on from. */
static bool is_dropped(const reader *r, int64_t step, size_t line, size_t *next, int64_t *least)
{
    while (*next > 0 && r->restarts[*next - 1].line > line) {
        int64_t from = r->restarts[--*next].from;
        *least = from < *least ? from : *least;
    }
    return step > *least;
}

static int by_place(int64_t a, int64_t b, size_t a_line, size_t b_line)
{
    return a != b ? (a > b) - (a < b) : (a_line > b_line) - (a_line < b_line);
}

static int by_step(const void *a, const void *b)
{
    const report_step *x = a, *y = b;
    return by_place(x->step, y->step, x->line, y->line);
}

static int by_valid_step(const void *a, const void *b)
{
    const report_valid *x = a, *y = b;
    return by_place(x->step, y->step, x->line, y->line);
}

/* Sorts by step; of several lines about one the last counts. */
static void keep_steps(reader *r)
{
    report_run *run = r->run;
    report_step *steps = run->steps;
    int64_t least = INT64_MAX;
    size_t n = run->n_steps, next = r->n_restarts, kept = n;
    for (size_t i = n; i-- > 0;)
        if (!is_dropped(r, steps[i].step, steps[i].line, &next, &least))
            steps[--kept] = steps[i];
    run->n_steps = 0;
    if (kept < n)
        qsort(steps + kept, n - kept, sizeof *steps, by_step);
    for (size_t i = kept; i < n; i++)
        if (i + 1 == n || steps[i].step != steps[i + 1].step)
            steps[run->n_steps++] = steps[i];
}

static void keep_valids(reader *r)
{
    report_run *run = r->run;
    report_valid *valids = run->valids;
    int64_t least = INT64_MAX;
    size_t n = run->n_valids, next = r->n_restarts, kept = n;
    for (size_t i = n; i-- > 0;) {
        if (is_dropped(r, valids[i].step, valids[i].line, &next, &least))
            json_decref(valids[i].sources);
        else
            valids[--kept] = valids[i];
    }
    run->n_valids = 0;
    if (kept < n)
        qsort(valids + kept, n - kept, sizeof *valids, by_valid_step);
    for (size_t i = kept; i < n; i++) {
        if (i + 1 == n || valids[i].step != valids[i + 1].step)
            valids[run->n_valids++] = valids[i];
        else
            json_decref(valids[i].sources);
    }
}

/* ---- the file
 * ------------------------------------------------------------------------------------ */
/* ---- the file ------------------------------------------------------------------------------ */

/* `number` counts from 1. A line that makes no sense is counted; only memory can fail. */
static marco_status take_line(reader *r, const char *path, const base_text *line, size_t number,
                              bool ended, marco_error *error)
{
    report_run *run = r->run;
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
        enough = take_run(r, json, number);
    else if (good && is_kind(json, "step"))
        enough = take_step(run, json, number, &good);
    else if (good && is_kind(json, "valid"))
        enough = take_valid(run, json, number, &good);
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
static marco_status read_lines(reader *r, const base_file *file, base_text *line, char *chunk,
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
            marco_status status = take_line(r, file->path, line, number++, true, error);
            if (status)
                return status;
            base_text_clear(line);
        }
    }
    return take_line(r, file->path, line, number, false, error);
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
    reader r = {.run = run};
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
        status = read_lines(&r, file, &line, chunk, error);
    if (!status) {
        keep_steps(&r);
        keep_valids(&r);
    }
    base_free(r.restarts);
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
