#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"
#include "serve/http_internal.h"

enum {
    CONNECTION_MEMORY = 64 << 10, /* head, and what is read and written at once */
    BODIES = 16,                  /* bodies of the largest size that are in memory at most */
    BACKLOG = 1024,
};

/* How far a body may go beyond the limit and still be read, so that its sender, who may not listen
 * before he has sent all, hears why it is refused. */
enum { PATIENCE = 2 };

/* ---- requests: birth and death --------------------------------------------------------------- */

static void free_request(http_request *request)
{
    if (request->response)
        MHD_destroy_response(request->response);
    http_pairs_free(request->headers);
    http_pairs_free(request->answer_headers);
    atomic_fetch_sub(&request->server->bodies, request->body_capacity);
    base_free(request->body);
    base_free(request->path);
    base_free(request->out);
    pthread_mutex_destroy(&request->lock);
    pthread_mutex_destroy(&request->gone_lock);
    base_free(request);
}

void http_release(http_request *request)
{
    http_server *server = request->server;
    if (atomic_fetch_sub(&request->refs, 1) != 1)
        return;
    if (!request->listed) { /* its head never came */
        free_request(request);
        return;
    }
    server->params.on_done(server->params.user, request);
    pthread_mutex_lock(&server->lock);
    if (request->prev)
        request->prev->next = request->next;
    else
        server->requests = request->next;
    if (request->next)
        request->next->prev = request->prev;
    free_request(request);
    if (--server->n_requests == 0)
        pthread_cond_broadcast(&server->emptied);
    pthread_mutex_unlock(&server->lock);
}

/* The path of "/a%20b?query", decoded. Sets path_bad for what no path of ours can be: a wrong
 * escape, an escaped NUL or control character. NULL when out of memory. */
static char *decode_path(const char *uri, bool *bad)
{
    size_t size = strcspn(uri, "?"), n = 0;
    char *path = base_alloc(size + 1);
    for (size_t i = 0; path && i < size; i++) {
        char c = uri[i];
        if (c == '%') {
            static const char digits[] = "0123456789abcdef0123456789ABCDEF";
            const char *high = i + 1 < size ? memchr(digits, uri[i + 1], 32) : NULL;
            const char *low = i + 2 < size ? memchr(digits, uri[i + 2], 32) : NULL;
            if (!high || !low) {
                *bad = true;
            } else {
                c = (char)((high - digits) % 16 * 16 + (low - digits) % 16);
                i += 2;
            }
        }
        if ((unsigned char)c < 0x20 || c == 0x7F) {
            *bad = true;
            c = '?';
        }
        path[n++] = c;
    }
    if (path)
        path[n] = '\0';
    return path;
}

static http_link *link_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

/* libmicrohttpd has read a request's first line. What it returns comes to on_access. */
static void *on_line(void *user, const char *uri, struct MHD_Connection *connection)
{
    http_server *server = user;
    http_link *link = link_of(connection);
    http_request *request = link ? base_calloc(1, sizeof *request) : NULL;
    if (!request)
        return NULL;
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&request->gone_lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    pthread_mutex_init(&request->lock, NULL);
    request->server = server;
    request->connection = connection;
    request->began = base_now();
    request->path = decode_path(uri, &request->path_bad);
    snprintf(request->peer, sizeof request->peer, "%s", link->peer);
    atomic_store(&request->refs, 1);
    atomic_store(&request->receiving, true);
    pthread_mutex_lock(&server->lock);
    link->request = request;
    pthread_mutex_unlock(&server->lock);
    return request;
}

/* libmicrohttpd is done with a request. */
static void finish(http_link *link, bool well)
{
    http_server *server = link->server;
    pthread_mutex_lock(&server->lock);
    http_request *request = link->request;
    link->request = NULL;
    link->since = base_now();
    if (request)
        request->left |= !well;
    pthread_mutex_unlock(&server->lock);
    if (!request)
        return;
    pthread_mutex_lock(&request->lock);
    request->connection = NULL;
    pthread_mutex_unlock(&request->lock);
    if (!well)
        http_watch_wake(server);
    http_release(request);
}

static void on_completed(void *user, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code)
{
    (void)user;
    http_link *link = link_of(connection);
    *context = NULL;
    if (link)
        finish(link, code == MHD_REQUEST_TERMINATED_COMPLETED_OK);
}

/* ---- connections ----------------------------------------------------------------------------- */

