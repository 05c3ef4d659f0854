/* live_search.c - searching: the graph as if nothing had changed, what has died is left out of its answer, and the
 * delta is scanned.
 *
 * A few dead elements cost next to nothing that way: the graph is asked for a few more than k, and goes on walking its
 * fast layout, which a filter would keep it from. Where that leaves too few, or many have died, the dead are filtered
 * in the walk. */
#include <math.h>
#include <string.h>

#include "index/live_priv.h"

#define BLOCK 256     // slots scored at a time
#define MANY_DEAD 4   // one in so many: filter in the walk
#define SPARE_LEAST 8 // asked for beyond k when any are dead

typedef size_t search_fn(const struct hnsw *h, const float *q, const struct hnsw_query *p, struct hnsw_ws *ws,
                         struct hnsw_hit *hit, struct hnsw_err *err);

// ----------------------------------------------------------------------------------------------------------- graph

struct alive {
    const struct live_view *view;
    const struct hnsw_query *p;
};

static bool is_alive(const void *ctx, uint64_t label)
{
    const struct alive *a = ctx;
    return live_view_main(a->view, label) && (!a->p->filter || a->p->filter(a->p->filter_ctx, label));
}

static size_t search_filtered(const struct live_view *v, search_fn *search, const float *q, const struct hnsw_query *p,
                              struct hnsw_ws *ws, struct hnsw_hit *hit, struct hnsw_err *err)
{
    struct alive a = {v, p};
    struct hnsw_query with = *p;
    with.filter = is_alive;
    with.filter_ctx = &a;
    return search(v->gen->main, q, &with, ws, hit, err);
}

/* Ask for more than k and drop the dead. *enough is false if that left too few although there may be more. */
static size_t search_more(const struct live_view *v, const float *q, const struct hnsw_query *p, size_t dead,
                          struct hnsw_ws *ws, struct hnsw_hit *hit, bool *enough, struct hnsw_err *err)
{
    size_t all = hnsw_count(v->gen->main), k = p->k < all ? p->k : all, n = 0;
    size_t spare = SPARE_LEAST + 2 * k * dead / all;
    struct hnsw_query more = *p;
    more.k = k + (spare < dead ? spare : dead);
    more.k = more.k < all ? more.k : all;
    more.ef = p->ef ? p->ef + (more.k - k) : 0;
    if (!hnsw_grow_array((void **)&ws->more, &ws->more_cap, more.k, sizeof(*ws->more))) {
        hnsw_fail(err, HNSW_NOMEM, "search: no memory for %zu hits", more.k);
        return 0;
    }
    size_t found = hnsw_search(v->gen->main, q, &more, ws, ws->more, err);
    for (size_t i = 0; i < found && n < p->k; i++)
        if (live_view_main(v, ws->more[i].label))
            hit[n++] = ws->more[i];
    *enough = n == p->k || found < more.k || found == all;
    return n;
}

/* Drop the dead from an answer for more than k, and where that leaves too few, filter them in the walk, by what is left of max_visits. */
static size_t search_twice(const struct live_view *v, const float *q, const struct hnsw_query *p, size_t dead, struct hnsw_ws *ws,
                           struct hnsw_hit *hit, struct hnsw_err *err)
{
    struct hnsw_report first = {0}, then = {0};
    struct hnsw_query each = *p;
    bool enough = true;
    each.report = &first;
    size_t n = search_more(v, q, &each, dead, ws, hit, &enough, err);
    if (!enough && p->max_visits > 0 && first.visited >= p->max_visits)
        first.cut = HNSW_CUT_VISITS;
    if (!enough && !first.cut && !err->code) {
        each.report = &then;
        each.max_visits -= p->max_visits > 0 ? first.visited : 0;
        n = search_filtered(v, hnsw_search, q, &each, ws, hit, err);
        then.visited += first.visited;
        then.rescored += first.rescored;
        first = then;
    }
    if (p->report && !err->code)
        *p->report = first;
    return n;
}

static size_t search_main(const struct live_view *v, search_fn *search, const float *q, const struct hnsw_query *p,
                          struct hnsw_ws *ws, struct hnsw_hit *hit, struct hnsw_err *err)
{
    size_t dead = atomic_load_explicit(&v->gen->n_dead, memory_order_relaxed); // at least those of the view
    if (v->time == 0 || dead == 0 || p->k == 0)
        return search(v->gen->main, q, p, ws, hit, err);
    if (search == hnsw_search && !p->filter && !p->allow && dead <= hnsw_count(v->gen->main) / MANY_DEAD)
        return search_twice(v, q, p, dead, ws, hit, err);
    return search_filtered(v, search, q, p, ws, hit, err);
}

