/* query_bounds.c - how many items of a category an answer may have: `max_per_category`, and `categories` for some of them. */
#include <stdio.h>
#include <string.h>

#include "server/query_priv.h"

static bool read_bound(struct wire *w, const struct query_limits *lim, uint64_t *out)
{
    if (!wire_uint(w, out))
        return false;
    return *out <= lim->k || wire_fail(w, 422, "limit_exceeded", "%llu items, at most %llu are allowed (limits.k)",
                                       (unsigned long long)*out, (unsigned long long)lim->k);
}

static bool read_category(struct query_category *c, struct wire *w, const struct query_limits *lim)
{
    static const char *const known[] = {"min", "max"};
    bool has_min = false;
    struct str key;
    if (!wire_enter_object(w))
        return false;
    while (wire_next_key(w, &key)) {
        bool is_min = query_same(key, "min", 3);
        if (!is_min && !query_same(key, "max", 3))
            return query_unknown_field(w, key, known, 2);
        if (is_min ? has_min : c->has_max)
            return query_duplicate(w, key);
        has_min = has_min || is_min;
        c->has_max = c->has_max || !is_min;
        if (!read_bound(w, lim, is_min ? &c->min : &c->max))
            return false;
    }
    return wire_ok(w);
}

bool query_read_categories(struct query *q, struct wire *w, const struct query_limits *lim)
{
    struct str key;
    if (!wire_enter_object(w))
        return false;
    while (wire_next_key(w, &key)) {
        if (q->n_categories == QUERY_CATEGORIES_MAX)
            return wire_fail(w, 422, "limit_exceeded", "more than %d categories", QUERY_CATEGORIES_MAX);
        for (size_t i = 0; i < q->n_categories; i++)
            if (query_same(q->category[i].name, key.p, key.n))
                return query_duplicate(w, key);
        struct query_category *c = &q->category[q->n_categories++];
        *c = (struct query_category){.name = key};
        if (!read_category(c, w, lim))
            return false;
    }
    return wire_ok(w);
}

static bool refuse(struct wire_error *e, const char *pointer, const char *what, uint64_t found, uint64_t most)
{
    snprintf(e->pointer, sizeof(e->pointer), "%s", pointer);
    return query_refuse(e, 400, "invalid_value", "%s %llu, want at most %llu", what, (unsigned long long)found,
                        (unsigned long long)most);
}

bool query_resolve_bounds(struct query *q, const struct items *it, size_t k, const struct retrieve_bounds **out,
                          struct wire_error *e)
{
    uint64_t each = q->max_per_category ? q->max_per_category : SIZE_MAX, sum = 0;
    q->bounds = (struct retrieve_bounds){.max_each = (size_t)each, .rule = q->rule};
    for (size_t i = 0; i < q->n_categories; i++) {
        const struct query_category *c = &q->category[i];
        uint64_t max = c->has_max ? c->max : each;
        uint32_t row = strtab_find(&it->category_index, c->name.p, c->name.n);
        if (c->min > max)
            return refuse(e, "/categories", "a category's maximum is below its minimum: found a min of", c->min, max);
        if ((sum += c->min) > k)
            return refuse(e, "/categories", "the minima are more than k: found together", sum, k);
        if (row == STRTAB_NONE)
            q->unknown_categories++;
        else
            q->rule[q->bounds.n_rules++] = (struct retrieve_category){row, (size_t)c->min, (size_t)max};
    }
    *out = q->has_bounds ? &q->bounds : NULL;
    return true;
}
