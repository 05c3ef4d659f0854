/* index_load.c - what does loading an index cost: private by 1, 2, ... threads, and shared; and searching what was loaded?
 *
 *   bench_index_load FILE [rounds] [max threads]
 *
 * The file is one of hnsw_save, in the page cache after the first round. Each round takes all ways in turn. Figures: bench/results.md. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/util.h"
#include "index/hnsw.h"

#define MAX_WAYS 16
#define MAX_ROUNDS 101
#define N_QUERIES 500

struct way {
    char name[32];
    struct hnsw_load_opts opts;
    double wall[MAX_ROUNDS], cpu[MAX_ROUNDS], search[MAX_ROUNDS]; // s, s, us of CPU a query
};

static double search(const struct hnsw *h)
{
    struct hnsw_query p = {.k = 100, .ef = 150};
    struct hnsw_ws *ws = hnsw_ws_new();
    struct hnsw_hit hit[100];
    double start = 0;
    for (size_t i = 0; i < 2 * N_QUERIES; i++) { // elements all over as queries; the first half warms up
        if (i == N_QUERIES)
            start = bench_seconds(CLOCK_PROCESS_CPUTIME_ID);
        const float *q = hnsw_vector(h, i * 7919 % hnsw_count(h));
        if (!q || hnsw_search(h, q, &p, ws, hit, NULL) == 0)
            exit(1);
    }
    hnsw_ws_free(ws);
    return (bench_seconds(CLOCK_PROCESS_CPUTIME_ID) - start) / N_QUERIES * 1e6;
}

static void round_of(struct way *w, const char *path, size_t round)
{
    struct hnsw_err err = {0};
    double wall = bench_seconds(CLOCK_MONOTONIC), cpu = bench_seconds(CLOCK_PROCESS_CPUTIME_ID);
    struct hnsw *h = hnsw_load_with(path, &w->opts, &err);
    w->wall[round] = bench_seconds(CLOCK_MONOTONIC) - wall;
    w->cpu[round] = bench_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    if (!h) {
        fprintf(stderr, "%s\n", err.msg);
        exit(1);
    }
    w->search[round] = search(h);
    hnsw_free(h);
}

int main(int argc, char **argv)
{
    static struct way way[MAX_WAYS];
    struct stat st;
    size_t rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 7, n = 0;
    unsigned most = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 2;
    if (argc < 2 || stat(argv[1], &st) != 0 || rounds < 1 || rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: %s FILE [rounds] [max threads]\n", argv[0]);
        return 2;
    }
    for (int shared = 0; shared < 2; shared++)
        for (unsigned t = 1; t <= most && n < MAX_WAYS; t *= 2, n++) {
            way[n].opts = (struct hnsw_load_opts){.threads = t, .shared = shared};
            snprintf(way[n].name, sizeof(way[n].name), "%s, %u threads", shared ? "shared" : "private", t);
        }
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < n; i++)
            round_of(&way[i], argv[1], r);
    printf("%.1f MB, medians of %zu rounds\n| way | wall ms | CPU ms | wall s / GB | CPU us a query |\n|---|---|---|---|---|\n",
           (double)st.st_size * 1e-6, rounds);
    for (size_t i = 0; i < n; i++) {
        double wall = bench_median(way[i].wall, rounds);
        printf("| %s | %.0f | %.0f | %.2f | %.1f |\n", way[i].name, wall * 1e3, bench_median(way[i].cpu, rounds) * 1e3,
               wall / ((double)st.st_size * 1e-9), bench_median(way[i].search, rounds));
    }
    return 0;
}
