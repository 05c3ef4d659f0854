/* duet index search: answers, and how good and how fast they are. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/index_cmd.h"
#include "cli/opts.h"
#include "core/base/mem.h"

static const char usage[] = "duet index search --index FILE --queries FILE [options]";
static const char about[] =
    "Prints a line of id:score for each query, best first; with --json one object a line. With --out, --truth or --recall the figures "
    "are printed instead.\n"
    "Recall@k is the share of the exact k that was found; an answer that ties with the k-th is as good.\n";

struct args {
    const char *index, *queries, *truth, *out, *layout;
    struct index_from from;
    uint64_t k, ef, threads;
    bool exact, recall, json;
};

// ----------------------------------------------------------------------------------------------------------- recall

struct truth {
    uint64_t *label; // [nq][k]
    float *kth;      // [nq] score of the last of them
};

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool truth_by_search(const struct index_run *asked, struct truth *t, struct err *err)
{
    struct index_run r = *asked;
    size_t nq = hnsw_vecs_n(r.query), k = r.p.k;
    r.exact = true;
    r.together = true;
    r.stage = "exact answers";
    r.hit = NULL;
    bool ok = index_run(&r, err);
    for (size_t i = 0; ok && i < nq; i++) {
        for (size_t j = 0; j < k; j++)
            t->label[i * k + j] = r.hit[i * k + j].label;
        t->kth[i] = r.hit[i * k + k - 1].score;
    }
    free(r.hit);
    return ok;
}

static bool truth_row(const struct index_run *r, const char *path, const uint32_t *id, size_t i, struct truth *t,
                      struct err *err)
{
    float vec[HNSW_DIM_MAX];
    t->kth[i] = INFINITY;
    for (size_t j = 0; j < r->p.k; j++) {
        float score;
        if (!hnsw_get_vector(r->h, id[j], vec))
            return err_set(err, ERR_MISMATCH, "%s: query %zu: found id %u, which the index does not have", path, i, id[j]);
        hnsw_scores(hnsw_get_metric(r->h), hnsw_dim(r->h), hnsw_vecs_row(r->query, i), vec, NULL, 1, &score);
        t->kth[i] = fminf(t->kth[i], score);
        t->label[i * r->p.k + j] = id[j];
    }
    return true;
}

static bool truth_by_file(const struct index_run *r, const char *path, struct truth *t, struct err *err)
{
    struct hnsw_err e = {0};
    struct hnsw_vecs *v = hnsw_vecs_open(path, &e);
    size_t nq = hnsw_vecs_n(r->query);
    bool ok = v || index_err(&e, err);
    if (ok && hnsw_vecs_is_float(v))
        ok = err_set(err, ERR_ARG, "%s: found vectors, want ids (.ibin or .ivecs)", path);
    if (ok && (hnsw_vecs_n(v) != nq || hnsw_vecs_dim(v) < r->p.k))
        ok = err_set(err, ERR_MISMATCH, "%s: found %zu ids for each of %zu queries, want %zu or more for %zu", path,
                     hnsw_vecs_dim(v), hnsw_vecs_n(v), r->p.k, nq);
    for (size_t i = 0; ok && i < nq; i++)
        ok = truth_row(r, path, hnsw_vecs_ids(v, i), i, t, err);
    hnsw_vecs_close(v);
    return ok;
}

static double recall_of(const struct index_run *r, struct truth *t)
{
    size_t nq = hnsw_vecs_n(r->query), k = r->p.k, found = 0;
    for (size_t i = 0; i < nq; i++) {
        uint64_t *label = t->label + i * k;
        qsort(label, k, sizeof(*label), ascending);
        for (size_t j = 0; j < k; j++) {
            const struct hnsw_hit *x = &r->hit[i * k + j];
            found += x->score >= t->kth[i] || bsearch(&x->label, label, k, sizeof(*label), ascending) != NULL;
        }
    }
    return (double)found / (double)(nq * k);
}

/* NAN where it is not asked for. */
static bool measure(const struct args *a, const struct index_run *r, double *recall, struct err *err)
{
    *recall = NAN;
    if (!a->truth && !a->recall)
        return true;
    size_t nq = hnsw_vecs_n(r->query);
    struct truth t = {.label = mem_array(nq, r->p.k * sizeof(*t.label), err), .kth = mem_array(nq, sizeof(*t.kth), err)};
    bool ok = t.label && t.kth && (a->truth ? truth_by_file(r, a->truth, &t, err) : truth_by_search(r, &t, err));
    if (ok)
        *recall = recall_of(r, &t);
    free(t.label);
    free(t.kth);
    return ok;
}

// ---------------------------------------------------------------------------------------------------------- answers

static void print_hits(const struct index_run *r, bool json)
{
    const struct hnsw_hit *x = r->hit;
    for (size_t i = 0; i < hnsw_vecs_n(r->query); i++) {
        if (json)
            printf("{\"query\":%zu,\"hits\":[", i);
        for (size_t j = 0; j < r->p.k; j++, x++)
            printf(json ? "%s{\"id\":%llu,\"score\":%.9g}" : "%s%llu:%.9g", j == 0 ? "" : json ? "," : " ",
                   (unsigned long long)x->label, (double)x->score);
        printf(json ? "]}\n" : "\n");
    }
}

