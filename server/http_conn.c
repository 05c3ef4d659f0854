/* http_conn.c - the life of one request: request line, headers, body, handler, answer, each a callback of
 * libmicrohttpd.
 *
 *     on_uri -> on_request (headers: guard) -> on_request (body)* -> on_request (end: handler) -> answer queued ->
 * on_completed
 *                                                                         \-> suspended ... completed by any thread ->
 * on_request -/
 *
 * Where several requests are ready in one turn their answers are held and sent one behind the other at its end: a client on another
 * core, or behind one proxy, is woken once for all of them, not for each. Libmicrohttpd sends what it is given at once, but as long as a
 * callback neither answers nor suspends it asks again in its next run, so a held answer is given to it then. Nothing waits for company:
 * what is alone is sent at once, and so is the first of several, as nobody knows yet that others are to come.
 *
 * All of it runs on the loop's thread but http_complete, which only pushes the connection on the loop's stack and wakes
 * it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http_priv.h"
#include "server/problem.h"

static const char content_json[] = "application/json";

static uint64_t after_ms(const struct http_loop *l, uint64_t ms)
{
    return l->turn_ns + ms * 1000000;
}

// --------------------------------------------------------------------------------------------------- connections

/* The certificate in force, for the handshake that is to come. NULL: it cannot be had. */
static struct http_cert *use_cert(struct http_tls *tls, struct MHD_Connection *mc)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mc, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    struct http_cert *cert = http_tls_hold(tls);
    if (info && http_cert_use(cert, info->tls_session))
        return cert;
    http_cert_release(cert);
    return NULL;
}

static void connection_opened(struct http_loop *l, struct MHD_Connection *mc, void **socket_context)
{
    struct http_pending *p = calloc(1, sizeof(*p));
    const union MHD_ConnectionInfo *fd = MHD_get_connection_info(mc, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct http_tls *tls = l->h->p.tls;
    if (p && tls && !(p->conn.cert = use_cert(tls, mc))) { // never without the check of the client's certificate
        free(p);
        p = NULL;
    }
    *socket_context = p; // NULL: on_uri finds none and on_request closes
    if (!p)
        return;
    struct http_conn *c = &p->conn;
    c->loop = l;
    c->mhd = mc;
    c->fd = fd ? fd->connect_fd : -1;
    c->idle_checked = true; // nothing read yet, so no end of stream can have been missed
    c->deadline_ns = after_ms(l, l->h->p.header_ms);
    c->next = l->conns;
    if (l->conns)
        l->conns->prev = c;
    l->conns = c;
    atomic_fetch_add_explicit(&l->n_conns, 1, memory_order_relaxed);
}

static void leave_flight(struct http_conn *c)
{
    if (c->in_flight)
        atomic_fetch_sub_explicit(&c->loop->in_flight, 1, memory_order_release);
    c->in_flight = false;
}

/* A body buffer goes back to the loop's spares, unless they have enough. */
static void body_release(struct http_conn *c)
{
    struct http_loop *l = c->loop;
    bool room = l->n_spare_bodies < HTTP_SPARE_MAX && l->spare_bytes + c->body.cap <= HTTP_SPARE_BYTES;
    if (room && c->body.data && !c->body.failed) {
        l->spare_bytes += c->body.cap;
        buf_reset(&c->body);
        l->spare_body[l->n_spare_bodies++] = c->body;
    } else {
        buf_fini(&c->body);
    }
    c->body = (struct buf){0};
}

static void connection_closed(struct http_conn *c)
{
    struct http_loop *l = c->loop;
    *(c->prev ? &c->prev->next : &l->conns) = c->next;
    if (c->next)
        c->next->prev = c->prev;
    leave_flight(c);
    body_release(c);
    buf_fini(&c->uri);
    http_answer_put(c->answer);
    http_cert_release(c->cert);
    atomic_fetch_sub_explicit(&l->n_conns, 1, memory_order_relaxed);
    free(c); // the first member of its http_pending
}

void http_on_connection(void *cls, struct MHD_Connection *mc, void **socket_context,
                        enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED)
        connection_opened(cls, mc, socket_context);
    else if (*socket_context)
        connection_closed(*socket_context);
}

