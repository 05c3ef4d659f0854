#include "server/serve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config/yaml.h"
#include "server/batch.h"
#include "server/jsonw.h"
#include "server/problem.h"
#include "server/tally.h"

// ------------------------------------------------------------------------------------------------------- scratch

struct serve_state *serve_state_new(struct app *app)
{
    (void)app;
    struct serve_state *s = mem_array(1, sizeof(*s), NULL);
    if (!s)
        return NULL;
    s->query = &s->own;
    query_init(s->query);
    return s;
}

void serve_state_free(struct app *app, struct serve_state *s)
{
    (void)app;
    if (!s)
        return;
    query_fini(&s->own);
    batch_free(s->batch);
    free(s->hit);
    free(s->vec);
    free(s->known);
    buf_fini(&s->meta);
    buf_fini(&s->line);
    free(s);
}

bool serve_room(void **p, size_t *cap, size_t n, size_t size)
{
    if (n <= *cap)
        return true;
    void *grown = mem_array(n, size, NULL);
    if (!grown)
        return false;
    free(*p);
    *p = grown;
    *cap = n;
    return true;
}

// ------------------------------------------------------------------------------------------------------- problems

bool serve_no_memory(const struct http_request *r, struct http_response *resp)
{
    http_add_header(resp, "Retry-After", "1");
    return problem_write(resp, r, 503, "out_of_memory", NULL, "out of memory");
}

bool serve_wire_problem(const struct http_request *r, const struct wire_error *e, struct http_response *resp)
{
    if (e->status == 503)
        http_add_header(resp, "Retry-After", "1");
    return problem_write_id(resp, r->id, e->status, e->code, e->pointer, e->detail);
}

bool serve_failed(struct app *app, const struct http_request *r, const struct err *err, struct http_response *resp)
{
    problem_from_err(resp, r, err,
                     err->code == ERR_ARG     ? "invalid_query"
                     : err->code == ERR_NOMEM ? "out_of_memory"
                                              : NULL);
    if (resp->status == 503)
        http_add_header(resp, "Retry-After", "1");
    if (resp->status >= 500)
        log_event(&app->log, LOG_ERROR, "request_failed", LOG_STR("request_id", r->id), LOG_STR("path", r->path),
                  LOG_STR("cause", err->msg), TRACE_LOG(&r->trace));
    return true;
}

bool serve_unknown_model(const struct http_request *r, const struct generation *g, const char *name, size_t n,
                         const char *pointer, struct http_response *resp)
{
    const char *known[LABELS_MAX + GENERATION_MODELS_MAX];
    char word[GENERATION_NAME_MAX + 1];
    size_t len = n < sizeof(word) - 1 ? n : sizeof(word) - 1;
    while (len < n && len > 0 && ((unsigned char)name[len] & 0xc0) == 0x80)
        len--; // whole characters
    memcpy(word, name, len);
    word[len] = '\0';
    const char *near = ynode_nearest(word, known, generation_names(g, g->labels, known));
    if (near)
        return problem_write(resp, r, 404, "unknown_model", pointer, "no model '%s' is configured, did you mean '%s'?",
                             word, near);
    return problem_write(resp, r, 404, "unknown_model", pointer, "no model '%s' is configured", word);
}

// ------------------------------------------------------------------------------------------------------- reading

struct query_limits serve_limits(const struct app *app)
{
    const struct config *c = app->config;
    return (struct query_limits){
        .k = c->limits.k,
        .ef = c->limits.ef,
        .ids = c->limits.ids,
        .id_bytes = c->limits.id_bytes < ITEM_ID_MAX ? c->limits.id_bytes : ITEM_ID_MAX,
        .history = c->limits.history,
        .depth = (unsigned)c->limits.json_depth,
    };
}

/* No Content-Type is taken for JSON; another one is refused, so that a browser's form cannot post here. */
bool serve_is_json(const struct http_request *r)
{
    static const char json[] = "application/json";
    const char *type = http_header(r, "Content-Type");
    if (!type)
        return true;
    size_t n = strcspn(type, "; \t");
    return n == sizeof(json) - 1 && strncasecmp(type, json, n) == 0;
}

bool serve_parse(const struct app *app, enum query_kind kind, const char *body, size_t n, struct query *q, struct wire_error *e)
{
    struct query_limits lim = serve_limits(app);
    return query_parse(q, kind, body, n, &lim, e);
}

