/* Inside the HTTP layer: what its files share.
 *
 * Threads: libmicrohttpd's one does all input and output; workers call on_request, so that nothing
 * that a handler computes holds up the streams of others; a watcher notices what libmicrohttpd does
 * not look for (clients that leave while they wait, requests that take too long to arrive).
 *
 * Locks: the server's guards its lists, a request's its answer. Whoever takes both takes the
 * server's first. libmicrohttpd's own are only taken under them. */
#ifndef SERVE_HTTP_INTERNAL_H
#define SERVE_HTTP_INTERNAL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/time.h"
#include "serve/http.h"

enum {
    HTTP_WORKERS = 4,
    HTTP_LINGERERS = 64,
    HTTP_FAREWELL_SECONDS = 2, /* at the end, for clients to take what they are told */
};

typedef struct http_link http_link;
typedef struct http_pair http_pair;
typedef struct http_credentials http_credentials;

/* A header, either way. */
struct http_pair {
    http_pair *next;
    const char *name, *value; /* in the same memory */
};

/* A connection. In the server's list from its beginning to its end. */
struct http_link {
    http_server *server;
    http_link *prev, *next;
    uint64_t id;
    int fd;
    double hung;           /* when its client was seen to send no more; 0: not yet */
    bool dead;             /* ... or to take no more either */
    double since;          /* when it began, or its last request ended */
    http_request *request; /* being received or answered; the server's lock */
    bool linger;           /* what the client still sends is to be read before it is closed */
    char peer[64];
};

struct http_request {
    http_server *server;
    http_request *prev, *next; /* of the server's list */
    http_request *queued;      /* the next for the workers */
    uint64_t id;
    double began;
    char method[16], peer[64];
    char *path;
    http_pair *headers;
    void *user;
    atomic_int refs; /* libmicrohttpd's, the handler's, the watcher's for a moment */

    /* Arriving: of libmicrohttpd's thread alone, but `receiving`. */
    int refusal; /* the status it will be refused with; 0: none */
    bool path_bad, listed, whole;
    atomic_bool receiving;
    /* The client has left. `gone` is called by the watcher alone, under gone_lock and only while
     * `ended` is false; the other fields are under the server's lock. */
    bool left, gone_called;
    bool ended; /* the handler is done; under gone_lock */
    /* The answer, like the last fields. */
    bool suspended, out_whole;
    bool broken; /* for want of memory: to be cut short */

    uint64_t arrived; /* bytes of the body, discarded ones too */
    char *body;
    size_t body_size, body_capacity;

    void (*gone)(void *user);
    void *gone_user;
    pthread_mutex_t gone_lock; /* recursive: gone may answer */

    pthread_mutex_t lock;              /* of the answer */
    struct MHD_Connection *connection; /* NULL: no more */
    http_pair *answer_headers;
    struct MHD_Response *response;
    char *out; /* [out_size], of which out_at are sent */
    size_t out_size, out_capacity, out_at;
    atomic_uint_fast64_t sent;
    atomic_int status;
};

struct http_server {
    http_params params;
    struct MHD_Daemon *daemon;
    int listener;
    uint16_t port;
    atomic_bool quiesced, closing;
    atomic_bool cut;             /* after `closing`: what is not whole by now will not be sent */
    atomic_uint_fast64_t bodies; /* bytes of all bodies in memory */
    http_credentials *credentials;
    pthread_mutex_t lock;
    http_link *links;
    http_request *requests; /* whose heads have arrived */
    size_t n_requests;
    uint64_t last_id, last_link;
    pthread_cond_t emptied; /* n_requests fell to 0 */

    http_request *queue, *queue_end;
    pthread_cond_t queued;
    bool stop;
    pthread_t workers[HTTP_WORKERS];
    int n_workers;

    pthread_t watcher;
    bool watching;
    int epoll, wake;
    struct {
        int fd;
        double until;
    } lingerers[HTTP_LINGERERS];
    int n_lingerers;
};

/* Releases a reference. */
void http_release(http_request *request);

/* http_answer.c: pairs; the body in pieces; what to send where no memory is left. */
bool http_pair_add(http_pair **list, const char *name, const char *value);
void http_pairs_free(http_pair *list);
/* Lets libmicrohttpd go on with a request that waits. The request's lock is the caller's. */
void http_resume(http_request *request);

/* http_watch.c */
marco_status http_watch_start(http_server *server, marco_error *error);
void http_watch_stop(http_server *server);
void http_watch_wake(http_server *server);
/* From now on, until _remove, it is noticed when the client goes. */
void http_watch_add(http_server *server, const http_link *link);
void http_watch_remove(http_server *server, const http_link *link);
/* Reads what still comes from a client that has been refused, for a moment: closing at once would
 * throw the answer away with it. The server's lock is the caller's. */
void http_watch_linger(http_server *server, int fd);

/* http_tls.c: a chain of certificates with its key, put first in the list. Earlier ones stay for
 * the handshakes that use them. */
marco_status http_credentials_add(http_server *server, const char *cert, const char *key,
                                  marco_error *error);
void http_credentials_free(http_credentials *list);
/* What MHD_OPTION_HTTPS_CERT_CALLBACK takes. */
void *http_credentials_callback(void);

#endif
