#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "serve/http_internal.h"
#include "serve/server_internal.h"

enum {
    MAX_PEM = 1 << 20,
    DEFAULT_BODY = 32 << 20,
    DEFAULT_CONNECTIONS = 1024,
    DEFAULT_REQUEST_SECONDS = 60,
    DEFAULT_IDLE_SECONDS = 75,
    HEAVY_QUEUE = 64,       /* long requests that may wait to be read */
    MOST_PARALLEL = 256,    /* the scheduler's */
    OTHER_FILES = 64,       /* descriptors that are not for connections */
    LEAST_CONNECTIONS = 16, /* to serve at all */
};

static const char json_type[] = "application/json";

/* ---- the server's own endpoints -------------------------------------------------------------- */

static void health(marco_server *server, http_request *request)
{
    (void)server;
    static const char body[] = "{\"status\":\"ok\"}";
    http_respond_static(request, 200, json_type, body, sizeof body - 1);
}

static void version(marco_server *server, http_request *request)
{
    (void)server;
    char body[128];
    int size = snprintf(body, sizeof body, "{\"version\":\"%s\",\"cpu\":\"%s\"}", marco_version(),
                        marco_cpu_level());
    http_respond(request, 200, json_type, body, (size_t)size);
}

static void metrics(marco_server *server, http_request *request)
{
    size_t size = 0;
    char *text = serve_metrics_text(server, &size);
    if (text)
        http_respond(request, 200, "text/plain; version=0.0.4; charset=utf-8", text, size);
    else
        serve_refuse(request, 503, NULL, NULL, "out of memory");
    base_free(text);
}

static const serve_route own_routes[] = {
    {"GET", "/health", true, health},
    {"GET", "/version", false, version},
    {"GET", "/metrics", false, metrics},
    {NULL, NULL, false, NULL},
};

/* The i-th of all routes. */
static const serve_route *route_at(size_t i)
{
    size_t n = sizeof own_routes / sizeof *own_routes - 1;
    const serve_route *route = i < n ? &own_routes[i] : &serve_api_routes[i - n];
    return route->path ? route : NULL;
}

/* ---- who may --------------------------------------------------------------------------------- */

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)address;
        return ntohl(four->sin_addr.s_addr) >> 24 == 127;
    }
    const struct in6_addr *six = &((const struct sockaddr_in6 *)address)->sin6_addr;
    return address->sa_family == AF_INET6 &&
           (IN6_IS_ADDR_LOOPBACK(six) || (IN6_IS_ADDR_V4MAPPED(six) && six->s6_addr[12] == 127));
}

bool serve_is_loopback(const char *host)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    if (getaddrinfo(host, NULL, &hints, &found))
        return false;
    bool all = true; /* of what a name stands for */
    for (const struct addrinfo *at = found; at; at = at->ai_next)
        all = all && is_loopback(at->ai_addr);
    freeaddrinfo(found);
    return all;
}

/* The part of "[::1]:8080", "localhost:8080" or "example.org" before the port. */
static size_t host_size(const char *host)
{
    if (host[0] == '[') {
        const char *end = strchr(host, ']');
        return end ? (size_t)(end - host) + 1 : strlen(host);
    }
    return strcspn(host, ":/");
}

/* Whether nothing follows that part but a port. */
static bool host_is_whole(const char *host)
{
    const char *rest = host + host_size(host);
    return !*rest || (*rest == ':' && rest[1 + strspn(rest + 1, "0123456789")] == '\0');
}

static bool host_is(const char *host, const char *name)
{
    size_t size = host_size(host);
    return size == strlen(name) && strncasecmp(host, name, size) == 0;
}

/* What follows "https://", or NULL. */
static const char *origin_host(const char *origin)
{
    const char *at = strstr(origin, "://");
    return at ? at + 3 : NULL;
}

/* A page of an evil host whose name suddenly means 127.0.0.1 (DNS rebinding) says its own name as
 * Host: on a loopback address only the machine's own names are taken. */
static bool host_allowed(const marco_server *server, const char *host)
{
    const char *cors = server->params.cors ? origin_host(server->params.cors) : NULL;
    if (!server->loopback || !host) /* without: HTTP/1.0, which no browser speaks */
        return true;
    if (!host_is_whole(host))
        return false;
    return host_is(host, "localhost") || host_is(host, "127.0.0.1") || host_is(host, "[::1]") ||
           host_is(host, server->params.host) ||
           (cors && host_size(host) == host_size(cors) &&
            strncasecmp(host, cors, host_size(host)) == 0);
}

