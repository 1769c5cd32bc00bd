#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/available.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "model/source.h"
#include "serve/http_internal.h"
#include "serve/server_internal.h"

enum { DEFAULT_QUEUE = 64 }; /* the scheduler's */

typedef struct waiter {
    struct waiter *next;
    uint64_t number; /* in the order of their coming */
    serve_ready_fn ready;
    void *user;
} waiter;

typedef enum entry_state { UNLOADED, LOADING, LOADED, UNLOADING } entry_state;

typedef struct entry {
    serve_model model; /* first: what is handed out */
    char *path;
    int32_t context; /* tokens of a prompt with its reply */
    entry_state state;
    size_t holders;
    double used;     /* when it was last let go */
    waiter *waiters; /* the first first */
    size_t n_waiters;
    uint64_t size;     /* bytes of its weights */
    uint64_t share;    /* of `ram`, its own while there is no reason for another; 0: no `ram` */
    uint64_t promised; /* that it may take, while it is in memory; of the loader alone */
    serve_model_stats totals; /* of its earlier times in memory */
} entry;

/* Models are loaded and unloaded by one thread alone, one at a time. */
struct serve_models {
    marco_server *server;
    entry *entries;
    size_t n;
    char **names;
    uint64_t ram; /* what models may take of `ram`: without what the process held before */
    uint64_t last_waiter;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* something to do, or a model was let go */
    pthread_t loader;
    bool started;
    atomic_bool stop;
    marco_progress progress; /* of the first load */
};

/* ---- names ----------------------------------------------------------------------------------- */

void serve_names_free(char **names, size_t n)
{
    for (size_t i = 0; names && i < n; i++)
        base_free(names[i]);
    base_free(names);
}

/* "marco-mini" of "models/marco-mini.gguf" and of "models/marco-mini/": what its owner called it,
 * which says more than what the checkpoint calls itself. NULL where memory is short. */
static char *name_of(const char *path)
{
    static const char suffix[] = ".gguf";
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    size_t size = end - begin, cut = sizeof suffix - 1;
    if (size > cut && memcmp(path + end - cut, suffix, cut) == 0)
        size -= cut;
    return base_strndup(path + begin, size);
}

marco_status serve_names(const marco_serve_params *params, char ***out, marco_error *error)
{
    marco_status status = MARCO_OK;
    *out = NULL;
    char **names = base_calloc(params->n_models, sizeof *names);
    if (!names)
        return base_fail_memory(error, params->n_models * sizeof *names, "the models' names");
    for (size_t i = 0; !status && i < params->n_models; i++) {
        const marco_serve_model *model = &params->models[i];
        names[i] = model->name ? base_strdup(model->name) : name_of(model->path);
        if (!names[i])
            status = base_fail_memory(error, 64, "a model's name");
        else if (!names[i][0] || base_utf8_check(names[i], strlen(names[i])) != strlen(names[i]))
            status = base_fail(error, MARCO_ERROR_ARGUMENT,
                               "%s: its name '%s' is empty or no UTF-8; give one: -m NAME=MODEL",
                               model->path, names[i]);
        for (size_t j = 0; !status && j < i; j++) {
            if (strcmp(names[i], names[j]) == 0)
                status = base_fail(error, MARCO_ERROR_ARGUMENT,
                                   "%s: there is a model called '%s' already; give it another "
                                   "name: -m NAME=MODEL",
                                   model->path, names[i]);
        }
    }
    if (status) {
        serve_names_free(names, params->n_models);
        return status;
    }
    *out = names;
    return MARCO_OK;
}

/* ---- sessions on disk ------------------------------------------------------------------------ */

/* "folder/NAME.session", the name's other characters written %XX; NULL: none, or out of memory. */
static char *session_path(const serve_models *models, const entry *e)
{
    const char *folder = models->server->params.session_dir;
    base_text path = {0};
    if (!folder)
        return NULL;
    base_text_printf(&path, "%s/", folder);
    for (const char *c = e->model.name; *c; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                     (*c >= '0' && *c <= '9') || *c == '-' || *c == '_' ||
                     (*c == '.' && c != e->model.name);
        base_text_printf(&path, plain ? "%c" : "%%%02X", (unsigned char)*c);
    }
    base_text_add(&path, ".session");
    size_t size = 0;
    return base_text_take(&path, &size);
}

/* The models share the prefix cache's bound in equal parts. */
static uint64_t cache_bytes(const serve_models *models)
{
    return models->server->params.scheduler.cache_bytes / models->n;
}

