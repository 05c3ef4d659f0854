/* clang-format off */
/* A query becomes a vector, or several, by the first rung of a ladder that holds:
 *
 *     vector given         -> itself
 *     stored user          -> its features (overridden by given ones), its id row and its a_u -> tower; without towers: its vectors
 *     history given        -> OOV id, given features, a_u = n^-alpha sum of its p_v -> tower; without a_u: the mean itself; without
 *                             towers: stored_from_history
 *     features given       -> OOV id, given features, a_u = mean of the segment -> tower
 *     nothing              -> no vector: popularity
 *
 * and the vector becomes items by one of three ways: a walk through the graph with a filter, a scan of everything, or,
 * where a filter leaves few items, a scan of those. A walk takes about ef / share steps to find ef items that
 * pass, and a step costs as much as scoring WALK_STEP items of a scan; a scan scores share x n. They cost the same at
 * share^2 = ef x WALK_STEP / n, which is where we change over. Scans read the embeddings, which lie one after the
 * other: three times as fast as an exact search of the index, whose vectors lie among its links. */
/* clang-format on */
#include "core/retrieve_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/best.h"

#define BLOCKS_A_LOOK 16 // 4,096 items scored, some 20 us, between two looks at the clock
#define BLOCK 256        // items scored at a time by a scan
#define WALK_STEP 64 // measured 57 to 121 for shares of 0.05 to 0.7, ef of 100 to 500, 200,000 items, d = 32, AVX-512

const char *retrieve_fallback_name(enum retrieve_fallback f)
{
    static const char *const name[] = {
        [FALLBACK_FEATURES] = "features", [FALLBACK_HISTORY] = "history", [FALLBACK_POPULAR] = "popular"};
    return f >= FALLBACK_FEATURES && f <= FALLBACK_POPULAR ? name[f] : NULL;
}

struct retrieve_ws *retrieve_ws_new(const struct bundle *b, struct err *err)
{
    struct retrieve_ws *ws = mem_array(1, sizeof(*ws), err);
    if (!ws)
        return NULL;
    const struct stored *s = b->model->stored;
    size_t n_p = b->manifest.n_interest;
    ws->tower = s ? NULL : tower_ws_new(&b->model->user, 1, err);
    ws->fold = mem_array(s ? stored_scratch(s) : 0, sizeof(*ws->fold), err);
    ws->hnsw = hnsw_ws_new();
    ws->x = mem_array(b->model->schema->user.n_slots, sizeof(*ws->x), err);
    ws->a = mem_array(b->model->user.shape.d_aug, sizeof(*ws->a), err);
    ws->p = mem_array(n_p * b->manifest.d, sizeof(*ws->p), err);
    bool sieve = sieve_init(&ws->sieve, b->items, err);
    if ((s || ws->tower) && ws->fold && ws->hnsw && ws->x && ws->a && ws->p && sieve)
        return ws;
    err_set(err, ERR_NOMEM, "retrieve: out of memory");
    retrieve_ws_free(ws);
    return NULL;
}

void retrieve_ws_free(struct retrieve_ws *ws)
{
    if (!ws)
        return;
    tower_ws_free(ws->tower);
    hnsw_ws_free(ws->hnsw);
    free(ws->x);
    free(ws->a);
    free(ws->p);
    free(ws->fold);
    sieve_fini(&ws->sieve);
    free(ws->found);
    retrieve_many_free(ws->many);
    bounds_fini(&ws->bounds);
    free(ws);
}

// ------------------------------------------------------------------------------------------------ query to vector