/* "192.0.2.7", also where it comes as ::ffff:192.0.2.7. */
static void name_peer(struct MHD_Connection *connection, char *name, size_t size)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    static const char mapped[] = "::ffff:";
    char host[NI_MAXHOST] = "?";
    if (info && info->client_addr) {
        const struct sockaddr *address = info->client_addr;
        socklen_t length = address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                          : sizeof(struct sockaddr_in);
        getnameinfo(address, length, host, sizeof host, NULL, 0, NI_NUMERICHOST);
    }
    size_t skip = strncmp(host, mapped, sizeof mapped - 1) == 0 ? sizeof mapped - 1 : 0;
    snprintf(name, size, "%.60s", host + skip);
}

static void on_connection_begin(http_server *server, struct MHD_Connection *connection,
                                void **context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    http_link *link = info ? base_calloc(1, sizeof *link) : NULL;
    *context = link;
    if (!link)
        return; /* its requests are then refused for want of memory */
    link->server = server;
    link->fd = info->connect_fd;
    link->since = base_now();
    name_peer(connection, link->peer, sizeof link->peer);
    pthread_mutex_lock(&server->lock);
    link->id = ++server->last_link;
    link->next = server->links;
    if (link->next)
        link->next->prev = link;
    server->links = link;
    http_watch_add(server, link);
    if (atomic_load(&server->quiesced))
        shutdown(link->fd, SHUT_RDWR);
    pthread_mutex_unlock(&server->lock);
}

static void on_connection(void *user, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    http_server *server = user;
    http_link *link = *context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        on_connection_begin(server, connection, context);
        return;
    }
    if (!link)
        return;
    finish(link, false); /* of a request that on_completed was not told of */
    pthread_mutex_lock(&server->lock);
    http_watch_remove(server, link);
    if (link->linger)
        http_watch_linger(server, link->fd);
    if (link->prev)
        link->prev->next = link->next;
    else
        server->links = link->next;
    if (link->next)
        link->next->prev = link->prev;
    pthread_mutex_unlock(&server->lock);
    base_free(link);
    *context = NULL;
}

/* ---- a request arrives ----------------------------------------------------------------------- */

/* Headers of which a request has one: of two, this server could obey one and a proxy the other. */
static const char *const once[] = {"Host",
                                   "Content-Length",
                                   "Transfer-Encoding",
                                   "Content-Type",
                                   "Content-Encoding",
                                   "Origin",
                                   "Authorization",
                                   "Expect"};

enum { ONCE = sizeof once / sizeof *once };

typedef struct header_copy {
    http_request *request;
    size_t n[ONCE];
    bool bad;    /* not what HTTP's headers are, or twice */
    bool failed; /* there is no memory */
} header_copy;

/* A name is a token: libmicrohttpd would take "Content-Length " for a header of that name, and the
 * body for the next request, where others see a length. */
static bool is_name(const char *name)
{
    static const char marks[] = "!#$%&'*+-.^_`|~";
    for (const char *c = name; *c; c++) {
        bool letter = (*c >= '0' && *c <= '9') || ((*c | 0x20) >= 'a' && (*c | 0x20) <= 'z');
        if (!letter && !strchr(marks, *c))
            return false;
    }
    return name[0] != '\0';
}

static bool is_value(const char *value)
{
    for (const char *c = value; *c; c++) {
        if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7F)
            return false;
    }
    return true;
}

static enum MHD_Result copy_header(void *user, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    (void)kind;
    header_copy *copy = user;
    value = value ? value : "";
    for (size_t i = 0; i < ONCE; i++)
        copy->bad |= strcasecmp(name, once[i]) == 0 && ++copy->n[i] > 1;
    copy->bad |= !is_name(name) || !is_value(value);
    copy->failed |= !http_pair_add(&copy->request->headers, name, value);
    return copy->failed ? MHD_NO : MHD_YES;
}

static void set_refusal(http_request *request, int status)
{
    if (request->refusal == 0)
        request->refusal = status;
}

