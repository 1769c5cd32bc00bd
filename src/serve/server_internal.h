/* Inside the server's own layer: what stands around the endpoints. */
#ifndef SERVE_SERVER_INTERNAL_H
#define SERVE_SERVER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/text.h"
#include "serve/serve.h"

typedef struct serve_keys serve_keys;
typedef struct serve_metrics serve_metrics;

/* What the server keeps with a request. */
typedef struct serve_info {
    uint64_t client;
    bool known; /* a key was given that is right */
    char key[64], model[128], finish[32];
    size_t n_prompt, n_cached, n_reply;
    int route; /* the endpoint's number in the metrics */
} serve_info;

struct marco_server {
    marco_serve_params params; /* its texts are the server's own */
    http_server *http;
    serve_models *models;
    serve_heavy *heavy;
    serve_metrics *metrics;
    pthread_mutex_t lock; /* of keys */
    serve_keys *keys;     /* NULL: none are asked for */
    pthread_mutex_t log_lock;
    bool loopback;
    char *url;
    atomic_bool stopping;
    atomic_bool ending; /* the time of grace is over */
};

/* ---- keys.c ---- */

/* Reads a file of keys: one a line, perhaps with a name, # begins a comment. At least one. */
marco_status serve_keys_load(const char *path, serve_keys **out, marco_error *error);
void serve_keys_free(serve_keys *keys);
size_t serve_keys_count(const serve_keys *keys);
/* Whether it is one of them, taking the same time whichever it is; whose, and a number that is the
 * same for the same key always. */
bool serve_keys_find(const serve_keys *keys, const char *key, char name[64], uint64_t *client);

/* ---- log.c ---- */

/* The line of a request in the access log. */
void serve_log_request(marco_server *server, const http_request *request);
/* Something that happened to a model: {"event": "loaded", "model": ..., "seconds": ...}. */
void serve_log_event(marco_server *server, const char *event, const char *model, double seconds,
                     const char *message);

/* ---- metrics.c ---- */

/* Paths by their number, the last being that of all others. */
marco_status serve_metrics_create(const char *const *paths, size_t n, serve_metrics **out,
                                  marco_error *error);
void serve_metrics_free(serve_metrics *metrics);
void serve_metrics_add(serve_metrics *metrics, int route, int status, double seconds);
/* In the text format of Prometheus; NULL when out of memory. */
char *serve_metrics_text(marco_server *server, size_t *size);

/* ---- models.c ---- */

/* Loads the first model. `server` is for the log; it outlives the models. */
marco_status serve_models_create(marco_server *server, serve_models **out, marco_error *error);
/* From now on none is loaded; those who wait for one are told so. */
void serve_models_stop(serve_models *models);
/* Waits until nobody holds a model, saves what there is to be saved; the status is that of the
 * first that could not be. NULL is allowed. */
marco_status serve_models_close(serve_models *models, marco_error *error);

typedef struct serve_model_stats {
    const char *name;
    bool loaded;
    marco_scheduler_stats scheduler; /* zeros while it is not loaded */
    /* Of all its times in memory. */
    uint64_t requests, prompt_tokens, cached_tokens, reply_tokens;
    double busy_seconds;
} serve_model_stats;

/* False past the last. */
bool serve_models_stats(serve_models *models, size_t i, serve_model_stats *out);

/* The names of a table of models, those given or the checkpoints' own: [n_models], to be released
 * by serve_names_free. Opens every checkpoint to see that it is one. */
marco_status serve_names(const marco_serve_params *params, char ***out, marco_error *error);
void serve_names_free(char **names, size_t n);

/* ---- server.c ---- */

/* What is wrong with params that any server could see. */
marco_status serve_params_check(const marco_serve_params *params, marco_error *error);
/* The two texts of the TLS files, "" and NULL without them. */
marco_status serve_tls_read(const marco_serve_params *params, char **cert, char **key,
                            marco_error *error);
/* Whether all that a host stands for is this machine alone. */
bool serve_is_loopback(const char *host);
http_params serve_http_params(const marco_serve_params *params);

#endif
