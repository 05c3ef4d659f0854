/* handle_experiments.c - GET /v1/experiments:assign?user_id=: what a request of this user would get. Nothing is logged
 * as an exposure. */
#include <string.h>

#include "core/base/utf8.h"
#include "server/problem.h"
#include "server/serve.h"

static json_t *one(const struct experiment *e, const struct experiment_assignment *a, size_t i)
{
    const struct experiment_variant *v = &e->variant[a->variant[i]];
    json_t *o = json_pack("{s:s, s:s, s:i, s:b}", "experiment", e->name, "variant", v->name, "bucket",
                          (int)a->bucket[i], "override", (int)a->overridden[i]);
    if (v->model[0])
        json_object_set_new(o, "model", json_string(v->model));
    if (v->ef)
        json_object_set_new(o, "ef", json_integer(v->ef));
    if (v->k)
        json_object_set_new(o, "k", json_integer(v->k));
    return o;
}

bool handle_assign(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    char user[EXPERIMENT_UNIT_MAX + 1];
    struct experiment_assignment a;
    struct err err = {0};
    (void)m;
    if (http_query_param(r, "user_id", user, sizeof(user)) != HTTP_PARAM_FOUND || user[0] == '\0' || !utf8_valid(user, strlen(user)))
        return problem_write(resp, r, 400, "missing_parameter", NULL,
                             "the query needs user_id once, of 1 to %d bytes of UTF-8", EXPERIMENT_UNIT_MAX);
    const struct generation *g = generation_acquire(app->generations);
    if (!experiment_assign(g->experiments, user, strlen(user), http_header(r, "X-Experiment-Override"), &a, &err)) {
        problem_write(resp, r, 400, "invalid_override", NULL, "%s", err.msg);
    } else {
        json_t *list = json_array();
        for (size_t i = 0; i < a.n; i++)
            json_array_append_new(list, one(experiment_table_get(g->experiments, i), &a, i));
        int at = a.model ? generation_find(g, a.model, strlen(a.model)) : -1; // it may be a label
        const char *model = g->n_models ? g->model[at < 0 ? g->first : (size_t)at].name : NULL;
        serve_json(r, resp, 200, json_pack("{s:s, s:s?, s:o}", "user_id", user, "model", model, "assignments", list));
    }
    generation_release(app->generations, g);
    return true;
}
