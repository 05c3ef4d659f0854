/* handle_retrieve.c - POST /v1/retrieve: read, choose a model, retrieve, write. Allocates nothing once the loop's
 * scratch is warm. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/hash.h"
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

bool handle_retrieve(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    struct thread_state *t = r->thread_state;
    struct serve_state *s = t->serve;
    struct serve_choice c;
    struct retrieve_query rq;
    (void)m;
    if (!serve_read(app, r, QUERY_RETRIEVE, s, resp) || !serve_choose(app, r, &s->query, &c, resp))
        return true;
    if (serve_resolve(app, r, &s->query, &c, &rq, resp)) {
        if (serve_topk(app, r, &c, s, &rq, resp))
            log_exposures(app, t->shard, r, &c, s->query.user_id);
    }
    serve_choice_done(app, &c);
    if (resp->body.failed)
        return problem_write(resp, r, 503, "out_of_memory", NULL, "out of memory");
    return true;
}
