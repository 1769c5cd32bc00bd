/* The HTTP layer, by raw sockets: what is asked comes whole, what is answered goes at once, from
 * any thread; and clients that are slow, gone, greedy or wrong harm nobody. */
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

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "serve/http.h"

enum { PATIENCE_MS = 10000, MAX_BODY = 100000 };

static double now(void)
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

static void drop(job *j)
{
    if (atomic_fetch_sub(&j->refs, 1) == 1)
        free(j);
}

static void *later(void *user)
{
    job *j = user;
    struct timespec moment = {.tv_nsec = 5000000};
    nanosleep(&moment, NULL);
    http_respond(j->request, 200, "text/plain", "later", 5);
    drop(j);
    return NULL;
}

/* A piece for each step allowed, "piece 0\n" and so on up to 50. */
static void *stream(void *user)
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
static void *flood(void *user)
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

static void on_gone_flood(void *user)
{
    job *j = user;
    atomic_fetch_add(&j->f->gone, 1);
    atomic_store(&j->stop, true);
    sem_post(&j->f->left);
    drop(j);
}

static void on_gone_never(void *user)
{
    job *j = user;
    atomic_fetch_add(&j->f->gone, 1);
    fixture *f = j->f;
    http_respond(j->request, 499, NULL, "", 0); /* answering within it is allowed */
    drop(j);
    sem_post(&f->left);
}

static void run(fixture *f, void *(*work)(void *), job *j)
{
    int i = atomic_fetch_add(&f->n_threads, 1);
    assert_true(i < 512);
    assert_int_equal(pthread_create(&f->threads[i], NULL, work, j), 0);
}

static void on_request(void *user, http_request *request)
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

static void on_refused(void *user, http_request *request, int status)
{
    fixture *f = user;
    atomic_fetch_add(&f->refused, 1);
    http_respond(request, status, "text/plain", "refused", 7);
}

static void on_done(void *user, const http_request *request)
{
    fixture *f = user;
    atomic_store(&f->last_status, http_status(request));
    atomic_fetch_add(&f->done, 1);
}

static http_params defaults(fixture *f)
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

static fixture *open_server(const http_params *given)
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
static void close_server(fixture *f)
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

static void wait_for(sem_t *semaphore)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_MS / 1000;
    while (sem_timedwait(semaphore, &until) != 0)
        assert_int_equal(errno, EINTR);
}

static void wait_count(atomic_int *count, int wanted)
{
    double until = now() + 1e-3 * PATIENCE_MS;
    while (atomic_load(count) < wanted && now() < until)
        poll(NULL, 0, 2);
    assert_int_equal(atomic_load(count), wanted);
}

/* ---- a client -------------------------------------------------------------------------------- */