/* The same host and port, whatever the scheme: a proxy in front may be the one that speaks TLS. */
static bool same_origin(const char *origin, const char *host)
{
    const char *from = origin_host(origin);
    if (!from || !host)
        return false;
    size_t from_size = strlen(from), size = strlen(host);
    if (from_size == size && strncasecmp(from, host, size) == 0)
        return true;
    /* Host need not say the scheme's own port. */
    const char *port = strncmp(origin, "https:", 6) == 0 ? ":443" : ":80";
    return size == from_size + strlen(port) && strncasecmp(from, host, from_size) == 0 &&
           strcmp(host + from_size, port) == 0;
}

static bool cors_allows(const marco_server *server, const char *origin)
{
    const char *cors = server->params.cors;
    return cors && (strcmp(cors, "*") == 0 || strcasecmp(cors, origin) == 0);
}

/* Says to whom the answer may be shown. */
static void add_cors(const marco_server *server, http_request *request)
{
    if (strcmp(server->params.cors, "*") != 0)
        http_add_header(request, "Vary", "Origin");
    http_add_header(request, "Access-Control-Allow-Origin", server->params.cors);
    http_add_header(request, "Access-Control-Expose-Headers", "Retry-After, X-Request-Id");
}

/* Whether host and origin are such as may ask at all; refuses otherwise. */
static bool place_allowed(marco_server *server, http_request *request)
{
    const char *host = http_header(request, "Host"), *origin = http_header(request, "Origin");
    if (!host_allowed(server, host)) {
        serve_refuse(request, 403, NULL, "host_not_allowed",
                     "this server listens on %s only, and answers to localhost, 127.0.0.1 and "
                     "[::1], not to '%.100s'",
                     server->params.host, host);
        return false;
    }
    if (!origin || same_origin(origin, host))
        return true;
    if (cors_allows(server, origin)) {
        add_cors(server, request);
        return true;
    }
    serve_refuse(request, 403, NULL, "origin_not_allowed",
                 "pages of '%.200s' may not use this server; it would have to be started with "
                 "--cors",
                 origin);
    return false;
}

/* The key that a request brings, or NULL. */
static const char *given_key(const http_request *request)
{
    const char *header = http_header(request, "Authorization");
    if (header && strncasecmp(header, "Bearer ", 7) == 0) {
        header += 7;
        return header + strspn(header, " ");
    }
    return http_header(request, "x-api-key");
}

/* FNV-1a. */
static uint64_t number_of(const char *text)
{
    uint64_t hash = 0xCBF29CE484222325;
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001B3;
    return hash;
}

/* Whether the request may go on; notes whose it is. */
static bool identify(marco_server *server, const http_request *request, serve_info *info)
{
    const char *given = given_key(request);
    pthread_mutex_lock(&server->lock);
    bool wanted = server->keys != NULL;
    if (wanted && given)
        info->known = serve_keys_find(server->keys, given, info->key, &info->client);
    pthread_mutex_unlock(&server->lock);
    if (!info->known)
        info->client = number_of(http_peer(request));
    return info->known || !wanted;
}

/* ---- where requests go ----------------------------------------------------------------------- */

static bool method_is(const char *method, const char *wanted)
{
    return strcmp(method, wanted) == 0 ||
           (strcmp(method, "HEAD") == 0 && strcmp(wanted, "GET") == 0);
}

/* A route that ends with a slash is for all that is behind it. */
static bool path_is(const char *path, const char *wanted)
{
    size_t size = strlen(wanted);
    return wanted[size - 1] == '/' ? strncmp(path, wanted, size) == 0 && path[size]
                                   : strcmp(path, wanted) == 0;
}

/* The route of a request; NULL where there is none, `allow` then being the methods of its path.
 * *number: the path's in the metrics. */
static const serve_route *find_route(const http_request *request, base_text *allow, int *number)
{
    const serve_route *route, *found = NULL;
    size_t i = 0;
    for (; (route = route_at(i)) != NULL; i++) {
        if (!path_is(http_path(request), route->path))
            continue;
        *number = *number < 0 ? (int)i : *number; /* a path's first */
        if (method_is(http_method(request), route->method)) {
            found = route;
            break;
        }
        base_text_printf(allow, "%s, ", route->method);
        if (strcmp(route->method, "GET") == 0)
            base_text_add(allow, "HEAD, ");
    }
    return found;
}

