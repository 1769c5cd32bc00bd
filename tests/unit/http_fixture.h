/* A server of the HTTP layer whose handlers tests command, and clients of raw sockets. */
#ifndef TESTS_HTTP_FIXTURE_H
#define TESTS_HTTP_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "serve/http.h"

enum { PATIENCE_MS = 10000, MAX_BODY = 100000 };

static inline double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- a server ------------------------------------------------------------------------------- */

typedef struct fixture {
    http_server *server;
    atomic_int handed, refused, done, gone;
    atomic_int last_status;
    sem_t step;             /* the client allows the next piece of /stream */
    sem_t left;             /* a client has left */
    pthread_t threads[512]; /* that answer later */
    atomic_int n_threads;
} fixture;

typedef struct job {
    fixture *f;
    http_request *request;
    atomic_bool stop;
    atomic_int refs;
} job;

static inline void drop(job *j)
{
    if (atomic_fetch_sub(&j->refs, 1) == 1)
        free(j);
}

static inline void *later(void *user)
{
    job *j = user;
    struct timespec moment = {.tv_nsec = 5000000};
    nanosleep(&moment, NULL);
    http_respond(j->request, 200, "text/plain", "later", 5);
    drop(j);
    return NULL;
}

/* A piece for each step allowed, "piece 0\n" and so on up to 50. */
static inline void *stream(void *user)
{
    job *j = user;
    char piece[32];
    http_stream_begin(j->request, 200, "text/event-stream");
    for (int i = 0; i < 50; i++) {
        sem_wait(&j->f->step);
        int n = snprintf(piece, sizeof piece, "piece %d\n", i);
        http_stream_write(j->request, piece, (size_t)n);
    }
    http_stream_end(j->request);
    drop(j);
    return NULL;
}

/* As fast as it goes, until it is told that the client is gone. */
static inline void *flood(void *user)
{
    job *j = user;
    static char block[4096];
    http_stream_begin(j->request, 200, "text/plain");
    for (int i = 0; i < 4000; i++)
        http_stream_write(j->request, block, sizeof block);
    while (!atomic_load(&j->stop)) {
        http_stream_write(j->request, "x", 1);
        struct timespec moment = {.tv_nsec = 1000000};
        nanosleep(&moment, NULL);
    }
    http_stream_end(j->request);
    drop(j);
    return NULL;
}

static inline void on_gone_flood(void *user)
{
    job *j = user;
    atomic_fetch_add(&j->f->gone, 1);
    atomic_store(&j->stop, true);
    sem_post(&j->f->left);
    drop(j);
}

static inline void on_gone_never(void *user)
{
    job *j = user;
    atomic_fetch_add(&j->f->gone, 1);
    fixture *f = j->f;
    http_respond(j->request, 499, NULL, "", 0); /* answering within it is allowed */
    drop(j);
    sem_post(&f->left);
}

static inline void run(fixture *f, void *(*work)(void *), job *j)
{
    int i = atomic_fetch_add(&f->n_threads, 1);
    assert_true(i < 512);
    assert_int_equal(pthread_create(&f->threads[i], NULL, work, j), 0);
}

static inline void on_request(void *user, http_request *request)
{
    fixture *f = user;
    const char *path = http_path(request);
    size_t size = 0;
    const char *body = http_body(request, &size);
    atomic_fetch_add(&f->handed, 1);
    job *j = calloc(1, sizeof *j);
    *j = (job){.f = f, .request = request};
    atomic_store(&j->refs, 1);
    if (strcmp(path, "/later") == 0) {
        run(f, later, j);
    } else if (strcmp(path, "/stream") == 0) {
        run(f, stream, j);
    } else if (strcmp(path, "/flood") == 0) {
        atomic_store(&j->refs, 2);
        http_on_gone(request, on_gone_flood, j);
        run(f, flood, j);
    } else if (strcmp(path, "/never") == 0) {
        http_on_gone(request, on_gone_never, j);
    } else {
        drop(j);
        const char *say = http_header(request, "x-SAY");
        http_add_header(request, "X-Path", path);
        if (say)
            http_respond_static(request, 200, "text/plain", "static", 6);
        else
            http_respond(request, 200, "text/plain", body, size);
    }
}

