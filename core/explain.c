#include "core/explain.h"

#include <string.h>

const char *const explain_rule_name[EXPLAIN_RULES] = {"exclude_ids", "exclude_seen", "include_ids", "filter",
                                                      "min_score"};

struct task {
    const struct bundle *b;
    const struct retrieve_query *q;
    struct retrieve_ws *ws;
    struct retrieve_hit *hit;
    struct err *err;
    bool late;
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
    p.exact = true;
    return p;
}

/* The rules one by one, each over this item alone. */
static bool find_rules(struct task *t, uint32_t item, bool *dropped)
{
    for (int rule = 0; rule < EXPLAIN_RULES; rule++) {
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

static bool find_ranks(struct task *t, uint32_t item, struct explanation *out)
{
    struct retrieve_query all = bare(t->q), ruled = *t->q;
    struct retrieve_result r;
    all.k = ruled.k = EXPLAIN_RANKS;
    ruled.exact = true;
    if (!retrieve_topk(t->b, &all, t->ws, t->hit, &r, t->err))
        return false;
    out->exact_rank_any = rank_of(t->hit, r.n, item);
    t->late = t->late || r.late;
    if (!retrieve_topk(t->b, &ruled, t->ws, t->hit, &r, t->err))
        return false;
    out->exact_rank = rank_of(t->hit, r.n, item);
    t->late = t->late || r.late;
    out->has_kth = r.n >= t->q->k;
    out->kth_score = out->has_kth ? t->hit[t->q->k - 1].score : 0;
    return true;
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
    if (!find_rules(&t, item, out->dropped) || !find_ranks(&t, item, out))
        return false;
    out->missed = out->result.ef_used && out->rank == 0 && out->exact_rank >= 1 && out->exact_rank <= q->k;
    bool ok = !out->missed || find_ef(&t, item, ef_max, out);
    out->result.late = t.late;
    return ok;
}
