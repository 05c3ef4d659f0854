/* handle_search.c - POST /v1/search, by a vector of the caller's, and GET /v1/items/{id}/similar, by an item's own. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/utf8.h"
#include "server/problem.h"
#include "server/record.h"
#include "server/serve.h"
#include "server/service.h"
#include "server/workers.h"

static bool finish(struct app *app, const struct http_request *r, struct serve_choice *c, struct http_response *resp)
{
    serve_choice_done(app, c);
    if (resp->body.failed)
        return serve_no_memory(r, resp);
    return true;
}

bool handle_search(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    struct thread_state *t = r->thread_state;
    struct serve_state *s = t->serve;
    struct serve_choice c;
    struct retrieve_query rq;
    (void)m;
    if (!serve_read(app, r, QUERY_SEARCH, s, resp) || !serve_choose(app, r, s->query, &c, resp))
        return true;
    if (serve_resolve(app, r, s->query, &c, &rq, resp)) {
        if (serve_is_heavy(app, r, &c, &rq)) {
            serve_choice_done(app, &c);
            return workers_submit(app->parts->workers, handle_search, r, resp);
        }
        serve_topk(app, r, &c, s, &rq, resp);
    }
    if (resp->body.failed)
        serve_no_memory(r, resp);
    record_request(app->parts->recorder, t->shard, r, &c, s, resp);
    return finish(app, r, &c, resp);
}

// ------------------------------------------------------------------------------------------------------- similar

/* A whole number from 1 to max in the query string. False: answered. */
static bool count_param(const struct http_request *r, const char *name, uint64_t max, uint64_t *out,
                        struct http_response *resp)
{
    char text[24], *end;
    bool given;
    if (!problem_query_param(resp, r, name, text, sizeof(text), &given))
        return false;
    if (!given)
        return true;
    errno = 0;
    unsigned long long v = text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : 0;
    if (v < 1 || *end != '\0' || errno)
        return !problem_write(resp, r, 400, "invalid_value", NULL, "%s: want a whole number from 1 to %llu", name,
                              (unsigned long long)max);
    if (v > max)
        return !problem_write(resp, r, 422, "limit_exceeded", NULL, "%s: at most %llu are allowed (limits.%s)", name,
                              (unsigned long long)max, name);
    *out = v;
    return true;
}

/* The query string's k, ef and model into the query. False: answered. */
static bool read_params(struct app *app, const struct http_request *r, struct query *q, char *model, size_t cap,
                        struct http_response *resp)
{
    bool given;
    query_reset(q);
    if (!problem_query_param(resp, r, "model", model, cap, &given))
        return false;
    if (given)
        q->model = (struct str){model, strlen(model)};
    if (q->model.p && !utf8_valid(q->model.p, q->model.n))
        return !problem_write(resp, r, 404, "unknown_model", NULL, "the model's name is not UTF-8");
    return count_param(r, "k", app->config->limits.k, &q->k, resp) &&
           count_param(r, "ef", app->config->limits.ef, &q->ef, resp);
}

/* The item's own vector, and all items but itself. */
static bool like_item(const struct http_request *r, const struct serve_choice *c, const char *id, uint32_t *item,
                      struct retrieve_query *rq, struct http_response *resp)
{
    const struct bundle *b = c->loaded->bundle;
    *item = items_find(b->items, id, strlen(id));
    if (*item == STRTAB_NONE)
        return !problem_write(resp, r, 404, "unknown_item", NULL, "model '%s' has no such item", b->manifest.model);
    rq->vector = b->emb + (size_t)*item * b->manifest.d;
    rq->exclude = item;
    rq->n_exclude = 1;
    return true;
}

bool handle_similar(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    struct thread_state *t = r->thread_state;
    struct serve_state *s = t->serve;
    struct serve_choice c;
    struct retrieve_query rq;
    uint32_t item;
    char model[GENERATION_NAME_MAX + 1];
    if (!s)
        return serve_no_memory(r, resp);
    if (!read_params(app, r, s->query, model, sizeof(model), resp) || !serve_choose(app, r, s->query, &c, resp))
        return true;
    if (serve_resolve(app, r, s->query, &c, &rq, resp) && like_item(r, &c, m->value[0], &item, &rq, resp))
        serve_topk(app, r, &c, s, &rq, resp);
    return finish(app, r, &c, resp);
}
