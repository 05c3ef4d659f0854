/* http_loop.c - one event loop: an epoll of our own around libmicrohttpd's, the stack of completed requests, and the
 * deadlines.
 *
 *     own epoll --+-- libmicrohttpd's epoll descriptor (nested: polling it does not eat its edge-triggered events,
 * waiting on it would)
 *                 +-- eventfd: a request was completed elsewhere, or the loop is to stop
 *
 * Internal epoll (MHD_USE_EPOLL_INTERNAL_THREAD) is not used because it stalls with more than about 120 busy keep-alive
 * connections. Deadlines are ours because libmicrohttpd's timeout counts inactivity only, so a client that drips a byte
 * a second would live for ever; all its connections belong to this thread, so a walk over a plain list every 50 ms and
 * a shutdown(2) is all it takes. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "server/http_priv.h"
#include "server/priority.h"

#define REAP_NS 50000000u         // how often deadlines are looked at
#define IDLE_WAIT_MS 1000         // an empty loop turns this often, so that liveness can see it
#define PEEK_AFTER_NS 500000000u  // idle for so long: look once whether the peer has closed
#define SLEPT_NS 5000u            // epoll_wait longer than this: the loop had nothing to do
#define STOP_GRACE_NS 2000000000u // for answers that are being written when the loop stops

uint64_t http_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

// -------------------------------------------------------------------------------------------------- spare answers

struct http_answer *http_answer_take(struct http_loop *l)
{
    struct http_answer *a = l->spare_answer;
    if (!a) {
        if (!(a = calloc(1, sizeof(*a))))
            return NULL;
        a->loop = l;
        return a;
    }
    l->spare_answer = a->next;
    l->n_spare_answers--;
    l->spare_bytes -= a->resp.body.cap;
    struct http_response *r = &a->resp;
    buf_reset(&r->body);
    r->status = r->n_extra = 0;
    r->content_type = NULL;
    r->close = false;
    return a;
}

void http_answer_put(void *answer)
{
    struct http_answer *a = answer;
    if (!a)
        return;
    struct http_loop *l = a->loop;
    if (l->n_spare_answers == HTTP_SPARE_MAX || l->spare_bytes + a->resp.body.cap > HTTP_SPARE_BYTES ||
        a->resp.body.failed) {
        buf_fini(&a->resp.body);
        free(a);
        return;
    }
    l->spare_bytes += a->resp.body.cap;
    a->next = l->spare_answer;
    l->spare_answer = a;
    l->n_spare_answers++;
}

// ---------------------------------------------------------------------------------------------------------- turns

void http_loop_wake(struct http_loop *l)
{
    uint64_t one = 1;
    ssize_t done = write(l->wake_fd, &one, sizeof(one));
    (void)done; // EAGAIN: the counter is full, so the loop is awake
}

static int wait_ms(const struct http_loop *l)
{
    MHD_UNSIGNED_LONG_LONG want;
    if (MHD_get_timeout(l->mhd, &want) == MHD_YES && want == 0)
        return 0;
    return l->conns ? (int)(REAP_NS / 1000000) : IDLE_WAIT_MS;
}

/* Completed requests, oldest first, go back to libmicrohttpd; its next run calls on_request for them. */
static void resume_completed(struct http_loop *l)
{
    struct http_conn *stack = atomic_exchange_explicit(&l->completed, NULL, memory_order_acquire), *queue = NULL;
    while (stack) {
        struct http_conn *c = stack;
        stack = c->next_completed;
        c->next_completed = queue;
        queue = c;
    }
    while (queue) {
        struct http_conn *c = queue;
        queue = c->next_completed;
        MHD_resume_connection(c->mhd);
    }
}

/* A client that ends its stream right behind its request is not noticed by libmicrohttpd, whose edge-triggered epoll
 * tells of both at once: it reads the request and would keep the connection for the whole idle time. */
