/* Inside marco_train_report: what is read of a run, and the pieces of the page. */
#ifndef TRAIN_REPORT_H
#define TRAIN_REPORT_H

#include "base/text.h"
#include "format/json.h"
#include "marco/train.h"

/* ---- report_read.c: RUN/metrics.jsonl ------------------------------------------------------ */

/* Numbers of a step. What a line lacks, or says as null, is NAN. */
typedef enum report_field {
    REPORT_LOSS,
    REPORT_BALANCE,
    REPORT_Z_LOSS,
    REPORT_LR,
    REPORT_NORM,
    REPORT_TOTAL_TOKENS,
    REPORT_SECONDS,
    REPORT_SPEED,
    REPORT_ROOF,
    REPORT_DEAD,
    REPORT_ENTROPY,
    REPORT_FIELDS
} report_field;

typedef struct report_step {
    int64_t step;
    size_t line; /* its number in the file */
    bool skipped;
    double value[REPORT_FIELDS];
} report_step;

typedef struct report_valid {
    int64_t step;
    size_t line;
    double loss;
    json_t *sources; /* object: name to loss; NULL: not said */
} report_valid;

typedef struct report_run {
    char *name;    /* the folder's, UTF-8 */
    json_t *about; /* the last line of kind "run"; NULL: there is none */
    size_t begun;  /* how often the run was begun or gone on with */

    report_step *steps; /* [n_steps] by step, each once */
    size_t n_steps, steps_capacity;
    report_valid *valids; /* [n_valids] by step, each once */
    size_t n_valids, valids_capacity;

    double *load;    /* [n_layers, n_experts] shares of tokens, at load_step; NULL: none */
    double *entropy; /* [n_layers] of the routers then; NAN where it is not said */
    size_t n_layers, n_experts;
    int64_t load_step;

    size_t broken;       /* lines that could not be read, but for the last */
    size_t first_broken; /* the number of the first */
    bool unfinished;     /* the last line is incomplete */
} report_run;

/* `path`: the run's folder. Going on from step k drops what an earlier attempt measured past k;
 * otherwise the last line about a step counts. Lines that cannot be read are left out and counted;
 * MARCO_ERROR_FORMAT where no line can. `run` is to be cleared in any case. */
marco_status report_read(const char *path, report_run *run, marco_error *error);
void report_clear(report_run *run);

/* The step's own numbers, or the last before it; NULL where there are none. */
const report_step *report_find(const report_run *run, int64_t step);

/* A number of the run's last line of kind "run": `key`, or key of its object `group` (NULL: of the
 * line itself). NAN where there is none. */
double report_about(const report_run *run, const char *group, const char *key);

/* ---- report_number.c: numbers and text for people ------------------------------------------ */

/* Text as HTML content or the value of a quoted attribute. NULL is nothing. */
void report_escape(base_text *out, const char *text);

/* "12,345" */
void report_count(base_text *out, double value);
/* "1.31 B", "34.1 k", "512"; the unit follows, as in "1.31 B tokens" */
void report_short(double value, char out[32]);
/* A number to read off a scale whose numbers differ by `step` and are at most as large as `most`:
 * "0.25", "20k", "3e-4" */
void report_tick(double value, double step, double most, char out[32]);
/* "5 h 12 min" */
void report_duration(base_text *out, double seconds);
/* "2.940" for 3 digits; "-" for NAN and what is too large to read */
void report_fixed(base_text *out, double value, int digits);
/* Four significant digits, "3.142", "0.0003"; "-" for NAN */
void report_number(base_text *out, double value);

/* ---- report_chart.c ------------------------------------------------------------------------ */

/* In the order of drawing. */
typedef enum report_style {
    REPORT_FAINT, /* a line in the background, which may leave the chart */
    REPORT_LINE,
    REPORT_DOTS, /* measured now and then: dots on a thin line */
} report_style;

typedef struct report_curve {
    report_style style;
    size_t colour;     /* of REPORT_COLOURS; past them again, with dashes */
    const char *label; /* at its end, in the margin; NULL: none */
    double *x, *y;     /* [n] by x; NAN in y is a gap */
    size_t n;
} report_curve;

typedef struct report_mark {
    double x;
    size_t colour;
} report_mark;

typedef struct report_chart {
    const char *title, *note; /* the note explains; NULL: none */
    const char *x_label;
    bool wide;            /* over the whole width of the page, and higher */
    bool whole_row;       /* over the whole width of the page */
    bool log;             /* y: powers of ten, where all numbers are above 0 */
    bool from_zero;       /* y begins at 0 */
    bool whole;           /* y counts things */
    bool all;             /* the background counts for the range of y too */
    double x_from;        /* leave out what lies before; -INFINITY: nothing */
    report_curve *curves; /* [n_curves] */
    size_t n_curves;
    const report_mark *marks; /* [n_marks] on the upper edge */
    size_t n_marks;
    double level; /* a line across, where it is in range or within reach of it; NAN: none */
    const char *level_label;
} report_chart;

void report_chart_write(base_text *out, const report_chart *chart);

/* At most about `most` points of a curve, in place: of each part the lowest and the highest. */
void report_thin(report_curve *curve, size_t most);

/* ---- report_heat.c ------------------------------------------------------------------------- */

/* Shares of tokens, a row for each layer and a column for each expert. */
void report_heat_write(base_text *out, const report_run *run, size_t colour);
/* What the colours mean. */
void report_heat_legend(base_text *out);

/* ---- report_curves.c ----------------------------------------------------------------------- */

/* The page's charts but for the load's. */
void report_curves_write(base_text *out, const report_run *runs, size_t n);

/* ---- report_table.c ------------------------------------------------------------------------ */

void report_numbers(base_text *out, const report_run *runs, size_t n);
void report_sources(base_text *out, const report_run *runs, size_t n);
void report_recipes(base_text *out, const report_run *runs, size_t n);

/* The mean loss of the last steps; *steps of them. NAN where there are none. */
double report_last_loss(const report_run *run, size_t *steps);

/* ---- report_style.c ------------------------------------------------------------------------ */

extern const char report_css[];
/* Runs past this number have the colours of the first again, with dashes. */
enum { REPORT_COLOURS = 8 };

#endif