// -------------------------------------------------------------------------------------------------------- answers

void http_add_header(struct http_response *resp, const char *name, const char *fmt, ...)
{
    if (resp->n_extra == HTTP_EXTRA_MAX)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(resp->extra[resp->n_extra].value, sizeof(resp->extra[0].value), fmt, ap);
    va_end(ap);
    resp->extra[resp->n_extra++].name = name;
}

void http_add_text_header(struct http_response *resp, const char *name, const char *value)
{
    size_t n = strnlen(value, sizeof(resp->extra[0].value) - 1);
    if (resp->n_extra == HTTP_EXTRA_MAX)
        return;
    memcpy(resp->extra[resp->n_extra].value, value, n);
    resp->extra[resp->n_extra].value[n] = '\0';
    resp->extra[resp->n_extra++].name = name;
}

static bool add_headers(struct MHD_Response *m, const struct http_conn *c, const struct http_response *resp)
{
    bool ok =
        MHD_add_response_header(m, "Content-Type", resp->content_type ? resp->content_type : content_json) == MHD_YES;
    if (c->req.id[0])
        ok = ok && MHD_add_response_header(m, "X-Request-Id", c->req.id) == MHD_YES;
    if (c->req.trace.trace_id[0]) {
        char parent[TRACE_PARENT_LEN + 1];
        trace_write(&c->req.trace, parent);
        ok = ok && MHD_add_response_header(m, "traceparent", parent) == MHD_YES;
    }
    for (unsigned i = 0; i < resp->n_extra; i++)
        ok = ok && MHD_add_response_header(m, resp->extra[i].name, resp->extra[i].value) == MHD_YES;
    if (resp->close || atomic_load_explicit(&c->loop->h->draining, memory_order_relaxed))
        ok = ok && MHD_add_response_header(m, "Connection", "close") == MHD_YES;
    return ok;
}

static void tell_done(const struct http_conn *c, unsigned status, size_t bytes)
{
    const struct http_params *p = &c->loop->h->p;
    if (p->done)
        p->done(p->ctx, &c->req, status, bytes, http_now_ns() - c->req.start_ns, c->req.lag_ns);
}

/* The body's memory goes to libmicrohttpd as it is and comes back through http_answer_put when it has been sent. MHD_NO
 * closes. */
static enum MHD_Result queue_answer(struct http_conn *c, struct http_answer *a)
{
    struct http_loop *l = c->loop;
    struct http_response *resp = &a->resp;
    if (resp->status == 0)
        problem_write_id(resp, c->req.id, 500, "no_answer", NULL, "the handler gave no answer");
    if (resp->body.failed) {
        buf_fini(&resp->body);
        resp->body = (struct buf){0};
        resp->n_extra = 0;
        http_add_text_header(resp, "Retry-After", "1");
        problem_write_id(resp, c->req.id, 503, "out_of_memory", NULL, "no memory for the answer");
    }
    unsigned status = resp->status;
    size_t bytes = resp->body.len;
    struct MHD_Response *m = MHD_create_response_from_buffer_with_free_callback_cls(
        bytes, resp->body.data ? resp->body.data : "", http_answer_put, a);
    if (!m) {
        http_answer_put(a);
        return MHD_NO;
    }
    c->phase = CONN_ANSWERING;
    c->deadline_ns = after_ms(l, l->h->p.body_ms);
    enum MHD_Result ok = add_headers(m, c, resp) ? MHD_queue_response(c->mhd, status, m) : MHD_NO;
    MHD_destroy_response(m); // ours; libmicrohttpd holds one of its own until it is sent
    tell_done(c, status, bytes);
    return ok;
}

static enum MHD_Result queue_filled(struct http_conn *c)
{
    struct http_answer *a = c->answer;
    c->answer = NULL;
    return queue_answer(c, a);
}

