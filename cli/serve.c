/* marco serve: models over HTTP. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <marco/serve.h>

#include "access_log.h"
#include "load.h"

struct serve_options {
    option_list models;
    const char *host;
    int32_t port;
    const char *api_key_file;
    bool open;
    const char *cert, *key, *cors;
    int32_t parallel, ctx, queue, threads;
    const char *ram, *kv, *cache, *session_dir, *max_body, *log;
    bool mmap, no_log, check, quiet;
    int32_t grace, idle_unload, connections, per_address;
};

#define OPTION(name, letter, kind, value, field, min, help)                                        \
    CLI_OPTION(name, letter, kind, value, struct serve_options, field, min, help)

static const cli_option options[] = {
    OPTION("model", 'm', LIST, "[NAME=]MODEL", models, 0,
           "A checkpoint (a GGUF file, a Hugging Face folder, OWNER/NAME of one that was pulled), "
           "under NAME or its own; the first is the default, others are loaded when they are "
           "asked for."),
    OPTION("host", 0, TEXT, "ADDRESS", host, 0,
           "Where to listen (127.0.0.1: for this machine alone; 0.0.0.0 or :: for all)."),
    OPTION("port", 0, INT, "PORT", port, INT32_MIN,
           "... and at which port (8080); 0: any free one."),
    OPTION("api-key-file", 0, TEXT, "FILE", api_key_file, 0,
           "Ask for an API key, one of FILE's lines: KEY or KEY NAME."),
    OPTION("open", 0, FLAG, NULL, open, 0,
           "Listen elsewhere than on this machine without asking for keys."),
    OPTION("tls-cert", 0, TEXT, "FILE", cert, 0, "Speak TLS, with this chain of certificates,"),
    OPTION("tls-key", 0, TEXT, "FILE", key, 0, "... and its key, both PEM."),
    OPTION("cors", 0, TEXT, "ORIGIN", cors, 0,
           "Let pages of ORIGIN (https://example.org; * for any) use the server."),
    OPTION("parallel", 0, INT, "N", parallel, 1, "Replies written at once (8)."),
    OPTION("queue", 0, INT, "N", queue, 1, "Requests that may wait for their turn (64)."),
    OPTION("ctx", 'c', INT, "N", ctx, 1,
           "Tokens of a prompt with its reply; what the model was made for unless given."),
    OPTION("threads", 't', THREADS, "N", threads, 0,
           "Threads; all the cores this process may use unless given."),
    OPTION("ram", 0, TEXT, "SIZE", ram, 0,
           "The most memory to use in all: bytes, or a number with K, M, G or T (6G)."),
    OPTION("mmap", 0, FLAG, NULL, mmap, 0,
           "Map GGUF files instead of reading them, sharing their pages with other processes."),
    OPTION("kv", 0, TEXT, "f16|f32|q8_0", kv, 0,
           "How keys and values are kept: f16 (default), f32, or q8_0, half of f16's size."),
    OPTION("cache", 0, TEXT, "SIZE", cache, 0,
           "Memory for what later requests may begin with, 0 for none; an eighth of what is "
           "available, at most 8G, unless given."),
    OPTION("session-dir", 0, TEXT, "FOLDER", session_dir, 0,
           "Keep that cache there while the server is down."),
    OPTION("idle-unload", 0, INT, "SECONDS", idle_unload, 0,
           "Unload models not asked for so long; never unless given."),
    OPTION("max-body", 0, TEXT, "SIZE", max_body, 0, "The longest request taken (32M)."),
    OPTION("connections", 0, INT, "N", connections, 1, "Connections at once (1024)."),
    OPTION("connections-per-address", 0, INT, "N", per_address, -1,
           "... of one address; half of all unless given, -1 for no limit, as behind a proxy."),
    OPTION("grace", 0, INT, "SECONDS", grace, 0,
           "At the end, wait so long for requests under way (30)."),
    OPTION("log", 0, TEXT, "FILE", log, 0,
           "Append the access log to FILE instead of standard error."),
    OPTION("no-log", 0, FLAG, NULL, no_log, 0, "Write no access log."),
    OPTION(
        "check", 0, FLAG, NULL, check, 0,
        "Check models, keys, certificates, port and memory, say what would be served, and stop."),
    OPTION("quiet", 'q', FLAG, NULL, quiet, 0, "Print nothing but errors and the access log."),
};

/* Whether somebody takes what is said on standard error: one who reads it and stalls must not hold
 * up the server's end. */
