/* The lane for heavy work: in order, bounded, and nobody is left without an answer. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "serve/heavy.h"

enum { QUEUE = 3 };

typedef struct piece {
    pthread_mutex_t *gate; /* held up by it; NULL: by nothing */
    int *count;
    int place; /* in the order of calls; 0: not called */
    bool stopped;
} piece;

static void work(void *user, bool stopped)
{
    piece *p = user;
    p->place = ++*p->count;
    p->stopped = stopped;
    if (p->gate) {
        pthread_mutex_lock(p->gate);
        pthread_mutex_unlock(p->gate);
    }
}

/* The first is under way, or about to be; the queue is full behind it. */
static void fill(serve_heavy *h, piece *pieces, int *count, pthread_mutex_t *gate)
{
    for (int i = 0; i < 2 * QUEUE; i++)
        pieces[i] = (piece){.gate = i == 0 ? gate : NULL, .count = count};
    pthread_mutex_lock(gate);
    assert_true(serve_heavy_run(h, work, &pieces[0]));
    int taken = 1;
    while (taken < 2 * QUEUE && serve_heavy_run(h, work, &pieces[taken]))
        taken++;
    assert_in_range(taken, QUEUE, QUEUE + 1);
}

static void work_is_done_in_order(void **state)
{
    (void)state;
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    piece pieces[2 * QUEUE];
    int count = 0;
    serve_heavy *h;
    assert_int_equal(serve_heavy_create(QUEUE, &h, NULL), MARCO_OK);
    fill(h, pieces, &count, &gate);
    pthread_mutex_unlock(&gate);
    serve_heavy_free(h); /* waits */
    for (int i = 0; i < QUEUE; i++)
        assert_int_equal(pieces[i].place, i + 1);
}

static void *stop(void *user)
{
    serve_heavy_stop(user);
    return NULL;
}

static void what_waits_is_refused_at_the_end(void **state)
{
    (void)state;
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    piece pieces[2 * QUEUE], late = {0};
    int count = 0;
    pthread_t thread;
    serve_heavy *h;
    assert_int_equal(serve_heavy_create(QUEUE, &h, NULL), MARCO_OK);
    fill(h, pieces, &count, &gate);
    assert_int_equal(pthread_create(&thread, NULL, stop, h), 0);
    late.count = &count;
    pthread_mutex_unlock(&gate);
    pthread_join(thread, NULL);
    assert_false(serve_heavy_run(h, work, &late));
    assert_int_equal(late.place, 0);
    for (int i = 0; i < QUEUE; i++)
        assert_int_equal(pieces[i].place, i + 1); /* each was told, one way or the other */
    serve_heavy_free(h);
}

static void memory_may_be_short(void **state)
{
    (void)state;
    serve_heavy *h;
    for (uint64_t n = 1; n <= 2; n++) {
        base_alloc_fail_at(n);
        assert_int_equal(serve_heavy_create(QUEUE, &h, NULL), MARCO_ERROR_MEMORY);
        base_alloc_fail_at(0);
        assert_null(h);
    }
    serve_heavy_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_is_done_in_order),
        cmocka_unit_test(what_waits_is_refused_at_the_end),
        cmocka_unit_test(memory_may_be_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