/* "OPTIONS" is always allowed. */
static void refuse_method(marco_server *server, http_request *request, base_text *allow)
{
    base_text_add(allow, "OPTIONS");
    const char *methods = allow->data && !allow->failed ? allow->data : "OPTIONS";
    const char *wanted = http_header(request, "Access-Control-Request-Method");
    http_add_header(request, "Allow", methods);
    if (strcmp(http_method(request), "OPTIONS") != 0) {
        serve_refuse(request, 405, NULL, NULL, "%s is not for %s; use %s", http_path(request),
                     http_method(request), methods);
        return;
    }
    if (server->params.cors && wanted && http_header(request, "Origin")) {
        http_add_header(request, "Access-Control-Allow-Methods", methods);
        http_add_header(request, "Access-Control-Allow-Headers",
                        "Authorization, Content-Type, X-Api-Key, *");
        http_add_header(request, "Access-Control-Max-Age", "600");
    }
    http_respond_static(request, 204, NULL, "", 0);
}

static void serve_file_to(http_request *request, const serve_file *file)
{
    http_add_header(request, "Content-Security-Policy",
                    "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
                    "form-action 'none'");
    http_add_header(request, "Referrer-Policy", "no-referrer");
    http_add_header(request, "Cache-Control", "no-cache");
    http_respond_static(request, 200, file->type, file->data, file->size);
}

/* Whether the body is JSON, in UTF-8, as it stands; refuses otherwise. */
static bool is_json(http_request *request)
{
    const char *type = http_header(request, "Content-Type");
    const char *encoding = http_header(request, "Content-Encoding");
    size_t size = sizeof json_type - 1;
    if (!type || strncasecmp(type, json_type, size) != 0 ||
        (type[size] != '\0' && type[size] != ';' && type[size] != ' ')) {
        serve_refuse(request, 415, NULL, NULL, "Content-Type must be application/json");
        return false;
    }
    if (encoding && strcasecmp(encoding, "identity") != 0) {
        serve_refuse(request, 415, NULL, NULL,
                     "Content-Encoding '%.100s' is not understood: send the body as it is",
                     encoding);
        return false;
    }
    const char *charset = strcasestr(type + size, "charset=");
    if (charset) {
        charset += strlen("charset=");
        charset += *charset == '"';
        if (strncasecmp(charset, "utf-8", 5) != 0 ||
            (charset[5] && !strchr("\"; \t", charset[5]))) {
            serve_refuse(request, 415, NULL, NULL, "the body must be in UTF-8");
            return false;
        }
    }
    return true;
}

static void dispatch(marco_server *server, http_request *request, serve_info *info)
{
    base_text allow = {0};
    const serve_route *route = find_route(request, &allow, &info->route);
    const serve_file *file = route || allow.data ? NULL : serve_page_file(http_path(request));
    if (file && method_is(http_method(request), "GET")) {
        serve_file_to(request, file);
    } else if (!route && (file || allow.data)) {
        if (file)
            base_text_add(&allow, "GET, HEAD, ");
        refuse_method(server, request, &allow);
    } else if (!route) {
        serve_refuse(request, 404, NULL, NULL, "there is no %.200s here", http_path(request));
    } else if (!identify(server, request, info) && !route->open) {
        http_add_header(request, "WWW-Authenticate", "Bearer realm=\"marco\"");
        serve_refuse(request, 401, NULL, "invalid_api_key",
                     given_key(request) ? "the API key is not one of this server's"
                                        : "an API key is needed: Authorization: Bearer KEY");
    } else if (strcmp(route->method, "POST") != 0 || is_json(request)) {
        route->handle(server, request);
    }
    base_text_free(&allow);
}

/* ---- what the HTTP layer calls --------------------------------------------------------------- */

static serve_info *add_info(marco_server *server, http_request *request)
{
    (void)server;
    char id[24];
    serve_info *info = base_calloc(1, sizeof *info);
    http_set_user(request, info);
    http_add_header(request, "X-Content-Type-Options", "nosniff");
    snprintf(id, sizeof id, "%llu", (unsigned long long)http_id(request));
    http_add_header(request, "X-Request-Id", id);
    if (info)
        info->route = -1;
    return info;
}

static void on_request(void *user, http_request *request)
{
    marco_server *server = user;
    serve_info *info = add_info(server, request);
    if (!info) {
        serve_refuse(request, 503, NULL, NULL, "out of memory");
    } else if (atomic_load(&server->stopping)) {
        http_add_header(request, "Connection", "close");
        serve_refuse(request, 503, NULL, NULL, "the server is shutting down");
    } else if (place_allowed(server, request)) {
        dispatch(server, request, info);
    }
}

