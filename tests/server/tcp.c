#include "tests/server/tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

uint64_t test_now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

int tcp_connect(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

void tcp_send(int fd, const void *p, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = send(fd, (const char *)p + done, n - done, MSG_NOSIGNAL);
        if (k <= 0)
            return;
        done += (size_t)k;
    }
}

void tcp_puts(int fd, const char *s)
{
    tcp_send(fd, s, strlen(s));
}

/* One recv within the deadline. -1: timeout, 0: closed. */
static ssize_t recv_until(int fd, char *p, size_t n, uint64_t end)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    uint64_t now = test_now_ms();
    if (poll(&pfd, 1, now < end ? (int)(end - now) : 0) != 1)
        return -1;
    ssize_t k = recv(fd, p, n, 0);
    return k < 0 ? 0 : k;
}

void tcp_read_reply(int fd, struct reply *r, int timeout_ms, bool head_request)
{
    uint64_t end = test_now_ms() + (uint64_t)timeout_ms;
    size_t n = 0;
    *r = (struct reply){0};
    while (n < 4 || memcmp(r->head + n - 4, "\r\n\r\n", 4) != 0) { // byte by byte: the body is not ours yet
        ssize_t k = n + 1 < sizeof(r->head) ? recv_until(fd, r->head + n, 1, end) : -1;
        if (k <= 0) {
            r->closed = k == 0;
            return;
        }
        n++;
    }
    char value[32];
    r->status = (unsigned)strtoul(r->head + 9, NULL, 10);
    if (r->status == 100) {
        tcp_read_reply(fd, r, timeout_ms, head_request);
        return;
    }
    r->body_len = head_request ? 0 : strtoul(reply_header(r, "Content-Length", value, sizeof(value)), NULL, 10);
    r->body = calloc(1, r->body_len + 1);
    for (size_t done = 0; done < r->body_len;) {
        ssize_t k = recv_until(fd, r->body + done, r->body_len - done, end);
        if (k <= 0) {
            r->status = 0;
            return;
        }
        done += (size_t)k;
    }
}

void reply_fini(struct reply *r)
{
    free(r->body);
    r->body = NULL;
}

const char *reply_header(const struct reply *r, const char *name, char *out, size_t cap)
{
    size_t n = strlen(name);
    out[0] = '\0';
    for (const char *line = strstr(r->head, "\r\n"); line && line[2] != '\r'; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, n) != 0 || line[2 + n] != ':')
            continue;
        const char *v = line + 3 + n;
        v += strspn(v, " ");
        snprintf(out, cap, "%.*s", (int)strcspn(v, "\r"), v);
        break;
    }
    return out;
}

void tcp_exchange(uint16_t port, const char *bytes, size_t n, struct reply *r)
{
    int fd = tcp_connect(port);
    tcp_send(fd, bytes, n);
    tcp_read_reply(fd, r, 5000, false);
    close(fd);
}

void tcp_get(uint16_t port, const char *path, struct reply *r)
{
    char text[2048];
    int n = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: t\r\n\r\n", path);
    tcp_exchange(port, text, (size_t)n, r);
}

void tcp_post(uint16_t port, const char *path, const char *body, struct reply *r)
{
    char head[1024];
    int n = snprintf(head, sizeof(head),
                     "POST %s HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                     path, strlen(body));
    int fd = tcp_connect(port);
    tcp_send(fd, head, (size_t)n);
    tcp_puts(fd, body);
    tcp_read_reply(fd, r, 5000, false);
    close(fd);
}

bool tcp_is_closed(int fd, int timeout_ms)
{
    char sink[4096];
    uint64_t end = test_now_ms() + (uint64_t)timeout_ms;
    for (;;) {
        ssize_t k = recv_until(fd, sink, sizeof(sink), end);
        if (k <= 0)
            return k == 0;
    }
}