static void load_session(serve_models *models, entry *e)
{
    marco_error error = {0};
    char *path = session_path(models, e);
    if (path && base_exists(path) && marco_scheduler_load(e->model.scheduler, path, &error))
        serve_log_event(models->server, "session_refused", e->model.name, -1, error.message);
    base_free(path);
}

static marco_status save_session(serve_models *models, entry *e, marco_error *error)
{
    marco_error local = {0};
    marco_status status = MARCO_OK;
    if (!models->server->params.session_dir)
        return MARCO_OK;
    char *path = session_path(models, e);
    if (path)
        status = marco_scheduler_save(e->model.scheduler, path, cache_bytes(models), &local);
    else
        status = base_fail_memory(&local, 64, "a session's path");
    base_free(path);
    if (status) {
        serve_log_event(models->server, "session_lost", e->model.name, -1, local.message);
        if (error)
            *error = local;
    }
    return status;
}

/* ---- loading and unloading: the loader's thread, without the lock ---------------------------- */

static int on_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    serve_models *models = user;
    if (atomic_load(&models->stop))
        return 1;
    return models->progress.fn ? models->progress.fn(models->progress.user, what, done, total) : 0;
}

/* Nobody holds it, and from here on nobody gets it; what it has done goes to the totals in the same
 * moment, so that no counter ever falls. The lock is the caller's. */
static void retire(entry *e)
{
    marco_scheduler_stats stats = {0};
    marco_scheduler_stats_get(e->model.scheduler, &stats);
    e->totals.requests += stats.requests;
    e->totals.prompt_tokens += stats.prompt_tokens;
    e->totals.cached_tokens += stats.cached_tokens;
    e->totals.reply_tokens += stats.reply_tokens;
    e->totals.busy_seconds += stats.busy_seconds;
    e->state = UNLOADING;
}

/* After retire. The status is that of what is to be saved. */
static marco_status unload(serve_models *models, entry *e, marco_error *error)
{
    double begin = base_now();
    marco_status status = save_session(models, e, error);
    marco_scheduler_close(e->model.scheduler);
    serve_grammars_free(e->model.grammars);
    marco_engine_close(e->model.engine);
    pthread_mutex_lock(&models->lock);
    e->model.scheduler = NULL;
    e->model.grammars = NULL;
    e->model.engine = NULL;
    e->promised = 0;
    e->state = UNLOADED;
    pthread_mutex_unlock(&models->lock);
    serve_log_event(models->server, "unloaded", e->model.name, base_now() - begin, NULL);
    return status;
}

/* Unloads the idle model that was let go first. False: there is none. */
static bool make_room(serve_models *models)
{
    entry *oldest = NULL;
    pthread_mutex_lock(&models->lock);
    for (size_t i = 0; i < models->n; i++) {
        entry *e = &models->entries[i];
        if (e->state == LOADED && e->holders == 0 && (!oldest || e->used < oldest->used))
            oldest = e;
    }
    if (oldest)
        retire(oldest);
    pthread_mutex_unlock(&models->lock);
    if (oldest)
        unload(models, oldest, NULL);
    return oldest != NULL;
}

static bool others_in_use(serve_models *models)
{
    bool any = false;
    pthread_mutex_lock(&models->lock);
    for (size_t i = 0; i < models->n; i++)
        any |= models->entries[i].state == LOADED && models->entries[i].holders > 0;
    pthread_mutex_unlock(&models->lock);
    return any;
}

/* Opens the model with `ram` bytes for the whole process, 0: as much as there is. */
static marco_status open_with(serve_models *models, entry *e, uint64_t ram, marco_error *error)
{
    const marco_serve_params *params = &models->server->params;
    marco_engine_params engine = params->engine;
    marco_scheduler_params scheduler = params->scheduler;
    engine.progress = (marco_progress){.fn = on_progress, .user = models};
    engine.ram = ram;
    marco_status status = marco_engine_open(e->path, &engine, &e->model.engine, error);
    if (!status) {
        /* What a scheduler that is alone would take, for as many as there may be. */
        if (scheduler.kv_bytes == 0)
            scheduler.kv_bytes = base_memory_available() / 4 * 3;
        scheduler.kv_bytes = scheduler.kv_bytes / models->n + (scheduler.kv_bytes % models->n > 0);
        scheduler.cache_bytes = cache_bytes(models);
        status = marco_scheduler_create(e->model.engine, &scheduler, &e->model.scheduler, error);
    }
    if (!status)
        status = serve_grammars_create(&e->model.grammars, error);
    if (status) {
        marco_scheduler_close(e->model.scheduler);
        marco_engine_close(e->model.engine);
        e->model.scheduler = NULL;
        e->model.engine = NULL;
    }
    return status;
}

