/* filter.h - which items may be returned: an expression over attributes, evaluated to a bit set.
 * Form:    nodes in prefix order, each before its children. A leaf is a condition on one attribute, all of whose parts must hold.
 * Place:   server/query.c makes them, retrieve.c evaluates them. Evaluation allocates only while the scratch grows.
 * Threads: all const but the scratch. */
#ifndef DUET_FILTER_H
#define DUET_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/items.h"

#define FILTER_NODES_MAX 64
#define FILTER_DEPTH_MAX 16

enum filter_op { FILTER_LEAF, FILTER_AND, FILTER_OR, FILTER_NOT };

struct filter_node {
    enum filter_op op;
    size_t n_children;          // AND, OR: any number (none: all, nothing); NOT: 1
    // a leaf:
    int facet;                  // of items->facet, see items_facet
    bool has_in, has_not_in, has_lo, has_hi, lo_open, hi_open;
    const struct str *in, *not_in; // [n_in], [n_not_in] values as text; "" = no value; numbers match as numbers where the attribute has them
    size_t n_in, n_not_in;
    double lo, hi;              // of a numeric attribute; items without a number are outside
};

struct filter_expr {
    const struct filter_node *node; // [n]
    size_t n;
};

/* Every rule of the form: counts, depth, facets. ERR_ARG. */
bool filter_check(const struct filter_expr *e, const struct items *it, struct err *err);

/* Values that no item has: they match nothing. */
size_t filter_unknown_values(const struct filter_expr *e, const struct items *it);

struct filter_scratch {
    uint64_t *bits; // [n_slots][facet_words]
    size_t n_slots;
};
void filter_scratch_fini(struct filter_scratch *s);

/* The matching items of a checked expression: [facet_words(it->n)] in the scratch, until it is used again. NULL without memory. */
uint64_t *filter_eval(const struct filter_expr *e, const struct items *it, struct filter_scratch *s, struct err *err);

#endif
