#include "tokenizer/pattern.h"

#include <string.h>

#include "base/error.h"
#include "base/text.h"

/* Unicode's White_Space, which is Oniguruma's \s. PCRE2's has U+180E besides. */
#define SPACE                                                                                      \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"

enum { MAX_PATTERN = 65536 };

typedef struct scanner {
    const char *start, *at, *end;
    base_text out;
    int depth;       /* of open groups */
    bool quantified; /* a quantifier may follow */
} scanner;

static bool is_punctuation(char c)
{
    return c > 0x20 && c < 0x7F && !strchr("0123456789", c) &&
           !((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'));
}

/* \p{Lu}, \P{L}, \p{^L}: general categories only, on which the engines agree. */
static bool property(scanner *s, bool negated)
{
    const char *p = s->at;
    if (p >= s->end || *p++ != '{')
        return false;
    if (p < s->end && *p == '^') {
        negated = !negated;
        p++;
    }
    const char *name = p;
    while (p < s->end && *p != '}')
        p++;
    size_t n = (size_t)(p - name);
    if (p >= s->end || n < 1 || n > 2 || !memchr("LMNPSZ", name[0], 6) ||
        (n == 2 && !memchr("ultomnecdfisk", name[1], 13) && name[1] != 'p'))
        return false;
    base_text_printf(&s->out, "\\%c{%.*s}", negated ? 'P' : 'p', (int)n, name);
    s->at = p + 1;
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* \x{2019}, \u2019, and \x27 below 0x80 (above, Oniguruma means a byte). */
static bool hexadecimal(scanner *s, char kind)
{
    bool braces = kind == 'x' && s->at < s->end && *s->at == '{';
    size_t most = braces ? 6 : kind == 'u' ? 4 : 2, n = 0;
    uint32_t value = 0;
    s->at += braces;
    for (int digit; n < most && s->at < s->end && (digit = hex_digit(*s->at)) >= 0; n++, s->at++)
        value = value * 16 + (uint32_t)digit;
    char utf8[4];
    if (n == 0 || (!braces && n < most) || base_utf8_encode(value, utf8) == 0 ||
        (kind == 'x' && !braces && value > 0x7F))
        return false;
    if (braces && (s->at >= s->end || *s->at++ != '}'))
        return false;
    base_text_printf(&s->out, "\\x{%x}", value);
    return true;
}

/* What follows a backslash. */
static bool escape(scanner *s, bool in_class)
{
    if (s->at >= s->end)
        return false;
    char c = *s->at++;
    switch (c) {
    case 'r':
    case 'n':
    case 't':
    case 'f':
        base_text_printf(&s->out, "\\%c", c);
        return true;
    case 's':
        base_text_add(&s->out, in_class ? SPACE : "[" SPACE "]");
        return true;
    case 'S':
        if (!in_class)
            base_text_add(&s->out, "[^" SPACE "]");
        return !in_class;
    case 'd':
        base_text_add(&s->out, "\\p{Nd}");
        return true;
    case 'D':
        base_text_add(&s->out, "\\P{Nd}");
        return true;
    case 'p':
        return property(s, false);
    case 'P':
        return property(s, true);
    case 'x':
    case 'u':
        return hexadecimal(s, c);
    default:
        if (is_punctuation(c))
            base_text_printf(&s->out, "\\%c", c);
        return is_punctuation(c);
    }
}

/* A literal character, escaped where PCRE2 could see more in it. */
static bool literal(scanner *s)
{
    uint32_t cp;
    size_t n = base_utf8_decode(s->at, (size_t)(s->end - s->at), &cp);
    if (!n)
        return false;
    if (n == 1 && is_punctuation(*s->at))
        base_text_add_char(&s->out, '\\');
    base_text_add_n(&s->out, s->at, n);
    s->at += n;
    return true;
}

/* After '['. No nested sets, no && and no [:posix:] names. */
static bool class(scanner *s)
{
    base_text_add_char(&s->out, '[');
    if (s->at < s->end && *s->at == '^') {
        base_text_add_char(&s->out, '^');
        s->at++;
    }
    const char *first = s->at;
    while (s->at < s->end) {
        char c = *s->at;
        if (c == ']' && s->at > first) {
            base_text_add_char(&s->out, ']');
            s->at++;
            return true;
        }
        if (c == '[' || c == ']' || (c == '&' && s->at + 1 < s->end && s->at[1] == '&'))
            return false;
        if (c == '-') {
            base_text_add(&s->out, s->at == first || s->at[1] == ']' ? "\\-" : "-");
            s->at++;
        } else if (c == '\\') {
            s->at++;
            if (!escape(s, true))
                return false;
        } else if (!literal(s)) {
            return false;
        }
    }
    return false;
}

/* After '(': a plain group is taken as one that does not capture. */
static bool group(scanner *s)
{
    static const char *const kinds[] = {"?:", "?i:", "?=", "?!", "?<=", "?<!", "?>"};
    const char *kind = *s->at == '?' ? NULL : "?:";
    for (size_t i = 0; !kind && i < sizeof kinds / sizeof *kinds; i++) {
        size_t n = strlen(kinds[i]);
        if ((size_t)(s->end - s->at) >= n && memcmp(s->at, kinds[i], n) == 0) {
            kind = kinds[i];
            s->at += n;
        }
    }
    if (!kind)
        return false;
    base_text_printf(&s->out, "(%s", kind);
    s->depth++;
    return true;
}

/* {n}, {n,} and {n,m}; what Oniguruma makes of a suffix to them differs from PCRE2. */
static bool counted(scanner *s)
{
    const char *p = s->at + 1;
    size_t n = strspn(p, "0123456789");
    if (n < 1 || n > 4)
        return false;
    p += n;
    if (*p == ',') {
        n = strspn(++p, "0123456789");
        if (n > 4)
            return false;
        p += n;
    }
    if (*p != '}' || p[1] == '?' || p[1] == '+' || p[1] == '*')
        return false;
    base_text_add_n(&s->out, s->at, (size_t)(p + 1 - s->at));
    s->at = p + 1;
    return true;
}

static bool quantifier(scanner *s)
{
    if (!s->quantified)
        return false;
    s->quantified = false;
    if (*s->at == '{')
        return counted(s);
    base_text_add_char(&s->out, *s->at++);
    if (s->at < s->end && (*s->at == '?' || *s->at == '+'))
        base_text_add_char(&s->out, *s->at++);
    return true;
}

static bool item(scanner *s)
{
    char c = *s->at;
    if (c == '*' || c == '+' || c == '?' || c == '{')
        return quantifier(s);
    s->quantified = c != '(' && c != '|';
    if (c == '|' || (c == ')' && s->depth > 0)) {
        s->depth -= c == ')';
        base_text_add_char(&s->out, c);
        s->at++;
        return true;
    }
    if (c == '.' || c == '^' || c == '$' || c == ')' || c == '}' || c == ']')
        return false;
    if (c != '\\' && c != '[' && c != '(')
        return literal(s);
    s->at++;
    return c == '\\' ? escape(s, false) : c == '[' ? class(s) : group(s);
}

marco_status tok_pattern_translate(const char *source, const char *pattern, char **out,
                                   marco_error *error)
{
    size_t size = strlen(pattern);
    if (size > MAX_PATTERN)
        return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                         "%s: a split pattern of %zu bytes is longer than the %d allowed", source,
                         size, MAX_PATTERN);
    scanner s = {.start = pattern, .at = pattern, .end = pattern + size};
    while (s.at < s.end) {
        const char *from = s.at;
        if (!item(&s)) {
            base_text_free(&s.out);
            return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                             "%s: the split pattern has an unsupported construct at byte %zu: "
                             "'%.40s'",
                             source, (size_t)(from - pattern), from);
        }
    }
    if (s.depth) {
        base_text_free(&s.out);
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: the split pattern lacks a ')': '%.200s'",
                         source, pattern);
    }
    *out = base_text_take(&s.out, NULL);
    return *out ? MARCO_OK : base_fail_memory(error, size, "a split pattern");
}
