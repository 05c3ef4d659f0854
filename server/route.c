/* route.c - matching, and the walk from a request to its handler. */
#include "server/route.h"

#include <stdio.h>
#include <string.h>

#include "server/admission.h"
#include "server/api_keys.h"
#include "server/app.h"
#include "server/handle_health.h"
#include "server/handle_openapi.h"
#include "server/problem.h"

// ------------------------------------------------------------------------------------------------------- matching

/* One {name} segment of the pattern at *pattern against one segment of the path at *path; both are moved behind it. */
static bool match_param(const char **pattern, const char **path, struct route_match *m)
{
    const char *tail = strchr(*pattern, '}') + 1;
    size_t tail_n = strcspn(tail, "/"), n = strcspn(*path, "/");
    if (n <= tail_n || memcmp(*path + n - tail_n, tail, tail_n) != 0 || m->n == ROUTE_PARAMS_MAX)
        return false;
    if (!http_decode_segment(*path, n - tail_n, m->value[m->n], sizeof(m->value[0])))
        return false;
    m->n++;
    *pattern = tail + tail_n;
    *path += n;
    return true;
}

static bool match(const char *pattern, const char *path, struct route_match *m)
{
    m->n = 0;
    for (;;) {
        if (*pattern == '{') {
            if (!match_param(&pattern, &path, m))
                return false;
            continue;
        }
        if (*pattern != *path)
            return false;
        if (*pattern == '\0')
            return true;
        pattern++;
        path++;
    }
}

static void allow_method(char *allow, size_t cap, enum http_method method)
{
    static const char *const names[] = {
        [HTTP_GET] = "GET, HEAD", [HTTP_POST] = "POST", [HTTP_PUT] = "PUT", [HTTP_DELETE] = "DELETE"};
    size_t n = strlen(allow);
    const char *name = method < HTTP_OTHER ? names[method] : NULL;
    if (name && !strstr(allow, name))
        snprintf(allow + n, cap - n, "%s%s", n ? ", " : "", name);
}

enum route_found route_find(const struct route *const *tables, size_t n, const struct http_request *r,
                            struct route_match *m, char *allow, size_t cap)
{
    enum http_method method = r->method == HTTP_HEAD ? HTTP_GET : r->method;
    enum route_on here = r->is_admin ? ROUTE_ADMIN : ROUTE_DATA;
    bool path_known = false;
    allow[0] = '\0';
    for (size_t i = 0; i < n; i++)
        for (const struct route *t = tables[i]; t->handler; t++) {
            if (!(t->on & here) || !match(t->pattern, r->path, m))
                continue;
            if (t->method == method) {
                m->route = t;
                return ROUTE_FOUND;
            }
            path_known = true;
            allow_method(allow, cap, t->method);
        }
    return path_known ? ROUTE_NO_METHOD : ROUTE_NO_PATH;
}

// ------------------------------------------------------------------------------------------------------- dispatch

static bool no_method(struct http_request *r, struct http_response *resp, const char *allow)
{
    problem_write(resp, r, 405, "method_not_allowed", NULL, "this path takes %s", allow);
    http_add_header(resp, "Allow", "%s", allow);
    return true;
}

static bool no_token(struct http_request *r, struct http_response *resp)
{
    problem_write(resp, r, 401, "unauthorized", NULL, "want Authorization: Bearer with the token of admin.token_file");
    http_add_header(resp, "WWW-Authenticate", "Bearer realm=\"duet\"");
    return true;
}

bool route_dispatch(void *ctx, struct http_request *r, struct http_response *resp)
{
    struct app *app = ctx;
    struct thread_state *ts = r->thread_state;
    struct route_match m;
    char allow[64];
    bool serving = atomic_load_explicit(&app->serving, memory_order_acquire);
    const struct route *const tables[] = {app->service->routes, health_routes, openapi_routes};
    enum route_found found = route_find(tables, sizeof(tables) / sizeof(tables[0]), r, &m, allow, sizeof(allow));
    if (found == ROUTE_NO_PATH)
        return problem_write(resp, r, 404, "unknown_route", NULL, "no such path on this listener");
    if (found == ROUTE_NO_METHOD)
        return no_method(r, resp, allow);
    r->note = m.route->name;
    if (m.route->needs_token && !app_admin_allowed(app, r))
        return no_token(r, resp);
    if (!r->is_admin && !m.route->open && !api_keys_admit(app->api_keys, ts->shard, r, app_now_ns(), resp))
        return true;
    if (!serving && !m.route->while_starting) {
        admission_refuse(app->admission, r, resp, "starting", "the service is starting");
        return true;
    }
    if (m.route->sheds && !admission_admit(app->admission, ts->shard, r, resp))
        return true;
    if (m.route->sheds)
        r->ef_share = admission_ef_share(app->admission, ts->shard, r->lag_ns);
    return m.route->handler(app, r, &m, resp);
}
