/* handle_models.c - GET /v1/models, /v1/models/{m}, /v1/models/{m}/ready: what serves, for anybody who may send
 * requests. */
#include <string.h>

#include "server/problem.h"
#include "server/serve.h"

static json_t *bundle_to_json(const struct loaded *l)
{
    const struct bundle_manifest *m = &l->bundle->manifest;
    return json_pack("{s:I, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s}", "version", (json_int_t)m->version, "kind",
                     m->kind, "encoder", m->encoder, "fingerprint", m->fingerprint, "created", m->created, "d",
                     (json_int_t)m->d, "items", (json_int_t)m->n_items, "users", (json_int_t)m->n_users, "default_ef",
                     (json_int_t)m->default_ef, "index_layout", bundle_layout_name(l->bundle->layout));
}

static json_t *strings(const char *const *v, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, json_string(v[i]));
    return a;
}

/* Names that requests may use: user features for `features`, attributes for `fields`. */
static void add_names(json_t *o, const struct bundle *b)
{
    const char *feature[SCHEMA_FIELDS_MAX], *attr[ITEM_ATTRS_MAX];
    const struct schema_side *side = &b->model->schema->user;
    size_t n = 0;
    for (uint32_t i = 0; i < side->n_fields && n < SCHEMA_FIELDS_MAX; i++)
        if (side->field[i].kind != FIELD_ID && side->field[i].kind != FIELD_DISPLAY)
            feature[n++] = side->field[i].name;
    for (uint32_t i = 0; i < b->items->n_attrs && i < ITEM_ATTRS_MAX; i++)
        attr[i] = b->items->attr[i].name;
    json_object_set_new(o, "user_features", strings(feature, n));
    json_object_set_new(o, "item_attributes", strings(attr, b->items->n_attrs));
}

static json_t *model_to_json(const struct generation_model *m, bool names)
{
    json_t *o = json_pack("{s:s, s:b}", "name", m->name, "ready", m->loaded != NULL);
    if (m->loaded) {
        json_t *bundle = bundle_to_json(m->loaded);
        json_object_update(o, bundle);
        json_decref(bundle);
        if (names)
            add_names(o, m->loaded->bundle);
    }
    json_t *why = m->degraded[0] ? json_string(m->degraded) : json_null();
    json_object_set_new(o, "degraded", why ? why : json_null());
    return o;
}

bool handle_models(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    const struct generation *g = generation_acquire(app->generations);
    json_t *list = json_array();
    (void)m;
    for (size_t i = 0; i < g->n_models; i++)
        json_array_append_new(list, model_to_json(&g->model[i], false));
    json_t *o = json_pack("{s:o, s:I}", "models", list, "generation", (json_int_t)g->serial);
    generation_release(app->generations, g);
    return serve_json(r, resp, 200, o);
}

bool handle_model(struct app *app, struct http_request *r, const struct route_match *m, struct http_response *resp)
{
    const struct generation *g = generation_acquire(app->generations);
    int i = generation_find(g, m->value[0], strlen(m->value[0]));
    if (i < 0)
        serve_unknown_model(r, g, m->value[0], strlen(m->value[0]), NULL, resp);
    else
        serve_json(r, resp, 200, model_to_json(&g->model[i], true));
    generation_release(app->generations, g);
    return true;
}

bool handle_model_ready(struct app *app, struct http_request *r, const struct route_match *m,
                        struct http_response *resp)
{
    const struct generation *g = generation_acquire(app->generations);
    int i = generation_find(g, m->value[0], strlen(m->value[0]));
    if (i < 0) {
        serve_unknown_model(r, g, m->value[0], strlen(m->value[0]), NULL, resp);
    } else if (g->model[i].loaded) {
        serve_json(r, resp, 200,
                   json_pack("{s:s, s:b, s:I}", "name", g->model[i].name, "ready", 1, "version",
                             (json_int_t)g->model[i].loaded->bundle->manifest.version));
    } else {
        http_add_header(resp, "Retry-After", "1");
        problem_write(resp, r, 503, "model_not_ready", NULL, "model '%s' has no version loaded%s%s", g->model[i].name,
                      g->model[i].degraded[0] ? ": " : "", g->model[i].degraded);
    }
    generation_release(app->generations, g);
    return true;
}
