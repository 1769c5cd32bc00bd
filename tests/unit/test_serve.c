/* The server around its endpoints: models that come and go, the end, and memory that runs out. The
 * scheduler and the API are stand-ins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/available.h"
#include "base/error.h"
#include "base/memory.h"
#include "infer/internal.h"
#include "sanitized.h"
#include "serve/server_internal.h"

enum { PATIENCE = 20 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- a scheduler that does nothing, of which there may be few -------------------------------- */

struct marco_scheduler {
    marco_engine *engine;
    marco_scheduler_params params;
};

static atomic_int live, room = 100, loads;
static atomic_bool held_up; /* none is made */
static pthread_mutex_t noted = PTHREAD_MUTEX_INITIALIZER;
static char saved[512];

marco_scheduler_params marco_scheduler_params_default(void)
{
    return (marco_scheduler_params){.cache_bytes = 1000};
}

marco_status marco_scheduler_create(marco_engine *engine, const marco_scheduler_params *params,
                                    marco_scheduler **out, marco_error *error)
{
    *out = NULL;
    while (atomic_load(&held_up))
        poll(NULL, 0, 2);
    if (atomic_load(&live) >= atomic_load(&room))
        return base_fail(error, MARCO_ERROR_MEMORY, "no room for another scheduler");
    *out = base_calloc(1, sizeof **out);
    if (!*out)
        return base_fail_memory(error, sizeof **out, "a scheduler");
    (*out)->engine = engine;
    (*out)->params = *params;
    atomic_fetch_add(&live, 1);
    return MARCO_OK;
}

void marco_scheduler_close(marco_scheduler *scheduler)
{
    if (scheduler)
        atomic_fetch_sub(&live, 1);
    base_free(scheduler);
}

void marco_scheduler_stats_get(marco_scheduler *scheduler, marco_scheduler_stats *out)
{
    (void)scheduler;
    *out = (marco_scheduler_stats){.parallel = 8, .requests = 5, .reply_tokens = 50};
}

marco_status marco_scheduler_save(marco_scheduler *scheduler, const char *path, uint64_t limit,
                                  marco_error *error)
{
    (void)scheduler;
    assert_int_equal(limit, 1000 / 3);
    pthread_mutex_lock(&noted);
    snprintf(saved, sizeof saved, "%s", path);
    pthread_mutex_unlock(&noted);
    FILE *file = fopen(path, "wb");
    if (!file)
        return base_fail(error, MARCO_ERROR_IO, "%s: cannot be written", path);
    fclose(file);
    return MARCO_OK;
}

marco_status marco_scheduler_load(marco_scheduler *scheduler, const char *path, marco_error *error)
{
    (void)scheduler, (void)path, (void)error;
    atomic_fetch_add(&loads, 1);
    return MARCO_OK;
}

/* ---- an endpoint: /work takes until it is told to end ---------------------------------------- */

static atomic_int working, gone;
static sem_t finish;

typedef struct work {
    http_request *request;
    pthread_t thread;
} work;

static void *labour(void *user)
{
    http_request *request = user;
    sem_wait(&finish);
    http_respond(request, 200, "text/plain", "done", 4);
    return NULL;
}

static void on_gone(void *user)
{
    (void)user;
    atomic_fetch_add(&gone, 1);
    sem_post(&finish);
}

static void handle_work(marco_server *server, http_request *request)
{
    (void)server;
    pthread_t thread;
    serve_note(request, "some \"model\"", 1, 2, 3, "stop");
    http_on_gone(request, on_gone, NULL);
    atomic_fetch_add(&working, 1);
    if (pthread_create(&thread, NULL, labour, request) == 0)
        pthread_detach(thread);
}

const serve_route serve_api_routes[] = {{"GET", "/work", false, handle_work},
                                        {NULL, NULL, false, NULL}};

const serve_file *serve_page_file(const char *path)
{
    static const serve_file page = {"/", "text/html", (const unsigned char *)"page", 4};
    return strcmp(path, "/") == 0 ? &page : NULL;
}

/* ---- a server -------------------------------------------------------------------------------- */

static char folder[] = "/tmp/marco-serve.XXXXXX", model[64];
static marco_serve_model three[] = {{"a", model}, {"b/../c \xC3\xA9", model}, {"c", model}};

static void keep_line(void *user, const char *line)
{
    char *lines = user;
    size_t size = strlen(lines);
    snprintf(lines + size, 65536 - size, "%s\n", line);
}

static marco_serve_params defaults(void)
{
    marco_serve_params params = marco_serve_params_default();
    params.models = three;
    params.n_models = 3;
    params.port = 0;
    params.engine.threads = 1;
    return params;
}