// ----------------------------------------------------------------------------------------------------------- delta

static bool slot_eligible(const struct live_view *v, const struct hnsw_query *p, uint32_t slot, float score)
{
    return live_view_slot(v, slot) && !(p->has_min_score && score < p->min_score) && may_return(p, v->gen->label[slot]);
}

/* The best k of the delta that come before `bar`, into best[k], best first. */
static size_t scan_delta(const struct live_view *v, const float *q, const struct hnsw_query *p, size_t k,
                         struct hnsw_hit bar, struct hnsw_hit *best)
{
    const struct live_gen *g = v->gen;
    size_t dim = g->main->dim, found = 0;
    float score[BLOCK];
    for (uint32_t at = 0; at < v->n; at += BLOCK) {
        uint32_t some = v->n - at < BLOCK ? v->n - at : BLOCK;
        metric_fn(g->main->metric)(q, g->vec + at * dim, dim * sizeof(float), NULL, some, dim, score);
        for (uint32_t i = 0; i < some; i++) {
            struct hnsw_hit x = {g->label[at + i], score[i]};
            if (score[i] < bar.score || !hnsw_hit_better(x, bar) || !slot_eligible(v, p, at + i, score[i]))
                continue;
            found = hnsw_hits_keep(best, found, k, x);
            if (found == k)
                bar = best[0];
        }
    }
    hnsw_hits_sort(best, found);
    return found;
}

/* The best k of hit[n] and best[m], both sorted, into hit; returns how many. */
static size_t join(struct hnsw_hit *hit, size_t n, const struct hnsw_hit *best, size_t m, size_t k)
{
    while (n + m > k) // the worst go
        if (m == 0 || (n > 0 && hnsw_hit_better(best[m - 1], hit[n - 1])))
            n--;
        else
            m--;
    size_t all = n + m;
    for (size_t at = all; m > 0; at--)
        if (n > 0 && hnsw_hit_better(best[m - 1], hit[n - 1])) {
            hit[at - 1] = hit[n - 1];
            n--;
        } else {
            hit[at - 1] = best[m - 1];
            m--;
        }
    return all;
}

static size_t search_delta(const struct live_view *v, const float *q, const struct hnsw_query *p, struct hnsw_ws *ws,
                           struct hnsw_hit *hit, size_t n, struct hnsw_err *err)
{
    size_t k = p->k < v->n ? p->k : v->n;
    struct hnsw_hit bar = {UINT64_MAX, -INFINITY};
    if (v->n == 0)
        return n;
    if (!hnsw_grow_array((void **)&ws->more, &ws->more_cap, k, sizeof(*ws->more)) ||
        !hnsw_ws_fit(ws, 0, 0, v->gen->main->dim)) {
        hnsw_fail(err, HNSW_NOMEM, "search: no memory for %zu hits", k);
        return 0;
    }
    if (v->gen->main->metric == HNSW_COSINE) {
        hnsw_metric_normalize(q, v->gen->main->dim, ws->query);
        q = ws->query;
    }
    if (n == p->k)
        bar = hit[n - 1];
    size_t m = scan_delta(v, q, p, k, bar, ws->more);
    return join(hit, n, ws->more, m, p->k);
}

// ------------------------------------------------------------------------------------------------------------ both

static size_t search_live(const struct hnsw_live *l, search_fn *search, const float *q, const struct hnsw_query *p,
                          struct hnsw_ws *ws, struct hnsw_hit *hit, struct hnsw_err *err)
{
    struct hnsw_err local = {0};
    atomic_size_t *inside = live_epoch_enter(l->epoch);
    struct live_view v = live_gen_view(atomic_load(&l->gen));
    size_t n = search_main(&v, search, q, p, ws, hit, &local);
    if (!local.code)
        n = search_delta(&v, q, p, ws, hit, n, &local);
    live_epoch_leave(inside);
    if (!local.code)
        return n;
    hnsw_fail(err, local.code, "%s", local.msg);
    return 0;
}

size_t hnsw_live_search(const struct hnsw_live *l, const float *q, const struct hnsw_query *p, struct hnsw_ws *ws,
                        struct hnsw_hit *hit, struct hnsw_err *err)
{
    return search_live(l, hnsw_search, q, p, ws, hit, err);
}

size_t hnsw_live_search_exact(const struct hnsw_live *l, const float *q, const struct hnsw_query *p, struct hnsw_ws *ws,
                              struct hnsw_hit *hit, struct hnsw_err *err)
{
    return search_live(l, hnsw_search_exact, q, p, ws, hit, err);
}
