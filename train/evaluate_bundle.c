#include "train/evaluate_bundle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/mem.h"
#include "core/retrieve.h"
#include "train/checkpoint.h"

#define K_MAX 10000 // of a query

struct part {
    struct retrieve_ws *ws;
    struct retrieve_hit *hit;
    uint32_t *exclude; // items of this user that are left out
    size_t n_strangers;
    struct err err;
};

struct ask {
    struct evaluation *e;
    const struct bundle *b;
    bool exact;
    size_t ef, k, max_exclude;
    const uint32_t *to_bundle; // [n_items of the dataset] item_idx, or STRTAB_NONE
    size_t *first;             // [n_users of the set] first rank
    float *rank;
    struct part part[POOL_THREADS_MAX];
};

// ------------------------------------------------------------------------------------------------------- one user

static size_t map_items(const struct ask *a, const struct interactions *x, uint32_t u, uint32_t *out)
{
    size_t n = 0;
    for (uint64_t i = x->off[u]; i < x->off[u + 1]; i++)
        if (a->to_bundle[x->item[i]] != STRTAB_NONE)
            out[n++] = a->to_bundle[x->item[i]];
    return n;
}

static bool among(const struct ask *a, const struct interactions *t, uint32_t u, uint32_t item)
{
    for (uint64_t i = t->off[u]; i < t->off[u + 1]; i++)
        if (a->to_bundle[t->item[i]] == item)
            return true;
    return false;
}

/* Rank among the hits, the user's other targets passed over; infinite where the item is not there. */
static float rank_in(const struct ask *a, uint32_t u, uint32_t item, const struct retrieve_hit *hit, size_t n)
{
    const struct interactions *t = a->e->target;
    size_t better = 0, equal = 0, at = 0;
    while (at < n && hit[at].item_idx != item)
        at++;
    for (size_t i = 0; at < n && i < n; i++) {
        if (i == at || among(a, t, u, hit[i].item_idx))
            continue;
        better += hit[i].score > hit[at].score;
        equal += hit[i].score == hit[at].score;
    }
    return at < n ? (float)(1 + better + equal / 2) : INFINITY;
}

static bool ask_user(const struct ask *a, struct part *p, uint32_t u, float *rank)
{
    const struct dataset *d = a->e->p.data;
    const struct interactions *t = a->e->target;
    struct retrieve_result r;
    size_t n_targets = (size_t)(t->off[u + 1] - t->off[u]);
    size_t n = map_items(a, &d->train, u, p->exclude);
    n += a->e->p.valid ? 0 : map_items(a, &d->valid, u, p->exclude + n);
    size_t k = a->k + n_targets - 1;
    struct retrieve_query q = {.user_id = strtab_get(&d->user_id, u),
                               .k = k > K_MAX ? K_MAX : k,
                               .ef = a->ef,
                               .exact = a->exact,
                               .exclude = p->exclude,
                               .n_exclude = n};
    if (!retrieve_topk(a->b, &q, p->ws, p->hit, &r, &p->err))
        return false;
    p->n_strangers += r.fallback != FALLBACK_NONE;
    for (size_t i = 0; i < n_targets; i++)
        rank[i] = rank_in(a, u, a->to_bundle[t->item[t->off[u] + i]], p->hit, r.n);
    return true;
}

static void ask_part(void *ctx, unsigned part)
{
    struct ask *a = ctx;
    struct part *p = &a->part[part];
    const struct target_set *set = &a->e->known;
    size_t lo, hi;
    pool_range(set->n_users, part, pool_threads(a->e->pool), &lo, &hi);
    p->n_strangers = 0;
    for (size_t i = lo; i < hi && p->err.code == ERR_OK; i++)
        ask_user(a, p, set->user[i], a->rank + a->first[i]);
}

// ------------------------------------------------------------------------------------------------------ all users

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static size_t span(const struct interactions *x, uint32_t u)
{
    return (size_t)(x->off[u + 1] - x->off[u]);
}

static bool ask_init(struct ask *a, struct err *err)
{
    const struct target_set *set = &a->e->known;
    const struct dataset *d = a->e->p.data;
    size_t at = 0, most = 0;
    for (size_t i = 0; i < a->e->p.spec.n_k; i++)
        a->k = a->e->p.spec.k[i] > a->k ? a->e->p.spec.k[i] : a->k;
    if (a->k > K_MAX)
        return err_set(err, ERR_ARG, "K is %zu; a bundle is asked for at most %d items", a->k, K_MAX);
    uint32_t *map = mem_array(d->n_items, sizeof(*map), err);
    a->to_bundle = map;
    if (!map || !(a->first = mem_array(set->n_users, sizeof(*a->first), err)))
        return false;
    for (uint32_t i = 0; i < d->n_items; i++) {
        struct str id = strtab_get(&d->item_id, i);
        map[i] = items_find(a->b->items, id.p, id.n);
    }
    for (size_t i = 0; i < set->n_users; i++) {
        uint32_t u = set->user[i];
        size_t n = span(&d->train, u) + span(&d->valid, u);
        most = n > most ? n : most;
        a->first[i] = at;
        at += span(a->e->target, u);
    }
    for (unsigned i = 0; i < pool_threads(a->e->pool); i++) {
        struct part *p = &a->part[i];
        if (!(p->ws = retrieve_ws_new(a->b, err)) || !(p->hit = mem_array(K_MAX, sizeof(*p->hit), err)) ||
            !(p->exclude = mem_array(most, sizeof(*p->exclude), err)))
            return false;
    }
    return true;
}

