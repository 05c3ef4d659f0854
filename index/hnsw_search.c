/* hnsw_search.c - walking the graph: HNSW alg. 2 and 5.
 * After hnswlib's searchBaseLayer, searchBaseLayerST and searchKnn (Apache-2.0); own text. Differences: the index is
 * const and ef belongs to the call; one sorted pool instead of two heaps (pool.h); all new neighbours of a hop are
 * scored in one call with their vectors prefetched, never past the list; a search that comes back with too few is
 * completed by an exact scan. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"

#define DEFAULT_EF 64

// -------------------------------------------------------------------------------------------------------- one hop

/* Copy a list of links; under its node's lock while others build. Returns how many: the list has no holes, so counting
 * the used places is enough, and needs no branch. */
static unsigned read_links(const struct hnsw *h, hnsw_lock *lock, uint32_t id, int level, uint32_t *out)
{
    if (h->compact)
        return compact_links(h->compact, id, out);
    unsigned cap = links_cap(h, level), n = 0;
    if (lock)
        hnsw_lock_take(&lock[id]);
    memcpy(out, node_links(h, id, level), cap * sizeof(*out));
    if (lock)
        hnsw_lock_drop(&lock[id]);
    for (unsigned i = 0; i < cap; i++)
        n += out[i] != NO_ID;
    return n;
}

static void prefetch_links(const struct hnsw *h, uint32_t id, int level)
{
    const char *link = (const char *)node_links(h, id, level);
    for (size_t i = 0; i < links_cap(h, level) * sizeof(uint32_t); i += 64)
        __builtin_prefetch(link + i);
}

/* The best open candidates' lists: one is wanted now, the others are most likely next. */
static void prefetch_open(const struct hnsw *h, const struct pool *pool, int level)
{
    unsigned left = 2;
    for (size_t i = pool->next; i < pool->n && left > 0; i++)
        if (pool->key[i] & 1) {
            prefetch_links(h, key_id(pool->key[i]), level);
            left--;
        }
}

/* Neighbours of `id` not seen before in this walk, into out, their vectors on the way to the cache. Which are new cannot be guessed, so
 * they are sorted out without a branch. */
static size_t fresh_neighbours(const struct hnsw *h, hnsw_lock *lock, uint32_t id, int level, struct hnsw_ws *ws, uint32_t *out)
{
    size_t n = 0;
    unsigned all = read_links(h, lock, id, level, out);
    for (unsigned i = 0; i < all; i++)
        __builtin_prefetch(ws->visited.tag + out[i], 1);
    for (unsigned i = 0; i < all; i++) {
        uint32_t to = out[i];
        out[n] = to;
        n += visited_mark(&ws->visited, to);
    }
    for (size_t i = 0; i < n; i++)
        ask_for_vector(h, out[i]);
    return n;
}

// ---------------------------------------------------------------------------------------------------------- walks

/* Alg. 5 lines 2-4: from `at` down to level + 1, on each level go to the best neighbour until none is better. */
struct scored hnsw_descend(const struct hnsw *h, hnsw_lock *lock, const float *q, int level, struct hnsw_ws *ws, uint32_t at)
{
    float best = score_id(h, q, at);
    for (int l = h->level[at]; l > level; l--)
        for (bool moved = true; moved;) {
            size_t n = limit_take(&ws->limit, read_links(h, lock, at, l, ws->id));
            score_ids(h, q, ws->id, n, ws->score);
            moved = false;
            for (size_t i = 0; i < n; i++)
                if (ws->score[i] > best) {
                    best = ws->score[i];
                    at = ws->id[i];
                    moved = true;
                }
        }
    return (struct scored){at, best};
}

/* Alg. 2: the ef best reachable from `from`, into ws->pool. Two hops are under way at a time: while the vectors of one come from memory,
 * the next candidate's list is read, so what a hop finds takes part in the choice of the candidate after next. */
