/* layouts.c - what does a query cost in each layout, by metric, dimensions and the processor's kernels?
 *
 *   bench_layouts [n] [rounds] [dim ...]
 *
 * n clustered vectors (IP and L2 as they are, all of unit length), k = 100 and 10, one thread, the layouts taking turns in each round;
 * ef is where walks of all layouts end by the same count, so recalls are alike. Figures: bench/results.md. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/util.h"
#include "index/hnsw.h"

enum { NQ = 300, MAX_K = 100, MAX_ROUNDS = 101, LAYOUTS = 3 };

static void need(bool ok, const char *why)
{
    if (ok)
        return;
    fprintf(stderr, "layouts: %s\n", why);
    exit(1);
}

struct work {
    struct hnsw *h[LAYOUTS];
    struct hnsw_ws *ws;
    const float *v, *q; // [n][dim], [NQ][dim]
    enum hnsw_metric metric;
    size_t dim;
    struct hnsw_hit *hit, *want; // [NQ][k]
};

static struct hnsw *build(const float *v, size_t n, size_t dim, enum hnsw_metric metric, enum hnsw_layout layout, const char *file)
{
    struct hnsw_err err = {0};
    struct hnsw_params p = {.metric = metric, .dim = dim, .capacity = n, .ef_construction = 120, .seed = 1};
    struct hnsw *h = layout == HNSW_PLAIN ? hnsw_new(&p, &err) : hnsw_load(file, &err);
    need(h, err.msg);
    if (layout == HNSW_PLAIN)
        need(hnsw_add_batch(h, v, NULL, n, 2, NULL, NULL, &err) && hnsw_save(h, file, &err), err.msg);
    need(hnsw_optimize(h, layout, 2, &err), err.msg);
    return h;
}

/* CPU microseconds a query. */
static double run(struct work *w, int layout, size_t k, size_t ef, bool scan, struct hnsw_hit *hit)
{
    struct hnsw_err err = {0};
    struct hnsw_query p = {.k = k, .ef = ef, .plan = scan ? HNSW_PLAN_SCAN : HNSW_PLAN_WALK};
    double start = bench_seconds(CLOCK_THREAD_CPUTIME_ID);
    for (size_t i = 0; i < NQ; i++)
        hnsw_search(w->h[layout], w->q + i * w->dim, &p, w->ws, hit + i * k, &err);
    need(err.code == HNSW_OK, err.msg);
    return (bench_seconds(CLOCK_THREAD_CPUTIME_ID) - start) * 1e6 / NQ;
}

/* Of the vectors themselves: those found that score as well as the k-th. */
static double recall(const struct work *w, size_t k)
{
    size_t good = 0;
    for (size_t i = 0; i < NQ; i++)
        for (size_t x = 0; x < k; x++) {
            uint32_t id[2] = {(uint32_t)w->want[i * k + k - 1].label, (uint32_t)w->hit[i * k + x].label};
            float score[2];
            hnsw_scores(w->metric, w->dim, w->q + i * w->dim, w->v, id, 2, score);
            good += score[1] >= score[0];
        }
    return (double)good / (double)(NQ * k);
}

static void measure(struct work *w, const char *kernel, size_t k, size_t ef, bool scan, size_t rounds)
{
    double us[LAYOUTS][MAX_ROUNDS], found[LAYOUTS];
    run(w, HNSW_PLAIN, k, k, true, w->want);
    for (size_t r = 0; r < rounds; r++)
        for (int l = 0; l < LAYOUTS; l++) {
            us[l][r] = run(w, l, k, ef, scan, w->hit);
            found[l] = recall(w, k);
        }
    printf("| %s | %s | %zu | %zu | %s |", kernel, hnsw_metric_name(w->metric), w->dim, k, scan ? "scan" : "walk");
    double least = bench_median(us[HNSW_PLAIN], rounds);
    for (int l = 0; l < LAYOUTS; l++)
        printf(" %.1f (%.2f), %.4f |", bench_median(us[l], rounds), least / bench_median(us[l], rounds), found[l]);
    printf("\n");
    fflush(stdout);
}

static void measure_all(size_t n, size_t dim, enum hnsw_metric metric, size_t rounds)
{
    static const char *const kernel[] = {"avx512", "avx2", "sse", "plain"};
    char file[] = "/tmp/bench_layouts.XXXXXX";
    int fd = mkstemp(file);
    need(fd >= 0, "no temporary file");
    close(fd);
    float *v = bench_vectors(n, dim, 1), *q = bench_vectors(NQ, dim, 2);
    struct work w = {.ws = hnsw_ws_new(), .v = v, .q = q, .metric = metric, .dim = dim};
    w.hit = calloc((size_t)NQ * MAX_K, sizeof(*w.hit));
    w.want = calloc((size_t)NQ * MAX_K, sizeof(*w.want));
    need(w.ws && w.hit && w.want, "out of memory");
    for (int l = 0; l < LAYOUTS; l++)
        w.h[l] = build(v, n, dim, metric, (enum hnsw_layout)l, file);
    remove(file);
    for (size_t x = 0; x < sizeof(kernel) / sizeof(kernel[0]); x++)
        if (hnsw_force_kernel(kernel[x])) {
            measure(&w, kernel[x], 100, 100, false, rounds);
            measure(&w, kernel[x], 10, 28, false, rounds);
            measure(&w, kernel[x], 100, 100, true, rounds);
        }
    hnsw_force_kernel(NULL);
    for (int l = 0; l < LAYOUTS; l++)
        hnsw_free(w.h[l]);
    hnsw_ws_free(w.ws);
    free(w.hit);
    free(w.want);
    free(v);
    free(q);
}

int main(int argc, char **argv)
{
    size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 20000, rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 3;
    if (n < 1000 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: %s [n from 1000] [rounds up to %d] [dim ...]\n", argv[0], MAX_ROUNDS);
        return 2;
    }
    printf("%zu elements: CPU us a query (times as fast as plain), recall\n\n| kernels | metric | dim | k | way | plain | fast | compact |\n"
           "|---|---|---|---|---|---|---|---|\n", n);
    for (int i = 3; i < argc; i++)
        for (int metric = HNSW_IP; metric <= HNSW_L2; metric += HNSW_L2 - HNSW_IP)
            measure_all(n, strtoul(argv[i], NULL, 10), (enum hnsw_metric)metric, rounds);
    return 0;
}