bool serve_read(struct app *app, const struct http_request *r, enum query_kind kind, struct serve_state *s,
                struct http_response *resp)
{
    struct wire_error e;
    if (!s)
        return !serve_no_memory(r, resp);
    if (!serve_is_json(r))
        return !problem_write(resp, r, 415, "unsupported_media_type", NULL, "Content-Type must be application/json");
    if (!serve_parse(app, kind, r->body, r->body_len, s->query, &e))
        return !serve_wire_problem(r, &e, resp);
    return true;
}

// ------------------------------------------------------------------------------------------------------- choosing

static bool not_ready(const struct http_request *r, const struct generation_model *m, struct http_response *resp)
{
    http_add_header(resp, "Retry-After", "1");
    return problem_write(resp, r, 503, "model_not_ready", NULL, "model '%s' has no version loaded%s%s", m->name,
                         m->degraded[0] ? ": " : " yet", m->degraded);
}

/* Which model by name or by experiment? False: answered. */
static bool name_model(const struct http_request *r, const struct query *q, struct serve_choice *c,
                         struct http_response *resp)
{
    struct err err = {0};
    if (q->model.p) { // named: experiments have no say, and nothing is exposed
        int i = generation_find(c->g, q->model.p, q->model.n);
        if (i < 0)
            return !serve_unknown_model(r, c->g, q->model.p, q->model.n, "/model", resp);
        c->model = (size_t)i;
        return true;
    }
    if (!experiment_assign(c->g->experiments, q->user_id.p, q->user_id.n, http_header(r, "X-Experiment-Override"),
                           &c->a, &err))
        return !problem_write(resp, r, 400, "invalid_override", NULL, "%s", err.msg);
    int i = c->a.model ? generation_find(c->g, c->a.model, strlen(c->a.model)) : -1;
    c->model = i < 0 ? c->g->first : (size_t)i; // tables are checked against the models when they are set
    return true;
}

/* What a variant sets is meant for its own model: a request that another model answers is no part of its experiments, whose guardrails would
 * else stop a variant while its model loads. */
static bool stand_in(const struct query *q, struct serve_choice *c)
{
    size_t i = 0;
    while (i < c->g->n_models && !c->g->model[i].loaded)
        i++;
    if (q->model.p || q->has_vector || i == c->g->n_models)
        return false;
    c->missing = c->g->model[c->model].name;
    c->model = i;
    c->loaded = c->g->model[i].loaded;
    c->a.n = 0;
    return true;
}

bool serve_choose_model(const struct http_request *r, const struct query *q, struct serve_choice *c, struct http_response *resp)
{
    c->missing = NULL;
    c->loaded = NULL;
    c->ws = NULL;
    c->a.n = 0;
    if (c->g->n_models == 0) {
        http_add_header(resp, "Retry-After", "5");
        return !problem_write(resp, r, 503, "model_not_ready", NULL, "no model is configured");
    }
    if (!name_model(r, q, c, resp))
        return false;
    const struct generation_model *m = &c->g->model[c->model];
    c->loaded = m->loaded;
    return c->loaded || stand_in(q, c) || !not_ready(r, m, resp);
}

void serve_observe(const struct serve_choice *c, const struct http_response *resp, bool faulty, bool empty, uint64_t begun_ns)
{
    bool error = faulty || resp->status >= 500;
    if (resp->status != 200 && !error)
        return; // the client's fault says nothing of a variant
    uint64_t ns = app_now_ns() - begun_ns;
    for (size_t i = 0; i < c->a.n; i++)
        if (c->a.variant[i] != EXPERIMENT_NO_OWNER && !c->a.overridden[i])
            outcome_add(tally_outcomes(experiment_table_get(c->g->experiments, i)->tally), c->a.variant[i], error, !error && empty, ns);
}

