/* Regular expressions of ECMA-262 with the u flag, as far as they are regular. */
#include <string.h>

#include "grammar/chars.h"
#include "grammar/schema.h"

typedef struct reader {
    gr_build *b;
    gr_nfa nfa;
    const char *text;
    size_t size, at;
    gr_schemas *s;
    const json_t *schema; /* that has the pattern, for errors */
    int depth;
} reader;

/* A part of the automaton: from -> to. */
typedef struct piece {
    int32_t from, to;
} piece;

static void refuse(reader *r, marco_status status, const char *why)
{
    char place[200];
    gr_place(r->s, r->schema, place);
    gr_fail(r->b, status, "%s: %s, in the pattern '%.*s' at its character %zu", place, why,
            (int)(r->size < 200 ? r->size : 200), r->text, r->at + 1);
    r->at = r->size;
}

static bool ends(const reader *r)
{
    return r->at >= r->size || gr_bad(r->b);
}

static bool takes(reader *r, char c)
{
    if (ends(r) || r->text[r->at] != c)
        return false;
    r->at++;
    return true;
}

static bool sees(const reader *r, const char *s)
{
    return r->size - r->at >= strlen(s) && memcmp(r->text + r->at, s, strlen(s)) == 0;
}

static piece fresh(reader *r)
{
    int32_t from = gr_nfa_state(&r->nfa);
    return (piece){from, gr_nfa_state(&r->nfa)};
}

static piece of_chars(reader *r, const gr_chars *set)
{
    piece p = fresh(r);
    for (size_t i = 0; i < set->n && !gr_bad(r->b); i++)
        gr_nfa_edge_add(&r->nfa, p.from, set->ranges[i].low, set->ranges[i].high, p.to);
    return p;
}

static piece of_symbol(reader *r, uint32_t symbol)
{
    piece p = fresh(r);
    gr_nfa_edge_add(&r->nfa, p.from, symbol, symbol, p.to);
    return p;
}

/* ---- escapes ------------------------------------------------------------------------------- */

static uint32_t hex(reader *r, size_t digits)
{
    uint32_t value = 0;
    for (size_t i = 0; i < digits; i++) {
        char c = ends(r) ? 'x' : r->text[r->at];
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16) {
            refuse(r, MARCO_ERROR_ARGUMENT, "an escape needs more hexadecimal digits");
            return 'x';
        }
        value = value * 16 + digit;
        r->at++;
    }
    return value;
}

/* After \u: XXXX, a pair of surrogates, or {X...}. */
static uint32_t unicode_escape(reader *r)
{
    uint32_t cp = 0;
    if (takes(r, '{')) {
        do
            cp = cp * 16 + hex(r, 1);
        while (cp <= GR_LAST_CODE_POINT && !ends(r) && r->text[r->at] != '}');
        if (!takes(r, '}') || cp > GR_LAST_CODE_POINT)
            refuse(r, MARCO_ERROR_ARGUMENT, "\\u{...} is no character");
    } else {
        cp = hex(r, 4);
        if (cp >= 0xD800 && cp < 0xDC00 && sees(r, "\\u")) {
            r->at += 2;
            uint32_t second = hex(r, 4);
            cp = 0x10000 + ((cp - 0xD800) << 10) + (second - 0xDC00);
            if (second < 0xDC00 || second > 0xDFFF)
                cp = 0xD800;
        }
    }
    if (cp >= 0xD800 && cp <= 0xDFFF)
        refuse(r, MARCO_ERROR_ARGUMENT, "half of a surrogate pair is no character");
    return cp;
}

/* After a backslash, where it stands for one character. */
static uint32_t char_escape(reader *r)
{
    static const char from[] = "tnvfr", to[] = "\t\n\v\f\r";
    char c = ends(r) ? '\0' : r->text[r->at];
    r->at++;
    const char *known = c ? strchr(from, c) : NULL;
    if (known)
        return (uint8_t)to[known - from];
    if (c && strchr("^$\\.*+?()[]{}|/-", c))
        return (uint8_t)c;
    switch (c) {
    case 'x':
        return hex(r, 2);
    case 'u':
        return unicode_escape(r);
    case 'c':
        if (!ends(r) && ((r->text[r->at] | 32) >= 'a' && (r->text[r->at] | 32) <= 'z'))
            return (uint32_t)(r->text[r->at++] & 31);
        break;
    case '0':
        if (ends(r) || r->text[r->at] < '0' || r->text[r->at] > '9')
            return 0;
        break;
    case 'p':
    case 'P':
        refuse(r, MARCO_ERROR_UNSUPPORTED, "\\p{...} is not supported");
        return 'x';
    case 'b':
    case 'B':
        refuse(r, MARCO_ERROR_UNSUPPORTED, "\\b is not supported");
        return 'x';
    case 'k':
        refuse(r, MARCO_ERROR_UNSUPPORTED, "references to groups are not supported");
        return 'x';
    default:
        break;
    }
    /* Punctuation that needs no escape is escaped by many. */
    if (c > ' ' && c < 0x7F && !(c >= '0' && c <= '9') && !((c | 32) >= 'a' && (c | 32) <= 'z'))
        return (uint8_t)c;
    if (c >= '1' && c <= '9')
        refuse(r, MARCO_ERROR_UNSUPPORTED, "references to groups are not supported");
    else
        refuse(r, MARCO_ERROR_ARGUMENT, "an unknown escape");
    return 'x';
}