static bool apply_features(const struct schema_side *side, const struct retrieve_query *q, uint32_t *x,
                           struct retrieve_result *r, struct err *err)
{
    for (size_t i = 0; i < q->n_features; i++) {
        struct str name = q->feature[i].name, value = q->feature[i].value;
        int shown = (int)(name.n < 64 ? name.n : 64);
        const struct schema_field *f = schema_find(side, name.p, name.n);
        if (!f)
            return err_set(err, ERR_ARG, "feature \"%.*s\": users have none of that name", shown, name.p);
        if (f->kind == FIELD_ID || f->kind == FIELD_DISPLAY)
            return err_set(err, ERR_ARG, "feature \"%.*s\": %s", shown, name.p,
                           f->kind == FIELD_ID ? "the user's id, which is given as the user, not as a feature"
                                               : "for display only, no tower reads it");
        if (!schema_encode_value(side, f, value.p, value.n, x) && r->n_unknown < RETRIEVE_UNKNOWN_MAX)
            r->unknown_feature[r->n_unknown++] = (uint32_t)i;
    }
    return true;
}

/* a_u of the given history; false if there is none. */
static bool sum_of_history(const struct bundle *b, const struct retrieve_query *q, float *a)
{
    history_sum(&b->model->history, b->emb, q->history, q->n_history, b->manifest.d, a);
    return q->n_history > 0;
}

/* To unit length; false for a vector without direction. */
static bool normalise(float *v, uint32_t d)
{
    double sum = 0;
    for (uint32_t j = 0; j < d; j++)
        sum += (double)v[j] * (double)v[j];
    if (!(sum > 0))
        return false;
    float scale = (float)(1 / sqrt(sum));
    for (uint32_t j = 0; j < d; j++)
        v[j] *= scale;
    return true;
}

static void embed_unknown(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws,
                          struct retrieve_result *r)
{
    const struct tower *t = &b->model->user;
    uint32_t d_aug = t->shape.d_aug;
    if (d_aug == 0 && sum_of_history(b, q, ws->p) && normalise(ws->p, t->d)) {
        r->fallback = FALLBACK_HISTORY;
        return;
    }
    if (d_aug == t->d && sum_of_history(b, q, ws->a)) {
        r->fallback = FALLBACK_HISTORY;
    } else if (q->n_features) {
        r->fallback = FALLBACK_FEATURES;
        if (d_aug)
            memcpy(ws->a, t->aug_segment + (size_t)schema_segment(&b->model->schema->user, ws->x) * d_aug,
                   d_aug * sizeof(*ws->a));
    } else {
        r->fallback = FALLBACK_POPULAR;
        memset(ws->p, 0, t->d * sizeof(*ws->p));
        return;
    }
    ws->needs_tower = true;
}

/* Of a model without towers: the stored vectors, what a history says, or nothing. */
static void embed_stored(const struct bundle *b, const struct retrieve_query *q, uint32_t u, struct retrieve_ws *ws,
                         struct retrieve_result *r)
{
    const struct stored *s = b->model->stored;
    size_t n = (size_t)s->n_interest * s->d;
    const float *own = u != STRTAB_NONE && b->users->vec ? b->users->vec + u * n : NULL;
    if (own && stored_known(own, n)) {
        memcpy(ws->p, own, n * sizeof(*ws->p));
        ws->n_p = s->n_interest;
    } else {
        r->fallback = stored_from_history(s, b->emb, q->history, q->n_history, ws->fold, ws->p) ? FALLBACK_HISTORY
                                                                                                : FALLBACK_POPULAR;
    }
}

static bool take_vector(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws, struct err *err)
{
    for (uint32_t j = 0; j < b->manifest.d; j++)
        if (!isfinite(q->vector[j]))
            return err_set(err, ERR_ARG, "vector: component %u is not finite", j);
    memcpy(ws->p, q->vector, b->manifest.d * sizeof(*ws->p));
    return true;
}

