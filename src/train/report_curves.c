#include <math.h>

#include "base/memory.h"
#include "train/report.h"

enum {
    POINTS = 1000,     /* of a curve, about */
    MIN_SMOOTHED = 50, /* steps that are worth a mean */
    MIN_HALVED = 100,  /* steps whose second half is worth a chart */
};

/* What a chart shows of every run's steps. */
typedef struct subject {
    report_field field;
    const char *title, *note;
    bool sparse; /* only of mixtures of experts */
    bool smooth, log, from_zero, whole;
    bool optional; /* not where it is always 0: it was not asked for */
} subject;

static const subject subjects[] = {
    {REPORT_NORM, "Gradient norm", "before clipping", .smooth = true, .log = true},
    {REPORT_LR, "Learning rate", "", .from_zero = true},
    {REPORT_ENTROPY, "Entropy of the routers", "nats, mean over layers and tokens", .sparse = true,
     .smooth = true},
    {REPORT_DEAD, "Experts without a token", "in a step, over all layers", .sparse = true,
     .smooth = true, .from_zero = true, .whole = true},
    {REPORT_BALANCE, "Balancing loss", "of the routers, coefficient included", .sparse = true,
     .smooth = true, .from_zero = true, .optional = true},
    {REPORT_Z_LOSS, "Z-loss", "of the routers, coefficient included", .sparse = true,
     .smooth = true, .from_zero = true, .optional = true},
    {REPORT_SPEED, "Tokens per second", "", .smooth = true, .from_zero = true},
};

enum { N_SUBJECTS = sizeof subjects / sizeof *subjects };

/* All that is drawn at once. */
typedef struct plot {
    const report_run *runs;
    size_t n;
    bool by_tokens;
    report_curve *curves; /* room for three a run */
    size_t n_curves;
    report_mark *marks;
    size_t n_marks, marks_capacity;
    bool failed;
} plot;

static void plot_clear(plot *p)
{
    for (size_t i = 0; i < p->n_curves; i++) {
        base_free(p->curves[i].x);
        base_free(p->curves[i].y);
    }
    p->n_curves = 0;
    p->n_marks = 0;
}

/* A curve with room for n points; NULL when out of memory. */
static report_curve *add_curve(plot *p, report_style style, size_t run, size_t n)
{
    report_curve curve = {.style = style,
                          .colour = run,
                          .x = base_alloc_array(n, sizeof(double)),
                          .y = base_alloc_array(n, sizeof(double)),
                          .n = n};
    if (!curve.x || !curve.y) {
        base_free(curve.x);
        base_free(curve.y);
        p->failed = true;
        return NULL;
    }
    p->curves[p->n_curves] = curve;
    return &p->curves[p->n_curves++];
}

static double x_of(const plot *p, const report_step *step)
{
    return p->by_tokens ? step->value[REPORT_TOTAL_TOKENS] : (double)step->step;
}

/* ---- curves -------------------------------------------------------------------------------- */

static report_curve *add_steps(plot *p, report_style style, size_t run, report_field field)
{
    const report_run *r = &p->runs[run];
    report_curve *curve = add_curve(p, style, run, r->n_steps);
    for (size_t i = 0; curve && i < r->n_steps; i++) {
        curve->x[i] = x_of(p, &r->steps[i]);
        curve->y[i] = r->steps[i].value[field];
    }
    return curve;
}

static bool is_counted(const report_step *step, report_field field)
{
    return !step->skipped && isfinite(step->value[field]);
}

/* Each number becomes the mean of those around it: of 2% of all, at the beginning, where a curve
 * may be steep, of as many before it as after it. Gaps stay. */
