/* experiment_io.c - experiment tables from the configuration and to and from the admin API and the state file (JSON).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "config/yaml.h"
#include "server/experiment_priv.h"

/* A weight in percent as buckets: hundredths of a percent are as fine as it goes. */
bool experiment_buckets(double weight, uint32_t *out, struct err *err)
{
    double b = weight * 100;
    if (!(b >= 0 && b <= EXPERIMENT_BUCKETS) || fabs(b - nearbyint(b)) > 1e-6)
        return err_set(err, ERR_ARG, "weight %g: need 0 to 100 with at most two decimals", weight);
    *out = (uint32_t)nearbyint(b);
    return true;
}

static bool copy_text(char *out, size_t max, const char *key, const char *text, struct err *err)
{
    size_t n = strlen(text);
    if (n > max)
        return err_set(err, ERR_ARG, "'%s' has %zu bytes, at most %zu are allowed", key, n, max);
    memcpy(out, text, n + 1);
    return true;
}

static bool check_unit(const char *unit, struct err *err)
{
    return strcmp(unit, "user_id") == 0 || err_set(err, ERR_ARG, "unit '%.64s': the only one known is user_id", unit);
}

static const char *const experiment_keys[] = {"name", "salt", "unit", "variants", "guardrails"};
static const char *const variant_keys[] = {"name", "weight", "model", "ef", "k", "ranges", "stopped", "filter", "shadow", "share"};
#define EF_MAX 20000
#define K_MAX 10000

bool experiment_known_key(const char *key, const char *const *known, size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(key, known[i]) == 0)
            return true;
    const char *near = ynode_nearest(key, known, n);
    return near ? err_set(err, ERR_ARG, "unknown key '%.64s', did you mean '%s'?", key, near)
                : err_set(err, ERR_ARG, "unknown key '%.64s'", key);
}

static bool in_range(uint64_t v, uint64_t max, const char *key, uint32_t *out, struct err *err)
{
    if (v < 1 || v > max)
        return err_set(err, ERR_ARG, "%s %llu: need 1 to %llu", key, (unsigned long long)v, (unsigned long long)max);
    *out = (uint32_t)v;
    return true;
}

// ------------------------------------------------------------------------------------------------------- configuration

static bool config_variant(const struct config_variant *v, struct experiment_variant *out, struct err *err)
{
    out->shadow = v->shadow;
    return copy_text(out->name, EXPERIMENT_NAME_MAX, "name", v->name, err) &&
           copy_text(out->model, EXPERIMENT_NAME_MAX, "model", v->model ? v->model : "", err) &&
           copy_text(out->filter, EXPERIMENT_FILTER_MAX, "filter", v->filter ? v->filter : "", err) &&
           experiment_buckets(v->weight, &out->buckets, err) &&
           experiment_buckets(v->share > 0 ? v->share : v->shadow ? 100 : 0, &out->share, err) &&
           (v->ef == 0 || in_range(v->ef, EF_MAX, "ef", &out->ef, err)) &&
           (v->k == 0 || in_range(v->k, K_MAX, "k", &out->k, err));
}

static bool config_one(const struct config_experiment *c, struct experiment *e, struct err *err)
{
    const char *salt = c->salt && c->salt[0] ? c->salt : c->name;
    memset(e->owner, EXPERIMENT_NO_OWNER, sizeof(e->owner));
    if (!copy_text(e->name, EXPERIMENT_NAME_MAX, "name", c->name, err) ||
        !copy_text(e->salt, EXPERIMENT_SALT_MAX, "salt", salt, err) ||
        (c->unit && c->unit[0] && !check_unit(c->unit, err)))
        return err_prefix(err, "line %d", c->line);
    if (c->n_variants > EXPERIMENT_VARIANTS_MAX)
        return err_set(err, ERR_ARG, "line %d: %zu variants, at most %d are allowed", c->line, c->n_variants,
                       EXPERIMENT_VARIANTS_MAX);
    for (size_t i = 0; i < c->n_variants; i++)
        if (!config_variant(&c->variant[i], &e->variant[i], err))
            return err_prefix(err, "line %d", c->variant[i].line);
    e->n_variants = c->n_variants;
    const struct config_guardrails *g = &c->guardrails;
    e->guardrails = (struct experiment_guardrails){g->error_share, g->empty_share, g->p99_ms, (uint32_t)g->window_s, (uint32_t)g->min_requests};
    if (g->given && !experiment_set_guardrails(&e->guardrails, err))
        return err_prefix(err, "line %d", c->line);
    return true;
}