bool retrieve_prepare(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws,
                      struct retrieve_result *r, struct err *err)
{
    const struct schema_side *side = &b->model->schema->user;
    const struct tower *t = &b->model->user;
    uint32_t u = q->user_id.p ? users_find(b->users, q->user_id.p, q->user_id.n) : STRTAB_NONE;
    ws->n_p = 1;
    ws->needs_tower = false;
    memset(ws->a, 0, t->shape.d_aug * sizeof(*ws->a));
    for (size_t i = 0; i < q->n_history; i++)
        if (q->history[i] >= b->items->n)
            return err_set(err, ERR_ARG, "history: item %u, there are %u", q->history[i], b->items->n);
    if (q->vector)
        return take_vector(b, q, ws, err);
    if (u != STRTAB_NONE && b->users->x)
        memcpy(ws->x, b->users->x + (size_t)u * side->n_slots, side->n_slots * sizeof(*ws->x));
    else
        schema_encode_unknown(side, ws->x);
    if (!apply_features(side, q, ws->x, r, err))
        return false;
    if (b->model->stored || u == STRTAB_NONE) {
        if (b->model->stored)
            embed_stored(b, q, u, ws, r);
        else
            embed_unknown(b, q, ws, r);
        return true;
    }
    if (b->users->aug)
        memcpy(ws->a, b->users->aug + (size_t)u * t->shape.d_aug, t->shape.d_aug * sizeof(*ws->a));
    ws->needs_tower = true;
    return true;
}

/* Into ws->p and ws->a. */
static bool embed(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws,
                  struct retrieve_result *r, struct err *err)
{
    if (!retrieve_prepare(b, q, ws, r, err))
        return false;
    if (ws->needs_tower)
        tower_forward(&b->model->user, ws->x, ws->a, 1, ws->tower, ws->p);
    return true;
}

/* What retrieve_embed_batch found. */
static bool take_embedded(const struct bundle *b, const struct retrieve_embedded *e, struct retrieve_ws *ws,
                          struct retrieve_result *r, struct err *err)
{
    if (e->err.code)
        return err_set(err, e->err.code, "%s", e->err.msg);
    *r = e->result;
    ws->n_p = r->n_vectors ? r->n_vectors : 1;
    memcpy(ws->p, e->p, ws->n_p * b->manifest.d * sizeof(*ws->p));
    return true;
}

size_t retrieve_width(const struct bundle *b)
{
    return (size_t)b->manifest.n_interest * b->manifest.d;
}

bool retrieve_embed(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws, float *p_u,
                    float *a_u, struct retrieve_result *r, struct err *err)
{
    uint64_t start = retrieve_now_ns();
    *r = (struct retrieve_result){0};
    if (!embed(b, q, ws, r, err))
        return false;
    r->n_vectors = r->fallback == FALLBACK_POPULAR ? 0 : ws->n_p;
    memcpy(p_u, ws->p, ws->n_p * b->manifest.d * sizeof(*p_u));
    if (a_u)
        memcpy(a_u, ws->a, b->model->user.shape.d_aug * sizeof(*a_u));
    r->embed_ns = retrieve_now_ns() - start;
    return true;
}

// -------------------------------------------------------------------------------------------------- the three ways

/* Best score of each of n rows of `emb`, or of those that idx names, over the query's vectors. */
static void best_scores(const struct bundle *b, const struct retrieve_ws *ws, const float *emb, const uint32_t *idx,
                        size_t n, float *score)
{
    float other[BLOCK];
    size_t d = b->manifest.d;
    hnsw_scores(HNSW_IP, d, ws->p, emb, idx, n, score);
    for (size_t v = 1; v < ws->n_p; v++) {
        hnsw_scores(HNSW_IP, d, ws->p + v * d, emb, idx, n, other);
        for (size_t i = 0; i < n; i++)
            score[i] = other[i] > score[i] ? other[i] : score[i];
    }
}

static bool passes_label(const void *ctx, uint64_t label)
{
    return sieve_passes(ctx, (uint32_t)label);
}

