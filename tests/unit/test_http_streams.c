/* The HTTP layer, by raw sockets: streams go at once, from any thread; clients that are gone or
 * greedy harm nobody; and its end. */
#include "http_fixture.h"

/* ---- streams and leavers --------------------------------------------------------------------- */

/* Each piece comes before the next is written, and none waits for an acknowledgement. */
static void pieces_come_at_once(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    int fd = dial(f);
    say(fd, GET("/stream"));
    double begin = now();
    for (int i = 0; i < 50; i++) {
        char mark[32];
        snprintf(mark, sizeof mark, "piece %d\n", i);
        sem_post(&f->step);
        free(hear(fd, i < 49 ? mark : "\n\r\n0\r\n\r\n"));
    }
    double seconds = now() - begin;
    assert_true(seconds < 1.5); /* 40 ms each, if they did wait */
    expect(fd, GET("/next"), "/next\r\n", "200");
    close(fd);
    close_server(f);
}

static void leavers_are_noticed(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    for (int i = 0; i < 3; i++) {
        int fd = dial(f);
        say(fd, GET("/never"));
        wait_count(&f->handed, 2 * i + 1);
        double begin = now();
        if (i == 1) { /* all at once */
            struct linger hard = {.l_onoff = 1};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        }
        if (i == 2)
            shutdown(fd, SHUT_WR);
        else
            close(fd);
        wait_for(&f->left);
        /* A broken connection at once; of one who sends no more it is not known yet. */
        assert_true(now() - begin < (i == 1 ? 1 : 3));
        if (i == 2)
            close(fd);
        wait_count(&f->done, 2 * i + 1);

        fd = dial(f);
        say(fd, GET("/flood"));
        free(hear(fd, "xx"));
        close(fd);
        wait_for(&f->left);
        wait_count(&f->done, 2 * i + 2);
    }
    assert_int_equal(atomic_load(&f->gone), 6);
    /* Who stays is never said to have left. */
    int fd = dial(f);
    for (int i = 0; i < 20; i++)
        expect(fd, GET("/later"), "later", "200");
    close(fd);
    close_server(f);
}