static void ask_fini(struct ask *a)
{
    for (unsigned i = 0; i < POOL_THREADS_MAX; i++) {
        retrieve_ws_free(a->part[i].ws);
        free(a->part[i].hit);
        free(a->part[i].exclude);
    }
    free((void *)a->to_bundle);
    free(a->first);
}

/* Every user once; *seconds of it. Ranks go to e->rank. */
static bool ask_all(struct ask *a, bool exact, double *seconds, struct err *err)
{
    double started = now_s();
    a->exact = exact;
    a->rank = a->e->rank;
    pool_run(a->e->pool, ask_part, a);
    *seconds = now_s() - started;
    for (unsigned i = 0; i < pool_threads(a->e->pool); i++)
        if (a->part[i].err.code != ERR_OK)
            return err_set(err, a->part[i].err.code, "%s", a->part[i].err.msg);
    return true;
}

// --------------------------------------------------------------------------------------------------------- report

static void put_strangers(const struct ask *a, json_t *o)
{
    size_t n = 0;
    for (unsigned i = 0; i < pool_threads(a->e->pool); i++)
        n += a->part[i].n_strangers;
    json_object_set_new(o, "unknown_users", json_integer((json_int_t)n));
}

/* HR at the largest K, exact against the graph. */
static void put_cost(struct ask *a, const struct metrics *exact, double seconds, json_t *o)
{
    const struct metrics_spec *spec = &a->e->p.spec;
    struct metrics m = metrics_of(spec, a->e->rank, a->e->known.keep_known, a->e->known.n);
    double rate = seconds > 0 ? (double)a->e->known.n_users / seconds : 0;
    size_t last = spec->n_k - 1, ef = a->ef ? a->ef : a->b->manifest.default_ef;
    double cost = exact->hr[last] > 0 ? 1 - m.hr[last] / exact->hr[last] : 0;
    json_object_set_new(o, "ef", json_integer((json_int_t)ef));
    json_object_set_new(o, "queries_per_s", json_real(rate));
    json_object_set_new(o, "exact_metrics", metrics_to_json(spec, exact));
    json_object_set_new(
        o, "note",
        json_sprintf("graph with ef %u: HR@%u %.4f, exact %.4f, a loss of %.2f %%; %u queries/s; asked for %u items: "
                     "MRR counts what lies beyond as not found",
                     (unsigned)ef, spec->k[last], m.hr[last], exact->hr[last], 100 * cost, (unsigned)rate,
                     (unsigned)a->k));
}

static bool run(struct ask *a, bool through_index, json_t *o, struct err *err)
{
    double seconds;
    const struct target_set *set = &a->e->known;
    if (!ask_init(a, err) || !ask_all(a, true, &seconds, err))
        return false;
    struct metrics exact = metrics_of(&a->e->p.spec, a->e->rank, set->keep_known, set->n);
    json_object_set_new(o, "note",
                        json_sprintf("asked for %u items: MRR counts what lies beyond as not found", (unsigned)a->k));
    if (through_index) {
        if (!ask_all(a, false, &seconds, err))
            return false;
        put_cost(a, &exact, seconds, o);
    }
    put_strangers(a, o);
    return evaluation_put_metrics(a->e, set, a->e->rank, o, err);
}

json_t *evaluation_bundle(struct evaluation *e, const char *name, const struct bundle *b,
                          const struct evaluate_bundle_params *p, struct err *err)
{
    struct ask *a = mem_array(1, sizeof(*a), err);
    json_t *o = json_object();
    json_object_set_new(o, "name", json_string(name));
    json_object_set_new(o, "kind", json_string(b->manifest.kind));
    json_object_set_new(o, "through", json_string(p->through_index ? "index" : "exact"));
    if (a)
        *a = (struct ask){.e = e, .b = b, .ef = p->ef};
    bool ok = a && run(a, p->through_index, o, err);
    if (a)
        ask_fini(a);
    free(a);
    if (ok)
        return o;
    json_decref(o);
    err_prefix(err, "evaluating %s", name);
    return NULL;
}