/* observed_ns: begin of a request that the guardrails look at, 0 = they do not. */
static bool choose(struct app *app, const struct http_request *r, const struct query *q, uint64_t observed_ns, struct serve_choice *c,
                   struct http_response *resp)
{
    struct err err = {0};
    c->g = generation_acquire(app->generations);
    c->a.n = 0;
    if (app_now_ns() > r->deadline_ns) {
        problem_write(resp, r, 504, "deadline_exceeded", NULL, "the request's deadline passed before it was begun");
    } else if (serve_choose_model(r, q, c, resp)) {
        if ((c->ws = loaded_take_ws(c->loaded, &err)))
            return true;
        serve_failed(app, r, &err, resp);
    }
    if (observed_ns)
        serve_observe(c, resp, false, false, observed_ns);
    generation_release(app->generations, c->g);
    return false;
}

bool serve_choose(struct app *app, const struct http_request *r, const struct query *q, struct serve_choice *c,
                  struct http_response *resp)
{
    return choose(app, r, q, 0, c, resp);
}

bool serve_choose_observed(struct app *app, const struct http_request *r, const struct query *q, uint64_t begun_ns, struct serve_choice *c,
                           struct http_response *resp)
{
    return choose(app, r, q, begun_ns, c, resp);
}

void serve_choice_done(struct app *app, struct serve_choice *c)
{
    loaded_put_ws(c->loaded, c->ws);
    generation_release(app->generations, c->g);
}

static uint64_t at_most(uint64_t v, uint64_t max)
{
    return v < max ? v : max;
}

/* The operator's target, where neither the request nor its variant says how far to search. */
static void set_target(const struct query *q, const struct loaded *l, struct retrieve_query *rq)
{
    size_t ef;
    const struct bundle *b = l->bundle;
    bool said = rq->ef || rq->exact || q->target_recall > 0;
    if (!said && l->target_recall > 0 &&
        calibration_ef(&b->manifest.calibration, b->layout, rq->k, l->target_recall, &ef) != CALIBRATION_NONE)
        rq->target_recall = l->target_recall;
}

static bool within_limit(const struct app *app, const struct query *q, const struct retrieve_query *rq,
                         struct wire_error *e)
{
    unsigned long long most = app->config->limits.ef;
    if (rq->exact || q->target_recall <= 0 || rq->ef <= most || rq->ef <= rq->k)
        return true;
    *e = (struct wire_error){.status = 422, .code = "limit_exceeded", .pointer = "/target_recall"};
    snprintf(e->detail, sizeof(e->detail), "it takes an ef of %zu, at most %llu are allowed (limits.ef)", rq->ef, most);
    return false;
}

/* A variant's filter may ask for an attribute that this version does not have: then the request is answered without it, and says so. */
static bool resolve(struct query *q, const struct loaded *l, uint64_t k, uint64_t ef, struct retrieve_query *rq, struct wire_error *e)
{
    if (query_resolve(q, l->bundle, k, ef, rq, e))
        return true;
    if (q->n_and == 0)
        return false;
    query_drop_and(q);
    *e = (struct wire_error){0};
    return (q->without_variant_filter = query_resolve(q, l->bundle, k, ef, rq, e));
}

bool serve_resolve_as(const struct app *app, struct query *q, const struct experiment_assignment *a, const struct loaded *l,
                      struct retrieve_query *rq, struct wire_error *e)
{
    struct query_limits lim = serve_limits(app);
    uint64_t k = a->n && a->k ? a->k : QUERY_K_DEFAULT, ef = a->n ? a->ef : 0;
    if (a->n && a->n_filters && !query_and_filters(q, a->filter, a->n_filters, &lim, e))
        return false;
    if (!resolve(q, l, at_most(k, lim.k), at_most(ef, lim.ef), rq, e) || !within_limit(app, q, rq, e))
        return false;
    set_target(q, l, rq);
    return true;
}

bool serve_resolve(struct app *app, const struct http_request *r, struct query *q, const struct serve_choice *c,
                   struct retrieve_query *rq, struct http_response *resp)
{
    struct wire_error e = {0};
    if (!serve_resolve_as(app, q, &c->a, c->loaded, rq, &e))
        return !serve_wire_problem(r, &e, resp);
    rq->deadline_ns = r->deadline_ns;
    return true;
}

bool serve_is_heavy(const struct app *app, const struct http_request *r, const struct serve_choice *c,
                    const struct retrieve_query *rq)
{
    const struct thread_state *t = r->thread_state;
    bool exact = rq->exact || rq->target_recall >= 1;
    return exact && !t->is_worker && c->loaded->bundle->items->n > app->config->workers.exact_items;
}

