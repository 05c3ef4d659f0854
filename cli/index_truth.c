/* duet index truth: exact answers.
 * Out of a file of vectors a block of them that fits the second-level cache is scored against every query before the next is fetched,
 * so memory is read once for each thread, not once for each query. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/index_cmd.h"
#include "cli/opts.h"
#include "cli/progress.h"
#include "core/base/mem.h"
#include "core/best.h"
#include "train/pool.h"

static const char usage[] = "duet index truth (--vectors FILE | --index FILE) --queries FILE --out FILE [options]";
static const char about[] = "Scans all vectors for each query, and writes the ids of the best k, best first.\n";

#define BLOCK_BYTES ((size_t)256 << 10)

struct args {
    const char *vectors, *ids, *index, *queries, *out, *metric;
    struct index_from from;
    uint64_t k, threads;
};

struct scan {
    enum hnsw_metric metric;
    const struct hnsw_vecs *base, *query;
    const uint64_t *id; // [base] or NULL
    size_t k, n_block;
    struct retrieve_hit *best; // [queries][k]
    float *scratch;            // [threads][n_block][dim + 1]: vectors without gaps, scores
    unsigned threads;
    struct progress progress;
};

static void offer_block(const struct scan *s, size_t q, size_t first, size_t n, const float *score)
{
    struct retrieve_hit *best = s->best + q * s->k;
    size_t have = first < s->k ? first : s->k;
    for (size_t i = 0; i < n; i++)
        if (have < s->k || score[i] >= best[0].score)
            have = best_offer(best, have, s->k,
                              (struct retrieve_hit){s->id ? (uint32_t)s->id[first + i] : (uint32_t)(first + i), score[i]});
}

static void work(void *ctx, unsigned t)
{
    struct scan *s = ctx;
    size_t n = hnsw_vecs_n(s->base), dim = hnsw_vecs_dim(s->base), lo, hi;
    float *block = s->scratch + t * s->n_block * (dim + 1), *score = block + s->n_block * dim;
    pool_range(hnsw_vecs_n(s->query), t, s->threads, &lo, &hi);
    for (size_t first = 0, some; first < n; first += some) {
        some = n - first < s->n_block ? n - first : s->n_block;
        for (size_t i = 0; i < some; i++)
            memcpy(block + i * dim, hnsw_vecs_row(s->base, first + i), dim * sizeof(*block));
        for (size_t q = lo; q < hi; q++) {
            hnsw_scores(s->metric, dim, hnsw_vecs_row(s->query, q), block, NULL, some, score);
            offer_block(s, q, first, some, score);
        }
        if (t == 0)
            progress_show(&s->progress, "exact answers", (double)(first + some) / (double)n);
    }
    for (size_t q = lo; q < hi; q++)
        best_sort(s->best + q * s->k, s->k);
}

static bool scan_vectors(const struct args *a, const struct hnsw_vecs *base, const uint64_t *id, const struct hnsw_vecs *q,
                         struct hnsw_hit *hit, struct err *err)
{
    size_t nq = hnsw_vecs_n(q), dim = hnsw_vecs_dim(base), k = (size_t)a->k;
    struct scan s = {.base = base, .query = q, .id = id, .k = k, .n_block = BLOCK_BYTES / (dim * sizeof(float))};
    s.threads = (unsigned)a->threads;
    s.progress = progress_start("index truth");
    if (!index_metric(a->metric, &s.metric, err))
        return false;
    s.best = mem_array(nq, k * sizeof(*s.best), err);
    s.scratch = mem_array(s.threads, s.n_block * (dim + 1) * sizeof(*s.scratch), err);
    struct pool *pool = s.best && s.scratch ? pool_new(s.threads, err) : NULL;
    if (pool)
        pool_run(pool, work, &s);
    for (size_t i = 0; pool && i < nq * k; i++)
        hit[i] = (struct hnsw_hit){s.best[i].item_idx, s.best[i].score};
    bool ok = pool != NULL;
    pool_free(pool);
    free(s.best);
    free(s.scratch);
    return ok;
}

static bool from_vectors(const struct args *a, struct err *err)
{
    struct hnsw_vecs *base = index_vectors(a->vectors, 0, err);
    struct hnsw_vecs *q = base ? index_vectors(a->queries, hnsw_vecs_dim(base), err) : NULL;
    size_t n = q ? hnsw_vecs_n(base) : 0, nq = q ? hnsw_vecs_n(q) : 0;
    bool ok = q != NULL;
    if (ok && a->k > n)
        ok = err_set(err, ERR_ARG, "-k: found %llu, want at most the %zu vectors", (unsigned long long)a->k, n);
    uint64_t *id = ok && a->ids ? index_ids_read(a->ids, n, err) : NULL;
    ok = ok && (id || !a->ids);
    for (size_t i = 0; ok && id && i < n; i++)
        if (id[i] > UINT32_MAX)
            ok = err_set(err, ERR_LIMIT, "%s: found id %llu, want at most 4294967295, which is all that %s can hold", a->ids,
                         (unsigned long long)id[i], a->out);
    struct hnsw_hit *hit = ok ? mem_array(nq, a->k * sizeof(*hit), err) : NULL;
    ok = hit && scan_vectors(a, base, id, q, hit, err) && index_hits_write(a->out, hit, nq, (size_t)a->k, err);
    free(hit);
    free(id);
    hnsw_vecs_close(q);
    hnsw_vecs_close(base);
    return ok;
}

static bool from_index(const struct args *a, struct err *err)
{
    struct index_run *r = mem_array(1, sizeof(*r), err);
    struct hnsw *h = r ? index_load(a->index, &a->from, err) : NULL;
    struct hnsw_vecs *q = h ? index_vectors(a->queries, hnsw_dim(h), err) : NULL;
    bool ok = q != NULL;
    if (ok) {
        r->h = h;
        r->query = q;
        r->p.k = (size_t)a->k;
        r->exact = true;
        r->together = true;
        r->threads = (unsigned)a->threads;
        r->stage = "exact answers";
        ok = index_run(r, err) && index_hits_write(a->out, r->hit, hnsw_vecs_n(q), r->p.k, err);
        free(r->hit);
    }
    free(r);
    hnsw_vecs_close(q);
    hnsw_free(h);
    return ok;
}

int index_truth(int argc, char **argv)
{
    struct err err = {0};
    struct args a = {.k = 100, .threads = index_cores()};
    const struct opt opts[] = {
        {"vectors", OPT_STR, &a.vectors, "FILE", ".fbin or .fvecs to search", 0, 0},
        {"ids", OPT_STR, &a.ids, "FILE", "their ids: .ibin, .ivecs or .txt; rows if not given", 0, 0},
        {"index", OPT_STR, &a.index, "FILE", "instead: an index's vectors", 0, 0},
        {"queries", OPT_STR, &a.queries, "FILE", ".fbin or .fvecs", 0, 0},
        {"out", OPT_STR, &a.out, "FILE", ".ibin or .ivecs to write", 0, 0},
        {"k", OPT_UINT, &a.k, "N", "ids of a query", 1, 1 << 20},
        {"threads", OPT_UINT, &a.threads, "N", "that scan", 1, POOL_THREADS_MAX},
        {"metric", OPT_STR, &a.metric, "NAME", "ip (of --vectors the default), cosine or l2", 0, 0},
        {"dim", OPT_UINT, &a.from.dim, "N", "of an index of hnswlib's: its dimensions", 1, HNSW_DIM_MAX},
        {0},
    };
    int rc = opts_parse(usage, about, opts, argc, argv, NULL);
    if (rc >= 0)
        return rc;
    if (!a.vectors == !a.index || !a.queries || !a.out)
        return index_wrong("truth", usage, "one of --vectors and --index, --queries and --out are needed");
    if (a.index && a.ids)
        return index_wrong("truth", usage, "--ids belongs to --vectors; an index has its own");
    a.from.metric = a.metric;
    if (!a.metric)
        a.metric = "ip";
    return (a.vectors ? from_vectors(&a, &err) : from_index(&a, &err)) ? 0 : cmd_fail("index truth", &err);
}
