#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "serve/http_internal.h"

enum {
    TICK = 200,         /* milliseconds between looks at the clock */
    LINGER_TICK = 20,   /* ... while clients are listened to that have been refused */
    HUNG_TICK = 4,      /* ... while there are halves of requests that will not be completed */
    LINGER_SECONDS = 2, /* for which refused clients are listened to */
    HUNG_SECONDS = 1,   /* for what was sent before the end to be read */
    WAKE = 0,           /* the number, among those of connections, of what wakes the watcher */
};

void http_watch_wake(http_server *server)
{
    uint64_t one = 1;
    ssize_t n = write(server->wake, &one, sizeof one);
    (void)n; /* it cannot fail but by being awake */
}

void http_watch_add(http_server *server, const http_link *link)
{
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.u64 = link->id};
    epoll_ctl(server->epoll, EPOLL_CTL_ADD, link->fd, &event);
}

void http_watch_remove(http_server *server, const http_link *link)
{
    epoll_ctl(server->epoll, EPOLL_CTL_DEL, link->fd, NULL);
}

void http_watch_linger(http_server *server, int fd)
{
    int own = server->n_lingerers < HTTP_LINGERERS ? dup(fd) : -1;
    if (own < 0)
        return;
    server->lingerers[server->n_lingerers].fd = own;
    server->lingerers[server->n_lingerers++].until = base_now() + LINGER_SECONDS;
    http_watch_wake(server);
}

/* A client sends no more, or (`dead`) its connection is broken. */
static void mark_hung(http_server *server, uint64_t id, bool dead)
{
    http_link *link = server->links;
    while (link && link->id != id)
        link = link->next;
    if (!link)
        return;
    link->hung = link->hung > 0 ? link->hung : base_now();
    link->dead |= dead;
    if (!dead) { /* that may follow: it needs not be asked for */
        struct epoll_event event = {.events = EPOLLONESHOT, .data.u64 = id};
        epoll_ctl(server->epoll, EPOLL_CTL_MOD, link->fd, &event);
    }
}

static bool is_streaming(http_request *request)
{
    pthread_mutex_lock(&request->lock);
    bool streaming = request->response != NULL;
    pthread_mutex_unlock(&request->lock);
    return streaming;
}

/* Who sends no more may still listen, or be gone: that shows when something is written to him,
 * which a stream does soon. Others are taken to be gone, as nearly all are: nothing more is to be
 * computed for them. */
static bool has_left(const http_link *link)
{
    return link->dead || !is_streaming(link->request);
}

/* Looks after connections whose clients send no more. Whether there are such as are to be looked
 * after soon. */
static bool see_to_hung(http_server *server)
{
    bool soon = false;
    for (http_link *link = server->links; link; link = link->next) {
        http_request *request = link->request;
        if (link->hung <= 0)
            continue;
        if (request && !atomic_load(&request->receiving)) {
            request->left |= has_left(link);
            continue;
        }
        /* libmicrohttpd, told of the last bytes and of the end at once, reads the bytes alone, and
         * would keep what is half a request. This wakes it for the end, and takes nothing away of
         * what has arrived. */
        shutdown(link->fd, SHUT_RD);
        soon = true;
    }
    return soon;
}

/* Takes a reference, unless the last has gone and the request is about to. */
static bool hold(http_request *request)
{
    int refs = atomic_load(&request->refs);
    while (refs > 0) {
        if (atomic_compare_exchange_weak(&request->refs, &refs, refs + 1))
            return true;
    }
    return false;
}

/* Tells those who asked that their clients have left. Gives the lock away for each call. */
static void tell(http_server *server)
{
    http_request *request = server->requests;
    while (request) {
        if (!request->left || !request->gone || request->gone_called || !hold(request)) {
            request = request->next;
            continue;
        }
        request->gone_called = true;
        pthread_mutex_unlock(&server->lock);
        pthread_mutex_lock(&request->gone_lock);
        if (!request->ended)
            request->gone(request->gone_user);
        pthread_mutex_unlock(&request->gone_lock);
        http_release(request);
        pthread_mutex_lock(&server->lock);
        request = server->requests;
    }
}

