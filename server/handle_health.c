#include "server/handle_health.h"

#include <string.h>

#include "server/app.h"

#define LOOP_STUCK_MS 30000 // no handler is meant to hold a loop for longer than its deadline, which is far below

/* Whatever is said of it: a probe does not fail for its query. */
static bool wants_detail(const struct http_request *r)
{
    char value[8];
    return http_query_param(r, "verbose", value, sizeof(value)) != HTTP_PARAM_NONE;
}

/* The checks made so far become the answer. */
static bool answer(struct http_request *r, struct http_response *resp, bool ok, struct buf *detail)
{
    resp->status = ok ? 200 : 503;
    resp->content_type = "text/plain; charset=utf-8";
    http_add_header(resp, "Cache-Control", "no-store");
    if (!ok || wants_detail(r))
        buf_put(&resp->body, detail->data ? detail->data : "", detail->len);
    buf_puts(&resp->body, ok ? "ok\n" : "not ok\n");
    resp->body.failed |= detail->failed;
    buf_fini(detail);
    return true;
}

static bool check(struct buf *out, bool ok, const char *what, const char *why)
{
    buf_printf(out, "[%c] %s%s%s\n", ok ? '+' : '-', what, why && why[0] ? ": " : "", why ? why : "");
    return ok;
}

static bool check_loops(struct buf *out, const struct http *h, const char *what)
{
    uint64_t age_ms = h ? http_loop_age_ms(h) : 0;
    buf_printf(out, "[%c] %s: turned %llu ms ago\n", age_ms < LOOP_STUCK_MS ? '+' : '-', what,
               (unsigned long long)age_ms);
    return age_ms < LOOP_STUCK_MS;
}

static bool livez(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    (void)m;
    struct buf out = {0};
    bool ok = check_loops(&out, app_listener(app, false), "data loops");
    ok = check_loops(&out, app_listener(app, true), "admin loops") && ok;
    return answer(r, resp, ok, &out);
}

static bool ask_service(struct app *app, bool (*ask)(struct app *, struct buf *), const char *what, struct buf *out)
{
    struct buf why = {0};
    bool ok = false;
    if (atomic_load_explicit(&app->serving, memory_order_acquire))
        ok = ask(app, &why);
    else
        buf_puts(&why, "starting");
    check(out, ok, what, why.data);
    buf_fini(&why);
    return ok;
}

static bool readyz(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    (void)m;
    struct buf out = {0};
    bool draining = atomic_load(&app->draining);
    bool ok = check(&out, !draining, "accepting", draining ? "draining" : NULL);
    ok = ask_service(app, app->service->ready, "models", &out) && ok;
    return answer(r, resp, ok, &out);
}

static bool startupz(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    (void)m;
    struct buf out = {0};
    bool ok = ask_service(app, app->service->started, "loaded", &out);
    return answer(r, resp, ok, &out);
}

static bool metrics(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    (void)r, (void)m;
    resp->status = 200;
    resp->content_type = "text/plain; version=0.0.4; charset=utf-8";
    metrics_write(app->metrics, &resp->body);
    return true;
}

#define HEALTH(path, fn)                                                                                               \
    {                                                                                                                  \
        .method = HTTP_GET, .pattern = path, .on = ROUTE_BOTH, .name = "health", .open = true, .while_starting = true, \
        .handler = fn                                                                                                  \
    }

const struct route health_routes[] = {
    HEALTH("/livez", livez),
    HEALTH("/readyz", readyz),
    HEALTH("/startupz", startupz),
    {.method = HTTP_GET,
     .pattern = "/metrics",
     .on = ROUTE_ADMIN,
     .name = "metrics",
     .while_starting = true,
     .handler = metrics},
    {.handler = NULL},
};
