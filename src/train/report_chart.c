#include <float.h>
#include <math.h>
#include <string.h>

#include "train/report.h"

/* A chart is an SVG as wide as its place and of fixed height: lines are in a nested one, which is
 * stretched to fill it; texts stand at percentages, so that they keep their size on any screen. */
enum {
    UNITS = 10000, /* of the nested SVG, along both sides */
    HEIGHT = 240,  /* pixels */
    WIDE_HEIGHT = 340,
    MAX_TICKS = 16,
    MAX_LABELS = 24,
    LABEL_SPACE = 15, /* pixels from one label's line to the next */
    LABEL_LENGTH = 20 /* characters */
};

typedef struct scale {
    double low, high;
    bool log;
    double ticks[MAX_TICKS];
    size_t n_ticks;
    double step; /* between ticks; of a log scale 0 */
} scale;

/* ---- scales -------------------------------------------------------------------------------- */

/* 1, 2 or 5 times a power of ten, about range / wanted. */
static double nice_step(double range, int wanted)
{
    double rough = range / wanted, power = pow(10, floor(log10(rough)));
    double digit = rough / power;
    return power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
}

static void set_ticks(scale *s, int wanted, double least)
{
    s->step = fmax(nice_step(s->high - s->low, wanted), least);
    double first = ceil(s->low / s->step - 1e-9);
    while (s->n_ticks < MAX_TICKS && (first + (double)s->n_ticks) * s->step <= s->high) {
        s->ticks[s->n_ticks] = (first + (double)s->n_ticks) * s->step;
        s->n_ticks++;
    }
}

/* Powers of ten, or the ones of few powers that begin with 1, 2 and 5. */
static void set_log_ticks(scale *s)
{
    static const double digits[] = {1, 2, 5};
    double powers = log10(s->high) - log10(s->low);
    int every = powers > 8 ? (int)ceil(powers / 8) : 1, n_digits = powers < 3 ? 3 : 1;
    for (int power = (int)floor(log10(s->low)); power <= (int)ceil(log10(s->high)); power++) {
        for (int d = 0; power % every == 0 && d < n_digits; d++) {
            double tick = digits[d] * pow(10, power);
            if (tick >= s->low && tick <= s->high && s->n_ticks < MAX_TICKS)
                s->ticks[s->n_ticks++] = tick;
        }
    }
}

/* What the lines reach; those in the background may leave the chart. */
static void reach(const report_chart *chart, bool of_x, double *low, double *high)
{
    *low = INFINITY;
    *high = -INFINITY;
    for (size_t c = 0; c < chart->n_curves; c++) {
        const report_curve *curve = &chart->curves[c];
        bool counts = chart->all || curve->style != REPORT_FAINT;
        for (size_t i = 0; counts && i < curve->n; i++) {
            double value = of_x ? curve->x[i] : curve->y[i];
            if (!isfinite(curve->y[i]) || curve->x[i] < chart->x_from)
                continue;
            *low = fmin(*low, value);
            *high = fmax(*high, value);
        }
    }
}

static scale x_scale(const report_chart *chart)
{
    scale s = {0};
    reach(chart, true, &s.low, &s.high);
    double margin = s.high > s.low ? (s.high - s.low) * 0.01 : 1;
    s.low -= margin;
    s.high += margin;
    set_ticks(&s, 6, 1);
    return s;
}

static scale y_scale(const report_chart *chart)
{
    scale s = {0};
    reach(chart, false, &s.low, &s.high);
    s.log = chart->log && s.low > 0 && s.high / s.low > 20;
    if (s.log) {
        s.low /= 1.3;
        s.high = fmin(s.high * 1.3, DBL_MAX);
        set_log_ticks(&s);
        return s;
    }
    if (isfinite(chart->level) && chart->level > s.high &&
        chart->level - s.high <= fmax(s.high - s.low, 0.5 * fabs(s.high)))
        s.high = chart->level;
    if (chart->from_zero)
        s.low = fmin(s.low, 0);
    double range = s.high - s.low, size = fmax(fabs(s.low), fabs(s.high));
    if (range <= size * 1e-9)
        range = size > 0 ? size * 0.1 : 1;
    s.high += range * 0.06;
    if (!chart->from_zero || s.low < 0)
        s.low -= range * 0.06;
    set_ticks(&s, chart->wide ? 7 : 5, chart->whole ? 1 : 0);
    return s;
}

