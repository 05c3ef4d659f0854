/* scan.h - exact search over int8 codes: all are scored by code, and only what may still be among the best k is scored by its vector.
 *
 * Of a query and a vector, with code c, step and low of each dimension (fast.h), t the query's int8 and s its scale:
 *
 *     <q, v> = K + s <t, c> + error,    |error| <= E = 127.5 sum |r_j| + 0.5 sum |w_j| (+ what float arithmetic rounds)
 *     w_j = q_j step_j,  r_j = w_j - s t_j,  K = <q, low> + 127.5 sum r_j
 *
 * so what is 2 E below the k-th best by code cannot be among the best k: the answer is that of scoring everything. */
#ifndef HNSW_SCAN_H
#define HNSW_SCAN_H

#include "index/hnsw.h"
#include "index/limit.h"

struct hnsw_ws;

/* As hnsw_flat, for an index with the fast layout; q is prepared, ws fits. False: no memory. */
bool hnsw_scan(const struct hnsw *h, const float *q, const struct hnsw_query *p, struct hnsw_ws *ws, struct hnsw_hit *hit, size_t *found);

#endif
