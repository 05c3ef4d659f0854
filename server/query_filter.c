/* query_filter.c - the `filter` of a request: read into nodes in prefix order, then resolved against one bundle's
 * attributes. */
#include <stdio.h>
#include <string.h>

#include "server/query_priv.h"

static const char *const known[] = {"field", "in", "not_in", "gte", "gt", "lte", "lt", "and", "or", "not"};
enum { K_FIELD, K_IN, K_NOT_IN, K_GTE, K_GT, K_LTE, K_LT, K_AND, K_OR, K_NOT, K_N };

// ------------------------------------------------------------------------------------------------------- reading

struct reader {
    struct query *q;
    struct wire *w;
    const struct query_limits *lim;
};

static bool read_node(struct reader *r, size_t parent, size_t child);

static bool read_bound(struct reader *r, bool open, bool *has, bool *is_open, double *v)
{
    if (*has)
        return wire_fail(r->w, 400, "invalid_value", "two bounds on the same side");
    *has = true;
    *is_open = open;
    return wire_double(r->w, v);
}

static bool read_list(struct reader *r, bool *has, struct query_list *out)
{
    *has = true;
    return query_read_strings(r->q, r->w, true, r->lim->ids, out);
}

static bool read_children(struct reader *r, size_t self)
{
    size_t n = 0;
    if (!wire_enter_array(r->w))
        return false;
    while (wire_next_item(r->w))
        if (!read_node(r, self, n++))
            return false;
    r->q->filter[self].n_children = n;
    return wire_ok(r->w);
}

static bool read_part(struct reader *r, size_t self, int key)
{
    struct query_filter *f = &r->q->filter[self]; // an array of the query's: it does not move
    switch (key) {
    case K_FIELD:
        return wire_string(r->w, &f->field);
    case K_IN:
        return read_list(r, &f->has_in, &f->in);
    case K_NOT_IN:
        return read_list(r, &f->has_not_in, &f->not_in);
    case K_GTE:
    case K_GT:
        return read_bound(r, key == K_GT, &f->has_lo, &f->lo_open, &f->lo);
    case K_LTE:
    case K_LT:
        return read_bound(r, key == K_LT, &f->has_hi, &f->hi_open, &f->hi);
    case K_AND:
    case K_OR:
        f->op = key == K_AND ? FILTER_AND : FILTER_OR;
        return read_children(r, self);
    default:
        f->op = FILTER_NOT;
        f->n_children = 1;
        return read_node(r, self, 0);
    }
}

/* After the last member: one operator alone, or a field with at least one condition. */
static bool check_whole(struct reader *r, size_t self, unsigned seen)
{
    const struct query_filter *f = &r->q->filter[self];
    unsigned operators = seen >> K_AND, rest = seen & ((1u << K_AND) - 1);
    if (operators && (rest || (operators & (operators - 1))))
        return wire_fail(r->w, 400, "invalid_value", "'and', 'or' and 'not' stand alone in their object");
    if (!operators && !f->field.p)
        return wire_fail(r->w, 400, "invalid_value", "'field' is missing; or want 'and', 'or' or 'not'");
    if (!operators && rest == 1u << K_FIELD)
        return wire_fail(r->w, 400, "invalid_value", "no condition, want 'in', 'not_in', 'gte', 'gt', 'lte' or 'lt'");
    return true;
}

static bool read_node(struct reader *r, size_t parent, size_t child)
{
    struct str key;
    unsigned seen = 0;
    if (r->q->n_filter == FILTER_NODES_MAX)
        return wire_fail(r->w, 422, "limit_exceeded", "a filter of more than %d nodes", FILTER_NODES_MAX);
    size_t self = r->q->n_filter++;
    r->q->filter[self] = (struct query_filter){.parent = parent, .child = child};
    if (!wire_enter_object(r->w))
        return false;
    while (wire_next_key(r->w, &key)) {
        int k = 0;
        while (k < K_N && !query_same(key, known[k], strlen(known[k])))
            k++;
        if (k == K_N)
            return query_unknown_field(r->w, key, known, K_N);
        if (seen & 1u << k)
            return query_duplicate(r->w, key);
        seen |= 1u << k;
        if (!read_part(r, self, k))
            return false;
    }
    return wire_ok(r->w) && check_whole(r, self, seen);
}

