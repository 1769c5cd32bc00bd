#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

const char *marco_status_name(marco_status status)
{
    switch (status) {
#define CASE(name, code, text)                                                                     \
    case MARCO_##name:                                                                             \
        return "MARCO_" #name;
        MARCO_STATUS_LIST(CASE)
#undef CASE
    }
    return "MARCO_ERROR_UNKNOWN";
}

const char *marco_status_text(marco_status status)
{
    switch (status) {
#define CASE(name, code, text)                                                                     \
    case MARCO_##name:                                                                             \
        return text;
        MARCO_STATUS_LIST(CASE)
#undef CASE
    }
    return "unknown status";
}

/* File names and tensor names come from outside: a control character in one would break the
 * one-line promise, or the terminal; half a character, whoever reads the message as UTF-8. */
static void make_printable(char *s)
{
    size_t size = strlen(s);
    for (size_t at = 0; at < size;) {
        uint32_t cp;
        size_t n = base_utf8_decode(s + at, size - at, &cp);
        if (n == 0 || cp < 0x20 || (cp >= 0x7F && cp <= 0x9F)) {
            n = n ? n : 1;
            memset(s + at, '?', n);
        }
        at += n;
    }
}

/* What does not fit loses its middle: the beginning names the file, the end says why. */
static void fit(char *to, size_t capacity, const char *message)
{
    static const char mark[] = " [...] ";
    size_t size = strlen(message), head = capacity / 2;
    if (size < capacity) {
        memcpy(to, message, size + 1);
        return;
    }
    size_t tail = capacity - head - sizeof mark;
    memcpy(to, message, head);
    memcpy(to + head, mark, sizeof mark - 1);
    memcpy(to + head + sizeof mark - 1, message + size - tail, tail + 1);
}

marco_status base_fail(marco_error *error, marco_status status, const char *format, ...)
{
    if (error) {
        char message[8192]; /* two paths of PATH_MAX */
        va_list args;
        va_start(args, format);
        vsnprintf(message, sizeof message, format, args);
        va_end(args);
        error->status = status;
        fit(error->message, sizeof error->message, message);
        make_printable(error->message);
    }
    return status;
}

marco_status base_fail_memory(marco_error *error, size_t size, const char *what)
{
    return base_fail(error, MARCO_ERROR_MEMORY, "out of memory: %zu bytes for %s could not be had",
                     size, what);
}

marco_status base_fail_errno(marco_error *error, int code, const char *what, const char *path)
{
    marco_status status = MARCO_ERROR_IO;
    if (code == ENOENT || code == ENOTDIR)
        status = MARCO_ERROR_NOT_FOUND;
    else if (code == ENOSPC || code == EDQUOT)
        status = MARCO_ERROR_SPACE;
    else if (code == ENOMEM)
        status = MARCO_ERROR_MEMORY;
    else if (code == EEXIST || code == ENOTEMPTY)
        status = MARCO_ERROR_EXISTS;
    /* strerror is safe among threads in glibc (since 2.32) and musl; strerror_r has two forms. */
    return base_fail(error, status, "%s %s: %s", what, path, strerror(code));
}

const char *marco_version(void)
{
    return MARCO_VERSION;
}
