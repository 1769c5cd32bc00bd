#include "grammar/chars.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void gr_chars_add(gr_build *b, gr_chars *set, uint32_t low, uint32_t high)
{
    void *ranges = set->ranges;
    if (set->n > 0 && set->ranges[set->n - 1].high + 1 == low) {
        set->ranges[set->n - 1].high = high;
        return;
    }
    if (!gr_room(b, &ranges, &set->capacity, set->n + 1, sizeof *set->ranges))
        return;
    set->ranges = ranges;
    set->ranges[set->n++] = (gr_range){low, high};
}

void gr_chars_add_all(gr_build *b, gr_chars *set, const gr_chars *other)
{
    for (size_t i = 0; i < other->n; i++)
        gr_chars_add(b, set, other->ranges[i].low, other->ranges[i].high);
}

static int by_low(const void *x, const void *y)
{
    const gr_range *a = x, *b = y;
    return (a->low > b->low) - (a->low < b->low);
}

/* Adds low .. high without surrogates and U+0000. */
static void add_characters(gr_build *b, gr_chars *set, uint32_t low, uint32_t high)
{
    if (low < 1)
        low = 1;
    if (low < 0xD800 && low <= high)
        gr_chars_add(b, set, low, high < 0xD800 ? high : 0xD7FF);
    if (high > 0xDFFF)
        gr_chars_add(b, set, low > 0xDFFF ? low : 0xE000, high);
}

gr_chars gr_chars_not(gr_build *b, gr_chars *set)
{
    gr_chars out = {0};
    uint32_t next = 0;
    if (gr_bad(b))
        return out;
    if (set->n > 1)
        qsort(set->ranges, set->n, sizeof *set->ranges, by_low);
    for (size_t i = 0; i < set->n; i++) {
        if (set->ranges[i].low > next)
            add_characters(b, &out, next, set->ranges[i].low - 1);
        if (set->ranges[i].high + 1 > next)
            next = set->ranges[i].high + 1;
    }
    if (next <= GR_LAST_CODE_POINT)
        add_characters(b, &out, next, GR_LAST_CODE_POINT);
    return out;
}

static bool in_wide(char letter, uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    bool number =
        c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
    bool letters = c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
    bool marks = c >= UTF8PROC_CATEGORY_MN && c <= UTF8PROC_CATEGORY_ME;
    bool space = c >= UTF8PROC_CATEGORY_ZS && c <= UTF8PROC_CATEGORY_ZP;
    /* Unassigned characters may be anything in a newer Unicode. */
    bool unknown = c == UTF8PROC_CATEGORY_CN;
    switch (letter) {
    case 'd':
        return number || unknown;
    case 'w':
        return number || letters || marks || unknown || c == UTF8PROC_CATEGORY_PC;
    default:
        return space || (cp >= 0x1C && cp <= 0x1F) || cp == 0x85 || cp == 0x180E;
    }
}

static const gr_chars *wide_class(gr_build *b, char letter)
{
    gr_chars **known = &b->wide[letter == 'd' ? 0 : letter == 'w' ? 1 : 2];
    if (*known || gr_bad(b))
        return *known;
    gr_chars found = {0}, *set = gr_keep(b, 1, sizeof *set);
    if (!set || !gr_work(b, GR_LAST_CODE_POINT / 2))
        return NULL;
    for (uint32_t cp = 1; cp <= GR_LAST_CODE_POINT; cp++)
        if ((cp < 0xD800 || cp > 0xDFFF) && in_wide(letter, cp))
            gr_chars_add(b, &found, cp, cp);
    set->ranges = gr_keep(b, found.n, sizeof *set->ranges);
    if (gr_bad(b))
        return NULL;
    memcpy(set->ranges, found.ranges, found.n * sizeof *set->ranges);
    set->n = set->capacity = found.n;
    *known = set;
    return set;
}

void gr_chars_class(gr_build *b, gr_chars *set, char letter, bool wide)
{
    /* ECMA-262: CharacterClassEscape, WhiteSpace, LineTerminator. */
    static const gr_range digits[] = {{'0', '9'}};
    static const gr_range words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    static const gr_range spaces[] = {
        {'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
        {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    const gr_range *ranges = letter == 'd' ? digits : letter == 'w' ? words : spaces;
    size_t n = letter == 'd' ? 1 : letter == 'w' ? 4 : sizeof spaces / sizeof spaces[0];
    /* U+FEFF is a space in ECMAScript and in no other language. */
    for (size_t i = 0; i < n; i++)
        if (wide || ranges[i].low != 0xFEFF)
            gr_chars_add(b, set, ranges[i].low, ranges[i].high);
    const gr_chars *more = wide ? wide_class(b, letter) : NULL;
    if (more)
        gr_chars_add_all(b, set, more);
}
