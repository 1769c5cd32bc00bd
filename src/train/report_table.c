#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "train/json.h"
#include "train/report.h"

enum {
    LAST_STEPS = 50, /* that the final loss is the mean of, at most */
    LOSS_DIGITS = 3,
    MAX_KEYS = 2000, /* rows of a table that come out of a file */
    MAX_DEPTH = 8    /* of a recipe's objects; deeper ones stand as JSON */
};

/* ---- of a run ------------------------------------------------------------------------------ */

double report_last_loss(const report_run *run, size_t *steps)
{
    size_t most = run->n_steps / 20 > 1 ? run->n_steps / 20 : 1;
    most = most < LAST_STEPS ? most : LAST_STEPS;
    double sum = 0;
    size_t n = 0;
    for (size_t i = run->n_steps; i-- > 0 && n < most;) {
        if (isfinite(run->steps[i].value[REPORT_LOSS])) {
            sum += run->steps[i].value[REPORT_LOSS];
            n++;
        }
    }
    *steps = n;
    return n ? sum / (double)n : NAN;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* NAN where there is none. It needs memory, and a failure is the text's. */
static double median(base_text *out, const report_run *run, report_field field)
{
    double *values = base_alloc_array(run->n_steps, sizeof *values), middle = NAN;
    size_t n = 0;
    out->failed = out->failed || !values;
    for (size_t i = 0; values && i < run->n_steps; i++)
        if (isfinite(run->steps[i].value[field]))
            values[n++] = run->steps[i].value[field];
    if (n > 0) {
        qsort(values, n, sizeof *values, compare);
        middle = values[n / 2];
    }
    base_free(values);
    return middle;
}

static double last(const report_run *run, report_field field)
{
    return run->n_steps ? run->steps[run->n_steps - 1].value[field] : NAN;
}

static double last_valid(const report_run *run)
{
    return run->n_valids ? run->valids[run->n_valids - 1].loss : NAN;
}

/* ---- numbers ------------------------------------------------------------------------------- */

static void cell_steps(base_text *out, const report_run *run)
{
    report_count(out, run->n_steps ? (double)run->steps[run->n_steps - 1].step : 0);
}

static void cell_tokens(base_text *out, const report_run *run)
{
    char text[32];
    report_short(last(run, REPORT_TOTAL_TOKENS), text);
    base_text_add(out, text);
}

static void cell_loss(base_text *out, const report_run *run)
{
    size_t steps;
    report_fixed(out, report_last_loss(run, &steps), LOSS_DIGITS);
    if (steps > 1)
        base_text_printf(out, " <small>mean of last %zu</small>", steps);
}

static void cell_valid(base_text *out, const report_run *run)
{
    report_fixed(out, last_valid(run), LOSS_DIGITS);
}

static void cell_perplexity(base_text *out, const report_run *run)
{
    report_fixed(out, exp(last_valid(run)), 2);
}

static void cell_best(base_text *out, const report_run *run)
{
    const report_valid *best = NULL;
    for (size_t i = 0; i < run->n_valids; i++)
        if (isfinite(run->valids[i].loss) && (!best || run->valids[i].loss < best->loss))
            best = &run->valids[i];
    report_fixed(out, best ? best->loss : NAN, LOSS_DIGITS);
    if (best) {
        base_text_add(out, " <small>at step ");
        report_count(out, (double)best->step);
        base_text_add(out, "</small>");
    }
}

static void cell_lr(base_text *out, const report_run *run)
{
    report_number(out, last(run, REPORT_LR));
}

static void cell_norm(base_text *out, const report_run *run)
{
    report_number(out, median(out, run, REPORT_NORM));
    base_text_add(out, " <small>median</small>");
}

static void cell_skipped(base_text *out, const report_run *run)
{
    size_t n = 0;
    for (size_t i = 0; i < run->n_steps; i++)
        n += run->steps[i].skipped;
    report_count(out, (double)n);
}

static void cell_balance(base_text *out, const report_run *run)
{
    report_number(out, last(run, REPORT_BALANCE));
    base_text_add(out, " <small>balance</small> · ");
    report_number(out, last(run, REPORT_Z_LOSS));
    base_text_add(out, " <small>z</small>");
}

static void cell_entropy(base_text *out, const report_run *run)
{
    report_number(out, last(run, REPORT_ENTROPY));
    base_text_add(out, run->n_experts ? " <small>nats, of at most " : "");
    if (run->n_experts) {
        report_number(out, log((double)run->n_experts));
        base_text_add(out, "</small>");
    }
}

static void cell_dead(base_text *out, const report_run *run)
{
    report_count(out, last(run, REPORT_DEAD));
}

static void cell_speed(base_text *out, const report_run *run)
{
    char text[32];
    report_short(median(out, run, REPORT_SPEED), text);
    base_text_printf(out, "%s <small>median</small>", text);
}

static void cell_roof(base_text *out, const report_run *run)
{
    double share = median(out, run, REPORT_ROOF);
    report_fixed(out, share > 0 ? share * 100 : NAN, 1);
    base_text_add(out, share > 0 ? " %" : "");
}

static void cell_time(base_text *out, const report_run *run)
{
    double seconds = 0;
    for (size_t i = 0; i < run->n_steps; i++)
        if (isfinite(run->steps[i].value[REPORT_SECONDS]))
            seconds += run->steps[i].value[REPORT_SECONDS];
    report_duration(out, seconds);
}

static void cell_params(base_text *out, const report_run *run)
{
    char text[32];
    report_short(report_about(run, "plan", "total_params"), text);
    base_text_add(out, text);
    report_short(report_about(run, "plan", "active_params"), text);
    base_text_printf(out, " <small>of which</small> %s <small>active,</small> ", text);
    report_short(report_about(run, "plan", "trained_params"), text);
    base_text_printf(out, "%s <small>trained</small>", text);
}

static void cell_machine(base_text *out, const report_run *run)
{
    static const char *const keys[] = {"level", "blas"};
    report_count(out, report_about(run, NULL, "processes"));
    base_text_add(out, " <small>×</small> ");
    report_count(out, report_about(run, NULL, "threads"));
    for (int i = 0; i < 2; i++) {
        base_text_add(out, " <small>");
        report_escape(out, json_string_value(json_object_get(run->about, keys[i])));
        base_text_add(out, "</small>");
    }
}

static void cell_begun(base_text *out, const report_run *run)
{
    double seconds = report_about(run, NULL, "time");
    time_t moment = isfinite(seconds) && fabs(seconds) < 1e11 ? (time_t)seconds : 0;
    struct tm date;
    char text[32] = "-";
    if (moment > 0 && gmtime_r(&moment, &date))
        strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &date);
    base_text_add(out, text);
    if (run->begun > 1)
        base_text_printf(out, " <small>begun %zu times in all</small>", run->begun);
}

