/* handle_batch.c - POST /v1/retrieve:batch: many requests of /v1/retrieve in one body, answered in order by one generation.
 *
 *     body -> where each request lies -> RETRIEVE_BATCH at a time: parse, choose, resolve
 *                                          -> their vectors, model by model, by one pass through the tower
 *                                          -> search, write
 *
 * What is wrong with one request is told in its place and does not touch the others. By RETRIEVE_BATCH, so that the parsed requests
 * of a large batch do not take tens of megabytes; the tower gains nothing from more. */
#include "server/batch.h"

#include <stdlib.h>
#include <string.h>

#include "server/batch_body.h"
#include "server/exposure_log.h"
#include "server/jsonw.h"
#include "server/problem.h"
#include "server/record.h"
#include "server/serve.h"
#include "server/service.h"
#include "server/shadow.h"
#include "server/workers.h"

struct entry {
    struct query query;
    struct serve_choice c;
    struct retrieve_query rq;
    struct http_response problem; // .status = 0: none so far
};

struct batch {
    struct batch_body body;
    struct entry *entry[RETRIEVE_BATCH]; // made when first needed
    struct retrieve_embedded embedded[RETRIEVE_BATCH];
    struct http_response part; // one answer
};

/* One batch being answered. */
struct job {
    struct app *app;
    const struct http_request *r;
    struct serve_state *s;
    struct batch *b;
    const struct generation *g;
    struct retrieve_ws *ws[GENERATION_MODELS_MAX]; // NULL until a request needs the model
    struct loaded *loaded[GENERATION_MODELS_MAX];
    struct retrieve_result sum; // of the times
    struct http_response *resp;
};

void batch_free(struct batch *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < RETRIEVE_BATCH; i++)
        if (b->entry[i]) {
            query_fini(&b->entry[i]->query);
            buf_fini(&b->entry[i]->problem.body);
            free(b->entry[i]);
        }
    buf_fini(&b->part.body);
    batch_body_fini(&b->body);
    free(b);
}

/* False: answered. */
static bool read_batch(struct app *app, const struct http_request *r, struct batch_body *b, struct http_response *resp)
{
    struct query_limits lim = serve_limits(app);
    struct wire_error e;
    if (!serve_is_json(r))
        return !problem_write(resp, r, 415, "unsupported_media_type", NULL, "Content-Type must be application/json");
    return batch_body_read(b, r->body, r->body_len, &lim, app->config->limits.batch, &e) || !serve_wire_problem(r, &e, resp);
}

// ------------------------------------------------------------------------------------------------------- one by one

static void reset(struct http_response *resp)
{
    struct buf body = resp->body;
    buf_reset(&body);
    *resp = (struct http_response){.body = body};
}

static bool take_ws(struct job *j, struct entry *e)
{
    struct err err = {0};
    size_t m = e->c.model;
    if (!j->ws[m])
        j->ws[m] = loaded_take_ws(e->c.loaded, &err);
    j->loaded[m] = e->c.loaded;
    e->c.ws = j->ws[m];
    return e->c.ws || !serve_failed(j->app, j->r, &err, &e->problem);
}

/* Request i into e, or its problem. */
static void prepare(struct job *j, size_t i, struct entry *e)
{
    struct str text = j->b->body.request[i];
    struct query_limits lim = serve_limits(j->app);
    struct wire_error w;
    reset(&e->problem);
    e->c.g = j->g;
    if (app_now_ns() > j->r->deadline_ns)
        problem_write(&e->problem, j->r, 504, "deadline_exceeded", NULL, "the deadline passed before it was begun");
    else if (!query_parse(&e->query, QUERY_RETRIEVE, text.p, text.n, &lim, &w))
        serve_wire_problem(j->r, &w, &e->problem);
    else if (serve_choose_model(j->r, &e->query, &e->c, &e->problem) && take_ws(j, e))
        serve_resolve(j->app, j->r, &e->query, &e->c, &e->rq, &e->problem);
}

static void put(struct job *j, const struct http_response *part)
{
    const struct buf *b = &part->body;
    j->resp->body.failed = j->resp->body.failed || b->failed;
    if (b->len)
        buf_put(&j->resp->body, b->data, b->len - 1); // but for the newline
}

