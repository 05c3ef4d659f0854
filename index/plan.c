/* plan.c - see plan.h. */
#include <math.h>

#include "index/hnsw_priv.h"

#define SAMPLE_WORDS 1024

/* About how many bits are set: counted in at most SAMPLE_WORDS words, evenly spread. */
static double count_allowed(const struct hnsw_query *p)
{
    size_t words = p->n_allow / 64, step = words / SAMPLE_WORDS + 1, seen = 0, set = 0; // what is beyond the last whole word is few
    for (size_t i = 0; i < words; i += step, seen++)
        for (uint64_t w = p->allow[i]; w; w &= w - 1)
            set++;
    return seen ? (double)set / (double)seen * (double)words : (double)p->n_allow;
}

static bool by_upper_bytes(const struct hnsw *h)
{
    return h->compact && h->compact->coarse;
}

/* Under a filter the bar rises late, and what is above it is asked for. */
static double scan_ns(const struct hnsw *h, double k, bool filtered)
{
    double n = (double)h->n, slow = filtered ? 2.6 : 1;
    if (h->fast)
        return slow * n + 80 * k + 10 * sqrt(n * k);
    if (by_upper_bytes(h))
        return slow * 1.6 * n + 90 * k + 15 * sqrt(n * k);
    return (h->compact ? 5.5 : 9) * n + 60 * k;
}

/* By the bits: looking at the words, and each element a miss. */
static double allowed_ns(const struct hnsw *h, double allowed, double k)
{
    return (double)h->n / 64 + 15 * allowed + 60 * k;
}

static double walk_ns(const struct hnsw *h, double k, double ef)
{
    double far = fmax(log10((double)h->n + 1) - 3, 0); // how much is out of the caches
    if (h->fast)
        return 2000 + 2500 * far + (45 + 30 * far) * ef + 85 * (1.25 * k + 16);
    if (by_upper_bytes(h) && h->n_removed == 0)
        return 4000 + (50 + 55 * far) * ef + 60 * (1.25 * k + 16);
    return 2000 + (150 + 160 * far) * ef;
}

/* A walk that may return one in so many looks at so many times as many, of which it goes by the graph itself. */
static double filtered_walk_ns(const struct hnsw *h, double ef, double share)
{
    double far = fmax(log10((double)h->n + 1) - 3, 0);
    return 2000 + (150 + 160 * far) * ef / fmax(share, 1e-9);
}

struct plan hnsw_plan_of(const struct hnsw *h, const struct hnsw_query *p, size_t ef)
{
    struct plan plan = {0};
    double k = (double)(p->k < h->n ? p->k : h->n), n = (double)hnsw_count(h), scan = scan_ns(h, k, p->allow || p->filter);
    double walk = walk_ns(h, k, (double)ef);
    if (p->allow) {
        double allowed = fmin(count_allowed(p), n), by_bits = allowed_ns(h, allowed, k);
        plan.by_allowed = by_bits < scan;
        scan = fmin(scan, by_bits);
        walk = filtered_walk_ns(h, (double)ef, n > 0 ? allowed / n : 1);
    } else if (p->filter) {
        walk = 0; // who knows how many it lets through: the walk's budget sees to it
    }
    plan.scan = p->plan == HNSW_PLAN_AUTO ? scan < walk : p->plan == HNSW_PLAN_SCAN;
    return plan;
}
