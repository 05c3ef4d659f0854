#include "server/access.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/app.h"

/* Every status that we send; others would be counted as the last. */
static const unsigned statuses[] = {200, 202, 201, 204, 304, 400, 401, 403, 404, 405, 406, 408, 409, 412, 413,
                                    414, 415, 417, 422, 428, 429, 431, 500, 501, 503, 504, 505, 507, 0};
#define N_STATUSES (sizeof(statuses) / sizeof(statuses[0]))
#define ROUTES_MAX 64

/* Histograms by route and status, registered when first needed: most pairs never occur. A route is known by the address
 * of its name. */
struct access {
    struct app *app;
    _Atomic(const char *) route[ROUTES_MAX];
    _Atomic metric_id seconds[ROUTES_MAX][N_STATUSES];
    metric_id lag, bytes;
    _Atomic uint64_t slow_ns, sample, last_ns;
};

static double in_flight(void *ctx)
{
    struct http *h = *(_Atomic(struct http *) *)ctx;
    return h ? http_in_flight(h) : 0;
}

static double connections(void *ctx)
{
    struct http *h = *(_Atomic(struct http *) *)ctx;
    return h ? http_connections(h) : 0;
}

struct access *access_new(struct app *app, struct err *err)
{
    struct access *a = mem_array(1, sizeof(*a), err);
    struct metrics *m = app->metrics;
    if (!a)
        return NULL;
    a->app = app;
    a->lag =
        metrics_seconds(m, "duet_loop_lag_seconds", "Time from a request being readable to its handler's start.", "");
    a->bytes = metrics_counter(m, "duet_http_response_bytes_total", "Bytes of response bodies.", "");
    static const char in[] = "Requests begun and not yet answered.", open[] = "Open connections.";
    metrics_gauge_fn(m, "duet_http_requests_in_flight", in, "listener=\"data\"", in_flight, &app->data);
    metrics_gauge_fn(m, "duet_http_requests_in_flight", in, "listener=\"admin\"", in_flight, &app->admin);
    metrics_gauge_fn(m, "duet_http_connections", open, "listener=\"data\"", connections, &app->data);
    metrics_gauge_fn(m, "duet_http_connections", open, "listener=\"admin\"", connections, &app->admin);
    return a;
}

void access_free(struct access *a)
{
    free(a);
}

void access_tune(struct access *a, uint64_t slow_ms, uint64_t sample)
{
    atomic_store(&a->slow_ns, slow_ms * 1000000);
    atomic_store(&a->sample, sample);
}

uint64_t access_last_answer_ns(const struct access *a)
{
    return atomic_load_explicit(&a->last_ns, memory_order_relaxed);
}

// -------------------------------------------------------------------------------------------------------- metrics

/* Row of the route's name, taken by the first that asks; the last row is shared by whatever finds no room. */
static size_t route_row(struct access *a, const char *name)
{
    for (size_t i = 0; i < ROUTES_MAX - 1; i++) {
        const char *there = atomic_load_explicit(&a->route[i], memory_order_relaxed);
        if (there == name)
            return i;
        if (!there && atomic_compare_exchange_strong(&a->route[i], &there, name))
            return i;
        if (there == name)
            return i;
    }
    return ROUTES_MAX - 1;
}

static metric_id seconds_of(struct access *a, const char *route, unsigned status)
{
    size_t row = route_row(a, route), col = 0;
    while (col < N_STATUSES - 1 && statuses[col] != status)
        col++;
    metric_id id = atomic_load_explicit(&a->seconds[row][col], memory_order_relaxed);
    if (id != METRIC_NONE)
        return id;
    char labels[128], code[16] = "other";
    if (statuses[col])
        snprintf(code, sizeof(code), "%u", statuses[col]);
    snprintf(labels, sizeof(labels), "route=\"%s\",code=\"%s\"", row < ROUTES_MAX - 1 ? route : "other", code);
    id = metrics_seconds(a->app->metrics, "duet_http_request_duration_seconds",
                         "Time from a request's first byte being seen to its answer being queued.", labels);
    atomic_store_explicit(&a->seconds[row][col], id, memory_order_relaxed); // the same id whoever comes first
    return id;
}

// ------------------------------------------------------------------------------------------------------------ log

static const char *method_name(enum http_method m)
{
    static const char *const names[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "other"};
    return names[m <= HTTP_OTHER ? m : HTTP_OTHER];
}

/* False: this request is not worth a line. */
static bool log_as(const struct access *a, struct thread_state *ts, unsigned status, uint64_t total_ns,
                   enum log_level *level, const char **event)
{
    uint64_t slow = atomic_load_explicit(&a->slow_ns, memory_order_relaxed);
    uint64_t sample = atomic_load_explicit(&a->sample, memory_order_relaxed);
    *event = "request";
    *level = LOG_DEBUG;
    if (status == 500) {
        *level = LOG_ERROR;
    } else if (slow && total_ns > slow) {
        *level = LOG_WARN;
        *event = "slow_request";
    } else if (sample && ts->n_requests % sample == 0) {
        *level = LOG_INFO;
    }
    return (int)*level >= atomic_load_explicit(&a->app->log.level, memory_order_relaxed);
}

static void log_request(struct access *a, enum log_level level, const char *event, const struct http_request *r,
                        const char *route, unsigned status, size_t bytes, uint64_t total_ns, uint64_t lag_ns)
{
    log_event(&a->app->log, level, event, LOG_STR("request_id", r->id), LOG_STR("method", method_name(r->method)),
              LOG_STR("route", route), LOG_INT("status", status), LOG_INT("bytes", bytes),
              LOG_INT("body_bytes", r->body_len), LOG_NUM("ms", (double)total_ns / 1e6),
              LOG_NUM("lag_ms", (double)lag_ns / 1e6), TRACE_LOG(&r->trace));
}

void access_done(void *ctx, const struct http_request *r, unsigned status, size_t bytes, uint64_t total_ns,
                 uint64_t lag_ns)
{
    struct app *app = ctx;
    struct access *a = app->access;
    struct thread_state *ts = r->thread_state;
    const char *route = r->note ? r->note : "none", *event;
    enum log_level level;
    ts->n_requests++;
    metrics_observe_ns(app->metrics, ts->shard, seconds_of(a, route, status), total_ns);
    metrics_observe_ns(app->metrics, ts->shard, a->lag, lag_ns);
    metrics_add(app->metrics, ts->shard, a->bytes, bytes);
    if (atomic_load_explicit(&app->draining, memory_order_relaxed) && strcmp(route, "health") != 0 &&
        strcmp(route, "metrics") != 0)
        atomic_store_explicit(&a->last_ns, app_now_ns(), memory_order_relaxed);
    if (log_as(a, ts, status, total_ns, &level, &event))
        log_request(a, level, event, r, route, status, bytes, total_ns, lag_ns);
}