static void smooth(report_curve *curve, const report_run *run, report_field field)
{
    size_t half = curve->n / 100 > 1 ? curve->n / 100 : 1;
    double sum = 0;
    size_t count = 0, from = 0, to = 0; /* what the sum is of */
    for (size_t i = 0; i < curve->n; i++) {
        size_t back = i < half ? i : half;
        size_t end = i + back + 1 < curve->n ? i + back + 1 : curve->n;
        for (; to < end; to++) {
            bool counts = is_counted(&run->steps[to], field);
            sum += counts ? run->steps[to].value[field] : 0;
            count += counts;
        }
        for (; from < i - back; from++) {
            bool counts = is_counted(&run->steps[from], field);
            sum -= counts ? run->steps[from].value[field] : 0;
            count -= counts;
        }
        curve->y[i] = is_counted(&run->steps[i], field) ? sum / (double)count : NAN;
    }
}

/* The steps' numbers: many as their mean, with themselves behind it where `raw`. Returns the curve
 * in front. */
static report_curve *add_field(plot *p, size_t run, report_field field, bool smoothed, bool raw)
{
    if (!smoothed || p->runs[run].n_steps < MIN_SMOOTHED)
        return add_steps(p, REPORT_LINE, run, field);
    if (raw)
        add_steps(p, REPORT_FAINT, run, field);
    report_curve *mean = add_steps(p, REPORT_LINE, run, field);
    if (mean)
        smooth(mean, &p->runs[run], field);
    return mean;
}

static report_curve *add_valids(plot *p, size_t run)
{
    const report_run *r = &p->runs[run];
    report_curve *curve = add_curve(p, REPORT_DOTS, run, r->n_valids);
    for (size_t i = 0; curve && i < r->n_valids; i++) {
        const report_step *step = report_find(r, r->valids[i].step);
        curve->x[i] = p->by_tokens ? (step ? x_of(p, step) : 0) : (double)r->valids[i].step;
        curve->y[i] = r->valids[i].loss;
    }
    return curve;
}

static void add_marks(plot *p, size_t run)
{
    const report_run *r = &p->runs[run];
    for (size_t i = 0; i < r->n_steps; i++) {
        if (!r->steps[i].skipped)
            continue;
        void *marks = p->marks;
        bool room = base_grow(&marks, &p->marks_capacity, p->n_marks + 1, sizeof *p->marks);
        p->marks = marks;
        if (!room) {
            p->failed = true;
            return;
        }
        p->marks[p->n_marks++] = (report_mark){x_of(p, &r->steps[i]), run};
    }
}

/* ---- charts -------------------------------------------------------------------------------- */

static void write_chart(base_text *out, plot *p, report_chart chart)
{
    for (size_t i = 0; i < p->n_curves; i++)
        report_thin(&p->curves[i], POINTS);
    chart.x_label = p->by_tokens ? "tokens" : "step";
    chart.curves = p->curves;
    chart.n_curves = p->n_curves;
    chart.marks = p->marks;
    chart.n_marks = p->n_marks;
    report_chart_write(out, &chart);
    plot_clear(p);
}

static void write_loss(base_text *out, plot *p, const char *title, const char *note, double x_from)
{
    for (size_t r = 0; r < p->n; r++) {
        report_curve *train = add_field(p, r, REPORT_LOSS, true, isinf(x_from));
        report_curve *valid = add_valids(p, r);
        if (train && p->runs[r].n_steps > 0)
            train->label = p->n > 1 ? p->runs[r].name : "training";
        if (valid && p->n == 1)
            valid->colour = 1;
        if (valid && (p->n == 1 || p->runs[r].n_steps == 0))
            valid->label = p->n > 1 ? p->runs[r].name : "validation";
    }
    write_chart(
        out, p,
        (report_chart){.title = title, .note = note, .wide = true, .x_from = x_from, .level = NAN});
}

