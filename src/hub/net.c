#include "hub/net.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/time.h"

/* Seconds: to connect, with fewer than SLOW_BYTES in each, and for one of the hub's lists, tries
 * together. A hub that drips is as good as silent. */
enum { CONNECT_SECONDS = 20, SILENT_SECONDS = 30, SLOW_BYTES = 256, ANSWER_SECONDS = 180 };

static pthread_once_t started = PTHREAD_ONCE_INIT;

static void start(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT); /* what fails here fails again with every handle */
}

bool hub_net_cancelled(const hub_net *net)
{
    return net->progress.fn && net->progress.fn(net->progress.user, "asking the hub", 0, 0) != 0;
}

/* ---- addresses ------------------------------------------------------------------------------ */

/* Scheme, host and port; free with curl_free. False for what is no address. */
typedef struct origin {
    char *scheme, *host, *port;
} origin;

static void origin_free(origin *o)
{
    curl_free(o->scheme);
    curl_free(o->host);
    curl_free(o->port);
}

static bool origin_of(const char *url, origin *out)
{
    CURLU *parts = curl_url();
    *out = (origin){0};
    bool good = parts && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_SCHEME, &out->scheme, 0) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_HOST, &out->host, 0) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_PORT, &out->port, CURLU_DEFAULT_PORT) == CURLUE_OK;
    curl_url_cleanup(parts);
    return good;
}

static bool is_same_origin(const char *a, const char *b)
{
    origin x, y;
    bool good = origin_of(a, &x), also = origin_of(b, &y);
    bool same = good && also && strcasecmp(x.scheme, y.scheme) == 0 &&
                strcasecmp(x.host, y.host) == 0 && strcmp(x.port, y.port) == 0;
    origin_free(&x);
    origin_free(&y);
    return same;
}

/* ---- opening -------------------------------------------------------------------------------- */

static bool add_header(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (longer)
        *list = longer;
    return longer != NULL;
}

static const char *certificates(void)
{
    static const char *const names[] = {"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        if (value && value[0])
            return value;
    }
    return NULL;
}

static double pace(void)
{
    const char *text = getenv("MARCO_HUB_PACE");
    double value = text ? strtod(text, NULL) : 1;
    return value > 0 && value < 1 ? value : 1;
}

marco_status hub_net_open(hub_net *net, const hub_place *place, marco_progress progress,
                          marco_error *error)
{
    static const char identity[] = "Accept-Encoding: identity"; /* ranges and hashes are of that */
    origin o;
    pthread_once(&started, start);
    *net = (hub_net){
        .place = place, .progress = progress, .certificates = certificates(), .pace = pace()};
    bool good = origin_of(place->endpoint, &o);
    net->host = good ? base_strdup(o.host) : NULL;
    origin_free(&o);
    if (!good)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "'%s' cannot be the hub's address",
                         place->endpoint);
    base_text line = {0};
    base_text_printf(&line, "Authorization: Bearer %s", place->token ? place->token : "");
    good = net->host && !line.failed && add_header(&net->open, identity) &&
           add_header(&net->with_token, identity) &&
           (!place->token || add_header(&net->with_token, line.data));
    if (line.data)
        memset(line.data, 0, line.size);
    base_text_free(&line);
    return good ? MARCO_OK : base_fail_memory(error, 256, "a request's headers");
}

void hub_net_close(hub_net *net)
{
    curl_slist_free_all(net->open);
    curl_slist_free_all(net->with_token);
    base_free(net->host);
    *net = (hub_net){0};
}

/* ---- a request ------------------------------------------------------------------------------ */

void hub_reply_clear(hub_reply *reply)
{
    base_free(reply->next);
    *reply = (hub_reply){0};
}

/* The value of header `name` in a line, without white space around it; NULL for other lines. */
static const char *value_of(const char *line, size_t size, const char *name, size_t *length)
{
    size_t n = strlen(name);
    if (size <= n || strncasecmp(line, name, n) != 0 || line[n] != ':')
        return NULL;
    const char *at = line + n + 1, *end = line + size;
    while (at < end && strchr(" \t", *at))
        at++;
    while (end > at && strchr(" \t\r\n", end[-1]))
        end--;
    *length = (size_t)(end - at);
    return at;
}

