#include "cli/load_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"

#define PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

struct load_tls {
    gnutls_certificate_credentials_t cred;
    char *host; // a name or a numeric address
};

// --------------------------------------------------------------------------------------------------------- trust

static bool is_address(const char *host)
{
    struct in6_addr any;
    return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

static bool failed(struct err *err, const char *option, const char *path, int rc)
{
    return err_set(err, ERR_ARG, "--%s %s: %s", option, path, gnutls_strerror(rc));
}

static bool set_trust(struct load_tls *t, const struct client_tls *f, struct err *err)
{
    int rc = f->ca ? gnutls_certificate_set_x509_trust_file(t->cred, f->ca, GNUTLS_X509_FMT_PEM)
                   : gnutls_certificate_set_x509_system_trust(t->cred);
    if (!f->ca)
        return rc >= 0 || err_set(err, ERR_IO, "the system's certificates: %s; give --ca", gnutls_strerror(rc));
    return rc > 0 || failed(err, "ca", f->ca, rc ? rc : GNUTLS_E_NO_CERTIFICATE_FOUND);
}

static bool set_own(struct load_tls *t, const struct client_tls *f, struct err *err)
{
    if (!f->cert)
        return true;
    int rc = gnutls_certificate_set_x509_key_file(t->cred, f->cert, f->key ? f->key : f->cert, GNUTLS_X509_FMT_PEM);
    return rc >= 0 || failed(err, "cert", f->cert, rc);
}

struct load_tls *load_tls_new(const struct client_tls *f, const char *host, struct err *err)
{
    struct load_tls *t = mem_array(1, sizeof(*t), err);
    bool ok = t && (t->host = mem_dup(host, strlen(host), err));
    if (ok && gnutls_certificate_allocate_credentials(&t->cred) < 0)
        ok = err_set(err, ERR_NOMEM, "out of memory");
    if (ok && set_trust(t, f, err) && set_own(t, f, err))
        return t;
    load_tls_free(t);
    return NULL;
}

void load_tls_free(struct load_tls *t)
{
    if (!t)
        return;
    if (t->cred)
        gnutls_certificate_free_credentials(t->cred);
    free(t->host);
    free(t);
}

// ------------------------------------------------------------------------------------------------------- sessions

gnutls_session_t load_tls_open(const struct load_tls *t, int fd)
{
    gnutls_session_t s = NULL;
    if (gnutls_init(&s, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) < 0)
        return NULL;
    bool named = is_address(t->host) || gnutls_server_name_set(s, GNUTLS_NAME_DNS, t->host, strlen(t->host)) >= 0;
    if (!named || gnutls_priority_set_direct(s, PRIORITIES, NULL) < 0 ||
        gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, t->cred) < 0) {
        gnutls_deinit(s);
        return NULL;
    }
    gnutls_session_set_verify_cert(s, t->host, 0); // the chain, and the name or address in the certificate
    gnutls_transport_set_int(s, fd);
    return s;
}

void load_tls_close(gnutls_session_t s)
{
    if (s)
        gnutls_deinit(s);
}

static bool again(ssize_t rc)
{
    return rc == GNUTLS_E_AGAIN || rc == GNUTLS_E_INTERRUPTED;
}

/* Why the server's certificate is not trusted, in words. */
static bool not_trusted(gnutls_session_t s, struct err *err)
{
    gnutls_datum_t why = {0};
    unsigned status = gnutls_session_get_verify_cert_status(s);
    int rc = gnutls_certificate_verification_status_print(status, gnutls_certificate_type_get(s), &why, 0);
    err_set(err, ERR_IO, "TLS: %s", rc >= 0 ? (const char *)why.data : "the server's certificate is not trusted");
    gnutls_free(why.data);
    return false;
}

int load_tls_handshake(gnutls_session_t s, struct err *err)
{
    int rc = gnutls_handshake(s);
    if (rc == 0)
        return 1;
    if (again(rc) || !gnutls_error_is_fatal(rc))
        return 0;
    if (rc == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR)
        not_trusted(s, err);
    else
        err_set(err, ERR_IO, "TLS: %s", gnutls_strerror(rc));
    return -1;
}

bool load_tls_wants_out(gnutls_session_t s)
{
    return gnutls_record_get_direction(s) == 1;
}

static ssize_t as_errno(ssize_t rc)
{
    if (rc >= 0)
        return rc;
    errno = again(rc) ? EAGAIN : EPROTO;
    return -1;
}

ssize_t load_tls_send(gnutls_session_t s, const void *p, size_t n)
{
    return as_errno(gnutls_record_send(s, p, n));
}

ssize_t load_tls_recv(gnutls_session_t s, void *p, size_t n)
{
    ssize_t rc = gnutls_record_recv(s, p, n);
    return as_errno(rc == GNUTLS_E_PREMATURE_TERMINATION ? 0 : rc); // closed without a word, as servers do
}