static size_t offer_all(const struct retrieve_query *q, const uint32_t *idx, const float *score, size_t m,
                        struct retrieve_hit *hit, size_t n)
{
    for (size_t i = 0; i < m; i++)
        if (!q->has_min_score || score[i] >= q->min_score)
            n = best_offer(hit, n, q->k, (struct retrieve_hit){.item_idx = idx[i], .score = score[i]});
    return n;
}

static bool is_late(const struct retrieve_query *q)
{
    return q->deadline_ns && retrieve_now_ns() > q->deadline_ns;
}

/* Only what the filter lets through. */
static size_t scan_allowed(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws,
                           const struct sieve *f, struct retrieve_hit *hit, bool *late)
{
    uint32_t idx[BLOCK];
    float score[BLOCK];
    size_t n = 0, words = facet_words(b->items->n);
    for (size_t word = 0, blocks = 1; word < words && !*late; blocks++) {
        size_t m = sieve_next(f, words, &word, BLOCK, idx);
        best_scores(b, ws, b->emb, idx, m, score);
        n = offer_all(q, idx, score, m, hit, n);
        *late = blocks % BLOCKS_A_LOOK == 0 && is_late(q);
    }
    best_sort(hit, n);
    return n;
}

/* All items: scored where they lie, then filtered. */
static size_t scan_all(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws,
                       const struct sieve *f, struct retrieve_hit *hit, bool *late)
{
    uint32_t idx[BLOCK], n_items = b->items->n, d = b->manifest.d;
    float score[BLOCK];
    size_t n = 0;
    for (uint32_t at = 0; at < n_items && !*late; at += BLOCK) {
        uint32_t m = n_items - at < BLOCK ? n_items - at : BLOCK, kept = 0;
        best_scores(b, ws, b->emb + (size_t)at * d, NULL, m, score);
        for (uint32_t i = 0; i < m; i++)
            if (sieve_passes(f, at + i)) {
                idx[kept] = at + i;
                score[kept++] = score[i];
            }
        n = offer_all(q, idx, score, kept, hit, n);
        *late = at / BLOCK % BLOCKS_A_LOOK == BLOCKS_A_LOOK - 1 && is_late(q);
    }
    best_sort(hit, n);
    return n;
}

static size_t most_popular(const struct bundle *b, const struct retrieve_query *q, const struct sieve *f,
                           struct retrieve_hit *hit)
{
    const struct items *it = b->items;
    double sum = it->popularity_sum ? (double)it->popularity_sum : 1;
    size_t n = 0;
    for (uint32_t i = 0; i < it->n && n < q->k; i++)
        if (sieve_passes(f, it->by_popularity[i])) {
            uint32_t item = it->by_popularity[i];
            hit[n++] = (struct retrieve_hit){.item_idx = item, .score = (float)(it->popularity[item] / sum)};
        }
    return n;
}

static bool grow_found(struct retrieve_ws *ws, size_t k, struct err *err)
{
    if (k <= ws->found_cap)
        return true;
    struct hnsw_hit *grown = mem_grow(ws->found, k, sizeof(*grown), err);
    if (!grown)
        return false;
    ws->found = grown;
    ws->found_cap = k;
    return true;
}

static bool search_graph(const struct bundle *b, const struct hnsw_query *query, struct retrieve_ws *ws, size_t *n, struct err *err)
{
    struct hnsw_err e = {0};
    *n = hnsw_search_multi(b->hnsw, ws->p, ws->n_p, query, ws->hnsw, ws->found, &e);
    return e.code == HNSW_OK || err_set(err, e.code == HNSW_NOMEM ? ERR_NOMEM : ERR_ARG, "search: %s", e.msg);
}

/* Hits of the query's vectors. A filter costs the fast layout and a call for each candidate, a third of a search; where few items
 * are dropped, asking for that many more and leaving them out afterwards is as good. Measured (100,000 items, d = 32,
 * AVX-512): k = 100, ef = 200: 27 us without any dropped, 38 to 40 us with 1 to 10 by filter and 27 to 28 us this way;
 * 50: 44 and 36; 100: 50 and 54. Recall is the same or better. So up to a quarter of ef. */