/* Ends connections whose clients will not complete a request any more, should libmicrohttpd still
 * keep them; and those that have been silent, or busy with one request, for too
 * long. Whatever they send counts for nothing: one byte a second would keep them for ever. */
static void end_late(http_server *server)
{
    static const char answer[] = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n"
                                 "Content-Length: 0\r\n\r\n";
    double now = base_now();
    for (http_link *link = server->links; link; link = link->next) {
        http_request *request = link->request;
        bool waits = request && !atomic_load(&request->receiving);
        if (link->hung > 0 && now - link->hung > HUNG_SECONDS && !waits) {
            shutdown(link->fd, SHUT_RDWR);
        } else if (!request) {
            if (now - link->since > server->params.idle_seconds)
                shutdown(link->fd, SHUT_RDWR);
        } else if (!waits && now - request->began > server->params.body_seconds) {
            /* libmicrohttpd takes no answer in the middle of a body, and sends nothing then. */
            if (!server->params.cert)
                send(link->fd, answer, sizeof answer - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
            atomic_store(&request->receiving, false);
            atomic_store(&request->status, 408);
            shutdown(link->fd, SHUT_RDWR);
        }
    }
}

static void drain(http_server *server)
{
    char scrap[16 << 10];
    double now = base_now();
    for (int i = 0; i < server->n_lingerers;) {
        int fd = server->lingerers[i].fd;
        ssize_t n;
        int rounds = 0;
        do
            n = recv(fd, scrap, sizeof scrap, MSG_DONTWAIT);
        while (n > 0 && ++rounds < 64);
        bool open = n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
        if (open && now < server->lingerers[i].until) {
            i++;
            continue;
        }
        close(fd);
        server->lingerers[i] = server->lingerers[--server->n_lingerers];
    }
}

static void *watch(void *user)
{
    http_server *server = user;
    struct epoll_event events[64];
    double looked = base_now();
    bool soon = false;
    pthread_mutex_lock(&server->lock);
    while (server->watching) {
        int tick = soon ? HUNG_TICK : server->n_lingerers ? LINGER_TICK : TICK;
        pthread_mutex_unlock(&server->lock);
        int n = epoll_wait(server->epoll, events, sizeof events / sizeof *events, tick);
        pthread_mutex_lock(&server->lock);
        for (int i = 0; i < n; i++) {
            uint64_t count;
            if (events[i].data.u64 != WAKE)
                mark_hung(server, events[i].data.u64, events[i].events & (EPOLLHUP | EPOLLERR));
            else if (read(server->wake, &count, sizeof count) < 0)
                continue; /* nothing to count */
        }
        soon = see_to_hung(server);
        tell(server);
        drain(server);
        if (base_now() - looked > 1e-3 * TICK) {
            looked = base_now();
            end_late(server);
        }
    }
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

marco_status http_watch_start(http_server *server, marco_error *error)
{
    server->epoll = epoll_create1(EPOLL_CLOEXEC);
    server->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = WAKE};
    if (server->epoll < 0 || server->wake < 0 ||
        epoll_ctl(server->epoll, EPOLL_CTL_ADD, server->wake, &event))
        return base_fail_errno(error, errno, "starting", "the watch over connections");
    server->watching = true;
    int code = pthread_create(&server->watcher, NULL, watch, server);
    if (code) {
        server->watching = false;
        return base_fail_errno(error, code, "starting", "a thread of the HTTP server");
    }
    return MARCO_OK;
}

void http_watch_stop(http_server *server)
{
    if (server->watching) {
        pthread_mutex_lock(&server->lock);
        server->watching = false;
        pthread_mutex_unlock(&server->lock);
        http_watch_wake(server);
        pthread_join(server->watcher, NULL);
    }
    while (server->n_lingerers > 0)
        close(server->lingerers[--server->n_lingerers].fd);
    if (server->epoll >= 0)
        close(server->epoll);
    if (server->wake >= 0)
        close(server->wake);
}
