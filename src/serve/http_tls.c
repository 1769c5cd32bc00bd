#include <string.h>

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>

#include "base/error.h"
#include "base/memory.h"
#include "serve/http_internal.h"

enum { MAX_CHAIN = 16 };

struct http_credentials {
    http_credentials *next; /* an earlier one */
    gnutls_pcert_st chain[MAX_CHAIN];
    unsigned n;
    gnutls_privkey_t key;
};

void http_credentials_free(http_credentials *list)
{
    while (list) {
        http_credentials *next = list->next;
        for (unsigned i = 0; i < list->n; i++)
            gnutls_pcert_deinit(&list->chain[i]);
        if (list->key)
            gnutls_privkey_deinit(list->key);
        base_free(list);
        list = next;
    }
}

/* Whether the key is the certificate's: signs a word and looks whether it is believed. */
static int check_pair(const http_credentials *c)
{
    static unsigned char word[] = "marco";
    gnutls_datum_t data = {.data = word, .size = sizeof word}, signature = {0};
    unsigned bits = 0;
    int kind = gnutls_pubkey_get_pk_algorithm(c->chain[0].pubkey, &bits);
    if (kind != gnutls_privkey_get_pk_algorithm(c->key, NULL))
        return GNUTLS_E_CERTIFICATE_KEY_MISMATCH;
    gnutls_digest_algorithm_t digest = GNUTLS_DIG_SHA256;
    gnutls_pubkey_get_preferred_hash_algorithm(c->chain[0].pubkey, &digest, NULL);
    int code = gnutls_privkey_sign_data(c->key, digest, 0, &data, &signature);
    if (code < 0)
        return code;
    gnutls_sign_algorithm_t sign = gnutls_pk_to_sign((gnutls_pk_algorithm_t)kind, digest);
    code = gnutls_pubkey_verify_data2(c->chain[0].pubkey, sign, 0, &data, &signature);
    gnutls_free(signature.data);
    return code < 0 ? GNUTLS_E_CERTIFICATE_KEY_MISMATCH : 0;
}

marco_status http_credentials_add(http_server *server, const char *cert, const char *key,
                                  marco_error *error)
{
    gnutls_datum_t cert_text = {(unsigned char *)cert, (unsigned)strlen(cert)};
    gnutls_datum_t key_text = {(unsigned char *)key, (unsigned)strlen(key)};
    http_credentials *c = base_calloc(1, sizeof *c);
    if (!c)
        return base_fail_memory(error, sizeof *c, "a certificate");
    c->n = MAX_CHAIN;
    const char *what = "certificate";
    int code = gnutls_pcert_list_import_x509_raw(c->chain, &c->n, &cert_text, GNUTLS_X509_FMT_PEM,
                                                 GNUTLS_X509_CRT_LIST_FAIL_IF_UNSORTED);
    if (code < 0)
        c->n = 0;
    if (code >= 0) {
        what = "key";
        code = gnutls_privkey_init(&c->key);
    }
    if (code >= 0)
        code = gnutls_privkey_import_x509_raw(c->key, &key_text, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (code >= 0)
        code = check_pair(c);
    if (code < 0) {
        http_credentials_free(c);
        return base_fail(error, MARCO_ERROR_FORMAT,
                         "TLS %s: %s; a PEM file is wanted, the server's certificate first, and "
                         "its own key without a password",
                         what, gnutls_strerror(code));
    }
    pthread_mutex_lock(&server->lock);
    c->next = server->credentials;
    server->credentials = c;
    pthread_mutex_unlock(&server->lock);
    return MARCO_OK;
}

/* libmicrohttpd keeps its connection with the session. */
static int choose(gnutls_session_t session, const gnutls_datum_t *names, int n_names,
                  const gnutls_pk_algorithm_t *kinds, int n_kinds, gnutls_pcert_st **chain,
                  unsigned *n, gnutls_privkey_t *key)
{
    (void)names, (void)n_names, (void)kinds, (void)n_kinds;
    struct MHD_Connection *connection = gnutls_session_get_ptr(session);
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    const http_link *link = info ? info->socket_context : NULL;
    if (!link)
        return -1;
    http_server *server = link->server;
    pthread_mutex_lock(&server->lock);
    http_credentials *c = server->credentials;
    pthread_mutex_unlock(&server->lock);
    *chain = c->chain;
    *n = c->n;
    *key = c->key;
    return 0;
}

void *http_credentials_callback(void)
{
    return (void *)choose;
}