void hnsw_walk(const struct hnsw *h, hnsw_lock *lock, const float *q, struct scored from, int level, size_t ef, struct hnsw_ws *ws)
{
    struct pool *pool = &ws->pool;
    uint32_t id, *now = ws->id, *next = ws->id_next;
    size_t n = 0, n_next;
    hnsw_visited_begin(&ws->visited);
    visited_mark(&ws->visited, from.id);
    pool_begin(pool, ef);
    pool_insert(pool, from.score, from.id);
    do {
        n_next = 0;
        if (!ws->limit.cut && pool_take(pool, &id))
            n_next = limit_take(&ws->limit, fresh_neighbours(h, lock, id, level, ws, next));
        score_ids(h, q, now, n, ws->score);
        for (size_t i = 0; i < n; i++)
            pool_insert(pool, ws->score[i], now[i]);
        prefetch_open(h, pool, level);
        uint32_t *free = now;
        now = next;
        next = free;
        n = n_next;
    } while (n > 0 || (!ws->limit.cut && pool_has_open(pool)));
}

// ------------------------------------------------------------------------------------------------- filtered search

/* One scored neighbour: worth expanding if it beats the worst eligible result, worth keeping if it is eligible itself.
 */
static bool offer(const struct hnsw *h, const struct hnsw_query *p, size_t ef, struct hnsw_ws *ws, uint32_t id,
                  float score)
{
    uint64_t key = pool_key(score, id);
    if (ws->best.n == ef && key < ws->best.key[0])
        return true;
    if (!hnsw_heap_push(&ws->open, ~key))
        return false;
    if (!eligible(h, p, id))
        return true;
    if (ws->best.n < ef)
        return hnsw_heap_push(&ws->best, key);
    hnsw_heap_replace(&ws->best, key);
    return true;
}

enum walk_end { WALK_DONE, WALK_TOO_LONG, WALK_NOMEM };

/* Alg. 2 with what may be returned apart from what is walked through: on until ef eligible ones are found and nothing
 * open is better. The fewer are eligible the farther it goes; past `budget` scored elements scanning all of them is
 * cheaper. */
static enum walk_end walk_filtered(const struct hnsw *h, const float *q, struct scored from, size_t ef,
                                   const struct hnsw_query *p, size_t budget, struct hnsw_ws *ws)
{
    size_t before = ws->limit.visited;
    ws->best.n = 0;
    ws->open.n = 0;
    hnsw_visited_begin(&ws->visited);
    visited_mark(&ws->visited, from.id);
    if (!offer(h, p, ef, ws, from.id, from.score))
        return WALK_NOMEM;
    while (ws->open.n > 0 && !ws->limit.cut) {
        uint64_t key = ~hnsw_heap_pop(&ws->open);
        if (ws->best.n == ef && key < ws->best.key[0])
            break;
        size_t n = limit_take(&ws->limit, fresh_neighbours(h, NULL, key_id(key), 0, ws, ws->id));
        score_ids(h, q, ws->id, n, ws->score);
        for (size_t i = 0; i < n; i++)
            if (!offer(h, p, ef, ws, ws->id[i], ws->score[i]))
                return WALK_NOMEM;
        if (ws->limit.visited - before > budget)
            return WALK_TOO_LONG;
    }
    return WALK_DONE;
}

// --------------------------------------------------------------------------------------------------------- answers

/* The first k of `n` descending keys as hits into ws->tie, those below min_score left out; how many. Equal scores go to
 * the lower label, also across the cut at k: so the whole group that straddles it is looked at. */
static size_t keys_to_hits(const struct hnsw *h, const uint64_t *key, size_t n, const struct hnsw_query *p,
                           struct hnsw_ws *ws)
{
    bool plain = h->fast && h->fast->plain_labels;
    size_t found = n;
    if (n > p->k)
        for (found = p->k; found < n && key[found] >> 32 == key[p->k - 1] >> 32;)
            found++;
    for (size_t i = 0; i < found; i++)
        ws->tie[i] = (struct hnsw_hit){plain ? key_id(key[i]) : label_of(h, key_id(key[i])), key_score(key[i])};
    for (size_t i = 0, end; i < found; i = end) {
        for (end = i + 1; end < found && ws->tie[end].score == ws->tie[i].score;)
            end++;
        if (end - i > 1)
            hnsw_hits_sort(ws->tie + i, end - i);
    }
    if (found > p->k)
        found = p->k;
    while (p->has_min_score && found > 0 && ws->tie[found - 1].score < p->min_score)
        found--;
    return found;
}