/* The head is here: keeps it, and looks whether the body may come. False: there is no memory. */
static bool begin(http_request *request, const char *method)
{
    http_server *server = request->server;
    header_copy copy = {.request = request};
    if (!request->path || snprintf(request->method, sizeof request->method, "%s", method) < 0)
        return false;
    MHD_get_connection_values(request->connection, MHD_HEADER_KIND, copy_header, &copy);
    if (copy.failed)
        return false;
    pthread_mutex_lock(&server->lock);
    request->id = ++server->last_id;
    request->next = server->requests;
    if (request->next)
        request->next->prev = request;
    server->requests = request;
    request->listed = true;
    server->n_requests++;
    pthread_mutex_unlock(&server->lock);

    const char *length = http_header(request, "Content-Length");
    const char *encoding = http_header(request, "Transfer-Encoding");
    const char *expect = http_header(request, "Expect");
    if (request->path_bad || strlen(method) >= sizeof request->method)
        set_refusal(request, 400);
    /* Two readings of where a request ends let one be smuggled past a proxy. */
    if (copy.bad || (length && encoding))
        set_refusal(request, 400);
    if (expect && strcasecmp(expect, "100-continue") != 0)
        set_refusal(request, 417);
    if (encoding && strcasecmp(encoding, "chunked") != 0)
        set_refusal(request, 501);
    uint64_t declared = 0;
    for (const char *c = length; c && *c >= '0' && *c <= '9'; c++)
        declared = declared > UINT64_MAX / 16 ? UINT64_MAX : declared * 10 + (uint64_t)(*c - '0');
    if (declared > server->params.max_body)
        set_refusal(request, 413);
    return true;
}

/* Whether the rest of a refused request is not worth reading. */
static bool hopeless(const http_request *request)
{
    const char *length = http_header(request, "Content-Length");
    const char *expect = http_header(request, "Expect");
    uint64_t most = PATIENCE * (uint64_t)request->server->params.max_body;
    if (request->refusal == 0)
        return false;
    /* Where it is unclear what the body is, nothing after it can be told from it. */
    return request->refusal != 413 || (expect && strcasecmp(expect, "100-continue") == 0) ||
           (length && (strlen(length) > 18 || strtoull(length, NULL, 10) > most));
}

/* A piece of the body. False: close the connection. */
static bool receive(http_request *request, const char *data, size_t size)
{
    http_server *server = request->server;
    request->arrived += size;
    if (request->arrived > server->params.max_body) {
        set_refusal(request, 413);
        return request->arrived <= PATIENCE * (uint64_t)server->params.max_body;
    }
    if (request->refusal)
        return true;
    size_t before = request->body_capacity;
    void *body = request->body;
    if (!base_grow(&body, &request->body_capacity, request->body_size + size + 1, 1)) {
        set_refusal(request, 503);
        return true;
    }
    request->body = body;
    uint64_t held = atomic_fetch_add(&server->bodies, request->body_capacity - before) +
                    request->body_capacity - before;
    if (held > BODIES * (uint64_t)server->params.max_body)
        set_refusal(request, 503);
    memcpy(request->body + request->body_size, data, size);
    request->body_size += size;
    request->body[request->body_size] = '\0';
    return true;
}

static void refuse(http_request *request)
{
    request->whole = true;
    atomic_store(&request->receiving, false);
    atomic_fetch_add(&request->refs, 1);
    if (request->refusal != 413 && request->refusal != 503)
        http_add_header(request, "Connection", "close"); /* who knows what the rest is */
    request->server->params.on_refused(request->server->params.user, request, request->refusal);
}

/* All of it is here: a worker's turn. */
static void hand_over(http_request *request, const http_link *link)
{
    http_server *server = request->server;
    request->whole = true;
    atomic_store(&request->receiving, false);
    atomic_fetch_add(&request->refs, 1);
    pthread_mutex_lock(&request->lock);
    request->suspended = true;
    MHD_suspend_connection(request->connection);
    pthread_mutex_unlock(&request->lock);
    pthread_mutex_lock(&server->lock);
    bool hung = link->hung > 0;
    request->left |= link->dead;
    if (server->queue_end)
        server->queue_end->queued = request;
    else
        server->queue = request;
    server->queue_end = request;
    pthread_cond_signal(&server->queued);
    pthread_mutex_unlock(&server->lock);
    if (hung)
        http_watch_wake(server);
}

/* Queues the answer if there is one. */
static enum MHD_Result give_answer(http_request *request, struct MHD_Connection *connection)
{
    pthread_mutex_lock(&request->lock);
    struct MHD_Response *response = request->response;
    pthread_mutex_unlock(&request->lock);
    if (!response)
        return MHD_NO;
    return MHD_queue_response(connection, (unsigned)atomic_load(&request->status), response);
}

