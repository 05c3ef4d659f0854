/* serve.h - what the handlers that answer for a model share: reading the body, choosing the model, the common members
 * of answers.
 * Place:   between route.c and query/generation/experiment; used by handle_*.c.
 * Threads: a serve_state belongs to one loop's thread. */
#ifndef DUET_SERVER_SERVE_H
#define DUET_SERVER_SERVE_H

#include <stdbool.h>

#include "core/base/json.h"
#include "core/retrieve.h"
#include "server/app.h"
#include "server/experiment.h"
#include "server/generation.h"
#include "server/http.h"
#include "server/query.h"
#include "server/route.h"

/* Scratch of one loop: grows to what it meets, then a request allocates nothing. */
struct serve_state {
    struct query own;
    struct query *query; // the request that is being answered: own, or a batch's
    struct retrieve_hit *hit;
    size_t cap_hit;
    float *vec; // p_u, then a_u; or scores
    size_t cap_vec;
    struct retrieve_result result; // of the last serve_topk; its hits are in `hit`
    struct buf meta; // of a binary answer
    struct buf line; // of the exposure log, of recorded requests
    uint64_t slow_turn, record_turn; // requests that record.c might have written down
    uint64_t shadow_turn; // answers that shadow variants were offered
    struct batch *batch; // handle_batch.c; made by the first batch
    uint32_t *known; // item_idx
    size_t cap_known;
};
struct serve_state *serve_state_new(struct app *app);
void serve_state_free(struct app *app, struct serve_state *s);
bool serve_room(void **p, size_t *cap, size_t n, size_t size); // contents are not kept; false: out of memory

/* One request's part of the world: a generation, the experiments' word on it, one model with a workspace. */
struct serve_choice {
    const struct generation *g;
    struct experiment_assignment a; // a.n = 0 where experiments do not apply
    size_t model;                   // index in g->model
    const char *missing;            // the model that was to answer and has no version, another stands in; NULL = it answers
    struct loaded *loaded;
    struct retrieve_ws *ws;
};

/* Body -> s->query. False: the problem is in *resp. */
bool serve_read(struct app *app, const struct http_request *r, enum query_kind kind, struct serve_state *s,
                struct http_response *resp);

/* The model that answers: the one named in the request, or the experiments', or the first one configured. While one that the request does
 * not name has no version, the first that has stands in, without experiments; a vector is only ever searched in its own. False: the
 * problem is in *resp and nothing is held. */
bool serve_choose(struct app *app, const struct http_request *r, const struct query *q, struct serve_choice *c,
                  struct http_response *resp);
/* The same, for answers that the experiments' guardrails look at; serve_observe tells how the answer was, before serve_choice_done. A
 * variant whose model cannot answer is told here. begun_ns: when the request was. */
bool serve_choose_observed(struct app *app, const struct http_request *r, const struct query *q, uint64_t begun_ns, struct serve_choice *c,
                           struct http_response *resp);
/* faulty: an error of the variant, whatever the status. */
void serve_observe(const struct serve_choice *c, const struct http_response *resp, bool faulty, bool empty, uint64_t begun_ns);
/* The same for one of several requests that share c->g: neither holds a generation nor takes a workspace. */
bool serve_choose_model(const struct http_request *r, const struct query *q, struct serve_choice *c, struct http_response *resp);
void serve_choice_done(struct app *app, struct serve_choice *c);

/* The steps below without a request to answer, for shadow.c: a body, and a query with the defaults and filters of `a` (a->n = 0: none),
 * within `limits`. */
bool serve_parse(const struct app *app, enum query_kind kind, const char *body, size_t n, struct query *q, struct wire_error *e);
bool serve_resolve_as(const struct app *app, struct query *q, const struct experiment_assignment *a, const struct loaded *l,
                      struct retrieve_query *rq, struct wire_error *e);

/* query_resolve with the variant's defaults, which `limits` bounds too. False: the problem is in *resp. */
bool serve_resolve(struct app *app, const struct http_request *r, struct query *q, const struct serve_choice *c, struct retrieve_query *rq,
                   struct http_response *resp);

