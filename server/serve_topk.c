/* serve_topk.c - the top k of a resolved query as an answer: what /v1/retrieve, /v1/search and similar items have in
 * common. */
#include <string.h>
#include <strings.h>

#include "server/effort.h"
#include "server/hits.h"
#include "server/jsonw.h"
#include "server/problem.h"
#include "server/serve.h"

void serve_count(struct app *app, unsigned shard, const struct serve_choice *c, const struct retrieve_result *res)
{
    const struct loaded_metrics *m = &c->loaded->metric;
    metrics_add(app->metrics, shard, m->answers[res->fallback], 1);
    metrics_observe_ns(app->metrics, shard, m->embed_s, res->embed_ns);
    metrics_observe_ns(app->metrics, shard, m->search_s, res->search_ns);
    metrics_observe_size(app->metrics, shard, m->returned, res->n);
    if (res->n_unknown)
        metrics_add(app->metrics, shard, m->unknown_values, res->n_unknown);
}

/* The answer but for its items, without the closing brace. */
static void put_about(struct buf *b, const struct http_request *r, const struct serve_choice *c, const struct query *q,
                      const struct retrieve_query *rq, const struct retrieve_result *res)
{
    serve_put_head(b, r, c, q, rq, res);
    JSONW_LIT(b, ",\"k\":");
    jsonw_uint(b, rq->k);
    JSONW_LIT(b, ",\"ef_used\":");
    if (res->ef_used)
        jsonw_uint(b, res->ef_used);
    else
        JSONW_LIT(b, "null");
    JSONW_LIT(b, ",\"returned\":");
    jsonw_uint(b, res->n);
}

static void write_json(const struct http_request *r, const struct serve_choice *c, const struct serve_state *s,
                       const struct retrieve_query *rq, const struct retrieve_result *res, struct http_response *resp)
{
    struct buf *b = &resp->body;
    const struct hits_attrs attrs = {s->query->attr, s->query->fields.n};
    resp->status = 200;
    put_about(b, r, c, s->query, rq, res);
    if (s->query->columns) {
        JSONW_LIT(b, ",\"columns\":");
        hits_write_columns(b, c->loaded->bundle->items, s->hit, res->n, &attrs);
    } else {
        JSONW_LIT(b, ",\"items\":");
        hits_write_rows(b, c->loaded->bundle->items, s->hit, res->n, &attrs);
    }
    JSONW_LIT(b, "}\n");
}

static const char octets[] = "application/octet-stream";

static bool wants_binary(const struct http_request *r)
{
    const char *accept = http_header(r, "Accept");
    return accept && strncasecmp(accept, octets, sizeof(octets) - 1) == 0;
}

static void write_binary(const struct http_request *r, const struct serve_choice *c, struct serve_state *s,
                         const struct retrieve_query *rq, const struct retrieve_result *res, struct http_response *resp)
{
    resp->status = 200;
    resp->content_type = octets;
    buf_reset(&s->meta);
    put_about(&s->meta, r, c, s->query, rq, res);
    JSONW_LIT(&s->meta, "}\n");
    hits_write_binary(&resp->body, c->loaded->bundle->items, s->hit, res->n, &s->meta);
    resp->body.failed = resp->body.failed || s->meta.failed;
}

/* Milliseconds to the microsecond, without printf's floating point: that alone would be a microsecond of a request. */
static char *put_ms(char *p, uint64_t ns)
{
    uint64_t us = (ns + 500) / 1000;
    p = jsonw_put_uint(p, us / 1000);
    *p++ = '.';
    for (uint64_t unit = 100; unit > 0; unit /= 10)
        *p++ = (char)('0' + us / unit % 10);
    return p;
}

void serve_timing(struct http_response *resp, const struct retrieve_result *res)
{
    static const char embed[] = "embed;dur=", search[] = ", search;dur=";
    char text[sizeof(embed) + sizeof(search) + 2 * (JSONW_NUMBER_MAX + 4)], *p = text;
    p = put_ms((char *)memcpy(p, embed, sizeof(embed) - 1) + sizeof(embed) - 1, res->embed_ns);
    p = put_ms((char *)memcpy(p, search, sizeof(search) - 1) + sizeof(search) - 1, res->search_ns);
    *p = '\0';
    http_add_text_header(resp, "Server-Timing", text);
}

static bool run(struct serve_state *s, const struct serve_choice *c, const struct retrieve_query *rq,
                struct retrieve_result *res, struct err *err)
{
    memset(res, 0, sizeof(*res));
    if (!serve_room((void **)&s->hit, &s->cap_hit, rq->k, sizeof(*s->hit)))
        return err_set(err, ERR_NOMEM, "out of memory");
    return retrieve_topk(c->loaded->bundle, rq, c->ws, s->hit, res, err);
}

/* With less than its ef where requests wait; the query keeps what its ef would have been, if that was so. */
static bool run_within_means(const struct http_request *r, struct serve_state *s, const struct serve_choice *c,
                             const struct retrieve_query *rq, struct retrieve_result *res, struct err *err)
{
    struct retrieve_query less;
    size_t full = effort_lower(c->loaded->bundle, rq, r->ef_share, &less);
    bool ok = run(s, c, full ? &less : rq, res, err);
    s->query->full_ef = res->ef_used && res->ef_used < full ? full : 0;
    return ok;
}

static bool topk(struct app *app, const struct http_request *r, const struct serve_choice *c, struct serve_state *s,
                 const struct retrieve_query *rq, bool binary, struct http_response *resp)
{
    const struct thread_state *t = r->thread_state;
    struct retrieve_result *res = &s->result;
    struct err err = {0};
    if (!run_within_means(r, s, c, rq, res, &err))
        return !serve_failed(app, r, &err, resp);
    if (res->late && res->n == 0)
        return !problem_write(resp, r, 504, "deadline_exceeded", NULL,
                              "the request's deadline passed before the search");
    if (binary)
        write_binary(r, c, s, rq, res, resp);
    else
        write_json(r, c, s, rq, res, resp);
    serve_count(app, t->shard, c, res);
    if (s->query->full_ef)
        metrics_add(app->metrics, t->shard, c->loaded->metric.ef_lowered, 1);
    return true;
}

bool serve_topk_json(struct app *app, const struct http_request *r, const struct serve_choice *c, struct serve_state *s,
                     const struct retrieve_query *rq, struct http_response *resp)
{
    return topk(app, r, c, s, rq, false, resp);
}

bool serve_topk(struct app *app, const struct http_request *r, const struct serve_choice *c, struct serve_state *s,
                const struct retrieve_query *rq, struct http_response *resp)
{
    bool binary = wants_binary(r);
    if (binary && s->query->fields.n)
        return !problem_write(resp, r, 400, "invalid_value", "/fields", "attributes come in JSON answers only");
    if (!topk(app, r, c, s, rq, binary, resp))
        return false;
    serve_timing(resp, &s->result);
    return true;
}
