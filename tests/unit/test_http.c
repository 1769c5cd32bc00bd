/* The HTTP layer, by raw sockets: what is asked comes whole, in its time, and what is unsound is
 * refused; TLS. */
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "http_fixture.h"

/* ---- the protocol ---------------------------------------------------------------------------- */

static void requests_and_answers(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    int fd = dial(f);
    expect(fd, "POST /a%20b?c=d HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "hello",
           "X-Path: /a b\r\n");
    expect(fd, GET("/later"), "later", "200");
    expect(fd, "GET / HTTP/1.1\r\nHost: x\r\nX-Say: 1\r\n\r\n", "static", "Content-Length: 6\r\n");
    /* A body in chunks. */
    expect(fd,
           "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
           "4\r\nabcd\r\n3\r\nefg\r\n0\r\n\r\n",
           "abcdefg", "Content-Length: 7\r\n");
    /* HEAD has no body: what follows is the next answer. */
    say(fd, "HEAD / HTTP/1.1\r\nHost: x\r\nX-Say: 1\r\n\r\n" GET("/after"));
    char *text = hear(fd, "/after\r\n");
    assert_null(strstr(text, "static"));
    assert_int_equal(count_of(text, "HTTP/1.1 200"), 2);
    free(text);
    /* HTTP/1.0 is closed at the end. */
    say(fd, "GET / HTTP/1.0\r\n\r\n");
    assert_true(is_closed(fd));
    close(fd);
    close_server(f);
}

static void pipelined(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    int fd = dial(f);
    say(fd, GET("/later") GET("/1") GET("/2") GET("/last"));
    char *text = hear(fd, "X-Path: /last\r\n");
    const char *first = strstr(text, "later"), *one = strstr(text, "/1\r\n");
    const char *two = strstr(text, "/2\r\n");
    assert_true(first && one && two && first < one && one < two);
    free(text);
    close(fd);
    close_server(f);
}

static void expect_continue(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    int fd = dial(f);
    expect(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
           "\r\n\r\n", "HTTP/1.1 100");
    expect(fd, "hello", "hello", "HTTP/1.1 200");
    close(fd);
    /* Too long: refused before the body is sent. */
    fd = dial(f);
    expect(fd,
           "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n"
           "Expect: 100-continue\r\n\r\n",
           "refused", "HTTP/1.1 413");
    close(fd);
    close_server(f);
}

