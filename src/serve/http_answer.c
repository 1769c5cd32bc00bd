#include <string.h>
#include <strings.h>

#include "base/memory.h"
#include "serve/http_internal.h"

enum { BLOCK = 16 << 10 }; /* of a stream, sent at once */

/* ---- headers --------------------------------------------------------------------------------- */

bool http_pair_add(http_pair **list, const char *name, const char *value)
{
    size_t name_size = strlen(name) + 1, value_size = strlen(value) + 1;
    http_pair *pair = base_alloc(sizeof *pair + name_size + value_size);
    if (!pair)
        return false;
    char *text = (char *)(pair + 1);
    memcpy(text, name, name_size);
    memcpy(text + name_size, value, value_size);
    *pair = (http_pair){.next = NULL, .name = text, .value = text + name_size};
    while (*list) /* in the order they came */
        list = &(*list)->next;
    *list = pair;
    return true;
}

void http_pairs_free(http_pair *list)
{
    while (list) {
        http_pair *next = list->next;
        base_free(list);
        list = next;
    }
}

/* ---- what was asked -------------------------------------------------------------------------- */

const char *http_method(const http_request *request)
{
    return request->method;
}

const char *http_path(const http_request *request)
{
    return request->path;
}

const char *http_header(const http_request *request, const char *name)
{
    for (const http_pair *pair = request->headers; pair; pair = pair->next) {
        if (strcasecmp(pair->name, name) == 0)
            return pair->value;
    }
    return NULL;
}

const char *http_body(const http_request *request, size_t *size)
{
    *size = request->body_size;
    return request->body ? request->body : "";
}

void http_drop_body(http_request *request)
{
    atomic_fetch_sub(&request->server->bodies, request->body_capacity);
    base_free(request->body);
    request->body = NULL;
    request->body_size = request->body_capacity = 0;
}

const char *http_peer(const http_request *request)
{
    return request->peer;
}

uint64_t http_id(const http_request *request)
{
    return request->id;
}

double http_age(const http_request *request)
{
    return base_now() - request->began;
}

int http_status(const http_request *request)
{
    return atomic_load(&request->status);
}

uint64_t http_bytes_sent(const http_request *request)
{
    return atomic_load(&request->sent);
}

void http_set_user(http_request *request, void *user)
{
    request->user = user;
}

void *http_user(const http_request *request)
{
    return request->user;
}

/* ---- answering ------------------------------------------------------------------------------- */

void http_resume(http_request *request)
{
    if (!request->suspended)
        return;
    request->suspended = false;
    MHD_resume_connection(request->connection);
}

void http_add_header(http_request *request, const char *name, const char *value)
{
    if (!http_pair_add(&request->answer_headers, name, value))
        request->broken = true;
}

void http_on_gone(http_request *request, void (*gone)(void *user), void *user)
{
    http_server *server = request->server;
    pthread_mutex_lock(&server->lock);
    request->gone = gone;
    request->gone_user = user;
    bool left = request->left;
    pthread_mutex_unlock(&server->lock);
    if (left)
        http_watch_wake(server);
}

/* From here on the client's going is nobody's business. */
static void end(http_request *request)
{
    pthread_mutex_lock(&request->gone_lock);
    request->ended = true;
    pthread_mutex_unlock(&request->gone_lock);
}

/* Gives libmicrohttpd the answer: takes it, NULL meaning that there is no memory for one. */
static void set_answer(http_request *request, int status, const char *type,
                       struct MHD_Response *response)
{
    bool fine = response && !request->broken;
    if (fine && type)
        fine = MHD_add_response_header(response, "Content-Type", type) == MHD_YES;
    for (const http_pair *pair = request->answer_headers; fine && pair; pair = pair->next)
        fine = MHD_add_response_header(response, pair->name, pair->value) == MHD_YES;
    if (fine && atomic_load(&request->server->quiesced))
        MHD_add_response_header(response, "Connection", "close");
    if (!fine && response) {
        MHD_destroy_response(response);
        response = NULL;
    }
    pthread_mutex_lock(&request->lock);
    atomic_store(&request->status, fine ? status : 500);
    request->response = response; /* without one the connection is closed */
    http_resume(request);
    pthread_mutex_unlock(&request->lock);
}

static void respond(http_request *request, int status, const char *type, const void *body,
                    size_t size, enum MHD_ResponseMemoryMode mode)
{
    end(request);
    if (strcmp(request->method, "HEAD") != 0)
        atomic_store(&request->sent, size);
    set_answer(request, status, type, MHD_create_response_from_buffer(size, (void *)body, mode));
    http_release(request);
}

void http_respond(http_request *request, int status, const char *type, const void *body,
                  size_t size)
{
    respond(request, status, type, size ? body : "", size, MHD_RESPMEM_MUST_COPY);
}

void http_respond_static(http_request *request, int status, const char *type, const void *body,
                         size_t size)
{
    respond(request, status, type, body, size, MHD_RESPMEM_PERSISTENT);
}

/* libmicrohttpd asks for more of a stream: what there is, the end, or a rest until there is some.
 */
static ssize_t pull(void *user, uint64_t position, char *buffer, size_t max)
{
    (void)position;
    http_request *request = user;
    ssize_t n = 0;
    pthread_mutex_lock(&request->lock);
    size_t left = request->out_size - request->out_at;
    if (left > 0) {
        size_t now = left < max ? left : max;
        memcpy(buffer, request->out + request->out_at, now);
        request->out_at += now;
        if (request->out_at == request->out_size)
            request->out_at = request->out_size = 0;
        atomic_fetch_add(&request->sent, now);
        n = (ssize_t)now;
    } else if (request->broken || (atomic_load(&request->server->cut) && !request->out_whole)) {
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (request->out_whole) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        request->suspended = true;
        MHD_suspend_connection(request->connection);
    }
    pthread_mutex_unlock(&request->lock);
    return n;
}

void http_stream_begin(http_request *request, int status, const char *type)
{
    set_answer(request, status, type,
               MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, pull, request, NULL));
}

/* Room for `size` more bytes at the end of `out`: those sent make room first. */
static bool make_room(http_request *request, size_t size)
{
    if (request->out_at > 0 && request->out_size + size > request->out_capacity) {
        memmove(request->out, request->out + request->out_at, request->out_size - request->out_at);
        request->out_size -= request->out_at;
        request->out_at = 0;
    }
    void *out = request->out;
    if (size > SIZE_MAX - request->out_size ||
        !base_grow(&out, &request->out_capacity, request->out_size + size, 1))
        return false;
    request->out = out;
    return true;
}

bool http_stream_write(http_request *request, const void *data, size_t size)
{
    pthread_mutex_lock(&request->lock);
    bool fine = request->connection && request->response && !request->broken;
    if (fine && !make_room(request, size)) {
        request->broken = true;
        fine = false;
    }
    if (fine && size) {
        memcpy(request->out + request->out_size, data, size);
        request->out_size += size;
    }
    if (size)
        http_resume(request);
    pthread_mutex_unlock(&request->lock);
    return fine;
}

void http_stream_end(http_request *request)
{
    end(request);
    pthread_mutex_lock(&request->lock);
    request->out_whole = true;
    http_resume(request);
    pthread_mutex_unlock(&request->lock);
    http_release(request);
}
