/* experiment_guard.c - an experiment's limits and what became of the variants that broke one: checks and JSON form. */
#include <string.h>

#include "server/experiment_priv.h"

static const char *const guardrail_keys[] = {"error_share", "p99_ms", "empty_share", "window_s", "min_requests"};
static const char *const stop_keys[] = {"reason", "value", "limit", "at", "weight"};
#define WINDOW_MAX_S 86400
#define MIN_REQUESTS 200

size_t experiment_control(const struct experiment *e)
{
    for (size_t v = 0; v < e->n_variants; v++)
        if (strcmp(e->variant[v].name, "control") == 0 && !e->variant[v].shadow)
            return v;
    size_t first = 0;
    while (e->variant[first].shadow) // not all are: weights sum to 100
        first++;
    return first;
}

void experiment_give(struct experiment *e, size_t from, size_t to)
{
    for (size_t b = 0; b < EXPERIMENT_BUCKETS; b++)
        if (e->owner[b] == from)
            e->owner[b] = (uint8_t)to;
    e->variant[to].buckets += e->variant[from].buckets;
    e->variant[from].buckets = 0;
}

bool experiment_set_guardrails(struct experiment_guardrails *g, struct err *err)
{
    if (!(g->error_share >= 0 && g->error_share <= 1) || !(g->empty_share >= 0 && g->empty_share <= 1) || !(g->p99_ms >= 0))
        return err_set(err, ERR_ARG, "guardrails: error_share %g, empty_share %g, p99_ms %g: shares are from 0 to 1, a time is positive",
                       g->error_share, g->empty_share, g->p99_ms);
    if (g->error_share == 0 && g->empty_share == 0 && g->p99_ms == 0)
        return err_set(err, ERR_ARG, "guardrails without a limit: want error_share, p99_ms or empty_share");
    if (g->window_s == 0)
        g->window_s = EXPERIMENT_WINDOW_S;
    if (g->min_requests == 0)
        g->min_requests = MIN_REQUESTS;
    return g->window_s <= WINDOW_MAX_S ||
           err_set(err, ERR_ARG, "guardrails: window_s %u, at most %d are allowed", g->window_s, WINDOW_MAX_S);
}

static bool number_into(const json_t *v, const char *key, double *out, struct err *err)
{
    *out = json_number_value(v);
    return (json_is_number(v) && *out > 0) || err_set(err, ERR_ARG, "'%s' must be a positive number", key);
}

bool experiment_guardrails_from_json(json_t *o, struct experiment_guardrails *g, struct err *err)
{
    const char *key;
    json_t *v;
    if (!json_is_object(o))
        return err_set(err, ERR_ARG, "'guardrails' must be an object");
    json_object_foreach(o, key, v)
    {
        bool ok = experiment_known_key(key, guardrail_keys, 5, err);
        if (ok && strcmp(key, "window_s") == 0)
            ok = experiment_json_uint(v, key, WINDOW_MAX_S, &g->window_s, err);
        else if (ok && strcmp(key, "min_requests") == 0)
            ok = experiment_json_uint(v, key, UINT32_MAX, &g->min_requests, err);
        else if (ok)
            ok = number_into(v, key, strcmp(key, "error_share") == 0 ? &g->error_share : strcmp(key, "p99_ms") == 0 ? &g->p99_ms : &g->empty_share, err);
        if (!ok)
            return err_prefix(err, "guardrails");
    }
    return experiment_set_guardrails(g, err);
}

json_t *experiment_guardrails_to_json(const struct experiment_guardrails *g)
{
    json_t *o = json_pack("{s:i, s:i}", "window_s", (int)g->window_s, "min_requests", (int)g->min_requests);
    if (g->error_share > 0)
        json_object_set_new(o, "error_share", json_real(g->error_share));
    if (g->p99_ms > 0)
        json_object_set_new(o, "p99_ms", json_real(g->p99_ms));
    if (g->empty_share > 0)
        json_object_set_new(o, "empty_share", json_real(g->empty_share));
    return o;
}

/* Written by the daemon alone, and read back from the state file or from a GET's answer: all of it, or it is refused. */
bool experiment_stop_from_json(json_t *o, struct experiment_stop *s, struct err *err)
{
    const char *key, *reason = json_string_value(json_object_get(o, "reason"));
    const json_t *at = json_object_get(o, "at"), *value = json_object_get(o, "value"), *limit = json_object_get(o, "limit"),
                 *weight = json_object_get(o, "weight");
    json_t *v;
    json_object_foreach(o, key, v) if (!experiment_known_key(key, stop_keys, 5, err)) return err_prefix(err, "stopped");
    if (!reason || !reason[0] || strlen(reason) >= sizeof(s->reason) || !json_is_integer(at) || !json_is_number(value) ||
        !json_is_number(limit) || !json_is_number(weight) || !experiment_buckets(json_number_value(weight), &s->buckets, NULL))
        return err_set(err, ERR_ARG, "'stopped' must be an object with reason, value, limit, at and weight, as GET gives it");
    memcpy(s->reason, reason, strlen(reason) + 1);
    s->at_s = json_integer_value(at);
    s->value = json_number_value(value);
    s->limit = json_number_value(limit);
    return true;
}

json_t *experiment_stop_to_json(const struct experiment_stop *s)
{
    return json_pack("{s:s, s:f, s:f, s:I, s:f}", "reason", s->reason, "value", s->value, "limit", s->limit, "at",
                     (json_int_t)s->at_s, "weight", s->buckets / 100.0);
}
