#include "server/effort.h"

#include <math.h>

#include "core/bounds.h"
#include "core/calibration.h"

/* As many as the first search asks for. */
static size_t searched_k(const struct bundle *b, const struct retrieve_query *rq)
{
    size_t k = rq->bounds ? bounds_fetch(rq->k) : rq->k;
    return k < b->items->n ? k : b->items->n;
}

size_t effort_full(const struct bundle *b, const struct retrieve_query *rq)
{
    const struct bundle_manifest *m = &b->manifest;
    double target = rq->target_recall > 0 ? rq->target_recall : m->target_recall;
    size_t k = searched_k(b, rq), ef = rq->ef;
    if (rq->exact)
        return 0;
    if (!ef && (target <= 0 || calibration_ef(&m->calibration, b->layout, k, target, &ef) != CALIBRATION_EF)) {
        if (rq->target_recall > 0)
            return 0; // beyond the curve: a scan; without one: an error
        ef = m->default_ef;
    }
    return ef > k ? ef : k;
}

size_t effort_lower(const struct bundle *b, const struct retrieve_query *rq, float share, struct retrieve_query *less)
{
    if (share <= 0 || share >= 1)
        return 0;
    size_t full = effort_full(b, rq), k = searched_k(b, rq), ef = (size_t)ceilf(share * (float)full);
    ef = ef > k ? ef : k;
    if (ef >= full)
        return 0;
    *less = *rq;
    less->ef = ef;
    less->target_recall = 0;
    return full;
}
