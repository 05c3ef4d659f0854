/* handle_score.c - POST /v1/score: scores of given items for a user, in the order of the request. */
#include <string.h>

#include "server/jsonw.h"
#include "server/problem.h"
#include "server/serve.h"

/* Scores of the items that there are, packed: score[j] is that of the j-th known one. */
static bool score_known(struct serve_state *s, const struct serve_choice *c, const struct retrieve_query *rq,
                        struct retrieve_result *res, struct err *err)
{
    struct query *q = s->query;
    size_t n = 0;
    if (!serve_room((void **)&s->vec, &s->cap_vec, q->item_ids.n + 1, sizeof(*s->vec)) ||
        !serve_room((void **)&s->known, &s->cap_known, q->item_ids.n + 1, sizeof(*s->known)))
        return err_set(err, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < q->item_ids.n; i++)
        if (q->item[i] != STRTAB_NONE)
            s->known[n++] = q->item[i];
    return retrieve_score(c->loaded->bundle, rq, s->known, n, c->ws, s->vec, res, err);
}

static void write_answer(const struct http_request *r, const struct serve_choice *c, const struct serve_state *s,
                         const struct retrieve_query *rq, const struct retrieve_result *res, struct http_response *resp)
{
    struct buf *b = &resp->body;
    const struct query *q = s->query;
    size_t known = 0;
    resp->status = 200;
    serve_put_head(b, r, c, q, rq, res);
    JSONW_LIT(b, ",\"items\":[");
    for (size_t i = 0; i < q->item_ids.n; i++) {
        struct str id = q->str[q->item_ids.first + i];
        buf_puts(b, i ? ",{\"id\":" : "{\"id\":");
        jsonw_string(b, id.p, id.n);
        JSONW_LIT(b, ",\"score\":");
        if (q->item[i] == STRTAB_NONE)
            JSONW_LIT(b, "null");
        else
            jsonw_float7(b, s->vec[known++]);
        JSONW_LIT(b, "}");
    }
    JSONW_LIT(b, "]}\n");
}

bool handle_score(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    struct thread_state *t = r->thread_state;
    struct serve_state *s = t->serve;
    struct serve_choice c;
    struct retrieve_query rq;
    struct retrieve_result res;
    struct err err = {0};
    (void)m;
    if (!serve_read(app, r, QUERY_SCORE, s, resp) || !serve_choose(app, r, s->query, &c, resp))
        return true;
    if (serve_resolve(app, r, s->query, &c, &rq, resp)) {
        if (!score_known(s, &c, &rq, &res, &err)) {
            serve_failed(app, r, &err, resp);
        } else {
            write_answer(r, &c, s, &rq, &res, resp);
            serve_timing(resp, &res);
            serve_count(app, t->shard, &c, &res);
        }
    }
    serve_choice_done(app, &c);
    if (resp->body.failed)
        return serve_no_memory(r, resp);
    return true;
}
