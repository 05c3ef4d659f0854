/* handle_labels.c - GET and PUT /v1/admin/labels. */
#include <inttypes.h>
#include <string.h>

#include "server/admin_body.h"
#include "server/problem.h"
#include "server/serve.h"
#include "server/service.h"

static bool answer(struct app *app, const struct http_request *r, struct http_response *resp)
{
    struct service_parts *s = app->parts;
    pthread_mutex_lock(&s->experiments_lock);
    const struct generation *g = generation_acquire(app->generations);
    uint64_t revision = state_revision(s->state);
    struct labels *set = state_labels(s->state);
    json_t *o = json_pack("{s:o, s:o, s:I, s:s}", "labels", labels_to_json(g->labels), "implied", labels_implied_json(g->labels), "revision",
                          (json_int_t)revision, "source", set ? "state" : "config");
    labels_unref(set);
    pthread_mutex_unlock(&s->experiments_lock);
    generation_release(app->generations, g);
    http_add_header(resp, "ETag", "\"%" PRIu64 "\"", revision);
    return serve_json(r, resp, 200, o);
}

bool handle_admin_labels_get(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    (void)m;
    return answer(app, r, resp);
}

/* A label is moved to what can answer. One that stays where it is need not. */
static bool all_loaded(const struct generation *g, const struct labels *next, const json_t *o, struct err *err)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)o, name, v)
    {
        const char *model = labels_find(next, name, strlen(name)), *before = labels_find(g->labels, name, strlen(name));
        int i = generation_find(g, model, strlen(model));
        if (i >= 0 && !g->model[i].loaded && !(before && strcmp(before, model) == 0))
            return err_set(err, ERR_ARG, "label \"%s\": model \"%s\" has no version loaded", name, model);
    }
    return true;
}

/* A generation's gate: down to the state file. */
struct write {
    struct state *state;
    struct labels *next;
    uint64_t if_match;
};

static bool write_down(void *ctx, struct err *err)
{
    const struct write *w = ctx;
    return state_set_labels(w->state, w->next, w->if_match, NULL, err);
}

/* Write down, then serve. */
static bool take(struct app *app, const struct generation *g, struct write *w, struct labels *all, struct err *err)
{
    const char *names[LABELS_MAX + GENERATION_MODELS_MAX];
    const struct generation_gate gate = {write_down, w};
    return experiment_table_check_models(g->experiments, names, generation_names(g, all, names), err) &&
           generation_swap_labels(app->generations, all, &gate, err);
}

/* Check against what runs now; labels that are those in force change nothing, wherever they are from. The lock is held. */
static bool change(struct app *app, struct service_parts *s, const json_t *o, uint64_t if_match, bool *changed, struct err *err)
{
    const char *models[GENERATION_MODELS_MAX];
    const struct generation *g = generation_acquire(app->generations);
    size_t n = generation_names(g, NULL, models);
    struct write w = {s->state, labels_from_json(o, err), if_match};
    bool ok = w.next && labels_check(w.next, models, n, err) && all_loaded(g, w.next, o, err);
    *changed = ok && !labels_same(w.next, g->labels);
    if (ok && !*changed)
        ok = state_check_revision(s->state, if_match, err);
    struct labels *all = *changed ? labels_complete(w.next, models, n, err) : NULL;
    if (*changed && !(ok = all && take(app, g, &w, all, err)))
        labels_unref(all);
    labels_unref(w.next);
    generation_release(app->generations, g);
    return ok;
}

bool handle_admin_labels_put(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    static const char *const known[] = {"labels", "implied", "revision", "source"}; // what GET gives may be put back; of it the labels are read
    struct service_parts *s = app->parts;
    struct err err = {0};
    uint64_t if_match;
    bool changed = false;
    (void)m;
    if (!admin_state_kept(s->state, r, resp))
        return true;
    json_t *o = admin_read_if_match(r, &if_match, resp) ? admin_read_object(r, known, 4, false, resp) : NULL;
    if (!o)
        return true;
    const json_t *labels = json_object_get(o, "labels");
    bool ok = labels || err_set(&err, ERR_ARG, "no member \"labels\"");
    if (ok) {
        pthread_mutex_lock(&s->experiments_lock);
        ok = change(app, s, labels, if_match, &changed, &err);
        pthread_mutex_unlock(&s->experiments_lock);
    }
    json_decref(o);
    if (!ok)
        return admin_change_failed(r, &err, "invalid_labels", "/labels", resp);
    if (changed)
        log_event(&app->log, LOG_INFO, "labels_changed", LOG_INT("revision", state_revision(s->state)), LOG_STR("request_id", r->id));
    return answer(app, r, resp);
}