struct experiment_table *experiment_table_from_config(const struct config_experiment *c, size_t n_given,
                                                      struct err *err)
{
    size_t n = n_given <= EXPERIMENT_MAX ? n_given : 0;
    struct experiment *e = mem_array(n, sizeof(*e), err);
    struct experiment_table *t = NULL;
    if (!e)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (!config_one(&c[i], &e[i], err)) {
            err_prefix(err, "experiment '%s'", c[i].name);
            goto out;
        }
    t = experiment_table_build(e, n_given, err); // says it when there are too many
out:
    free(e);
    return t;
}

// ------------------------------------------------------------------------------------------------------- JSON in

/* A member's text, NULL and ERR_ARG if it is none. */
static const char *json_text_of(const json_t *v, const char *key, struct err *err)
{
    if (json_is_string(v) && strlen(json_string_value(v)) == json_string_length(v))
        return json_string_value(v);
    err_set(err, ERR_ARG, "'%s' must be a string", key);
    return NULL;
}

static bool json_text_into(const json_t *v, const char *key, char *out, size_t max, struct err *err)
{
    const char *s = json_text_of(v, key, err);
    return s && copy_text(out, max, key, s, err);
}

bool experiment_json_uint(const json_t *v, const char *key, uint64_t max, uint32_t *out, struct err *err)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return err_set(err, ERR_ARG, "'%s' must be a positive integer", key);
    return in_range((uint64_t)json_integer_value(v), max, key, out, err);
}

static bool json_ranges(const json_t *v, size_t variant, uint8_t *owner, struct err *err)
{
    if (!json_is_array(v))
        return err_set(err, ERR_ARG, "'ranges' must be a list of [first, last]");
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *r = json_array_get(v, i), *a = json_array_get(r, 0), *b = json_array_get(r, 1);
        if (json_array_size(r) != 2 || !json_is_integer(a) || !json_is_integer(b))
            return err_set(err, ERR_ARG, "'ranges' must be a list of [first, last]");
        json_int_t first = json_integer_value(a), last = json_integer_value(b);
        if (first < 0 || last < first || last >= EXPERIMENT_BUCKETS)
            return err_set(err, ERR_ARG, "range [%lld, %lld]: need 0 <= first <= last <= %d", (long long)first,
                           (long long)last, EXPERIMENT_BUCKETS - 1);
        for (json_int_t x = first; x <= last; x++) {
            if (owner[x] != EXPERIMENT_NO_OWNER)
                return err_set(err, ERR_ARG, "range [%lld, %lld]: bucket %lld is in another range too",
                               (long long)first, (long long)last, (long long)x);
            owner[x] = (uint8_t)variant;
        }
    }
    return true;
}