static bool walk(const struct bundle *b, const struct hnsw_query *query, const struct sieve *f, struct retrieve_ws *ws,
                 struct retrieve_hit *hit, size_t *n, struct err *err)
{
    struct hnsw_query more = *query;
    size_t found;
    bool drop_later = !f->filters && !query->has_min_score && f->n_dropped > 0 && f->n_dropped <= query->ef / 4;
    if (drop_later) {
        more.k += f->n_dropped;
        more.ef += f->n_dropped;
        more.filter = NULL;
    }
    if (!grow_found(ws, more.k, err) || !search_graph(b, &more, ws, &found, err))
        return false;
    *n = 0;
    for (size_t i = 0; i < found && *n < query->k; i++)
        if (!drop_later || !sieve_drops(f, (uint32_t)ws->found[i].label))
            hit[(*n)++] = (struct retrieve_hit){.item_idx = (uint32_t)ws->found[i].label, .score = ws->found[i].score};
    return true;
}

/* Exact scores where a walk gave none, and by them the order, which was right but for last digits, and the bound. Returns how many
 * stay. */
static size_t rescore(const struct bundle *b, const struct hnsw_query *query, const struct retrieve_ws *ws,
                      struct retrieve_hit *hit, size_t n)
{
    uint32_t idx[BLOCK];
    float score[BLOCK];
    size_t kept = 0;
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t some = n - i < BLOCK ? n - i : BLOCK;
        for (size_t j = 0; j < some; j++)
            idx[j] = hit[i + j].item_idx;
        best_scores(b, ws, b->emb, idx, some, score);
        for (size_t j = 0; j < some; j++) {
            size_t at = kept;
            if (query->has_min_score && score[j] < query->min_score)
                continue;
            for (; at > 0 &&
                   (hit[at - 1].score < score[j] || (hit[at - 1].score == score[j] && hit[at - 1].item_idx > idx[j]));
                 at--)
                hit[at] = hit[at - 1];
            hit[at] = (struct retrieve_hit){.item_idx = idx[j], .score = score[j]};
            kept++;
        }
    }
    return kept;
}

struct exactly {
    const struct bundle *b;
    const struct retrieve_ws *ws;
};

/* hnsw_query.score: of the items that a walk ends with. Asking for all their vectors at once, or for their ids, brings nothing:
 * as many misses are under way already as the core has room for. */
static void score_exactly(const void *ctx, const uint64_t *label, size_t n, float *score)
{
    const struct exactly *x = ctx;
    uint32_t idx[BLOCK];
    for (size_t from = 0, some; from < n; from += some) {
        some = n - from < BLOCK ? n - from : BLOCK;
        for (size_t i = 0; i < some; i++)
            idx[i] = (uint32_t)label[from + i];
        best_scores(x->b, x->ws, x->b->emb, idx, some, score + from);
    }
}

/* The compact layout rounds scores: with it, a bound is first a little lower, and hits are scored exactly, by the walk or
 * after it, so that answers are the same from every layout. */
static bool search_vectors(const struct bundle *b, const struct hnsw_query *query, const struct sieve *f, struct retrieve_ws *ws,
                           struct retrieve_hit *hit, size_t *n, struct err *err)
{
    const struct exactly by = {b, ws};
    struct hnsw_query lower = *query;
    if (b->layout != HNSW_COMPACT)
        return walk(b, query, f, ws, hit, n, err);
    lower.min_score -= 1e-4f * (1 + fabsf(lower.min_score));
    lower.score = score_exactly;
    lower.score_ctx = &by;
    if (!walk(b, &lower, f, ws, hit, n, err))
        return false;
    if (!query->report->scored)
        *n = rescore(b, query, ws, hit, *n);
    while (query->has_min_score && *n > 0 && hit[*n - 1].score < query->min_score)
        (*n)--;
    return true;
}

