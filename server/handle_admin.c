/* handle_admin.c - what an operator may ask for. The route table asks for the token; everything here is cold. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/yaml.h"
#include "core/base/utf8.h"
#include "server/admin_body.h"
#include "server/experiment_report.h"
#include "server/problem.h"
#include "server/serve.h"
#include "server/service.h"

#define VERSION_MAX INT64_MAX

// ------------------------------------------------------------------------------------------------------- bodies

/* {"version": N} or nothing. False: answered. */
static bool read_version(const struct http_request *r, uint64_t *version, struct http_response *resp)
{
    static const char *const known[] = {"version"};
    json_t *o = admin_read_object(r, known, 1, true, resp);
    if (!o)
        return false;
    const json_t *v = json_object_get(o, "version");
    bool ok = !v || (json_is_integer(v) && json_integer_value(v) > 0);
    *version = v && ok ? (uint64_t)json_integer_value(v) : 0;
    if (!ok)
        problem_write(resp, r, 400, "wrong_type", "/version", "'version' must be an integer from 1 to %" PRId64,
                      VERSION_MAX);
    json_decref(o);
    return ok;
}

// ------------------------------------------------------------------------------------------------------- operations

static bool submit_failed(struct app *app, const struct http_request *r, const char *model, const struct err *err,
                          struct http_response *resp)
{
    if (err->code == ERR_NOT_FOUND) {
        const struct generation *g = generation_acquire(app->generations);
        const char *named = labels_find(g->labels, model, strlen(model));
        if (named)
            problem_write(resp, r, 404, "unknown_model", NULL, "'%s' is a label of model '%s': operations take the model's name", model,
                          named);
        else
            serve_unknown_model(r, g, model, strlen(model), NULL, resp);
        generation_release(app->generations, g);
        return true;
    }
    http_add_header(resp, "Retry-After", "5");
    return problem_write(resp, r, 409, "operation_in_progress", NULL, "%s", err->msg);
}

/* wait=true or wait=false, or neither. False: answered. */
static bool read_wait(const struct http_request *r, bool *wait, struct http_response *resp)
{
    char v[8];
    bool given;
    if (!problem_query_param(resp, r, "wait", v, sizeof(v), &given))
        return false;
    *wait = given && strcmp(v, "true") == 0;
    return !given || *wait || strcmp(v, "false") == 0 ||
           !problem_write(resp, r, 400, "invalid_value", NULL, "wait: found \"%s\", want true or false", v);
}

/* 202 with the operation's place, or suspended until it has ended. */
static bool submit(struct app *app, struct http_request *r, enum operation_kind kind, const char *model,
                   uint64_t version, struct http_response *resp)
{
    char id[OPERATION_ID_MAX];
    struct err err = {0};
    bool wait;
    if (!read_wait(r, &wait, resp))
        return true;
    if (!reloads_submit(app->reloads, kind, model, version, r->id, id, &err))
        return submit_failed(app, r, model, &err, resp);
    if (wait) {
        char request_id[HTTP_REQUEST_ID_MAX + 1];
        memcpy(request_id, r->id, sizeof(request_id));
        struct http_pending *p = http_suspend(r);
        if (p) {
            reloads_wait(app->reloads, id, request_id, p);
            return false;
        }
    }
    http_add_header(resp, "Location", "/v1/admin/operations/%s", id);
    return serve_json(r, resp, 202, reloads_operation(app->reloads, id));
}

bool handle_admin_reload(struct app *app, struct http_request *r, const struct route_match *m,
                         struct http_response *resp)
{
    uint64_t version;
    return !read_version(r, &version, resp) || submit(app, r, OPERATION_RELOAD, m->value[0], version, resp);
}

bool handle_admin_verify(struct app *app, struct http_request *r, const struct route_match *m,
                         struct http_response *resp)
{
    uint64_t version;
    return !read_version(r, &version, resp) || submit(app, r, OPERATION_VERIFY, m->value[0], version, resp);
}

bool handle_admin_rollback(struct app *app, struct http_request *r, const struct route_match *m,
                           struct http_response *resp)
{
    json_t *o = admin_read_object(r, NULL, 0, true, resp);
    json_decref(o);
    return !o || submit(app, r, OPERATION_ROLLBACK, m->value[0], 0, resp);
}

bool handle_admin_operations(struct app *app, struct http_request *r, const struct route_match *m,
                             struct http_response *resp)
{
    (void)m;
    return serve_json(r, resp, 200, reloads_operations(app->reloads));
}

bool handle_admin_operation(struct app *app, struct http_request *r, const struct route_match *m,
                            struct http_response *resp)
{
    json_t *o = reloads_operation(app->reloads, m->value[0]);
    if (!o)
        return problem_write(resp, r, 404, "unknown_operation", NULL,
                             "no such operation; the last %d of this run are kept", OPERATIONS_KEPT);
    return serve_json(r, resp, 200, o);
}

bool handle_admin_models(struct app *app, struct http_request *r, const struct route_match *m,
                         struct http_response *resp)
{
    (void)m;
    return serve_json(r, resp, 200, reloads_models(app->reloads));
}

// ------------------------------------------------------------------------------------------------------- experiments

static bool answer_experiments(struct app *app, const struct http_request *r, struct http_response *resp)
{
    struct service_parts *s = app->parts;
    pthread_mutex_lock(&s->experiments_lock);
    const struct generation *g = generation_acquire(app->generations);
    uint64_t revision = state_revision(s->state);
    json_t *o = experiment_table_to_json(g->experiments, NULL);
    json_object_set_new(o, "revision", json_integer((json_int_t)revision));
    json_object_set_new(o, "observed", experiment_report_json(g->experiments));
    json_object_set_new(o, "source", json_string(s->experiments_from_state ? "state" : "config"));
    pthread_mutex_unlock(&s->experiments_lock);
    generation_release(app->generations, g);
    http_add_header(resp, "ETag", "\"%" PRIu64 "\"", revision);
    return serve_json(r, resp, 200, o);
}