static bool filter_into(const json_t *v, char *out, struct err *err)
{
    char *text = json_is_object(v) ? json_dumps(v, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    bool ok = text ? copy_text(out, EXPERIMENT_FILTER_MAX, "filter", text, err)
                   : err_set(err, ERR_ARG, "'filter' must be an object, as that of a request");
    free(text);
    return ok;
}

static bool json_variant_key(const char *key, json_t *v, size_t i, struct experiment *e, struct err *err)
{
    struct experiment_variant *out = &e->variant[i];
    if (strcmp(key, "name") == 0)
        return json_text_into(v, key, out->name, EXPERIMENT_NAME_MAX, err);
    if (strcmp(key, "model") == 0)
        return json_text_into(v, key, out->model, EXPERIMENT_NAME_MAX, err);
    if (strcmp(key, "weight") == 0)
        return json_is_number(v) ? experiment_buckets(json_number_value(v), &out->buckets, err)
                                 : err_set(err, ERR_ARG, "'weight' must be a number");
    if (strcmp(key, "ef") == 0)
        return experiment_json_uint(v, key, EF_MAX, &out->ef, err);
    if (strcmp(key, "k") == 0)
        return experiment_json_uint(v, key, K_MAX, &out->k, err);
    if (strcmp(key, "shadow") == 0)
        return (out->shadow = json_is_true(v)) || json_is_boolean(v) || err_set(err, ERR_ARG, "'shadow' must be true or false");
    if (strcmp(key, "share") == 0)
        return json_is_number(v) ? experiment_buckets(json_number_value(v), &out->share, err)
                                 : err_set(err, ERR_ARG, "'share' must be a number");
    if (strcmp(key, "filter") == 0)
        return filter_into(v, out->filter, err);
    if (strcmp(key, "stopped") == 0)
        return experiment_stop_from_json(v, &out->stopped, err);
    return json_ranges(v, i, e->owner, err);
}

static bool json_variant(json_t *v, size_t i, struct experiment *e, struct err *err)
{
    const char *key;
    json_t *m;
    if (!json_is_object(v))
        return err_set(err, ERR_ARG, "a variant must be an object with name and weight");
    json_object_foreach(v, key, m) if (!experiment_known_key(key, variant_keys, 10, err) ||
                                       !json_variant_key(key, m, i, e, err)) return err_prefix(err, "variant %zu", i);
    if (!e->variant[i].name[0] || !json_object_get(v, "weight"))
        return err_set(err, ERR_ARG, "variant %zu needs name and weight", i);
    if (e->variant[i].shadow && !json_object_get(v, "share"))
        e->variant[i].share = EXPERIMENT_BUCKETS;
    if (e->variant[i].buckets > 0)
        e->variant[i].stopped = (struct experiment_stop){0}; // somebody gave it traffic again
    return true;
}

/* Where ranges are missing: start from those of the running experiment of the same name and salt and move as few as
 * possible. */
static void derive_owners(struct experiment *e, const struct experiment_table *current)
{
    uint32_t want[EXPERIMENT_VARIANTS_MAX] = {0};
    memset(e->owner, EXPERIMENT_NO_OWNER, sizeof(e->owner));
    int was = current ? experiment_table_find(current, e->name, strlen(e->name)) : -1;
    const struct experiment *old = was >= 0 ? experiment_table_get(current, (size_t)was) : NULL;
    if (!old || strcmp(old->salt, e->salt) != 0)
        return; // laid out afresh
    for (size_t v = 0; v < e->n_variants; v++) {
        want[v] = e->variant[v].buckets;
        for (size_t o = 0; o < old->n_variants; o++)
            for (size_t b = 0; b < EXPERIMENT_BUCKETS && strcmp(old->variant[o].name, e->variant[v].name) == 0; b++)
                if (old->owner[b] == o)
                    e->owner[b] = (uint8_t)v;
    }
    experiment_rebalance(e->owner, want, e->n_variants);
}

static bool json_variants(const json_t *a, struct experiment *e, bool *has_ranges, struct err *err)
{
    size_t n = json_array_size(a), n_ranges = 0;
    if (n < 1 || n > EXPERIMENT_VARIANTS_MAX)
        return err_set(err, ERR_ARG, "'variants' must be a list of 1 to %d", EXPERIMENT_VARIANTS_MAX);
    for (size_t i = 0; i < n; i++) {
        if (!json_variant(json_array_get(a, i), i, e, err))
            return false;
        n_ranges += json_object_get(json_array_get(a, i), "ranges") != NULL;
    }
    e->n_variants = n;
    *has_ranges = n_ranges == n;
    return true;
}

static bool json_experiment_keys(json_t *v, struct experiment *e, struct err *err)
{
    const char *key;
    json_t *m;
    json_object_foreach(v, key, m)
    {
        if (!experiment_known_key(key, experiment_keys, 5, err))
            return false;
        if (strcmp(key, "name") == 0 && !json_text_into(m, key, e->name, EXPERIMENT_NAME_MAX, err))
            return false;
        if (strcmp(key, "salt") == 0 && !json_text_into(m, key, e->salt, EXPERIMENT_SALT_MAX, err))
            return false;
        if (strcmp(key, "guardrails") == 0 && !experiment_guardrails_from_json(m, &e->guardrails, err))
            return false;
        if (strcmp(key, "unit") == 0) {
            const char *unit = json_text_of(m, key, err);
            if (!unit || !check_unit(unit, err))
                return false;
        }
    }
    return e->name[0] ? true : err_set(err, ERR_ARG, "an experiment needs name and variants");
}

static bool json_experiment(json_t *v, const struct experiment_table *current, struct experiment *e, struct err *err)
{
    bool has_ranges = false;
    memset(e->owner, EXPERIMENT_NO_OWNER, sizeof(e->owner));
    if (!json_is_object(v))
        return err_set(err, ERR_ARG, "an experiment must be an object with name and variants");
    if (!json_experiment_keys(v, e, err))
        return false;
    if (!e->salt[0])
        memcpy(e->salt, e->name, sizeof(e->name));
    if (!json_variants(json_object_get(v, "variants"), e, &has_ranges, err))
        return err_prefix(err, "experiment '%s'", e->name);
    if (!has_ranges)
        derive_owners(e, current);
    return true;
}

struct experiment_table *experiment_table_from_json(const json_t *o, const struct experiment_table *current,
                                                    struct err *err)
{
    const json_t *a = json_object_get(o, "experiments");
    if (!json_is_array(a)) {
        err_set(err, ERR_ARG, "found no list 'experiments', want {\"experiments\":[..]}");
        return NULL;
    }
    size_t n = json_array_size(a) <= EXPERIMENT_MAX ? json_array_size(a) : 0;
    struct experiment *e = mem_array(n, sizeof(*e), err);
    struct experiment_table *t = NULL;
    if (!e)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (!json_experiment(json_array_get(a, i), current, &e[i], err))
            goto out;
    t = experiment_table_build(e, json_array_size(a), err);
out:
    free(e);
    return t;
}

// ------------------------------------------------------------------------------------------------------- JSON out

static json_t *ranges_to_json(const struct experiment *e, size_t variant)
{
    json_t *a = json_array();
    for (size_t b = 0; b < EXPERIMENT_BUCKETS; b++) {
        if (e->owner[b] != variant)
            continue;
        size_t first = b;
        while (b + 1 < EXPERIMENT_BUCKETS && e->owner[b + 1] == variant)
            b++;
        json_array_append_new(a, json_pack("[I, I]", (json_int_t)first, (json_int_t)b));
    }
    return a;
}

static json_t *variant_to_json(const struct experiment *e, size_t i)
{
    const struct experiment_variant *v = &e->variant[i];
    json_t *o = json_pack("{s:s, s:f}", "name", v->name, "weight", v->buckets / 100.0);
    if (v->model[0])
        json_object_set_new(o, "model", json_string(v->model));
    if (v->ef)
        json_object_set_new(o, "ef", json_integer(v->ef));
    if (v->k)
        json_object_set_new(o, "k", json_integer(v->k));
    if (v->shadow) {
        json_object_set_new(o, "shadow", json_true());
        json_object_set_new(o, "share", json_real(v->share / 100.0));
    }
    if (v->filter[0])
        json_object_set_new(o, "filter", json_parse(v->filter, strlen(v->filter), NULL));
    if (v->stopped.reason[0])
        json_object_set_new(o, "stopped", experiment_stop_to_json(&v->stopped));
    json_object_set_new(o, "ranges", ranges_to_json(e, i));
    return o;
}

json_t *experiment_table_to_json(const struct experiment_table *t, struct err *err)
{
    json_t *list = json_array();
    for (size_t i = 0; i < experiment_table_n(t); i++) {
        const struct experiment *e = experiment_table_get(t, i);
        json_t *variants = json_array();
        for (size_t v = 0; v < e->n_variants; v++)
            json_array_append_new(variants, variant_to_json(e, v));
        json_t *one = json_pack("{s:s, s:s, s:s, s:o}", "name", e->name, "salt", e->salt, "unit", "user_id", "variants", variants);
        if (e->guardrails.window_s)
            json_object_set_new(one, "guardrails", experiment_guardrails_to_json(&e->guardrails));
        json_array_append_new(list, one);
    }
    json_t *o = json_pack("{s:o}", "experiments", list);
    if (!o)
        err_set(err, ERR_NOMEM, "out of memory");
    return o;
}
