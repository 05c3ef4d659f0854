/* load.c - the loop: send what is due, wait for sockets or for the next request's time, count what comes back. */
#include "cli/load.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "cli/client.h"
#include "cli/load_priv.h"
#include "cli/load_tls.h"
#include "core/base/rng.h"

#define EVENTS 256
#define TICK_NS 20000000ull   // deadlines and progress are looked at so often
#define RETRY_NS 100000000ull // after a refused connection
#define CONNECT_MS 3000

const char *const load_error_names[LOAD_ERRORS] = {"connect", "closed", "timeout", "protocol"};

struct load {
    const struct load_params *p;
    struct load_result *r;
    struct load_conn *conn;
    uint32_t *order; // [requests] a permutation
    uint64_t *idle;  // stack of idle connections
    size_t n_idle;
    int epoll_fd, timer_fd;
    uint64_t start_ns, end_ns; // nothing is due from then on
    uint64_t now_ns, tick_ns;
    uint64_t next; // request to send
    size_t n_busy;
    double second; // next progress
};

static uint64_t clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t load_failures(const struct load_result *r)
{
    uint64_t n = 0;
    for (int i = 0; i < LOAD_ERRORS; i++)
        n += r->error[i];
    for (unsigned s = 0; s < 600; s++)
        n += s / 100 == 2 ? 0 : r->status[s];
    return n;
}

// ------------------------------------------------------------------------------------------------ target, requests

static bool is_https(const char *url)
{
    return strncasecmp(url, "https://", 8) == 0;
}

/* url: of http:// or https://. */
static bool split_url(const char *url, char host[256], char port[8], struct load_target *out, struct err *err)
{
    bool secure = is_https(url);
    const char *at = url + (secure ? 8 : 7), *end = at + strcspn(at, "/"), *colon = memrchr(at, ':', (size_t)(end - at));
    const char *bracket = memchr(at, ']', (size_t)(end - at));
    if (colon && bracket && colon < bracket)
        colon = NULL;
    const char *host_end = colon ? colon : end;
    int bare = bracket && *at == '[';
    int n = (int)(host_end - at) - 2 * bare;
    if (n <= 0 || n > 255 || (colon && (end - colon < 2 || end - colon > 6)) || strlen(end) >= sizeof(out->prefix))
        return err_set(err, ERR_ARG, "\"%s\": want http://HOST:PORT", url);
    snprintf(host, 256, "%.*s", n, at + bare);
    snprintf(port, 8, "%.*s", colon ? (int)(end - colon - 1) : 3, colon ? colon + 1 : secure ? "443" : "80");
    snprintf(out->host, sizeof(out->host), "%.*s", (int)(end - at), at);
    snprintf(out->prefix, sizeof(out->prefix), "%.*s", (int)(strlen(end) - (end[0] && end[strlen(end) - 1] == '/')),
             end);
    return true;
}

bool load_resolve(const char *url, const struct client_tls *tls, struct load_target *out, struct err *err)
{
    char host[256], port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    *out = (struct load_target){0};
    if (!client_is_url(url))
        return err_set(err, ERR_ARG, "\"%s\": want http://HOST:PORT", url);
    if (!client_tls_check(tls, err) || !split_url(url, host, port, out, err))
        return false;
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc != 0)
        return err_set(err, ERR_NOT_FOUND, "%s: %s", host, gai_strerror(rc));
    memcpy(&out->address, found->ai_addr, found->ai_addrlen);
    out->n = found->ai_addrlen;
    freeaddrinfo(found);
    return !is_https(url) || (out->tls = load_tls_new(tls, host, err)) != NULL;
}

void load_target_fini(struct load_target *t)
{
    load_tls_free(t->tls);
    t->tls = NULL;
}