/* The head of a table with a column for each run. */
static void table_head(base_text *out, const report_run *runs, size_t n)
{
    base_text_add(out, "<div class=\"scroll\"><table>\n<thead><tr><th></th>");
    for (size_t r = 0; r < n; r++) {
        base_text_printf(out, "<th scope=\"col\"><i class=\"swatch c%zu\"></i><bdi>",
                         r % REPORT_COLOURS);
        report_escape(out, runs[r].name);
        base_text_add(out, "</bdi></th>");
    }
    base_text_add(out, "</tr></thead>\n<tbody>\n");
}

static void table_end(base_text *out)
{
    base_text_add(out, "</tbody></table></div>\n");
}

void report_numbers(base_text *out, const report_run *runs, size_t n)
{
    static const struct {
        const char *name;
        void (*cell)(base_text *out, const report_run *run);
        bool sparse; /* only of mixtures of experts */
    } rows[] = {
        {"Validation loss", cell_valid, false},
        {"Perplexity", cell_perplexity, false},
        {"Best validation loss", cell_best, false},
        {"Training loss", cell_loss, false},
        {"Steps", cell_steps, false},
        {"Tokens", cell_tokens, false},
        {"Steps left out", cell_skipped, false},
        {"Gradient norm", cell_norm, false},
        {"Learning rate", cell_lr, false},
        {"Routers’ losses", cell_balance, true},
        {"Routers’ entropy", cell_entropy, true},
        {"Experts without a token", cell_dead, true},
        {"Tokens per second", cell_speed, false},
        {"Share of the F32 roof", cell_roof, false},
        {"Time in steps", cell_time, false},
        {"Parameters", cell_params, false},
        {"Processes × threads", cell_machine, false},
        {"Last begun", cell_begun, false},
    };
    bool sparse = false;
    for (size_t r = 0; r < n; r++)
        sparse = sparse || runs[r].load;
    table_head(out, runs, n);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].sparse && !sparse)
            continue;
        base_text_printf(out, "<tr><th scope=\"row\">%s</th>", rows[i].name);
        for (size_t r = 0; r < n; r++) {
            base_text_add(out, "<td>");
            if (rows[i].sparse && !runs[r].load)
                base_text_add(out, "-");
            else
                rows[i].cell(out, &runs[r]);
            base_text_add(out, "</td>");
        }
        base_text_add(out, "</tr>\n");
    }
    table_end(out);
}

