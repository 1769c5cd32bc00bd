#include "train/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"

/* ---- parts of the page --------------------------------------------------------------------- */

static void write_head(base_text *out, const report_run *runs, size_t n)
{
    base_text_add(out, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                       "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                       "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src "
                       "'none';style-src 'unsafe-inline'\">\n<title>");
    for (size_t r = 0; r < n && r < 3; r++) {
        base_text_add(out, r > 0 ? ", " : "");
        report_escape(out, runs[r].name);
    }
    base_text_printf(out, "%s: training</title>\n<style>\n%s</style>\n</head>\n<body>\n",
                     n > 3 ? ", …" : "", report_css);
    base_text_add(out, "<header><h1>Training ");
    if (n > 1) {
        base_text_printf(out, "of %zu runs", n);
    } else {
        base_text_add(out, "of <bdi>");
        report_escape(out, runs[0].name);
        base_text_add(out, "</bdi>");
    }
    base_text_add(out, "</h1>\n");
}

static void write_warning(base_text *out, const report_run *run, const char *problem)
{
    base_text_add(out, "<p class=\"warn\"><bdi>");
    report_escape(out, run->name);
    base_text_printf(out, "</bdi>: %s.</p>\n", problem);
}

static void write_warnings(base_text *out, const report_run *runs, size_t n)
{
    for (size_t r = 0; r < n; r++) {
        char text[160];
        if (runs[r].n_steps == 0)
            write_warning(out, &runs[r], "no step has been taken yet");
        if (runs[r].unfinished)
            write_warning(out, &runs[r], "the last line of its metrics is incomplete and left out");
        snprintf(text, sizeof text,
                 "%zu lines of its metrics, the first of them line %zu, cannot be read and are "
                 "left out",
                 runs[r].broken, runs[r].first_broken);
        if (runs[r].broken == 1)
            snprintf(text, sizeof text,
                     "line %zu of its metrics cannot be read and is left out; a run that is killed "
                     "leaves such a line",
                     runs[r].first_broken);
        if (runs[r].broken > 0)
            write_warning(out, &runs[r], text);
    }
}

static void write_legend(base_text *out, const report_run *runs, size_t n)
{
    base_text_add(out, "<ul class=\"legend\">\n");
    for (size_t r = 0; r < n; r++) {
        base_text_printf(out,
                         "<li><svg class=\"key c%zu\" viewBox=\"0 0 24 12\"><path class=\"line%s\" "
                         "d=\"M1 6h22\"/></svg><bdi>",
                         r % REPORT_COLOURS, r >= REPORT_COLOURS ? " again" : "");
        report_escape(out, runs[r].name);
        base_text_add(out, "</bdi></li>\n");
    }
    base_text_add(out, "</ul>\n");
}

static void tile(base_text *out, const char *value, const char *name)
{
    base_text_printf(out, "<div><b>%s</b>%s</div>\n", value, name);
}

static void number_tile(base_text *out, double value, int digits, const char *name)
{
    base_text text = {0};
    if (isfinite(value)) {
        report_fixed(&text, value, digits);
        tile(out, text.data ? text.data : "", name);
    }
    out->failed = out->failed || text.failed;
    base_text_free(&text);
}

/* What one run has come to, at a glance. */
static void write_tiles(base_text *out, const report_run *run)
{
    char text[32];
    if (run->n_steps == 0)
        return;
    const report_step *last = &run->steps[run->n_steps - 1];
    double valid = run->n_valids ? run->valids[run->n_valids - 1].loss : NAN;
    size_t steps;
    base_text_add(out, "<div class=\"tiles\">\n");
    number_tile(out, valid, 3, "validation loss");
    number_tile(out, exp(valid), 2, "perplexity");
    number_tile(out, report_last_loss(run, &steps), 3, "training loss");
    base_text count = {0};
    report_count(&count, (double)last->step);
    tile(out, count.data ? count.data : "", "steps");
    out->failed = out->failed || count.failed;
    base_text_free(&count);
    if (isfinite(last->value[REPORT_TOTAL_TOKENS])) {
        report_short(last->value[REPORT_TOTAL_TOKENS], text);
        tile(out, text, "tokens");
    }
    double params = report_about(run, "plan", "total_params");
    if (isfinite(params)) {
        report_short(params, text);
        tile(out, text, "parameters");
    }
    base_text_add(out, "</div>\n");
}