static bool search_index(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws,
                         const struct sieve *f, struct retrieve_hit *hit, struct retrieve_result *r, struct err *err)
{
    size_t k = q->k < b->items->n ? q->k : b->items->n, ef = q->ef < k ? k : q->ef;
    struct hnsw_report report = {0};
    struct hnsw_query query = {.k = k,
                               .ef = ef,
                               .filter = f->n_dropped ? passes_label : NULL,
                               .filter_ctx = f,
                               .allow = f->filters ? f->allowed : NULL,
                               .n_allow = b->items->n,
                               .has_min_score = q->has_min_score,
                               .min_score = q->min_score,
                               .deadline_ns = q->deadline_ns,
                               .plan = q->exact ? HNSW_PLAN_SCAN : HNSW_PLAN_WALK, // what ef brings was measured of walks
                               .report = &report};
    bool ok = search_vectors(b, &query, f, ws, hit, &r->n, err);
    r->late = report.cut == HNSW_CUT_DEADLINE;
    if (!r->exact_used)
        r->ef_used = ef;
    return ok;
}

/* Is scanning the allowed items cheaper than walking the graph past the others? See the top of this file. */
static bool scan_is_cheaper(const struct bundle *b, const struct retrieve_query *q, const struct sieve *f)
{
    double ef = (double)(q->ef < q->k ? q->k : q->ef), n = (double)f->n_allowed;
    return n * n <= ef * WALK_STEP * (double)b->items->n;
}

static bool search(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws,
                   const struct sieve *f, struct retrieve_hit *hit, struct retrieve_result *r, struct err *err)
{
    if (r->fallback == FALLBACK_POPULAR) {
        r->n = most_popular(b, q, f, hit);
        return true;
    }
    r->exact_used = q->exact || (f->filters && scan_is_cheaper(b, q, f));
    bool by_codes = q->exact && !f->filters && ws->n_p == 1 && b->layout == HNSW_FAST; // half the time of scan_all
    if (!r->exact_used || by_codes)
        return search_index(b, q, ws, f, hit, r, err);
    r->n = (f->filters ? scan_allowed : scan_all)(b, q, ws, f, hit, &r->late);
    return true;
}

static bool check_query(const struct bundle *b, const struct retrieve_query *q, struct err *err)
{
    if (q->k < 1 || q->k > RETRIEVE_K_MAX)
        return err_set(err, ERR_ARG, "k: found %zu, want 1 to %d", q->k, RETRIEVE_K_MAX);
    if (q->target_recall != 0 && !(q->target_recall >= 0.5 && q->target_recall <= 1))
        return err_set(err, ERR_ARG, "target_recall: found %g, want 0.5 to 1", q->target_recall);
    if (q->has_min_score && !isfinite(q->min_score))
        return err_set(err, ERR_ARG, "min_score: not finite");
    for (size_t i = 0; i < q->n_exclude; i++)
        if (q->exclude[i] >= b->items->n)
            return err_set(err, ERR_ARG, "exclude: item %u, there are %u", q->exclude[i], b->items->n);
    for (size_t i = 0; i < q->n_include; i++)
        if (q->include[i] >= b->items->n)
            return err_set(err, ERR_ARG, "include: item %u, there are %u", q->include[i], b->items->n);
    for (size_t i = 0; i < q->n_category; i++)
        if (q->category[i] >= b->items->category.n)
            return err_set(err, ERR_ARG, "category: row %u, there are %u", q->category[i], b->items->category.n);
    for (size_t i = 0; i < q->n_not_category; i++)
        if (q->not_category[i] >= b->items->category.n)
            return err_set(err, ERR_ARG, "not_category: row %u, there are %u", q->not_category[i], b->items->category.n);
    if (q->bounds && !bounds_check(b, q, err))
        return false;
    return !q->filter || filter_check(q->filter, b->items, err);
}