static bool is_heard(void)
{
    struct pollfd wait = {.fd = STDERR_FILENO, .events = POLLOUT};
    return poll(&wait, 1, 200) > 0;
}

/* ---- the service manager --------------------------------------------------------------------- */

/* Tells systemd, where it is there to be told: sd_notify(3) without its library. */
static void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size = path ? strlen(path) : 0;
    if (size < 2 || size >= sizeof address.sun_path || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(address.sun_path, path, size);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size));
    close(fd);
}

static void notify_reloading(void)
{
    struct timespec now;
    char state[80];
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%lld",
             (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    notify(state);
}

/* ---- what is asked for ----------------------------------------------------------------------- */

static int read_size(const command *self, const char *option, const char *value, uint64_t *bytes)
{
    if (!value)
        return EXIT_SUCCESS;
    if (!parse_size(value, bytes))
        return command_misused(
            self, "--%s '%s': must be a size above 0 in bytes, or with K, M, G or T: 6G", option,
            value);
    return EXIT_SUCCESS;
}

/* A model as it is given, and what was allocated for it. */
typedef struct given_model {
    char *name, *path;
} given_model;

/* "NAME=MODEL"; a path with a '=' in it is one where such a file is there. What was pulled from a
 * hub goes by the name that it has there. */
static int read_models(const command *self, const option_list *list, marco_serve_model *models,
                       given_model *given)
{
    for (size_t i = 0; i < list->n; i++) {
        const char *item = list->items[i], *equals = strchr(item, '='), *model = item;
        if (equals && access(item, F_OK) != 0) {
            if (equals == item || equals[1] == '\0')
                return command_misused(self, "--model '%s': must be MODEL or NAME=MODEL", item);
            given[i].name = strndup(item, (size_t)(equals - item));
            model = equals + 1;
            if (!given[i].name)
                return command_fail(self, "out of memory");
        }
        int exit_status = load_find(self, model, &given[i].path);
        if (exit_status != EXIT_SUCCESS)
            return exit_status;
        models[i].path = given[i].path;
        models[i].name = given[i].name;
        if (!models[i].name && strcmp(model, given[i].path) != 0)
            models[i].name = model;
    }
    return EXIT_SUCCESS;
}

static int read_params(const command *self, const struct serve_options *o, marco_serve_params *p)
{
    uint64_t cache = 0;
    int exit_status = load_kv(self, o->kv, &p->engine.kv_type);
    if (exit_status == EXIT_SUCCESS)
        exit_status = read_size(self, "ram", o->ram, &p->engine.ram);
    if (exit_status == EXIT_SUCCESS)
        exit_status = read_size(self, "max-body", o->max_body, &p->max_body);
    bool no_cache = o->cache && strcmp(o->cache, "0") == 0;
    if (exit_status == EXIT_SUCCESS && !no_cache)
        exit_status = read_size(self, "cache", o->cache, &cache);
    if (exit_status != EXIT_SUCCESS)
        return exit_status;
    if (o->ram && o->mmap)
        return command_misused(self, "--ram excludes --mmap");
    if (o->log && o->no_log)
        return command_misused(self, "--log and --no-log exclude each other");
    if (o->port < 0 || o->port > 65535)
        return command_misused(self, "--port '%d': must be a whole number from 0 to 65535",
                               o->port);
    if (o->cache)
        p->scheduler.cache_bytes = cache;
    p->host = o->host;
    p->port = (uint16_t)o->port;
    p->api_key_file = o->api_key_file;
    p->open = o->open;
    p->tls_cert = o->cert;
    p->tls_key = o->key;
    p->cors = o->cors;
    p->engine.threads = o->threads;
    p->engine.mmap = o->mmap;
    p->scheduler.parallel = o->parallel;
    p->scheduler.queue = o->queue;
    p->scheduler.n_ctx = o->ctx;
    p->scheduler.kv_type = p->engine.kv_type;
    p->session_dir = o->session_dir;
    p->grace_seconds = o->grace;
    p->idle_unload_seconds = o->idle_unload;
    p->max_connections = o->connections;
    p->max_connections_per_address = o->per_address;
    return EXIT_SUCCESS;
}

/* ---- serving --------------------------------------------------------------------------------- */

static void warn(const struct serve_options *o)
{
    struct stat info;
    const char *secrets[] = {o->api_key_file, o->key};
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++) {
        if (secrets[i] && stat(secrets[i], &info) == 0 && (info.st_mode & (S_IRWXG | S_IRWXO)))
            fprintf(stderr, "note: %s may be read by others of this machine: chmod 600 it\n",
                    secrets[i]);
    }
}

