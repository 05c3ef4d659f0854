#include "tests/server/toy.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "server/priority.h"

static void sleep_ms(unsigned ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&ts, NULL);
}

struct later {
    struct toy *toy;
    struct http_pending *pending;
    unsigned ms;
};

static void *complete_later(void *arg)
{
    struct later *l = arg;
    struct http_response resp = {.status = 200, .content_type = "text/plain"};
    sleep_ms(l->ms);
    buf_printf(&resp.body, "later %s %s", http_pending_request(l->pending)->id, http_pending_request(l->pending)->body);
    http_complete(l->pending, &resp);
    atomic_fetch_sub(&l->toy->n_later, 1);
    buf_fini(&resp.body);
    free(l);
    return NULL;
}

static bool suspend(struct toy *t, struct http_request *r, unsigned ms)
{
    struct later *l = calloc(1, sizeof(*l));
    pthread_t thread;
    l->toy = t;
    l->ms = ms;
    atomic_fetch_add(&t->n_later, 1);
    l->pending = http_suspend(r);
    pthread_create(&thread, NULL, complete_later, l);
    pthread_detach(thread);
    return false;
}

static bool handle(void *ctx, struct http_request *r, struct http_response *resp)
{
    char text[32];
    unsigned n = 0;
    if (http_query_param(r, "ms", text, sizeof(text)) == HTTP_PARAM_FOUND || http_query_param(r, "n", text, sizeof(text)) == HTTP_PARAM_FOUND)
        n = (unsigned)strtoul(text, NULL, 10);
    resp->status = 200;
    resp->content_type = "text/plain";
    if (strcmp(r->path, "/never") == 0)
        return false;
    if (strcmp(r->path, "/later") == 0)
        return suspend(ctx, r, n);
    if (strcmp(r->path, "/empty") == 0)
        resp->status = 0;
    else if (strcmp(r->path, "/sleep") == 0)
        sleep_ms(n);
    else if (strcmp(r->path, "/crowded") == 0)
        buf_puts(&resp->body, r->crowded ? "1" : "0");
    else if (strcmp(r->path, "/slice") == 0)
        buf_printf(&resp->body, "%llu", (unsigned long long)priority_slice_ns());
    else if (strcmp(r->path, "/who") == 0)
        buf_printf(&resp->body, "%d %s ?%s %u", (int)r->method, r->path, r->query,
                   (unsigned)((r->deadline_ns - r->start_ns) / 1000000));
    else if (strcmp(r->path, "/big") == 0)
        for (unsigned i = 0; i < n; i++)
            buf_put(&resp->body, "x", 1);
    else
        buf_put(&resp->body, r->body, r->body_len);
    http_add_header(resp, "X-Toy", "%s", r->is_admin ? "admin" : "data");
    return true;
}

static void done(void *ctx, const struct http_request *r, unsigned status, size_t bytes, uint64_t total_ns,
                 uint64_t lag_ns)
{
    (void)r, (void)status, (void)bytes, (void)total_ns, (void)lag_ns;
    atomic_fetch_add(&((struct toy *)ctx)->n_done, 1);
}

static void *state_new(void *ctx)
{
    atomic_fetch_add(&((struct toy *)ctx)->n_states, 1);
    return malloc(1);
}

static void state_free(void *ctx, void *state)
{
    atomic_fetch_sub(&((struct toy *)ctx)->n_states, 1);
    free(state);
}

struct http_params toy_params(struct toy *t)
{
    return (struct http_params){.address = "127.0.0.1",
                                .threads = 2,
                                .max_connections = 1000,
                                .max_body = 100000,
                                .header_ms = 1000,
                                .body_ms = 1500,
                                .idle_ms = 5000,
                                .deadline_ms = 1000,
                                .handler = handle,
                                .ctx = t,
                                .thread_state_new = state_new,
                                .thread_state_free = state_free,
                                .done = done};
}

void toy_start(struct toy *t, const struct http_params *p)
{
    struct err err = {0};
    t->http = http_start(p, &err);
    if (!t->http)
        fail_msg("%s", err.msg);
    t->port = http_port(t->http);
    assert_int_not_equal(t->port, 0);
}

void toy_stop(struct toy *t)
{
    http_stop(t->http);
    assert_int_equal(t->n_states, 0);
    while (atomic_load(&t->n_later)) // the completing threads' last steps
        sleep_ms(1);
}
