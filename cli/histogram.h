/* histogram.h - how often each latency was seen, with 128 steps an octave: any quantile within 0.8 %, from nanoseconds
 * to hours, in one fixed block. (The idea is HdrHistogram's: a value's leading bits choose the bucket.) */
#ifndef DUET_CLI_HISTOGRAM_H
#define DUET_CLI_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BITS 7
#define HISTOGRAM_BUCKETS ((65 - HISTOGRAM_BITS) << HISTOGRAM_BITS)

struct histogram { // zeroed is empty
    uint64_t n, max, bucket[HISTOGRAM_BUCKETS];
    double sum;
};

void histogram_add(struct histogram *h, uint64_t v);
void histogram_merge(struct histogram *h, const struct histogram *other);
/* The smallest bucket's upper end that has a share q of all values at or below it, at most the maximum; 0 if empty. */
uint64_t histogram_quantile(const struct histogram *h, double q);
double histogram_mean(const struct histogram *h);

#endif