bool handle_admin_experiments_get(struct app *app, struct http_request *r, const struct route_match *m,
                                  struct http_response *resp)
{
    (void)m;
    return answer_experiments(app, r, resp);
}

/* A generation's gate: down to the state file. */
struct write {
    struct state *state;
    struct experiment_table *next;
    uint64_t if_match;
};

static bool write_down(void *ctx, struct err *err)
{
    const struct write *w = ctx;
    return state_set_experiments(w->state, w->next, w->if_match, NULL, err);
}

/* Was this so before? */
static bool stays(const struct experiment_table *before, const struct experiment *e, const struct experiment_variant *v)
{
    int at = experiment_table_find(before, e->name, strlen(e->name));
    const struct experiment *old = at < 0 ? NULL : experiment_table_get(before, (size_t)at);
    for (size_t i = 0; old && i < old->n_variants; i++)
        if (strcmp(old->variant[i].name, v->name) == 0)
            return old->variant[i].buckets > 0 && strcmp(old->variant[i].model, v->model) == 0;
    return false;
}

/* Users are sent to what can answer; those who are with a model that cannot may stay. */
static bool all_loaded(const struct generation *g, const struct experiment_table *next, struct err *err)
{
    for (size_t i = 0; i < experiment_table_n(next); i++) {
        const struct experiment *e = experiment_table_get(next, i);
        for (size_t j = 0; j < e->n_variants; j++) {
            const struct experiment_variant *v = &e->variant[j];
            int m = v->buckets && v->model[0] ? generation_find(g, v->model, strlen(v->model)) : -1;
            if (m >= 0 && !g->model[m].loaded && !stays(g->experiments, e, v))
                return err_set(err, ERR_ARG, "experiment '%s', variant '%s': model '%s' has no version loaded", e->name, v->name, v->model);
        }
    }
    return true;
}

/* Check against what runs now, write down, then serve. The lock is held. */
static bool change_experiments(struct app *app, struct service_parts *s, const json_t *o, uint64_t if_match,
                               struct err *err)
{
    const char *names[LABELS_MAX + GENERATION_MODELS_MAX];
    const struct generation *g = generation_acquire(app->generations);
    size_t n = generation_names(g, g->labels, names);
    struct experiment_table *t = experiment_table_from_json(o, g->experiments, err);
    struct write w = {s->state, t, if_match};
    const struct generation_gate gate = {write_down, &w};
    bool ok = t && experiment_table_check_models(t, names, n, err) && all_loaded(g, t, err) && experiment_report_prepare(app, t, err) &&
              generation_swap_experiments(app->generations, t, &gate, err);
    if (ok)
        experiment_report_forget(app, g->experiments, t);
    else
        experiment_table_unref(t);
    s->experiments_from_state = s->experiments_from_state || ok;
    generation_release(app->generations, g);
    return ok;
}

bool handle_admin_experiments_put(struct app *app, struct http_request *r, const struct route_match *m,
                                  struct http_response *resp)
{
    static const char *const known[] = {"experiments", "revision", "source", "observed"}; // what GET gives may be put back
    struct service_parts *s = app->parts;
    struct err err = {0};
    uint64_t if_match;
    (void)m;
    if (!admin_state_kept(s->state, r, resp))
        return true;
    json_t *o = admin_read_if_match(r, &if_match, resp) ? admin_read_object(r, known, 4, false, resp) : NULL;
    if (!o)
        return true;
    pthread_mutex_lock(&s->experiments_lock);
    bool ok = change_experiments(app, s, o, if_match, &err);
    pthread_mutex_unlock(&s->experiments_lock);
    json_decref(o);
    if (!ok)
        return admin_change_failed(r, &err, "invalid_experiments", "/experiments", resp);
    log_event(&app->log, LOG_INFO, "experiments_changed", LOG_INT("revision", state_revision(s->state)),
              LOG_STR("request_id", r->id));
    return answer_experiments(app, r, resp);
}

// ------------------------------------------------------------------------------------------------------- the daemon
// itself

bool handle_admin_config(struct app *app, struct http_request *r, const struct route_match *m,
                         struct http_response *resp)
{
    (void)r;
    (void)m;
    resp->status = 200;
    resp->content_type = "application/yaml";
    app_config_dump(app, &resp->body);
    return true;
}

bool handle_admin_log_level(struct app *app, struct http_request *r, const struct route_match *m,
                            struct http_response *resp)
{
    static const char *const known[] = {"level"};
    enum log_level level;
    (void)m;
    json_t *o = admin_read_object(r, known, 1, false, resp);
    if (!o)
        return true;
    const char *name = json_string_value(json_object_get(o, "level"));
    if (!name || !log_level_parse(name, &level)) {
        problem_write(resp, r, 400, "invalid_value", "/level", "'level' must be debug, info, warn or error");
    } else {
        atomic_store(&app->log.level, (int)level);
        log_event(&app->log, LOG_WARN, "log_level_changed", LOG_STR("to", name), LOG_STR("request_id", r->id));
        serve_json(r, resp, 200, json_pack("{s:s}", "level", name));
    }
    json_decref(o);
    return true;
}

bool handle_admin_drain(struct app *app, struct http_request *r, const struct route_match *m,
                        struct http_response *resp)
{
    (void)m;
    log_event(&app->log, LOG_WARN, "drain_requested", LOG_STR("request_id", r->id));
    app_request_drain(app);
    return serve_json(r, resp, 202, json_pack("{s:b}", "draining", 1));
}
