/* Numbers between bounds, digit by digit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/internal.h"

enum { MAX_DIGITS = GR_BOUND_DIGITS };

/* Zero or more, exactly: whole.fraction, without needless zeros. */
typedef struct decimal {
    char whole[MAX_DIGITS + 1], fraction[MAX_DIGITS + 1];
    bool negative;
} decimal;

/* From [-]digits[.digits][e[+-]digits]. False where it has too many digits. */
static bool parse_decimal(const char *text, decimal *out)
{
    char digits[64];
    size_t n = 0, whole = 0;
    bool point = false;
    *out = (decimal){.negative = text[0] == '-'};
    for (text += out->negative; *text && *text != 'e' && *text != 'E'; text++) {
        if (*text == '.') {
            point = true;
        } else if (n < sizeof digits) {
            digits[n++] = *text;
            whole += !point;
        }
    }
    long shift =
        (long)whole + (*text ? strtol(text + 1, NULL, 10) : 0); /* digits before the point */
    if (shift > MAX_DIGITS || (long)n - shift > MAX_DIGITS)
        return false;
    size_t at = 0;
    for (long i = 0; i < shift; i++) {
        char digit = i < (long)n ? digits[i] : '0';
        if (at > 0 || digit != '0')
            out->whole[at++] = digit;
    }
    if (at == 0)
        out->whole[at++] = '0';
    at = 0;
    for (long i = shift; i < (long)n; i++)
        out->fraction[at++] = i < 0 ? '0' : digits[i];
    while (at > 0 && out->fraction[at - 1] == '0')
        out->fraction[--at] = '\0';
    if (strcmp(out->whole, "0") == 0 && at == 0)
        out->negative = false;
    return true;
}

/* A double in as few digits as give it back. False beyond what is supported. */
static bool read_decimal(const json_t *number, decimal *out)
{
    char text[32];
    if (json_is_integer(number)) {
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(number));
        return parse_decimal(text, out);
    }
    base_shortest(json_real_value(number), text);
    return parse_decimal(text, out);
}

/* ---- magnitudes ---------------------------------------------------------------------------- */

/* Digits between two bounds of equally many digits before the point, one after another: where the
 * digits so far equal the bound's, the next may not pass its. */
typedef struct digits {
    gr_nfa *nfa;
    char low[2 * MAX_DIGITS + 1], high[2 * MAX_DIGITS + 1]; /* whole and fraction, zeros behind */
    size_t whole, fraction;                                 /* digits */
    size_t least;               /* digits before the point with which a number may end */
    size_t rest_low, rest_high; /* after so many digits a bound has only zeros */
    bool low_open, high_open;
    int64_t multiple;
    int32_t *states; /* [whole + fraction + 1][2][2][multiple], 0: not met */
    int32_t accept;
} digits;

static bool may_end(const digits *d, size_t at, bool on_low, bool on_high, int64_t rest)
{
    if (rest != 0)
        return false;
    bool equals_low = on_low && at >= d->rest_low;
    if (on_low && (!equals_low || d->low_open))
        return false;
    bool equals_high = on_high && at >= d->rest_high;
    return !(equals_high && d->high_open);
}

static size_t index_of(const digits *d, size_t at, bool on_low, bool on_high, int64_t rest)
{
    return ((at * 2 + on_low) * 2 + on_high) * (size_t)d->multiple + (size_t)rest;
}

static int32_t state_of(digits *d, size_t at, bool on_low, bool on_high, int64_t rest)
{
    int32_t *state = &d->states[index_of(d, at, on_low, on_high, rest)];
    if (*state == 0)
        *state = gr_nfa_state(d->nfa);
    return *state;
}

/* The edges of one state to those of the next digit. */
static void add_digits(digits *d, size_t at, bool on_low, bool on_high, int64_t rest)
{
    int32_t from = d->states[index_of(d, at, on_low, on_high, rest)];
    if (at >= d->least && may_end(d, at, on_low, on_high, rest))
        gr_nfa_empty(d->nfa, from, d->accept);
    if (at == d->whole && d->fraction > 0)
        from = gr_nfa_bytes(d->nfa, from, ".", 1);
    if (at == d->whole + d->fraction)
        return;
    char low = on_low ? d->low[at] : '0', high = on_high ? d->high[at] : '9';
    if (at == 0 && d->whole > 1 && low == '0')
        low = '1';
    for (char c = low; c <= high && !gr_bad(d->nfa->b); c++) {
        int64_t next = (rest * 10 + (c - '0')) % d->multiple;
        int32_t to =
            state_of(d, at + 1, on_low && c == d->low[at], on_high && c == d->high[at], next);
        gr_nfa_edge_add(d->nfa, from, (uint8_t)c, (uint8_t)c, to);
    }
}

