#include <math.h>

#include "train/report.h"

/* Colours step by half a power of two, from a quarter of an even share to four times it. */
enum { BINS = 9, EVEN = BINS / 2, ROWS_HEIGHT = 360, MIN_ROW = 4, MAX_ROW = 18 };

/* -1: nothing at all. */
static int bin_of(double share, size_t n_experts)
{
    if (share <= 0)
        return -1;
    double bin = round(2 * log2(share * (double)n_experts)) + EVEN;
    return (int)fmin(fmax(bin, 0), BINS - 1);
}

/* The cells of one colour as one path, runs of them as one rectangle. */
static void write_bin(base_text *out, const report_run *run, int bin)
{
    bool begun = false;
    for (size_t l = 0; l < run->n_layers; l++) {
        const double *row = run->load + l * run->n_experts;
        for (size_t e = 0, end; e < run->n_experts; e = end) {
            end = e + 1;
            if (bin_of(row[e], run->n_experts) != bin)
                continue;
            while (end < run->n_experts && bin_of(row[end], run->n_experts) == bin)
                end++;
            if (!begun)
                base_text_printf(out, "<path class=\"h%d\" d=\"", bin);
            begun = true;
            base_text_printf(out, "M%zu %zuh%zuv1h-%zuz", e, l, end - e, end - e);
        }
    }
    base_text_add(out, begun ? "\"/>\n" : "");
}

/* A cross on every expert that got nothing. */
static size_t write_dead(base_text *out, const report_run *run)
{
    size_t dead = 0;
    for (size_t i = 0; i < run->n_layers * run->n_experts; i++) {
        if (run->load[i] > 0)
            continue;
        size_t e = i % run->n_experts, l = i / run->n_experts;
        base_text_add(out, dead++ == 0 ? "<path class=\"cross\" d=\"" : "");
        base_text_printf(out, "M%zu %zul1 1m-1 0l1-1", e, l);
    }
    base_text_add(out, dead ? "\"/>\n" : "");
    return dead;
}

/* Each row's number, and on the right its busiest expert and its router's entropy. */
static void write_layers(base_text *out, const report_run *run, int row_height)
{
    size_t every = (size_t)(12 + row_height - 1) / (size_t)row_height;
    for (size_t l = 0; l < run->n_layers; l += every) {
        const double *row = run->load + l * run->n_experts;
        int y = (int)l * row_height + row_height / 2;
        double most = 0;
        for (size_t e = 0; e < run->n_experts; e++)
            most = fmax(most, row[e]);
        base_text_printf(out,
                         "<text class=\"tick\" dx=\"-8\" dy=\".32em\" y=\"%d\" "
                         "text-anchor=\"end\">%zu</text>"
                         "<text class=\"tick side\" x=\"100%%\" dx=\"8\" dy=\".32em\" "
                         "y=\"%d\">",
                         y, l, y);
        report_fixed(out, most * (double)run->n_experts, 1);
        base_text_add(out, "×");
        if (isfinite(run->entropy[l])) {
            base_text_add(out, " · ");
            report_fixed(out, run->entropy[l], 2);
        }
        base_text_add(out, "</text>\n");
    }
}

static void write_experts(base_text *out, const report_run *run)
{
    size_t every = 1;
    while (run->n_experts / every > 10)
        every *= 2;
    for (size_t e = 0; e < run->n_experts; e += every) {
        size_t hundredths = (e * 10000 + 5000) / run->n_experts;
        base_text_printf(out,
                         "<text class=\"tick\" x=\"%zu.%02zu%%\" y=\"100%%\" dy=\"18\" "
                         "text-anchor=\"middle\">%zu</text>\n",
                         hundredths / 100, hundredths % 100, e);
    }
}

void report_heat_write(base_text *out, const report_run *run, size_t colour)
{
    int row = ROWS_HEIGHT / (int)run->n_layers;
    row = row < MIN_ROW ? MIN_ROW : row > MAX_ROW ? MAX_ROW : row;
    base_text_printf(out,
                     "<figure class=\"wide\"><figcaption><b><i class=\"swatch c%zu\"></i>"
                     "<bdi>",
                     colour % REPORT_COLOURS);
    report_escape(out, run->name);
    base_text_add(out, "</bdi></b> <span>at step ");
    report_count(out, (double)run->load_step);
    base_text_printf(out,
                     ": %zu layers (rows) of %zu experts (columns); on the right, how many times "
                     "its even share the busiest expert got%s</span></figcaption>\n",
                     run->n_layers, run->n_experts,
                     isfinite(run->entropy[0]) ? ", and the router’s entropy in nats" : "");
    base_text_printf(out,
                     "<svg class=\"plot heat\" height=\"%d\" role=\"img\" aria-label=\"Load of "
                     "experts\">\n<svg viewBox=\"0 0 %zu %zu\" preserveAspectRatio=\"none\" "
                     "width=\"100%%\" height=\"100%%\">\n",
                     row * (int)run->n_layers, run->n_experts, run->n_layers);
    for (int bin = 0; bin < BINS; bin++)
        write_bin(out, run, bin);
    size_t dead = write_dead(out, run);
    base_text_add(out, "</svg>\n");
    write_layers(out, run, row);
    write_experts(out, run);
    base_text_add(out, "</svg>\n<p class=\"below\">expert");
    if (dead)
        base_text_printf(out, " · %zu of %zu got no token", dead, run->n_layers * run->n_experts);
    base_text_add(out, "</p>\n</figure>\n");
}

void report_heat_legend(base_text *out)
{
    static const char *const names[BINS] = {
        [0] = "¼ or less", [2] = "½", [4] = "even share", [6] = "2×", [8] = "4× or more"};
    base_text_add(out, "<p class=\"scale\"><span><i class=\"hx\"></i>no token</span>");
    for (int bin = 0; bin < BINS; bin++)
        base_text_printf(out, "<span><i class=\"h%d\"></i>%s</span>", bin,
                         names[bin] ? names[bin] : "");
    base_text_add(out, "</p>\n");
}