static void write_loads(base_text *out, const report_run *runs, size_t n)
{
    bool any = false;
    for (size_t r = 0; r < n; r++) {
        if (!runs[r].load)
            continue;
        if (!any) {
            base_text_add(out, "<h2>Load of experts</h2>\n<p class=\"note\">The share of tokens "
                               "that each expert got, against an even share.</p>\n");
            report_heat_legend(out);
            base_text_add(out, "<div class=\"charts\">\n");
        }
        any = true;
        report_heat_write(out, &runs[r], r);
    }
    base_text_add(out, any ? "</div>\n" : "");
}

static void write_page(base_text *out, const report_run *runs, size_t n)
{
    write_head(out, runs, n);
    write_warnings(out, runs, n);
    base_text_add(out, "</header>\n");
    if (n > 1)
        write_legend(out, runs, n);
    else
        write_tiles(out, &runs[0]);
    report_curves_write(out, runs, n);
    write_loads(out, runs, n);
    base_text_add(out, "<h2>Results</h2>\n");
    report_numbers(out, runs, n);
    report_sources(out, runs, n);
    report_recipes(out, runs, n);
    base_text_add(out, "<footer>Written by marco report.</footer>\n</body>\n</html>\n");
}

/* ---- the report ---------------------------------------------------------------------------- */

/* A page in the place of what it is made from would be the end of the run's metrics. */
static marco_status check_place(const char *run, const char *to, marco_error *error)
{
    struct stat source, place;
    char *metrics = base_path_join(run, REPORT_METRICS);
    if (!metrics)
        return base_fail_memory(error, strlen(run), "a path");
    marco_status status = MARCO_OK;
    if (stat(metrics, &source) == 0 && stat(to, &place) == 0 && source.st_dev == place.st_dev &&
        source.st_ino == place.st_ino)
        status = base_fail(error, MARCO_ERROR_ARGUMENT,
                           "%s holds the metrics that the report is made from; give another name "
                           "for the page",
                           to);
    base_free(metrics);
    return status;
}

static marco_status write_file(const char *to, bool overwrite, const base_text *page,
                               marco_error *error)
{
    base_output *output = NULL;
    marco_status status = base_output_create(to, overwrite, &output, error);
    if (status)
        return status;
    status = base_output_write(output, page->data, page->size, error);
    if (status)
        base_output_abort(output);
    else
        status = base_output_commit(output, error);
    return status;
}

marco_status marco_train_report(const char *const *runs, size_t n_runs, const char *to,
                                bool overwrite, marco_error *error)
{
    if (!runs || n_runs == 0 || !to)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "a report needs the folder of a run and the name of a file to write");
    report_run *read = base_calloc(n_runs, sizeof *read);
    base_text page = {0};
    marco_status status = MARCO_OK;
    if (!read)
        status = base_fail_memory(error, n_runs * sizeof *read, "runs");
    for (size_t r = 0; !status && r < n_runs; r++)
        status = check_place(runs[r], to, error);
    for (size_t r = 0; !status && r < n_runs; r++)
        status = report_read(runs[r], &read[r], error);
    if (!status) {
        write_page(&page, read, n_runs);
        status = page.failed ? base_fail_memory(error, page.size, "the report")
                             : write_file(to, overwrite, &page, error);
    }
    base_text_free(&page);
    for (size_t r = 0; read && r < n_runs; r++)
        report_clear(&read[r]);
    base_free(read);
    return status;
}
