/* load_tls.h - TLS of a load's connections, by GnuTLS without blocking.
 * Place:   load_conn.c speaks through it, load.c makes it with the target; other commands have libcurl's (client.h).
 * Threads: a struct load_tls may be shared, a session belongs to its connection. */
#ifndef DUET_CLI_LOAD_TLS_H
#define DUET_CLI_LOAD_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "cli/client.h"
#include "core/base/err.h"

struct load_tls; // whom to trust, who we are, and the host that the server's certificate must name
struct load_tls *load_tls_new(const struct client_tls *files, const char *host, struct err *err);
void load_tls_free(struct load_tls *t); // after its sessions; NULL is fine

struct gnutls_session_int;

/* For a connected socket. NULL: out of memory. */
struct gnutls_session_int *load_tls_open(const struct load_tls *t, int fd);
void load_tls_close(struct gnutls_session_int *s); // NULL is fine; leaves the socket

/* 1: done; 0: go on when the socket is ready, for writing if load_tls_wants_out; -1: no trust, or no TLS: *err. */
int load_tls_handshake(struct gnutls_session_int *s, struct err *err);
bool load_tls_wants_out(struct gnutls_session_int *s);

/* As send and recv: -1 and errno, EAGAIN where the socket must be waited for. */
ssize_t load_tls_send(struct gnutls_session_int *s, const void *p, size_t n);
ssize_t load_tls_recv(struct gnutls_session_int *s, void *p, size_t n);

#endif