static void on_refused(void *user, http_request *request, int status)
{
    marco_server *server = user;
    add_info(server, request);
    if (status == 413)
        serve_refuse(request, status, NULL, NULL, "the request is longer than %llu bytes",
                     (unsigned long long)server->params.max_body);
    else if (status == 503)
        serve_refuse(request, status, NULL, NULL,
                     "too much is being sent to the server at once; try again");
    else if (status == 501)
        serve_refuse(request, status, NULL, NULL,
                     "no transfer coding but chunked is understood here");
    else if (status == 417)
        serve_refuse(request, status, NULL, NULL, "nothing is expected here but 100-continue");
    else
        serve_refuse(request, status, NULL, NULL,
                     "not a sound HTTP request: its path, a header's name or value, one that "
                     "stands twice, or what says how long the request is");
}

static void on_done(void *user, const http_request *request)
{
    marco_server *server = user;
    serve_info *info = http_user(request);
    int route = 0;
    while (route_at((size_t)route))
        route++; /* that of all other paths */
    if (info && info->route >= 0)
        route = info->route;
    serve_metrics_add(server->metrics, route, http_status(request), http_age(request));
    serve_log_request(server, request);
    base_free(info);
}

uint64_t serve_client(marco_server *server, const http_request *request)
{
    (void)server;
    const serve_info *info = http_user(request);
    return info ? info->client : 0;
}

void serve_note(http_request *request, const char *model, size_t n_prompt, size_t n_cached,
                size_t n_reply, const char *finish)
{
    serve_info *info = http_user(request);
    if (!info)
        return;
    snprintf(info->model, sizeof info->model, "%s", model ? model : "");
    snprintf(info->finish, sizeof info->finish, "%s", finish ? finish : "");
    info->n_prompt = n_prompt;
    info->n_cached = n_cached;
    info->n_reply = n_reply;
}

serve_heavy *serve_server_heavy(marco_server *server)
{
    return server->heavy;
}

bool serve_ending(const marco_server *server)
{
    return atomic_load(&server->ending);
}

serve_models *serve_server_models(marco_server *server)
{
    return server->models;
}

/* ---- life ------------------------------------------------------------------------------------ */

marco_serve_params marco_serve_params_default(void)
{
    return (marco_serve_params){
        .host = "127.0.0.1",
        .port = 8080,
        .engine = marco_engine_params_default(),
        .scheduler = marco_scheduler_params_default(),
        .grace_seconds = 30,
    };
}

static rlim_t open_files(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : RLIM_INFINITY;
}

marco_status serve_params_check(const marco_serve_params *params, marco_error *error)
{
    if (!params->models || params->n_models == 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "no model to serve: give -m MODEL");
    if (!params->host[0])
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "--host '': give an address of this machine, e.g. 127.0.0.1");
    rlim_t files = open_files();
    if (files < OTHER_FILES + LEAST_CONNECTIONS)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "this process may have %llu files open, which leaves too few for "
                         "connections: allow it %d or more (ulimit -n)",
                         (unsigned long long)files, OTHER_FILES + LEAST_CONNECTIONS);
    if (!params->tls_cert != !params->tls_key)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "TLS needs both a certificate and its key: --tls-cert and --tls-key");
    if (params->max_body > SIZE_MAX / 64)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "max_body: %llu bytes are too many",
                         (unsigned long long)params->max_body);
    if (params->grace_seconds < 0 || params->idle_unload_seconds < 0 ||
        params->max_connections < 0 || params->request_seconds < 0 || params->idle_seconds < 0)
        return base_fail(error, MARCO_ERROR_ARGUMENT,
                         "numbers of seconds and of connections may not be negative");
    if (params->scheduler.parallel < 0 || params->scheduler.parallel > MOST_PARALLEL)
        return base_fail(error, MARCO_ERROR_ARGUMENT, "--parallel %d is not between 1 and %d",
                         params->scheduler.parallel, MOST_PARALLEL);
    const char *cors = params->cors;
    if (cors && strcmp(cors, "*") != 0) {
        const char *host = origin_host(cors);
        if (!host || !host[0] || host[strcspn(host, "/ \t\r\n,")])
            return base_fail(error, MARCO_ERROR_ARGUMENT,
                             "--cors '%s' is no origin; one looks like https://example.org, "
                             "without a path; * is any",
                             cors);
    }
    if (params->session_dir && !base_is_folder(params->session_dir))
        return base_fail(error, MARCO_ERROR_NOT_FOUND, "--session-dir: there is no folder %s",
                         params->session_dir);
    if (params->session_dir && access(params->session_dir, R_OK | W_OK | X_OK))
        return base_fail_errno(error, errno, "writing to --session-dir", params->session_dir);
    if (!serve_is_loopback(params->host) && !params->api_key_file && !params->open)
        return base_fail(error, MARCO_ERROR_DENIED,
                         "host %s: others could use this server without a key; give "
                         "--api-key-file, or --open if that is meant",
                         params->host);
    return MARCO_OK;
}

