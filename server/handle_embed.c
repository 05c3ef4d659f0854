/* handle_embed.c - POST /v1/users:embed: p_u and a_u as a retrieve request would use them. */
#include <string.h>

#include "server/jsonw.h"
#include "server/problem.h"
#include "server/serve.h"

static void put_vector(struct buf *b, const float *v, size_t n)
{
    JSONW_LIT(b, "[");
    for (size_t i = 0; i < n; i++) {
        if (i)
            JSONW_LIT(b, ",");
        jsonw_float9(b, v[i]);
    }
    JSONW_LIT(b, "]");
}

/* One vector as a list; of models with several, a list of n lists. */
static void put_vectors(struct buf *b, const float *v, size_t n, size_t d)
{
    if (n == 0) {
        put_vector(b, v, d);
        return;
    }
    JSONW_LIT(b, "[");
    for (size_t i = 0; i < n; i++) {
        if (i)
            JSONW_LIT(b, ",");
        put_vector(b, v + i * d, d);
    }
    JSONW_LIT(b, "]");
}

/* FALLBACK_POPULAR has no vector, and a plain two-tower no a_u: null. */
static void write_answer(const struct http_request *r, const struct serve_choice *c, const struct query *q,
                         const struct retrieve_query *rq, const struct retrieve_result *res, const float *p_u,
                         const float *a_u, size_t d_aug, struct http_response *resp)
{
    struct buf *b = &resp->body;
    bool popular = res->fallback == FALLBACK_POPULAR;
    size_t d = c->loaded->bundle->manifest.d;
    resp->status = 200;
    serve_put_head(b, r, c, q, rq, res);
    JSONW_LIT(b, ",\"d\":");
    jsonw_uint(b, d);
    JSONW_LIT(b, ",\"p_u\":");
    if (popular)
        JSONW_LIT(b, "null");
    else
        put_vectors(b, p_u, c->loaded->bundle->manifest.n_interest > 1 ? res->n_vectors : 0, d);
    JSONW_LIT(b, ",\"a_u\":");
    if (popular || d_aug == 0)
        JSONW_LIT(b, "null");
    else
        put_vector(b, a_u, d_aug);
    JSONW_LIT(b, "}\n");
}

bool handle_embed(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    struct thread_state *t = r->thread_state;
    struct serve_state *s = t->serve;
    struct serve_choice c;
    struct retrieve_query rq;
    struct retrieve_result res;
    struct err err = {0};
    (void)m;
    if (!serve_read(app, r, QUERY_EMBED, s, resp) || !serve_choose(app, r, s->query, &c, resp))
        return true;
    if (serve_resolve(app, r, s->query, &c, &rq, resp)) {
        const struct bundle *b = c.loaded->bundle;
        size_t d_aug = b->model->user.shape.d_aug, d = retrieve_width(b);
        memset(&res, 0, sizeof(res));
        if (!serve_room((void **)&s->vec, &s->cap_vec, d + d_aug, sizeof(float)))
            err_set(&err, ERR_NOMEM, "out of memory");
        else
            retrieve_embed(b, &rq, c.ws, s->vec, d_aug ? s->vec + d : NULL, &res, &err);
        if (err.code)
            serve_failed(app, r, &err, resp);
        else
            write_answer(r, &c, s->query, &rq, &res, s->vec, s->vec + d, d_aug, resp);
    }
    serve_choice_done(app, &c);
    if (resp->body.failed)
        return serve_no_memory(r, resp);
    return true;
}
