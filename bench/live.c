/* live.c - what does it cost that an index can change while it is searched? Searches of struct hnsw_live against those
 * of the bare graph, with an empty delta and with some of the elements replaced since the last merge; puts; a merge.
 *
 *   bench_live [n] [rounds]
 *
 * n clustered unit vectors of 32 dimensions, k = 100, ef = 150, one thread, the fast layout. Each round takes all in turn.
 * Figures: bench/results.md. */
#include <stdio.h>
#include <stdlib.h>

#include "bench/util.h"
#include "index/hnsw_live.h"

enum { DIM = 32, NQ = 500, K = 100, EF = 150, MAX_ROUNDS = 101 };

static void need(bool ok, const struct hnsw_err *err)
{
    if (ok)
        return;
    fprintf(stderr, "live: %s\n", err->msg);
    exit(1);
}

/* CPU microseconds a query: of `l`, or of the bare graph. */
static double search(const struct hnsw_live *l, const struct hnsw *h, const float *q, struct hnsw_ws *ws)
{
    struct hnsw_query p = {.k = K, .ef = EF};
    struct hnsw_hit hit[K];
    struct hnsw_err err = {0};
    double start = bench_seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (size_t i = 0; i < NQ; i++)
        need((l ? hnsw_live_search(l, q + i * DIM, &p, ws, hit, &err)
                : hnsw_search(h, q + i * DIM, &p, ws, hit, &err)) == K,
             &err);
    return (bench_seconds(CLOCK_PROCESS_CPUTIME_ID) - start) * 1e6 / NQ;
}

static struct hnsw *build(const float *v, size_t n)
{
    struct hnsw_params params = {.metric = HNSW_IP, .dim = DIM, .capacity = n, .ef_construction = 120, .seed = 1};
    struct hnsw_err err = {0};
    struct hnsw *h = hnsw_new(&params, &err);
    need(h && hnsw_add_batch(h, v, NULL, n, 2, NULL, NULL, &err) && hnsw_optimize(h, HNSW_FAST, 2, &err), &err);
    return h;
}

int main(int argc, char **argv)
{
    static const unsigned changed[] = {0, 10, 20}; // of a thousand elements, since the last merge
    enum { WAYS = 1 + sizeof(changed) / sizeof(changed[0]) };
    size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000, rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 11;
    if (n < 1000 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "live: want bench_live [n from 1000] [rounds up to %d]\n", MAX_ROUNDS);
        return 2;
    }
    float *v = bench_vectors(n + n / 50, DIM, 1), *q = bench_vectors(NQ, DIM, 2);
    struct hnsw_err err = {0};
    struct hnsw *bare = build(v, n);
    struct hnsw_live *live[WAYS] = {NULL};
    double put_s = 0, us[WAYS][MAX_ROUNDS];
    size_t puts = 0;
    for (size_t w = 1; w < WAYS; w++) {
        struct hnsw_live_params params = {.delta_max = n / 50 + 1, .optimize = true};
        live[w] = hnsw_live_open(build(v, n), &params, &err);
        need(live[w] != NULL, &err);
        size_t m = n * changed[w - 1] / 1000;
        double start = bench_seconds(CLOCK_MONOTONIC);
        for (size_t i = 0; i < m; i++)
            need(hnsw_live_put(live[w], i * (n / (m ? m : 1)), v + (n + i) * DIM, &err), &err);
        put_s += bench_seconds(CLOCK_MONOTONIC) - start;
        puts += m;
    }
    struct hnsw_ws *ws = hnsw_ws_new();
    for (size_t r = 0; r < rounds; r++)
        for (size_t w = 0; w < WAYS; w++)
            us[w][r] = search(live[w], bare, q, ws);
    double first = bench_median(us[0], rounds);
    printf("bare graph: %.1f us a query\n", first);
    for (size_t w = 1; w < WAYS; w++) {
        double m = bench_median(us[w], rounds);
        printf("live, %.1f %% replaced: %.1f us (%.2f)\n", changed[w - 1] / 10.0, m, m / first);
    }
    printf("puts: %.0f a second\n", (double)puts / put_s);
    double start = bench_seconds(CLOCK_MONOTONIC);
    need(hnsw_live_merge(live[WAYS - 1], 2, &err), &err);
    printf("merge of 2 %% into %zu, 2 threads, fast layout included: %.2f s\n", n, bench_seconds(CLOCK_MONOTONIC) - start);
    for (size_t w = 1; w < WAYS; w++)
        hnsw_live_free(live[w]);
    hnsw_free(bare);
    hnsw_ws_free(ws);
    free(v);
    free(q);
    return 0;
}
