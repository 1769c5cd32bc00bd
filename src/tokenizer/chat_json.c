#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"
#include "tokenizer/chat.h"

enum { MAX_DEPTH = 512, MAX_DIGITS = 17 };

/* A finite double as its shortest digits: 0.DIGITS * 10^point. */
typedef struct decimal {
    char digits[MAX_DIGITS + 1];
    int n, point;
} decimal;

/* Takes apart what "%.*e" printed, without a word about the locale's decimal point. */
static decimal take_apart(const char *printed)
{
    decimal d = {.n = 0};
    const char *p = printed;
    for (; *p && *p != 'e'; p++)
        if (*p >= '0' && *p <= '9' && d.n < MAX_DIGITS)
            d.digits[d.n++] = *p;
    d.digits[d.n] = '\0';
    d.point = *p == 'e' ? atoi(p + 1) + 1 : 1;
    return d;
}

static bool reads_back(const decimal *d, double value)
{
    char text[MAX_DIGITS + 16];
    snprintf(text, sizeof text, "%se%d", d->digits, d->point - d->n);
    return strtod(text, NULL) == value;
}

/* The next larger number of as many digits; false where it has more. */
static bool increment(decimal *d)
{
    for (int i = d->n - 1; i >= 0; i--) {
        if (d->digits[i] != '9') {
            d->digits[i]++;
            return true;
        }
        d->digits[i] = '0';
    }
    return false;
}

/* The fewest digits that read back as `value` >= 0. The nearest number of so many digits is not
 * always among them: above a power of two the numbers that read back as it reach twice as far as
 * below, so the next larger one is tried as well. */
static decimal shortest(double value)
{
    decimal d = {.n = 0};
    for (int n = 1; n <= MAX_DIGITS; n++) {
        char printed[MAX_DIGITS + 16];
        snprintf(printed, sizeof printed, "%.*e", n - 1, value);
        d = take_apart(printed);
        if (reads_back(&d, value))
            return d;
        decimal up = d;
        if (increment(&up) && reads_back(&up, value))
            return up;
    }
    return d;
}

/* As Python's repr: with an exponent outside 1e-4 .. 1e16, never without a fraction inside. */
static void dump_real(double value, base_text *out)
{
    bool negative = __builtin_signbit(value) != 0;
    decimal d = shortest(negative ? -value : value);
    if (negative)
        base_text_add_char(out, '-');
    if (d.point <= -4 || d.point > 16) {
        base_text_add_n(out, d.digits, 1);
        if (d.n > 1)
            base_text_printf(out, ".%s", d.digits + 1);
        base_text_printf(out, "e%c%02d", d.point > 0 ? '+' : '-', abs(d.point - 1));
        return;
    }
    if (d.point <= 0)
        base_text_add(out, "0.");
    for (int i = d.point; i < 0; i++)
        base_text_add_char(out, '0');
    for (int i = 0; i < d.n || i <= d.point; i++) {
        if (i == d.point && i > 0)
            base_text_add_char(out, '.');
        base_text_add_char(out, i < d.n ? d.digits[i] : '0');
    }
}

static bool dump(json_t *value, int depth, base_text *out);

static bool dump_array(json_t *array, int depth, base_text *out)
{
    base_text_add_char(out, '[');
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (i)
            base_text_add(out, ", ");
        if (!dump(json_array_get(array, i), depth, out))
            return false;
    }
    base_text_add_char(out, ']');
    return true;
}

static bool dump_object(json_t *object, int depth, base_text *out)
{
    base_text_add_char(out, '{');
    bool first = true;
    for (void *i = json_object_iter(object); i; i = json_object_iter_next(object, i)) {
        if (!first)
            base_text_add(out, ", ");
        first = false;
        format_json_escape(out, json_object_iter_key(i), json_object_iter_key_len(i));
        base_text_add(out, ": ");
        if (!dump(json_object_iter_value(i), depth, out))
            return false;
    }
    base_text_add_char(out, '}');
    return true;
}

static bool dump(json_t *value, int depth, base_text *out)
{
    if (depth >= MAX_DEPTH)
        return false;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return dump_object(value, depth + 1, out);
    case JSON_ARRAY:
        return dump_array(value, depth + 1, out);
    case JSON_REAL:
        dump_real(json_real_value(value), out);
        break;
    default:
        format_json_plain(out, value);
        break;
    }
    return true;
}

bool tok_chat_dump_json(json_t *value, base_text *out)
{
    return dump(value, 0, out);
}
