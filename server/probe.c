#include "server/probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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

bool probe_ask(const struct config *c, const char *what, struct err *err)
{
    char text[256], answer[1024];
    unsigned status = 0;
    if (c->admin.port == 0)
        return err_set(err, ERR_ARG, "admin.port is 0, so nobody knows where to ask");
    int fd = connect_to(&c->admin, err);
    if (fd < 0)
        return false;
    int n = snprintf(text, sizeof(text), "GET /%.64s HTTP/1.1\r\nHost: duetd\r\nConnection: close\r\n\r\n", what);
    ssize_t got = send(fd, text, (size_t)n, MSG_NOSIGNAL) == n ? recv(fd, answer, sizeof(answer) - 1, 0) : -1;
    close(fd);
    if (got <= 0)
        return err_set(err, ERR_IO, "%s port %llu: no answer", c->admin.address, (unsigned long long)c->admin.port);
    answer[got] = '\0';
    if (sscanf(answer, "HTTP/1.%*c %u", &status) != 1)
        return err_set(err, ERR_FORMAT, "%s port %llu: not HTTP", c->admin.address, (unsigned long long)c->admin.port);
    return status == 200 || err_set(err, ERR_STATE, "/%s: status %u", what, status);
}
