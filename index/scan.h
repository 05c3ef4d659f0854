/* scan.h - exact search over codes of 8 bits: all are scored by code, and only what may still be among the best k is scored exactly.
 * The codes are the fast layout's, or the upper bytes of the compact one's (IP and COSINE, where those tell vectors apart).
 *
 * Of a query and a vector, with code c, step and low of each dimension (fast.h; compact.h: step 256 times that of the whole codes),
 * t the query's int8 and s its scale:
 *
 *     <q, v> = K + s <t, c> + error,    |error| <= E = 127.5 sum |r_j| + 0.5 sum |w_j| (+ what float arithmetic rounds)
 *     w_j = q_j step_j,  r_j = w_j - s t_j,  K = <q, low> + 127.5 sum r_j
 *
 * so what is 2 E below the k-th best by code cannot be among the best k: the answer is that of scoring everything.
 *
 * A million codes of 32 dimensions are more than the caches hold, and fetching them takes longer than scoring them: several queries go
 * over each block of codes together. */
#ifndef HNSW_SCAN_H
#define HNSW_SCAN_H

#include "index/hnsw.h"
#include "index/limit.h"

#define SCAN_GROUP 8 // queries that go over the codes together: bench/results.md, "Scan or walk"

struct hnsw_ws;

/* Of one query of a group. */
struct scan_room {
    float *query; // [query_cap] a copy, as prepared
    size_t query_cap;
    int8_t *code; // the query's
    size_t code_cap;
    uint64_t *key; // [cap] what may be among the best
    size_t cap;
    size_t rescored; // of the last scan, see struct hnsw_report
};

void hnsw_scan_room_fini(struct scan_room *r);
bool hnsw_scan_has_codes(const struct hnsw *h);

/* A prepared query to the room of the group's i-th; its copy, or NULL: no memory. */
const float *hnsw_scan_query(const struct hnsw *h, struct hnsw_ws *ws, size_t i, const float *q);

/* As hnsw_flat, for an index with codes: q [nq] prepared, nq <= SCAN_GROUP; hit [nq][p->k], found [nq]; ws fits. The limit counts the
 * scores of one query. False: no memory. */
bool hnsw_scan(const struct hnsw *h, const float *const *q, size_t nq, const struct hnsw_query *p, struct hnsw_ws *ws,
               struct hnsw_hit *hit, size_t *found);

#endif
