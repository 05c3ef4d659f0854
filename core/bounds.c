/* The maxima by over-fetching: search for more than k, take by score whatever its category still has room for. If that gives fewer than k
 * and there are more items, some categories are full; search again for twice as many without those. Each round fills at least
 * one more category, gives k items, or comes to the end of the items, so it ends; mostly one is enough.
 *
 *     found   F1 F2 F3 H1 F4 F5 M1 ..     F at most 2, k = 4: F1 F2 H1 M1
 *
 * The minima afterwards: a category that has too few gets its own best, found by a search of that category alone, in place of
 * the worst items whose categories can spare them. That is the same as setting the minima aside first: what gives way is what would
 * not have been taken with fewer places to fill. */
#include "core/bounds.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/mem.h"
#include "core/best.h"
#include "core/retrieve_priv.h"

struct job {
    const struct bundle *b;
    const struct retrieve_query *q;
    struct retrieve_ws *ws;
    struct bounds_ws *w;
    struct retrieve_hit *hit; // [n] so far
    size_t n;
    struct retrieve_result *r;
    struct err *err;
};

void bounds_fini(struct bounds_ws *w)
{
    free(w->count);
    free(w->found);
    *w = (struct bounds_ws){0};
}

size_t bounds_fetch(size_t k)
{
    return 2 * k < RETRIEVE_K_MAX ? 2 * k : RETRIEVE_K_MAX;
}

bool bounds_check(const struct bundle *b, const struct retrieve_query *q, struct err *err)
{
    const struct retrieve_bounds *x = q->bounds;
    size_t sum = 0;
    for (size_t i = 0; i < x->n_rules; i++) {
        const struct retrieve_category *c = &x->rule[i];
        if (c->category >= b->items->category.n)
            return err_set(err, ERR_ARG, "bounds: category %u, there are %u", c->category, b->items->category.n);
        for (size_t j = 0; j < i; j++)
            if (x->rule[j].category == c->category)
                return err_set(err, ERR_ARG, "bounds: category %u is there twice", c->category);
        if (c->min > c->max)
            return err_set(err, ERR_ARG, "bounds: at least %zu and at most %zu of one category", c->min, c->max);
        if (c->min > q->k - sum)
            return err_set(err, ERR_ARG, "bounds: the minima are more than k = %zu", q->k);
        sum += c->min;
    }
    return true;
}

static uint32_t category_of(const struct job *j, struct retrieve_hit h)
{
    return j->b->items->category_of[h.item_idx];
}

static bool prepare(struct job *j)
{
    struct bounds_ws *w = j->w;
    const struct retrieve_bounds *x = j->q->bounds;
    size_t n = j->b->items->category.n;
    if (!w->count && !(w->count = mem_array(4 * n, sizeof(*w->count), j->err)))
        return false;
    w->min = w->count, w->max = w->min + n, w->taken = w->max + n, w->full = w->taken + n;
    w->n_full = 0;
    uint32_t each = x->max_each < j->q->k ? (uint32_t)x->max_each : (uint32_t)j->q->k;
    for (size_t c = 0; c < n; c++) {
        w->min[c] = w->taken[c] = 0;
        w->max[c] = each;
    }
    for (size_t i = 0; i < x->n_rules; i++) {
        w->min[x->rule[i].category] = (uint32_t)x->rule[i].min;
        w->max[x->rule[i].category] = x->rule[i].max < j->q->k ? (uint32_t)x->rule[i].max : (uint32_t)j->q->k;
    }
    for (uint32_t c = 0; c < n; c++)
        if (w->max[c] == 0)
            w->full[w->n_full++] = c;
    return true;
}

/* Into w->found, *n of them; what the answer says about its search is the first one's. */
static bool find(struct job *j, const struct retrieve_query *q, bool first, size_t *n)
{
    struct bounds_ws *w = j->w;
    struct retrieve_result res = *j->r;
    if (w->cap_found < q->k) {
        struct retrieve_hit *grown = mem_grow(w->found, q->k, sizeof(*grown), j->err);
        if (!grown)
            return false;
        w->found = grown;
        w->cap_found = q->k;
    }
    res.n = 0;
    if (!retrieve_select(j->b, q, j->ws, w->found, &res, j->err))
        return false;
    *n = res.n;
    bool late = j->r->late || res.late;
    if (first)
        *j->r = res;
    j->r->late = late;
    return true;
}

