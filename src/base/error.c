#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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
 * one-line promise, or the terminal. */
static void make_printable(char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c < 0x20 || c == 0x7f)
            *s = '?';
    }
}

marco_status base_fail(marco_error *error, marco_status status, const char *format, ...)
{
    if (error) {
        va_list args;
        va_start(args, format);
        error->status = status;
        vsnprintf(error->message, sizeof error->message, format, args);
        va_end(args);
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

void base_error_prefix(marco_error *error, const char *prefix)
{
    if (!error)
        return;
    char old[sizeof error->message];
    memcpy(old, error->message, sizeof old);
    snprintf(error->message, sizeof error->message, "%.200s: %.540s", prefix, old);
    make_printable(error->message);
}