/* The k best of the n hits in ws->tie and the n_more in `hit`, into `hit`. An element has one score, so where it is in
 * both, the two stand side by side when sorted. */
static size_t merge_hits(struct hnsw_ws *ws, size_t n, struct hnsw_hit *hit, size_t n_more, size_t k)
{
    size_t found = 0;
    memcpy(ws->tie + n, hit, n_more * sizeof(*hit));
    hnsw_hits_sort(ws->tie, n + n_more);
    for (size_t i = 0; i < n + n_more && found < k; i++)
        if (i == 0 || ws->tie[i].label != ws->tie[i - 1].label)
            hit[found++] = ws->tie[i];
    return found;
}

/* Scoring an element of a scan costs about an eighth of one met on a walk (no cache miss, no heap). */
static size_t walk_budget(const struct hnsw *h)
{
    return 2000 + h->n / 8;
}

static bool walks_all(const struct hnsw *h, const struct hnsw_query *p)
{
    return !p->filter && !p->allow && h->n_removed == 0;
}

static bool walks_fast(const struct hnsw *h, const struct hnsw_query *p)
{
    return h->fast && walks_all(h, p);
}

static bool walks_coarse(const struct hnsw *h, const struct hnsw_query *p)
{
    return h->compact && h->compact->coarse && walks_all(h, p);
}

/* -INFINITY as score: cut before there was one. */
static struct scored start(const struct hnsw *h, const float *q, struct hnsw_ws *ws)
{
    if (h->compact)
        return hnsw_compact_start(h, q, ws);
    return limit_take(&ws->limit, 1) ? hnsw_descend(h, NULL, q, 0, ws, h->entry) : (struct scored){h->entry, -INFINITY};
}

/* The keys of the walk's results, best first, *n of them; *done: whether it went to its end, or would have cost more
 * than a scan. No memory: `err` is set. */
static const uint64_t *walk(const struct hnsw *h, const float *q, const struct hnsw_query *p, size_t ef,
                            struct hnsw_ws *ws, size_t *n, bool *done, struct hnsw_err *err)
{
    *done = true;
    if (walks_fast(h, p)) {
        hnsw_fast_search(h, q, p->k < h->n ? p->k : h->n, ef, ws);
        *n = ws->pool.n;
        return ws->pool.key;
    }
    if (walks_coarse(h, p)) {
        hnsw_compact_coarse(h, q, p, ef, ws);
        *n = ws->pool.n;
        return ws->pool.key;
    }
    *n = 0;
    struct scored from = start(h, q, ws);
    if (!(from.score > -INFINITY))
        return ws->pool.key;
    if (walks_all(h, p)) {
        (h->compact ? hnsw_compact_walk(h, q, from, ef, ws) : hnsw_walk(h, NULL, q, from, 0, ef, ws));
        *n = ws->pool.n;
        return ws->pool.key;
    }
    enum walk_end end = walk_filtered(h, q, from, ef, p, walk_budget(h), ws);
    if (end == WALK_NOMEM)
        hnsw_fail(err, HNSW_NOMEM, "search: no memory for the walk");
    *done = end == WALK_DONE;
    *n = ws->best.n;
    if (*n)
        hnsw_keys_sort(ws->best.key, *n);
    return ws->best.key;
}

bool hnsw_finite(const float *vec, size_t dim)
{
    unsigned bad = 0; // no early exit: the compiler makes it SIMD
    for (size_t j = 0; j < dim; j++)
        bad |= !(fabsf(vec[j]) <= HNSW_VALUE_MAX);
    return !bad;
}

