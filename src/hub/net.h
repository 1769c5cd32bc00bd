/* Requests to the hub: what all of them have in common. */
#ifndef HUB_NET_H
#define HUB_NET_H

#include <curl/curl.h>

#include "base/text.h"
#include "hub/place.h"

enum {
    HUB_REDIRECTS_MOST = 5,
    HUB_TRIES = 6,             /* in a row that brought nothing */
    HUB_RETRY_AFTER_MOST = 300 /* seconds that a server may ask us to wait */
};

typedef struct hub_net {
    const hub_place *place;
    char *host;                           /* of the endpoint, as messages name it */
    struct curl_slist *open, *with_token; /* headers */
    const char *certificates;             /* a file of them; NULL: the system's */
    marco_progress progress;
    double pace; /* of waits and of patience: 1, or less for hurried tests (MARCO_HUB_PACE) */
} hub_net;

/* The place must outlive it. hub_net_close in any case. */
marco_status hub_net_open(hub_net *net, const hub_place *place, marco_progress progress,
                          marco_error *error);
void hub_net_close(hub_net *net);

/* What a server said besides the body. */
typedef struct hub_reply {
    char error_code[64];   /* X-Error-Code: "GatedRepo", ... */
    uint64_t begin, total; /* Content-Range; total 0: none */
    char *next;            /* Link: <...>; rel="next" */
    bool failed;           /* out of memory */
} hub_reply;

void hub_reply_clear(hub_reply *reply);

/* A request for `url`, with the token where it goes to the endpoint itself and nowhere else. */
marco_status hub_net_prepare(const hub_net *net, CURL *easy, const char *url, hub_reply *reply,
                             marco_error *error);

/* After an answer 301 to 308: where it leads, into *url (base_free'd before). *redirects counts.
 * Refused: too many, from https to anything else, and anything that is not http. */
marco_status hub_net_redirect(const hub_net *net, CURL *easy, const char *what, int *redirects,
                              char **url, marco_error *error);
bool hub_is_redirect(long code);

/* Whether it is worth asking again: the network failed, or the server has a bad moment. */
bool hub_is_passing(CURLcode result, long code);

/* Seconds before try number `tries` (1 is the first repetition), or what the server asked for. */
double hub_delay(const hub_net *net, CURL *easy, int tries);

/* An answer that is final, or a failure that did not pass, as an error that says what to do.
 * `what` is asked for: a model, or a file in it. */
marco_status hub_net_fail(const hub_net *net, CURL *easy, CURLcode result, const hub_reply *reply,
                          const char *what, marco_error *error);

/* Asks the caller whether to go on. */
bool hub_net_cancelled(const hub_net *net);

/* The body of GET `url`, at most `limit` bytes, into *body, and the address of the next page (NULL:
 * none; base_free) into *next. `what` is asked for, in messages. */
marco_status hub_net_get(const hub_net *net, const char *url, const char *what, size_t limit,
                         base_text *body, char **next, marco_error *error);

#endif
