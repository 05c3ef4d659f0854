/* bounds.h - the top k with at least and at most so many items of a category.
 * Means:   the best `min` items of each category that has a minimum, as many as pass the query's other rules; then, by score, all other
 *          items whose category has not reached its maximum, until there are k. Best first, ties by item_idx.
 * Place:   retrieve_topk calls it for queries with bounds; it searches by retrieve_select, several times if need be.
 * Threads: as a workspace. */
#ifndef DUET_BOUNDS_H
#define DUET_BOUNDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/bundle.h"

struct retrieve_query;
struct retrieve_ws;
struct retrieve_hit;
struct retrieve_result;

/* Zeroed, it grows when first used. */
struct bounds_ws {
    uint32_t *count;            // [4][n_categories], owns the four below
    uint32_t *min, *max;        // of each category
    uint32_t *taken;            // items of it in the answer
    uint32_t *full;             // [n_full] categories that have reached their maximum
    size_t n_full;
    struct retrieve_hit *found; // [cap_found] of one search
    size_t cap_found;
};
void bounds_fini(struct bounds_ws *w);

/* Categories there are, min <= max, minima together at most k. ERR_ARG. */
bool bounds_check(const struct bundle *b, const struct retrieve_query *q, struct err *err);

size_t bounds_fetch(size_t k); // how many items the first search of a query for k asks for

/* As retrieve_select, with q->bounds. */
bool bounds_select(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws, struct retrieve_hit *hit,
                   struct retrieve_result *r, struct err *err);

#endif