static bool peer_has_left(struct http_conn *c)
{
    const struct http_loop *l = c->loop;
    char byte;
    uint64_t idle_ns = l->turn_ns + l->h->p.idle_ms * UINT64_C(1000000) - c->deadline_ns;
    if (c->phase != CONN_IDLE || c->idle_checked || idle_ns < PEEK_AFTER_NS)
        return false;
    c->idle_checked = true;
    return recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void reap(struct http_loop *l)
{
    if (l->turn_ns < l->reap_ns)
        return;
    l->reap_ns = l->turn_ns + REAP_NS;
    for (struct http_conn *c = l->conns; c; c = c->next) {
        bool late = c->deadline_ns && c->deadline_ns < l->turn_ns;
        if (!c->reaped && (late || peer_has_left(c))) {
            c->reaped = true;
            shutdown(c->fd, SHUT_RDWR); // libmicrohttpd sees the end of the stream and closes
        }
    }
}

/* Libmicrohttpd asks all who wait twice a turn. So that this costs each of them about as much however many they are, a turn handles a
 * share of them. */
static unsigned hold_max(unsigned n_waiting)
{
    unsigned share = n_waiting / HTTP_HOLD_SHARE;
    return share > HTTP_HOLD_MAX ? share : HTTP_HOLD_MAX;
}

/* Gives libmicrohttpd the answers that were held; its next run sends them, before anything else. */
static void flush_held(struct http_loop *l)
{
    if (l->n_held == 0)
        return;
    l->flushing = true;
    l->n_waiting = 0; // all are asked again
    MHD_run(l->mhd);
    l->flushing = false;
}

static void turn(struct http_loop *l, int timeout_ms)
{
    struct epoll_event ev[2];
    uint64_t before = http_now_ns(), last_turn = l->turn_ns, count;
    int n = epoll_wait(l->epoll_fd, ev, 2, timeout_ms);
    l->turn_ns = http_now_ns();
    l->ready_ns = l->turn_ns - before > SLEPT_NS ? l->turn_ns : last_turn;
    atomic_store_explicit(&l->turned_ns, l->turn_ns, memory_order_relaxed);
    for (int i = 0; i < n; i++)
        if (ev[i].data.fd == l->wake_fd && read(l->wake_fd, &count, sizeof(count)) < 0)
            continue; // EAGAIN: somebody's write is still to come
    resume_completed(l);
    if (l->n_answered)
        l->crowd = l->n_answered > 1;
    l->hold_max = hold_max(l->n_waiting);
    l->n_answered = l->n_held = l->n_waiting = 0;
    MHD_run(l->mhd);
    flush_held(l);
    reap(l);
}

// ---------------------------------------------------------------------------------------------------- stopping

/* Takes what the kernel has accepted for us already, then stops listening: those clients were told that they are
 * connected. */
static void stop_listening(struct http_loop *l)
{
    struct pollfd p = {.fd = l->listen_fd, .events = POLLIN};
    for (int i = 0; i < 100 && poll(&p, 1, 0) == 1; i++)
        turn(l, 0);
    MHD_socket fd = MHD_quiesce_daemon(l->mhd);
    if (fd != MHD_INVALID_SOCKET)
        close(fd);
    l->listen_fd = -1;
}

/* Complete requests without an answer: those that are being completed elsewhere, and those that wait for a handler. */
static bool any_unanswered(const struct http_loop *l)
{
    for (const struct http_conn *c = l->conns; c; c = c->next)
        if (c->phase == CONN_SUSPENDED || c->phase == CONN_READY)
            return true;
    return false;
}

/* Until the answers are out: requests that are complete are waited for without limit, since answering them is a promise. */
static void finish_requests(struct http_loop *l)
{
    uint64_t end = http_now_ns() + STOP_GRACE_NS;
    for (int settle = 0; settle < 3;) {
        turn(l, wait_ms(l) ? 10 : 0);
        bool busy = atomic_load(&l->in_flight) > 0 && l->turn_ns < end;
        settle = busy || any_unanswered(l) ? 0 : settle + 1;
    }
}

static void *run(void *arg)
{
    struct http_loop *l = arg;
    priority_requests();
    while (!atomic_load_explicit(&l->h->stopping, memory_order_acquire))
        turn(l, wait_ms(l));
    stop_listening(l);
    finish_requests(l);
    return NULL;
}

// --------------------------------------------------------------------------------------------------- open, close

static size_t keep_escapes(void *cls, struct MHD_Connection *mc, char *s)
{
    (void)cls, (void)mc;
    return strlen(s); // the raw target is what is used, see http_on_uri
}

static struct MHD_Daemon *start_daemon(struct http_loop *l)
{
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | (strchr(l->h->address, ':') ? MHD_USE_IPv6 : 0);
    // Above max_connections requests are answered with 503; at this limit clients would only wait, so it lies higher.
    unsigned limit = l->h->p.max_connections + l->h->p.max_connections / 4 + 64;
    size_t memory = l->h->p.conn_memory ? l->h->p.conn_memory : HTTP_CONN_MEMORY;
    struct http_cert *c = l->h->p.tls ? http_tls_hold(l->h->p.tls) : NULL; // libmicrohttpd wants one; connections get theirs in http_conn.c
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, c ? (void *)(uintptr_t)http_cert_pem(c) : NULL},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, c ? (void *)(uintptr_t)http_cert_key_pem(c) : NULL},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)HTTP_TLS_PRIORITIES},
        {MHD_OPTION_END, 0, NULL}};
    struct MHD_Daemon *d = MHD_start_daemon(
        flags | (c ? MHD_USE_TLS : 0), 0, NULL, NULL, http_on_request, l, MHD_OPTION_LISTEN_SOCKET, l->listen_fd, MHD_OPTION_CONNECTION_LIMIT,
        limit, MHD_OPTION_CONNECTION_MEMORY_LIMIT, memory, MHD_OPTION_CONNECTION_MEMORY_INCREMENT,
        (size_t)4096, MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_NOTIFY_CONNECTION, http_on_connection, l,
        MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, l, MHD_OPTION_URI_LOG_CALLBACK, http_on_uri, l,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
        MHD_OPTION_ARRAY, c ? tls : &tls[3], MHD_OPTION_END);
    http_cert_release(c);
    return d;
}