/* A connection is a descriptor: asks for as many as may be had. */
static void raise_descriptors(const struct serve_options *o)
{
    enum { OTHERS = 64 }; /* that the library keeps for itself: marco/serve.h */
    int32_t wanted = o->connections ? o->connections : 1024;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur > OTHERS && limit.rlim_cur < (rlim_t)wanted + OTHERS && !o->quiet)
        fprintf(stderr,
                "note: this process may have %llu files open: %llu connections are taken, not %d; "
                "raise the limit (ulimit -n) for more\n",
                (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_cur - OTHERS,
                wanted);
}

/* A second signal during the shutdown ends the process at once; SIGHUP has no meaning any more. */
static void die_at_signals(void)
{
    sigset_t enders;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    sigemptyset(&enders);
    sigaddset(&enders, SIGINT);
    sigaddset(&enders, SIGTERM);
    pthread_sigmask(SIG_UNBLOCK, &enders, NULL);
}

/* Whether an address is one that only this machine can reach. */
static bool is_local(const char *url)
{
    struct in_addr address;
    char host[16] = "";
    const char *begin = strstr(url, "://") + 3;
    size_t size = strcspn(begin, ":");
    if (size < sizeof host)
        memcpy(host, begin, size);
    return strcmp(host, "localhost") == 0 || strncmp(begin, "[::1]", 5) == 0 ||
           (inet_pton(AF_INET, host, &address) == 1 && ntohl(address.s_addr) >> 24 == 127);
}

static void reload(const command *self, marco_server *server, access_log *log)
{
    marco_error error = {0};
    notify_reloading();
    if (marco_server_reload(server, &error) != MARCO_OK && is_heard())
        command_fail(self, "the old keys and certificates stay in use: %s", error.message);
    if (log && !access_log_reopen(log) && is_heard())
        command_fail(self, "the old access log stays in use: %s", strerror(errno));
    notify("READY=1");
}

/* Until a signal says that it is enough. */
static int serve(const command *self, const struct serve_options *o, marco_server *server,
                 access_log *log, const sigset_t *signals)
{
    const char *url = marco_server_url(server);
    bool loopback = is_local(url);
    if (!o->quiet && is_heard())
        fprintf(stderr, "marco serve: listening on %s%s\n", url,
                loopback ? ", which only this machine can reach; Ctrl-C ends it"
                         : "; Ctrl-C ends it");
    notify("READY=1");
    int number = 0;
    do {
        if (sigwait(signals, &number) != 0)
            return command_fail(self, "waiting for a signal failed");
        if (number == SIGHUP)
            reload(self, server, log);
    } while (number == SIGHUP);

    notify("STOPPING=1");
    die_at_signals();
    if (!o->quiet && is_heard())
        fprintf(stderr, "marco serve: shutting down; once more ends it at once\n");
    size_t cancelled = 0;
    marco_error error = {0};
    marco_status status = marco_server_shutdown(server, &cancelled, &error);
    if (cancelled && !o->quiet && is_heard())
        fprintf(stderr, "marco serve: %zu request%s had to be cancelled\n", cancelled,
                cancelled == 1 ? "" : "s");
    if (status != MARCO_OK) /* it has served well all the same */
        fprintf(stderr, "marco serve: the prefix cache is not saved: %s\n", error.message);
    return EXIT_SUCCESS;
}

static int check(const command *self, const marco_serve_params *params)
{
    char *report = NULL;
    marco_error error = {0};
    marco_status status = marco_serve_check(params, &report, &error);
    if (status == MARCO_OK)
        print_safely(stdout, report, strlen(report));
    marco_free(report);
    return command_status(self, status, &error);
}

typedef struct loading {
    progress shown;
    marco_progress inner;
    sigset_t enders;
    int ended; /* by this signal */
} loading;