/* Adds \d \D \w \W \s \S. What some take for a member and others do not is left out of both a class
 * and its complement; `inverted`: of what the set is the complement of, it is put into both. */
static bool class_escape(reader *r, gr_chars *set, bool inverted)
{
    char c = ends(r) ? '\0' : r->text[r->at];
    if (!c || !strchr("dDwWsS", c))
        return false;
    r->at++;
    bool negative = c < 'a';
    char letter = (char)(c | 32);
    if (!negative) {
        gr_chars_class(r->b, set, letter, inverted);
    } else {
        gr_chars members = {0};
        gr_chars_class(r->b, &members, letter, !inverted);
        gr_chars others = gr_chars_not(r->b, &members);
        gr_chars_add_all(r->b, set, &others);
    }
    return true;
}

static uint32_t one_char(reader *r)
{
    uint32_t cp = 0;
    if (takes(r, '\\'))
        return char_escape(r);
    size_t n = base_utf8_decode(r->text + r->at, r->size - r->at, &cp);
    r->at += n;
    return cp;
}

/* ---- classes ------------------------------------------------------------------------------- */

/* One character of a class, or a class in it (false). */
static bool class_atom(reader *r, gr_chars *set, bool inverted, uint32_t *cp)
{
    if (sees(r, "\\b")) {
        r->at += 2;
        *cp = '\b';
        return true;
    }
    if (takes(r, '\\')) {
        if (class_escape(r, set, inverted))
            return false;
        *cp = char_escape(r);
        return true;
    }
    *cp = one_char(r);
    return true;
}

/* After [ */
static piece char_class(reader *r)
{
    gr_chars set = {0};
    bool inverted = takes(r, '^');
    while (!ends(r) && r->text[r->at] != ']') {
        uint32_t low, high;
        bool single = class_atom(r, &set, inverted, &low);
        bool range = sees(r, "-") && r->size - r->at > 1 && r->text[r->at + 1] != ']';
        if (!range) {
            if (single)
                gr_chars_add(r->b, &set, low, low);
            continue;
        }
        r->at++;
        if (!single || !class_atom(r, &set, inverted, &high) || high < low) {
            refuse(r, MARCO_ERROR_ARGUMENT, "a range that is none");
            break;
        }
        gr_chars_add(r->b, &set, low, high);
    }
    if (!takes(r, ']'))
        refuse(r, MARCO_ERROR_ARGUMENT, "a '[' without ']'");
    /* Twice inverted: only characters that a string may have. */
    gr_chars others = gr_chars_not(r->b, &set);
    if (!inverted)
        others = gr_chars_not(r->b, &others);
    return of_chars(r, &others);
}

/* ---- terms --------------------------------------------------------------------------------- */

static piece alternatives(reader *r);

/* After ( */
static piece group(reader *r)
{
    if (takes(r, '?')) {
        if (sees(r, "<") && !sees(r, "<=") && !sees(r, "<!")) {
            const char *close = memchr(r->text + r->at, '>', r->size - r->at);
            if (!close)
                refuse(r, MARCO_ERROR_ARGUMENT, "a group's name without '>'");
            else
                r->at = (size_t)(close - r->text) + 1;
        } else if (!takes(r, ':')) {
            refuse(r, MARCO_ERROR_UNSUPPORTED,
                   "looking ahead or behind, (?=, (?!, (?<=, (?<! and "
                   "flags are not supported");
        }
    }
    if (++r->depth > GR_MAX_NESTING)
        refuse(r, MARCO_ERROR_UNSUPPORTED, "groups nested too deep");
    piece p = alternatives(r);
    r->depth--;
    if (!takes(r, ')'))
        refuse(r, MARCO_ERROR_ARGUMENT, "a '(' without ')'");
    return p;
}

static piece atom(reader *r)
{
    if (takes(r, '('))
        return group(r);
    if (takes(r, '['))
        return char_class(r);
    if (takes(r, '^'))
        return of_symbol(r, GR_SYMBOL_BEGIN);
    if (takes(r, '$'))
        return of_symbol(r, GR_SYMBOL_END);
    gr_chars set = {0};
    if (takes(r, '.')) {
        gr_chars_add(r->b, &set, '\n', '\n');
        gr_chars_add(r->b, &set, '\r', '\r');
        gr_chars_add(r->b, &set, 0x2028, 0x2029);
        set = gr_chars_not(r->b, &set);
        return of_chars(r, &set);
    }
    if (sees(r, "\\")) {
        r->at++;
        if (class_escape(r, &set, false))
            return of_chars(r, &set);
        return of_symbol(r, char_escape(r));
    }
    if (strchr("*+?", r->text[r->at]) && r->text[r->at])
        refuse(r, MARCO_ERROR_ARGUMENT, "nothing to repeat");
    if (ends(r))
        return fresh(r);
    return of_symbol(r, one_char(r));
}