/* What is sent and the end of it may come together: it is not waited for what cannot come. */
static void leavers_in_the_middle(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    for (int i = 0; i < 300; i++) {
        int fd = dial(f);
        say(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
        close(fd);
    }
    wait_count(&f->done, 300);
    assert_int_equal(atomic_load(&f->handed), 0);
    close_server(f);
}

/* They make room at once: where an address may have one connection, each of these would keep the
 * next client out. */
static void leavers_make_room(void **state)
{
    static const char *const halves[] = {
        "G", "GET / HT", "GET / HTTP/1.1\r\nHost: x", "GET / HTTP/1.1\r\nHost: x\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"};
    (void)state;
    http_params params = defaults(NULL);
    params.max_connections_per_address = 1;
    fixture *f = open_server(&params);
    double begin = now();
    for (int i = 0; i < 20; i++) {
        int fd = dial(f);
        say(fd, halves[i % 5]);
        if (i % 2)
            poll(NULL, 0, 2); /* the end comes with the rest, or by itself */
        close(fd);
        for (bool fine = false; !fine;) {
            fd = dial(f);
            say(fd, "GET / HTTP/1.0\r\n\r\n");
            char *text = hear(fd, NULL);
            fine = strstr(text, "200") != NULL;
            free(text);
            close(fd);
        }
    }
    assert_true(now() - begin < 6); /* 20, were each noticed after a second */
    close_server(f);
}

/* To send no more is not to leave. */
static void listeners_are_answered(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    for (int i = 0; i < 10; i++) {
        int fd = dial(f);
        say(fd, GET("/later") GET("/later"));
        shutdown(fd, SHUT_WR);
        char *text = hear(fd, NULL);
        assert_int_equal(count_of(text, "HTTP/1.1 200"), 2);
        free(text);
        close(fd);
    }
    /* A stream goes on for longer than that is borne otherwise. */
    int fd = dial(f);
    say(fd, GET("/stream"));
    free(hear(fd, "\r\n\r\n"));
    shutdown(fd, SHUT_WR);
    poll(NULL, 0, 1500);
    for (int i = 0; i < 50; i++)
        sem_post(&f->step);
    expect(fd, "", "piece 49", "piece 49");
    close(fd);
    assert_int_equal(atomic_load(&f->gone), 0);
    close_server(f);
}

/* A port is taken before anybody is listened to. */
static void bound_before_started(void **state)
{
    (void)state;
    fixture f = {0};
    http_params params = defaults(&f);
    marco_error error = {0};
    assert_int_equal(http_server_create(&params, &f.server, &error), MARCO_OK);
    assert_int_not_equal(http_server_port(f.server), 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_server_port(f.server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_not_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    assert_int_equal(http_server_open_requests(f.server), 0);
    http_server_close(f.server); /* without ever having started */
}

static void closing(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    int never[3], idle = dial(f), flooded = dial(f), half = dial(f);
    for (int i = 0; i < 3; i++) {
        never[i] = dial(f);
        say(never[i], GET("/never"));
    }
    expect(idle, GET("/"), "X-Path", "200");
    say(flooded, GET("/flood"));
    say(half, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
    wait_count(&f->handed, 5);
    double until = now() + 5;
    while (http_server_open_requests(f->server) < 4 && now() < until)
        poll(NULL, 0, 2);
    assert_int_equal(http_server_open_requests(f->server), 4); /* half a one does not count */

    http_server_quiesce(f->server);
    assert_true(is_closed(idle));
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(http_server_port(f->server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int late = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_not_equal(connect(late, (struct sockaddr *)&address, sizeof address), 0);
    close(late);
    close_server(f); /* wants all to be done */
    for (int i = 0; i < 3; i++) {
        expect(never[i], "", NULL, "HTTP/1.1 499"); /* what they were told at the end */
        close(never[i]);
    }
    assert_true(is_closed(half));
    close(idle);
    close(flooded);
    close(half);
}

static void connections_are_bounded(void **state)
{
    (void)state;
    http_params params = defaults(NULL);
    params.max_connections_per_address = 2;
    fixture *f = open_server(&params);
    int a = dial(f), b = dial(f);
    expect(a, GET("/"), "X-Path", "200");
    expect(b, GET("/"), "X-Path", "200");
    int c = dial(f);
    assert_true(is_closed(c));
    close(c);
    close(a);
    double until = now() + 5;
    for (bool fine = false; !fine && now() < until;) {
        c = dial(f);
        say(c, GET("/"));
        char *text = hear(c, "X-Path");
        fine = strstr(text, "200") != NULL;
        free(text);
        close(c);
    }
    assert_true(now() < until);
    close(b);
    close_server(f);
}

/* Everything at once, for the sanitizers. */
static void *bustle(void *user)
{
    fixture *f = user;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    for (int i = 0; i < 40; i++) {
        static const char *const asked[] = {GET("/"),
                                            GET("/later"),
                                            GET("/flood"),
                                            GET("/never"),
                                            GET("/later") GET("/flood"),
                                            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"};
        int fd = dial(f);
        say(fd, asked[rand_r(&seed) % 6]);
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        char scrap[512];
        if (poll(&wait, 1, rand_r(&seed) % 8) == 1)
            recv(fd, scrap, sizeof scrap, 0);
        close(fd);
    }
    return NULL;
}

static void many_at_once(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    pthread_t threads[6];
    for (int i = 0; i < 6; i++)
        pthread_create(&threads[i], NULL, bustle, f);
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    double until = now() + 10;
    while (http_server_open_requests(f->server) > 0 && now() < until)
        poll(NULL, 0, 5);
    assert_int_equal(http_server_open_requests(f->server), 0);
    int fd = dial(f);
    expect(fd, GET("/"), "X-Path", "200");
    close(fd);
    close_server(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_come_at_once),
        cmocka_unit_test(leavers_are_noticed),
        cmocka_unit_test(leavers_in_the_middle),
        cmocka_unit_test(leavers_make_room),
        cmocka_unit_test(listeners_are_answered),
        cmocka_unit_test(bound_before_started),
        cmocka_unit_test(closing),
        cmocka_unit_test(connections_are_bounded),
        cmocka_unit_test(many_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
