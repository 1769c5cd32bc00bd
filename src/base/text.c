#include "base/text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

static bool reserve(base_text *text, size_t more)
{
    size_t need;
    void *data = text->data;
    if (text->failed || __builtin_add_overflow(text->size, more, &need) ||
        __builtin_add_overflow(need, (size_t)1, &need) ||
        !base_grow(&data, &text->capacity, need, 1)) {
        text->failed = true;
        return false;
    }
    text->data = data;
    return true;
}

void base_text_add_n(base_text *text, const char *bytes, size_t size)
{
    if (!reserve(text, size))
        return;
    if (size)
        memcpy(text->data + text->size, bytes, size);
    text->size += size;
    text->data[text->size] = '\0';
}

void base_text_add(base_text *text, const char *s)
{
    base_text_add_n(text, s, strlen(s));
}

void base_text_add_char(base_text *text, char c)
{
    base_text_add_n(text, &c, 1);
}

void base_text_printf(base_text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !reserve(text, (size_t)n)) {
        text->failed = true;
        return;
    }
    va_start(args, format);
    vsnprintf(text->data + text->size, (size_t)n + 1, format, args);
    va_end(args);
    text->size += (size_t)n;
}

void base_text_clear(base_text *text)
{
    text->size = 0;
    text->failed = false;
    if (text->data)
        text->data[0] = '\0';
}

void base_text_free(base_text *text)
{
    base_free(text->data);
    *text = (base_text){0};
}

char *base_text_take(base_text *text, size_t *size)
{
    if (!text->data)
        reserve(text, 0);
    if (text->failed) {
        base_text_free(text);
        return NULL;
    }
    char *data = text->data;
    data[text->size] = '\0';
    if (size)
        *size = text->size;
    *text = (base_text){0};
    return data;
}

bool base_is_blank(const char *s, size_t size)
{
    size_t i = 0;
    while (i < size && (s[i] == ' ' || (s[i] >= '\t' && s[i] <= '\r')))
        i++;
    return i == size;
}

size_t base_utf8_mark(const char *s, size_t size)
{
    return size >= 3 && memcmp(s, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
}

/* The well-formed sequences differ only in the range of the second byte (Unicode 15, table 3-7). */
static size_t lead(unsigned char c, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (c < 0x80)
        return 1;
    if (c >= 0xC2 && c <= 0xDF)
        return 2;
    if (c >= 0xE0 && c <= 0xEF) {
        if (c == 0xE0)
            *low = 0xA0;
        if (c == 0xED)
            *high = 0x9F;
        return 3;
    }
    if (c >= 0xF0 && c <= 0xF4) {
        if (c == 0xF0)
            *low = 0x90;
        if (c == 0xF4)
            *high = 0x8F;
        return 4;
    }
    return 0;
}

/* How many bytes of s are a correct beginning of a character of *length bytes. */
static size_t correct_prefix(const char *s, size_t size, size_t *length)
{
    unsigned char low, high;
    *length = size ? lead((unsigned char)s[0], &low, &high) : 0;
    if (*length == 0)
        return 0;
    size_t n = 1;
    for (; n < *length && n < size; n++) {
        unsigned char c = (unsigned char)s[n];
        if (c < low || c > high)
            return n;
        low = 0x80;
        high = 0xBF;
    }
    return n;
}

void base_shortest(double value, char out[32])
{
    /* 15 digits give every number of so few back, and printf leaves their zeros away; the smallest
     * doubles do not keep as many. */
    int digits = fabs(value) < 1e-290 ? 1 : 15;
    do
        snprintf(out, 32, "%.*g", digits, value);
    while (digits++ < 17 && strtod(out, NULL) != value);
    char *comma = strchr(out, ','); /* the decimal point of many locales */
    if (comma)
        *comma = '.';
}

size_t base_utf8_decode(const char *s, size_t size, uint32_t *cp)
{
    size_t length;
    if (correct_prefix(s, size, &length) != length || length == 0)
        return 0;
    uint32_t value = (unsigned char)s[0];
    if (length > 1)
        value &= 0x7Fu >> length;
    for (size_t i = 1; i < length; i++)
        value = value << 6 | ((unsigned char)s[i] & 0x3Fu);
    *cp = value;
    return length;
}

size_t base_utf8_partial(const char *s, size_t size)
{
    size_t length;
    size_t n = correct_prefix(s, size, &length);
    return n == size && n < length ? n : 0;
}

size_t base_utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        if (cp >= 0xD800 && cp <= 0xDFFF)
            return 0;
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    if (cp > 0x10FFFF)
        return 0;
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

size_t base_utf8_check(const char *s, size_t size)
{
    size_t i = 0;
    while (i < size) {
        uint32_t cp;
        size_t n = base_utf8_decode(s + i, size - i, &cp);
        if (n == 0)
            break;
        i += n;
    }
    return i;
}

void base_utf8_repair(char *s)
{
    size_t size = strlen(s), at = 0;
    while ((at += base_utf8_check(s + at, size - at)) < size)
        s[at++] = '?';
}
