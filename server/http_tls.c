#include "server/http_tls.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/fio.h"
#include "core/base/mem.h"

#define PEM_MAX (1u << 20)
#define CHAIN_MAX 16u

struct http_cert {
    _Atomic unsigned count;
    gnutls_certificate_credentials_t cred;
    bool asks_client;
    int64_t expires; // Unix time
    char *pem, *key_pem;
};

struct http_tls {
    pthread_mutex_t lock; // guards now
    struct http_cert *now;
};

// ------------------------------------------------------------------------------------------------------- reading

static bool failed(struct err *err, const struct http_tls_files *f, const char *key, const char *path, int rc)
{
    return err_set(err, ERR_ARG, "%s.%s: %s: %s", f->section, key, path, gnutls_strerror(rc));
}

static gnutls_datum_t datum(const char *text)
{
    return (gnutls_datum_t){.data = (unsigned char *)(uintptr_t)text, .size = (unsigned)strlen(text)};
}

static char *read_pem(const struct http_tls_files *f, const char *key, const char *path, struct err *err)
{
    size_t n;
    char *text = fio_read_all(path, PEM_MAX, &n, err);
    if (!text)
        err_prefix(err, "%s.%s", f->section, key);
    return text;
}

/* gnutls_certificate_set_x509_key copies all: what is parsed here is freed here. */
static bool set_pair(struct http_cert *c, const struct http_tls_files *f, gnutls_x509_privkey_t key, struct err *err)
{
    gnutls_x509_crt_t chain[CHAIN_MAX];
    unsigned n = CHAIN_MAX;
    gnutls_datum_t pem = datum(c->pem), key_pem = datum(c->key_pem);
    int rc = gnutls_x509_privkey_import2(key, &key_pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (rc < 0)
        return failed(err, f, "key_file", f->key, rc);
    rc = gnutls_x509_crt_list_import(chain, &n, &pem, GNUTLS_X509_FMT_PEM,
                                     GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED | GNUTLS_X509_CRT_LIST_FAIL_IF_UNSORTED);
    if (rc < 0)
        return failed(err, f, "cert_file", f->cert, rc);
    c->expires = (int64_t)gnutls_x509_crt_get_expiration_time(chain[0]);
    int pair = gnutls_certificate_set_x509_key(c->cred, chain, rc, key);
    for (int i = 0; i < rc; i++)
        gnutls_x509_crt_deinit(chain[i]);
    return pair >= 0 || err_set(err, ERR_ARG, "%s.cert_file, %s.key_file: %s: %s", f->section, f->section, f->cert, gnutls_strerror(pair));
}

/* A certificate that may be a client's, by the CA? Anything but 0 ends the handshake. */
static int verify_client(gnutls_session_t session)
{
    gnutls_typed_vdata_st purpose = {.type = GNUTLS_DT_KEY_PURPOSE_OID,
                                     .data = (unsigned char *)(uintptr_t)GNUTLS_KP_TLS_WWW_CLIENT};
    unsigned status = 0;
    int rc = gnutls_certificate_verify_peers(session, &purpose, 1, &status);
    return rc < 0 || status ? GNUTLS_E_CERTIFICATE_ERROR : 0;
}

static bool set_client_ca(struct http_cert *c, const struct http_tls_files *f, struct err *err)
{
    if (!f->client_ca[0])
        return true;
    char *text = read_pem(f, "client_ca_file", f->client_ca, err);
    if (!text)
        return false;
    gnutls_datum_t pem = datum(text);
    int rc = gnutls_certificate_set_x509_trust_mem(c->cred, &pem, GNUTLS_X509_FMT_PEM);
    free(text);
    if (rc <= 0)
        return failed(err, f, "client_ca_file", f->client_ca, rc < 0 ? rc : GNUTLS_E_NO_CERTIFICATE_FOUND);
    gnutls_certificate_set_verify_function(c->cred, verify_client);
    c->asks_client = true;
    return true;
}

struct http_cert *http_cert_read(const struct http_tls_files *f, struct err *err)
{
    gnutls_x509_privkey_t key = NULL;
    struct http_cert *c = mem_array(1, sizeof(*c), err);
    if (!c)
        return NULL;
    atomic_init(&c->count, 1);
    bool ok = (c->pem = read_pem(f, "cert_file", f->cert, err)) && (c->key_pem = read_pem(f, "key_file", f->key, err));
    if (ok && (gnutls_certificate_allocate_credentials(&c->cred) < 0 || gnutls_x509_privkey_init(&key) < 0))
        ok = err_set(err, ERR_NOMEM, "no memory for certificates");
    ok = ok && set_pair(c, f, key, err) && set_client_ca(c, f, err);
    if (key)
        gnutls_x509_privkey_deinit(key);
    if (ok)
        return c;
    http_cert_release(c);
    return NULL;
}

void http_cert_release(struct http_cert *c)
{
    if (!c || atomic_fetch_sub(&c->count, 1) > 1)
        return;
    if (c->cred)
        gnutls_certificate_free_credentials(c->cred);
    if (c->key_pem)
        gnutls_memset(c->key_pem, 0, strlen(c->key_pem));
    free(c->key_pem);
    free(c->pem);
    free(c);
}

// ------------------------------------------------------------------------------------------------------- in force

struct http_tls *http_tls_new(struct http_cert *c, struct err *err)
{
    struct http_tls *t = mem_array(1, sizeof(*t), err);
    if (!t) {
        http_cert_release(c);
        return NULL;
    }
    pthread_mutex_init(&t->lock, NULL);
    t->now = c;
    return t;
}

void http_tls_free(struct http_tls *t)
{
    if (!t)
        return;
    pthread_mutex_destroy(&t->lock);
    http_cert_release(t->now);
    free(t);
}

void http_tls_replace(struct http_tls *t, struct http_cert *c)
{
    pthread_mutex_lock(&t->lock);
    struct http_cert *old = t->now;
    t->now = c;
    pthread_mutex_unlock(&t->lock);
    http_cert_release(old);
}

struct http_cert *http_tls_hold(struct http_tls *t)
{
    pthread_mutex_lock(&t->lock);
    struct http_cert *c = t->now;
    atomic_fetch_add(&c->count, 1);
    pthread_mutex_unlock(&t->lock);
    return c;
}

int64_t http_tls_expires(struct http_tls *t)
{
    struct http_cert *c = http_tls_hold(t);
    int64_t at = c->expires;
    http_cert_release(c);
    return at;
}

const char *http_cert_pem(const struct http_cert *c)
{
    return c->pem;
}

const char *http_cert_key_pem(const struct http_cert *c)
{
    return c->key_pem;
}

bool http_cert_use(const struct http_cert *c, gnutls_session_t session)
{
    gnutls_certificate_server_set_request(session, c->asks_client ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
    return gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, c->cred) >= 0;
}