bool load_requests_add(struct load_requests *r, const struct load_target *t, const char *path, const char *body,
                       size_t n, struct err *err)
{
    if (r->n == r->cap) {
        uint32_t cap = r->cap ? 2 * r->cap : 64;
        size_t *end = mem_grow(r->end, cap, sizeof(*end), err);
        if (!end)
            return false;
        r->end = end;
        r->cap = cap;
    }
    buf_printf(&r->bytes, "%s %s%s HTTP/1.1\r\nHost: %s\r\n", body ? "POST" : "GET", t->prefix, path, t->host);
    if (body)
        buf_printf(&r->bytes, "Content-Type: application/json\r\nContent-Length: %zu\r\n", n);
    size_t before = r->bytes.len;
    if (!client_put_api_key(&r->bytes, err))
        return false;
    buf_puts(&r->bytes, r->bytes.len > before ? "\r\n\r\n" : "\r\n");
    buf_put(&r->bytes, body ? body : "", body ? n : 0);
    r->end[r->n++] = r->bytes.len;
    return !r->bytes.failed || err_set(err, ERR_NOMEM, "out of memory");
}

void load_requests_fini(struct load_requests *r)
{
    buf_fini(&r->bytes);
    free(r->end);
    *r = (struct load_requests){0};
}

// ---------------------------------------------------------------------------------------------------------- sockets

static void watch(struct load *l, size_t i, int op)
{
    struct load_conn *c = &l->conn[i];
    struct epoll_event e = {.events = EPOLLIN | (c->wants_out ? EPOLLOUT : 0u), .data.u64 = i};
    epoll_ctl(l->epoll_fd, op, c->fd, &e);
}

static void want_out(struct load *l, size_t i, bool want)
{
    if (l->conn[i].wants_out == want)
        return;
    l->conn[i].wants_out = want;
    watch(l, i, EPOLL_CTL_MOD);
}

static void reopen(struct load *l, size_t i)
{
    struct load_conn *c = &l->conn[i];
    if (load_conn_open(c, l->p->target)) {
        watch(l, i, EPOLL_CTL_ADD);
    } else {
        l->r->error[LOAD_CONNECT]++;
        c->retry_ns = l->now_ns + RETRY_NS;
    }
}

/* The request that connection i was on is lost. */
static void lose(struct load *l, size_t i, enum load_error e)
{
    l->r->error[e]++;
    if (l->conn[i].state == LC_BUSY)
        l->n_busy--;
    load_conn_close(&l->conn[i]);
    l->conn[i].retry_ns = e == LOAD_CONNECT ? l->now_ns + RETRY_NS : 0;
}

static void drop_idle(struct load *l, size_t i)
{
    for (size_t k = 0; k < l->n_idle; k++)
        if (l->idle[k] == i)
            l->idle[k--] = l->idle[--l->n_idle];
}

// --------------------------------------------------------------------------------------------------------- requests

static uint64_t due_of(const struct load *l, uint64_t i)
{
    return l->start_ns + (uint64_t)((double)i * 1e9 / l->p->rate);
}

static void send_next(struct load *l, uint64_t due)
{
    size_t i = (size_t)l->idle[--l->n_idle];
    struct load_conn *c = &l->conn[i];
    const struct load_requests *q = l->p->requests;
    c->request = l->order[l->next++ % q->n];
    c->due_ns = due;
    c->sent_ns = l->now_ns;
    c->mark = l->p->mark ? atomic_load(l->p->mark) : 0;
    size_t from = c->request ? q->end[c->request - 1] : 0;
    load_conn_send(c, q->bytes.data + from, q->end[c->request] - from);
    l->n_busy++;
    if (!load_conn_flush(c))
        lose(l, i, LOAD_CLOSED);
    else
        want_out(l, i, c->out_n > 0);
}

static void send_due(struct load *l)
{
    l->now_ns = clock_ns();
    if (l->p->rate <= 0) {
        while (l->n_idle && l->now_ns < l->end_ns)
            send_next(l, l->now_ns);
        return;
    }
    for (uint64_t due; l->n_idle && (due = due_of(l, l->next)) <= l->now_ns && due < l->end_ns;)
        send_next(l, due);
}

/* Wake for the next request that is due, if a connection waits for it. */
static void arm(struct load *l)
{
    struct itimerspec t = {0};
    uint64_t at = l->tick_ns;
    if (l->p->rate > 0 && l->n_idle && due_of(l, l->next) < at && due_of(l, l->next) < l->end_ns)
        at = due_of(l, l->next);
    t.it_value.tv_sec = (time_t)(at / 1000000000u);
    t.it_value.tv_nsec = (long)(at % 1000000000u);
    timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &t, NULL);
}

