#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "cli/load_priv.h"

#define READ_BYTES 65536
#define HEAD_MAX 65536

bool load_conn_open(struct load_conn *c, const struct load_target *t)
{
    int one = 1;
    c->fd = socket(t->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return false;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    c->state = LC_CONNECTING;
    c->wants_out = true;
    if ((connect(c->fd, (const struct sockaddr *)&t->address, t->n) == 0 || errno == EINPROGRESS) &&
        (!t->tls || (c->tls = load_tls_open(t->tls, c->fd))))
        return true;
    load_conn_close(c);
    return false;
}

void load_conn_close(struct load_conn *c)
{
    load_tls_close(c->tls);
    c->tls = NULL;
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->state = LC_DOWN;
    c->out_n = c->head_n = c->body_n = 0;
    c->until_close = c->closes = false;
    buf_reset(&c->in);
}

bool load_conn_connected(struct load_conn *c)
{
    int failed = 0;
    socklen_t n = sizeof(failed);
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &failed, &n) != 0 || failed)
        return false;
    int done = c->tls ? load_tls_handshake(c->tls, NULL) : 1;
    if (done > 0)
        c->state = LC_IDLE;
    return done >= 0;
}

bool load_conn_wants_out(const struct load_conn *c)
{
    return c->state == LC_CONNECTING ? load_tls_wants_out(c->tls) : c->out_n > 0;
}

void load_conn_send(struct load_conn *c, const char *request, size_t n)
{
    c->state = LC_BUSY;
    c->out = request;
    c->out_n = n;
}

bool load_conn_flush(struct load_conn *c)
{
    while (c->out_n) {
        ssize_t n = c->tls ? load_tls_send(c->tls, c->out, c->out_n) : send(c->fd, c->out, c->out_n, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        c->out += n;
        c->out_n -= (size_t)n;
    }
    return true;
}

// --------------------------------------------------------------------------------------------------------- answers

/* Value of a header in the head (NUL behind it), or NULL. */
static const char *header(const char *head, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line && line[2] != '\r'; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, n) == 0 && line[2 + n] == ':')
            return line + 3 + n + strspn(line + 3 + n, " \t");
    return NULL;
}

/* The head is complete: what it says about the body. */
static bool read_head(struct load_conn *c)
{
    char *head = c->in.data, kept = head[c->head_n - 1];
    head[c->head_n - 1] = '\0'; // the last line feed: strings end here
    const char *length = header(head, "Content-Length"), *coding = header(head, "Transfer-Encoding"),
               *connection = header(head, "Connection");
    bool ok = strncmp(head, "HTTP/1.", 7) == 0 && head[7] && head[8] == ' ' && !coding;
    c->status = ok ? (unsigned)strtoul(head + 9, NULL, 10) : 0;
    c->closes = head[7] == '0' || (connection && strncasecmp(connection, "close", 5) == 0);
    c->until_close = !length && c->status != 204 && c->status != 304;
    c->closes |= c->until_close;
    c->body_n = length ? strtoull(length, NULL, 10) : 0;
    head[c->head_n - 1] = kept;
    return ok && c->status >= 200 && c->status < 600;
}

static enum load_event look(struct load_conn *c)
{
    if (!c->head_n) {
        const char *end = c->in.data ? memmem(c->in.data, c->in.len, "\r\n\r\n", 4) : NULL;
        if (!end)
            return c->in.len > HEAD_MAX ? LE_PROTOCOL : LE_NOTHING;
        c->head_n = (size_t)(end - c->in.data) + 4;
        if (!read_head(c))
            return LE_PROTOCOL;
    }
    if (c->until_close)
        return LE_NOTHING;
    return c->in.len - c->head_n >= c->body_n ? LE_ANSWER : LE_NOTHING;
}

/* The other side closed. */
static enum load_event at_end(struct load_conn *c)
{
    if (c->state != LC_BUSY || !c->head_n || !c->until_close)
        return LE_CLOSED;
    c->body_n = c->in.len - c->head_n;
    return LE_ANSWER;
}

enum load_event load_conn_read(struct load_conn *c)
{
    for (;;) {
        if (!buf_reserve(&c->in, READ_BYTES))
            return LE_CLOSED;
        char *to = c->in.data + c->in.len;
        ssize_t n = c->tls ? load_tls_recv(c->tls, to, READ_BYTES) : recv(c->fd, to, READ_BYTES, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return LE_NOTHING;
        if (n <= 0)
            return n == 0 ? at_end(c) : LE_CLOSED;
        c->in.len += (size_t)n;
        c->in.data[c->in.len] = '\0';
        if (c->state != LC_BUSY)
            return LE_PROTOCOL; // an answer that nobody asked for
        enum load_event e = look(c);
        if (e != LE_NOTHING)
            return e;
        if (n < READ_BYTES && !c->tls) // TLS hands out a record at a time, and may hold another
            return LE_NOTHING;
    }
}

void load_conn_next(struct load_conn *c)
{
    if (c->closes) {
        load_conn_close(c);
        return;
    }
    c->head_n = c->body_n = 0;
    buf_reset(&c->in);
    c->state = LC_IDLE;
}