marco_status serve_tls_read(const marco_serve_params *params, char **cert, char **key,
                            marco_error *error)
{
    size_t size = 0;
    *cert = *key = NULL;
    if (!params->tls_cert)
        return MARCO_OK;
    marco_status status = base_file_slurp(params->tls_cert, MAX_PEM, cert, &size, error);
    if (!status)
        status = base_file_slurp(params->tls_key, MAX_PEM, key, &size, error);
    if (status) {
        base_free(*cert);
        *cert = NULL;
    }
    return status;
}

http_params serve_http_params(const marco_serve_params *params)
{
    int32_t connections = params->max_connections ? params->max_connections : DEFAULT_CONNECTIONS;
    int32_t of_one = params->max_connections_per_address;
    rlim_t files = open_files();
    if (files > OTHER_FILES && files - OTHER_FILES < (rlim_t)connections)
        connections = (int32_t)(files - OTHER_FILES);
    return (http_params){
        .host = params->host,
        .port = params->port,
        .max_body = params->max_body ? (size_t)params->max_body : DEFAULT_BODY,
        .body_seconds = params->request_seconds ? params->request_seconds : DEFAULT_REQUEST_SECONDS,
        .idle_seconds = params->idle_seconds ? params->idle_seconds : DEFAULT_IDLE_SECONDS,
        .max_connections = connections,
        .max_connections_per_address = of_one < 0 ? 0
                                       : of_one   ? of_one
                                                  : (connections + 1) / 2,
    };
}

/* Makes a text the server's own. */
static bool own(const char **text)
{
    if (!*text)
        return true;
    *text = base_strdup(*text);
    return *text != NULL;
}

static marco_status copy_params(marco_server *server, const marco_serve_params *params,
                                marco_error *error)
{
    marco_serve_params *p = &server->params;
    *p = *params;
    p->models = NULL;
    p->n_models = 0;
    p->max_body = serve_http_params(params).max_body;
    const char **texts[] = {
        &p->host,        &p->api_key_file,        &p->tls_cert, &p->tls_key, &p->cors,
        &p->session_dir, &p->engine.chat_template};
    bool fine = true;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (fine)
            fine = own(texts[i]);
        else
            *texts[i] = NULL;
    }
    marco_serve_model *models = fine ? base_calloc(params->n_models, sizeof *models) : NULL;
    p->models = models;
    for (size_t i = 0; models && fine && i < params->n_models; i++) {
        models[i] = params->models[i];
        fine = own(&models[i].name);
        if (!fine)
            models[i].path = NULL;
        fine = fine && own(&models[i].path);
        p->n_models = i + 1;
    }
    if (!fine || !models)
        return base_fail_memory(error, sizeof *models, "the server");
    return MARCO_OK;
}

static void free_params(marco_serve_params *p)
{
    for (size_t i = 0; i < p->n_models; i++) {
        base_free((char *)p->models[i].name);
        base_free((char *)p->models[i].path);
    }
    base_free((void *)p->models);
    base_free((char *)p->host);
    base_free((char *)p->api_key_file);
    base_free((char *)p->tls_cert);
    base_free((char *)p->tls_key);
    base_free((char *)p->cors);
    base_free((char *)p->session_dir);
    base_free((char *)p->engine.chat_template);
}

static marco_status bind_http(marco_server *server, marco_error *error)
{
    http_params params = serve_http_params(&server->params);
    char *cert = NULL, *key = NULL;
    params.on_request = on_request;
    params.on_refused = on_refused;
    params.on_done = on_done;
    params.user = server;
    marco_status status = serve_tls_read(&server->params, &cert, &key, error);
    if (status)
        return status;
    params.cert = cert;
    params.key = key;
    status = http_server_create(&params, &server->http, error);
    base_free(cert);
    base_free(key);
    if (status)
        return status;
    base_text url = {0};
    bool six = strchr(server->params.host, ':') != NULL;
    base_text_printf(&url, "%s://%s%s%s:%u", server->params.tls_cert ? "https" : "http",
                     six ? "[" : "", server->params.host, six ? "]" : "",
                     http_server_port(server->http));
    size_t size = 0;
    server->url = base_text_take(&url, &size);
    return server->url ? MARCO_OK : base_fail_memory(error, 64, "the server's address");
}