static void record(struct load *l, const struct load_conn *c, bool timely)
{
    if (timely && c->status / 100 != 2)
        return;
    histogram_add(&l->r->latency, l->now_ns - c->due_ns);
    histogram_add(&l->r->service, l->now_ns - c->sent_ns);
}

static void answered(struct load *l, size_t i)
{
    struct load_conn *c = &l->conn[i];
    l->n_busy--;
    record(l, c, true);
    l->r->answered++;
    l->r->bytes += c->body_n;
    l->r->status[c->status]++;
    if (l->p->on_answer) {
        struct load_answer a = {c->request, c->status, c->in.data + c->head_n, c->body_n, l->now_ns - c->due_ns,
                                c->mark};
        l->p->on_answer(l->p->ctx, &a);
    }
    load_conn_next(c);
    if (c->state == LC_IDLE)
        l->idle[l->n_idle++] = i;
    else
        reopen(l, i);
}

// ------------------------------------------------------------------------------------------------------------- loop

static void on_readable(struct load *l, size_t i)
{
    struct load_conn *c = &l->conn[i];
    bool busy = c->state == LC_BUSY;
    enum load_event e = load_conn_read(c);
    if (e == LE_NOTHING)
        return;
    if (e == LE_ANSWER && c->out_n == 0) {
        answered(l, i);
    } else if (busy) { // closed under a request, or not HTTP, or answered before it was sent
        lose(l, i, e == LE_CLOSED ? LOAD_CLOSED : LOAD_PROTOCOL);
        reopen(l, i);
    } else { // an idle connection was closed: the server's right
        drop_idle(l, i);
        load_conn_close(c);
        reopen(l, i);
    }
}

static void on_connecting(struct load *l, size_t i)
{
    struct load_conn *c = &l->conn[i];
    if (!load_conn_connected(c)) {
        lose(l, i, LOAD_CONNECT);
        return;
    }
    want_out(l, i, load_conn_wants_out(c));
    if (c->state == LC_IDLE)
        l->idle[l->n_idle++] = i;
}

