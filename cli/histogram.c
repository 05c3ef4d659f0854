#include "cli/histogram.h"

/* Below 2^BITS each value has a bucket; above, each octave has 2^BITS:
 *
 *     v = 1 b b b b b b b x x x     the leading one and BITS bits behind it are kept, `shift` bits x are not */
static unsigned index_of(uint64_t v)
{
    if (v < 1u << HISTOGRAM_BITS)
        return (unsigned)v;
    unsigned shift = 63u - (unsigned)__builtin_clzll(v) - HISTOGRAM_BITS;
    return (shift << HISTOGRAM_BITS) + (unsigned)(v >> shift);
}

static uint64_t upper_end(unsigned i)
{
    if (i < 2u << HISTOGRAM_BITS)
        return i;
    unsigned shift = (i >> HISTOGRAM_BITS) - 1;
    uint64_t head = (i & ((1u << HISTOGRAM_BITS) - 1)) + (1u << HISTOGRAM_BITS);
    return (head << shift) + ((1ull << shift) - 1);
}

void histogram_add(struct histogram *h, uint64_t v)
{
    h->bucket[index_of(v)]++;
    h->n++;
    h->sum += (double)v;
    if (v > h->max)
        h->max = v;
}

void histogram_merge(struct histogram *h, const struct histogram *other)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        h->bucket[i] += other->bucket[i];
    h->n += other->n;
    h->sum += other->sum;
    if (other->max > h->max)
        h->max = other->max;
}

uint64_t histogram_quantile(const struct histogram *h, double q)
{
    uint64_t seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && h->n; i++) {
        seen += h->bucket[i];
        if (seen > 0 && (double)seen >= q * (double)h->n)
            return upper_end(i) < h->max ? upper_end(i) : h->max;
    }
    return h->max;
}

double histogram_mean(const struct histogram *h)
{
    return h->n ? h->sum / (double)h->n : 0;
}