const float *hnsw_prepared_query(const struct hnsw *h, const float *q, struct hnsw_ws *ws)
{
    if (h->metric != HNSW_COSINE && !h->compact)
        return q;
    if (h->metric == HNSW_COSINE)
        hnsw_metric_normalize(q, h->dim, ws->query);
    if (h->compact)
        hnsw_compact_query(h, h->metric == HNSW_COSINE ? ws->query : q, ws->query);
    return ws->query;
}

/* Checks and scratch that both kinds of search need; the query to use, or NULL. */
static const float *prepare(const struct hnsw *h, const float *q, const struct hnsw_query *p, size_t ef,
                            struct hnsw_ws *ws, struct hnsw_err *err)
{
    if (p->k == 0) {
        hnsw_fail(err, HNSW_ARG, "search: k is 0, wanted at least 1");
        return NULL;
    }
    if (p->has_min_score && isnan(p->min_score)) {
        hnsw_fail(err, HNSW_ARG, "search: min_score is not a number");
        return NULL;
    }
    if (!hnsw_finite(q, h->dim)) {
        hnsw_fail(err, HNSW_ARG, "search: the query has a value that is not finite, or beyond %g",
                  (double)HNSW_VALUE_MAX);
        return NULL;
    }
    ws->limit = hnsw_limit_of(p);
    ws->rescored = 0;
    bool fast = ef > 0 && walks_fast(h, p), coarse = ef > 0 && walks_coarse(h, p);
    size_t k = p->k < h->n ? p->k : h->n;
    if (!hnsw_ws_fit(ws, fast || coarse ? 0 : h->n, fast || coarse ? hnsw_fast_keep(k, ef) : ef, h->dim) ||
        (fast && !hnsw_fast_ws_fit(ws, h->fast, k, ef)) || (coarse && !hnsw_compact_ws_fit(ws, h->compact, k, ef))) {
        hnsw_fail(err, HNSW_NOMEM, "search: no memory for ef = %zu", ef);
        return NULL;
    }
    return hnsw_prepared_query(h, q, ws);
}

static size_t ef_of(const struct hnsw *h, const struct hnsw_query *p)
{
    size_t ef = p->ef ? p->ef : DEFAULT_EF;
    ef = ef < p->k ? p->k : ef;
    return ef > h->n ? h->n : ef;
}

/* The exact answer by scoring all that may be returned: by codes first, where there are any. */
static bool scan_all(const struct hnsw *h, const float *q, const struct hnsw_query *p, bool by_allowed, struct hnsw_ws *ws,
                     struct hnsw_hit *hit, size_t *found, struct hnsw_err *err)
{
    if (!hnsw_scan_has_codes(h) || by_allowed) {
        *found = hnsw_flat(h, q, p, by_allowed, &ws->limit, hit);
        return true;
    }
    if (!hnsw_scan(h, &q, 1, p, ws, hit, found))
        return hnsw_fail(err, HNSW_NOMEM, "search: no memory for a scan");
    ws->rescored += ws->scan[0].rescored;
    return true;
}

static void report(const struct hnsw *h, const struct hnsw_query *p, const struct hnsw_ws *ws, enum hnsw_plan plan, bool all)
{
    const struct limit *l = &ws->limit;
    if (p->report)
        *p->report = (struct hnsw_report){.visited = l->visited,
                                          .rescored = ws->rescored,
                                          .cut = l->cut,
                                          .plan = plan,
                                          .exact = all && l->cut == HNSW_CUT_NONE,
                                          .scored = plan == HNSW_PLAN_WALK && p->score && walks_coarse(h, p)};
}

