/* tcp.h - a small HTTP client over raw sockets for tests: sends exactly the bytes it is given, reads one answer at a time. */
#ifndef DUET_TESTS_SERVER_TCP_H
#define DUET_TESTS_SERVER_TCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int tcp_connect(uint16_t port);                      // to 127.0.0.1; asserts
void tcp_send(int fd, const void *p, size_t n);      // whole; errors are left to the reader
void tcp_puts(int fd, const char *s);

struct reply {
    unsigned status;      // 0: the connection closed or nothing came in time
    char head[4096];      // status line and headers, cut to fit
    char *body;           // NUL-terminated; for free() through reply_fini
    size_t body_len;
    bool closed;          // nothing came and the peer has closed
};
/* One answer within timeout_ms. `head_request`: no body follows the headers. */
void tcp_read_reply(int fd, struct reply *r, int timeout_ms, bool head_request);
void reply_fini(struct reply *r);
const char *reply_header(const struct reply *r, const char *name, char *out, size_t cap); // "" if absent

/* Connect, send, read one answer, close. */
void tcp_exchange(uint16_t port, const char *bytes, size_t n, struct reply *r);
void tcp_get(uint16_t port, const char *path, struct reply *r);
void tcp_post(uint16_t port, const char *path, const char *body, struct reply *r);
bool tcp_is_closed(int fd, int timeout_ms); // end of stream (or reset) seen within the time; swallows data

uint64_t test_now_ms(void);

#endif
