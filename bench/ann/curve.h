/* curve.h - a system's recall and speed over its settings of ef, and what lies between the settings.
 * Systems are compared at equal recall, not at equal ef: the same ef is another recall in another graph. */
#ifndef ANN_CURVE_H
#define ANN_CURVE_H

#include <stddef.h>

struct curve_point {
    double recall; // 0 .. 1
    double qps;
};

/* Queries per second with at least this recall. Between two points, log qps is taken as linear in the logarithm of the misses,
 * log(1 - recall), in which measured curves are nearly straight; a recall of 1 counts as one miss in a million. A point of higher
 * recall than asked for counts as it is where nothing faster lies between. NAN if no point reaches the recall.
 *   pt  [n] in any order; sorted by recall afterwards */
double curve_qps(struct curve_point *pt, size_t n, double recall);

#endif