static void print_figures(FILE *to, const struct args *a, const struct index_run *r, double recall)
{
    size_t n = hnsw_vecs_n(r->query);
    double per_s = (double)n / r->seconds, p50 = (double)histogram_quantile(&r->latency, 0.5) * 1e-3,
           p99 = (double)histogram_quantile(&r->latency, 0.99) * 1e-3;
    const char *layout = hnsw_layout_name(hnsw_get_layout(r->h));
    size_t ef = a->ef ? a->ef : 64;
    ef = ef < a->k ? a->k : ef;
    if (a->json && to == stdout) {
        fprintf(to, "{\"queries\":%zu,\"k\":%zu,\"exact\":%s,\"ef\":%zu,\"layout\":\"%s\",\"threads\":%u,\"queries_per_s\":%.6g,"
                    "\"p50_us\":%.6g,\"p99_us\":%.6g",
                n, r->p.k, r->exact ? "true" : "false", ef, layout, r->threads, per_s, p50, p99);
        if (!isnan(recall))
            fprintf(to, ",\"recall\":%.6f", recall);
        fprintf(to, "}\n");
        return;
    }
    fprintf(to, "%zu queries, k %zu, ", n, r->p.k);
    if (r->exact)
        fprintf(to, "exact");
    else
        fprintf(to, "ef %zu, %s layout", ef, layout);
    fprintf(to, ", %u thread%s: %.0f q/s, p50 %.1f us, p99 %.1f us", r->threads, r->threads == 1 ? "" : "s", per_s, p50, p99);
    if (!isnan(recall))
        fprintf(to, ", recall@%zu %.4f", r->p.k, recall);
    fprintf(to, "\n");
}

static bool search(const struct args *a, struct index_run *r, struct err *err)
{
    double recall;
    bool only_figures = a->out || a->truth || a->recall;
    if (!index_run(r, err) || !measure(a, r, &recall, err))
        return false;
    if (a->out && !index_hits_write(a->out, r->hit, hnsw_vecs_n(r->query), r->p.k, err))
        return false;
    if (!only_figures)
        print_hits(r, a->json);
    print_figures(only_figures ? stdout : stderr, a, r, recall);
    return fflush(stdout) == 0 || err_errno(err, "standard output");
}

// ---------------------------------------------------------------------------------------------------------- command

static int run(const struct args *a)
{
    struct err err = {0};
    struct hnsw_err e = {0};
    enum hnsw_layout layout = HNSW_COMPACT;
    struct hnsw *h = (!a->layout || index_layout(a->layout, &layout, &err)) ? index_load(a->index, &a->from, &err) : NULL;
    struct hnsw_vecs *q = h ? index_vectors(a->queries, hnsw_dim(h), &err) : NULL;
    struct index_run *r = mem_array(1, sizeof(*r), &err); // its histogram is large
    bool ok = h && q && r;
    if (ok && layout != HNSW_PLAIN && !a->exact && hnsw_get_layout(h) != HNSW_COMPACT)
        ok = hnsw_optimize(h, layout, (unsigned)a->threads, &e) || index_err(&e, &err);
    if (ok) {
        r->h = h;
        r->query = q;
        r->p = (struct hnsw_query){.k = (size_t)a->k, .ef = (size_t)a->ef};
        r->exact = a->exact;
        r->threads = (unsigned)a->threads;
        ok = search(a, r, &err);
        free(r->hit);
    }
    free(r);
    hnsw_vecs_close(q);
    hnsw_free(h);
    return ok ? 0 : cmd_fail("index search", &err);
}

int index_search(int argc, char **argv)
{
    struct args a = {.k = 10, .threads = 1};
    const struct opt opts[] = {
        {"index", OPT_STR, &a.index, "FILE", "of duet index build, or of hnswlib with --metric and --dim", 0, 0},
        {"queries", OPT_STR, &a.queries, "FILE", ".fbin or .fvecs", 0, 0},
        {"k", OPT_UINT, &a.k, "N", "answers of a query", 1, 1 << 20},
        {"ef", OPT_UINT, &a.ef, "N", "breadth of the search; 0 = 64, and never below k", 0, 1 << 20},
        {"exact", OPT_FLAG, &a.exact, NULL, "scan every element", 0, 0},
        {"layout", OPT_STR, &a.layout, "NAME", "plain, or made after loading: fast or compact (default compact)", 0, 0},
        {"threads", OPT_UINT, &a.threads, "N", "that answer queries", 1, 64},
        {"truth", OPT_STR, &a.truth, "FILE", "exact answers (.ibin, .ivecs) to measure recall against", 0, 0},
        {"recall", OPT_FLAG, &a.recall, NULL, "measure recall against exact answers computed here", 0, 0},
        {"out", OPT_STR, &a.out, "FILE", "ids to .ibin or .ivecs", 0, 0},
        {"json", OPT_FLAG, &a.json, NULL, "print JSON", 0, 0},
        INDEX_FROM_OPTS(&a.from),
        {0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, NULL);
    if (rc >= 0)
        return rc;
    if (!a.index || !a.queries)
        return index_wrong("search", usage, "--index and --queries are needed");
    if (a.truth && a.recall)
        return index_wrong("search", usage, "--truth or --recall, not both");
    return run(&a);
}
