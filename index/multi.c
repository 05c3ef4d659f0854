/* multi.c - one search by several query vectors: an element's score is its best over them.
 * An element of the answer is among the best k of the vector that scores it best, so the union of every vector's best k
 * holds the answer, as far as each search finds its own; each of the union is then scored by all vectors. */
#include <stdlib.h>
#include <string.h>

#include "index/hnsw_priv.h"

static int by_label_then_score(const void *a, const void *b)
{
    const struct hnsw_hit *x = a, *y = b;
    if (x->label != y->label)
        return x->label < y->label ? -1 : 1;
    return x->score > y->score ? -1 : x->score < y->score;
}

/* Each label once. */
static size_t unite(struct hnsw_hit *hit, size_t n)
{
    size_t kept = 0;
    qsort(hit, n, sizeof(*hit), by_label_then_score);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || hit[kept - 1].label != hit[i].label)
            hit[kept++] = hit[i];
    return kept;
}

/* The best of all vectors' scores: one that did not find an element may yet score it best. */
static void score_by_all(const struct hnsw *h, const float *q, size_t nq, struct hnsw_ws *ws, struct hnsw_hit *hit, size_t n)
{
    for (size_t v = 0; v < nq; v++) {
        const float *query = hnsw_prepared_query(h, q + v * h->dim, ws);
        for (size_t i = 0, some; i < n; i += some) {
            some = n - i < ROW_MAX ? n - i : ROW_MAX;
            for (size_t j = 0; j < some; j++)
                ws->id[j] = hnsw_place_of(h, hit[i + j].label);
            score_ids(h, query, ws->id, some, ws->score);
            for (size_t j = 0; j < some; j++)
                hit[i + j].score = ws->score[j] > hit[i + j].score ? ws->score[j] : hit[i + j].score;
        }
    }
}

size_t hnsw_search_multi(const struct hnsw *h, const float *q, size_t nq, const struct hnsw_query *p, struct hnsw_ws *ws,
                         struct hnsw_hit *hit, struct hnsw_err *err)
{
    struct hnsw_err local = {0};
    struct hnsw_report one, all = {.exact = true};
    struct hnsw_query each = *p;
    size_t k = p->k < h->n ? p->k : h->n, n = 0;
    each.report = &one;
    each.score = NULL; // it would be of one of the vectors
    if (nq == 1)
        return hnsw_search(h, q, p, ws, hit, err);
    if (nq == 0) {
        hnsw_fail(err, HNSW_ARG, "search: no query vector");
        return 0;
    }
    if (k > 0 && !hnsw_grow_array((void **)&ws->many, &ws->many_cap, nq * k, sizeof(*ws->many))) {
        hnsw_fail(err, HNSW_NOMEM, "search: no memory for %zu hits", nq * k);
        return 0;
    }
    for (size_t v = 0; v < nq; v++) {
        one = (struct hnsw_report){0};
        n += hnsw_search(h, q + v * h->dim, &each, ws, ws->many + n, &local);
        if (local.code) {
            hnsw_fail(err, local.code, "%s", local.msg);
            return 0;
        }
        all.visited += one.visited;
        all.rescored += one.rescored;
        all.plan = all.plan == HNSW_PLAN_SCAN ? all.plan : one.plan;
        all.exact = all.exact && one.exact;
        all.cut = all.cut ? all.cut : one.cut;
    }
    if (p->report)
        *p->report = all;
    n = unite(ws->many, n);
    score_by_all(h, q, nq, ws, ws->many, n);
    hnsw_hits_sort(ws->many, n);
    n = n < k ? n : k;
    if (n)
        memcpy(hit, ws->many, n * sizeof(*hit));
    return n;
}
