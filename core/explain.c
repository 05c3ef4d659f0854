#include "core/explain.h"

#include <string.h>

const char *const explain_rule_name[EXPLAIN_RULES] = {"exclude_ids", "exclude_seen", "include_ids", "filter",
                                                      "min_score", "max_per_category", "categories"};

struct task {
    const struct bundle *b;
    const struct retrieve_query *q;
    struct retrieve_ws *ws;
    struct retrieve_hit *hit;
    struct err *err;
    bool late;
    bool belongs;      // into the exact answer
    uint32_t last;     // of the exact answer, and its rank before the bounds
    size_t last_rank;
    size_t n_category; // items of the item's category in the exact answer
};

static size_t rank_of(const struct retrieve_hit *hit, size_t n, uint32_t item)
{
    for (size_t i = 0; i < n; i++)
        if (hit[i].item_idx == item)
            return i + 1;
    return 0;
}

/* The query without rules. */
static struct retrieve_query bare(const struct retrieve_query *q)
{
    struct retrieve_query p = *q;
    p.exclude_seen = p.has_include = p.has_min_score = false;
    p.n_exclude = p.n_category = 0;
    p.filter = NULL;
    p.bounds = NULL;
    p.exact = true;
    return p;
}

/* The rules one by one, each over this item alone. */
static bool find_rules(struct task *t, uint32_t item, bool *dropped)
{
    for (int rule = 0; rule < EXPLAIN_MAX_EACH; rule++) {
        struct retrieve_query p = bare(t->q);
        struct retrieve_result r;
        p.k = 1;
        p.has_include = true;
        p.include = &item;
        p.n_include = 1;
        if (rule == EXPLAIN_EXCLUDE_IDS)
            p.n_exclude = t->q->n_exclude;
        else if (rule == EXPLAIN_SEEN)
            p.exclude_seen = t->q->exclude_seen;
        else if (rule == EXPLAIN_FILTER)
            p.filter = t->q->filter, p.n_category = t->q->n_category;
        else if (rule == EXPLAIN_MIN_SCORE)
            p.has_min_score = t->q->has_min_score;
        if (!retrieve_topk(t->b, &p, t->ws, t->hit, &r, t->err))
            return false;
        t->late = t->late || r.late;
        dropped[rule] = r.n == 0;
        if (rule == EXPLAIN_INCLUDE_IDS && t->q->has_include) {
            dropped[rule] = true;
            for (size_t i = 0; i < t->q->n_include; i++)
                if (t->q->include[i] == item)
                    dropped[rule] = false;
        }
    }
    return true;
}

/* The exact answer itself, with the bounds. */
static bool find_exact(struct task *t, uint32_t item, struct explanation *out)
{
    struct retrieve_query p = *t->q;
    struct retrieve_result r;
    p.exact = true;
    if (!retrieve_topk(t->b, &p, t->ws, t->hit, &r, t->err))
        return false;
    t->late = t->late || r.late;
    t->belongs = rank_of(t->hit, r.n, item) > 0;
    t->last = r.n ? t->hit[r.n - 1].item_idx : item;
    for (size_t i = 0; i < r.n; i++)
        t->n_category += t->b->items->category_of[t->hit[i].item_idx] == t->b->items->category_of[item];
    out->has_kth = r.n >= p.k;
    out->kth_score = out->has_kth ? t->hit[p.k - 1].score : 0;
    return true;
}

static bool find_ranks(struct task *t, uint32_t item, struct explanation *out)
{
    struct retrieve_query all = bare(t->q), ruled = *t->q;
    struct retrieve_result r;
    all.k = ruled.k = EXPLAIN_RANKS;
    ruled.exact = true;
    ruled.bounds = NULL;
    if (!retrieve_topk(t->b, &all, t->ws, t->hit, &r, t->err))
        return false;
    out->exact_rank_any = rank_of(t->hit, r.n, item);
    t->late = t->late || r.late;
    if (!retrieve_topk(t->b, &ruled, t->ws, t->hit, &r, t->err))
        return false;
    out->exact_rank = rank_of(t->hit, r.n, item);
    t->last_rank = rank_of(t->hit, r.n, t->last);
    t->late = t->late || r.late;
    return true;
}

/* An item that all other rules let through was kept from the exact answer by the bounds if that has room left, or an item in it that
 * ranks below: without bounds it would have come first. */
static void name_bounds(const struct task *t, uint32_t item, struct explanation *out)
{
    const struct retrieve_bounds *x = t->q->bounds;
    bool behind = out->has_kth && t->last_rank && t->last_rank < out->exact_rank;
    size_t i = 0;
    if (t->belongs || behind || out->exact_rank == 0)
        return;
    while (i < x->n_rules && x->rule[i].category != t->b->items->category_of[item])
        i++;
    size_t max = i < x->n_rules ? x->rule[i].max : x->max_each;
    bool by_each = t->n_category >= max && max == x->max_each; // a rule without a maximum of its own has that of each
    out->dropped[by_each ? EXPLAIN_MAX_EACH : EXPLAIN_CATEGORIES] = true;
}

static bool find_ef(struct task *t, uint32_t item, size_t ef_max, struct explanation *out)
{
    struct retrieve_query p = *t->q;
    struct retrieve_result r;
    for (p.ef = 2 * out->result.ef_used; p.ef <= ef_max && out->ef_needed == 0 && !t->late; p.ef *= 2) {
        if (!retrieve_topk(t->b, &p, t->ws, t->hit, &r, t->err))
            return false;
        t->late = r.late;
        if (rank_of(t->hit, r.n, item))
            out->ef_needed = p.ef;
    }
    return true;
}

bool explain_item(const struct bundle *b, const struct retrieve_query *q, uint32_t item, size_t ef_max,
                  struct retrieve_ws *ws, struct retrieve_hit *hit, struct explanation *out, struct err *err)
{
    struct task t = {.b = b, .q = q, .ws = ws, .hit = hit, .err = err};
    struct retrieve_result scored;
    memset(out, 0, sizeof(*out));
    if (!retrieve_score(b, q, &item, 1, ws, &out->score, &scored, err) ||
        !retrieve_topk(b, q, ws, hit, &out->result, err))
        return false;
    out->rank = rank_of(hit, out->result.n, item);
    t.late = out->result.late;
    if (!find_rules(&t, item, out->dropped) || !find_exact(&t, item, out) || !find_ranks(&t, item, out))
        return false;
    if (q->bounds)
        name_bounds(&t, item, out);
    out->missed = out->result.ef_used && out->rank == 0 && t.belongs;
    bool ok = !out->missed || find_ef(&t, item, ef_max, out);
    out->result.late = t.late;
    return ok;
}