static enum MHD_Result refuse(struct http_conn *c, struct http_refusal no)
{
    struct http_answer *a = http_answer_take(c->loop);
    if (!a)
        return MHD_NO;
    problem_write_id(&a->resp, c->req.id, no.status, no.code, NULL, no.detail);
    if (no.status == 503)
        http_add_text_header(&a->resp, "Retry-After", "1");
    a->resp.close = true;
    return queue_answer(c, a);
}

// ------------------------------------------------------------------------------------------------------ a request

/* The request line is complete. What is returned here is what on_request finds in *req_cls. */
void *http_on_uri(void *cls, const char *uri, struct MHD_Connection *mc)
{
    struct http_loop *l = cls;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mc, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct http_conn *c = info ? info->socket_context : NULL;
    if (!c)
        return NULL;
    size_t n = strlen(uri);
    body_release(c);
    buf_reset(&c->uri);
    buf_put(&c->uri, uri, n);
    char *mark = c->uri.data ? strchr(c->uri.data, '?') : NULL;
    if (mark)
        *mark = '\0';
    c->after_uri = uri + n + 1;
    c->body_seen = 0;
    c->req = (struct http_request){.path = c->uri.failed || !c->uri.data ? "" : c->uri.data,
                                   .query = mark ? mark + 1 : "",
                                   .body = "",
                                   .start_ns = l->ready_ns,
                                   .is_admin = l->h->p.is_admin,
                                   .thread_state = l->thread_state,
                                   .conn = c};
    c->phase = CONN_HEAD;
    c->deadline_ns = after_ms(l, l->h->p.header_ms);
    if (!c->in_flight)
        atomic_fetch_add_explicit(&l->in_flight, 1, memory_order_relaxed);
    c->in_flight = true;
    return c;
}

static enum MHD_Result on_headers(struct http_conn *c, const char *method, const char *version)
{
    struct http_loop *l = c->loop;
    c->phase = CONN_BODY;
    c->deadline_ns = after_ms(l, l->h->p.body_ms);
    c->req.method = http_method_parse(method);
    struct http_refusal no = http_guard(c, version);
    return no.status ? refuse(c, no) : MHD_YES;
}

static enum MHD_Result on_body(struct http_conn *c, const char *data, size_t n)
{
    struct http_loop *l = c->loop;
    c->body_seen += n;
    if (c->body_seen > l->h->p.max_body) // chunked: read on, so that 413 can be answered, but not for ever
        return c->body_seen / 4 > l->h->p.max_body ? MHD_NO : MHD_YES;
    if (!c->body.data && l->n_spare_bodies) {
        c->body = l->spare_body[--l->n_spare_bodies];
        l->spare_bytes -= c->body.cap;
    }
    buf_put(&c->body, data, n);
    return MHD_YES;
}

/* Held are answers that others came before in this turn, or in the last one, up to hold_max and for at most hold_us and one handler. */
static bool hold(struct http_loop *l)
{
    if (++l->n_answered == 1 && !l->crowd)
        return false;
    if (l->n_held++ == 0)
        l->held_ns = http_now_ns();
    return true;
}

/* Are those that are held to be sent before another handler is called? Then for the rest of the turn: everybody who waits asks. */
static bool is_full(struct http_loop *l, uint64_t *now_ns)
{
    uint64_t most_ns = (l->h->p.hold_us ? l->h->p.hold_us : HTTP_HOLD_US) * UINT64_C(1000);
    if (l->flushing || l->n_waiting || l->n_held >= l->hold_max)
        return true;
    *now_ns = http_now_ns();
    return l->n_held && *now_ns > l->held_ns + most_ns;
}

