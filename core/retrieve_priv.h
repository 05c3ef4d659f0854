/* retrieve_priv.h - what retrieve.c, retrieve_batch.c and bounds.c share. */
#ifndef DUET_RETRIEVE_PRIV_H
#define DUET_RETRIEVE_PRIV_H

#include <time.h>

#include "core/bounds.h"
#include "core/retrieve.h"
#include "core/sieve.h"

#define RETRIEVE_K_MAX 10000

struct retrieve_many; // retrieve_batch.c: room for a batch, made by the first
void retrieve_many_free(struct retrieve_many *m); // NULL is fine

struct retrieve_ws {
    struct tower_ws *tower;
    struct hnsw_ws *hnsw;
    uint32_t *x;                 // [n_slots]
    float *a;                    // [d_aug]
    float *p;                    // [n_interest][d]
    size_t n_p;                  // query vectors in p
    bool needs_tower;            // x and a are set, p is what the tower makes of them
    float *fold;                 // scratch of stored_from_history
    struct sieve sieve;
    struct hnsw_hit *found; // [found_cap]
    size_t found_cap;
    struct retrieve_many *many;
    struct bounds_ws bounds;
};

static inline uint64_t retrieve_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The ladder: ws->p, or ws->x and ws->a for the tower (needs_tower). Sets r's fallback and unknown features. */
bool retrieve_prepare(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws,
                      struct retrieve_result *r, struct err *err);

/* The top k for ws->p of a checked query, whatever its bounds. r has the fallback; n, late, ef_used and exact_used are set. */
bool retrieve_select(const struct bundle *b, const struct retrieve_query *q, struct retrieve_ws *ws,
                     struct retrieve_hit *hit, struct retrieve_result *r, struct err *err);

#endif