/* What others that are in memory leave of what all may take. */
static uint64_t left_over(const serve_models *models, const entry *e)
{
    uint64_t taken = 0;
    for (size_t i = 0; i < models->n; i++)
        taken += &models->entries[i] != e ? models->entries[i].promised : 0;
    return models->ram - taken;
}

/* Gives the model its share of `ram`, or all that others have left where that is not enough. An
 * engine counts what the process holds as gone: so what others were promised, and do not hold yet,
 * is kept from it. */
static marco_status open_once(serve_models *models, entry *e, marco_error *error)
{
    uint64_t ram = models->server->params.engine.ram, all = models->ram;
    if (ram == 0)
        return open_with(models, e, 0, error);
    uint64_t left = left_over(models, e), given = e->share < left ? e->share : left;
    marco_status status;
    for (;;) {
        uint64_t held = base_memory_resident();
        e->promised = given;
        status =
            open_with(models, e, given == all || held > ram - given ? ram : held + given, error);
        if ((status != MARCO_ERROR_ARGUMENT && status != MARCO_ERROR_MEMORY) || given == left)
            break;
        given = left;
    }
    if (status)
        e->promised = 0;
    if (status == MARCO_ERROR_ARGUMENT && left < all) /* too little, says the engine */
        status =
            base_fail(error, MARCO_ERROR_MEMORY,
                      "the model '%s' does not fit into what others leave of --ram", e->model.name);
    return status;
}

static marco_status load(serve_models *models, entry *e, marco_error *error)
{
    double begin = base_now();
    marco_status status = open_once(models, e, error);
    while (status == MARCO_ERROR_MEMORY && make_room(models))
        status = open_once(models, e, error);
    if (status == MARCO_ERROR_MEMORY && others_in_use(models))
        status = base_fail(error, MARCO_ERROR_BUSY,
                           "the model '%s' does not fit into the memory beside those in use; try "
                           "again later",
                           e->model.name);
    if (status) {
        serve_log_event(models->server, "not_loaded", e->model.name, -1,
                        error ? error->message : NULL);
        return status;
    }
    load_session(models, e);
    serve_log_event(models->server, "loaded", e->model.name, base_now() - begin, NULL);
    return MARCO_OK;
}

/* What clients hear of a model that does not load. A lack of memory passes; what else is wrong is
 * the operator's to know, files' names with it, and no fault of the request. */
static marco_status tell_clients(const entry *e, marco_status status, marco_error *error)
{
    if (status == MARCO_OK || status == MARCO_ERROR_MEMORY || status == MARCO_ERROR_BUSY ||
        status == MARCO_ERROR_CANCELLED)
        return status;
    return base_fail(error, MARCO_ERROR_IO,
                     "the model '%s' cannot be loaded; the server's log says why", e->model.name);
}

/* Those who wait for the model get it, or hear why not. The lock is the caller's; it is given away.
 */
static void serve_waiters(serve_models *models, entry *e, marco_status status,
                          const marco_error *error)
{
    waiter *list = e->waiters;
    e->waiters = NULL;
    e->n_waiters = 0;
    for (waiter *w = list; w && !status; w = w->next)
        e->holders++;
    pthread_mutex_unlock(&models->lock);
    while (list) {
        waiter *next = list->next;
        list->ready(list->user, status ? NULL : &e->model, status, error);
        base_free(list);
        list = next;
    }
    pthread_mutex_lock(&models->lock);
}

/* The model that somebody has waited for the longest. */
static entry *find_wanted(serve_models *models)
{
    entry *found = NULL;
    for (size_t i = 0; i < models->n; i++) {
        entry *e = &models->entries[i];
        if (e->waiters && (!found || e->waiters->number < found->waiters->number))
            found = e;
    }
    return found;
}

/* A model that has been idle for too long; *wait: seconds until there is one. */
static entry *find_idle(serve_models *models, double *wait)
{
    double limit = models->server->params.idle_unload_seconds, now = base_now();
    *wait = 3600;
    for (size_t i = 0; limit > 0 && i < models->n; i++) {
        entry *e = &models->entries[i];
        if (e->state != LOADED || e->holders > 0)
            continue;
        double left = e->used + limit - now;
        if (left <= 0)
            return e;
        *wait = left < *wait ? left : *wait;
    }
    return NULL;
}

static void wait_for(serve_models *models, double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    double nanoseconds = (double)until.tv_nsec + 1e9 * (seconds + 1e-3);
    until.tv_sec += (time_t)(nanoseconds / 1e9);
    until.tv_nsec = (long)(nanoseconds - 1e9 * (double)(time_t)(nanoseconds / 1e9));
    pthread_cond_timedwait(&models->changed, &models->lock, &until);
}

