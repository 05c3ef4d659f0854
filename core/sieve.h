/* sieve.h - which items a query lets into its answer: included, of its categories, let through by its filter, neither seen nor excluded.
 * Place:   retrieve.c sets one for each query, its ways of searching ask it.
 * Threads: one caller's; allocates only while the filter's scratch grows. */
#ifndef DUET_SIEVE_H
#define DUET_SIEVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"
#include "core/bundle.h"
#include "core/filter.h"

struct retrieve_query;

struct sieve {
    uint64_t *dropped;    // bit set: must not be returned; all 0 between queries
    uint64_t *allowed;    // bit set: may be, unless dropped; holds if `filters`
    bool filters;
    size_t n_allowed;     // all items unless `filters`
    size_t n_dropped;     // at most: an item may be named twice, or not allowed anyway
    struct filter_scratch filter;
};

bool sieve_init(struct sieve *s, const struct items *it, struct err *err); // fini accepts zeroed and half-built
void sieve_fini(struct sieve *s);

/* For one checked query, until it is cleared with the same. On failure it is clear. */
bool sieve_set(struct sieve *s, const struct bundle *b, const struct retrieve_query *q, struct err *err);
void sieve_clear(struct sieve *s, const struct bundle *b, const struct retrieve_query *q);

static inline bool sieve_drops(const struct sieve *s, uint32_t i)
{
    return s->dropped[i >> 6] >> (i & 63) & 1;
}
static inline bool sieve_passes(const struct sieve *s, uint32_t i)
{
    return !sieve_drops(s, i) && (!s->filters || (s->allowed[i >> 6] >> (i & 63) & 1));
}

/* If `filters`: the next items that pass, at most max >= 64, ascending; *word, of `words`, moves on from 0. */
size_t sieve_next(const struct sieve *s, size_t words, size_t *word, size_t max, uint32_t *idx);

#endif
