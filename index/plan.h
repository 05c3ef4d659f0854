/* plan.h - which way to an answer: walk the graph, or score everything that may be returned.
 * Costs are in nanoseconds of one core of the machine that bench/results.md tells of ("Scan or walk"); only their ratios matter. */
#ifndef HNSW_PLAN_H
#define HNSW_PLAN_H

#include "index/hnsw.h"

struct plan {
    bool scan;       // rather than walk
    bool by_allowed; // a scan goes over the bits of `allow`, not over the elements
};

struct plan hnsw_plan_of(const struct hnsw *h, const struct hnsw_query *p, size_t ef);

#endif