/* "bytes 0-99/1000" */
static void read_range(const char *value, size_t length, hub_reply *reply)
{
    unsigned long long begin = 0, end = 0, total = 0;
    char text[96];
    if (length >= sizeof text)
        return;
    memcpy(text, value, length);
    text[length] = '\0';
    if (sscanf(text, "bytes %llu-%llu/%llu", &begin, &end, &total) == 3) {
        reply->begin = begin;
        reply->total = total;
    }
}

/* "<https://...>; rel="next"", perhaps one of several. */
static void read_link(const char *value, size_t length, hub_reply *reply)
{
    const char *end = value + length;
    for (const char *at = value; at < end;) {
        const char *open = memchr(at, '<', (size_t)(end - at));
        const char *close = open ? memchr(open, '>', (size_t)(end - open)) : NULL;
        if (!close)
            return;
        const char *stop = memchr(close, '<', (size_t)(end - close));
        size_t rest = (size_t)((stop ? stop : end) - close);
        if (!reply->next && memmem(close, rest, "rel=\"next\"", 10)) {
            reply->next = base_strndup(open + 1, (size_t)(close - open - 1));
            reply->failed = reply->failed || !reply->next;
        }
        at = close + 1;
    }
}

static size_t on_header(char *line, size_t one, size_t n, void *user)
{
    hub_reply *reply = user;
    size_t size = one * n, length = 0;
    const char *value;
    if (size >= 5 && strncmp(line, "HTTP/", 5) == 0)
        hub_reply_clear(reply); /* after a "100 Continue", or a proxy's own answer */
    if ((value = value_of(line, size, "Content-Range", &length)))
        read_range(value, length, reply);
    if ((value = value_of(line, size, "Link", &length)))
        read_link(value, length, reply);
    if ((value = value_of(line, size, "X-Error-Code", &length)) &&
        length < sizeof reply->error_code) {
        memcpy(reply->error_code, value, length);
        reply->error_code[length] = '\0';
    }
    return reply->failed ? 0 : size;
}

static void allow_http_only(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

marco_status hub_net_prepare(const hub_net *net, CURL *easy, const char *url, hub_reply *reply,
                             marco_error *error)
{
    hub_reply_clear(reply);
    curl_easy_reset(easy);
    bool ours = is_same_origin(url, net->place->endpoint);
    allow_http_only(easy);
    /* Redirects are followed by hub_net_redirect, so that the headers are chosen anew. One request
     * a connection: several ranges are to come at once, not one after the other within one. */
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "marco/" MARCO_VERSION);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, (long)SLOW_BYTES);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)SILENT_SECONDS);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 256L << 10);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, ours ? net->with_token : net->open);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, reply);
    if (net->certificates)
        curl_easy_setopt(easy, CURLOPT_CAINFO, net->certificates);
    if (curl_easy_setopt(easy, CURLOPT_URL, url) != CURLE_OK)
        return base_fail_memory(error, strlen(url), "a request");
    return MARCO_OK;
}

bool hub_is_redirect(long code)
{
    return code == 301 || code == 302 || code == 303 || code == 307 || code == 308;
}

marco_status hub_net_redirect(const hub_net *net, CURL *easy, const char *what, int *redirects,
                              char **url, marco_error *error)
{
    char *to = NULL;
    origin from = {0}, next = {0};
    marco_status status = MARCO_OK;
    curl_easy_getinfo(easy, CURLINFO_REDIRECT_URL, &to);
    if (++*redirects > HUB_REDIRECTS_MOST)
        return base_fail(error, MARCO_ERROR_NETWORK,
                         "%s: %s leads from one address to the next without end (more than %d "
                         "redirects)",
                         what, net->host, HUB_REDIRECTS_MOST);
    bool good = to && origin_of(*url, &from) && origin_of(to, &next);
    bool tls = good && strcasecmp(next.scheme, "https") == 0;
    bool plain = good && strcasecmp(next.scheme, "http") == 0;
    if (!tls && !plain)
        status = base_fail(error, MARCO_ERROR_NETWORK, "%s: %s sends us to no web address", what,
                           net->host);
    else if (plain && strcasecmp(from.scheme, "https") == 0)
        status = base_fail(error, MARCO_ERROR_NETWORK,
                           "%s: refused to be sent from https to http://%s, where anybody could "
                           "listen",
                           what, next.host);
    char *copy = status ? NULL : base_strdup(to);
    if (!status && !copy)
        status = base_fail_memory(error, strlen(to), "an address");
    if (copy) {
        base_free(*url);
        *url = copy;
    }
    origin_free(&from);
    origin_free(&next);
    return status;
}