static void write_subject(base_text *out, plot *p, const subject *s, bool whole_row)
{
    size_t n_experts = 0;
    for (size_t r = 0; r < p->n; r++) {
        report_curve *curve =
            s->sparse && !p->runs[r].load ? NULL : add_field(p, r, s->field, s->smooth, true);
        if (curve)
            curve->label = p->n > 1 ? p->runs[r].name : NULL;
        if (s->field == REPORT_NORM)
            add_marks(p, r);
        n_experts = p->runs[r].n_experts > n_experts ? p->runs[r].n_experts : n_experts;
    }
    bool even = s->field == REPORT_ENTROPY && n_experts > 1;
    write_chart(out, p,
                (report_chart){.title = s->title,
                               .note = p->n_marks > 0
                                           ? "before clipping; circles: steps that were left out"
                                           : s->note,
                               .whole_row = whole_row,
                               .log = s->log,
                               .from_zero = s->from_zero,
                               .whole = s->whole,
                               .all = s->log,
                               .x_from = -INFINITY,
                               .level = even ? log((double)n_experts) : NAN,
                               .level_label = "all experts alike"});
}

/* Runs whose steps are of different sizes are compared by tokens, where all say how many. */
static bool is_by_tokens(const report_run *runs, size_t n)
{
    double each = NAN;
    bool differs = false;
    for (size_t r = 0; r < n; r++) {
        for (size_t i = 0; i < runs[r].n_steps; i++)
            if (!isfinite(runs[r].steps[i].value[REPORT_TOTAL_TOKENS]))
                return false;
        if (runs[r].n_steps == 0)
            continue;
        const report_step *last = &runs[r].steps[runs[r].n_steps - 1];
        double size = last->value[REPORT_TOTAL_TOKENS] / (double)last->step;
        differs = differs || fabs(size - each) > 0.02 * each;
        each = size;
    }
    return differs;
}

static bool is_shown(const plot *p, const subject *s)
{
    bool sparse = false, used = !s->optional;
    for (size_t r = 0; r < p->n; r++) {
        const report_run *run = &p->runs[r];
        sparse = sparse || run->load;
        for (size_t i = 0; !used && i < run->n_steps; i++)
            used = isfinite(run->steps[i].value[s->field]) && run->steps[i].value[s->field] != 0;
    }
    return used && (sparse || !s->sparse);
}

static void write_losses(base_text *out, plot *p)
{
    size_t most = 0;
    double end = INFINITY; /* of the shortest run that is long enough */
    for (size_t r = 0; r < p->n; r++) {
        size_t n = p->runs[r].n_steps;
        most = n > most ? n : most;
        if (n >= MIN_HALVED)
            end = fmin(end, x_of(p, &p->runs[r].steps[n - 1]));
    }
    write_loss(out, p, "Loss",
               most < MIN_SMOOTHED
                   ? "nats per token; line: training, dots: validation"
                   : "nats per token; line: training, the mean of the 2% of steps around, faint: "
                     "single steps, dots: validation",
               -INFINITY);
    if (isfinite(end))
        write_loss(out, p, "Loss, later part", "the same without single steps, closer", end / 2);
}

void report_curves_write(base_text *out, const report_run *runs, size_t n)
{
    plot p = {.runs = runs, .n = n, .by_tokens = is_by_tokens(runs, n)};
    p.curves = base_calloc(n, 3 * sizeof *p.curves);
    if (!p.curves) {
        out->failed = true;
        return;
    }
    base_text_add(out, "<div class=\"charts\">\n");
    write_losses(out, &p);
    size_t shown = 0, left = 0;
    for (size_t i = 0; i < N_SUBJECTS; i++)
        left += is_shown(&p, &subjects[i]);
    for (size_t i = 0; i < N_SUBJECTS; i++) {
        if (!is_shown(&p, &subjects[i]))
            continue;
        /* Two stand side by side; the last may have nobody beside it. */
        write_subject(out, &p, &subjects[i], --left == 0 && shown % 2 == 0);
        shown++;
    }
    base_text_add(out, "</div>\n");
    out->failed = out->failed || p.failed;
    base_free(p.curves);
    base_free(p.marks);
}
