/* curve.c - see curve.h. */
#include <math.h>
#include <stdlib.h>

#include "bench/ann/curve.h"

static double log_misses(double recall)
{
    return log(fmax(1 - recall, 1e-6));
}

static int by_recall(const void *a, const void *b)
{
    const struct curve_point *x = a, *y = b;
    return x->recall != y->recall ? (x->recall > y->recall) - (x->recall < y->recall) : (x->qps < y->qps) - (x->qps > y->qps);
}

double curve_qps(struct curve_point *pt, size_t n, double recall)
{
    double best = NAN;
    qsort(pt, n, sizeof(*pt), by_recall);
    for (size_t i = 0; i < n; i++) {
        if (pt[i].recall < recall)
            continue;
        best = fmax(best, pt[i].qps); // fmax leaves NAN out
        if (i > 0 && pt[i - 1].recall < recall) {
            double from = log_misses(pt[i - 1].recall), to = log_misses(pt[i].recall);
            double part = from == to ? 1 : (from - log_misses(recall)) / (from - to);
            best = fmax(best, exp(log(pt[i - 1].qps) * (1 - part) + log(pt[i].qps) * part));
        }
    }
    return best;
}
