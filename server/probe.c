#include "server/probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/app.h"
#include "server/http_tls.h"

#define TIMEOUT_S 3

union address {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static socklen_t loopback_for_all(const struct config_listener *l, union address *a)
{
    *a = (union address){0};
    if (inet_pton(AF_INET, l->address, &a->v4.sin_addr) == 1) {
        a->v4.sin_family = AF_INET;
        a->v4.sin_port = htons((uint16_t)l->port);
        if (a->v4.sin_addr.s_addr == htonl(INADDR_ANY))
            a->v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return sizeof(a->v4);
    }
    if (inet_pton(AF_INET6, l->address, &a->v6.sin6_addr) != 1)
        return 0;
    a->v6.sin6_family = AF_INET6;
    a->v6.sin6_port = htons((uint16_t)l->port);
    if (IN6_IS_ADDR_UNSPECIFIED(&a->v6.sin6_addr))
        a->v6.sin6_addr = in6addr_loopback;
    return sizeof(a->v6);
}

static int connect_to(const struct config_listener *l, struct err *err)
{
    union address a;
    struct timeval wait = {.tv_sec = TIMEOUT_S};
    socklen_t n = loopback_for_all(l, &a);
    int fd = n ? socket(a.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) == 0 && connect(fd, &a.sa, n) == 0)
        return fd;
    err_errno(err, "%s port %llu", l->address, (unsigned long long)l->port);
    if (fd >= 0)
        close(fd);
    return -1;
}

// ------------------------------------------------------------------------------------------------------- plain, TLS

static ssize_t exchange_plain(int fd, const char *text, size_t n, char *answer, size_t cap, struct err *err)
{
    ssize_t got = send(fd, text, n, MSG_NOSIGNAL) == (ssize_t)n ? recv(fd, answer, cap, 0) : -1;
    if (got <= 0)
        err_set(err, ERR_IO, "no answer");
    return got;
}

static bool handshake(gnutls_session_t s, int fd, struct err *err)
{
    int rc;
    gnutls_transport_set_int(s, fd);
    gnutls_handshake_set_timeout(s, TIMEOUT_S * 1000);
    do
        rc = gnutls_handshake(s);
    while (rc < 0 && rc != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(rc));
    return rc == 0 || err_set(err, ERR_IO, "TLS: %s", gnutls_strerror(rc));
}

/* TLS 1.3 tells that our certificate is not wanted only after the handshake, as an alert in the answer's place. A session
 * ticket in that place is "again", as a socket's timeout is. */
static ssize_t exchange_in(gnutls_session_t s, const char *text, size_t n, char *answer, size_t cap, struct err *err)
{
    uint64_t end = app_now_ns() + TIMEOUT_S * UINT64_C(1000000000);
    ssize_t got = gnutls_record_send(s, text, n);
    if (got > 0)
        do
            got = gnutls_record_recv(s, answer, cap);
        while ((got == GNUTLS_E_AGAIN || got == GNUTLS_E_INTERRUPTED) && app_now_ns() < end);
    if (got <= 0)
        err_set(err, ERR_IO, "TLS: %s", got ? gnutls_strerror((int)got) : "no answer");
    return got;
}

/* The server's certificate is not verified: nothing secret is sent, and one that was renewed on disk is not in force before
 * the next SIGHUP. */
static ssize_t exchange_tls(int fd, const struct probe_cert *cert, const char *text, size_t n, char *answer, size_t cap, struct err *err)
{
    gnutls_certificate_credentials_t cred = NULL;
    gnutls_session_t s = NULL;
    ssize_t got = -1;
    int rc = gnutls_certificate_allocate_credentials(&cred);
    if (rc >= 0)
        rc = gnutls_certificate_set_x509_key_file(cred, cert->cert, cert->key, GNUTLS_X509_FMT_PEM);
    if (rc >= 0)
        rc = gnutls_init(&s, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);
    if (rc < 0 || (rc = gnutls_priority_set_direct(s, HTTP_TLS_PRIORITIES, NULL)) < 0 ||
        (rc = gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, cred)) < 0)
        err_set(err, ERR_IO, "%s, %s: %s", cert->cert, cert->key, gnutls_strerror(rc));
    else if (handshake(s, fd, err))
        got = exchange_in(s, text, n, answer, cap, err);
    if (s)
        gnutls_deinit(s);
    if (cred)
        gnutls_certificate_free_credentials(cred);
    return got;
}

bool probe_ask(const struct config *c, const char *what, const struct probe_cert *mine, struct err *err)
{
    const struct probe_cert own = {c->admin_tls.cert_file, c->admin_tls.key_file};
    char text[256], answer[1024];
    unsigned status = 0;
    if (c->admin.port == 0)
        return err_set(err, ERR_ARG, "admin.port is 0, so nobody knows where to ask");
    int fd = connect_to(&c->admin, err);
    if (fd < 0)
        return false;
    int n = snprintf(text, sizeof(text), "GET /%.64s HTTP/1.1\r\nHost: duetd\r\nConnection: close\r\n\r\n", what);
    ssize_t got = own.cert[0] ? exchange_tls(fd, mine->cert ? mine : &own, text, (size_t)n, answer, sizeof(answer) - 1, err)
                              : exchange_plain(fd, text, (size_t)n, answer, sizeof(answer) - 1, err);
    close(fd);
    if (got <= 0)
        return err_prefix(err, "%s port %llu", c->admin.address, (unsigned long long)c->admin.port);
    answer[got] = '\0';
    if (sscanf(answer, "HTTP/1.%*c %u", &status) != 1)
        return err_set(err, ERR_FORMAT, "%s port %llu: not HTTP", c->admin.address, (unsigned long long)c->admin.port);
    return status == 200 || err_set(err, ERR_STATE, "/%s: status %u", what, status);
}