static bool watch(int epoll_fd, int fd, struct err *err)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0 || err_errno(err, "epoll_ctl");
}

bool http_loop_open(struct http_loop *l, struct err *err)
{
    if (getrandom(&l->id_state, sizeof(l->id_state), 0) != (ssize_t)sizeof(l->id_state))
        l->id_state = http_now_ns() ^ (uintptr_t)l;
    l->turn_ns = l->ready_ns = http_now_ns();
    atomic_store(&l->turned_ns, l->turn_ns);
    if ((l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0 || (l->epoll_fd = epoll_create1(EPOLL_CLOEXEC)) < 0)
        return err_errno(err, "event loop");
    if (!(l->mhd = start_daemon(l)))
        return err_set(err, ERR_IO, "libmicrohttpd did not start (out of memory or file descriptors)");
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(l->mhd, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        return err_set(err, ERR_IO, "libmicrohttpd was built without epoll");
    if (!watch(l->epoll_fd, info->epoll_fd, err) || !watch(l->epoll_fd, l->wake_fd, err))
        return false;
    if (l->h->p.thread_state_new && !(l->thread_state = l->h->p.thread_state_new(l->h->p.ctx)))
        return err_set(err, ERR_NOMEM, "no memory for an event loop's state");
    return true;
}

bool http_loop_start(struct http_loop *l, struct err *err)
{
    int rc = pthread_create(&l->thread, NULL, run, l);
    if (rc) {
        errno = rc;
        return err_errno(err, "cannot start an event loop");
    }
    return l->thread_started = true;
}

void http_loop_close(struct http_loop *l)
{
    while (atomic_load(&l->completers))
        sched_yield();
    if (l->mhd)
        MHD_stop_daemon(l->mhd); // closes the connections, and the listening socket if the loop never ran
    else if (l->listen_fd >= 0)
        close(l->listen_fd);
    if (l->thread_state && l->h->p.thread_state_free)
        l->h->p.thread_state_free(l->h->p.ctx, l->thread_state);
    if (l->epoll_fd >= 0)
        close(l->epoll_fd);
    if (l->wake_fd >= 0)
        close(l->wake_fd);
    while (l->spare_answer) {
        struct http_answer *a = l->spare_answer;
        l->spare_answer = a->next;
        buf_fini(&a->resp.body);
        free(a);
    }
    while (l->n_spare_bodies)
        buf_fini(&l->spare_body[--l->n_spare_bodies]);
}