static void long_bodies(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    char *block = calloc(1, MAX_BODY + 2);
    memset(block, 'x', MAX_BODY + 1);
    /* Longer than declared patience: at once. */
    int fd = dial(f);
    expect(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", NULL,
           "HTTP/1.1 413");
    close(fd);
    /* And heard by those who send all they have before they listen. */
    fd = dial(f);
    say(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    for (int i = 0; i < 9; i++)
        say(fd, block);
    expect(fd, "", NULL, "HTTP/1.1 413");
    close(fd);
    /* A byte too long: heard, and the connection goes on. */
    fd = dial(f);
    say(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100001\r\n\r\n");
    say(fd, block);
    expect(fd, "", "refused", "HTTP/1.1 413");
    expect(fd, GET("/next"), "/next\r\n", "200");
    /* As long as may be. */
    say(fd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
    block[MAX_BODY] = '\0';
    say(fd, block);
    expect(fd, "", "Content-Length: 100000", "HTTP/1.1 200");
    close(fd);
    /* In chunks: counted. */
    fd = dial(f);
    say(fd, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n186A0\r\n");
    say(fd, block);
    expect(fd, "\r\n1\r\nx\r\n0\r\n\r\n", "refused", "HTTP/1.1 413");
    /* Without end. */
    say(fd, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFF\r\n");
    for (int i = 0; i < 4; i++)
        say(fd, block);
    assert_true(is_closed(fd));
    close(fd);
    free(block);
    close_server(f);
}

static void unsound_requests(void **state)
{
    (void)state;
    static const char *const requests[] = {
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5x\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /%0a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /%4 HTTP/1.1\r\nHost: x\r\n\r\n",
        /* What others take for a length, or for one header, must not be taken for nothing. */
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 28\r\n\r\nGET / HTTP/1.1\r\nHost: "
        "x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length\t: 28\r\n\r\n"
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n"
        "0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA@b: c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX: a\x01z\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nOrigin: http://y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\ncontent-type: a/b\r\nContent-Type: c/d\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nExpect: foo\r\n\r\n",
        "AVERYLONGMETHODINDEED / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\x16\x03\x01\x02\x01\x01\xFC\r\n\r\n",
    };
    fixture *f = open_server(NULL);
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        int fd = dial(f);
        say(fd, requests[i]);
        char *text = hear(fd, NULL); /* to the end: it is closed */
        if (text[0] && strncmp(text, "HTTP/1.1 400", 12) != 0 &&
            strncmp(text, "HTTP/1.1 417", 12) != 0 && strncmp(text, "HTTP/1.1 501", 12) != 0)
            fail_msg("request %zu: %s", i, text);
        free(text);
        close(fd);
    }
    /* Heads without end. */
    int fd = dial(f);
    say(fd, "GET / HTTP/1.1\r\nHost: x\r\nX: ");
    char *block = calloc(1, 200001);
    memset(block, 'x', 200000);
    say(fd, block);
    assert_true(is_closed(fd));
    close(fd);
    free(block);
    assert_int_equal(atomic_load(&f->handed), 0);
    close_server(f);
}

/* ---- time ------------------------------------------------------------------------------------ */

/* Sends a byte at a time until the connection is closed; seconds that took. */
static double drip(fixture *f, const char *head, char *heard, size_t room)
{
    int fd = dial(f);
    double begin = now();
    say(fd, head);
    heard[0] = '\0';
    while (now() - begin < 8) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, 50) == 1) {
            ssize_t n = recv(fd, heard, room - 1, 0);
            heard[n > 0 ? n : 0] = '\0';
            break;
        }
        send(fd, "x", 1, MSG_NOSIGNAL);
    }
    close(fd);
    return now() - begin;
}

static void slow_requests(void **state)
{
    (void)state;
    http_params params = defaults(NULL);
    char heard[1024];
    params.body_seconds = params.idle_seconds = 1;
    fixture *f = open_server(&params);
    double line = drip(f, "GET /", heard, sizeof heard);
    double head = drip(f, "GET / HTTP/1.1\r\nHost: x\r\nX: ", heard, sizeof heard);
    assert_true(line > 0.8 && line < 4 && head > 0.8 && head < 4);
    double body =
        drip(f, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n", heard, sizeof heard);
    assert_true(body > 0.8 && body < 4);
    assert_non_null(strstr(heard, "408"));
    wait_count(&f->done, 1);
    assert_int_equal(atomic_load(&f->last_status), 408);
    /* Silent from the beginning, and after an answer. */
    int silent = dial(f), idle = dial(f);
    expect(idle, GET("/"), "X-Path", "200");
    assert_true(is_closed(silent) && is_closed(idle));
    close(silent);
    close(idle);
    assert_int_equal(atomic_load(&f->handed), 1);
    close_server(f);
}

/* A handler may take longer than a connection may idle. */
static void waiting_is_not_idling(void **state)
{
    (void)state;
    http_params params = defaults(NULL);
    params.body_seconds = params.idle_seconds = 1;
    fixture *f = open_server(&params);
    int fd = dial(f);
    say(fd, GET("/stream"));
    struct pollfd wait = {.fd = fd, .events = POLLIN | POLLHUP};
    double begin = now();
    while (now() - begin < 2.5 && poll(&wait, 1, 200) >= 0) {
        char scrap[256];
        if (wait.revents & POLLIN)
            assert_true(recv(fd, scrap, sizeof scrap, 0) > 0);
    }
    for (int i = 0; i < 50; i++)
        sem_post(&f->step);
    char *text = hear(fd, "piece 49");
    assert_non_null(strstr(text, "piece 48"));
    free(text);
    close(fd);
    close_server(f);
}

static void readers_that_take_nothing(void **state)
{
    (void)state;
    http_params params = defaults(NULL);
    params.idle_seconds = 1;
    fixture *f = open_server(&params);
    int fd = dial(f);
    say(fd, GET("/flood"));
    wait_for(&f->left);
    wait_count(&f->done, 1);
    close(fd);
    close_server(f);
}

/* ---- TLS ------------------------------------------------------------------------------------- */

/* A key and a certificate for it, signed by itself; PEM, to be freed by gnutls_free. */
static void make_certificate(const char *name, gnutls_datum_t *cert, gnutls_datum_t *key)
{
    gnutls_x509_privkey_t private;
    gnutls_x509_crt_t public;
    gnutls_x509_privkey_init(&private);
    gnutls_x509_crt_init(&public);
    assert_int_equal(gnutls_x509_privkey_generate(private, GNUTLS_PK_ECDSA,
                                                  GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1),
                                                  0),
                     0);
    gnutls_x509_crt_set_version(public, 3);
    gnutls_x509_crt_set_serial(public, "\x01", 1);
    gnutls_x509_crt_set_activation_time(public, time(NULL) - 60);
    gnutls_x509_crt_set_expiration_time(public, time(NULL) + 3600);
    gnutls_x509_crt_set_dn_by_oid(public, GNUTLS_OID_X520_COMMON_NAME, 0, name,
                                  (unsigned)strlen(name));
    gnutls_x509_crt_set_key(public, private);
    assert_int_equal(gnutls_x509_crt_sign2(public, public, private, GNUTLS_DIG_SHA256, 0), 0);
    assert_int_equal(gnutls_x509_crt_export2(public, GNUTLS_X509_FMT_PEM, cert), 0);
    assert_int_equal(gnutls_x509_privkey_export2(private, GNUTLS_X509_FMT_PEM, key), 0);
    gnutls_x509_crt_deinit(public);
    gnutls_x509_privkey_deinit(private);
}

/* Asks for / over TLS; the common name that the server's certificate has, or "" where there was no
 * handshake. */
static void tls_ask(fixture *f, const char *priorities, char name[64])
{
    gnutls_certificate_credentials_t credentials;
    gnutls_session_t session;
    char answer[4096] = "";
    int fd = dial(f), code;
    name[0] = '\0';
    gnutls_certificate_allocate_credentials(&credentials);
    gnutls_init(&session, GNUTLS_CLIENT);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials);
    gnutls_priority_set_direct(session, priorities, NULL);
    gnutls_transport_set_int(session, fd);
    gnutls_handshake_set_timeout(session, PATIENCE_MS);
    do
        code = gnutls_handshake(session);
    while (code < 0 && !gnutls_error_is_fatal(code));
    if (code == 0) {
        unsigned n = 0;
        size_t size = 64;
        const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &n);
        gnutls_x509_crt_t cert;
        gnutls_x509_crt_init(&cert);
        gnutls_x509_crt_import(cert, &chain[0], GNUTLS_X509_FMT_DER);
        gnutls_x509_crt_get_dn_by_oid(cert, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &size);
        gnutls_x509_crt_deinit(cert);
        static const char request[] = GET("/tls");
        gnutls_record_send(session, request, sizeof request - 1);
        for (size_t at = 0; !strstr(answer, "\r\n\r\n") && at < sizeof answer - 1;) {
            ssize_t got = gnutls_record_recv(session, answer + at, sizeof answer - 1 - at);
            if (got <= 0 && got != GNUTLS_E_AGAIN && got != GNUTLS_E_INTERRUPTED)
                break;
            at += got > 0 ? (size_t)got : 0;
        }
        assert_non_null(strstr(answer, "X-Path: /tls"));
    }
    gnutls_deinit(session);
    gnutls_certificate_free_credentials(credentials);
    close(fd);
}