static int dial(const fixture *f)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_server_port(f->server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void say(int fd, const char *text)
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
static char *hear(int fd, const char *mark)
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

static int count_of(const char *text, const char *what)
{
    int n = 0;
    for (; (text = strstr(text, what)) != NULL; text += strlen(what))
        n++;
    return n;
}

/* Sends, reads up to the mark, and wants to find `wanted` in it. */
static void expect(int fd, const char *request, const char *mark, const char *wanted)
{
    say(fd, request);
    char *text = hear(fd, mark);
    if (!strstr(text, wanted))
        fail_msg("no '%s' in: %s", wanted, text);
    free(text);
}

static bool is_closed(int fd)
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

/* ---- the protocol ---------------------------------------------------------------------------- */

static void requests_and_answers(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    int fd = dial(f);
    expect(fd, "POST /a%20b?c=d HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "hello",
           "X-Path: /a b\r\n");
    expect(fd, GET("/later"), "later", "200");
    expect(fd, "GET / HTTP/1.1\r\nHost: x\r\nX-Say: 1\r\n\r\n", "static", "Content-Length: 6\r\n");
    /* A body in chunks. */
    expect(fd,
           "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
           "4\r\nabcd\r\n3\r\nefg\r\n0\r\n\r\n",
           "abcdefg", "Content-Length: 7\r\n");
    /* HEAD has no body: what follows is the next answer. */
    say(fd, "HEAD / HTTP/1.1\r\nHost: x\r\nX-Say: 1\r\n\r\n" GET("/after"));
    char *text = hear(fd, "/after\r\n");
    assert_null(strstr(text, "static"));
    assert_int_equal(count_of(text, "HTTP/1.1 200"), 2);
    free(text);
    /* HTTP/1.0 is closed at the end. */
    say(fd, "GET / HTTP/1.0\r\n\r\n");
    assert_true(is_closed(fd));
    close(fd);
    close_server(f);
}

static void pipelined(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    int fd = dial(f);
    say(fd, GET("/later") GET("/1") GET("/2") GET("/last"));
    char *text = hear(fd, "X-Path: /last\r\n");
    const char *first = strstr(text, "later"), *one = strstr(text, "/1\r\n");
    const char *two = strstr(text, "/2\r\n");
    assert_true(first && one && two && first < one && one < two);
    free(text);
    close(fd);
    close_server(f);
}

static void expect_continue(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    int fd = dial(f);
    expect(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
           "\r\n\r\n", "HTTP/1.1 100");
    expect(fd, "hello", "hello", "HTTP/1.1 200");
    close(fd);
    /* Too long: refused before the body is sent. */
    fd = dial(f);
    expect(fd,
           "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n"
           "Expect: 100-continue\r\n\r\n",
           "refused", "HTTP/1.1 413");
    close(fd);
    close_server(f);
}

static void long_bodies(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    char *block = calloc(1, MAX_BODY + 2);
    memset(block, 'x', MAX_BODY + 1);
    /* Longer than declared patience: at once. */
    int fd = dial(f);
    expect(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", NULL,
           "HTTP/1.1 413");
    close(fd);
    /* And heard by those who send all they have before they listen. */
    fd = dial(f);
    say(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    for (int i = 0; i < 9; i++)
        say(fd, block);
    expect(fd, "", NULL, "HTTP/1.1 413");
    close(fd);
    /* A byte too long: heard, and the connection goes on. */
    fd = dial(f);
    say(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n");
    say(fd, block);
    expect(fd, "", "refused", "HTTP/1.1 413");
    expect(fd, GET("/next"), "/next\r\n", "200");
    /* As long as may be. */
    say(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
    block[MAX_BODY] = '\0';
    say(fd, block);
    expect(fd, "", "Content-Length: 100000", "HTTP/1.1 200");
    close(fd);
    /* In chunks: counted. */
    fd = dial(f);
    say(fd, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n186A0\r\n");
    say(fd, block);
    expect(fd, "\r\n1\r\nx\r\n0\r\n\r\n", "refused", "HTTP/1.1 413");
    /* Without end. */
    say(fd, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFF\r\n");
    for (int i = 0; i < 4; i++)
        say(fd, block);
    assert_true(is_closed(fd));
    close(fd);
    free(block);
    close_server(f);
}

static void unsound_requests(void **state)
{
    (void)state;
    static const char *const requests[] = {
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5x\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /%0a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /%4 HTTP/1.1\r\nHost: x\r\n\r\n",
        /* What others take for a length, or for one header, must not be taken for nothing. */
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 28\r\n\r\nGET / HTTP/1.1\r\nHost: "
        "x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length\t: 28\r\n\r\n"
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n"
        "0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA@b: c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX: a\x01z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nOrigin: http://y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\ncontent-type: a/b\r\nContent-Type: c/d\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nExpect: foo\r\n\r\n",
        "AVERYLONGMETHODINDEED / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\x16\x03\x01\x02\x01\x01\xFC\r\n\r\n",
    };
    fixture *f = open_server(NULL);
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        int fd = dial(f);
        say(fd, requests[i]);
        char *text = hear(fd, NULL); /* to the end: it is closed */
        if (text[0] && strncmp(text, "HTTP/1.1 400", 12) != 0 &&
            strncmp(text, "HTTP/1.1 417", 12) != 0 && strncmp(text, "HTTP/1.1 501", 12) != 0)
            fail_msg("request %zu: %s", i, text);
        free(text);
        close(fd);
    }
    /* Heads without end. */
    int fd = dial(f);
    say(fd, "GET / HTTP/1.1\r\nHost: x\r\nX: ");
    char *block = calloc(1, 200001);
    memset(block, 'x', 200000);
    say(fd, block);
    assert_true(is_closed(fd));
    close(fd);
    free(block);
    assert_int_equal(atomic_load(&f->handed), 0);
    close_server(f);
}

/* ---- time ------------------------------------------------------------------------------------ */

/* Sends a byte at a time until the connection is closed; seconds that took. */
static double drip(fixture *f, const char *head, char *heard, size_t room)
{
    int fd = dial(f);
    double begin = now();
    say(fd, head);
    heard[0] = '\0';
    while (now() - begin < 8) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, 50) == 1) {
            ssize_t n = recv(fd, heard, room - 1, 0);
            heard[n > 0 ? n : 0] = '\0';
            break;
        }
        send(fd, "x", 1, MSG_NOSIGNAL);
    }
    close(fd);
    return now() - begin;
}

static void slow_requests(void **state)
{
    (void)state;
    http_params params = defaults(NULL);
    char heard[1024];
    params.body_seconds = params.idle_seconds = 1;
    fixture *f = open_server(&params);
    double line = drip(f, "GET /", heard, sizeof heard);
    double head = drip(f, "GET / HTTP/1.1\r\nHost: x\r\nX: ", heard, sizeof heard);
    assert_true(line > 0.8 && line < 4 && head > 0.8 && head < 4);
    double body =
        drip(f, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n", heard, sizeof heard);
    assert_true(body > 0.8 && body < 4);
    assert_non_null(strstr(heard, "408"));
    wait_count(&f->done, 1);
    assert_int_equal(atomic_load(&f->last_status), 408);
    /* Silent from the beginning, and after an answer. */
    int silent = dial(f), idle = dial(f);
    expect(idle, GET("/"), "X-Path", "200");
    assert_true(is_closed(silent) && is_closed(idle));
    close(silent);
    close(idle);
    assert_int_equal(atomic_load(&f->handed), 1);
    close_server(f);
}

/* A handler may take longer than a connection may idle. */
static void waiting_is_not_idling(void **state)
{
    (void)state;
    http_params params = defaults(NULL);
    params.body_seconds = params.idle_seconds = 1;
    fixture *f = open_server(&params);
    int fd = dial(f);
    say(fd, GET("/stream"));
    struct pollfd wait = {.fd = fd, .events = POLLIN | POLLHUP};
    double begin = now();
    while (now() - begin < 2.5 && poll(&wait, 1, 200) >= 0) {
        char scrap[256];
        if (wait.revents & POLLIN)
            assert_true(recv(fd, scrap, sizeof scrap, 0) > 0);
    }
    for (int i = 0; i < 50; i++)
        sem_post(&f->step);
    char *text = hear(fd, "piece 49");
    assert_non_null(strstr(text, "piece 48"));
    free(text);
    close(fd);
    close_server(f);
}

static void readers_that_take_nothing(void **state)
{
    (void)state;
    http_params params = defaults(NULL);
    params.idle_seconds = 1;
    fixture *f = open_server(&params);
    int fd = dial(f);
    say(fd, GET("/flood"));
    wait_for(&f->left);
    wait_count(&f->done, 1);
    close(fd);
    close_server(f);
}

/* ---- streams and leavers --------------------------------------------------------------------- */

/* Each piece comes before the next is written, and none waits for an acknowledgement. */
static void pieces_come_at_once(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    int fd = dial(f);
    say(fd, GET("/stream"));
    double begin = now();
    for (int i = 0; i < 50; i++) {
        char mark[32];
        snprintf(mark, sizeof mark, "piece %d\n", i);
        sem_post(&f->step);
        free(hear(fd, i < 49 ? mark : "\n\r\n0\r\n\r\n"));
    }
    double seconds = now() - begin;
    assert_true(seconds < 1.5); /* 40 ms each, if they did wait */
    expect(fd, GET("/next"), "/next\r\n", "200");
    close(fd);
    close_server(f);
}

static void leavers_are_noticed(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    for (int i = 0; i < 3; i++) {
        int fd = dial(f);
        say(fd, GET("/never"));
        wait_count(&f->handed, 2 * i + 1);
        double begin = now();
        if (i == 1) { /* all at once */
            struct linger hard = {.l_onoff = 1};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        }
        if (i == 2)
            shutdown(fd, SHUT_WR);
        else
            close(fd);
        wait_for(&f->left);
        /* A broken connection at once; of one who sends no more it is not known yet. */
        assert_true(now() - begin < (i == 1 ? 1 : 3));
        if (i == 2)
            close(fd);
        wait_count(&f->done, 2 * i + 1);

        fd = dial(f);
        say(fd, GET("/flood"));
        free(hear(fd, "xx"));
        close(fd);
        wait_for(&f->left);
        wait_count(&f->done, 2 * i + 2);
    }
    assert_int_equal(atomic_load(&f->gone), 6);
    /* Who stays is never said to have left. */
    int fd = dial(f);
    for (int i = 0; i < 20; i++)
        expect(fd, GET("/later"), "later", "200");
    close(fd);
    close_server(f);
}

/* What is sent and the end of it may come together: it is not waited for what cannot come. */
static void leavers_in_the_middle(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    for (int i = 0; i < 300; i++) {
        int fd = dial(f);
        say(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
        close(fd);
    }
    wait_count(&f->done, 300);
    assert_int_equal(atomic_load(&f->handed), 0);
    close_server(f);
}

/* They make room at once: where an address may have one connection, each of these would keep the
 * next client out. */
static void leavers_make_room(void **state)
{
    static const char *const halves[] = {
        "G", "GET / HT", "GET / HTTP/1.1\r\nHost: x", "GET / HTTP/1.1\r\nHost: x\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"};
    (void)state;
    http_params params = defaults(NULL);
    params.max_connections_per_address = 1;
    fixture *f = open_server(&params);
    double begin = now();
    for (int i = 0; i < 20; i++) {
        int fd = dial(f);
        say(fd, halves[i % 5]);
        if (i % 2)
            poll(NULL, 0, 2); /* the end comes with the rest, or by itself */
        close(fd);
        for (bool fine = false; !fine;) {
            fd = dial(f);
            say(fd, "GET / HTTP/1.0\r\n\r\n");
            char *text = hear(fd, NULL);
            fine = strstr(text, "200") != NULL;
            free(text);
            close(fd);
        }
    }
    assert_true(now() - begin < 6); /* 20, were each noticed after a second */
    close_server(f);
}

/* To send no more is not to leave. */
static void listeners_are_answered(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    for (int i = 0; i < 10; i++) {
        int fd = dial(f);
        say(fd, GET("/later") GET("/later"));
        shutdown(fd, SHUT_WR);
        char *text = hear(fd, NULL);
        assert_int_equal(count_of(text, "HTTP/1.1 200"), 2);
        free(text);
        close(fd);
    }
    /* A stream goes on for longer than that is borne otherwise. */
    int fd = dial(f);
    say(fd, GET("/stream"));
    free(hear(fd, "\r\n\r\n"));
    shutdown(fd, SHUT_WR);
    poll(NULL, 0, 1500);
    for (int i = 0; i < 50; i++)
        sem_post(&f->step);
    expect(fd, "", "piece 49", "piece 49");
    close(fd);
    assert_int_equal(atomic_load(&f->gone), 0);
    close_server(f);
}

/* A port is taken before anybody is listened to. */
static void bound_before_started(void **state)
{
    (void)state;
    fixture f = {0};
    http_params params = defaults(&f);
    marco_error error = {0};
    assert_int_equal(http_server_create(&params, &f.server, &error), MARCO_OK);
    assert_int_not_equal(http_server_port(f.server), 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_server_port(f.server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_not_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    assert_int_equal(http_server_open_requests(f.server), 0);
    http_server_close(f.server); /* without ever having started */
}

static void closing(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    int never[3], idle = dial(f), flooded = dial(f), half = dial(f);
    for (int i = 0; i < 3; i++) {
        never[i] = dial(f);
        say(never[i], GET("/never"));
    }
    expect(idle, GET("/"), "X-Path", "200");
    say(flooded, GET("/flood"));
    say(half, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
    wait_count(&f->handed, 5);
    double until = now() + 5;
    while (http_server_open_requests(f->server) < 4 && now() < until)
        poll(NULL, 0, 2);
    assert_int_equal(http_server_open_requests(f->server), 4); /* half a one does not count */

    http_server_quiesce(f->server);
    assert_true(is_closed(idle));
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_server_port(f->server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int late = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_not_equal(connect(late, (struct sockaddr *)&address, sizeof address), 0);
    close(late);
    close_server(f); /* wants all to be done */
    for (int i = 0; i < 3; i++) {
        expect(never[i], "", NULL, "HTTP/1.1 499"); /* what they were told at the end */
        close(never[i]);
    }
    assert_true(is_closed(half));
    close(idle);
    close(flooded);
    close(half);
}

static void connections_are_bounded(void **state)
{
    (void)state;
    http_params params = defaults(NULL);
    params.max_connections_per_address = 2;
    fixture *f = open_server(&params);
    int a = dial(f), b = dial(f);
    expect(a, GET("/"), "X-Path", "200");
    expect(b, GET("/"), "X-Path", "200");
    int c = dial(f);
    assert_true(is_closed(c));
    close(c);
    close(a);
    double until = now() + 5;
    for (bool fine = false; !fine && now() < until;) {
        c = dial(f);
        say(c, GET("/"));
        char *text = hear(c, "X-Path");
        fine = strstr(text, "200") != NULL;
        free(text);
        close(c);
    }
    assert_true(now() < until);
    close(b);
    close_server(f);
}

/* Everything at once, for the sanitizers. */
static void *bustle(void *user)
{
    fixture *f = user;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    for (int i = 0; i < 40; i++) {
        static const char *const asked[] = {GET("/"),
                                            GET("/later"),
                                            GET("/flood"),
                                            GET("/never"),
                                            GET("/later") GET("/flood"),
                                            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"};
        int fd = dial(f);
        say(fd, asked[rand_r(&seed) % 6]);
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        char scrap[512];
        if (poll(&wait, 1, rand_r(&seed) % 8) == 1)
            recv(fd, scrap, sizeof scrap, 0);
        close(fd);
    }
    return NULL;
}

static void many_at_once(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    pthread_t threads[6];
    for (int i = 0; i < 6; i++)
        pthread_create(&threads[i], NULL, bustle, f);
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    double until = now() + 10;
    while (http_server_open_requests(f->server) > 0 && now() < until)
        poll(NULL, 0, 5);
    assert_int_equal(http_server_open_requests(f->server), 0);
    int fd = dial(f);
    expect(fd, GET("/"), "X-Path", "200");
    close(fd);
    close_server(f);
}

/* ---- TLS ------------------------------------------------------------------------------------- */

/* A key and a certificate for it, signed by itself; PEM, to be freed by gnutls_free. */
static void make_certificate(const char *name, gnutls_datum_t *cert, gnutls_datum_t *key)
{
    gnutls_x509_privkey_t private;
    gnutls_x509_crt_t public;
    gnutls_x509_privkey_init(&private);
    gnutls_x509_crt_init(&public);
    assert_int_equal(gnutls_x509_privkey_generate(private, GNUTLS_PK_ECDSA,
                                                  GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1),
                                                  0),
                     0);
    gnutls_x509_crt_set_version(public, 3);
    gnutls_x509_crt_set_serial(public, "\x01", 1);
    gnutls_x509_crt_set_activation_time(public, time(NULL) - 60);
    gnutls_x509_crt_set_expiration_time(public, time(NULL) + 3600);
    gnutls_x509_crt_set_dn_by_oid(public, GNUTLS_OID_X520_COMMON_NAME, 0, name,
                                  (unsigned)strlen(name));
    gnutls_x509_crt_set_key(public, private);
    assert_int_equal(gnutls_x509_crt_sign2(public, public, private, GNUTLS_DIG_SHA256, 0), 0);
    assert_int_equal(gnutls_x509_crt_export2(public, GNUTLS_X509_FMT_PEM, cert), 0);
    assert_int_equal(gnutls_x509_privkey_export2(private, GNUTLS_X509_FMT_PEM, key), 0);
    gnutls_x509_crt_deinit(public);
    gnutls_x509_privkey_deinit(private);
}

/* Asks for / over TLS; the common name that the server's certificate has, or "" where there was no
 * handshake. */
static void tls_ask(fixture *f, const char *priorities, char name[64])
{
    gnutls_certificate_credentials_t credentials;
    gnutls_session_t session;
    char answer[4096] = "";
    int fd = dial(f), code;
    name[0] = '\0';
    gnutls_certificate_allocate_credentials(&credentials);
    gnutls_init(&session, GNUTLS_CLIENT);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials);
    gnutls_priority_set_direct(session, priorities, NULL);
    gnutls_transport_set_int(session, fd);
    gnutls_handshake_set_timeout(session, PATIENCE_MS);
    do
        code = gnutls_handshake(session);
    while (code < 0 && !gnutls_error_is_fatal(code));
    if (code == 0) {
        unsigned n = 0;
        size_t size = 64;
        const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &n);
        gnutls_x509_crt_t cert;
        gnutls_x509_crt_init(&cert);
        gnutls_x509_crt_import(cert, &chain[0], GNUTLS_X509_FMT_DER);
        gnutls_x509_crt_get_dn_by_oid(cert, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &size);
        gnutls_x509_crt_deinit(cert);
        static const char request[] = GET("/tls");
        gnutls_record_send(session, request, sizeof request - 1);
        for (size_t at = 0; !strstr(answer, "\r\n\r\n") && at < sizeof answer - 1;) {
            ssize_t got = gnutls_record_recv(session, answer + at, sizeof answer - 1 - at);
            if (got <= 0 && got != GNUTLS_E_AGAIN && got != GNUTLS_E_INTERRUPTED)
                break;
            at += got > 0 ? (size_t)got : 0;
        }
        assert_non_null(strstr(answer, "X-Path: /tls"));
    }
    gnutls_deinit(session);
    gnutls_certificate_free_credentials(credentials);
    close(fd);
}

static void tls(void **state)
{
    (void)state;
    gnutls_datum_t cert[2], key[2];
    char name[64];
    marco_error error = {0};
    make_certificate("first", &cert[0], &key[0]);
    make_certificate("second", &cert[1], &key[1]);
    http_params params = defaults(NULL);
    params.cert = (char *)cert[0].data;
    params.key = (char *)key[0].data;
    fixture *f = open_server(&params);
    tls_ask(f, "NORMAL", name);
    assert_string_equal(name, "first");
    assert_int_equal(
        http_server_set_tls(f->server, (char *)cert[1].data, (char *)key[0].data, &error),
        MARCO_ERROR_FORMAT);
    assert_int_equal(http_server_set_tls(f->server, "nonsense", (char *)key[0].data, &error),
                     MARCO_ERROR_FORMAT);
    tls_ask(f, "NORMAL", name);
    assert_string_equal(name, "first");
    assert_int_equal(
        http_server_set_tls(f->server, (char *)cert[1].data, (char *)key[1].data, &error),
        MARCO_OK);
    tls_ask(f, "NORMAL:-VERS-ALL:+VERS-TLS1.2", name);
    assert_string_equal(name, "second");
    tls_ask(f, "NORMAL:-VERS-ALL:+VERS-TLS1.1:%COMPAT", name);
    assert_string_equal(name, "");
    /* Somebody who does not speak TLS. */
    int fd = dial(f);
    say(fd, GET("/"));
    assert_true(is_closed(fd));
    close(fd);
    close_server(f);
    for (int i = 0; i < 2; i++) {
        gnutls_free(cert[i].data);
        gnutls_free(key[i].data);
    }
}

static void unusable_addresses(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    marco_error error = {0};
    http_server *other = NULL;
    http_params params = defaults(f);
    params.port = http_server_port(f->server);
    assert_int_equal(http_server_create(&params, &other, &error), MARCO_ERROR_EXISTS);
    assert_non_null(strstr(error.message, "--port"));
    assert_null(other);
    params.host = "no.such.host.invalid";
    assert_int_equal(http_server_create(&params, &other, &error), MARCO_ERROR_ARGUMENT);
    close_server(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_and_answers),
        cmocka_unit_test(pipelined),
        cmocka_unit_test(expect_continue),
        cmocka_unit_test(long_bodies),
        cmocka_unit_test(unsound_requests),
        cmocka_unit_test(slow_requests),
        cmocka_unit_test(waiting_is_not_idling),
        cmocka_unit_test(readers_that_take_nothing),
        cmocka_unit_test(pieces_come_at_once),
        cmocka_unit_test(leavers_are_noticed),
        cmocka_unit_test(leavers_in_the_middle),
        cmocka_unit_test(leavers_make_room),
        cmocka_unit_test(listeners_are_answered),
        cmocka_unit_test(bound_before_started),
        cmocka_unit_test(closing),
        cmocka_unit_test(connections_are_bounded),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(tls),
        cmocka_unit_test(unusable_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