static void answer(struct job *j, size_t i, struct entry *e)
{
    struct http_response *part = &j->b->part;
    const struct thread_state *t = j->r->thread_state;
    uint64_t begun_ns = app_now_ns();
    reset(part);
    j->s->query = &e->query;
    if (serve_topk_json(j->app, j->r, &e->c, j->s, &e->rq, part)) {
        exposure_log(j->app, t->shard, j->r, &e->c, j->s);
        shadow_offer(j->app->parts->shadow, t->shard, j->b->body.request[i], &e->c, j->s, e->rq.k);
        j->sum.embed_ns += j->s->result.embed_ns;
        j->sum.search_ns += j->s->result.search_ns;
    }
    j->s->query = &j->s->own;
    serve_observe(&e->c, part, e->query.without_variant_filter, part->status == 200 && j->s->result.n == 0, begun_ns);
    put(j, part);
}

// ------------------------------------------------------------------------------------------------------- together

/* Vectors of those of the n requests that ask model m; how many they are. */
static size_t embed(struct job *j, size_t n, size_t m, struct retrieve_embedded *out)
{
    const struct retrieve_query *q[RETRIEVE_BATCH];
    struct entry *of[RETRIEVE_BATCH];
    struct err err = {0};
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        struct entry *e = j->b->entry[i];
        if (e->problem.status || e->c.model != m)
            continue;
        of[k] = e;
        q[k++] = &e->rq;
    }
    if (k == 0)
        return 0;
    bool ok = retrieve_embed_batch(j->loaded[m]->bundle, q, k, j->ws[m], out, &err);
    for (size_t i = 0; i < k; i++)
        if (ok)
            of[i]->rq.embedded = &out[i];
        else
            serve_failed(j->app, j->r, &err, &of[i]->problem);
    return k;
}

static bool any_heavy(const struct job *j, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct entry *e = j->b->entry[i];
        if (!e->problem.status && serve_is_heavy(j->app, j->r, &e->c, &e->rq))
            return true;
    }
    return false;
}

/* Requests first .. first + n - 1. False: they want a worker, and nothing has been done. */
static bool answer_some(struct job *j, size_t first, size_t n)
{
    for (size_t i = 0; i < n; i++)
        prepare(j, first + i, j->b->entry[i]);
    if (any_heavy(j, n))
        return false;
    size_t at = 0;
    for (size_t m = 0; m < j->g->n_models; m++)
        at += embed(j, n, m, j->b->embedded + at);
    for (size_t i = 0; i < n; i++) {
        struct entry *e = j->b->entry[i];
        if (first + i)
            JSONW_LIT(&j->resp->body, ",");
        if (e->problem.status)
            put(j, &e->problem);
        else
            answer(j, first + i, e);
    }
    return true;
}

static bool answer_all(struct job *j)
{
    struct buf *b = &j->resp->body;
    JSONW_LIT(b, "{\"request_id\":");
    jsonw_text(b, j->r->id);
    JSONW_LIT(b, ",\"results\":[");
    for (size_t i = 0; i < j->b->body.n; i += RETRIEVE_BATCH)
        if (!answer_some(j, i, j->b->body.n - i < RETRIEVE_BATCH ? j->b->body.n - i : RETRIEVE_BATCH))
            return false;
    JSONW_LIT(b, "]}\n");
    j->resp->status = 200;
    serve_timing(j->resp, &j->sum);
    return true;
}

static bool make_entries(struct batch *b)
{
    size_t n = b->body.n < RETRIEVE_BATCH ? b->body.n : RETRIEVE_BATCH;
    for (size_t i = 0; i < n; i++) {
        if (b->entry[i])
            continue;
        if (!(b->entry[i] = mem_array(1, sizeof(*b->entry[i]), NULL)))
            return false;
        query_init(&b->entry[i]->query);
    }
    return true;
}

bool handle_batch(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    const struct thread_state *t = r->thread_state;
    struct serve_state *s = t->serve;
    (void)m;
    if (!s || !(s->batch || (s->batch = mem_array(1, sizeof(*s->batch), NULL))))
        return serve_no_memory(r, resp);
    struct batch *b = s->batch;
    if (!read_batch(app, r, &b->body, resp))
        return true;
    if (!t->is_worker && b->body.n > app->config->workers.batch)
        return workers_submit(app->parts->workers, handle_batch, r, resp);
    if (!make_entries(b))
        return serve_no_memory(r, resp);
    struct job j = {.app = app, .r = r, .s = s, .b = b, .g = generation_acquire(app->generations), .resp = resp};
    bool done = answer_all(&j);
    for (size_t i = 0; i < j.g->n_models; i++)
        if (j.ws[i])
            loaded_put_ws(j.loaded[i], j.ws[i]);
    generation_release(app->generations, j.g);
    if (done) {
        if (resp->body.failed)
            serve_no_memory(r, resp);
        record_batch(app->parts->recorder, t->shard, r, b->body.n, &j.sum, s, resp);
        return true;
    }
    reset(resp);
    return workers_submit(app->parts->workers, handle_batch, r, resp);
}