static void *run_loader(void *user)
{
    serve_models *models = user;
    pthread_mutex_lock(&models->lock);
    while (!atomic_load(&models->stop)) {
        double wait = 0;
        entry *e = find_wanted(models);
        if (e) {
            marco_error error = {0};
            e->state = LOADING;
            pthread_mutex_unlock(&models->lock);
            marco_status status = load(models, e, &error);
            status = tell_clients(e, status, &error);
            pthread_mutex_lock(&models->lock);
            e->state = status ? UNLOADED : LOADED;
            e->used = base_now();
            serve_waiters(models, e, status, &error);
        } else if ((e = find_idle(models, &wait)) != NULL) {
            retire(e);
            pthread_mutex_unlock(&models->lock);
            unload(models, e, NULL);
            pthread_mutex_lock(&models->lock);
        } else {
            wait_for(models, wait);
        }
    }
    marco_error error = {0};
    base_fail(&error, MARCO_ERROR_CANCELLED, "the server is shutting down");
    for (entry *e; (e = find_wanted(models)) != NULL;)
        serve_waiters(models, e, MARCO_ERROR_CANCELLED, &error);
    pthread_mutex_unlock(&models->lock);
    return NULL;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Divides `ram` among the models: equally, but to a small one no more than it can use while a
 * larger one lacks it. What all have enough of is divided equally again. */
static void share_ram(serve_models *models)
{
    enum { CONTEXTS = 256 << 20 }; /* beside its weights, and as much again for what they compute */
    uint64_t ram = models->server->params.engine.ram, held = base_memory_resident();
    models->ram = ram > held ? ram - held : 0;
    uint64_t left = models->ram;
    for (size_t rest = models->n; rest > 0; rest--) {
        entry *least = NULL;
        for (size_t i = 0; i < models->n; i++) {
            entry *e = &models->entries[i];
            if (e->share == 0 && (!least || e->size < least->size))
                least = e;
        }
        uint64_t equal = left / rest, wanted = 2 * least->size + CONTEXTS;
        least->share = equal < wanted ? equal : wanted;
        left -= least->share;
    }
    for (size_t i = 0; i < models->n; i++)
        models->entries[i].share += left / models->n;
}

/* ---- the table ------------------------------------------------------------------------------- */

static marco_status fill(serve_models *models, marco_error *error)
{
    const marco_serve_params *params = &models->server->params;
    marco_status status = serve_names(params, &models->names, error);
    if (status)
        return status;
    models->entries = base_calloc(params->n_models, sizeof *models->entries);
    if (!models->entries)
        return base_fail_memory(error, params->n_models * sizeof *models->entries, "the models");
    models->n = params->n_models;
    for (size_t i = 0; i < models->n; i++) {
        entry *e = &models->entries[i];
        struct stat info;
        model_source *source = NULL;
        if (stat(params->models[i].path, &info))
            return base_fail_errno(error, errno, "opening", params->models[i].path);
        e->model.name = models->names[i];
        e->model.created = info.st_mtime;
        e->path = base_strdup(params->models[i].path);
        if (!e->path)
            return base_fail_memory(error, 64, "a model's path");
        /* What cannot be loaded later is better known now. */
        status = model_source_open(e->path, &source, error);
        if (status)
            return status;
        int32_t n_ctx = params->scheduler.n_ctx;
        e->context = n_ctx ? n_ctx : source->config.n_ctx_train;
        for (size_t t = 0; t < source->n_tensors; t++)
            e->size += model_tensor_bytes(&source->tensors[t]);
        model_source_close(source);
    }
    share_ram(models);
    return MARCO_OK;
}

marco_status serve_models_create(marco_server *server, serve_models **out, marco_error *error)
{
    *out = NULL;
    serve_models *models = base_calloc(1, sizeof *models);
    if (!models)
        return base_fail_memory(error, sizeof *models, "the models");
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&models->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&models->lock, NULL);
    models->server = server;
    models->progress = server->params.engine.progress;
    marco_status status = fill(models, error);
    if (!status) {
        marco_error local = {0};
        status = load(models, &models->entries[0], &local);
        if (status && error)
            *error = local;
    }
    models->progress = (marco_progress){0};
    if (!status) {
        models->entries[0].state = LOADED;
        models->entries[0].used = base_now();
        int code = pthread_create(&models->loader, NULL, run_loader, models);
        if (code)
            status = base_fail_errno(error, code, "starting", "the thread that loads models");
        models->started = code == 0;
    }
    if (status) {
        serve_models_close(models, NULL);
        return status;
    }
    *out = models;
    return MARCO_OK;
}