/* How far to search: q->ef and q->exact as they follow from the target. What nobody asked for never becomes a scan. */
static bool set_breadth(const struct bundle *b, struct retrieve_query *q, struct err *err)
{
    const struct bundle_manifest *m = &b->manifest;
    double target = q->target_recall > 0 ? q->target_recall : m->target_recall;
    size_t k = q->k < b->items->n ? q->k : b->items->n;
    if (q->exact || q->ef)
        return true;
    enum calibration_answer a =
        target > 0 ? calibration_ef(&m->calibration, b->layout, k, target, &q->ef) : CALIBRATION_NONE;
    if (a == CALIBRATION_EF)
        return true;
    if (a == CALIBRATION_NONE && q->target_recall > 0)
        return err_set(err, ERR_ARG, "target_recall: the bundle has no calibration for the %s layout; give ef",
                       bundle_layout_name(b->layout));
    q->exact = q->target_recall > 0;
    q->ef = m->default_ef;
    return true;
}

bool retrieve_select(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws,
                     struct retrieve_hit *hit, struct retrieve_result *r, struct err *err)
{
    if (!sieve_set(&ws->sieve, b, q, err))
        return false;
    r->late = is_late(q);
    bool ok = r->late || search(b, q, ws, &ws->sieve, hit, r, err);
    sieve_clear(&ws->sieve, b, q);
    return ok;
}

bool retrieve_topk(const struct bundle *b, const struct retrieve_query *query, struct retrieve_ws *ws,
                   struct retrieve_hit *hit, struct retrieve_result *r, struct err *err)
{
    uint64_t start = retrieve_now_ns(), shared = 0;
    struct retrieve_query own = *query;
    const struct retrieve_query *q = &own;
    *r = (struct retrieve_result){0};
    if (!check_query(b, q, err))
        return false;
    own.k = q->bounds ? bounds_fetch(q->k) : q->k; // what searches will ask for: ef follows from it
    if (!set_breadth(b, &own, err))
        return false;
    own.k = query->k;
    if (q->embedded) {
        if (!take_embedded(b, q->embedded, ws, r, err))
            return false;
        shared = r->embed_ns;
    } else if (!embed(b, q, ws, r, err)) {
        return false;
    }
    uint64_t embedded = retrieve_now_ns();
    r->n_vectors = r->fallback == FALLBACK_POPULAR ? 0 : ws->n_p;
    bool ok = (q->bounds ? bounds_select : retrieve_select)(b, q, ws, hit, r, err);
    r->embed_ns = embedded - start + shared;
    r->search_ns = retrieve_now_ns() - embedded;
    return ok;
}

bool retrieve_score(const struct bundle *b, const struct retrieve_query *q, const uint32_t *item, size_t n,
                    struct retrieve_ws *ws, float *score, struct retrieve_result *r, struct err *err)
{
    uint64_t start = retrieve_now_ns();
    const struct items *it = b->items;
    *r = (struct retrieve_result){.exact_used = true};
    for (size_t i = 0; i < n; i++)
        if (item[i] >= it->n)
            return err_set(err, ERR_ARG, "item %u, there are %u", item[i], it->n);
    if (!embed(b, q, ws, r, err))
        return false;
    uint64_t embedded = retrieve_now_ns();
    r->n = n;
    r->n_vectors = r->fallback == FALLBACK_POPULAR ? 0 : ws->n_p;
    double sum = it->popularity_sum ? (double)it->popularity_sum : 1;
    if (r->fallback == FALLBACK_POPULAR)
        for (size_t i = 0; i < n; i++)
            score[i] = (float)(it->popularity[item[i]] / sum);
    for (size_t i = 0; i < n && r->n_vectors; i += BLOCK)
        best_scores(b, ws, b->emb, item + i, n - i < BLOCK ? n - i : BLOCK, score + i);
    r->embed_ns = embedded - start;
    r->search_ns = retrieve_now_ns() - embedded;
    return true;
}