static marco_server *start(const marco_serve_params *params)
{
    marco_server *server = NULL;
    marco_error error = {0};
    if (marco_server_create(params, &server, &error) != MARCO_OK)
        fail_msg("%s", error.message);
    return server;
}

/* The whole answer to a GET on a connection of its own, to be freed. */
static int dial(const marco_server *server, const char *path)
{
    const char *url = marco_server_url(server);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char request[256];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    assert_int_equal(send(fd, request, (size_t)n, MSG_NOSIGNAL), n);
    return fd;
}

static char *hear(int fd)
{
    char *text = calloc(1, 65536);
    for (size_t size = 0; size < 65535;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&wait, 1, 1000 * PATIENCE), 1);
        ssize_t n = recv(fd, text + size, 65535 - size, 0);
        if (n <= 0)
            break;
        size += (size_t)n;
    }
    close(fd);
    return text;
}

static void expect(const marco_server *server, const char *path, const char *wanted)
{
    char *text = hear(dial(server, path));
    if (!strstr(text, wanted))
        fail_msg("%s: no '%s' in: %s", path, wanted, text);
    free(text);
}

static void wait_working(int n)
{
    double until = now() + PATIENCE;
    while (atomic_load(&working) < n && now() < until)
        poll(NULL, 0, 2);
    assert_int_equal(atomic_load(&working), n);
}

/* ---- models ---------------------------------------------------------------------------------- */

typedef struct answer {
    sem_t come;
    serve_model *model;
    marco_status status;
    marco_error error;
} answer;

static void on_ready(void *user, serve_model *model_, marco_status status, const marco_error *error)
{
    answer *a = user;
    a->model = model_;
    a->status = status;
    if (status)
        a->error = *error;
    sem_post(&a->come);
}

static marco_status acquire(marco_server *server, const char *name, serve_model **out,
                            marco_error *error)
{
    answer a = {0};
    struct timespec until;
    sem_init(&a.come, 0, 0);
    serve_models_acquire(serve_server_models(server), name, on_ready, &a);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    assert_int_equal(sem_timedwait(&a.come, &until), 0);
    sem_destroy(&a.come);
    *out = a.model;
    *error = a.error;
    assert_true((a.status == MARCO_OK) == (a.model != NULL));
    return a.status;
}

static bool is_loaded(marco_server *server, size_t i)
{
    serve_model_stats stats;
    assert_true(serve_models_stats(serve_server_models(server), i, &stats));
    return stats.loaded;
}

static void models_come_and_go(void **state)
{
    (void)state;
    marco_serve_params params = defaults();
    params.session_dir = folder;
    params.idle_unload_seconds = 1;
    atomic_store(&room, 2);
    atomic_store(&loads, 0);
    marco_server *server = start(&params);
    serve_models *models = serve_server_models(server);
    serve_model *a = NULL, *b = NULL, *c = NULL;
    marco_error error;
    int64_t created = 0;
    int32_t context = 0;
    assert_string_equal(serve_models_name(models, 2, &created, &context), "c");
    assert_true(created > 1600000000);
    assert_true(context > 0);
    assert_null(serve_models_name(models, 3, &created, &context));

    /* The default is there; others come when they are asked for. */
    assert_true(is_loaded(server, 0) && !is_loaded(server, 1));
    assert_int_equal(acquire(server, NULL, &a, &error), MARCO_OK);
    assert_string_equal(a->name, "a");
    assert_int_equal(acquire(server, "b/../c \xC3\xA9", &b, &error), MARCO_OK);
    assert_true(is_loaded(server, 1) && b->engine && b->scheduler && b->engine != a->engine);
    static const char *const none[] = {"", "../a", "a/", "A", "c/../a", "d", model};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_int_equal(acquire(server, none[i], &c, &error), MARCO_ERROR_NOT_FOUND);

    /* No room beside those in use; where one is idle it makes room. */
    assert_int_equal(acquire(server, "c", &c, &error), MARCO_ERROR_BUSY);
    assert_non_null(strstr(error.message, "'c'"));
    serve_model_release(models, b);
    assert_int_equal(acquire(server, "c", &c, &error), MARCO_OK);
    assert_true(is_loaded(server, 0) && !is_loaded(server, 1) && is_loaded(server, 2));
    pthread_mutex_lock(&noted);
    assert_non_null(strstr(saved, "/b%2F..%2Fc%20%C3%A9.session"));
    pthread_mutex_unlock(&noted);

    /* Idle ones leave; those in use stay. */
    serve_model_release(models, c);
    double until = now() + PATIENCE;
    while (is_loaded(server, 2) && now() < until)
        poll(NULL, 0, 10);
    assert_true(!is_loaded(server, 2) && is_loaded(server, 0));
    serve_model_stats stats;
    assert_true(serve_models_stats(models, 2, &stats));
    assert_int_equal(stats.reply_tokens, 50); /* what it did is not forgotten */
    serve_model_release(models, a);
    assert_int_equal(atomic_load(&loads), 0);
    assert_int_equal(acquire(server, "c", &c, &error), MARCO_OK);
    assert_int_equal(atomic_load(&loads), 1); /* what was saved is read */
    serve_model_release(models, c);
    expect(server, "/metrics", "marco_reply_tokens_total{model=\"c\"} 100\n");
    assert_int_equal(marco_server_shutdown(server, NULL, &error), MARCO_OK);
    marco_server_close(server);
    assert_int_equal(atomic_load(&live), 0);
    atomic_store(&room, 100);
}