/* ---- keys and values ----------------------------------------------------------------------- */

/* Rows by key, in the order in which keys first came; a value for each run. */
typedef struct key_row {
    char *key;
    char **values; /* [n_runs], NULL where a run has none */
} key_row;

typedef struct key_table {
    key_row *rows;
    size_t n, capacity, n_runs;
    size_t left; /* values that this run may still put in */
    bool failed;
} key_table;

static void table_clear(key_table *t)
{
    for (size_t i = 0; i < t->n; i++) {
        for (size_t r = 0; t->rows[i].values && r < t->n_runs; r++)
            base_free(t->rows[i].values[r]);
        base_free(t->rows[i].values);
        base_free(t->rows[i].key);
    }
    base_free(t->rows);
}

/* The row of that key, made where it is missing; NULL when out of memory or rows. */
static key_row *row_of(key_table *t, const char *key)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->rows[i].key, key) == 0)
            return &t->rows[i];
    if (t->n == MAX_KEYS)
        return NULL;
    void *rows = t->rows;
    bool room = base_grow(&rows, &t->capacity, t->n + 1, sizeof *t->rows);
    t->rows = rows;
    if (room) {
        key_row *row = &t->rows[t->n];
        *row = (key_row){base_strdup(key), base_calloc(t->n_runs, sizeof *row->values)};
        if (row->key && row->values) {
            t->n++;
            return row;
        }
        base_free(row->key);
        base_free(row->values);
    }
    t->failed = true;
    return NULL;
}

/* Takes the value over. */
static void put(key_table *t, const char *key, size_t run, char *value)
{
    key_row *row = value && t->left > 0 ? row_of(t, key) : NULL;
    t->left -= t->left > 0;
    t->failed = t->failed || !value;
    if (row) {
        base_free(row->values[run]);
        row->values[run] = value;
    } else {
        base_free(value);
    }
}

static bool has_parts(const json_t *value)
{
    const json_t *first = json_array_get(value, 0);
    return (json_is_object(value) && json_object_size(value) > 0) || json_is_object(first) ||
           json_is_array(first);
}

static void flatten(key_table *t, size_t run, const char *path, const json_t *value, int depth);

static void flatten_part(key_table *t, size_t run, const char *path, const char *format,
                         const char *key, size_t index, const json_t *value, int depth)
{
    base_text part = {0};
    base_text_add(&part, path);
    if (key)
        base_text_printf(&part, format, *path ? "." : "", key);
    else
        base_text_printf(&part, "[%zu]", index);
    if (part.failed)
        t->failed = true;
    else
        flatten(t, run, part.data, value, depth + 1);
    base_text_free(&part);
}