bool hub_is_passing(CURLcode result, long code)
{
    switch (result) {
    case CURLE_OK:
        return code == 408 || code == 425 || code == 429 || code >= 500;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_SSL_CONNECT_ERROR:
        return true;
    default:
        return false;
    }
}

double hub_delay(const hub_net *net, CURL *easy, int tries)
{
    curl_off_t asked = 0;
    curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &asked);
    if (asked > 0)
        return (double)(asked < HUB_RETRY_AFTER_MOST ? asked : HUB_RETRY_AFTER_MOST);
    return net->pace * (tries < 6 ? 0.25 * (double)(1 << tries) : 16);
}

/* ---- what went wrong ------------------------------------------------------------------------ */

static marco_status fail_transfer(const hub_net *net, CURLcode result, const char *what,
                                  marco_error *error)
{
    switch (result) {
    case CURLE_OUT_OF_MEMORY:
        return base_fail_memory(error, 0, what);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
        return base_fail(error, MARCO_ERROR_NETWORK,
                         "%s: no connection to %s (%s): is the network up, and does it need a "
                         "proxy (https_proxy)?",
                         what, net->host, curl_easy_strerror(result));
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return base_fail(error, MARCO_ERROR_NETWORK,
                         "%s: the certificate of %s is not one to be trusted (%s): is the clock "
                         "right? A site's own authority is named by SSL_CERT_FILE",
                         what, net->host, curl_easy_strerror(result));
    default:
        return base_fail(error, MARCO_ERROR_NETWORK, "%s: the download from %s failed: %s", what,
                         net->host, curl_easy_strerror(result));
    }
}

marco_status hub_net_fail(const hub_net *net, CURL *easy, CURLcode result, const hub_reply *reply,
                          const char *what, marco_error *error)
{
    long code = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &code);
    if (reply->failed)
        return base_fail_memory(error, 0, what);
    if (result != CURLE_OK)
        return fail_transfer(net, result, what, error);
    if (code == 401 || code == 403) {
        bool gated = strcmp(reply->error_code, "GatedRepo") == 0;
        const char *token = net->place->token ? "give a token that may read it by HF_TOKEN"
                                              : "set HF_TOKEN to a token that may read it";
        return base_fail(error, MARCO_ERROR_DENIED,
                         "%s: %s does not give this out (HTTP %ld): the model is %s; %s%s", what,
                         net->host, code, gated ? "gated" : "private, gated or does not exist",
                         gated ? "accept its terms on its page there and " : "", token);
    }
    if (code == 404 || code == 410)
        return base_fail(error, MARCO_ERROR_NOT_FOUND, "%s: %s has %s (HTTP %ld)", what, net->host,
                         strcmp(reply->error_code, "RevisionNotFound") == 0
                             ? "the model, but not this revision of it"
                             : "nothing of this name",
                         code);
    if (code == 429)
        return base_fail(error, MARCO_ERROR_BUSY,
                         "%s: %s limits how often it may be asked (HTTP 429); try again later%s",
                         what, net->host, net->place->token ? "" : ", or set HF_TOKEN");
    return base_fail(error, MARCO_ERROR_NETWORK, "%s: %s answers with HTTP %ld%s", what, net->host,
                     code, code >= 500 ? "; try again later" : "; is its address right?");
}

/* ---- small answers -------------------------------------------------------------------------- */

typedef struct collecting {
    const hub_net *net;
    base_text *body;
    size_t limit;
    double left; /* seconds that requests may still take; waits between them do not count */
    bool too_long, cancelled;
} collecting;

