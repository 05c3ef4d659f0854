/* limit.c - see limit.h. */
#include <time.h>

#include "index/hnsw_priv.h"

/* Scores between two looks at the clock, each 25 to 50 ns: 10 to 50 us of a walk, less of a scan. */
#define LOOK_EVERY 1024

struct limit hnsw_limit_none(void)
{
    return (struct limit){.max = SIZE_MAX, .stop = SIZE_MAX};
}

struct limit hnsw_limit_of(const struct hnsw_query *p)
{
    struct limit l = hnsw_limit_none();
    l.deadline_ns = p->deadline_ns;
    if (p->max_visits)
        l.stop = l.max = p->max_visits;
    if (p->deadline_ns)
        l.stop = 0; // looks before the first score
    return l;
}

bool hnsw_limit_late(struct limit *l)
{
    struct timespec t;
    if (l->cut || !l->deadline_ns)
        return l->cut != HNSW_CUT_NONE;
    clock_gettime(CLOCK_MONOTONIC, &t);
    if ((uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec >= l->deadline_ns)
        l->cut = HNSW_CUT_DEADLINE;
    return l->cut != HNSW_CUT_NONE;
}

size_t hnsw_limit_decide(struct limit *l, size_t n)
{
    if (hnsw_limit_late(l))
        return 0;
    size_t left = l->max - l->visited;
    if (n > left) {
        l->cut = HNSW_CUT_VISITS;
        n = left;
    }
    l->visited += n;
    l->stop = l->deadline_ns && LOOK_EVERY < l->max - l->visited ? l->visited + LOOK_EVERY : l->max;
    return n;
}