bool query_read_node(struct query *q, struct wire *w, const struct query_limits *lim, size_t child)
{
    struct reader r = {q, w, lim};
    return read_node(&r, 0, child);
}

bool query_read_filter(struct query *q, struct wire *w, const struct query_limits *lim)
{
    return query_read_node(q, w, lim, 0);
}

// ------------------------------------------------------------------------------------------------------- resolving

/* "/filter/and/1/not", then `tail`. Returns the length. */
static size_t point_at(const struct query *q, size_t self, const char *tail, char *out, size_t cap)
{
    const struct query_filter *f = &q->filter[self], *up = &q->filter[f->parent];
    char own[48];
    if (self == 0)
        return (size_t)snprintf(out, cap, "/filter%s", tail);
    if (up->op == FILTER_NOT)
        snprintf(own, sizeof(own), "/not");
    else
        snprintf(own, sizeof(own), "/%s/%zu", up->op == FILTER_AND ? "and" : "or", f->child);
    size_t n = point_at(q, f->parent, own, out, cap);
    return n < cap ? n + (size_t)snprintf(out + n, cap - n, "%s", tail) : n;
}

static bool unknown_attribute(const struct query *q, size_t self, const struct items *it, struct wire_error *e)
{
    const char *names[ITEM_ATTRS_MAX + 1] = {"category"};
    struct str field = q->filter[self].field;
    for (uint32_t a = 0; a < it->n_attrs; a++)
        names[a + 1] = it->attr[a].name;
    const char *near = query_nearest(field, names, it->n_attrs + 1);
    point_at(q, self, "/field", e->pointer, sizeof(e->pointer));
    return query_refuse(e, 422, "unknown_attribute", "items have no attribute '%.*s'%s%s%s", query_shown(field),
                        field.p, near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static bool resolve_leaf(struct query *q, size_t self, const struct items *it, struct wire_error *e)
{
    const struct query_filter *f = &q->filter[self];
    int facet = items_facet(it, f->field.p, f->field.n);
    if (facet < 0)
        return unknown_attribute(q, self, it, e);
    if ((f->has_lo || f->has_hi) && !it->facet[facet].number) {
        point_at(q, self, "", e->pointer, sizeof(e->pointer));
        return query_refuse(e, 422, "filter_unsupported", "attribute '%.*s' has no numbers, a range cannot hold",
                            query_shown(f->field), f->field.p);
    }
    q->filter_node[self] = (struct filter_node){.op = FILTER_LEAF,
                                                .facet = facet,
                                                .has_in = f->has_in,
                                                .has_not_in = f->has_not_in,
                                                .has_lo = f->has_lo,
                                                .has_hi = f->has_hi,
                                                .lo_open = f->lo_open,
                                                .hi_open = f->hi_open,
                                                .in = q->str + f->in.first,
                                                .not_in = q->str + f->not_in.first,
                                                .n_in = f->in.n,
                                                .n_not_in = f->not_in.n,
                                                .lo = f->lo,
                                                .hi = f->hi};
    return true;
}

bool query_resolve_filter(struct query *q, const struct items *it, const struct filter_expr **out, struct wire_error *e)
{
    *out = NULL;
    for (size_t i = 0; i < q->n_filter; i++)
        if (q->filter[i].op != FILTER_LEAF)
            q->filter_node[i] = (struct filter_node){.op = q->filter[i].op, .n_children = q->filter[i].n_children};
        else if (!resolve_leaf(q, i, it, e))
            return false;
    if (q->n_filter == 0)
        return true;
    q->filter_expr = (struct filter_expr){q->filter_node, q->n_filter};
    q->unknown_filter = filter_unknown_values(&q->filter_expr, it);
    *out = &q->filter_expr;
    return true;
}
