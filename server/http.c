/* http.c - a listener: its sockets and its loops. */
#include "server/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/http_priv.h"

#define BACKLOG 1024

// -------------------------------------------------------------------------------------------------------- sockets

union address {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static socklen_t parse_address(const char *text, uint16_t port, union address *out)
{
    *out = (union address){0};
    if (inet_pton(AF_INET, text, &out->v4.sin_addr) == 1) {
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = htons(port);
        return sizeof(out->v4);
    }
    if (inet_pton(AF_INET6, text, &out->v6.sin6_addr) == 1) {
        out->v6.sin6_family = AF_INET6;
        out->v6.sin6_port = htons(port);
        return sizeof(out->v6);
    }
    return 0;
}

/* A bound socket, or -1. `share`: SO_REUSEPORT, so that each loop has one of its own and the kernel spreads
 * connections. */
static int bind_socket(const union address *a, socklen_t n, bool share)
{
    int one = 1, fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
        (!share || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) == 0) && bind(fd, &a->sa, n) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static uint16_t bound_port(int fd)
{
    union address a;
    socklen_t n = sizeof(a);
    if (getsockname(fd, &a.sa, &n) != 0)
        return 0;
    return ntohs(a.sa.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
}

/* SO_REUSEPORT would let a second daemon of the same user share a port in silence: a socket without it finds the first
 * one. */
static bool port_is_free(const union address *a, socklen_t n)
{
    int fd = bind_socket(a, n, false);
    if (fd < 0)
        return false;
    bool ok = listen(fd, 1) == 0;
    int saved = errno;
    close(fd);
    errno = saved;
    return ok;
}

/* All loops on one socket: whichever is awake first accepts. */
static bool share_passed(struct http *h, struct err *err)
{
    h->port = bound_port(h->p.passed_fd);
    http_passed_address(h->p.passed_fd, h->address, sizeof(h->address));
    for (unsigned i = 0; i < h->n_loops; i++)
        if ((h->loop[i].listen_fd = fcntl(h->p.passed_fd, F_DUPFD_CLOEXEC, 0)) < 0)
            return err_errno(err, "passed socket %d", h->p.passed_fd);
    return true;
}

void http_passed_address(int fd, char *out, size_t cap)
{
    union address a = {0};
    socklen_t n = sizeof(a);
    out[0] = '\0';
    if (getsockname(fd, &a.sa, &n) == 0)
        inet_ntop(a.sa.sa_family, a.sa.sa_family == AF_INET6 ? (void *)&a.v6.sin6_addr : (void *)&a.v4.sin_addr, out, (socklen_t)cap);
}

static bool open_sockets(struct http *h, struct err *err)
{
    if (h->p.passed_fd > 0)
        return share_passed(h, err);
    union address a;
    socklen_t n = parse_address(h->address, h->p.port, &a);
    if (!n)
        return err_set(err, ERR_ARG, "\"%s\" is no numeric IPv4 or IPv6 address", h->address);
    if (h->p.port && !port_is_free(&a, n))
        return err_errno(err, "cannot listen on %s port %u", h->address, h->p.port);
    for (unsigned i = 0; i < h->n_loops; i++) {
        struct http_loop *l = &h->loop[i];
        if ((l->listen_fd = bind_socket(&a, n, true)) < 0 || listen(l->listen_fd, BACKLOG) != 0)
            return err_errno(err, "cannot listen on %s port %u", h->address, h->p.port);
        if (i == 0) // port 0: the others take the one that the first was given
            h->port = bound_port(l->listen_fd);
        parse_address(h->address, h->port, &a);
    }
    return true;
}

// ------------------------------------------------------------------------------------------------------ listeners

struct http *http_start(const struct http_params *p, struct err *err)
{
    unsigned n_loops = p->threads ? p->threads : 1;
    struct http *h = calloc(1, sizeof(*h) + n_loops * sizeof(h->loop[0]));
    if (!h) {
        err_set(err, ERR_NOMEM, "out of memory");
        return NULL;
    }
    signal(SIGPIPE, SIG_IGN);
    h->p = *p;
    h->n_loops = n_loops;
    snprintf(h->address, sizeof(h->address), "%s", p->address);
    for (unsigned i = 0; i < n_loops; i++) {
        h->loop[i].h = h;
        h->loop[i].listen_fd = h->loop[i].epoll_fd = h->loop[i].wake_fd = -1;
    }
    bool ok = open_sockets(h, err);
    for (unsigned i = 0; ok && i < n_loops; i++)
        ok = http_loop_open(&h->loop[i], err);
    for (unsigned i = 0; ok && i < n_loops; i++)
        ok = http_loop_start(&h->loop[i], err);
    if (ok)
        return h;
    http_stop(h);
    return NULL;
}

static void wake_all(struct http *h)
{
    for (unsigned i = 0; i < h->n_loops; i++)
        if (h->loop[i].wake_fd >= 0)
            http_loop_wake(&h->loop[i]);
}

void http_drain(struct http *h)
{
    atomic_store(&h->draining, true);
    wake_all(h);
}

void http_halt(struct http *h)
{
    if (!h || h->halted)
        return;
    h->halted = true;
    atomic_store(&h->draining, true);
    atomic_store_explicit(&h->stopping, true, memory_order_release);
    wake_all(h);
    for (unsigned i = 0; i < h->n_loops; i++)
        if (h->loop[i].thread_started)
            pthread_join(h->loop[i].thread, NULL);
    for (unsigned i = 0; i < h->n_loops; i++)
        http_loop_close(&h->loop[i]);
}

void http_stop(struct http *h)
{
    http_halt(h);
    free(h);
}

uint16_t http_port(const struct http *h)
{
    return h->port;
}

unsigned http_in_flight(const struct http *h)
{
    unsigned n = 0;
    for (unsigned i = 0; i < h->n_loops; i++)
        n += atomic_load_explicit(&h->loop[i].in_flight, memory_order_acquire);
    return n;
}

unsigned http_connections(const struct http *h)
{
    unsigned n = 0;
    for (unsigned i = 0; i < h->n_loops; i++)
        n += atomic_load_explicit(&h->loop[i].n_conns, memory_order_relaxed);
    return n;
}

uint64_t http_loop_age_ms(const struct http *h)
{
    uint64_t now = http_now_ns(), oldest = now;
    for (unsigned i = 0; i < h->n_loops; i++) {
        uint64_t at = atomic_load_explicit(&h->loop[i].turned_ns, memory_order_relaxed);
        if (at < oldest)
            oldest = at;
    }
    return (now - oldest) / 1000000;
}
