/* http_tls.h - the certificates of a listener that speaks TLS, which may be replaced while it runs.
 * Each connection keeps the certificate that was in force when it was accepted; the next one gets the new one.
 * TLS 1.2 and 1.3. With a client CA the handshake fails for clients without a certificate of that CA that may be a client's (extended key usage).
 * Threads: http_tls_hold from any loop; http_tls_replace from one thread at a time. */
#ifndef DUET_SERVER_HTTP_TLS_H
#define DUET_SERVER_HTTP_TLS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"

#define HTTP_TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

struct http_cert; // key, chain, client CA: counted
struct http_tls;  // the one in force

struct http_tls_files {
    const char *section;   // of the configuration, for messages: "tls" or "admin_tls"
    const char *cert;      // PEM: the server's certificate, then the rest of its chain
    const char *key;       // PEM, without a password
    const char *client_ca; // PEM; "" = clients need no certificate
};

/* NULL: which file, and what is wrong with it. Count 1. */
struct http_cert *http_cert_read(const struct http_tls_files *f, struct err *err);
void http_cert_release(struct http_cert *c); // NULL is fine

struct http_tls *http_tls_new(struct http_cert *c, struct err *err); // takes c, on failure too
void http_tls_free(struct http_tls *t);                              // after the listener has stopped; NULL is fine
void http_tls_replace(struct http_tls *t, struct http_cert *c);      // takes c
int64_t http_tls_expires(struct http_tls *t);                        // Unix time at which the certificate in force expires

// ------------------------------------------------------------------------------------------- for http_loop.c, http_conn.c

struct gnutls_session_int;

struct http_cert *http_tls_hold(struct http_tls *t); // the one in force, for http_cert_release
const char *http_cert_pem(const struct http_cert *c);
const char *http_cert_key_pem(const struct http_cert *c);
/* Before the handshake: `c` instead of what libmicrohttpd was started with. */
bool http_cert_use(const struct http_cert *c, struct gnutls_session_int *session);

#endif
