#include "serve/heavy.h"

#include <pthread.h>

#include "base/error.h"
#include "base/memory.h"

typedef struct work {
    serve_heavy_fn fn;
    void *user;
} work;

struct serve_heavy {
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stopped;
    work *ring; /* [size] */
    size_t size, first, n;
};

static void *run(void *user)
{
    serve_heavy *h = user;
    pthread_mutex_lock(&h->lock);
    for (;;) {
        while (h->n == 0 && !h->stopped)
            pthread_cond_wait(&h->changed, &h->lock);
        if (h->n == 0)
            break;
        work next = h->ring[h->first];
        h->first = (h->first + 1) % h->size;
        h->n--;
        bool stopped = h->stopped;
        pthread_mutex_unlock(&h->lock);
        next.fn(next.user, stopped);
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

marco_status serve_heavy_create(size_t queue, serve_heavy **out, marco_error *error)
{
    serve_heavy *h = base_calloc(1, sizeof *h);
    *out = NULL;
    if (!h)
        return base_fail_memory(error, sizeof *h, "the server");
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->changed, NULL);
    h->size = queue;
    h->ring = base_alloc_array(queue, sizeof *h->ring);
    h->started = h->ring && pthread_create(&h->thread, NULL, run, h) == 0;
    if (!h->started) {
        serve_heavy_free(h);
        return base_fail(error, MARCO_ERROR_MEMORY, "a thread of the server cannot be started");
    }
    *out = h;
    return MARCO_OK;
}

bool serve_heavy_run(serve_heavy *h, serve_heavy_fn fn, void *user)
{
    pthread_mutex_lock(&h->lock);
    bool room = h->n < h->size && !h->stopped;
    if (room) {
        h->ring[(h->first + h->n++) % h->size] = (work){fn, user};
        pthread_cond_signal(&h->changed);
    }
    pthread_mutex_unlock(&h->lock);
    return room;
}

void serve_heavy_stop(serve_heavy *h)
{
    pthread_mutex_lock(&h->lock);
    h->stopped = true;
    pthread_cond_signal(&h->changed);
    pthread_mutex_unlock(&h->lock);
    if (h->started)
        pthread_join(h->thread, NULL);
    h->started = false;
}

void serve_heavy_free(serve_heavy *h)
{
    if (!h)
        return;
    serve_heavy_stop(h);
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->changed);
    base_free(h->ring);
    base_free(h);
}
