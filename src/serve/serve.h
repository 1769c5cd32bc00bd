/* Inside the serve room: what the endpoints stand on. */
#ifndef SERVE_SERVE_H
#define SERVE_SERVE_H

#include "serve/grammars.h"
#include "serve/heavy.h"
#include "serve/http.h"

/* ---- models (models.c) --------------------------------------------------------------------- */

typedef struct serve_models serve_models;

/* A model in memory, as long as somebody holds it. */
typedef struct serve_model {
    const char *name; /* that clients know it by */
    int64_t created;  /* the checkpoint's time, seconds since 1970 */
    marco_engine *engine;
    marco_scheduler *scheduler;
    serve_grammars *grammars;
} serve_model;

/* `model` is held until serve_model_release; NULL where status is not MARCO_OK: `error` says why.
 */
typedef void (*serve_ready_fn)(void *user, serve_model *model, marco_status status,
                               const marco_error *error);

/* Calls ready exactly once, with the model of that name (NULL: the default): at once where it is
 * loaded, from another thread when it has been. MARCO_ERROR_NOT_FOUND: there is none of that name.
 * MARCO_ERROR_BUSY: it does not fit beside those in use. */
void serve_models_acquire(serve_models *models, const char *name, serve_ready_fn ready, void *user);
void serve_model_release(serve_models *models, serve_model *model);

/* The i-th name, NULL past the last, the time of its checkpoint, and its context in tokens. */
const char *serve_models_name(const serve_models *models, size_t i, int64_t *created,
                              int32_t *context);

/* ---- the server (server.c) ----------------------------------------------------------------- */

serve_models *serve_server_models(marco_server *server);
serve_heavy *serve_server_heavy(marco_server *server);

/* Whether requests under way are being cancelled because the server ends. */
bool serve_ending(const marco_server *server);

/* Who asks, for turns among clients: the same number for the same key, without keys for the same
 * address. */
uint64_t serve_client(marco_server *server, const http_request *request);

/* For the access log: a request's model and its tokens. */
void serve_note(http_request *request, const char *model, size_t n_prompt, size_t n_cached,
                size_t n_reply, const char *finish);

/* ---- endpoints ----------------------------------------------------------------------------- */

/* Where requests go that passed the checks of server.c (host, key, method, size). */
typedef struct serve_route {
    const char *method, *path; /* one that ends with a slash is for all that is behind it */
    bool open;                 /* answered without a key */
    void (*handle)(marco_server *server, http_request *request);
} serve_route;

/* The API's (api.c), the last one's path NULL. Those of the page, /health, /metrics and /version
 * are server.c's. */
extern const serve_route serve_api_routes[];

/* The page's files (page.c): the file that a path means ("/" is the page), or NULL. All are open.
 */
typedef struct serve_file {
    const char *path, *type; /* "/app.js", "text/javascript; charset=utf-8" */
    const unsigned char *data;
    size_t size;
} serve_file;

const serve_file *serve_page_file(const char *path);

/* ---- refusals (refuse.c) ------------------------------------------------------------------- */

/* Answers with an error in the form of the API that the path belongs to: OpenAI's
 * {"error": {"message", "type", "param", "code"}}, or Anthropic's under /v1/messages. `type`
 * follows from the status; param and code may be NULL. 429 and 503 carry Retry-After. */
void serve_refuse(http_request *request, int status, const char *param, const char *code,
                  const char *format, ...) MARCO_PRINTF(5, 6);

/* The HTTP status that a library's refusal comes to: BUSY 429, ARGUMENT and CONTEXT and UNSUPPORTED
 * 400, NOT_FOUND 404, MEMORY 503, else 500. */
int serve_http_status(marco_status status);

#endif
