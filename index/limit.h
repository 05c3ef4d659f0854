/* limit.h - what one search may still do: scores to compute, and time.
 * A search asks before it scores; that is one addition and one comparison with the count at which something has to be
 * decided, be it that the last score was given out or that the clock is to be looked at again. */
#ifndef HNSW_LIMIT_H
#define HNSW_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "index/hnsw.h"

struct limit {
    size_t visited, max;  // scores given out; SIZE_MAX = no maximum
    size_t stop;          // past this count: hnsw_limit_decide
    uint64_t deadline_ns; // CLOCK_MONOTONIC; 0 = none
    enum hnsw_cut cut;    // why nothing more is given out
};

struct limit hnsw_limit_none(void);
struct limit hnsw_limit_of(const struct hnsw_query *p);
size_t hnsw_limit_decide(struct limit *l, size_t n);
bool hnsw_limit_late(struct limit *l); // looks at the clock now, if there is a deadline; true: cut

/* May n more be scored? Returns how many of them; fewer than n means that the search is cut. */
static inline size_t limit_take(struct limit *l, size_t n)
{
    if (l->visited + n > l->stop)
        return hnsw_limit_decide(l, n);
    l->visited += n;
    return n;
}

/* All n or none. */
static inline bool limit_take_all(struct limit *l, size_t n)
{
    size_t got = limit_take(l, n);
    l->visited -= got < n ? got : 0;
    return got == n;
}

#endif