/* Objects become "key.key", arrays of objects "key[0].key". */
static void flatten(key_table *t, size_t run, const char *path, const json_t *value, int depth)
{
    if (has_parts(value) && depth < MAX_DEPTH) {
        const char *key;
        json_t *part;
        json_object_foreach((json_t *)value, key, part)
        {
            flatten_part(t, run, path, "%s%s", key, 0, part, depth);
        }
        for (size_t i = 0; i < json_array_size(value); i++)
            flatten_part(t, run, path, "", NULL, i, json_array_get(value, i), depth);
        return;
    }
    char *text =
        json_is_string(value) ? base_strdup(json_string_value(value)) : train_json_text(value);
    size_t size = text ? strlen(text) : 0;
    if (size > 0 && text[size - 1] == '\n' && !json_is_string(value))
        text[size - 1] = '\0';
    put(t, path, run, text);
}

static void write_rows(base_text *out, const key_table *t, bool compared)
{
    for (size_t i = 0; i < t->n; i++) {
        const key_row *row = &t->rows[i];
        bool differs = false;
        for (size_t r = 1; compared && r < t->n_runs; r++)
            differs = differs || !row->values[r] != !row->values[0] ||
                      (row->values[r] && strcmp(row->values[r], row->values[0]) != 0);
        base_text_printf(out, "<tr%s><th scope=\"row\"><code>",
                         differs ? " class=\"differs\"" : "");
        report_escape(out, row->key);
        base_text_add(out, "</code></th>");
        for (size_t r = 0; r < t->n_runs; r++) {
            base_text_add(out, "<td><bdi>");
            report_escape(out, row->values[r] ? row->values[r] : "-");
            base_text_add(out, "</bdi></td>");
        }
        base_text_add(out, "</tr>\n");
    }
    if (t->n == MAX_KEYS)
        base_text_printf(out, "<tr><td>%d rows are shown, and no more.</td></tr>\n", MAX_KEYS);
}

/* `compared`: rows whose values differ are set off. */
static void write_table(base_text *out, const char *title, const char *note, key_table *t,
                        const report_run *runs, bool compared)
{
    if (t->failed)
        out->failed = true;
    if (t->n > 0) {
        base_text_printf(out, "<h2>%s</h2>\n<p class=\"note\">%s</p>\n", title, note);
        table_head(out, runs, t->n_runs);
        write_rows(out, t, compared);
        table_end(out);
    }
    table_clear(t);
}

void report_recipes(base_text *out, const report_run *runs, size_t n)
{
    key_table t = {.n_runs = n};
    for (size_t r = 0; r < n; r++) {
        const json_t *recipe = json_object_get(runs[r].about, "recipe");
        t.left = MAX_KEYS;
        if (json_is_object(recipe))
            flatten(&t, r, "", recipe, 0);
    }
    write_table(out, "Recipe", n > 1 ? "What differs is set off." : "With every default filled in.",
                &t, runs, true);
}

void report_sources(base_text *out, const report_run *runs, size_t n)
{
    key_table t = {.n_runs = n};
    for (size_t r = 0; r < n; r++) {
        const char *name;
        json_t *loss;
        t.left = MAX_KEYS;
        if (runs[r].n_valids == 0)
            continue;
        json_object_foreach(runs[r].valids[runs[r].n_valids - 1].sources, name, loss)
        {
            base_text text = {0};
            report_fixed(&text, json_is_number(loss) ? json_number_value(loss) : NAN, LOSS_DIGITS);
            put(&t, name, r, base_text_take(&text, NULL));
        }
    }
    write_table(out, "Validation loss by source", "Nats per token, when last measured.", &t, runs,
                false);
}