static void *asker(void *user)
{
    marco_server *server = user;
    for (int i = 0; i < 20; i++) {
        serve_model *held = NULL;
        marco_error error;
        if (acquire(server, three[i % 3].name, &held, &error) == MARCO_OK)
            serve_model_release(serve_server_models(server), held);
        else
            assert_int_equal(error.status, MARCO_ERROR_BUSY);
    }
    return NULL;
}

/* Many ask for more models than there is room for. */
static void models_crowded(void **state)
{
    (void)state;
    marco_serve_params params = defaults();
    atomic_store(&room, 1);
    marco_server *server = start(&params);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, asker, server);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    marco_server_close(server);
    assert_int_equal(atomic_load(&live), 0);
    atomic_store(&room, 100);
}

/* ---- memory of all ------------------------------------------------------------------------- */

/* What an engine may come to hold. */
static uint64_t most_of(const serve_model *m)
{
    const model_plan *plan = &m->engine->plan;
    assert_true(plan->room < UINT64_MAX);
    return plan->pinned_bytes + plan->room;
}

/* Together they keep to it, and each has something to work with. */
static void models_share_memory(void **state)
{
    (void)state;
    marco_serve_params params = defaults();
    const uint64_t ram = base_memory_resident() + ((uint64_t)300 << 20);
    params.engine.ram = ram;
    params.scheduler.kv_bytes = 3001;
    params.scheduler.cache_bytes = 1000;
    marco_server *server = start(&params);
    serve_models *models = serve_server_models(server);
    serve_model *held[3];
    marco_error error;
    uint64_t all = 0;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(acquire(server, three[i].name, &held[i], &error), MARCO_OK);
        assert_true(most_of(held[i]) > (uint64_t)50 << 20);
        assert_int_equal(held[i]->scheduler->params.kv_bytes, 1001);
        assert_int_equal(held[i]->scheduler->params.cache_bytes, 333);
        all += most_of(held[i]);
    }
    assert_true(all <= (uint64_t)300 << 20);
    for (size_t i = 0; i < 3; i++)
        serve_model_release(models, held[i]);
    marco_server_close(server);

    /* One of them alone may have all. */
    params.n_models = 1;
    server = start(&params);
    assert_int_equal(acquire(server, "a", &held[0], &error), MARCO_OK);
    assert_true(most_of(held[0]) > (uint64_t)250 << 20);
    assert_int_equal(held[0]->scheduler->params.cache_bytes, 1000);
    serve_model_release(serve_server_models(server), held[0]);
    marco_server_close(server);
}

/* A share is too little: the model gets what others leave, which must be idle for that. */
static void models_take_turns(void **state)
{
    (void)state;
    marco_serve_params params = defaults();
    marco_server *server = NULL;
    marco_error error = {0};
    serve_model *a = NULL, *b = NULL;
    if (SANITIZED) {
        print_message("skipped under the address sanitizer: what it keeps of a model that was "
                      "unloaded upsets the budget\n");
        skip();
    }
    /* The smallest that works for one, found by trying. */
    for (uint64_t extra = 1; !server; extra += extra / 4 + 1) {
        params.engine.ram = base_memory_resident() + (extra << 20);
        assert_true(extra < 1000);
        if (marco_server_create(&params, &server, &error))
            assert_int_equal(error.status, MARCO_ERROR_ARGUMENT);
    }
    assert_int_equal(acquire(server, "a", &a, &error), MARCO_OK);
    assert_int_equal(acquire(server, "c", &b, &error), MARCO_ERROR_BUSY);
    assert_non_null(strstr(error.message, "'c' does not fit"));
    serve_model_release(serve_server_models(server), a);
    assert_int_equal(acquire(server, "c", &b, &error), MARCO_OK);
    assert_false(is_loaded(server, 0));
    serve_model_release(serve_server_models(server), b);
    marco_server_close(server);
}