/* The share of the way from low to high. */
static double place(const scale *s, double value)
{
    return s->log ? (log(value) - log(s->low)) / (log(s->high) - log(s->low))
                  : (value - s->low) / (s->high - s->low);
}

/* ---- drawing ------------------------------------------------------------------------------- */

/* Percent with two digits, without the locale's comma. */
static void add_percent(base_text *out, const char *key, double share)
{
    long long hundredths = llround(fmin(fmax(share, -1), 2) * 10000);
    base_text_printf(out, " %s=\"%s%lld.%02lld%%\"", key, hundredths < 0 ? "-" : "",
                     llabs(hundredths) / 100, llabs(hundredths) % 100);
}

/* Ticks of a log scale differ too much to be written alike. */
static void write_tick(const scale *s, size_t i, char out[32])
{
    double tick = s->ticks[i];
    double most = fmax(fabs(s->ticks[0]), fabs(s->ticks[s->n_ticks - 1]));
    report_tick(tick, s->log ? tick : s->step, s->log ? tick : most, out);
}

static void write_grid(base_text *out, const scale *x, const scale *y)
{
    char text[32];
    for (size_t i = 0; i < y->n_ticks; i++) {
        double at = 1 - place(y, y->ticks[i]);
        base_text_add(out, "<line class=\"grid\" x2=\"100%\"");
        add_percent(out, "y1", at);
        add_percent(out, "y2", at);
        base_text_add(out, "/><text class=\"tick\" x=\"0\" dx=\"-8\" dy=\".32em\" "
                           "text-anchor=\"end\"");
        add_percent(out, "y", at);
        write_tick(y, i, text);
        base_text_printf(out, ">%s</text>\n", text);
    }
    for (size_t i = 0; i < x->n_ticks; i++) {
        double at = place(x, x->ticks[i]);
        base_text_add(out, "<line class=\"notch\" y1=\"100%\" y2=\"100%\"");
        add_percent(out, "x1", at);
        add_percent(out, "x2", at);
        base_text_add(out, "/><text class=\"tick\" y=\"100%\" dy=\"18\" text-anchor=\"middle\"");
        add_percent(out, "x", at);
        write_tick(x, i, text);
        base_text_printf(out, ">%s</text>\n", text);
    }
    base_text_add(out, "<line class=\"axis\" x2=\"100%\" y1=\"100%\" y2=\"100%\"/>\n");
}

static int units(double share)
{
    return (int)lround(fmin(fmax(share, -1), 2) * UNITS);
}

/* Gaps begin anew; a point between two gaps is a dot. */
static void write_path(base_text *out, const report_curve *curve, const scale *x, const scale *y,
                       bool dots)
{
    bool pen = false;
    for (size_t i = 0; i < curve->n; i++) {
        if (!isfinite(curve->y[i]) || (y->log && curve->y[i] <= 0)) {
            pen = false;
            continue;
        }
        double from = place(x, curve->x[i]);
        if (from < -0.5)
            continue;
        base_text_printf(out, "%s%d %d%s", pen && !dots ? "L" : "M", units(from),
                         units(1 - place(y, curve->y[i])), pen && !dots ? "" : "h0");
        pen = true;
    }
}