static size_t on_body(char *data, size_t one, size_t n, void *user)
{
    collecting *c = user;
    c->too_long = one * n > c->limit - c->body->size;
    if (!c->too_long)
        base_text_add_n(c->body, data, one * n);
    return c->too_long || c->body->failed ? 0 : one * n;
}

static int on_progress(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    collecting *collect = user;
    (void)a, (void)b, (void)c, (void)d;
    collect->cancelled = collect->cancelled || hub_net_cancelled(collect->net);
    return collect->cancelled;
}

/* Waits, asking whether to go on; false when not. */
static bool wait_for(const hub_net *net, double seconds)
{
    double end = base_now() + seconds;
    while (base_now() < end) {
        struct timespec slice = {.tv_nsec = 50 * 1000 * 1000};
        if (hub_net_cancelled(net))
            return false;
        nanosleep(&slice, NULL);
    }
    return true;
}

/* One request. *tries is -1 when the answer is there; else it is to be asked again, at *url. */
static marco_status ask(const hub_net *net, CURL *easy, const char *what, char **url, collecting *c,
                        hub_reply *reply, int *redirects, int *tries, marco_error *error)
{
    long code = 0;
    base_text_clear(c->body);
    marco_status status = hub_net_prepare(net, easy, *url, reply, error);
    if (status)
        return status;
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, c);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(c->left * 1000) + 1);
    double begun = base_now();
    CURLcode result = curl_easy_perform(easy);
    c->left -= base_now() - begun;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &code);
    if (c->cancelled)
        return base_fail(error, MARCO_ERROR_CANCELLED, "cancelled");
    if (c->body->failed)
        return base_fail_memory(error, c->limit, what);
    if (c->too_long)
        return base_fail(error, MARCO_ERROR_FORMAT, "%s: %s sends an answer of more than %zu bytes",
                         what, net->host, c->limit);
    if (result != CURLE_OK && c->left <= 0)
        return base_fail(error, MARCO_ERROR_NETWORK,
                         "%s: %s answers too slowly: given up after %.0f seconds; try again later",
                         what, net->host, ANSWER_SECONDS * net->pace);
    if (result == CURLE_OK && code == 200) {
        *tries = -1;
        return MARCO_OK;
    }
    if (result == CURLE_OK && hub_is_redirect(code))
        return hub_net_redirect(net, easy, what, redirects, url, error);
    /* Without any network, there is nothing to wait for. */
    bool never = result == CURLE_COULDNT_RESOLVE_HOST || result == CURLE_COULDNT_RESOLVE_PROXY ||
                 result == CURLE_COULDNT_CONNECT;
    if (never || !hub_is_passing(result, code) || ++*tries >= HUB_TRIES)
        return hub_net_fail(net, easy, result, reply, what, error);
    if (!wait_for(net, hub_delay(net, easy, *tries)))
        return base_fail(error, MARCO_ERROR_CANCELLED, "cancelled");
    return MARCO_OK;
}

marco_status hub_net_get(const hub_net *net, const char *url, const char *what, size_t limit,
                         base_text *body, char **next, marco_error *error)
{
    hub_reply reply = {0};
    collecting c = {.net = net, .body = body, .limit = limit, .left = ANSWER_SECONDS * net->pace};
    int redirects = 0, tries = 0;
    marco_status status = MARCO_OK;
    CURL *easy = curl_easy_init();
    char *at = base_strdup(url);
    if (!easy || !at)
        status = base_fail_memory(error, strlen(url), "a request");
    while (!status && tries >= 0)
        status = ask(net, easy, what, &at, &c, &reply, &redirects, &tries, error);
    if (!status && reply.next && !is_same_origin(reply.next, net->place->endpoint))
        status =
            base_fail(error, MARCO_ERROR_NETWORK,
                      "%s: %s says that its list goes on elsewhere; not followed", what, net->host);
    if (!status) {
        *next = reply.next;
        reply.next = NULL;
    }
    hub_reply_clear(&reply);
    curl_easy_cleanup(easy);
    base_free(at);
    return status;
}
