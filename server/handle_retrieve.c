/* handle_retrieve.c - POST /v1/retrieve: read, choose a model, retrieve, write. Allocates nothing once the loop's
 * scratch is warm. */
#include "server/exposure_log.h"
#include "server/record.h"
#include "server/serve.h"
#include "server/service.h"
#include "server/shadow.h"
#include "server/workers.h"

bool handle_retrieve(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    struct thread_state *t = r->thread_state;
    struct serve_state *s = t->serve;
    struct serve_choice c;
    struct retrieve_query rq;
    uint64_t begun_ns = app_now_ns();
    (void)m;
    if (!serve_read(app, r, QUERY_RETRIEVE, s, resp) ||
        !serve_choose_observed(app, r, s->query, begun_ns, &c, resp))
        return true;
    if (serve_resolve(app, r, s->query, &c, &rq, resp)) {
        if (serve_is_heavy(app, r, &c, &rq)) {
            serve_choice_done(app, &c);
            return workers_submit(app->parts->workers, handle_retrieve, r, resp);
        }
        if (serve_topk(app, r, &c, s, &rq, resp)) {
            exposure_log(app, t->shard, r, &c, s);
            shadow_offer(app->parts->shadow, t->shard, (struct str){r->body, r->body_len}, &c, s, rq.k);
        }
    }
    if (resp->body.failed)
        serve_no_memory(r, resp);
    serve_observe(&c, resp, s->query->without_variant_filter, s->result.n == 0, begun_ns);
    record_request(app->parts->recorder, t->shard, r, &c, s, resp);
    serve_choice_done(app, &c);
    return true;
}
