/* Errors: a status to branch on, a line for the user. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "marco/marco.h"

/* Fills `error` (may be NULL) with the status and the formatted line; returns the status. */
marco_status base_fail(marco_error *error, marco_status status, const char *format, ...)
    MARCO_PRINTF(3, 4);

/* "out of memory (asked for N bytes for WHAT)". */
marco_status base_fail_memory(marco_error *error, size_t size, const char *what);

/* An errno as a status with "WHAT PATH: strerror": ENOSPC and EDQUOT, ENOENT, ENOMEM and EEXIST
 * have their own status. */
marco_status base_fail_errno(marco_error *error, int code, const char *what, const char *path);

#endif