static enum MHD_Result on_access(void *user, struct MHD_Connection *connection, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *size, void **context)
{
    (void)user, (void)url, (void)version;
    http_request *request = *context;
    if (!request)
        return MHD_NO;
    if (!request->listed) {
        if (!begin(request, method))
            return MHD_NO;
        if (!hopeless(request))
            return MHD_YES;
        http_link *link = link_of(connection);
        link->linger = true;
        refuse(request);
        return give_answer(request, connection);
    }
    if (*size > 0) {
        bool go_on = receive(request, data, *size);
        *size = 0;
        return go_on ? MHD_YES : MHD_NO;
    }
    if (request->whole) /* a worker has seen to it */
        return give_answer(request, connection);
    if (atomic_load(&request->server->closing))
        return MHD_NO;
    if (request->refusal) {
        refuse(request);
        return give_answer(request, connection);
    }
    hand_over(request, link_of(connection));
    return MHD_YES;
}

static void *work(void *user)
{
    http_server *server = user;
    pthread_mutex_lock(&server->lock);
    while (!server->stop || server->queue) {
        http_request *request = server->queue;
        if (!request) {
            pthread_cond_wait(&server->queued, &server->lock);
            continue;
        }
        server->queue = request->queued;
        if (!server->queue)
            server->queue_end = NULL;
        pthread_mutex_unlock(&server->lock);
        server->params.on_request(server->params.user, request);
        pthread_mutex_lock(&server->lock);
    }
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

/* ---- the server ------------------------------------------------------------------------------ */

static marco_status fail_address(const http_server *server, int code, marco_error *error)
{
    const char *remedy = code == EADDRINUSE ? "; another program has it: choose another --port"
                         : code == EACCES   ? "; ports below 1024 want a privilege"
                                            : "";
    return base_fail(error, code == EADDRINUSE ? MARCO_ERROR_EXISTS : MARCO_ERROR_NETWORK,
                     "%.255s port %u: %s%s", server->params.host, server->params.port,
                     strerror(code), remedy);
}

/* Takes the port; nobody is listened to yet. */
static marco_status bind_at(http_server *server, marco_error *error)
{
    const http_params *params = &server->params;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    char port[8];
    int one = 1, zero = 0;
    snprintf(port, sizeof port, "%u", params->port);
    int code = getaddrinfo(params->host, port, &hints, &found);
    if (code)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "host '%s': %s; give an address of this machine, e.g. 127.0.0.1",
                         params->host, gai_strerror(code));
    marco_status status = MARCO_OK;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_storage bound = {0};
    socklen_t length = sizeof bound;
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (found->ai_family == AF_INET6)
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    }
    if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) ||
        getsockname(fd, (struct sockaddr *)&bound, &length)) {
        status = fail_address(server, errno, error);
        if (fd >= 0)
            close(fd);
    } else {
        server->listener = fd;
        server->port =
            ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                              : ((struct sockaddr_in *)&bound)->sin_port);
    }
    freeaddrinfo(found);
    return status;
}

static marco_status start_daemon(http_server *server, marco_error *error)
{
    const http_params *params = &server->params;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC;
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, http_credentials_callback()},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"},
        {MHD_OPTION_END, 0, NULL}};
    if (params->cert) {
        if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES ||
            MHD_is_feature_supported(MHD_FEATURE_HTTPS_CERT_CALLBACK) != MHD_YES)
            return base_fail(error, MARCO_ERROR_UNSUPPORTED,
                             "TLS: this libmicrohttpd was built without it; put a proxy in front");
        flags |= MHD_USE_TLS;
    } else {
        tls[0].option = MHD_OPTION_END;
    }
    server->daemon = MHD_start_daemon(
        flags, server->port, NULL, NULL, on_access, server, MHD_OPTION_LISTEN_SOCKET,
        server->listener, MHD_OPTION_NOTIFY_COMPLETED, on_completed, server,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, server, MHD_OPTION_URI_LOG_CALLBACK, on_line,
        server, MHD_OPTION_CONNECTION_LIMIT, (unsigned)params->max_connections,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)params->max_connections_per_address,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)params->idle_seconds,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_STRICT_FOR_CLIENT,
        1, MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
    if (!server->daemon)
        return base_fail(error, MARCO_ERROR_IO, "the HTTP server could not be started: %s",
                         strerror(errno));
    return MARCO_OK;
}

static void stop_workers(http_server *server)
{
    pthread_mutex_lock(&server->lock);
    server->stop = true;
    pthread_cond_broadcast(&server->queued);
    pthread_mutex_unlock(&server->lock);
    while (server->n_workers > 0)
        pthread_join(server->workers[--server->n_workers], NULL);
}

