/* handle_retrieve.c - POST /v1/retrieve: read, choose a model, retrieve, write. Allocates nothing once the loop's
 * scratch is warm. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/hash.h"
#include "server/hits.h"
#include "server/jsonw.h"
#include "server/problem.h"
#include "server/serve.h"

/* One line for each assignment that this answer exposes the user to. The user's id is hashed (XXH64, as for buckets but
 * without salt). */
static void log_exposures(struct app *app, unsigned shard, const struct http_request *r, const struct serve_choice *c,
                          struct str unit)
{
    char hash[17];
    bool logged = atomic_load_explicit(&app->log.level, memory_order_relaxed) <= (int)LOG_INFO;
    if (c->a.n == 0)
        return;
    if (logged)
        snprintf(hash, sizeof(hash), "%016" PRIx64, hash_xxh64(unit.p ? unit.p : "", unit.n));
    for (size_t i = 0; i < c->a.n; i++) {
        if (c->a.variant[i] == EXPERIMENT_NO_OWNER)
            continue;
        const struct experiment *e = experiment_table_get(c->g->experiments, i);
        const struct experiment_variant *v = &e->variant[c->a.variant[i]];
        metrics_add(app->metrics, shard, v->metric, 1);
        if (logged)
            log_event(&app->log, LOG_INFO, "exposure", LOG_STR("request_id", r->id), LOG_STR("experiment", e->name),
                      LOG_STR("variant", v->name), LOG_INT("bucket", c->a.bucket[i]),
                      LOG_BOOL("override", c->a.overridden[i]), LOG_STR("unit_hash", unit.n ? hash : ""),
                      LOG_STR("model", c->g->model[c->model].name),
                      LOG_INT("version", c->loaded->bundle->manifest.version));
    }
}

static void count(struct app *app, unsigned shard, const struct serve_choice *c, const struct retrieve_result *res)
{
    const struct loaded_metrics *m = &c->loaded->metric;
    metrics_add(app->metrics, shard, m->answers[res->fallback], 1);
    metrics_observe_ns(app->metrics, shard, m->embed_s, res->embed_ns);
    metrics_observe_ns(app->metrics, shard, m->search_s, res->search_ns);
    metrics_observe_size(app->metrics, shard, m->returned, res->n);
    if (res->n_unknown)
        metrics_add(app->metrics, shard, m->unknown_values, res->n_unknown);
}

static void write_answer(const struct http_request *r, const struct serve_choice *c, const struct query *q,
                         const struct retrieve_query *rq, const struct retrieve_hit *hit,
                         const struct retrieve_result *res, struct http_response *resp)
{
    struct buf *b = &resp->body;
    const struct hits_attrs attrs = {q->attr, q->fields.n};
    resp->status = 200;
    serve_put_head(b, r, c, q, rq, res);
    JSONW_LIT(b, ",\"k\":");
    jsonw_uint(b, rq->k);
    JSONW_LIT(b, ",\"returned\":");
    jsonw_uint(b, res->n);
    if (q->columns) {
        JSONW_LIT(b, ",\"columns\":");
        hits_write_columns(b, c->loaded->bundle->items, hit, res->n, &attrs);
    } else {
        JSONW_LIT(b, ",\"items\":");
        hits_write_rows(b, c->loaded->bundle->items, hit, res->n, &attrs);
    }
    JSONW_LIT(b, "}\n");
}

static void add_timing(struct http_response *resp, const struct retrieve_result *res)
{
    http_add_header(resp, "Server-Timing", "embed;dur=%.3f, search;dur=%.3f", (double)res->embed_ns * 1e-6,
                    (double)res->search_ns * 1e-6);
}

static bool run(struct serve_state *s, const struct serve_choice *c, const struct retrieve_query *rq,
                struct retrieve_result *res, struct err *err)
{
    memset(res, 0, sizeof(*res));
    if (!serve_room((void **)&s->hit, &s->cap_hit, rq->k, sizeof(*s->hit)))
        return err_set(err, ERR_NOMEM, "out of memory");
    return retrieve_topk(c->loaded->bundle, rq, c->ws, s->hit, res, err);
}

bool handle_retrieve(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    struct thread_state *t = r->thread_state;
    struct serve_state *s = t->serve;
    struct serve_choice c;
    struct retrieve_query rq;
    struct retrieve_result res;
    struct err err = {0};
    (void)m;
    if (!serve_read(app, r, QUERY_RETRIEVE, s, resp) || !serve_choose(app, r, &s->query, &c, resp))
        return true;
    if (serve_resolve(app, r, &s->query, &c, &rq, resp)) {
        if (!run(s, &c, &rq, &res, &err)) {
            serve_failed(app, r, &err, resp);
        } else {
            write_answer(r, &c, &s->query, &rq, s->hit, &res, resp);
            add_timing(resp, &res);
            count(app, t->shard, &c, &res);
            log_exposures(app, t->shard, r, &c, s->query.user_id);
        }
    }
    serve_choice_done(app, &c);
    if (resp->body.failed)
        return problem_write(resp, r, 503, "out_of_memory", NULL, "out of memory");
    return true;
}