/* ---- those who wait -------------------------------------------------------------------------- */

enum { WAITERS = 5 };

typedef struct turn {
    marco_server *server;
    int number;
} turn;

static sem_t turns_over;
static int turns[WAITERS]; /* in their order: of the loader's thread, until turns_over */
static size_t n_turns;

static void on_turn(void *user, serve_model *model_, marco_status status, const marco_error *error)
{
    const turn *t = user;
    (void)error;
    assert_int_equal(status, MARCO_OK);
    turns[n_turns++] = t->number;
    serve_model_release(serve_server_models(t->server), model_);
    sem_post(&turns_over);
}

/* Who has waited longest for a model to be loaded gets it first; as many wait as may wait for one
 * that is loaded. */
static void waiters_are_queued(void **state)
{
    (void)state;
    marco_serve_params params = defaults();
    params.scheduler.queue = WAITERS;
    marco_server *server = start(&params);
    serve_models *models = serve_server_models(server);
    turn all[WAITERS];
    marco_error error;
    serve_model *none = NULL;
    n_turns = 0;
    sem_init(&turns_over, 0, 0);
    atomic_store(&held_up, true);
    for (int i = 0; i < WAITERS; i++) {
        all[i] = (turn){server, i};
        serve_models_acquire(models, "c", on_turn, &all[i]);
    }
    assert_int_equal(acquire(server, "c", &none, &error), MARCO_ERROR_BUSY);
    assert_non_null(strstr(error.message, "5 requests wait"));
    atomic_store(&held_up, false);
    for (int i = 0; i < WAITERS; i++)
        sem_wait(&turns_over);
    for (int i = 0; i < WAITERS; i++)
        assert_int_equal(turns[i], i);
    sem_destroy(&turns_over);
    marco_server_close(server);
}

/* ---- the end --------------------------------------------------------------------------------- */

typedef struct ending {
    marco_server *server;
    size_t cancelled;
} ending;

static void *end(void *user)
{
    ending *e = user;
    marco_server_shutdown(e->server, &e->cancelled, NULL);
    return NULL;
}

static void end_with_work(int32_t grace, bool finished)
{
    static char lines[65536];
    marco_serve_params params = defaults();
    params.grace_seconds = grace;
    params.log = keep_line;
    params.log_user = lines;
    lines[0] = '\0';
    atomic_store(&gone, 0);
    atomic_store(&working, 0);
    ending e = {.server = start(&params)};
    int fd = dial(e.server, "/work");
    wait_working(1);
    expect(e.server, "/health", "200 OK");
    while (http_server_open_requests(e.server->http) > 1) /* its answer has just been sent */
        poll(NULL, 0, 2);
    pthread_t thread;
    pthread_create(&thread, NULL, end, &e);
    if (finished) {
        while (!atomic_load(&e.server->stopping))
            poll(NULL, 0, 2);
        expect(e.server, "/health", "503");
        expect(e.server, "/work", "shutting down");
        sem_post(&finish);
    }
    pthread_join(thread, NULL);
    char *text = hear(fd);
    assert_non_null(strstr(text, "done")); /* what it still says is heard, cancelled or not */
    free(text);
    assert_int_equal(e.cancelled, !finished);
    assert_int_equal(atomic_load(&gone), !finished);
    marco_server_close(e.server);
    assert_non_null(strstr(lines, "\"path\":\"/work\",\"status\":200"));
    assert_non_null(strstr(lines, "\"model\":\"some \\\"model\\\"\",\"prompt_tokens\":1,"
                                  "\"cached_tokens\":2,\"reply_tokens\":3,\"finish\":\"stop\"}"));
    assert_non_null(strstr(lines, "\"event\":\"unloaded\",\"model\":\"a\""));
}

static void work_is_finished(void **state)
{
    (void)state;
    end_with_work(PATIENCE, true);
}

static void work_is_cancelled(void **state)
{
    (void)state;
    end_with_work(0, false);
}