void serve_models_stop(serve_models *models)
{
    pthread_mutex_lock(&models->lock);
    atomic_store(&models->stop, true);
    pthread_cond_broadcast(&models->changed);
    pthread_mutex_unlock(&models->lock);
}

marco_status serve_models_close(serve_models *models, marco_error *error)
{
    marco_status status = MARCO_OK;
    if (!models)
        return MARCO_OK;
    serve_models_stop(models);
    if (models->started)
        pthread_join(models->loader, NULL);
    for (size_t i = 0; i < models->n; i++) {
        entry *e = &models->entries[i];
        pthread_mutex_lock(&models->lock);
        while (e->holders > 0)
            pthread_cond_wait(&models->changed, &models->lock);
        pthread_mutex_unlock(&models->lock);
        if (e->model.engine) {
            marco_status saved = unload(models, e, status ? NULL : error);
            status = status ? status : saved;
        }
        base_free(e->path);
    }
    base_free(models->entries);
    serve_names_free(models->names, models->server->params.n_models);
    pthread_cond_destroy(&models->changed);
    pthread_mutex_destroy(&models->lock);
    base_free(models);
    return status;
}

/* At the end of those who wait for the model, who are no more than those who could wait for it if
 * it were there. The lock is the caller's. */
static marco_status add_waiter(serve_models *models, entry *e, serve_ready_fn ready, void *user,
                               marco_error *error)
{
    int32_t queue = models->server->params.scheduler.queue;
    if (e->n_waiters >= (size_t)(queue > 0 ? queue : DEFAULT_QUEUE))
        return base_fail(error, MARCO_ERROR_BUSY,
                         "%zu requests wait already for the model '%s' to be loaded; try again "
                         "later",
                         e->n_waiters, e->model.name);
    waiter *w = base_alloc(sizeof *w), **end = &e->waiters;
    if (!w)
        return base_fail_memory(error, sizeof *w, "a request");
    *w = (waiter){.number = ++models->last_waiter, .ready = ready, .user = user};
    while (*end)
        end = &(*end)->next;
    *end = w;
    e->n_waiters++;
    pthread_cond_broadcast(&models->changed);
    return MARCO_OK;
}

void serve_models_acquire(serve_models *models, const char *name, serve_ready_fn ready, void *user)
{
    marco_error error = {0};
    marco_status status = MARCO_OK;
    entry *found = NULL;
    for (size_t i = 0; !found && i < models->n; i++) {
        if (!name || strcmp(models->entries[i].model.name, name) == 0)
            found = &models->entries[i];
    }
    if (!found) {
        status = base_fail(&error, MARCO_ERROR_NOT_FOUND, "there is no model '%.200s' here", name);
        ready(user, NULL, status, &error);
        return;
    }
    pthread_mutex_lock(&models->lock);
    bool at_once = found->state == LOADED;
    if (atomic_load(&models->stop)) {
        at_once = false;
        status = base_fail(&error, MARCO_ERROR_CANCELLED, "the server is shutting down");
    } else if (at_once) {
        found->holders++;
    } else {
        status = add_waiter(models, found, ready, user, &error);
    }
    pthread_mutex_unlock(&models->lock);
    if (at_once || status)
        ready(user, status ? NULL : &found->model, status, &error);
}

void serve_model_release(serve_models *models, serve_model *model)
{
    entry *e = (entry *)model;
    pthread_mutex_lock(&models->lock);
    e->holders--;
    e->used = base_now();
    pthread_cond_broadcast(&models->changed);
    pthread_mutex_unlock(&models->lock);
}

const char *serve_models_name(const serve_models *models, size_t i, int64_t *created,
                              int32_t *context)
{
    if (i >= models->n)
        return NULL;
    *created = models->entries[i].model.created;
    *context = models->entries[i].context;
    return models->entries[i].model.name;
}

bool serve_models_stats(serve_models *models, size_t i, serve_model_stats *out)
{
    if (i >= models->n)
        return false;
    entry *e = &models->entries[i];
    pthread_mutex_lock(&models->lock);
    *out = e->totals;
    out->name = e->model.name;
    out->loaded = e->state == LOADED;
    if (out->loaded) {
        marco_scheduler_stats_get(e->model.scheduler, &out->scheduler);
        out->requests += out->scheduler.requests;
        out->prompt_tokens += out->scheduler.prompt_tokens;
        out->cached_tokens += out->scheduler.cached_tokens;
        out->reply_tokens += out->scheduler.reply_tokens;
        out->busy_seconds += out->scheduler.busy_seconds;
    }
    pthread_mutex_unlock(&models->lock);
    return true;
}
