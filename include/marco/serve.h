/* serve.h - models over HTTP: the OpenAI API, Anthropic's messages, a page for people.
 *
 * docs/serving.md describes what clients see.
 */
#ifndef MARCO_SERVE_H
#define MARCO_SERVE_H

#include <marco/scheduler.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct marco_server marco_server;

/* A model to be served: its files are read when it is first asked for, the first one's at once. */
typedef struct marco_serve_model {
    const char *name; /* NULL: that of its file or folder, without ".gguf" */
    const char *path;
} marco_serve_model;

typedef struct marco_serve_params {
    const marco_serve_model *models; /* [n_models], n_models >= 1; the first is the default */
    size_t n_models;
    const char *host; /* NULL: "127.0.0.1" */
    uint16_t port;    /* 0: any free one */
    /* A file with a key a line ("KEY" or "KEY NAME", # begins a comment); NULL: no key is asked
     * for, which `open` must allow where the host is not a loopback address. */
    const char *api_key_file;
    bool open;
    const char *tls_cert, *tls_key; /* PEM files, both or neither */
    const char *cors;               /* the origin whose pages may call, "*" for any; NULL: none */
    /* Of every model. For all of them together: `ram`, of which each has a share, or what others
     * that are in memory leave; kv_bytes and cache_bytes, which are divided by n_models. Requests
     * on their way in and out come on top. */
    marco_engine_params engine;
    marco_scheduler_params scheduler;
    const char *session_dir;     /* where the prefix caches survive a restart; NULL: nowhere */
    int32_t grace_seconds;       /* for requests under way at a shutdown */
    int32_t idle_unload_seconds; /* a model not asked for this long is unloaded; 0: never */
    uint64_t max_body;           /* bytes of a request; 0: 32 MiB */
    int32_t max_connections;     /* 0: 1024; at most RLIMIT_NOFILE less 64 */
    /* From one address; 0: half of them all, < 0: no limit of its own, as behind a proxy. */
    int32_t max_connections_per_address;
    int32_t request_seconds; /* for a request to arrive, head and body; 0: 60 */
    int32_t idle_seconds;    /* of a connection between requests, or that takes no answer; 0: 75 */
    /* A line of the access log, a JSON object without a newline; NULL: no log. From any thread,
     * never two at once. */
    void (*log)(void *user, const char *line);
    void *log_user;
} marco_serve_params;

/* 127.0.0.1:8080, default engine and scheduler, 30 s of grace. */
MARCO_API marco_serve_params marco_serve_params_default(void);

/* Checks everything that can be checked without serving: files, keys, certificates, models,
 * memory. On success *report is a text for the user (marco_free). */
MARCO_API marco_status marco_serve_check(const marco_serve_params *params, char **report,
                                         marco_error *error);

/* Loads the default model, binds the port and serves, from threads of its own. */
MARCO_API marco_status marco_server_create(const marco_serve_params *params, marco_server **out,
                                           marco_error *error);

/* "http://127.0.0.1:8080" */
MARCO_API const char *marco_server_url(const marco_server *server);

/* Reads keys and certificates again. On an error the old ones stay. */
MARCO_API marco_status marco_server_reload(marco_server *server, marco_error *error);

/* Takes no new requests, waits for those under way for the time of grace, cancels the rest, saves
 * the prefix caches. *cancelled (may be NULL): how many were. The status is that of the saving: the
 * server is down in any case. */
MARCO_API marco_status marco_server_shutdown(marco_server *server, size_t *cancelled,
                                             marco_error *error);

/* After a shutdown or without one. NULL is allowed. */
MARCO_API void marco_server_close(marco_server *server);

#ifdef __cplusplus
}
#endif
#endif