/* What cannot be saved at the end is told. */
static void saving_may_fail(void **state)
{
    (void)state;
    char path[600];
    marco_serve_params params = defaults();
    params.session_dir = folder;
    params.n_models = 1;
    params.scheduler.cache_bytes = 333;
    snprintf(path, sizeof path, "%s/a.session", folder);
    remove(path);
    marco_server *server = start(&params);
    assert_int_equal(mkdir(path, 0700), 0); /* in the file's place */
    marco_error error = {0};
    assert_int_equal(marco_server_shutdown(server, NULL, &error), MARCO_ERROR_IO);
    assert_non_null(strstr(error.message, "a.session"));
    marco_server_close(server);
    assert_int_equal(rmdir(path), 0);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void memory_at_the_start(void **state)
{
    (void)state;
    marco_serve_params params = defaults();
    marco_server *server = NULL;
    char *report = NULL;
    int failed = 0;
    for (uint64_t n = 1; !server; n += 1 + n / 16) {
        marco_error error = {0};
        base_alloc_fail_at(n);
        marco_status status = marco_server_create(&params, &server, &error);
        base_alloc_fail_at(0);
        assert_true((status == MARCO_OK) == (server != NULL));
        if (status) {
            assert_true(error.message[0] != '\0');
            failed++;
        }
    }
    assert_true(failed > 20);
    marco_server_close(server);
    for (uint64_t n = 1; !report; n += 1 + n / 16) {
        marco_error error = {0};
        base_alloc_fail_at(n);
        marco_status status = marco_serve_check(&params, &report, &error);
        base_alloc_fail_at(0);
        assert_true((status == MARCO_OK) == (report != NULL));
    }
    marco_free(report);
    assert_int_equal(atomic_load(&live), 0);
}

/* Requests are then refused, or their connections closed, and the next ones fare better. */
static void memory_at_work(void **state)
{
    (void)state;
    static const char *const paths[] = {"/health", "/metrics", "/", "/nowhere", "/version"};
    marco_serve_params params = defaults();
    static char lines[65536];
    lines[0] = '\0';
    params.log = keep_line;
    params.log_user = lines;
    marco_server *server = start(&params);
    for (uint64_t n = 1; n < 40; n++) {
        base_alloc_fail_at(n);
        char *text = hear(dial(server, paths[n % 5]));
        base_alloc_fail_at(0);
        assert_true(text[0] == '\0' || strncmp(text, "HTTP/1.1 ", 9) == 0);
        free(text);
        if (n % 10 == 0)
            expect(server, "/health", "200 OK");
    }
    marco_server_close(server);
}

static void parameters_are_checked(void **state)
{
    (void)state;
    marco_server *server = NULL;
    marco_error error = {0};
    marco_serve_params params = defaults();
    params.n_models = 0;
    assert_int_equal(marco_server_create(&params, &server, &error), MARCO_ERROR_ARGUMENT);
    params = defaults();
    params.host = "0.0.0.0";
    assert_int_equal(marco_server_create(&params, &server, &error), MARCO_ERROR_DENIED);
    params = defaults();
    params.tls_cert = model;
    assert_int_equal(marco_server_create(&params, &server, &error), MARCO_ERROR_ARGUMENT);
    params = defaults();
    params.cors = "https://example.org/path";
    assert_int_equal(marco_server_create(&params, &server, &error), MARCO_ERROR_ARGUMENT);
    params = defaults();
    params.grace_seconds = -1;
    assert_int_equal(marco_server_create(&params, &server, &error), MARCO_ERROR_ARGUMENT);
    params = defaults();
    marco_serve_model twice[] = {{NULL, model}, {NULL, model}};
    params.models = twice;
    params.n_models = 2;
    assert_int_equal(marco_server_create(&params, &server, &error), MARCO_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "NAME=MODEL"));
    assert_null(server);
}

static int set_up(void **state)
{
    (void)state;
    marco_error error = {0};
    marco_synth_params params = marco_synth_params_default();
    sem_init(&finish, 0, 0);
    if (!mkdtemp(folder))
        return -1;
    snprintf(model, sizeof model, "%s/model.gguf", folder);
    return marco_synth("tiny-qwen3moe", model, &params, &error) == MARCO_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir)) != NULL;) {
        char path[512];
        snprintf(path, sizeof path, "%s/%.255s", folder, e->d_name);
        remove(path);
    }
    if (dir)
        closedir(dir);
    sem_destroy(&finish);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_come_and_go),     cmocka_unit_test(models_crowded),
        cmocka_unit_test(work_is_finished),       cmocka_unit_test(work_is_cancelled),
        cmocka_unit_test(memory_at_the_start),    cmocka_unit_test(memory_at_work),
        cmocka_unit_test(parameters_are_checked), cmocka_unit_test(models_share_memory),
        cmocka_unit_test(models_take_turns),      cmocka_unit_test(waiters_are_queued),
        cmocka_unit_test(saving_may_fail),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