static void fill_digits(char *out, const decimal *bound, size_t whole, size_t fraction,
                        size_t *rest)
{
    size_t n = strlen(bound->fraction);
    memcpy(out, bound->whole, whole);
    for (size_t i = 0; i < fraction; i++)
        out[whole + i] = i < n ? bound->fraction[i] : '0';
    size_t last = n;
    *rest = whole + last;
    if (last == 0)
        for (*rest = whole; *rest > 0 && bound->whole[*rest - 1] == '0';)
            (*rest)--;
}

/* Adds what the states that have been met lead to, the first of them from `from`. */
static void add_states(digits *d, int32_t from, bool bounded)
{
    gr_nfa *nfa = d->nfa;
    size_t n = d->whole + d->fraction + 1;
    d->states = gr_take(nfa->b, n * 4 * (size_t)d->multiple, sizeof *d->states);
    if (gr_bad(nfa->b))
        return;
    gr_nfa_empty(nfa, from, state_of(d, 0, bounded, bounded, 0));
    for (size_t at = 0; at < n; at++)
        for (int bits = 0; bits < 4; bits++)
            for (int64_t rest = 0; rest < d->multiple && !gr_bad(nfa->b); rest++)
                if (d->states[index_of(d, at, bits & 1, bits >> 1, rest)])
                    add_digits(d, at, bits & 1, bits >> 1, rest);
}

/* Whole numbers of `least` (2 or more) to `most` digits, whichever they are: one after another, so
 * that a multiple's remainders are not kept for every length at once. */
static void add_free(gr_nfa *nfa, int32_t from, int32_t to, size_t least, size_t most,
                     int64_t multiple)
{
    digits d = {.nfa = nfa, .whole = most, .least = least, .multiple = multiple, .accept = to};
    if (least <= most)
        add_states(&d, from, false);
}

/* Numbers of `whole` digits before the point from low to high, which have as many. */
static void add_length(gr_nfa *nfa, int32_t from, int32_t to, const decimal *low,
                       const decimal *high, size_t whole, size_t fraction, bool low_open,
                       bool high_open, int64_t multiple)
{
    digits d = {.nfa = nfa,
                .whole = whole,
                .fraction = fraction,
                .least = whole,
                .low_open = low_open,
                .high_open = high_open,
                .multiple = multiple,
                .accept = to};
    fill_digits(d.low, low, whole, fraction, &d.rest_low);
    fill_digits(d.high, high, whole, fraction, &d.rest_high);
    add_states(&d, from, true);
}

/* Non-negative numbers from low to high. */
static void add_magnitudes(gr_nfa *nfa, int32_t from, int32_t to, const decimal *low,
                           const decimal *high, bool low_open, bool high_open,
                           const gr_numbers *numbers)
{
    size_t shortest = strlen(low->whole), longest = strlen(high->whole);
    bool all = !high_open && strspn(high->whole, "9") == longest; /* of the longest */
    if (numbers->integer && longest > shortest)
        add_free(nfa, from, to, shortest + 1, all ? longest : longest - 1, numbers->multiple);
    for (size_t whole = shortest; whole <= longest; whole++) {
        bool free = whole > shortest && (whole < longest || all);
        if (numbers->integer && free)
            continue;
        decimal least = *low, most = *high;
        bool own_low = whole == shortest, own_high = whole == longest;
        if (!own_low) {
            least = (decimal){.whole = "1"};
            memset(least.whole + 1, '0', whole - 1);
        }
        if (!own_high) {
            most = (decimal){0};
            memset(most.whole, '9', whole);
            memset(most.fraction, '9', MAX_DIGITS);
        }
        if (strcmp(least.whole, most.whole) > 0)
            continue;
        /* So few digits in all that no two numbers are the same double. */
        size_t fraction = numbers->integer || whole >= GR_DIGITS ? 0 : GR_DIGITS - whole;
        add_length(nfa, from, to, &least, &most, whole, fraction, own_low && low_open,
                   own_high && high_open, numbers->multiple);
    }
}

static int compare_magnitudes(const decimal *x, const decimal *y)
{
    size_t a = strlen(x->whole), b = strlen(y->whole);
    if (a != b)
        return a < b ? -1 : 1;
    int order = strcmp(x->whole, y->whole);
    return order ? order : strcmp(x->fraction, y->fraction);
}

/* ---- all of them --------------------------------------------------------------------------- */

