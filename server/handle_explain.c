/* handle_explain.c - POST /v1/explain: why an item is, or is not, among a user's candidates. */
#include "core/explain.h"
#include "server/jsonw.h"
#include "server/problem.h"
#include "server/serve.h"
#include "server/service.h"
#include "server/workers.h"

static void put_rank(struct buf *b, const char *name, size_t rank)
{
    buf_puts(b, name);
    if (rank)
        jsonw_uint(b, rank);
    else
        JSONW_LIT(b, "null");
}

static void put_score(struct buf *b, const char *name, bool known, float score)
{
    buf_puts(b, name);
    if (known)
        jsonw_float7(b, score);
    else
        JSONW_LIT(b, "null");
}

static void put_rules(struct buf *b, const struct explanation *x)
{
    bool first = true;
    JSONW_LIT(b, ",\"dropped_by\":[");
    for (int i = 0; i < EXPLAIN_RULES; i++) {
        if (!x->dropped[i])
            continue;
        if (!first)
            JSONW_LIT(b, ",");
        first = false;
        jsonw_text(b, explain_rule_name[i]);
    }
    JSONW_LIT(b, "]");
}

static void write_answer(const struct http_request *r, const struct serve_choice *c, const struct query *q,
                         const struct retrieve_query *rq, const struct explanation *x, struct http_response *resp)
{
    struct buf *b = &resp->body;
    resp->status = 200;
    serve_put_head(b, r, c, q, rq, &x->result);
    JSONW_LIT(b, ",\"k\":");
    jsonw_uint(b, rq->k);
    JSONW_LIT(b, ",\"item_id\":");
    jsonw_string(b, q->item_id.p, q->item_id.n);
    put_score(b, ",\"score\":", true, x->score);
    put_rank(b, ",\"rank\":", x->rank);
    put_rank(b, ",\"exact_rank\":", x->exact_rank);
    put_rank(b, ",\"exact_rank_without_rules\":", x->exact_rank_any);
    put_score(b, ",\"kth_score\":", x->has_kth, x->kth_score);
    put_score(b, ",\"gap\":", x->has_kth, x->score - x->kth_score);
    put_rules(b, x);
    buf_puts(b, x->missed ? ",\"missed_by_graph\":true" : ",\"missed_by_graph\":false");
    put_rank(b, ",\"ef_used\":", x->result.ef_used);
    put_rank(b, ",\"ef_needed\":", x->ef_needed);
    JSONW_LIT(b, "}\n");
}

static bool explain(struct app *app, const struct http_request *r, const struct serve_choice *c, struct serve_state *s,
                    const struct retrieve_query *rq, struct http_response *resp)
{
    const struct bundle *b = c->loaded->bundle;
    struct explanation x;
    struct err err = {0};
    uint32_t item = items_find(b->items, s->query->item_id.p, s->query->item_id.n);
    if (item == STRTAB_NONE)
        return problem_write(resp, r, 404, "unknown_item", "/item_id", "model '%s' has no such item",
                             b->manifest.model);
    if (!serve_room((void **)&s->hit, &s->cap_hit, EXPLAIN_RANKS, sizeof(*s->hit)))
        err_set(&err, ERR_NOMEM, "out of memory");
    else
        explain_item(b, rq, item, app->config->limits.ef, c->ws, s->hit, &x, &err);
    if (err.code)
        return serve_failed(app, r, &err, resp);
    if (x.result.late)
        return problem_write(resp, r, 504, "deadline_exceeded", NULL, "the request's deadline passed during the scans");
    write_answer(r, c, s->query, rq, &x, resp);
    return true;
}

bool handle_explain(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    struct thread_state *t = r->thread_state;
    struct serve_state *s = t->serve;
    struct serve_choice c;
    struct retrieve_query rq;
    (void)m;
    if (!serve_read(app, r, QUERY_EXPLAIN, s, resp))
        return true;
    if (!t->is_worker)
        return workers_submit(app->parts->workers, handle_explain, r, resp);
    if (!serve_choose(app, r, s->query, &c, resp))
        return true;
    if (serve_resolve(app, r, s->query, &c, &rq, resp))
        explain(app, r, &c, s, &rq, resp);
    serve_choice_done(app, &c);
    if (resp->body.failed)
        return serve_no_memory(r, resp);
    return true;
}
