/* duet index build: vectors -> index. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cli/cmd.h"
#include "cli/index_cmd.h"
#include "cli/opts.h"
#include "cli/progress.h"

static const char usage[] = "duet index build --vectors FILE --out FILE [options]";
static const char about[] =
    "Vectors: .fbin or .fvecs. The label of a vector is its row, or its id out of --ids.\n"
    "The file appears when it is complete.\n";

struct args {
    const char *vectors, *ids, *out, *metric;
    uint64_t m, ef_construction, threads, seed;
};

static void show(void *user, size_t done, size_t n)
{
    progress_show(user, "building the graph", (double)done / (double)n);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void print_result(const struct args *a, const struct hnsw *h, double seconds)
{
    struct hnsw_stats s;
    hnsw_get_stats(h, &s);
    printf("%s: %zu elements of %zu dimensions, %s, m %u, ef_construction %u, %.1f bytes an element in memory, built in %.2f s by "
           "%llu thread%s\n",
           a->out, s.n, hnsw_dim(h), hnsw_metric_name(hnsw_get_metric(h)), s.m, s.ef_construction, (double)s.bytes / (double)s.n,
           seconds, (unsigned long long)a->threads, a->threads == 1 ? "" : "s");
}

static bool build(const struct args *a, const struct hnsw_vecs *v, const uint64_t *id, struct err *err)
{
    char tmp[PATH_MAX];
    struct hnsw_err e = {0};
    struct hnsw_params p = {.dim = hnsw_vecs_dim(v),
                            .capacity = hnsw_vecs_n(v),
                            .m = (unsigned)a->m,
                            .ef_construction = (unsigned)a->ef_construction,
                            .seed = a->seed};
    struct progress progress = progress_start("index build");
    if (!index_metric(a->metric, &p.metric, err) || !index_out_begin(tmp, a->out, err))
        return false;
    double start = now();
    struct hnsw *h = hnsw_new(&p, &e);
    bool ok = h && hnsw_vecs_add(h, v, id, (unsigned)a->threads, show, &progress, &e);
    double seconds = now() - start;
    ok = (ok && hnsw_save(h, tmp, &e)) || index_err(&e, err);
    ok = index_out_end(tmp, a->out, ok, err);
    if (ok)
        print_result(a, h, seconds);
    hnsw_free(h);
    return ok;
}

static int run(const struct args *a)
{
    struct err err = {0};
    struct hnsw_vecs *v = index_vectors(a->vectors, 0, &err);
    uint64_t *id = v && a->ids ? index_ids_read(a->ids, hnsw_vecs_n(v), &err) : NULL;
    bool ok = v && (id || !a->ids) && build(a, v, id, &err);
    free(id);
    hnsw_vecs_close(v);
    return ok ? 0 : cmd_fail("index build", &err);
}

int index_build(int argc, char **argv)
{
    struct args a = {.metric = "ip", .m = 16, .ef_construction = 200, .threads = index_cores(), .seed = 1};
    const struct opt opts[] = {
        {"vectors", OPT_STR, &a.vectors, "FILE", ".fbin or .fvecs", 0, 0},
        {"ids", OPT_STR, &a.ids, "FILE", "labels: .ibin, .ivecs or .txt, one for each vector", 0, 0},
        {"out", OPT_STR, &a.out, "FILE", "index to write", 0, 0},
        {"metric", OPT_STR, &a.metric, "NAME", "ip, cosine or l2", 0, 0},
        {"m", OPT_UINT, &a.m, "N", "links of an element", 2, HNSW_M_MAX},
        {"ef-construction", OPT_UINT, &a.ef_construction, "N", "breadth of the search while building", 1, 100000},
        {"threads", OPT_UINT, &a.threads, "N", "with 1 the same input gives the same graph", 1, 64},
        {"seed", OPT_UINT, &a.seed, "N", "levels are drawn from it", 0, 0},
        {0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, NULL);
    if (rc >= 0)
        return rc;
    if (!a.vectors || !a.out)
        return index_wrong("build", usage, "--vectors and --out are needed");
    return run(&a);
}
