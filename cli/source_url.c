/* source_url.c - answers of a daemon, in the form that a bundle's have. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/client.h"
#include "cli/source_priv.h"

struct remote {
    struct client *client;
    json_t *models; // name -> GET /v1/models/{m}, as far as asked
};

struct remote *remote_open(const char *url, const struct client_tls *tls, struct err *err)
{
    struct remote *r = mem_array(1, sizeof(*r), err);
    if (r && client_setup(err) && (r->client = client_new(url, tls, err)) && (r->models = json_object()))
        return r;
    err_set(err, ERR_NOMEM, "out of memory");
    remote_free(r);
    return NULL;
}

void remote_free(struct remote *r)
{
    if (!r)
        return;
    client_free(r->client);
    json_decref(r->models);
    free(r);
}

/* Borrowed. */
static json_t *model_info(struct remote *r, const char *name, struct err *err)
{
    json_t *m = json_object_get(r->models, name);
    struct buf path = {0};
    if (m)
        return m;
    buf_puts(&path, "/v1/models/");
    client_escape(&path, name);
    if (path.failed)
        err_set(err, ERR_NOMEM, "out of memory");
    else if ((m = client_json(r->client, "GET", path.data, NULL, NULL, err)))
        json_object_set_new(r->models, name, m);
    buf_fini(&path);
    return m;
}

/* The model that would answer: the one asked for, else the one that the user is assigned to. New reference, a string.
 */
static json_t *answering_model(struct remote *r, const json_t *request, struct err *err)
{
    json_t *name = json_object_get(request, "model");
    if (json_is_string(name))
        return json_incref(name);
    const char *user = json_string_value(json_object_get(request, "user_id"));
    struct buf path = {0};
    json_t *model = NULL;
    buf_puts(&path, "/v1/experiments:assign?user_id=");
    client_escape(&path, user ? user : "");
    json_t *v = path.failed ? NULL : client_json(r->client, "GET", path.data, NULL, NULL, err);
    buf_fini(&path);
    if (v && json_is_string(json_object_get(v, "model")))
        model = json_incref(json_object_get(v, "model"));
    else
        err_set(err, ERR_NOMEM, "out of memory");
    json_decref(v);
    return model;
}

bool remote_fields(struct remote *r, const json_t *request, json_t *fields, struct err *err)
{
    json_t *name = answering_model(r, request, err);
    json_t *m = name ? model_info(r, json_string_value(name), err) : NULL,
           *attrs = json_object_get(m, "item_attributes"), *a;
    json_decref(name);
    size_t i;
    if (!m)
        return false;
    json_array_foreach(attrs, i, a) if (strcmp(json_string_value(a), "category") != 0) json_array_append(fields, a);
    return json_array_append_new(fields, json_string("category")) == 0;
}

// -------------------------------------------------------------------------------------------------------- answers

static json_t *unknown_features(const json_t *answer)
{
    static const char head[] = "unknown_value:";
    json_t *out = json_array(), *d;
    size_t i;
    json_array_foreach(json_object_get(answer, "degraded"), i,
                       d) if (json_is_string(d) && strncmp(json_string_value(d), head, sizeof(head) - 1) == 0)
        json_array_append_new(out, json_string(json_string_value(d) + sizeof(head) - 1));
    return out;
}

static json_t *head_of(const json_t *answer)
{
    json_t *o = json_object();
    static const char *const same[] = {"model", "version", "fallback"};
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++)
        json_object_set(o, same[i], json_object_get(answer, same[i]));
    json_object_set_new(o, "unknown_features", unknown_features(answer));
    return o;
}

static double timing_us(const char *text)
{
    double ms = 0;
    for (const char *p = text; (p = strstr(p, "dur=")); p += 4)
        ms += strtod(p + 4, NULL);
    return ms * 1000;
}

json_t *remote_ask(struct remote *r, const json_t *request, double *us, struct err *err)
{
    struct client_reply reply = {0};
    const char *path = json_object_get(request, "vector") ? "/v1/search" : "/v1/retrieve";
    json_t *a = client_json(r->client, "POST", path, request, &reply, err), *o = NULL;
    *us = timing_us(reply.server_timing);
    client_reply_fini(&reply);
    if (a && json_is_string(json_object_get(a, "model")) && json_is_array(json_object_get(a, "items"))) {
        o = head_of(a);
        json_object_set(o, "k", json_object_get(a, "k"));
        json_object_set(o, "ef", json_object_get(a, "ef_used"));
        json_object_set_new(o, "exact", json_boolean(json_is_true(json_object_get(request, "exact"))));
        json_object_set(o, "returned", json_object_get(a, "returned"));
        json_object_set(o, "items", json_object_get(a, "items"));
    } else if (a) {
        err_set(err, ERR_FORMAT, "the answer has no model or no items: is this the data listener of duetd?");
    }
    json_decref(a);
    return o;
}

json_t *remote_embed(struct remote *r, const json_t *request, struct err *err)
{
    json_t *a = client_json(r->client, "POST", "/v1/users:embed", request, NULL, err);
    if (!a)
        return NULL;
    json_t *o = head_of(a);
    json_object_set(o, "p_u", json_object_get(a, "p_u"));
    json_object_set(o, "a_u", json_object_get(a, "a_u"));
    json_decref(a);
    return o;
}