static bool number(reader *r, int64_t *out)
{
    size_t start = r->at;
    *out = 0;
    for (; !ends(r) && r->text[r->at] >= '0' && r->text[r->at] <= '9'; r->at++)
        *out = *out > GR_MAX_REPEAT ? *out : *out * 10 + (r->text[r->at] - '0');
    return r->at > start;
}

/* * + ? {n} {n,} {n,m}; max < 0: no bound. False where there is none. */
static bool quantifier(reader *r, int64_t *min, int64_t *max)
{
    *min = 0;
    *max = -1;
    if (takes(r, '*')) {
    } else if (takes(r, '+')) {
        *min = 1;
    } else if (takes(r, '?')) {
        *max = 1;
    } else if (takes(r, '{')) {
        bool good = number(r, min);
        *max = *min;
        if (good && takes(r, ',') && !number(r, max))
            *max = -1;
        if (!good || !takes(r, '}') || (*max >= 0 && *max < *min))
            refuse(r, MARCO_ERROR_ARGUMENT, "a repetition must be {n}, {n,} or {n,m}");
        if (*min > GR_MAX_REPEAT || *max > GR_MAX_REPEAT)
            refuse(r, MARCO_ERROR_UNSUPPORTED, "more than 1000 repetitions");
    } else {
        return false;
    }
    takes(r, '?'); /* lazy or not, the same strings match */
    return true;
}

/* The atom at `start` min to max times: it is read again for every time. */
static piece repeated(reader *r, size_t start, piece once, int64_t min, int64_t max)
{
    size_t end = r->at;
    piece all = fresh(r);
    int32_t at = all.from;
    int64_t times = max < 0 ? (min > 0 ? min : 1) : max;
    for (int64_t i = 0; i < times && !gr_bad(r->b); i++) {
        piece p = once;
        if (i > 0) {
            r->at = start;
            p = atom(r);
        }
        if (!gr_work(r->b, r->at - start + 1))
            break;
        if (i >= min)
            gr_nfa_empty(&r->nfa, at, all.to);
        gr_nfa_empty(&r->nfa, at, p.from);
        if (max < 0 && i == times - 1)
            gr_nfa_empty(&r->nfa, p.to, p.from);
        at = p.to;
    }
    gr_nfa_empty(&r->nfa, at, all.to);
    if (!gr_bad(r->b))
        r->at = end;
    return all;
}

static piece alternative(reader *r)
{
    int32_t from = gr_nfa_state(&r->nfa), at = from;
    while (!ends(r) && r->text[r->at] != '|' && r->text[r->at] != ')') {
        size_t start = r->at;
        int64_t min, max;
        piece p = atom(r);
        if (quantifier(r, &min, &max))
            p = repeated(r, start, p, min, max);
        gr_nfa_empty(&r->nfa, at, p.from);
        at = p.to;
    }
    return (piece){from, at};
}

static piece alternatives(reader *r)
{
    piece all = fresh(r);
    do {
        piece p = alternative(r);
        gr_nfa_empty(&r->nfa, all.from, p.from);
        gr_nfa_empty(&r->nfa, p.to, all.to);
    } while (takes(r, '|'));
    return all;
}

/* A state that goes on with any character. */
static int32_t any_state(reader *r)
{
    int32_t state = gr_nfa_state(&r->nfa);
    gr_nfa_edge_add(&r->nfa, state, 1, 0xD7FF, state);
    gr_nfa_edge_add(&r->nfa, state, 0xE000, GR_LAST_CODE_POINT, state);
    return state;
}

gr_dfa *gr_pattern(gr_schemas *s, const json_t *schema, const char *pattern, size_t size)
{
    gr_build *b = s->b;
    reader r = {.b = b, .nfa = {.b = b}, .text = pattern, .size = size, .s = s, .schema = schema};
    if (gr_bad(b))
        return NULL;
    if (size > GR_MAX_PATTERN) {
        char place[200];
        gr_place(s, schema, place);
        gr_fail(b, MARCO_ERROR_UNSUPPORTED, "%s: a pattern of more than %d bytes", place,
                GR_MAX_PATTERN);
        return NULL;
    }
    int32_t before = any_state(&r);
    piece p = alternatives(&r);
    if (!ends(&r))
        refuse(&r, MARCO_ERROR_ARGUMENT, "a ')' without '('");
    int32_t after = any_state(&r), accept = gr_nfa_state(&r.nfa);
    gr_nfa_empty(&r.nfa, before, p.from);
    gr_nfa_empty(&r.nfa, p.to, after);
    gr_nfa_empty(&r.nfa, after, accept);
    return gr_bad(b) ? NULL : gr_dfa_of(&r.nfa, before, accept, after, true);
}