// ------------------------------------------------------------------------------------------------------- answers

static void put_experiment(struct buf *b, const struct serve_choice *c)
{
    bool first = true;
    JSONW_LIT(b, "{");
    for (size_t i = 0; i < c->a.n; i++) {
        if (c->a.variant[i] == EXPERIMENT_NO_OWNER)
            continue;
        const struct experiment *e = experiment_table_get(c->g->experiments, i);
        if (!first)
            JSONW_LIT(b, ",");
        first = false;
        jsonw_text(b, e->name);
        JSONW_LIT(b, ":");
        jsonw_text(b, e->variant[c->a.variant[i]].name);
    }
    JSONW_LIT(b, "}");
}

/* One more way in which the answer is not what was asked for: "what" or "what:detail". */
static void put_degraded(struct buf *b, bool *first, const char *what, struct str detail)
{
    char text[SCHEMA_NAME_MAX + 64];
    size_t n = strlen(what), room = sizeof(text) - n - 1, d = detail.n < room ? detail.n : room;
    memcpy(text, what, n);
    if (d) {
        text[n++] = ':';
        memcpy(text + n, detail.p, d);
        n += d;
    }
    if (!*first)
        JSONW_LIT(b, ",");
    *first = false;
    jsonw_string(b, text, n);
}

static void put_count(struct buf *b, bool *first, const char *what, size_t count)
{
    char text[JSONW_NUMBER_MAX];
    if (count)
        put_degraded(b, first, what, (struct str){text, (size_t)(jsonw_put_uint(text, count) - text)});
}

static void put_all_degraded(struct buf *b, const struct serve_choice *c, const struct query *q,
                             const struct retrieve_query *rq, const struct retrieve_result *res)
{
    static const struct str none;
    bool first = true;
    JSONW_LIT(b, "[");
    if (c->g->model[c->model].degraded[0])
        put_degraded(b, &first, "older_version", none);
    if (c->missing)
        put_degraded(b, &first, "model_not_ready", (struct str){c->missing, strlen(c->missing)});
    if (res->late)
        put_degraded(b, &first, "deadline", none);
    put_count(b, &first, "ef_lowered", q->full_ef);
    if (q->without_variant_filter)
        put_degraded(b, &first, "variant_filter", none);
    for (size_t i = 0; i < res->n_unknown; i++)
        put_degraded(b, &first, "unknown_value", rq->feature[res->unknown_feature[i]].name);
    put_count(b, &first, "unknown_history_ids", q->unknown_history);
    put_count(b, &first, "unknown_exclude_ids", q->unknown_exclude);
    put_count(b, &first, "unknown_include_ids", q->unknown_include);
    put_count(b, &first, "unknown_item_ids", q->unknown_item);
    put_count(b, &first, "unknown_filter_values", q->unknown_filter);
    put_count(b, &first, "unknown_categories", q->unknown_categories);
    if (rq->exclude_seen && !c->loaded->bundle->users->seen_off)
        put_degraded(b, &first, "seen_not_stored", none);
    JSONW_LIT(b, "]");
}

void serve_put_head(struct buf *b, const struct http_request *r, const struct serve_choice *c, const struct query *q,
                    const struct retrieve_query *rq, const struct retrieve_result *res)
{
    JSONW_LIT(b, "{\"request_id\":");
    jsonw_text(b, r->id);
    JSONW_LIT(b, ",\"model\":");
    jsonw_text(b, c->g->model[c->model].name);
    JSONW_LIT(b, ",\"version\":");
    jsonw_uint(b, c->loaded->bundle->manifest.version);
    JSONW_LIT(b, ",\"experiment\":");
    put_experiment(b, c);
    JSONW_LIT(b, ",\"fallback\":");
    jsonw_text(b, retrieve_fallback_name(res->fallback));
    JSONW_LIT(b, ",\"degraded\":");
    put_all_degraded(b, c, q, rq, res);
}

bool serve_json(const struct http_request *r, struct http_response *resp, unsigned status, json_t *v)
{
    char *text = v ? json_text(v, NULL) : NULL;
    json_decref(v);
    if (!text)
        return serve_no_memory(r, resp);
    resp->status = status;
    buf_puts(&resp->body, text);
    JSONW_LIT(&resp->body, "\n");
    free(text);
    return true;
}