static void on_event(struct load *l, const struct epoll_event *e)
{
    size_t i = (size_t)e->data.u64;
    struct load_conn *c = &l->conn[i];
    if (c->fd < 0)
        return;
    if (c->state == LC_CONNECTING) {
        on_connecting(l, i);
        return;
    }
    if (c->state == LC_BUSY && c->out_n && (e->events & EPOLLOUT)) {
        if (!load_conn_flush(c)) {
            lose(l, i, LOAD_CLOSED);
            reopen(l, i);
            return;
        }
        want_out(l, i, c->out_n > 0);
    }
    if (e->events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        on_readable(l, i);
}

static void check_deadlines(struct load *l)
{
    for (size_t i = 0; i < l->p->connections; i++) {
        struct load_conn *c = &l->conn[i];
        if (c->state == LC_BUSY && l->now_ns - c->sent_ns > l->p->timeout_ms * 1000000) {
            record(l, c, false);
            lose(l, i, LOAD_TIMEOUT);
        }
        if (c->state == LC_DOWN && l->now_ns >= c->retry_ns)
            reopen(l, i);
    }
}

static void tick(struct load *l)
{
    if (l->now_ns < l->tick_ns)
        return;
    l->tick_ns = l->now_ns + TICK_NS;
    check_deadlines(l);
    double elapsed = (double)(l->now_ns - l->start_ns) * 1e-9;
    if (l->p->on_second && elapsed >= l->second) {
        l->second += 1;
        l->p->on_second(l->p->ctx, elapsed, l->r);
    }
}

static void turn(struct load *l)
{
    struct epoll_event e[EVENTS];
    uint64_t count;
    arm(l);
    int n = epoll_wait(l->epoll_fd, e, EVENTS, -1);
    l->now_ns = clock_ns();
    for (int i = 0; i < n; i++)
        if (e[i].data.u64 == UINT64_MAX)
            (void)!read(l->timer_fd, &count, sizeof(count));
        else
            on_event(l, &e[i]);
    tick(l);
}

/* What was due and found no connection waited at least until the end. */
static void charge_unsent(struct load *l, uint64_t ended)
{
    uint64_t due;
    for (uint64_t i = l->next; (due = due_of(l, i)) < ended; i++) {
        l->r->unsent++;
        histogram_add(&l->r->latency, ended - due);
    }
}

static void run(struct load *l)
{
    const struct load_params *p = l->p;
    l->start_ns = l->now_ns = clock_ns();
    l->end_ns = l->start_ns + (uint64_t)(p->seconds * 1e9);
    l->tick_ns = l->start_ns + TICK_NS;
    for (size_t i = 0; i < p->connections; i++)
        reopen(l, i);
    while (l->now_ns < l->end_ns && !(p->stop && atomic_load(p->stop))) {
        send_due(l);
        turn(l);
    }
    uint64_t ended = l->now_ns < l->end_ns ? l->now_ns : l->end_ns;
    l->r->seconds = (double)(ended - l->start_ns) * 1e-9;
    if (p->rate > 0)
        charge_unsent(l, ended);
    l->end_ns = ended;
    while (l->n_busy) // each ends by its answer or its timeout
        turn(l);
}

/* One answer of any kind: in TLS 1.3 a server says after the handshake that it wants a certificate. Blocking, with the socket's
 * timeouts; "again" is one of those, or a session ticket. */
static bool can_speak_tls(const struct load_target *t, int fd, struct err *err)
{
    static const char ask[] = "HEAD /livez HTTP/1.0\r\n\r\n";
    char byte;
    uint64_t end = clock_ns() + CONNECT_MS * UINT64_C(1000000);
    struct gnutls_session_int *s = load_tls_open(t->tls, fd);
    int done = s ? 0 : -1;
    ssize_t got = -1;
    while (done == 0 && clock_ns() < end)
        done = load_tls_handshake(s, err);
    if (done > 0 && load_tls_send(s, ask, sizeof(ask) - 1) > 0)
        do
            got = load_tls_recv(s, &byte, 1);
        while (got < 0 && errno == EAGAIN && clock_ns() < end);
    load_tls_close(s);
    if (done > 0 && got <= 0)
        err_set(err, ERR_IO, "TLS: no answer; does the server want a certificate (--cert, --key)?");
    return got > 0 || err_set(err, ERR_IO, "TLS: no answer");
}

static bool can_connect(const struct load_target *t, struct err *err)
{
    struct timeval wait = {.tv_sec = CONNECT_MS / 1000};
    int fd = socket(t->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) == 0 &&
              setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0 &&
              connect(fd, (const struct sockaddr *)&t->address, t->n) == 0;
    if (!ok)
        err_errno(err, "cannot connect to %s", t->host);
    ok = ok && (!t->tls || can_speak_tls(t, fd, err) || err_prefix(err, "%s", t->host));
    if (fd >= 0)
        close(fd);
    return ok;
}

static void shuffle(uint32_t *order, uint32_t n, uint64_t seed)
{
    struct rng g;
    rng_init(&g, seed);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = rng_below(&g, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}

static bool prepare(struct load *l, struct err *err)
{
    const struct load_params *p = l->p;
    if (p->requests->n == 0)
        return err_set(err, ERR_ARG, "there is no request to send");
    if (!(l->conn = mem_array(p->connections, sizeof(*l->conn), err)) ||
        !(l->idle = mem_array(p->connections, sizeof(*l->idle), err)) ||
        !(l->order = mem_array(p->requests->n, sizeof(*l->order), err)))
        return false;
    for (size_t i = 0; i < p->connections; i++)
        l->conn[i].fd = -1;
    shuffle(l->order, p->requests->n, p->seed);
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = UINT64_MAX};
    if ((l->epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0 ||
        (l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) < 0 ||
        epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->timer_fd, &e) != 0)
        return err_errno(err, "epoll");
    return can_connect(p->target, err);
}

bool load_run(const struct load_params *p, struct load_result *r, struct err *err)
{
    struct load l = {.p = p, .r = r, .epoll_fd = -1, .timer_fd = -1, .second = 1};
    bool ok = prepare(&l, err);
    if (ok)
        run(&l);
    for (size_t i = 0; l.conn && i < p->connections; i++) {
        load_conn_close(&l.conn[i]);
        buf_fini(&l.conn[i].in);
    }
    if (l.epoll_fd >= 0)
        close(l.epoll_fd);
    if (l.timer_fd >= 0)
        close(l.timer_fd);
    free(l.conn);
    free(l.idle);
    free(l.order);
    return ok;
}
