/* scan.c - what does an exact answer cost, one query at a time and in batches, beside a walk?
 *
 *   bench_scan FILE [k] [ef] [rounds]
 *
 * The file is one of hnsw_save; queries are sums of two of its vectors. The three ways take turns, over the fast and the compact layout.
 * Figures: bench/results.md. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/util.h"
#include "index/hnsw.h"

enum { WALK, SCAN, BATCH, WAYS, MAX_ROUNDS = 101 };

struct work {
    struct hnsw *h;
    struct hnsw_ws *ws;
    float *q; // [nq][dim]
    size_t nq, *found;
    struct hnsw_hit *hit; // [nq][k]
    struct hnsw_query p;
};

static void need(bool ok, const char *why)
{
    if (ok)
        return;
    fprintf(stderr, "scan: %s\n", why);
    exit(1);
}

/* CPU microseconds a query. */
static double run(struct work *w, int way)
{
    struct hnsw_err err = {0};
    size_t dim = hnsw_dim(w->h);
    w->p.plan = way == WALK ? HNSW_PLAN_WALK : HNSW_PLAN_SCAN;
    double start = bench_seconds(CLOCK_THREAD_CPUTIME_ID);
    if (way == BATCH)
        hnsw_search_batch(w->h, w->q, w->nq, &w->p, w->ws, w->hit, w->found, &err);
    for (size_t i = 0; way != BATCH && i < w->nq; i++)
        w->found[i] = hnsw_search(w->h, w->q + i * dim, &w->p, w->ws, w->hit + i * w->p.k, &err);
    double us = (bench_seconds(CLOCK_THREAD_CPUTIME_ID) - start) * 1e6 / (double)w->nq;
    need(err.code == HNSW_OK, err.msg);
    return us;
}

static void make_queries(struct work *w)
{
    size_t dim = hnsw_dim(w->h), n = hnsw_count(w->h);
    uint64_t *label = calloc(n, sizeof(*label));
    float *a = calloc(2 * dim, sizeof(*a)), *b = a ? a + dim : NULL;
    w->nq = n < 20000 ? 1000 : 20000000 / n < 40 ? 40 : 20000000 / n;
    w->q = calloc(w->nq * dim, sizeof(*w->q));
    w->found = calloc(w->nq, sizeof(*w->found));
    w->hit = calloc(w->nq * w->p.k, sizeof(*w->hit));
    need(label && a && w->q && w->found && w->hit, "out of memory");
    hnsw_labels(w->h, label);
    for (size_t i = 0; i < w->nq; i++) {
        hnsw_get_vector(w->h, label[i * 7919 % n], a);
        hnsw_get_vector(w->h, label[(i * 104729 + 5) % n], b);
        for (size_t j = 0; j < dim; j++)
            w->q[i * dim + j] = a[j] + 0.25f * b[j];
    }
    free(label);
    free(a);
}

int main(int argc, char **argv)
{
    static double us[WAYS][MAX_ROUNDS];
    struct hnsw_err err = {0};
    struct work w = {.ws = hnsw_ws_new()};
    size_t rounds = argc > 4 ? strtoul(argv[4], NULL, 10) : 5;
    w.p.k = argc > 2 ? strtoul(argv[2], NULL, 10) : 100;
    w.p.ef = argc > 3 ? strtoul(argv[3], NULL, 10) : 100;
    if (argc < 2 || w.p.k < 1 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: %s FILE [k] [ef] [rounds]\n", argv[0]);
        return 2;
    }
    need((w.h = hnsw_load(argv[1], &err)) && w.ws, err.msg);
    make_queries(&w);
    printf("%zu elements, k %zu, ef %zu, CPU us a query\n| layout | walk | scan | batch |\n|---|---|---|---|\n", hnsw_count(w.h), w.p.k, w.p.ef);
    for (int layout = HNSW_FAST; layout <= HNSW_COMPACT; layout++) {
        need(hnsw_optimize(w.h, (enum hnsw_layout)layout, 2, &err), err.msg);
        for (size_t r = 0; r < rounds; r++)
            for (int way = 0; way < WAYS; way++)
                us[way][r] = run(&w, way);
        printf("| %s | %.1f | %.1f | %.1f |\n", hnsw_layout_name((enum hnsw_layout)layout), bench_median(us[WALK], rounds),
               bench_median(us[SCAN], rounds), bench_median(us[BATCH], rounds));
    }
    free(w.q);
    free(w.hit);
    free(w.found);
    hnsw_ws_free(w.ws);
    hnsw_free(w.h);
    return 0;
}