static marco_status create_metrics(marco_server *server, marco_error *error)
{
    const char *paths[128];
    size_t n = 0;
    for (; n < sizeof paths / sizeof *paths - 1 && route_at(n); n++)
        paths[n] = route_at(n)->path;
    paths[n++] = "other";
    return serve_metrics_create(paths, n, &server->metrics, error);
}

marco_status marco_server_create(const marco_serve_params *params, marco_server **out,
                                 marco_error *error)
{
    *out = NULL;
    marco_serve_params given = *params;
    given.host = given.host ? given.host : "127.0.0.1";
    marco_status status = serve_params_check(&given, error);
    if (status)
        return status;
    marco_server *server = base_calloc(1, sizeof *server);
    if (!server)
        return base_fail_memory(error, sizeof *server, "the server");
    pthread_mutex_init(&server->lock, NULL);
    pthread_mutex_init(&server->log_lock, NULL);
    status = copy_params(server, &given, error);
    if (!status) {
        server->loopback = serve_is_loopback(server->params.host);
        status = create_metrics(server, error);
    }
    if (!status && server->params.api_key_file)
        status = serve_keys_load(server->params.api_key_file, &server->keys, error);
    if (!status) /* what is wrong with port or certificate shows before models are loaded */
        status = bind_http(server, error);
    if (!status)
        status = serve_models_create(server, &server->models, error);
    if (!status)
        status = serve_heavy_create(HEAVY_QUEUE, &server->heavy, error);
    if (!status)
        status = http_server_start(server->http, error);
    if (status) {
        marco_server_close(server);
        return status;
    }
    *out = server;
    return MARCO_OK;
}

const char *marco_server_url(const marco_server *server)
{
    return server->url;
}

marco_status marco_server_reload(marco_server *server, marco_error *error)
{
    char *cert = NULL, *key = NULL;
    serve_keys *keys = NULL;
    marco_status status = MARCO_OK;
    if (server->params.api_key_file)
        status = serve_keys_load(server->params.api_key_file, &keys, error);
    if (!status)
        status = serve_tls_read(&server->params, &cert, &key, error);
    if (!status && cert)
        status = http_server_set_tls(server->http, cert, key, error);
    base_free(cert);
    base_free(key);
    if (!status) {
        pthread_mutex_lock(&server->lock);
        serve_keys *old = server->keys;
        server->keys = keys;
        pthread_mutex_unlock(&server->lock);
        keys = old;
    }
    serve_keys_free(keys);
    return status;
}

/* Waits until no request is open, at most so long. */
static size_t wait_open(marco_server *server, double seconds)
{
    double until = base_now() + seconds;
    size_t open;
    while ((open = http_server_open_requests(server->http)) > 0 && base_now() < until) {
        struct timespec moment = {.tv_nsec = 20 * 1000 * 1000};
        nanosleep(&moment, NULL);
    }
    return open;
}

marco_status marco_server_shutdown(marco_server *server, size_t *cancelled, marco_error *error)
{
    size_t left = 0;
    atomic_store(&server->stopping, true);
    if (server->http) {
        left = wait_open(server, server->params.grace_seconds);
        atomic_store(&server->ending, true);
        if (server->heavy)
            serve_heavy_stop(server->heavy);
        if (server->models)
            serve_models_stop(server->models);
        http_server_close(server->http);
        server->http = NULL;
    }
    marco_status status = serve_models_close(server->models, error);
    server->models = NULL;
    if (cancelled)
        *cancelled = left;
    return status;
}

void marco_server_close(marco_server *server)
{
    if (!server)
        return;
    server->params.grace_seconds = 0;
    marco_server_shutdown(server, NULL, NULL);
    serve_heavy_free(server->heavy);
    serve_metrics_free(server->metrics);
    serve_keys_free(server->keys);
    free_params(&server->params);
    base_free(server->url);
    pthread_mutex_destroy(&server->lock);
    pthread_mutex_destroy(&server->log_lock);
    base_free(server);
}
