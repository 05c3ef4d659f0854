/* reload_json.c - operations and models as the admin API shows them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/reload_priv.h"

static json_t *time_json(int64_t t)
{
    char text[32];
    struct tm tm;
    time_t tt = (time_t)t;
    if (t == 0)
        return json_null();
    gmtime_r(&tt, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_string(text);
}

static json_t *version_json(uint64_t v)
{
    return v ? json_integer((json_int_t)v) : json_null();
}

/* Text from an error, which may repeat bytes of a file. */
static json_t *text_json(const char *s)
{
    json_t *v = json_string(s);
    return v ? v : json_string("(not UTF-8)");
}

json_t *operation_to_json(const struct reloads *rl, const struct operation *op)
{
    static const char *const kind[] = {"load", "reload", "rollback", "verify"};
    static const char *const state[] = {"queued", "running", "succeeded", "failed"};
    char id[OPERATION_ID_MAX];
    snprintf(id, sizeof(id), "%" PRIx64 "-%" PRIu64, rl->boot, op->seq);
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:o, s:o}", "id", id, "kind", kind[op->kind], "model", op->model,
                          "state", state[op->state], "version", version_json(op->version ? op->version : op->wanted),
                          "from", version_json(op->from));
    if (op->state == OPERATION_SUCCEEDED || op->state == OPERATION_FAILED) {
        json_object_set_new(o, "status", json_integer((json_int_t)op->status));
        json_object_set_new(o, "code", json_string(op->code));
        json_object_set_new(o, "detail", text_json(op->detail));
        json_object_set_new(o, "pinned", json_boolean(op->pinned));
        json_object_set_new(o, "persisted", json_boolean(op->persisted));
        json_object_set_new(o, "duration_ms", json_integer((json_int_t)op->duration_ms));
    }
    const struct reload_progress *at = &rl->progress; // of the one that runs
    if (op->state == OPERATION_RUNNING && at->phase)
        json_object_set_new(o, "progress", json_pack("{s:s, s:I, s:I}", "phase", at->phase, "done_bytes", (json_int_t)at->done,
                                                     "total_bytes", (json_int_t)at->total));
    json_object_set_new(o, "created", time_json(op->created));
    json_object_set_new(o, "ended", time_json(op->ended));
    json_object_set_new(o, "request_id", json_string(op->request_id));
    return o;
}

static const struct operation *find(struct reloads *rl, const char *id)
{
    char boot[20];
    int n = snprintf(boot, sizeof(boot), "%" PRIx64 "-", rl->boot);
    if (strncmp(id, boot, (size_t)n) != 0)
        return NULL;
    char *end;
    uint64_t seq = strtoull(id + n, &end, 10);
    const struct operation *op = &rl->op[seq % OPERATIONS_KEPT];
    return *end == '\0' && end != id + n && seq > 0 && op->seq == seq ? op : NULL;
}

json_t *reloads_operation(struct reloads *rl, const char *id)
{
    pthread_mutex_lock(&rl->lock);
    const struct operation *op = find(rl, id);
    json_t *o = op ? operation_to_json(rl, op) : NULL;
    pthread_mutex_unlock(&rl->lock);
    return o;
}

json_t *reloads_operations(struct reloads *rl)
{
    json_t *list = json_array();
    pthread_mutex_lock(&rl->lock);
    for (uint64_t seq = rl->next_seq; seq-- > 1;) {
        const struct operation *op = &rl->op[seq % OPERATIONS_KEPT];
        if (op->seq != seq)
            break;
        json_array_append_new(list, operation_to_json(rl, op));
    }
    pthread_mutex_unlock(&rl->lock);
    return json_pack("{s:o}", "operations", list);
}

static json_t *serving_json(const struct loaded *l)
{
    const struct bundle_manifest *b = &l->bundle->manifest;
    return json_pack("{s:I, s:s, s:s, s:s, s:I, s:I, s:s, s:I, s:I, s:o}", "version", (json_int_t)b->version, "kind",
                     b->kind, "fingerprint", b->fingerprint, "created", b->created, "items", (json_int_t)b->n_items,
                     "users", (json_int_t)b->n_users, "index_layout", bundle_layout_name(l->bundle->layout), "bytes", (json_int_t)l->bytes, "load_ms", (json_int_t)l->load_ms,
                     "loaded_at", time_json(l->loaded_at));
}

static json_t *available_json(const char *path)
{
    size_t n = 0;
    uint64_t *v = bundle_versions(path, &n, NULL);
    json_t *a = json_array();
    for (size_t i = 0; v && i < n; i++)
        json_array_append_new(a, json_integer((json_int_t)v[i]));
    free(v);
    return a;
}

static json_t *quarantine_json(const struct rmodel *m)
{
    json_t *list = json_array();
    for (size_t i = 0; i < m->n_quarantined; i++)
        json_array_append_new(list, json_pack("{s:I, s:o, s:o}", "version", (json_int_t)m->quarantined[i].version, "reason",
                                              text_json(m->quarantined[i].reason), "since",
                                              time_json(m->quarantined[i].since)));
    return list;
}

static json_t *retry_json(const struct retry *r)
{
    return r->failures ? json_pack("{s:I, s:s, s:i, s:f}", "version", (json_int_t)r->version, "code", r->code, "failures", (int)r->failures,
                                   "pause_s", (double)r->pause_ms / 1000)
                       : json_null();
}

static json_t *model_json(struct reloads *rl, const struct rmodel *m)
{
    uint64_t pinned = state_pin(rl->p.state, m->name);
    json_t *o = json_pack("{s:s, s:s, s:b, s:b}", "name", m->name, "path", m->path, "ready", m->cur != NULL, "busy",
                          (int)m->busy);
    json_object_set_new(o, "policy", json_string(pinned || m->config_version ? "pinned" : "latest"));
    json_object_set_new(o, "pinned", version_json(pinned ? pinned : m->config_version));
    json_object_set_new(o, "pinned_by",
                        pinned              ? json_string("state")
                        : m->config_version ? json_string("config")
                                            : json_null());
    json_object_set_new(o, "serving", m->cur ? serving_json(m->cur) : json_null());
    json_object_set_new(o, "previous", version_json(m->prev_version));
    json_object_set_new(o, "previous_in_memory", json_boolean(m->prev != NULL));
    json_object_set_new(o, "quarantined", quarantine_json(m));
    json_object_set_new(o, "retry", retry_json(&m->retry));
    json_object_set_new(o, "last_error", m->last_error[0] ? text_json(m->last_error) : json_null());
    return o;
}

/* The folders are read when the lock is free again: a slow disk must not hold up the loader or /readyz. */
json_t *reloads_models(struct reloads *rl)
{
    json_t *list = json_array(), *m;
    size_t i;
    pthread_mutex_lock(&rl->lock);
    for (i = 0; i < rl->n_models; i++)
        if (!rl->model[i]->gone)
            json_array_append_new(list, model_json(rl, rl->model[i]));
    pthread_mutex_unlock(&rl->lock);
    json_array_foreach (list, i, m)
        json_object_set_new(m, "available", available_json(json_string_value(json_object_get(m, "path"))));
    return json_pack("{s:o, s:I, s:b}", "models", list, "revision", (json_int_t)state_revision(rl->p.state), "persistent",
                     (int)state_persistent(rl->p.state));
}