// ------------------------------------------------------------------------------------------------------- maxima

static void take(struct job *j, size_t n_found)
{
    struct bounds_ws *w = j->w;
    for (size_t i = 0; i < n_found && j->n < j->q->k; i++) {
        uint32_t c = category_of(j, w->found[i]);
        if (w->taken[c] == w->max[c])
            continue;
        j->hit[j->n++] = w->found[i];
        if (++w->taken[c] == w->max[c])
            w->full[w->n_full++] = c;
    }
}

/* Only the full categories' items stay: the next search will find the others again. */
static void keep_full(struct job *j)
{
    struct bounds_ws *w = j->w;
    size_t kept = 0;
    for (size_t i = 0; i < j->n; i++) {
        uint32_t c = category_of(j, j->hit[i]);
        if (w->taken[c] == w->max[c])
            j->hit[kept++] = j->hit[i];
    }
    j->n = kept;
    for (size_t c = 0; c < j->b->items->category.n; c++)
        if (w->taken[c] < w->max[c])
            w->taken[c] = 0;
}

static bool fill(struct job *j)
{
    struct retrieve_query q = *j->q;
    size_t found;
    q.k = bounds_fetch(j->q->k);
    for (bool first = true;; first = false) {
        uint32_t *full = j->w->full;
        q.not_category = full;
        q.n_not_category = j->w->n_full;
        if (!find(j, &q, first, &found))
            return false;
        take(j, found);
        if (j->n == j->q->k || found < q.k || j->r->late)
            return true;
        keep_full(j);
        q.k = bounds_fetch(q.k);
    }
}

// ------------------------------------------------------------------------------------------------------- minima

/* Takes out this category, and the worst that others can spare, until there is room for n more. hit is sorted. */
static void make_room(struct job *j, uint32_t category, size_t n)
{
    struct bounds_ws *w = j->w;
    size_t room = j->q->k - j->n + w->taken[category], kept = j->n;
    for (size_t i = j->n; i-- > 0;) {
        uint32_t c = category_of(j, j->hit[i]);
        bool spare = c != category && room < n && w->taken[c] > w->min[c];
        if (!spare && c != category)
            continue;
        w->taken[c]--;
        room += spare;
        memmove(j->hit + i, j->hit + i + 1, (--kept - i) * sizeof(*j->hit));
    }
    j->n = kept;
}

static bool asked_for(const struct retrieve_query *q, uint32_t category)
{
    bool found = q->n_category == 0;
    for (size_t i = 0; i < q->n_category; i++)
        found = found || q->category[i] == category;
    return found;
}

/* The best of one category in place of what there is of it. */
static bool raise_one(struct job *j, const struct retrieve_category *c)
{
    struct retrieve_query q = *j->q;
    size_t found;
    q.k = c->min;
    q.category = &c->category;
    q.n_category = 1;
    if (!find(j, &q, false, &found))
        return false;
    if (found <= j->w->taken[c->category]) // there are no more, or the time is up
        return true;
    best_sort(j->hit, j->n);
    make_room(j, c->category, found);
    memcpy(j->hit + j->n, j->w->found, found * sizeof(*j->hit));
    j->n += found;
    j->w->taken[c->category] = (uint32_t)found;
    return true;
}

bool bounds_select(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws, struct retrieve_hit *hit,
                   struct retrieve_result *r, struct err *err)
{
    struct job j = {.b = b, .q = q, .ws = ws, .w = &ws->bounds, .hit = hit, .r = r, .err = err};
    if (!prepare(&j) || !fill(&j))
        return false;
    for (size_t i = 0; i < q->bounds->n_rules && !r->late; i++) {
        const struct retrieve_category *c = &q->bounds->rule[i];
        if (j.w->taken[c->category] < c->min && asked_for(q, c->category) && !raise_one(&j, c))
            return false;
    }
    best_sort(hit, j.n);
    r->n = j.n;
    return true;
}