static void tls(void **state)
{
    (void)state;
    gnutls_datum_t cert[2], key[2];
    char name[64];
    marco_error error = {0};
    make_certificate("first", &cert[0], &key[0]);
    make_certificate("second", &cert[1], &key[1]);
    http_params params = defaults(NULL);
    params.cert = (char *)cert[0].data;
    params.key = (char *)key[0].data;
    fixture *f = open_server(&params);
    tls_ask(f, "NORMAL", name);
    assert_string_equal(name, "first");
    assert_int_equal(
        http_server_set_tls(f->server, (char *)cert[1].data, (char *)key[0].data, &error),
        MARCO_ERROR_FORMAT);
    assert_int_equal(http_server_set_tls(f->server, "nonsense", (char *)key[0].data, &error),
                     MARCO_ERROR_FORMAT);
    tls_ask(f, "NORMAL", name);
    assert_string_equal(name, "first");
    assert_int_equal(
        http_server_set_tls(f->server, (char *)cert[1].data, (char *)key[1].data, &error),
        MARCO_OK);
    tls_ask(f, "NORMAL:-VERS-ALL:+VERS-TLS1.2", name);
    assert_string_equal(name, "second");
    tls_ask(f, "NORMAL:-VERS-ALL:+VERS-TLS1.1:%COMPAT", name);
    assert_string_equal(name, "");
    /* Somebody who does not speak TLS. */
    int fd = dial(f);
    say(fd, GET("/"));
    assert_true(is_closed(fd));
    close(fd);
    close_server(f);
    for (int i = 0; i < 2; i++) {
        gnutls_free(cert[i].data);
        gnutls_free(key[i].data);
    }
}

static void unusable_addresses(void **state)
{
    (void)state;
    fixture *f = open_server(NULL);
    marco_error error = {0};
    http_server *other = NULL;
    http_params params = defaults(f);
    params.port = http_server_port(f->server);
    assert_int_equal(http_server_create(&params, &other, &error), MARCO_ERROR_EXISTS);
    assert_non_null(strstr(error.message, "--port"));
    assert_null(other);
    params.host = "no.such.host.invalid";
    assert_int_equal(http_server_create(&params, &other, &error), MARCO_ERROR_ARGUMENT);
    close_server(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_and_answers),
        cmocka_unit_test(pipelined),
        cmocka_unit_test(expect_continue),
        cmocka_unit_test(long_bodies),
        cmocka_unit_test(unsound_requests),
        cmocka_unit_test(slow_requests),
        cmocka_unit_test(waiting_is_not_idling),
        cmocka_unit_test(readers_that_take_nothing),
        cmocka_unit_test(tls),
        cmocka_unit_test(unusable_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