static inline void on_refused(void *user, http_request *request, int status)
{
    fixture *f = user;
    atomic_fetch_add(&f->refused, 1);
    http_respond(request, status, "text/plain", "refused", 7);
}

static inline void on_done(void *user, const http_request *request)
{
    fixture *f = user;
    atomic_store(&f->last_status, http_status(request));
    atomic_fetch_add(&f->done, 1);
}

static inline http_params defaults(fixture *f)
{
    return (http_params){.host = "127.0.0.1",
                         .max_body = MAX_BODY,
                         .body_seconds = 30,
                         .idle_seconds = 30,
                         .max_connections = 64,
                         .on_request = on_request,
                         .on_refused = on_refused,
                         .on_done = on_done,
                         .user = f};
}

static inline fixture *open_server(const http_params *given)
{
    fixture *f = calloc(1, sizeof *f);
    http_params params = given ? *given : defaults(f);
    marco_error error = {0};
    params.user = f;
    sem_init(&f->step, 0, 0);
    sem_init(&f->left, 0, 0);
    if (http_server_create(&params, &f->server, &error) != MARCO_OK ||
        http_server_start(f->server, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    return f;
}

/* Everything that was handed over or refused has been reported as done by the end. */
static inline void close_server(fixture *f)
{
    http_server_close(f->server);
    int n = atomic_load(&f->n_threads);
    for (int i = 0; i < n; i++)
        pthread_join(f->threads[i], NULL);
    assert_true(atomic_load(&f->done) >= atomic_load(&f->handed) + atomic_load(&f->refused));
    sem_destroy(&f->step);
    sem_destroy(&f->left);
    free(f);
}

static inline void wait_for(sem_t *semaphore)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_MS / 1000;
    while (sem_timedwait(semaphore, &until) != 0)
        assert_int_equal(errno, EINTR);
}

static inline void wait_count(atomic_int *count, int wanted)
{
    double until = now() + 1e-3 * PATIENCE_MS;
    while (atomic_load(count) < wanted && now() < until)
        poll(NULL, 0, 2);
    assert_int_equal(atomic_load(count), wanted);
}

/* ---- a client -------------------------------------------------------------------------------- */

static inline int dial(const fixture *f)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_server_port(f->server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static inline void say(int fd, const char *text)
{
    size_t size = strlen(text), done = 0;
    while (done < size) {
        ssize_t n = send(fd, text + done, size - done, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* what was answered decides */
        done += (size_t)n;
    }
}

/* Reads until `mark` has come, or the end. Returns what came, to be freed. */
static inline char *hear(int fd, const char *mark)
{
    size_t size = 0, room = 1 << 16;
    char *text = calloc(1, room);
    while (size + 1 < room && !(mark && strstr(text, mark))) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, PATIENCE_MS) != 1)
            fail_msg("nothing came; so far: %s", text);
        ssize_t n = recv(fd, text + size, room - 1 - size, 0);
        if (n <= 0)
            break;
        size += (size_t)n;
        text[size] = '\0';
    }
    return text;
}

static inline int count_of(const char *text, const char *what)
{
    int n = 0;
    for (; (text = strstr(text, what)) != NULL; text += strlen(what))
        n++;
    return n;
}

/* Sends, reads up to the mark, and wants to find `wanted` in it. */
static inline void expect(int fd, const char *request, const char *mark, const char *wanted)
{
    say(fd, request);
    char *text = hear(fd, mark);
    if (!strstr(text, wanted))
        fail_msg("no '%s' in: %s", wanted, text);
    free(text);
}

static inline bool is_closed(int fd)
{
    char scrap[4096];
    for (;;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, PATIENCE_MS) != 1)
            return false;
        if (recv(fd, scrap, sizeof scrap, 0) <= 0)
            return true;
    }
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: x\r\n\r\n"

#endif
