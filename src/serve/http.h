/* HTTP/1.1 over libmicrohttpd, so that nothing else of the server meets it: a request comes whole,
 * and is answered at once, later, or piece by piece, from any thread.
 *
 * Bounds are the server's business: sizes and times of headers and bodies, connections in all and
 * by address. A handler only sees requests that keep them. */
#ifndef SERVE_HTTP_H
#define SERVE_HTTP_H

#include "marco/serve.h"

typedef struct http_server http_server;
typedef struct http_request http_request;

typedef struct http_params {
    const char *host;       /* an address: "127.0.0.1", "::1", "0.0.0.0" */
    uint16_t port;          /* 0: any free one */
    const char *cert, *key; /* TLS: the PEM texts, or NULL for plain HTTP */
    size_t max_body;        /* bytes */
    int32_t body_seconds;   /* for a request to arrive in whole, head and body */
    int32_t idle_seconds;   /* for a connection between requests, or a reader that takes nothing */
    int32_t max_connections, max_connections_per_address; /* the latter 0: no limit */
    /* A request has arrived, body and all. Called from a thread of the server; must not block. It
     * is answered by http_respond or http_stream_begin, then or later, from any thread. */
    void (*on_request)(void *user, http_request *request);
    /* A request that breaks a bound or the protocol, to be answered by http_respond before this
     * returns: with `status` (400, 413, 417, 501, 503) and what is to be said of it. Its body is
     * not whole. */
    void (*on_refused)(void *user, http_request *request, int status);
    /* A request has been answered, refused by the server itself, or left by its client: the access
     * log. After it the handle is no more. */
    void (*on_done)(void *user, const http_request *request);
    void *user;
} http_params;

/* Takes the port, so that whatever is wrong with it or the certificate is known; requests come
 * after http_server_start only, and clients are turned away until then. */
marco_status http_server_create(const http_params *params, http_server **out, marco_error *error);
marco_status http_server_start(http_server *server, marco_error *error);

/* Takes no new connections from now on, and closes those between requests. */
void http_server_quiesce(http_server *server);

/* Requests that have arrived in whole, or been refused, and not been answered to the end. */
size_t http_server_open_requests(http_server *server);

/* Ends all connections: at once those on which no request is under way or only half of one has
 * come; calls on_gone for requests that have one, so that they come to an end, which clients have
 * two seconds to hear; waits until all that were handed over have been ended (by http_respond or
 * http_stream_end) and on_done has been called for them, and releases the server. NULL is allowed.
 */
void http_server_close(http_server *server);

uint16_t http_server_port(const http_server *server);

/* New connections use these texts from now on. */
marco_status http_server_set_tls(http_server *server, const char *cert, const char *key,
                                 marco_error *error);

/* ---- what was asked ------------------------------------------------------------------------ */

const char *http_method(const http_request *request); /* "GET" */
const char *http_path(const http_request *request);   /* "/v1/models", decoded, without the query */
/* A header by its name in any case, or NULL. */
const char *http_header(const http_request *request, const char *name);
/* The body; NUL-terminated beyond *size bytes. */
const char *http_body(const http_request *request, size_t *size);
/* Releases the body, which nobody reads any more. Before the answer is whole. */
void http_drop_body(http_request *request);
const char *http_peer(const http_request *request); /* "192.0.2.7" */
uint64_t http_id(const http_request *request);      /* numbers requests from 1 */
double http_age(const http_request *request);       /* seconds since its first byte */
int http_status(const http_request *request);       /* answered with; 0: not yet, or left */
uint64_t http_bytes_sent(const http_request *request);

/* What the server's own layer keeps with a request, e.g. whose it is. */
void http_set_user(http_request *request, void *user);
void *http_user(const http_request *request);

/* ---- answering ----------------------------------------------------------------------------- */

/* Headers for the answer, before it begins; both texts are copied. */
void http_add_header(http_request *request, const char *name, const char *value);

/* Called at most once, from any thread, when the client has gone away before the answer was whole,
 * or the server is being closed; never after the answer's end. To be set in on_request. A client
 * that only sends no more may still listen (TCP allows that) or be gone: before an answer has begun
 * it has about a second for it and then counts as gone; of a stream that has begun the next piece
 * tells. */
void http_on_gone(http_request *request, void (*gone)(void *user), void *user);

/* The whole answer; the body is copied. The handle may be gone when it returns. */
void http_respond(http_request *request, int status, const char *type, const void *body,
                  size_t size);

/* The same with bytes that live as long as the server: files within the program. */
void http_respond_static(http_request *request, int status, const char *type, const void *body,
                         size_t size);

/* An answer in pieces: begin, any number of writes, end. Writes are kept in memory until the client
 * takes them; false where it has gone or memory is short: no more need be written, but the end must
 * still be called, after which the handle may be gone. One thread at a time. */
void http_stream_begin(http_request *request, int status, const char *type);
bool http_stream_write(http_request *request, const void *data, size_t size);
void http_stream_end(http_request *request);

#endif