/* While a model is loaded a signal cancels that: SIGTERM is an end like any other, Ctrl-C an
 * interruption. */
static int on_loading(void *user, const char *what, uint64_t done, uint64_t total)
{
    loading *l = user;
    const struct timespec now = {0};
    int number = sigtimedwait(&l->enders, NULL, &now);
    if (number > 0)
        l->ended = number;
    if (l->ended)
        return 1;
    return l->inner.fn(l->inner.user, what, done, total);
}

static int start(const command *self, const struct serve_options *o,
                 const marco_serve_params *given)
{
    marco_serve_params params = *given;
    access_log *log = NULL;
    loading load = {.shown = progress_create(self, o->quiet)};
    marco_server *server = NULL;
    marco_error error = {0};
    sigset_t signals;
    if (!o->no_log) {
        log = access_log_open(o->log);
        if (!log)
            return command_fail(self, "opening %s: %s", o->log ? o->log : "the access log",
                                strerror(errno));
        params.log = access_log_line;
        params.log_user = log;
    }
    signal(SIGPIPE, SIG_IGN);
    /* Signals wait for sigwait in all threads, which therefore are started with them blocked. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    load.inner = progress_of(&load.shown);
    load.enders = signals;
    sigdelset(&load.enders, SIGHUP);
    params.engine.progress = (marco_progress){.fn = on_loading, .user = &load};
    marco_status status = marco_server_create(&params, &server, &error);
    progress_clear(&load.shown);
    int exit_status = EXIT_SUCCESS;
    if (status == MARCO_OK)
        exit_status = serve(self, o, server, log, &signals);
    else if (status != MARCO_ERROR_CANCELLED || load.ended != SIGTERM)
        exit_status = command_status(self, status, &error);
    marco_server_close(server);
    access_log_close(log);
    return exit_status;
}

static int run(const command *self, int argc, char **argv)
{
    struct serve_options o = {.host = "127.0.0.1", .port = 8080, .grace = 30};
    int exit_status = 0;
    if (options_parse(self, argc, argv, &o, &exit_status) < 0)
        return exit_status;
    if (o.models.n == 0)
        return command_misused(self, "no model: give -m MODEL");
    marco_serve_params params = marco_serve_params_default();
    marco_serve_model *models = calloc(o.models.n, sizeof *models);
    given_model *given = calloc(o.models.n, sizeof *given);
    exit_status = models && given ? read_models(self, &o.models, models, given)
                                  : command_fail(self, "out of memory");
    if (exit_status == EXIT_SUCCESS)
        exit_status = read_params(self, &o, &params);
    if (exit_status == EXIT_SUCCESS) {
        params.models = models;
        params.n_models = o.models.n;
        raise_descriptors(&o);
        if (!o.quiet)
            warn(&o);
        exit_status = o.check ? check(self, &params) : start(self, &o, &params);
    }
    for (size_t i = 0; given && i < o.models.n; i++) {
        free(given[i].name);
        marco_free(given[i].path);
    }
    free(given);
    free(models);
    free(o.models.items);
    return exit_status;
}

const command serve_command = {
    .name = "serve",
    .summary = "answer many people and programs over HTTP",
    .synopsis = "-m [NAME=]MODEL [-m [NAME=]MODEL...] [OPTION...]",
    .details =
        "Serves the OpenAI API (/v1/chat/completions, /v1/completions, /v1/models), Anthropic's "
        "/v1/messages, and a page for people at /. Requests are answered together, each with the "
        "reply that it would get alone.\n"
        "Only programs of this machine can reach it unless --host says otherwise, which needs "
        "--api-key-file (or --open, said on purpose). Clients give their key as Authorization: "
        "Bearer KEY.\n"
        "/health tells whether it serves, /metrics how much. The access log, a JSON object a "
        "line, holds no text of any request or reply.\n"
        "SIGHUP reads keys and certificates again and reopens the log. SIGTERM or Ctrl-C: no new "
        "requests; those under way have the time of grace; a second one ends it at once.\n",
    .example = "marco serve -m marco-mini.gguf\n"
               "marco serve -m marco-mini.gguf --host 0.0.0.0 --api-key-file keys "
               "--tls-cert cert.pem --tls-key key.pem\n",
    .options = options,
    .n_options = sizeof(options) / sizeof(options[0]),
    .run = run,
};