static void write_curve(base_text *out, const report_curve *curve, const scale *x, const scale *y)
{
    static const char *const classes[] = {
        [REPORT_LINE] = "line", [REPORT_FAINT] = "faint", [REPORT_DOTS] = "thread"};
    size_t colour = curve->colour % REPORT_COLOURS;
    const char *dashed = curve->colour >= REPORT_COLOURS ? " again" : "";
    base_text_printf(out, "<path class=\"%s c%zu%s\" d=\"", classes[curve->style], colour, dashed);
    write_path(out, curve, x, y, false);
    base_text_add(out, "\"/>\n");
    if (curve->style == REPORT_DOTS) {
        base_text_printf(out, "<path class=\"dots c%zu\" d=\"", colour);
        write_path(out, curve, x, y, true);
        base_text_add(out, "\"/>\n");
    }
}

static void write_curves(base_text *out, const report_chart *chart, const scale *x, const scale *y)
{
    base_text_printf(out,
                     "<svg viewBox=\"0 0 %d %d\" preserveAspectRatio=\"none\" "
                     "width=\"100%%\" height=\"100%%\">\n",
                     UNITS, UNITS);
    for (int style = REPORT_FAINT; style <= REPORT_DOTS; style++)
        for (size_t c = 0; c < chart->n_curves; c++)
            if (chart->curves[c].style == (report_style)style)
                write_curve(out, &chart->curves[c], x, y);
    base_text_add(out, "</svg>\n");
    for (size_t i = 0; i < chart->n_marks; i++) {
        double at = place(x, chart->marks[i].x);
        if (at < 0 || at > 1)
            continue;
        base_text_printf(out, "<circle class=\"mark c%zu\" cy=\"5\" r=\"3.5\"",
                         chart->marks[i].colour % REPORT_COLOURS);
        add_percent(out, "cx", at);
        base_text_add(out, "/>\n");
    }
}

static void write_level(base_text *out, const report_chart *chart, const scale *y)
{
    if (!isfinite(chart->level) || (y->log && chart->level <= 0))
        return;
    double at = place(y, chart->level);
    if (at < 0 || at > 1)
        return;
    base_text_add(out, "<line class=\"level\" x2=\"100%\"");
    add_percent(out, "y1", 1 - at);
    add_percent(out, "y2", 1 - at);
    base_text_add(out, "/><text class=\"tick\" x=\"0\" dx=\"6\" dy=\"-5\"");
    add_percent(out, "y", 1 - at);
    base_text_add_char(out, '>');
    report_escape(out, chart->level_label);
    base_text_add(out, "</text>\n");
}

/* ---- labels at the ends of lines ----------------------------------------------------------- */

typedef struct end_label {
    const report_curve *curve;
    double y; /* pixels */
} end_label;

/* Sorted from the top, then pushed apart, first down and then up from the lower edge. */
static void spread(end_label *labels, size_t n, double height)
{
    for (size_t i = 1; i < n; i++) {
        for (size_t j = i; j > 0 && labels[j].y < labels[j - 1].y; j--) {
            end_label swapped = labels[j];
            labels[j] = labels[j - 1];
            labels[j - 1] = swapped;
        }
    }
    for (size_t i = 1; i < n; i++)
        labels[i].y = fmax(labels[i].y, labels[i - 1].y + LABEL_SPACE);
    double limit = height;
    for (size_t i = n; i-- > 0; limit -= LABEL_SPACE)
        labels[i].y = fmin(labels[i].y, limit);
}

/* The first characters of a label that may be too long for the margin. */
static void add_label(base_text *out, const char *label)
{
    char part[4 * LABEL_LENGTH + 4] = "";
    size_t size = strlen(label), at = 0;
    for (int n = 0; n < LABEL_LENGTH && at < size; n++) {
        uint32_t cp;
        size_t length = base_utf8_decode(label + at, size - at, &cp);
        at += length ? length : 1;
    }
    memcpy(part, label, at);
    report_escape(out, part);
    if (at < size)
        base_text_add(out, "…");
}

