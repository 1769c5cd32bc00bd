#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/report.h"

void report_escape(base_text *out, const char *text)
{
    for (; text && *text; text++) {
        switch (*text) {
        case '&':
            base_text_add(out, "&amp;");
            break;
        case '<':
            base_text_add(out, "&lt;");
            break;
        case '>':
            base_text_add(out, "&gt;");
            break;
        case '"':
            base_text_add(out, "&quot;");
            break;
        case '\'':
            base_text_add(out, "&#39;");
            break;
        default:
            base_text_add_char(out, (unsigned char)*text < ' ' || *text == 0x7F ? ' ' : *text);
        }
    }
}

/* printf's %.*f or %.*e with a point, whatever the locale. */
static void print(char out[32], const char *format, int digits, double value)
{
    snprintf(out, 32, format, digits, value);
    char *comma = strchr(out, ',');
    if (comma)
        *comma = '.';
}

/* "1.50" is "1.5", "2.0e-04" is "2e-4". */
static void shorten(char *number)
{
    char *exponent = strchr(number, 'e');
    char tail[8] = "";
    if (exponent) {
        const char *digits = exponent + 1 + (exponent[1] == '-' || exponent[1] == '+');
        while (*digits == '0')
            digits++;
        snprintf(tail, sizeof tail, "e%s%s", exponent[1] == '-' ? "-" : "", digits);
        *exponent = '\0';
    }
    if (strchr(number, '.')) {
        char *end = number + strlen(number);
        while (end[-1] == '0')
            *--end = '\0';
        if (end[-1] == '.')
            end[-1] = '\0';
    }
    snprintf(number + strlen(number), sizeof tail, "%s", tail);
}

void report_count(base_text *out, double value)
{
    char digits[32];
    if (!isfinite(value) || fabs(value) >= 1e18) {
        report_number(out, value);
        return;
    }
    print(digits, "%.*f", 0, value);
    size_t n = strlen(digits);
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0 && digits[i - 1] != '-')
            base_text_add_char(out, ',');
        base_text_add_char(out, digits[i]);
    }
}

void report_fixed(base_text *out, double value, int digits)
{
    char text[32] = "-";
    if (fabs(value) < 1e15)
        print(text, "%.*f", digits, value);
    base_text_add(out, text);
}

/* The power of a thousand to write a number in. */
static double scale_of(double value, const char **letter)
{
    static const struct {
        double scale;
        const char *letter;
    } scales[] = {{1e12, "T"}, {1e9, "B"}, {1e6, "M"}, {1e3, "k"}};
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        if (fabs(value) >= scales[i].scale) {
            *letter = scales[i].letter;
            return scales[i].scale;
        }
    }
    *letter = "";
    return 1;
}

void report_short(double value, char out[32])
{
    const char *letter;
    if (!isfinite(value)) {
        snprintf(out, 32, "-");
        return;
    }
    double scaled = value / scale_of(value, &letter);
    bool whole = !*letter && scaled == floor(scaled);
    print(out, "%.*f", whole || fabs(scaled) >= 100 ? 0 : fabs(scaled) >= 10 ? 1 : 2, scaled);
    size_t n = strlen(out);
    snprintf(out + n, 32 - n, "%s%s", *letter ? " " : "", letter);
}

void report_tick(double value, double step, double most, char out[32])
{
    double size = fmax(fabs(most), fabs(step));
    if (fabs(value) < fabs(step) * 1e-6) {
        snprintf(out, 32, "0");
    } else if (size >= 1e15 || fabs(step) < 2e-4) {
        int digits = (int)fmax(0, floor(log10(fabs(value))) - floor(log10(fabs(step))));
        print(out, "%.*e", digits > 6 ? 6 : digits, value);
        shorten(out);
    } else {
        const char *letter = "";
        double scale = size >= 1e4 ? scale_of(size, &letter) : 1;
        double digits = ceil(-log10(fabs(step) / scale) - 1e-9);
        print(out, "%.*f", digits > 0 ? (int)fmin(digits, 9) : 0, value / scale);
        size_t n = strlen(out);
        snprintf(out + n, 32 - n, "%s", letter);
    }
}

void report_duration(base_text *out, double seconds)
{
    if (!isfinite(seconds) || seconds < 0 || seconds > 1e12) {
        base_text_add(out, "-");
        return;
    }
    long long whole = (long long)(seconds + 0.5);
    if (whole < 60)
        base_text_printf(out, "%lld s", whole);
    else if (whole < 3600)
        base_text_printf(out, "%lld min %lld s", whole / 60, whole % 60);
    else if (whole < 48 * 3600)
        base_text_printf(out, "%lld h %lld min", whole / 3600, whole % 3600 / 60);
    else
        base_text_printf(out, "%lld d %lld h", whole / 86400, whole % 86400 / 3600);
}

void report_number(base_text *out, double value)
{
    char digits[32];
    if (isnan(value)) {
        base_text_add(out, "-");
        return;
    }
    double size = fabs(value);
    if (size != 0 && (size < 1e-3 || size >= 1e6)) {
        print(digits, "%.*e", 3, value);
        shorten(digits);
    } else {
        int places = size == 0 ? 0 : 3 - (int)floor(log10(size));
        print(digits, "%.*f", places > 0 ? places : 0, value);
        shorten(digits);
    }
    base_text_add(out, digits);
}