size_t hnsw_search(const struct hnsw *h, const float *q, const struct hnsw_query *p, struct hnsw_ws *ws,
                   struct hnsw_hit *hit, struct hnsw_err *err)
{
    struct hnsw_err local = {0};
    const uint64_t *key = NULL;
    size_t ef = ef_of(h, p), n = 0, scanned = 0;
    bool done = true;
    if (!(q = prepare(h, q, p, ef, ws, err)))
        return 0;
    struct plan plan = hnsw_plan_of(h, p, ef);
    if (plan.scan) {
        if (!scan_all(h, q, p, plan.by_allowed, ws, hit, &n, err))
            return 0;
        report(h, p, ws, HNSW_PLAN_SCAN, true);
        return n;
    }
    if (hnsw_count(h) > 0)
        key = walk(h, q, p, ef, ws, &n, &done, &local);
    if (local.code) {
        hnsw_fail(err, local.code, "%s", local.msg);
        return 0;
    }
    bool all = n == hnsw_count(h), scan = !ws->limit.cut && !all && (!done || n < p->k);
    if (scan && !scan_all(h, q, p, plan.by_allowed, ws, hit, &scanned, err))
        return 0;
    report(h, p, ws, scan ? HNSW_PLAN_SCAN : HNSW_PLAN_WALK, all || scan);
    if (scan && !ws->limit.cut)
        return scanned;
    n = keys_to_hits(h, key, n, p, ws);
    if (scan)
        return merge_hits(ws, n, hit, scanned, p->k);
    if (n) // of an empty index there may be no `tie`
        memcpy(hit, ws->tie, n * sizeof(*hit));
    return n;
}

size_t hnsw_search_exact(const struct hnsw *h, const float *q, const struct hnsw_query *p, struct hnsw_ws *ws,
                         struct hnsw_hit *hit, struct hnsw_err *err)
{
    if (!(q = prepare(h, q, p, 0, ws, err)))
        return 0;
    size_t found;
    if (!scan_all(h, q, p, hnsw_plan_of(h, p, p->k).by_allowed, ws, hit, &found, err))
        return 0;
    report(h, p, ws, HNSW_PLAN_SCAN, true);
    return found;
}

/* Queries that go over the codes together. */
static bool scan_group(const struct hnsw *h, const float *q, size_t nq, const struct hnsw_query *p, struct hnsw_ws *ws,
                       struct hnsw_hit *hit, size_t *found, struct hnsw_report *reports, struct hnsw_err *err)
{
    const float *query[SCAN_GROUP];
    for (size_t i = 0; i < nq; i++) {
        if (!(query[i] = prepare(h, q + i * h->dim, p, 0, ws, err)))
            return false;
        if (!(query[i] = hnsw_scan_query(h, ws, i, query[i])))
            return hnsw_fail(err, HNSW_NOMEM, "search: no memory for a group of queries");
    }
    if (!hnsw_scan(h, query, nq, p, ws, hit, found))
        return hnsw_fail(err, HNSW_NOMEM, "search: no memory for a scan");
    struct hnsw_query one = *p;
    for (size_t i = 0; reports && i < nq; i++) {
        one.report = &reports[i];
        ws->rescored = ws->scan[i].rescored;
        report(h, &one, ws, HNSW_PLAN_SCAN, true);
    }
    return true;
}

bool hnsw_search_batch(const struct hnsw *h, const float *q, size_t nq, const struct hnsw_query *p, struct hnsw_ws *ws,
                       struct hnsw_hit *hit, size_t *found, struct hnsw_err *err)
{
    struct hnsw_err local = {0};
    struct hnsw_query one = *p;
    struct plan plan = hnsw_plan_of(h, p, ef_of(h, p));
    bool together = plan.scan && !plan.by_allowed && hnsw_scan_has_codes(h);
    for (size_t i = 0, some; i < nq && !local.code; i += some) {
        some = !together ? 1 : nq - i < SCAN_GROUP ? nq - i : SCAN_GROUP;
        one.report = p->report ? p->report + i : NULL;
        if (together)
            scan_group(h, q + i * h->dim, some, p, ws, hit + i * p->k, found + i, one.report, &local);
        else
            found[i] = hnsw_search(h, q + i * h->dim, &one, ws, hit + i * p->k, &local);
    }
    return !local.code || hnsw_fail(err, local.code, "%s", local.msg);
}
