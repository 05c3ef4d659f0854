/* agreement.h - how far two rankings agree: what shadow variants are compared by.
 * overlap  = items that are in both / length of the longer one; 1 for two empty ones.
 * rbo      = rank-biased overlap, extrapolated (Webber, Moffat, Zobel 2010, eq. 32) with p = AGREEMENT_P, to the depth of the longer one:
 *            X_D / D p^D + (1 - p) / p sum_{d <= D} X_d / d p^d, where X_d items are among the first d of both. The first ten ranks have
 *            86 % of its weight.
 * drift    = mean of |score in b - score in a| over the items of both; 0 without any.
 * Threads: each caller has its own scratch. */
#ifndef DUET_SERVER_AGREEMENT_H
#define DUET_SERVER_AGREEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/retrieve.h"

#define AGREEMENT_P 0.9

struct agreement {
    double overlap, rbo, drift;
    size_t n_common;
};

struct agreement_scratch {
    struct agreement_place *place; // [cap] b by item
    size_t cap;
    uint32_t *complete; // [cap_complete] common items that are complete at a depth
    size_t cap_complete;
};
void agreement_scratch_fini(struct agreement_scratch *s);

/* Items of both in the same numbering; an item of `a` that b's side does not know is STRTAB_NONE, and in no other ranking. No item twice
 * in one. False: out of memory. */
bool agreement_of(const struct retrieve_hit *a, size_t n_a, const struct retrieve_hit *b, size_t n_b, struct agreement_scratch *s,
                  struct agreement *out);

#endif