static void free_server(http_server *server)
{
    stop_workers(server);
    http_watch_stop(server);
    if (server->listener >= 0)
        close(server->listener);
    http_credentials_free(server->credentials);
    pthread_cond_destroy(&server->emptied);
    pthread_cond_destroy(&server->queued);
    pthread_mutex_destroy(&server->lock);
    base_free((char *)server->params.host);
    base_free(server);
}

marco_status http_server_create(const http_params *params, http_server **out, marco_error *error)
{
    *out = NULL;
    http_server *server = base_calloc(1, sizeof *server);
    char *host = base_strdup(params->host);
    if (!server || !host) {
        base_free(server);
        base_free(host);
        return base_fail_memory(error, sizeof *server, "the HTTP server");
    }
    server->params = *params;
    server->params.host = host;
    server->params.cert = server->params.key = NULL;
    server->listener = server->epoll = server->wake = -1;
    pthread_mutex_init(&server->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&server->emptied, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_cond_init(&server->queued, NULL);

    marco_status status = MARCO_OK;
    if (params->cert) {
        status = http_credentials_add(server, params->cert, params->key, error);
        server->params.cert = ""; /* only that there is one */
    }
    if (!status)
        status = bind_at(server, error);
    if (!status)
        status = http_watch_start(server, error);
    for (int i = 0; !status && i < HTTP_WORKERS; i++) {
        int code = pthread_create(&server->workers[i], NULL, work, server);
        if (code)
            status = base_fail_errno(error, code, "starting", "a thread of the HTTP server");
        else
            server->n_workers++;
    }
    if (status) {
        free_server(server);
        return status;
    }
    *out = server;
    return MARCO_OK;
}

marco_status http_server_start(http_server *server, marco_error *error)
{
    /* Another may have bound the same port without listening yet. */
    if (listen(server->listener, BACKLOG))
        return fail_address(server, errno, error);
    return start_daemon(server, error);
}

void http_server_quiesce(http_server *server)
{
    if (atomic_exchange(&server->quiesced, true))
        return;
    int fd = server->daemon ? MHD_quiesce_daemon(server->daemon) : -1;
    if (fd >= 0)
        shutdown(fd, SHUT_RDWR); /* closed when no thread can look at it any more */
    pthread_mutex_lock(&server->lock);
    for (http_link *link = server->links; link; link = link->next) {
        if (!link->request)
            shutdown(link->fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&server->lock);
}

size_t http_server_open_requests(http_server *server)
{
    size_t n = 0;
    pthread_mutex_lock(&server->lock);
    for (const http_request *request = server->requests; request; request = request->next)
        n += !atomic_load(&request->receiving);
    pthread_mutex_unlock(&server->lock);
    return n;
}

/* Ends connections on which nothing is under way, and says to the handlers of the others that they
 * are to come to an end; what they still say is sent. The lock is the caller's. */
static void tell_all(http_server *server)
{
    for (http_link *link = server->links; link; link = link->next) {
        if (!link->request || atomic_load(&link->request->receiving))
            shutdown(link->fd, SHUT_RDWR);
    }
    for (http_request *request = server->requests; request; request = request->next)
        request->left = true;
    http_watch_wake(server);
}

/* Ends all connections. The lock is the caller's. */
static void cut_all(http_server *server)
{
    atomic_store(&server->cut, true);
    for (http_link *link = server->links; link; link = link->next)
        shutdown(link->fd, SHUT_RDWR);
    for (http_request *request = server->requests; request; request = request->next) {
        pthread_mutex_lock(&request->lock);
        http_resume(request);
        pthread_mutex_unlock(&request->lock);
    }
}

void http_server_close(http_server *server)
{
    if (!server)
        return;
    http_server_quiesce(server);
    atomic_store(&server->closing, true);
    pthread_mutex_lock(&server->lock);
    tell_all(server);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += HTTP_FAREWELL_SECONDS;
    while (server->n_requests > 0 &&
           pthread_cond_timedwait(&server->emptied, &server->lock, &until) == 0)
        continue;
    cut_all(server);
    while (server->n_requests > 0)
        pthread_cond_wait(&server->emptied, &server->lock);
    pthread_mutex_unlock(&server->lock);
    if (server->daemon)
        MHD_stop_daemon(server->daemon);
    free_server(server);
}

uint16_t http_server_port(const http_server *server)
{
    return server->port;
}

marco_status http_server_set_tls(http_server *server, const char *cert, const char *key,
                                 marco_error *error)
{
    return http_credentials_add(server, cert, key, error);
}
