/* filtered.c - what does a filter cost, and what does it find? A bit set lets through a random share of the elements; the way that
 * hnsw_search chooses, the walk that it may be forced to, and exact search take turns.
 *
 *   bench_filtered [n] [rounds]
 *
 * n clustered unit vectors of 32 dimensions, k = 100, ef = 150, one thread, each layout. Figures: bench/results.md. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/util.h"
#include "index/hnsw.h"

enum { DIM = 32, NQ = 200, K = 100, EF = 150, MAX_ROUNDS = 101, WAYS = 3 };

static const char *const way_name[WAYS] = {"chosen", "walk", "exact"};

static void need(bool ok, const struct hnsw_err *err)
{
    if (ok)
        return;
    fprintf(stderr, "filtered: %s\n", err->msg);
    exit(1);
}

struct work {
    const struct hnsw *h;
    const float *q;
    const uint64_t *allow;
    size_t n;
    struct hnsw_ws *ws;
    struct hnsw_hit *hit[WAYS]; // [NQ][K]
    size_t found[WAYS][NQ];
    bool scanned; // the chosen way
};

/* CPU microseconds a query. */
static double run(struct work *w, size_t way)
{
    struct hnsw_err err = {0};
    struct hnsw_report r = {0};
    struct hnsw_query p = {.k = K, .ef = EF, .allow = w->allow, .n_allow = w->n, .report = &r};
    p.plan = way == 1 ? HNSW_PLAN_WALK : HNSW_PLAN_AUTO;
    double start = bench_seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (size_t i = 0; i < NQ; i++)
        w->found[way][i] = (way == 2 ? hnsw_search_exact : hnsw_search)(w->h, w->q + i * DIM, &p, w->ws, w->hit[way] + i * K, &err);
    double us = (bench_seconds(CLOCK_PROCESS_CPUTIME_ID) - start) * 1e6 / NQ;
    need(err.code == HNSW_OK, &err);
    if (way == 0)
        w->scanned = r.exact;
    return us;
}

/* Of the exact answer, as far as it scores. */
static double recall(const struct work *w, size_t way)
{
    size_t same = 0, all = 0;
    for (size_t i = 0; i < NQ; i++) {
        size_t n = w->found[2][i];
        for (size_t j = 0; j < w->found[way][i]; j++)
            same += n > 0 && w->hit[way][i * K + j].score >= w->hit[2][i * K + n - 1].score;
        all += n;
    }
    return all ? (double)same / (double)all : 1;
}

static void measure(struct work *w, const char *layout, double share, size_t rounds)
{
    double us[WAYS][MAX_ROUNDS];
    for (size_t r = 0; r < rounds; r++)
        for (size_t way = 0; way < WAYS; way++)
            us[way][r] = run(w, way);
    printf("| %s | %g %% |", layout, share * 100);
    for (size_t way = 0; way < WAYS; way++)
        printf(" %.0f us, %.4f%s |", bench_median(us[way], rounds), recall(w, way), way == 0 ? w->scanned ? " (scan)" : " (walk)" : "");
    printf("\n");
    for (size_t i = 0; i < NQ; i++)
        if (w->found[0][i] != w->found[2][i] || w->found[1][i] != w->found[2][i]) {
            fprintf(stderr, "filtered: query %zu: %zu and %zu hits, exact search has %zu\n", i, w->found[0][i], w->found[1][i], w->found[2][i]);
            exit(1);
        }
}

int main(int argc, char **argv)
{
    static const double share[] = {0.5, 0.1, 0.01, 0.001};
    static const enum hnsw_layout layout[] = {HNSW_PLAIN, HNSW_FAST, HNSW_COMPACT};
    size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 200000, rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 5;
    if (n < 1000 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "filtered: want bench_filtered [n from 1000] [rounds up to %d]\n", MAX_ROUNDS);
        return 2;
    }
    float *v = bench_vectors(n, DIM, 1), *q = bench_vectors(NQ, DIM, 2);
    uint64_t *allow = calloc(n / 64 + 1, sizeof(*allow));
    struct hnsw_params params = {.metric = HNSW_IP, .dim = DIM, .capacity = n, .ef_construction = 120, .seed = 1};
    struct hnsw_err err = {0};
    struct hnsw *h = hnsw_new(&params, &err);
    need(h && hnsw_add_batch(h, v, NULL, n, 2, NULL, NULL, &err), &err);
    free(v);
    struct work w = {.h = h, .q = q, .allow = allow, .n = n, .ws = hnsw_ws_new()};
    for (size_t way = 0; way < WAYS; way++)
        w.hit[way] = calloc((size_t)NQ * K, sizeof(*w.hit[way]));
    need(allow && w.ws && w.hit[0] && w.hit[1] && w.hit[2], &(struct hnsw_err){.msg = "out of memory"});
    printf("%zu elements, k %d, ef %d: CPU us a query, recall\n\n| layout | share |", n, K, EF);
    for (size_t way = 0; way < WAYS; way++)
        printf(" %s |", way_name[way]);
    printf("\n|---|---|---|---|---|\n");
    for (size_t l = 0; l < sizeof(layout) / sizeof(layout[0]); l++) {
        need(hnsw_optimize(h, layout[l], 2, &err), &err);
        for (size_t s = 0; s < sizeof(share) / sizeof(share[0]); s++) {
            uint64_t seed = 3;
            memset(allow, 0, (n / 64 + 1) * sizeof(*allow));
            for (size_t i = 0; i < n; i++)
                allow[i / 64] |= (uint64_t)(bench_uniform(&seed) < (float)share[s]) << i % 64;
            measure(&w, hnsw_layout_name(layout[l]), share[s], rounds);
        }
    }
    for (size_t way = 0; way < WAYS; way++)
        free(w.hit[way]);
    hnsw_ws_free(w.ws);
    hnsw_free(h);
    free(allow);
    free(q);
    return 0;
}
