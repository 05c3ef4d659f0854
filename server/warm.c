#include "server/warm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fio.h"
#include "core/base/json.h"
#include "core/base/utf8.h"
#include "server/serve.h"

#define TAIL_MAX (16u << 20) // bytes of the file's end that are looked at: 30,000 requests of 500 bytes

struct warm {
    struct app *app;
    const char *model;
    struct loaded *l;
    struct retrieve_ws *ws;
    struct query query;
    struct retrieve_hit *hit;
    size_t cap_hit;
    uint64_t end_ns, most;
    uint64_t n_ok, n_failed;
    char first[240]; // why the first of them failed
};

/* The last TAIL_MAX bytes of a file from the begin of a line, NUL-terminated, for free(). */
static char *read_tail(const char *path, size_t *n, struct err *err)
{
    struct stat st = {0};
    char *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        err_errno(err, "%s", path);
    } else {
        uint64_t size = (uint64_t)st.st_size, from = size > TAIL_MAX ? size - TAIL_MAX : 0;
        *n = (size_t)(size - from);
        text = mem_array(*n + 1, 1, err);
        if (text && !fio_read_full(fd, text, *n, from, err)) {
            free(text);
            text = NULL;
        }
        if (text && from) {
            char *line = memchr(text, '\n', *n);
            size_t cut = line ? (size_t)(line - text) + 1 : *n;
            *n -= cut;
            memmove(text, text + cut, *n + 1);
        }
    }
    if (fd >= 0)
        close(fd);
    return text;
}

static bool is_other(const json_t *o, const char *key, const char *mine)
{
    const char *v = json_string_value(json_object_get(o, key));
    return v && strcmp(v, mine) != 0;
}

static bool ask(struct warm *w, enum query_kind kind, const char *body)
{
    const struct experiment_assignment none = {0};
    struct retrieve_query rq;
    struct retrieve_result res = {0};
    struct wire_error wrong = {0};
    struct err err = {0};
    if (!serve_parse(w->app, kind, body, strlen(body), &w->query, &wrong) ||
        !serve_resolve_as(w->app, &w->query, &none, w->l, &rq, &wrong)) {
        if (w->n_failed == 0)
            snprintf(w->first, sizeof(w->first), "%.40s: %.190s", wrong.code, wrong.detail);
        utf8_mend(w->first);
        return false;
    }
    rq.deadline_ns = w->end_ns;
    if (serve_room((void **)&w->hit, &w->cap_hit, rq.k, sizeof(*w->hit)) && retrieve_topk(w->l->bundle, &rq, w->ws, w->hit, &res, &err))
        return true;
    if (w->n_failed == 0)
        snprintf(w->first, sizeof(w->first), "%.239s", err.msg);
    utf8_mend(w->first);
    return false;
}

static bool is_over(const struct warm *w)
{
    return w->n_ok + w->n_failed >= w->most || app_now_ns() > w->end_ns || atomic_load(&w->app->draining);
}

/* A request, unless it is none or for another model. */
static void ask_one(struct warm *w, enum query_kind kind, const json_t *request)
{
    if (is_over(w) || !json_is_object(request) || is_other(request, "model", w->model))
        return;
    char *text = json_dumps(request, JSON_COMPACT);
    if (text && ask(w, kind, text))
        w->n_ok++;
    else if (text)
        w->n_failed++;
    free(text);
}

/* What a line holds: nothing, a request - bare, or recorded - or a batch of them. */
static void ask_line(struct warm *w, const char *line, size_t n)
{
    json_t *v = json_parse(line, n, NULL), *body = json_object_get(v, "body"), *one;
    const json_t *o = body ? body : v;
    size_t i;
    if (is_other(v, "model", w->model))
        o = NULL;
    else if (!is_other(v, "path", "/v1/retrieve"))
        ask_one(w, QUERY_RETRIEVE, o);
    else if (!is_other(v, "path", "/v1/search"))
        ask_one(w, QUERY_SEARCH, o);
    else if (!is_other(v, "path", "/v1/retrieve:batch"))
        json_array_foreach(json_object_get(o, "requests"), i, one) ask_one(w, QUERY_RETRIEVE, one);
    json_decref(v);
}

/* Newest first: what is asked now is most like what was asked last. */
static void ask_all(struct warm *w, const char *text, size_t n)
{
    for (size_t end = n; end > 0 && !is_over(w);) {
        const char *before = memrchr(text, '\n', end - 1);
        size_t begin = before ? (size_t)(before - text) + 1 : 0;
        ask_line(w, text + begin, end - begin);
        end = begin;
    }
}

static void tell(const struct warm *w, const char *source, uint64_t begun_ns, const struct err *err)
{
    const char *cause = err->msg[0] ? err->msg : w->first;
    log_event(&w->app->log, w->n_ok ? LOG_INFO : LOG_WARN, "warm_up", LOG_STR("model", w->model),
              LOG_INT("version", w->l->bundle->manifest.version), LOG_STR("source", source), LOG_INT("requests", w->n_ok + w->n_failed),
              LOG_INT("failed", w->n_failed), LOG_NUM("ms", (double)(app_now_ns() - begun_ns) / 1e6), LOG_STR("cause", cause));
}

/* All of one source; `err` is why there is no text. */
static void run(struct warm *w, const char *source, const char *text, size_t n, struct err *err)
{
    uint64_t begun_ns = app_now_ns();
    w->n_ok = w->n_failed = 0;
    w->first[0] = '\0';
    if (text && (w->ws || (w->ws = loaded_take_ws(w->l, err))))
        ask_all(w, text, n);
    tell(w, source, begun_ns, err);
}

void warm_up(void *app, const char *model, struct loaded *l)
{
    struct warm w = {.app = app, .model = model, .l = l};
    const struct config *c = w.app->config;
    const struct bundle *b = l->bundle;
    w.most = c->warm.requests;
    w.end_ns = app_now_ns() + c->warm.max_ms * 1000000;
    query_init(&w.query);
    if (b->warmup)
        run(&w, "bundle", b->warmup, b->warmup_n, &(struct err){0});
    if (c->warm.path[0]) {
        struct err err = {0};
        size_t n = 0;
        char *text = read_tail(c->warm.path, &n, &err);
        run(&w, "warm.path", text, n, &err);
        free(text);
    }
    loaded_put_ws(l, w.ws);
    query_fini(&w.query);
    free(w.hit);
}