static enum MHD_Result call_handler(struct http_conn *c)
{
    struct http_loop *l = c->loop;
    uint64_t now;
    if (is_full(l, &now)) {
        l->n_waiting++;
        return MHD_YES; // libmicrohttpd asks again
    }
    if (!(c->answer = http_answer_take(l)))
        return MHD_NO;
    c->req.lag_ns = now > c->ready_ns ? now - c->ready_ns : 0;
    c->req.crowded = http_connections(l->h) > l->h->p.max_connections;
    c->phase = CONN_HANDLER;
    if (!l->h->p.handler(l->h->p.ctx, &c->req, &c->answer->resp)) {
        if (c->phase == CONN_SUSPENDED)
            return MHD_YES;
        c->answer->resp.status = 0; // neither answered nor suspended: our defect
    }
    if (!hold(l))
        return queue_filled(c);
    c->phase = CONN_HELD;
    return MHD_YES;
}

static enum MHD_Result on_end(struct http_conn *c)
{
    struct http_loop *l = c->loop;
    if (c->body_seen > l->h->p.max_body)
        return refuse(c, (struct http_refusal){413, "body_too_large", "the body is larger than limits.body_bytes"});
    if (c->body.failed)
        return MHD_NO;
    if (c->body.data) {
        c->req.body = c->body.data;
        c->req.body_len = c->body.len;
    }
    c->ready_ns = l->ready_ns;
    c->phase = CONN_READY;
    c->deadline_ns = 0;
    return call_handler(c);
}

enum MHD_Result http_on_request(void *cls, struct MHD_Connection *mc, const char *url, const char *method,
                                const char *version, const char *upload, size_t *upload_size, void **req_cls)
{
    (void)mc, (void)url;
    const struct http_loop *l = cls;
    struct http_conn *c = *req_cls;
    if (!c)
        return MHD_NO;
    if (c->phase == CONN_HEAD)
        return on_headers(c, method, version);
    if (c->phase == CONN_BODY && *upload_size) {
        enum MHD_Result ok = on_body(c, upload, *upload_size);
        *upload_size = 0;
        return ok;
    }
    if (c->phase == CONN_BODY)
        return on_end(c);
    if (c->phase == CONN_READY)
        return call_handler(c);
    if (c->phase == CONN_HELD)
        return l->flushing ? queue_filled(c) : MHD_YES;
    return c->phase == CONN_SUSPENDED ? queue_filled(c) : MHD_NO; // resumed: http_complete has filled the answer
}

void http_on_completed(void *cls, struct MHD_Connection *mc, void **req_cls, enum MHD_RequestTerminationCode code)
{
    (void)mc, (void)code;
    struct http_loop *l = cls;
    struct http_conn *c = *req_cls;
    *req_cls = NULL;
    if (!c)
        return;
    if (c->phase == CONN_HELD) // the client has left behind the handler's back
        tell_done(c, c->answer->resp.status, c->answer->resp.body.len);
    leave_flight(c);
    body_release(c);
    c->phase = CONN_IDLE;
    c->idle_checked = false;
    c->deadline_ns = after_ms(l, l->h->p.idle_ms);
}

const char *http_header(const struct http_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->conn->mhd, MHD_HEADER_KIND, name);
}

// --------------------------------------------------------------------------------------------- suspend, complete

struct http_pending *http_suspend(struct http_request *r)
{
    struct http_conn *c = r->conn;
    c->phase = CONN_SUSPENDED;
    MHD_suspend_connection(c->mhd);
    return (struct http_pending *)c;
}

struct http_request *http_pending_request(struct http_pending *p)
{
    return &p->conn.req;
}

void http_complete(struct http_pending *p, struct http_response *resp)
{
    struct http_conn *c = &p->conn;
    struct http_loop *l = c->loop;
    atomic_fetch_add(&l->completers, 1);
    if (resp != &c->answer->resp) {
        buf_fini(&c->answer->resp.body);
        c->answer->resp = *resp;
        resp->body = (struct buf){0};
    }
    struct http_conn *head = atomic_load_explicit(&l->completed, memory_order_relaxed);
    do
        c->next_completed = head;
    while (!atomic_compare_exchange_weak_explicit(&l->completed, &head, c, memory_order_release, memory_order_relaxed));
    http_loop_wake(l);
    atomic_fetch_sub(&l->completers, 1); // the last touch of *l: http_stop frees it only after this
}
