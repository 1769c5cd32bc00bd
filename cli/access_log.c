#include "access_log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    KEPT = 1 << 20, /* bytes of lines that nobody has taken */
    PIECE = 4096,   /* what a pipe that has room takes without blocking (PIPE_BUF) */
    LAST_MS = 1000, /* at the end, for a reader to take something */
    POLL_MS = 200,  /* between looks whether it is the end */
};

struct access_log {
    const char *path;
    pthread_mutex_t lock;
    pthread_cond_t more;
    pthread_t writer;
    int fd;        /* the writer's */
    int fresh;     /* to be written to next; -1: none */
    size_t before; /* with `fresh`: bytes that go to the old one still */
    char *kept;    /* [KEPT], of which `size` are to be written */
    size_t size;
    unsigned long long dropped; /* lines */
    bool ending;
};

static int open_path(const char *path)
{
    return path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640)
                : fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
}

/* Adds a line if there is room. The lock is the caller's. */
static bool keep(access_log *log, const char *line)
{
    size_t size = strlen(line);
    if (size >= KEPT - log->size)
        return false;
    memcpy(log->kept + log->size, line, size);
    log->kept[log->size + size] = '\n';
    log->size += size + 1;
    return true;
}

/* Says how many lines are missing. */
static void tell_dropped(access_log *log)
{
    char line[160], when[32];
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(line, sizeof line, "{\"time\":\"%s.%03ldZ\",\"event\":\"log_dropped\",\"lines\":%llu}",
             when, now.tv_nsec / 1000000, log->dropped);
    if (keep(log, line))
        log->dropped = 0;
}

/* Whether somebody takes what is written, or that it fails at once. */
static bool has_room(int fd, int ms)
{
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    return poll(&wait, 1, ms) != 0;
}

/* How much to write at once: whole lines as far as they fit, so that nothing comes amid one. */
static size_t piece_of(const access_log *log)
{
    size_t size = log->fresh >= 0 ? log->before : log->size;
    if (size <= PIECE)
        return size;
    const char *end = memrchr(log->kept, '\n', PIECE);
    return end ? (size_t)(end - log->kept) + 1 : PIECE;
}

static void forget(access_log *log, size_t size)
{
    memmove(log->kept, log->kept + size, log->size - size);
    log->size -= size;
    log->before -= size < log->before ? size : log->before;
}

/* Writes a piece, if somebody takes it within a moment. The lock is the caller's, given away
 * meanwhile. */
static void write_piece(access_log *log)
{
    char piece[PIECE];
    size_t size = piece_of(log);
    bool ending = log->ending;
    memcpy(piece, log->kept, size);
    pthread_mutex_unlock(&log->lock);
    bool room = has_room(log->fd, ending ? LAST_MS : POLL_MS);
    ssize_t n = room ? write(log->fd, piece, size) : 0;
    bool failed = room && n < 0 && errno != EINTR && errno != EAGAIN;
    pthread_mutex_lock(&log->lock);
    if (failed) /* a full disk does not stop the server */
        forget(log, size);
    else if (n > 0)
        forget(log, (size_t)n);
    if (!room)
        log->before = 0; /* another file may take it */
    if (!room && ending)
        forget(log, log->size);
}

static void *write_lines(void *user)
{
    access_log *log = user;
    pthread_mutex_lock(&log->lock);
    for (;;) {
        if (log->fresh >= 0 && log->before == 0) {
            close(log->fd);
            log->fd = log->fresh;
            log->fresh = -1;
        } else if (log->size > 0) {
            write_piece(log);
            if (log->dropped)
                tell_dropped(log);
        } else if (log->ending) {
            break;
        } else {
            pthread_cond_wait(&log->more, &log->lock);
        }
    }
    pthread_mutex_unlock(&log->lock);
    return NULL;
}

access_log *access_log_open(const char *path)
{
    access_log *log = calloc(1, sizeof *log);
    char *kept = malloc(KEPT);
    int fd = open_path(path), code = fd < 0 ? errno : 0;
    if (code == 0 && (!log || !kept))
        code = ENOMEM;
    if (code == 0) {
        sigset_t all, before;
        *log = (access_log){.path = path, .fd = fd, .fresh = -1, .kept = kept};
        pthread_mutex_init(&log->lock, NULL);
        pthread_cond_init(&log->more, NULL);
        sigfillset(&all); /* signals are for others */
        pthread_sigmask(SIG_SETMASK, &all, &before);
        code = pthread_create(&log->writer, NULL, write_lines, log);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (code == 0)
            return log;
        pthread_cond_destroy(&log->more);
        pthread_mutex_destroy(&log->lock);
    }
    if (fd >= 0)
        close(fd);
    free(kept);
    free(log);
    errno = code;
    return NULL;
}

void access_log_line(void *user, const char *line)
{
    access_log *log = user;
    pthread_mutex_lock(&log->lock);
    if (log->dropped)
        tell_dropped(log);
    if (log->dropped || !keep(log, line))
        log->dropped++;
    pthread_cond_signal(&log->more);
    pthread_mutex_unlock(&log->lock);
}

bool access_log_reopen(access_log *log)
{
    if (!log->path)
        return true;
    int fd = open_path(log->path);
    if (fd < 0)
        return false;
    pthread_mutex_lock(&log->lock);
    if (log->fresh >= 0)
        close(log->fresh);
    log->fresh = fd;
    log->before = log->size;
    pthread_cond_signal(&log->more);
    pthread_mutex_unlock(&log->lock);
    return true;
}

void access_log_close(access_log *log)
{
    if (!log)
        return;
    pthread_mutex_lock(&log->lock);
    log->ending = true;
    pthread_cond_signal(&log->more);
    pthread_mutex_unlock(&log->lock);
    pthread_join(log->writer, NULL);
    if (log->fresh >= 0)
        close(log->fresh);
    close(log->fd);
    pthread_cond_destroy(&log->more);
    pthread_mutex_destroy(&log->lock);
    free(log->kept);
    free(log);
}