/* Any number: digits, perhaps a fraction, perhaps an exponent that a double has room for. */
static void add_any_number(gr_nfa *nfa, int32_t from, int32_t to)
{
    int32_t sign = gr_nfa_bytes(nfa, from, "-", 1);
    gr_nfa_empty(nfa, from, sign);
    int32_t whole = gr_nfa_bytes(nfa, sign, "0", 1), exponent = gr_nfa_state(nfa);
    int32_t at = gr_nfa_state(nfa);
    gr_nfa_edge_add(nfa, sign, '1', '9', at);
    for (int i = 1; i < GR_DIGITS; i++) {
        gr_nfa_empty(nfa, at, whole);
        int32_t next = gr_nfa_state(nfa);
        gr_nfa_edge_add(nfa, at, '0', '9', next);
        at = next;
    }
    gr_nfa_empty(nfa, at, whole);
    gr_nfa_empty(nfa, whole, exponent);
    at = gr_nfa_bytes(nfa, whole, ".", 1);
    for (int i = 0; i < GR_DIGITS; i++) {
        int32_t next = gr_nfa_state(nfa);
        gr_nfa_edge_add(nfa, at, '0', '9', next);
        gr_nfa_empty(nfa, next, exponent);
        at = next;
    }
    gr_nfa_empty(nfa, exponent, to);
    int32_t e = gr_nfa_bytes(nfa, exponent, "e", 1);
    gr_nfa_edge_add(nfa, exponent, 'E', 'E', e);
    int32_t signed_e = gr_nfa_state(nfa);
    gr_nfa_edge_add(nfa, e, '+', '+', signed_e);
    gr_nfa_edge_add(nfa, e, '-', '-', signed_e);
    gr_nfa_empty(nfa, e, signed_e);
    int32_t one = gr_nfa_state(nfa), two = gr_nfa_state(nfa);
    gr_nfa_edge_add(nfa, signed_e, '0', '9', one);
    gr_nfa_edge_add(nfa, one, '0', '9', two);
    gr_nfa_empty(nfa, one, to);
    gr_nfa_empty(nfa, two, to);
}

/* The largest magnitude where no bound says it: as many nines as are always allowed, or one more
 * than the other bound has digits. */
static decimal largest(const decimal *other)
{
    decimal most = {0};
    size_t n = strlen(other->whole);
    memset(most.whole, '9', n < GR_DIGITS ? GR_DIGITS : n < MAX_DIGITS ? n + 1 : n);
    return most;
}

/* Does a way lead from one state to another? */
static bool leads(gr_nfa *nfa, int32_t from, int32_t to)
{
    bool *seen = gr_take(nfa->b, nfa->n + 1, sizeof *seen);
    int32_t *stack = gr_take(nfa->b, nfa->n + 1, sizeof *stack);
    size_t top = 0;
    if (!stack || !gr_work(nfa->b, nfa->n / 4))
        return true;
    stack[top++] = from;
    seen[from] = true;
    while (top > 0 && !seen[to]) {
        int32_t s = stack[--top];
        for (int32_t e = nfa->first[s]; e != GR_NONE; e = nfa->edges[e].next) {
            int32_t next = nfa->edges[e].to;
            if (!seen[next]) {
                seen[next] = true;
                stack[top++] = next;
            }
        }
    }
    return seen[to];
}

static void add_between(gr_nfa *nfa, int32_t from, int32_t to, const decimal *low,
                        const decimal *high, const gr_numbers *numbers)
{
    decimal zero = {.whole = "0"};
    bool low_open = numbers->has_low && numbers->low_open;
    bool high_open = numbers->has_high && numbers->high_open;
    if (!high->negative) {
        const decimal *least = low->negative ? &zero : low;
        if (compare_magnitudes(least, high) <= 0)
            add_magnitudes(nfa, from, to, least, high, low_open && !low->negative, high_open,
                           numbers);
    }
    if (low->negative) {
        const decimal *least = high->negative ? high : &zero;
        int32_t sign = gr_nfa_bytes(nfa, from, "-", 1);
        if (compare_magnitudes(least, low) <= 0)
            add_magnitudes(nfa, sign, to, least, low, high->negative ? high_open : true, low_open,
                           numbers);
    }
}

bool gr_numbers_add(gr_nfa *nfa, int32_t from, int32_t to, const gr_numbers *numbers, bool *beyond)
{
    decimal low = {.whole = "0"}, high = {.whole = "0"}, zero = {.whole = "0"};
    gr_work(nfa->b, 128);
    *beyond = false;
    if (!numbers->has_low && !numbers->has_high && numbers->multiple == 1 && !numbers->integer) {
        add_any_number(nfa, from, to);
        return true;
    }
    *beyond = (numbers->has_low && !read_decimal(numbers->low, &low)) ||
              (numbers->has_high && !read_decimal(numbers->high, &high));
    if (*beyond)
        return false;
    if (!numbers->has_high)
        high = low.negative ? largest(&zero) : largest(&low);
    if (!numbers->has_low) {
        low = high.negative ? largest(&high) : largest(&zero);
        low.negative = true;
    }
    int32_t start = gr_nfa_state(nfa), end = gr_nfa_state(nfa);
    if (gr_bad(nfa->b))
        return true;
    add_between(nfa, start, end, &low, &high, numbers);
    gr_nfa_empty(nfa, from, start);
    gr_nfa_empty(nfa, end, to);
    return gr_bad(nfa->b) || leads(nfa, start, end);
}
