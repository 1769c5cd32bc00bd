/* The access log of marco serve. Lines are written by a thread of its own: one who reads a log and
 * stalls must not hold up who is served. */
#ifndef CLI_ACCESS_LOG_H
#define CLI_ACCESS_LOG_H

#include <marco/marco.h>

typedef struct access_log access_log;

/* Lines go to the file at `path`, which must outlive the log, or to standard error where that is
 * NULL. NULL, with errno set, where it cannot be opened or there is no memory or thread. */
access_log *access_log_open(const char *path);

/* A line without its newline, written whole, in the order given, soon. While nobody takes any, so
 * many are kept; further ones are counted, and the count is logged when writing goes on. `user` is
 * the log: what marco_serve_params wants. */
void access_log_line(void *user, const char *line);

/* The file is opened again, in case another has taken its name; false, with errno set and the old
 * one in use, where that fails. */
bool access_log_reopen(access_log *log);

/* Writes what is left, for as long as somebody takes it. NULL is allowed. */
void access_log_close(access_log *log);

#endif