static void write_labels(base_text *out, const report_chart *chart, const scale *y, double height)
{
    end_label labels[MAX_LABELS];
    size_t n = 0;
    for (size_t c = 0; c < chart->n_curves && n < MAX_LABELS; c++) {
        const report_curve *curve = &chart->curves[c];
        size_t last = curve->n;
        while (last > 0 && (!isfinite(curve->y[last - 1]) || (y->log && curve->y[last - 1] <= 0)))
            last--;
        if (curve->label && last > 0)
            labels[n++] = (end_label){curve, (1 - place(y, curve->y[last - 1])) * height};
    }
    spread(labels, n, height);
    for (size_t i = 0; i < n; i++) {
        base_text_printf(out,
                         "<text class=\"end c%zu\" x=\"100%%\" dx=\"8\" y=\"%d\" "
                         "dy=\".32em\">",
                         labels[i].curve->colour % REPORT_COLOURS, (int)lround(labels[i].y));
        add_label(out, labels[i].curve->label);
        base_text_add(out, "</text>\n");
    }
}

/* ---- the chart ----------------------------------------------------------------------------- */

static bool has_numbers(const report_chart *chart)
{
    double low, high;
    reach(chart, false, &low, &high);
    return low <= high;
}

void report_chart_write(base_text *out, const report_chart *chart)
{
    bool labels = false;
    for (size_t c = 0; c < chart->n_curves; c++)
        labels = labels || chart->curves[c].label;
    base_text_printf(out, "<figure class=\"%s%s\">\n<figcaption><b>",
                     chart->wide || chart->whole_row ? "wide" : "", labels ? "" : " plain");
    report_escape(out, chart->title);
    base_text_add(out, "</b> <span>");
    report_escape(out, chart->note);
    base_text_add(out, "</span></figcaption>\n");
    if (has_numbers(chart)) {
        scale x = x_scale(chart), y = y_scale(chart);
        int height = chart->wide ? WIDE_HEIGHT : HEIGHT;
        base_text_printf(out, "<svg class=\"plot\" height=\"%d\" role=\"img\" aria-label=\"",
                         height);
        report_escape(out, chart->title);
        base_text_add(out, " by ");
        report_escape(out, chart->x_label);
        base_text_add(out, "\">\n");
        write_grid(out, &x, &y);
        write_level(out, chart, &y);
        write_curves(out, chart, &x, &y);
        write_labels(out, chart, &y, height);
        base_text_add(out, "</svg>\n<p class=\"below\">");
        report_escape(out, chart->x_label);
        base_text_add(out, "</p>\n");
    } else {
        base_text_add(out, "<p class=\"none\">Nothing measured yet.</p>\n");
    }
    base_text_add(out, "</figure>\n");
}

/* The places in [from, to) of the lowest and the highest number, in order; both `to` where there is
 * none. */
static void extremes(const report_curve *curve, size_t from, size_t to, size_t found[2])
{
    size_t low = to, high = to;
    for (size_t i = from; i < to; i++) {
        if (!isfinite(curve->y[i]))
            continue;
        low = low == to || curve->y[i] < curve->y[low] ? i : low;
        high = high == to || curve->y[i] > curve->y[high] ? i : high;
    }
    found[0] = low < high ? low : high;
    found[1] = low < high ? high : low;
}

void report_thin(report_curve *curve, size_t most)
{
    size_t n = curve->n, parts = most / 2, kept = 0;
    if (n <= most || parts == 0)
        return;
    for (size_t p = 0; p < parts; p++) {
        size_t from = (size_t)((double)n * (double)p / (double)parts);
        size_t to = p + 1 == parts ? n - 1 : (size_t)((double)n * (double)(p + 1) / (double)parts);
        size_t found[2];
        extremes(curve, from, to, found);
        for (int i = 0; i < 2 && from < to; i++) {
            bool gap = found[0] == to;
            if (i == 1 && (gap || found[1] == found[0]))
                break;
            curve->x[kept] = gap ? curve->x[from] : curve->x[found[i]];
            curve->y[kept] = gap ? NAN : curve->y[found[i]];
            kept++;
        }
    }
    curve->x[kept] = curve->x[n - 1];
    curve->y[kept] = curve->y[n - 1];
    curve->n = kept + 1;
}