/* {"request_id":..,"model":..,"version":..,"experiment":{..},"fallback":..,"degraded":[..] without the closing brace.
 */
void serve_put_head(struct buf *b, const struct http_request *r, const struct serve_choice *c, const struct query *q,
                    const struct retrieve_query *rq, const struct retrieve_result *res);

/* Retrieves and writes the answer, Server-Timing and metrics. False: the problem is in *resp. */
bool serve_topk(struct app *app, const struct http_request *r, const struct serve_choice *c, struct serve_state *s,
                const struct retrieve_query *rq, struct http_response *resp);
/* The same in JSON, whatever the request accepts. */
bool serve_topk_json(struct app *app, const struct http_request *r, const struct serve_choice *c, struct serve_state *s,
                     const struct retrieve_query *rq, struct http_response *resp);
/* Would answering this hold up an event loop? Never on a worker. */
bool serve_is_heavy(const struct app *app, const struct http_request *r, const struct serve_choice *c,
                    const struct retrieve_query *rq);
bool serve_is_json(const struct http_request *r);
struct query_limits serve_limits(const struct app *app);
void serve_timing(struct http_response *resp, const struct retrieve_result *res);
void serve_count(struct app *app, unsigned shard, const struct serve_choice *c, const struct retrieve_result *res);

/* A retrieve_* failure as an answer; faults of ours are logged. Returns true, as problem_write. */
bool serve_failed(struct app *app, const struct http_request *r, const struct err *err, struct http_response *resp);
bool serve_no_memory(const struct http_request *r, struct http_response *resp); // 503 with Retry-After
bool serve_wire_problem(const struct http_request *r, const struct wire_error *e, struct http_response *resp);

/* An answer of the cold paths; takes `v` (NULL: 503 out_of_memory). Returns true. */
bool serve_json(const struct http_request *r, struct http_response *resp, unsigned status, json_t *v);

/* 404 unknown_model naming the nearest. Returns true. */
bool serve_unknown_model(const struct http_request *r, const struct generation *g, const char *name, size_t n,
                         const char *pointer, struct http_response *resp);

// ---------------------------------------------------------------------------------------------- the handlers (routes:
// service.c)

bool handle_retrieve(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp);
bool handle_batch(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp);
bool handle_search(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp);
bool handle_similar(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp);
bool handle_explain(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp);
bool handle_score(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp);
bool handle_embed(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp);
bool handle_models(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp);
bool handle_model(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp);
bool handle_model_ready(struct app *app, struct http_request *r, const struct route_match *m,
                        struct http_response *resp);
bool handle_assign(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp);
bool handle_admin_models(struct app *app, struct http_request *r, const struct route_match *m,
                         struct http_response *resp);
bool handle_admin_reload(struct app *app, struct http_request *r, const struct route_match *m,
                         struct http_response *resp);
bool handle_admin_rollback(struct app *app, struct http_request *r, const struct route_match *m,
                           struct http_response *resp);
bool handle_admin_verify(struct app *app, struct http_request *r, const struct route_match *m,
                         struct http_response *resp);
bool handle_admin_operations(struct app *app, struct http_request *r, const struct route_match *m,
                             struct http_response *resp);
bool handle_admin_operation(struct app *app, struct http_request *r, const struct route_match *m,
                            struct http_response *resp);
bool handle_admin_experiments_get(struct app *app, struct http_request *r, const struct route_match *m,
                                  struct http_response *resp);
bool handle_admin_labels_get(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp);
bool handle_admin_labels_put(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp);
bool handle_admin_experiments_put(struct app *app, struct http_request *r, const struct route_match *m,
                                  struct http_response *resp);
bool handle_admin_config(struct app *app, struct http_request *r, const struct route_match *m,
                         struct http_response *resp);
bool handle_admin_log_level(struct app *app, struct http_request *r, const struct route_match *m,
                            struct http_response *resp);
bool handle_admin_drain(struct app *app, struct http_request *r, const struct route_match *m,
                        struct http_response *resp);

#endif
